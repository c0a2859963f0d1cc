"""Reference-free quality estimation (section 3.2.2): COMETKiwi, or round-trip chrF where no QE model is to be had."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from sdrrl_factory.engine import Need, weights_of
from sdrrl_factory.errors import under
from sdrrl_factory.memory import Memory
from sdrrl_factory.models.comet import Comet
from sdrrl_factory.transfer import translate
from sdrrl_factory.transfer.exchanges import question
from sdrrl_factory.transfer.recipe import Quality
from sdrrl_factory.transfer.recipe import Translator as TranslatorKeys
from sdrrl_factory.transfer.stage import Batch, Hop, Progress, Stage, running, unseen

Pair = tuple[str, str]  # (source text, its translation)
_TAU = {"cometkiwi": 0.8, "roundtrip": 0.4}  # the paper's; and one measured on Apertium


class Scorer(Protocol):
    """`name` tells this estimator, and all that its scores depend on, from any other."""

    name: str

    def score(self, pairs: Sequence[Pair]) -> list[float]:
        """An estimate in [0, 1] of each pair, which does not depend on the others."""
        ...


@dataclass(frozen=True)
class Score(Stage):
    """+ question_qe, answer_qe, output_qe (as `sides` says): in [0, 1]; None without a translation or an estimator.

    scorer: the estimator (`Scorer.name`); "": none.
    quality, translator, memory: what it is made of, all of which is in its name; `translator` is that of the way back.
    """

    sides: tuple[str, ...]
    source: str
    target: str
    scorer: str
    quality: Quality = running()
    translator: TranslatorKeys = running()
    memory: Path = running()
    version: ClassVar[int] = 3

    @contextmanager
    def open(self, progress: Progress = unseen) -> Iterator[Scorer | None]:
        if not self.scorer:
            yield None
            return
        with Memory(self.memory) as memory:
            yield make(self.quality, self.translator, self.source, self.target, memory)

    def __call__(self, batch: Batch, tool: Scorer | None = None) -> Batch:
        pairs = {side: list(side_pairs(batch, side)) for side in self.sides}
        scores: dict[Pair, float] = {}
        if tool:
            # Each distinct pair once: ground truths repeat, and stand in the answers too.
            translated = [(text, mt) for of_side in pairs.values() for text, mt in of_side if mt is not None]
            distinct = list(dict.fromkeys(translated))
            if distinct:
                scores = dict(zip(distinct, tool.score(distinct), strict=True))
        rounded: dict[tuple[str, str | None], float] = {pair: round(score, 4) for pair, score in scores.items()}
        return {**batch, **{f"{side}_qe": [rounded.get(pair) for pair in of_side] for side, of_side in pairs.items()}}

    def need(self) -> Need:
        if not self.scorer:
            return Need()
        if self.quality.backend == "roundtrip":
            return translate.need_of(self.translator)
        return Need(gpus=1, memory=weights_of(self.quality.model))

    def kept_in(self) -> Path | None:
        return self.memory if self.scorer and self.quality.backend == "roundtrip" else None

    def segments(self, batch: Batch, tool: Scorer | None) -> dict[Hop, list[str]]:
        if not isinstance(tool, RoundTrip):
            return {}
        return tool.segments([mt for side in self.sides for _, mt in side_pairs(batch, side) if mt is not None])

    def answer(self, segments: Sequence[str], hop: Hop, tool: "RoundTrip", reason: str = "") -> None:
        tool.answer(segments, hop, reason)


def threshold(config: Quality) -> float | None:
    """tau: a pair that scores less is rejected; None without quality estimation."""
    if config.backend == "none":
        return None
    return _TAU[config.backend] if config.threshold is None else config.threshold


def make(
    quality: Quality, translator: TranslatorKeys, source: str, target: str, memory: Memory
) -> "RoundTrip | CometKiwi | None":
    """The recipe's estimator for translations from `source` to `target`; None without one. Loads nothing yet.

    Raises: UserError about a key of the recipe's `quality`, or of its `translator` for the way back.
    """
    if quality.backend == "cometkiwi":
        with under("quality.model"):
            return CometKiwi(quality.model, quality.batch_size)
    if quality.backend == "roundtrip":
        return RoundTrip(translate.engine(translator, target, source, memory, back=True), source, target)
    return None


def side_pairs(batch: Batch, side: str) -> Iterator[tuple[str, str | None]]:
    """(source text, its translation or None) of "question", "answer" or "output", a record each."""
    if side != "question":
        yield from zip(batch[side], batch[f"{side}_mt"], strict=True)
        return
    columns = (batch[column] for column in ("instruction", "input", "instruction_mt", "input_mt"))
    for instruction, given, instruction_mt, given_mt in zip(*columns, strict=True):
        translated = instruction_mt is not None and given_mt is not None
        yield question(instruction, given), question(instruction_mt, given_mt) if translated else None


class RoundTrip:
    """chrF (Popović 2015) of the translation, translated back, against the source text."""

    def __init__(self, engine: translate.Engine, source: str, target: str):
        self._engine, self._source, self._target = engine, source, target
        self.name = f"roundtrip:chrF2 by {engine.signature(target, source, back=True)}"

    def segments(self, translations: Sequence[str]) -> dict[Hop, list[str]]:
        """As of `Stage`: what the way back of these translations asks."""
        with under("translator"), self._engine.collecting() as asked:
            self._engine.texts(translations, self._target, self._source, back=True)
        return asked

    def answer(self, segments: Sequence[str], hop: Hop, reason: str) -> None:
        """As of `Stage`."""
        with under("translator"):
            if reason:
                self._engine.give_up(segments, *hop, reason)
            else:
                self._engine.answer(segments, *hop)

    def score(self, pairs: Sequence[Pair]) -> list[float]:
        """A text that cannot be translated back scores 0."""
        from sacrebleu.metrics import CHRF

        chrf = CHRF()
        with under("translator"):
            backs = self._engine.texts([target for _, target in pairs], self._target, self._source, back=True)
        return [
            0.0 if back is None else chrf.sentence_score(back, [source]).score / 100
            for (back, _), (source, _) in zip(backs, pairs, strict=True)
        ]


class CometKiwi:
    """COMETKiwi (Rei et al. 2022), its scores kept within [0, 1].

    Its window holds 512 tokens of translation and source text together; what is longer is cut.

    Args:
        model: as `comet.Comet` takes it.
    """

    def __init__(self, model: str, batch_size: int):
        self._comet = Comet(model, batch_size, references=False)
        self.name = f"cometkiwi:{self._comet.name}"

    def score(self, pairs: Sequence[Pair]) -> list[float]:
        with under("quality.model"):
            scores = self._comet.score([{"src": source, "mt": target} for source, target in pairs])
        return [min(max(score, 0.0), 1.0) for score in scores]
