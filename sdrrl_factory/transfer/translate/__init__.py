"""T: machine translation. One protocol, one file a backend, and what all of them share."""

from collections.abc import Callable, Sequence
from typing import Protocol

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.memory import Memory, translation_kind
from sdrrl_factory.text import around, kept, pieces
from sdrrl_factory.transfer.recipe import Translator as Config


class Translator(Protocol):
    """`name` tells this translator and its settings from any other, in the memory."""

    name: str

    def translate(self, segments: Sequence[str], source: str, target: str) -> list[str]:
        """Translate each segment (one sentence, no line ends) from ISO 639-3 `source` to `target`, in order.

        The result for a segment does not depend on its neighbours; "" stands for one that cannot be translated.
        """
        ...


def make(config: Config, hops: Sequence[tuple[str, str]], memory: Memory, place: Callable[[str], str]) -> Translator:
    """The recipe's translator, ready for `hops` (see `route`); models are loaded when first asked."""
    if config.backend == "apertium":
        from sdrrl_factory.transfer.translate.apertium import Apertium

        return Apertium(hops, place("translator"))
    if config.backend == "chat":
        from sdrrl_factory.transfer.translate.chat import Chat

        with under("translator"):
            return Chat(config, memory)
    if config.backend == "nllb":
        from sdrrl_factory.transfer.translate.nllb import Nllb

        return Nllb(config, hops, place)
    from sdrrl_factory.transfer.translate.ctranslate2 import CTranslate2

    return CTranslate2(config, hops, place)


def route(source: str, target: str, via: Sequence[str]) -> list[tuple[str, str]]:
    """The hops from `source` to `target` through `via`; for the way back, give `via` in reverse."""
    stops = [source, *(v for v in via if v not in (source, target)), target]
    return list(zip(stops, stops[1:], strict=False))


class Engine:
    """A translator with what all share: sentences cut out and put back, the memory, pivots, failures caught.

    `sent` counts the segments the translator was asked for.
    """

    def __init__(self, translator: Translator, memory: Memory, via: Sequence[str] = ()):
        self.translator, self.memory, self.via = translator, memory, list(via)
        self.sent = 0

    @property
    def name(self) -> str:
        return " via ".join([self.translator.name, *self.via])

    def texts(self, texts: Sequence[str], source: str, target: str, back: bool = False) -> list[tuple[str | None, str]]:
        """Per text (translation, ""), or (None, why) if one of its sentences cannot be translated.

        A sentence whose placeholders or numbers do not come back is translated again around them. `back`: the
        direction is the way back of a pivoted one.
        """
        via = self.via[::-1] if back else self.via
        cut = [list(pieces(text)) for text in texts]
        known, failed = self._segments([p for text in cut for p, wanted in text if wanted], source, target, via)
        broken = {s: list(around(s)) for s, t in known.items() if not kept(s, t)}
        parts = [p for pieces_ in broken.values() for p, wanted in pieces_ if wanted]
        if parts:
            inner, lost = self._segments(parts, source, target, via)
            for segment, pieces_ in broken.items():
                if not any(wanted and p in lost for p, wanted in pieces_):
                    known[segment] = "".join(inner[p] if wanted else p for p, wanted in pieces_)
        out: list[tuple[str | None, str]] = []
        for text in cut:
            why = next((failed[piece] for piece, wanted in text if wanted and piece in failed), "")
            joined = None if why else "".join(known[piece] if wanted else piece for piece, wanted in text)
            out.append((joined, why))
        return out

    def _segments(self, segments, source, target, via) -> tuple[dict[str, str], dict[str, str]]:
        """Each distinct segment -> its translation, or in the second dict why there is none."""
        at = {s: s for s in segments}  # segment -> where it is on its way
        failed: dict[str, str] = {}
        for hop in route(source, target, via):
            known, lost = self._hop(list(dict.fromkeys(at.values())), *hop)
            failed |= {s: lost[t] for s, t in at.items() if t in lost}
            at = {s: known[t] for s, t in at.items() if t in known}
        return at, failed

    def _hop(self, segments: list[str], source: str, target: str) -> tuple[dict[str, str], dict[str, str]]:
        kind = translation_kind(self.translator.name, source, target)
        known = self.memory.get(kind, segments)
        missing = [s for s in segments if s not in known]
        fresh, failed = self._ask(missing, source, target) if missing else ({}, {})
        self.memory.put(kind, fresh)
        return known | fresh, failed

    def _ask(self, segments: list[str], source: str, target: str) -> tuple[dict[str, str], dict[str, str]]:
        """Ask the translator; what goes wrong is halved down to the segment that causes it."""
        self.sent += len(segments)
        try:
            out = list(self.translator.translate(segments, source, target))
            why = "" if len(out) == len(segments) else f"{len(out)} translations of {len(segments)} segments"
        except UserError:
            raise
        except Exception as err:
            why = " ".join(f"{type(err).__name__}: {err}".split())[:200]
        if why and len(segments) == 1:
            return {}, {segments[0]: why}
        if why:
            middle = len(segments) // 2
            halves = [self._ask(half, source, target) for half in (segments[:middle], segments[middle:])]
            return halves[0][0] | halves[1][0], halves[0][1] | halves[1][1]
        good = {s: _one_line(t) for s, t in zip(segments, out, strict=True) if isinstance(t, str) and t.strip()}
        empty = [s for s in segments if s not in good]
        if len(segments) == 1:
            return good, {s: "empty" for s in empty}
        failed: dict[str, str] = {}
        for segment in empty:
            again, why_not = self._ask([segment], source, target)
            good |= again
            failed |= why_not
        return good, failed


def _one_line(text: str) -> str:
    return " ".join(line.strip() for line in text.strip().splitlines() if line.strip())
