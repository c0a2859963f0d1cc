"""A score computed anew from its predictions, so that any of its items can be resampled, swapped or left out."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sdrrl_eval import resampling
from sdrrl_eval.measure.metrics import mt
from sdrrl_eval.resampling import Statistics

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric

_ROUNDING = 0.006  # an item's own score may be stored with two decimals
_UNBOUNDED = {"comet"}  # may lie a little outside of 0 to 100


def signature_parts(signature: str) -> dict[str, str]:
    """ "tok:13a|smooth:exp" as {"tok": "13a", "smooth": "exp"}."""
    return dict(part.split(":", 1) for part in signature.split("|") if ":" in part)


def statistics(score: dict, rows: Sequence[dict], items: Sequence[Hashable] | None = None) -> Statistics | None:
    """What gives `score` (an entry of results.json) from its predictions; None where they do not give its value.

    BLEU and chrF come from the answers and references, with the settings of the score's signature; a loss from nats
    and tokens; any other metric is the mean of the items' own scores, `row[metric]`.
    """
    if not rows or len(rows) != score["n"]:
        return None
    try:
        candidates = _candidates(score["metric"], rows, signature_parts(score["signature"]))
    except (KeyError, TypeError, ValueError, ImportError, OSError):
        return None  # rows without what the metric needs, or a tokenizer that is not here
    for candidate in candidates:
        if abs(candidate.total() - score["value"]) < _ROUNDING:
            return candidate if items is None else replace(candidate, items=tuple(items))
    return None


def _candidates(metric: str, rows: Sequence[dict], signature: dict[str, str]) -> list[Statistics]:
    """What the score may have been computed from; the one that gives its value is."""
    if metric == "bleu" or metric.startswith("chrf"):
        outputs, references = texts(rows)
        return [mt.statistics(_with_references(metric, tuple(signature.items()), tuple(references)), outputs, None)]
    if all("nats" in row for row in rows):
        return [resampling.ratio([(row["nats"], row["tokens"]) for row in rows], bounds=(0.0, math.inf))]
    pairs = [(float(row[metric]), 1.0) for row in rows]
    bounds = (-math.inf, math.inf) if metric in _UNBOUNDED else (0.0, 100.0)
    # Items are scored in percent, or as right and wrong.
    return [resampling.ratio(pairs, scale=scale, bounds=bounds) for scale in (1.0, 100.0)]


def texts(rows: Sequence[dict]) -> tuple[list[str], list[str]]:
    """(answers, references)."""
    return [row["output"] or "" for row in rows], [row["reference"] for row in rows]


# Counting the references' n-grams is most of the work; the systems of a comparison have the same.
@lru_cache(maxsize=2)
def _with_references(metric: str, signature: tuple[tuple[str, str], ...], references: tuple[str, ...]) -> "Metric":
    return scorer(metric, dict(signature), references=[references])


def scorer(metric: str, signature: dict[str, str], **more: Any) -> "Metric":
    """sacrebleu's metric with the settings of a signature."""
    from sacrebleu.metrics import BLEU, CHRF

    if metric == "bleu":
        return BLEU(
            **more,
            lowercase=signature["case"] == "lc",
            tokenize=signature["tok"],
            smooth_method=signature["smooth"].split("[")[0],
            effective_order=signature["eff"] == "yes",
        )
    return CHRF(
        **more,
        char_order=int(signature["nc"]),
        word_order=int(signature["nw"]),
        whitespace=signature["space"] == "yes",
        lowercase=signature["case"] == "lc",
        # sacrebleu writes eff:no where it smooths by epsilon instead of taking the effective order.
        eps_smoothing=signature["eff"] == "no",
    )
