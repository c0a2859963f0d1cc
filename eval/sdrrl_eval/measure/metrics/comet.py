"""COMET (Rei et al. 2022) by unbabel-comet: the score of a translation beside its source and its reference."""

from collections.abc import Sequence
from functools import lru_cache

from sdrrl_eval.measure.metrics.score import Score, ratio
from sdrrl_factory.models.comet import Comet, installation

_BATCH = 16


@lru_cache(maxsize=1)
def scorer(model: str) -> Comet:
    """wmt22-comet-da or its like, by folder, .ckpt file or hub id; what is missing is said here, before anything runs.

    Its weights are loaded at the first score.
    """
    return Comet(model, _BATCH, references=True)


def comet(
    scorer: Comet, sources: Sequence[str], outputs: Sequence[str], references: Sequence[str], seed: int
) -> tuple[Score, list[float]]:
    """The mean of `comet-score`, and each item's; both times 100, as the paper's Table 3 has them."""
    samples = [
        {"src": source, "mt": output, "ref": reference}
        for source, output, reference in zip(sources, outputs, references, strict=True)
    ]
    items = [100 * value for value in scorer.score(samples)]
    score = ratio([(value, 1.0) for value in items], f"comet:{scorer.name}|scale:100", seed)
    return score, [round(value, 2) for value in items]


def version() -> str:
    """unbabel-comet's, perhaps of another environment; "" where it is not installed."""
    installed = installation()
    return installed.version if installed else ""
