"""What all translators share: sentences cut out of a text and put back, the memory, pivots, failures caught."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from sdrrl_factory.errors import UserError
from sdrrl_factory.log import count, detail
from sdrrl_factory.memory import Memory, translation_kind
from sdrrl_factory.text import around, kept, normal, pieces, with_case
from sdrrl_factory.transfer.stage import Hop

# Segment -> its translation, and segment -> why it has none.
Translations = dict[str, str]
Failures = dict[str, str]
# Languages that write nouns with a capital: German, Luxembourgish.
_CAPITAL_NOUNS = ("deu", "ltz")


@dataclass(frozen=True)
class NoTranslation:
    """In place of a translation: the segment has none, and its neighbours are not to blame."""

    reason: str


class Translator(Protocol):
    """A translator of sentences."""

    @property
    def name(self) -> str:
        """Which one it is, in words."""
        ...

    def signature(self, source: str, target: str) -> str:
        """What tells this translator, and all that its translations in a direction depend on, from any other."""
        ...

    def translate(self, segments: Sequence[str], source: str, target: str) -> Sequence[str | NoTranslation]:
        """Translate each segment (one sentence, no line ends) from ISO 639-3 `source` to `target`, in order.

        The result for a segment does not depend on its neighbours; "" stands for one that cannot be translated,
        or `NoTranslation` where it is known why.
        """
        ...


def route(source: str, target: str, via: Sequence[str]) -> list[Hop]:
    """The hops from `source` to `target` through `via`; for the way back, give `via` in reverse."""
    stops = [source, *(stop for stop in via if stop not in (source, target)), target]
    return list(zip(stops, stops[1:], strict=False))


class Engine:
    """T: a translator of sentences made one of texts, which is asked for each distinct sentence once ever.

    A whole corpus is translated in three steps, by one process or by many: `collecting` what its texts would ask, then
    `answer` in units of segments alike in length, then `texts`, for which the memory now has all.

    `sent` counts the segments the translator was asked for.
    """

    def __init__(self, translator: Translator, memory: Memory, via: Sequence[str] = ()):
        self.translator, self.memory, self.via = translator, memory, list(via)
        self.sent = 0
        self._collected: dict[Hop, list[str]] | None = None

    @property
    def name(self) -> str:
        return " via ".join([self.translator.name, *self.via])

    def signature(self, source: str, target: str, back: bool = False) -> str:
        """What tells translations from `source` to `target` from any others; `back` as of `texts`."""
        hops = route(source, target, self.via[::-1] if back else self.via)
        return ", ".join(f"{start}-{end}: {self.translator.signature(start, end)}" for start, end in hops)

    def texts(self, texts: Sequence[str], source: str, target: str, back: bool = False) -> list[tuple[str | None, str]]:
        """Per text (translation, ""), or (None, reason) if one of its sentences cannot be translated.

        back: the direction is the way back of a pivoted one.
        """
        via = self.via[::-1] if back else self.via
        keeps_capitals = target in _CAPITAL_NOUNS
        # 1. Cut out the sentences, and translate each distinct one.
        cut = [list(pieces(normal(text))) for text in texts]
        segments = [piece for text in cut for piece, is_sentence in text if is_sentence]
        translations, failures = self._segments(segments, source, target, via)
        # 2. Where a placeholder, a URL or a number got lost, translate the parts around them instead.
        broken = {segment: list(around(segment)) for segment, t in translations.items() if not kept(segment, t)}
        parts = [piece for cut_again in broken.values() for piece, is_sentence in cut_again if is_sentence]
        if parts:
            part_translations, part_failures = self._segments(parts, source, target, via)
            part_translations = {p: with_case(t, p, keeps_capitals, False) for p, t in part_translations.items()}
            for segment, cut_again in broken.items():
                if not any(piece in part_failures for piece, is_sentence in cut_again if is_sentence):
                    translations[segment] = _joined(cut_again, part_translations)
        # 3. Translators begin with a capital whatever they are given: the case of the first letter goes back.
        translations = {s: with_case(t, s, keeps_capitals) for s, t in translations.items()}
        # 4. Put the texts together again.
        out: list[tuple[str | None, str]] = []
        for text in cut:
            reason = next((failures[piece] for piece, is_sentence in text if is_sentence and piece in failures), "")
            out.append((None, reason) if reason else (_joined(text, translations), ""))
        return out

    def _segments(
        self, segments: Sequence[str], source: str, target: str, via: Sequence[str]
    ) -> tuple[Translations, Failures]:
        """Each distinct segment through all hops."""
        translations = {segment: segment for segment in segments}
        failures: Failures = {}
        for start, end in route(source, target, via):
            hop, hop_failures = self._hop(list(dict.fromkeys(translations.values())), start, end)
            failures |= {s: hop_failures[t] for s, t in translations.items() if t in hop_failures}
            translations = {s: hop[t] for s, t in translations.items() if t in hop}
        return translations, failures

    @contextmanager
    def collecting(self) -> Iterator[dict[Hop, list[str]]]:
        """Inside, `texts` asks the translator nothing, and gives no translation where it would have.

        The value is what it would have asked. Of a second hop, and of the parts around what gets lost, that is not
        clear before the first is answered: collect again until nothing is left.
        """
        self._collected = {}
        try:
            yield self._collected
        finally:
            self._collected = None

    def answer(self, segments: Sequence[str], source: str, target: str) -> None:
        """Translate distinct segments for the `texts` to come, in this process or any that shares the memory."""
        self._hop(list(segments), source, target)

    def give_up(self, segments: Sequence[str], source: str, target: str, reason: str) -> None:
        """Have no translation of these segments until the memory is closed."""
        self.memory.note(self._kind(source, target), dict.fromkeys(segments, reason))

    def _kind(self, source: str, target: str) -> str:
        return translation_kind(self.translator.signature(source, target), source, target)

    def _hop(self, segments: list[str], source: str, target: str) -> tuple[Translations, Failures]:
        kind = self._kind(source, target)
        remembered = self.memory.get(kind, segments)
        missing = [segment for segment in segments if segment not in remembered]
        failed = self.memory.noted(kind, missing) if missing else {}
        missing = [segment for segment in missing if segment not in failed]
        if self._collected is not None:
            self._collected.setdefault((source, target), []).extend(missing)
            return remembered, failed | dict.fromkeys(missing, "not asked yet")
        fresh, failures = self._ask(missing, source, target) if missing else ({}, {})
        self.memory.put(kind, fresh)
        self.memory.note(kind, failures)
        return remembered | fresh, failed | failures

    def _ask(self, segments: list[str], source: str, target: str) -> tuple[Translations, Failures]:
        """Ask the translator; what goes wrong is halved down to the segment that causes it."""
        self.sent += len(segments)
        try:
            out = list(self.translator.translate(segments, source, target))
            mistake = "" if len(out) == len(segments) else f"{len(out)} translations of {len(segments)} segments"
        except UserError:
            raise
        except Exception as err:
            mistake = " ".join(f"{type(err).__name__}: {err}".split())[:200]
        if mistake and len(segments) == 1:
            count("failures")
            detail(f"translator: {mistake}: {segments[0][:100]}")
            return {}, {segments[0]: mistake}
        if mistake:
            middle = len(segments) // 2
            left, left_failures = self._ask(segments[:middle], source, target)
            right, right_failures = self._ask(segments[middle:], source, target)
            return left | right, left_failures | right_failures
        translations = {s: _one_line(t) for s, t in zip(segments, out, strict=True) if isinstance(t, str) and t.strip()}
        failures = {s: t.reason for s, t in zip(segments, out, strict=True) if isinstance(t, NoTranslation)}
        empty = [segment for segment in segments if segment not in translations and segment not in failures]
        if len(segments) == 1:
            return translations, failures or {segment: "empty" for segment in empty}
        # An empty translation may be its neighbours' doing: once more, alone.
        for segment in empty:
            alone, alone_failures = self._ask([segment], source, target)
            translations |= alone
            failures |= alone_failures
        return translations, failures


def _joined(text: list[tuple[str, bool]], translations: Translations) -> str:
    return "".join(translations[piece] if is_sentence else piece for piece, is_sentence in text)


def _one_line(text: str) -> str:
    return " ".join(line.strip() for line in normal(text).strip().splitlines() if line.strip())
