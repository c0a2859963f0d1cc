"""Paired bootstrap resampling (Koehn 2004): is one system better than another on these items, or was it the draw?

Every system is scored anew on the same resampled items. A corpus score (BLEU, chrF, a loss a token) is computed from
the summed statistics of the items drawn, never averaged over items.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

RESAMPLES, SEED, LEVEL = 1000, 12345, 0.05  # the first two are sacrebleu's
MIN_ITEMS = 6  # of five items that all favour one system, a two-sided sign test says 2 / 2**5 = 0.0625
_ROUNDING = 0.006  # an item's own score may be stored with two decimals
LEGEND = (
    "Bold: best; underlined: second best. † differs from the first system, ‡ the best from the second best "
    f"(p < {LEVEL}, paired bootstrap, {RESAMPLES:,} resamples, seed {SEED}; not corrected for many comparisons)."
)


@dataclass(frozen=True)
class Statistics:
    """`table`: (items, statistics) floats; `value` scores their sum over any choice of items."""

    table: Sequence[Sequence[float]]
    value: Callable[[Sequence[float]], float]

    def total(self) -> float:
        return self.value([sum(column) for column in zip(*self.table, strict=True)])

    def resampled(self):
        """(RESAMPLES,) float64: the score of each resample; equal item counts mean equal draws."""
        import numpy as np

        table = np.asarray(self.table, dtype=np.float64)
        return np.array([self.value(sums) for sums in (draws(len(table)) @ table).tolist()])


def statistics(score: dict, rows: Sequence[dict]) -> Statistics | None:
    """What gives `score` (an entry of results.json) from its predictions; None where they do not give its value.

    BLEU and chrF come from the answers and references, with the settings of the score's signature; a loss from nats
    and tokens; any other metric is the mean of the items' own scores, `row[metric]`.
    """
    if not rows or len(rows) != score["n"]:
        return None
    signature = dict(part.split(":", 1) for part in score["signature"].split("|") if ":" in part)
    try:
        found = _statistics(score["metric"], rows, signature)
    except (KeyError, TypeError, ValueError, ImportError, OSError):
        return None  # rows without what the metric needs, or a tokenizer that is not here
    for scale in (1.0, 100.0) if found else ():
        scaled = Statistics(found.table, lambda sums, scale=scale: scale * found.value(sums))
        if abs(scaled.total() - score["value"]) < _ROUNDING:
            return scaled
    return None


def p_value(value: float, resampled, other: float, other_resampled) -> float:
    """As sacrebleu's `--paired-bs` (Riezler and Maxwell 2005): how often chance alone makes so large a difference.

    It takes the sizes of the resamples' differences around their mean; of a clear difference that is one tail.
    """
    import numpy as np

    size = np.abs(resampled - other_resampled)
    extreme = int(np.sum(size - size.mean() > abs(value - other)))
    return (extreme + 1) / (len(size) + 1)


@lru_cache(maxsize=4)
def draws(items: int):
    """(RESAMPLES, items) float64: how often each resample holds each item, in sacrebleu's draws."""
    import numpy as np

    drawn = np.random.default_rng(SEED).choice(items, size=(RESAMPLES, items), replace=True)
    return np.stack([np.bincount(row, minlength=items) for row in drawn]).astype(np.float64)


def _statistics(metric: str, rows: Sequence[dict], signature: dict[str, str]) -> Statistics | None:
    if metric == "bleu" or metric.startswith("chrf"):
        scorer = _bleu(signature) if metric == "bleu" else _chrf(signature)
        outputs, references = [row["output"] or "" for row in rows], [row["reference"] for row in rows]
        table = scorer._extract_corpus_statistics(outputs, [references])
        return Statistics(table, lambda sums: scorer._compute_score_from_stats(sums).score)
    if all("nats" in row for row in rows):
        return Statistics([(row["nats"], row["tokens"]) for row in rows], _ratio)
    return Statistics([(float(row[metric]), 1.0) for row in rows], _ratio)


def _ratio(sums: Sequence[float]) -> float:
    return sums[0] / sums[1] if sums[1] else 0.0


def _bleu(signature: dict[str, str]):
    from sacrebleu.metrics import BLEU

    return BLEU(
        lowercase=signature["case"] == "lc",
        tokenize=signature["tok"],
        smooth_method=signature["smooth"].split("[")[0],
        effective_order=signature["eff"] == "yes",
    )


def _chrf(signature: dict[str, str]):
    from sacrebleu.metrics import CHRF

    return CHRF(
        char_order=int(signature["nc"]),
        word_order=int(signature["nw"]),
        whitespace=signature["space"] == "yes",
        lowercase=signature["case"] == "lc",
        eps_smoothing=signature["eff"] == "no",
    )
