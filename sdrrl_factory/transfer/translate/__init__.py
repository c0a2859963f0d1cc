"""T: machine translation (section 3.2.2). The stage; one file a backend; engine.py is what all of them share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sdrrl_factory.engine import Need, weights_of
from sdrrl_factory.errors import under
from sdrrl_factory.memory import Memory
from sdrrl_factory.transfer.recipe import Translator as Keys
from sdrrl_factory.transfer.sets import SIDES
from sdrrl_factory.transfer.stage import Batch, Hop, Progress, Stage, running, unseen
from sdrrl_factory.transfer.translate.engine import Engine, Translator, route

__all__ = ["Engine", "Translate", "Translator", "engine", "make", "need_of", "route"]


@dataclass(frozen=True)
class Translate(Stage):
    """+ instruction_mt, input_mt, answer_mt, output_mt (as `sides` says): T of each column; null where a sentence of it
    cannot be translated, with the reason in question_why, answer_why, output_why.

    translator: what tells T from any other (`Engine.signature`); "": there is none, and nothing is translated.
    keys, memory: what it is made of, all of which is in its signature, and the file of what it has translated.
    """

    sides: tuple[str, ...]
    source: str
    target: str
    translator: str
    keys: Keys = running()
    memory: Path = running()
    version: ClassVar[int] = 3

    @contextmanager
    def open(self, progress: Progress = unseen) -> Iterator[Engine | None]:
        if not self.translator:
            yield None
            return
        with Memory(self.memory) as memory:
            yield engine(self.keys, self.source, self.target, memory)

    def __call__(self, batch: Batch, tool: Engine | None = None) -> Batch:
        out = dict(batch)
        for side in self.sides:
            reasons = [""] * len(batch["id"])
            for column in SIDES[side]:
                if tool:
                    with under("translator"):
                        translations = tool.texts(batch[column], self.source, self.target)
                else:
                    translations = [(None, "no translator")] * len(batch["id"])
                out[f"{column}_mt"] = [text for text, _ in translations]
                reasons = [first or reason for first, (_, reason) in zip(reasons, translations, strict=True)]
            out[f"{side}_why"] = reasons
        return out

    def need(self) -> Need:
        return need_of(self.keys) if self.translator else Need()

    def kept_in(self) -> Path | None:
        return self.memory if self.translator else None

    def segments(self, batch: Batch, tool: Engine | None) -> dict[Hop, list[str]]:
        if tool is None:
            return {}
        with under("translator"), tool.collecting() as asked:
            for side in self.sides:
                for column in SIDES[side]:
                    tool.texts(batch[column], self.source, self.target)
        return asked

    def answer(self, segments: Sequence[str], hop: Hop, tool: Engine, reason: str = "") -> None:
        with under("translator"):
            if reason:
                tool.give_up(segments, *hop, reason)
            else:
                tool.answer(segments, *hop)

    def is_final(self, batch: Batch) -> bool:
        # A server may do better next time; a model of one's own would only be loaded to fail again.
        return not self.keys.base_url or not any(any(batch[f"{side}_why"]) for side in self.sides)


def need_of(keys: Keys) -> Need:
    """What a worker needs to translate; of a server one worker asks, which has `concurrency` requests out at a time."""
    if keys.base_url:
        return Need(workers=1)
    if keys.backend == "apertium":
        return Need()
    return Need(gpus=1, memory=weights_of(keys.model))


def engine(keys: Keys, source: str, target: str, memory: Memory, back: bool = False) -> Engine:
    """T from `source` to `target`; `back`: as the way back of a pivoted one. Loads nothing yet.

    Raises: UserError about a key of the recipe's `translator`.
    """
    hops = route(source, target, keys.via[::-1] if back else keys.via)
    return Engine(make(keys, hops, memory), memory, keys.via)


def make(keys: Keys, hops: Sequence[tuple[str, str]], memory: Memory) -> Translator:
    """The recipe's translator of sentences, ready for `hops` (see `route`); models are loaded when first asked.

    memory: of the chat model's answers.

    Raises: UserError about a key of the recipe's `translator`.
    """
    with under("translator"):
        if keys.backend == "apertium":
            from sdrrl_factory.transfer.translate.apertium import Apertium

            return Apertium(hops)
        if keys.backend == "chat":
            from sdrrl_factory.transfer.translate.chat import Chat

            return Chat(keys, memory)
        if keys.backend == "nllb":
            from sdrrl_factory.transfer.translate.nllb import Nllb

            return Nllb(keys, hops)
        from sdrrl_factory.transfer.translate.ctranslate2 import CTranslate2

        return CTranslate2(keys, hops)
