"""A score with its 95% bootstrap interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

RESAMPLES = 500


@dataclass(frozen=True)
class Score:
    value: float
    ci95: tuple[float, float]
    signature: str


def interval(stats: Sequence[Sequence[float]], value: Callable[[list[float]], float], seed: int) -> tuple[float, float]:
    """The 95% percentile bootstrap interval over items (Koehn 2004).

    Args:
        stats: (items, statistics): per item what `value` needs, so that a sum over items scores a corpus.
        value: the score of such a sum.
    """
    import numpy as np

    table = np.asarray(stats, dtype=np.float64)
    n = len(table)
    # (resamples, items): how often each item is drawn.
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    low, high = np.percentile([value(row) for row in (draws @ table).tolist()], [2.5, 97.5])
    return float(low), float(high)


def ratio(pairs: Sequence[tuple[float, float]], signature: str, seed: int, scale: float = 1.0) -> Score:
    """`scale` * the sum of the first numbers / the sum of the second: a loss a token, or a rate over items."""

    def value(sums: Sequence[float]) -> float:
        return scale * sums[0] / sums[1] if sums[1] else 0.0

    total = [sum(column) for column in zip(*pairs, strict=True)]
    return Score(value(total), interval(pairs, value, seed), signature)


def token_loss(losses: Sequence[tuple[float, int]], kind: str, seed: int) -> Score:
    """Token-level cross-entropy in nats: the sum over all tokens / their number. `losses`: (nats, tokens) an item."""
    tokens = sum(n for _, n in losses)
    return ratio(losses, f"unit:nats|tokens:{tokens}|{kind}", seed)
