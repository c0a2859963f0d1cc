"""COMET (Rei et al. 2022) by unbabel-comet: the score of a translation beside its source and its reference."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

from sdrrl_eval.measure.metrics.score import Score, ratio
from sdrrl_factory.memory import Memory, key_of, kind_of
from sdrrl_factory.models.comet import Comet, installation

_BATCH = 16
_KEPT = 64 * _BATCH  # rows after which the scores are kept: whole batches, so that a kill changes none
_memory: ContextVar[Memory | None] = ContextVar("_memory", default=None)


@contextmanager
def remembering(path: Path) -> Iterator[None]:
    """Inside, each score is looked up in the memory at `path` first, and kept there."""
    with Memory(path) as memory:
        token = _memory.set(memory)
        try:
            yield
        finally:
            _memory.reset(token)


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
    items = [100 * value for value in _scores(scorer, samples)]
    score = ratio([(value, 1.0) for value in items], f"comet:{scorer.name}|scale:100", seed)
    return score, [round(value, 2) for value in items]


def _scores(scorer: Comet, samples: Sequence[dict[str, str]]) -> list[float]:
    """`scorer.score`, of what the memory does not have."""
    memory = _memory.get()
    if memory is None:
        return scorer.score(samples)
    kind = kind_of("comet", model=scorer.name, version=scorer.installation.version)
    keys = [key_of(sample) for sample in samples]
    values = memory.get(kind, dict.fromkeys(keys))
    # In the order of `Comet.score`, so that the batches are those of one call.
    missing = [sample for sample, key in zip(samples, keys, strict=True) if key not in values]
    missing.sort(key=lambda sample: sum(map(len, sample.values())))
    for start in range(0, len(missing), _KEPT):
        some = missing[start : start + _KEPT]
        fresh = dict(zip(map(key_of, some), scorer.score(some), strict=True))
        memory.put(kind, fresh)
        values |= fresh
    return [values[key] for key in keys]


def version() -> str:
    """unbabel-comet's, perhaps of another environment; "" where it is not installed."""
    installed = installation()
    return installed.version if installed else ""
