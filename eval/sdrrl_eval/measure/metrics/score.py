"""A score with its 95% interval."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from sdrrl_eval import resampling


@dataclass(frozen=True)
class Score:
    """`ci95`: Wilson's interval where every item is right or wrong, else a bootstrap-t (resampling.py)."""

    value: float
    ci95: tuple[float, float]
    signature: str


def ratio(
    pairs: Sequence[tuple[float, float]],
    signature: str,
    seed: int,
    scale: float = 1.0,
    groups: Sequence[Hashable] | None = None,
) -> Score:
    """`scale` * the sum of the first numbers / the sum of the second: a loss a token, or a rate over items.

    A scale of 100 is that of percentages: the score lies in [0, 100].

    groups: of each item; those that share one (a passage) are resampled together.
    """
    percent = (0.0, 100.0) if scale == 100 else (-math.inf, math.inf)
    statistics = resampling.ratio(pairs, None, scale, percent)
    return score_of(statistics.grouped(groups) if groups else statistics, signature, seed)


def token_loss(losses: Sequence[tuple[float, int]], kind: str, seed: int) -> Score:
    """Token-level cross-entropy in nats: the sum over all tokens / their number. `losses`: (nats, tokens) an item."""
    tokens = sum(n for _, n in losses)
    statistics = resampling.ratio(losses, bounds=(0.0, math.inf))
    return score_of(statistics, f"unit:nats|tokens:{tokens}|{kind}", seed)


def score_of(statistics: resampling.Statistics, signature: str, seed: int) -> Score:
    return Score(statistics.total(), resampling.interval([statistics], seed), signature)
