"""Reference-free quality estimation (section 3.2.2): COMETKiwi, or round-trip chrF where no QE model is to be had."""

from collections.abc import Callable, Iterator, Sequence

from sdrrl_factory.errors import under
from sdrrl_factory.models.comet import Comet
from sdrrl_factory.transfer.generate import question
from sdrrl_factory.transfer.recipe import Quality
from sdrrl_factory.transfer.store import Batch

Pair = tuple[str, str]  # (source text, its translation)
_TAU = {"cometkiwi": 0.8, "roundtrip": 0.4}  # the paper's; and one measured on Apertium


def threshold(config: Quality) -> float | None:
    """tau: a pair that scores less is rejected; None without quality estimation."""
    if config.backend == "none":
        return None
    return _TAU[config.backend] if config.threshold is None else config.threshold


def make(config: Quality, place: Callable[[str], str], translate_back: Callable[[list[str]], list[str | None]]):
    """The recipe's scorer, or None; place: where a recipe key stands; translate_back: T from target to source."""
    if config.backend == "cometkiwi":
        with under("quality.model"):
            return CometKiwi(config.model, config.batch_size)
    return RoundTrip(translate_back) if config.backend == "roundtrip" else None


def score_batch(batch: Batch, sides: Sequence[str], scorer) -> Batch:
    """+ question_qe, answer_qe, output_qe (as `sides` says): a score in [0, 1], None without translation or scorer.

    Each distinct pair is scored once.
    """
    found = {side: list(side_pairs(batch, side)) for side in sides}
    distinct = dict.fromkeys(p for pairs in found.values() for p in pairs if p[1] is not None) if scorer else {}
    known = dict(zip(distinct, scorer.score(list(distinct)) if distinct else [], strict=True))
    rounded = {pair: round(value, 4) for pair, value in known.items()}
    return {**batch, **{f"{side}_qe": [rounded.get(pair) for pair in pairs] for side, pairs in found.items()}}


def side_pairs(batch: Batch, side: str) -> Iterator[tuple[str, str | None]]:
    """(source text, its translation or None) of "question", "answer" or "output", a record each."""
    if side != "question":
        yield from zip(batch[side], batch[f"{side}_mt"], strict=True)
        return
    columns = (batch[c] for c in ("instruction", "input", "instruction_mt", "input_mt"))
    for instruction, given, instruction_mt, given_mt in zip(*columns, strict=True):
        translated = instruction_mt is not None and given_mt is not None
        yield question(instruction, given), question(instruction_mt, given_mt) if translated else None


class RoundTrip:
    """chrF (Popović 2015) of the translation, translated back, against the source text."""

    name = "roundtrip:chrF2"

    def __init__(self, translate_back: Callable[[list[str]], list[str | None]]):
        self.translate_back = translate_back

    def score(self, pairs: Sequence[Pair]) -> list[float]:
        """A text that cannot be translated back scores 0."""
        from sacrebleu.metrics import CHRF

        chrf = CHRF()
        backs = self.translate_back([target for _, target in pairs])
        return [
            0.0 if back is None else chrf.sentence_score(back, [source]).score / 100
            for back, (source, _) in zip(backs, pairs, strict=True)
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
