"""Code-switching the question of each of the four sets (equation 5); answers are never touched."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import ClassVar, NamedTuple

from sdrrl_factory import text as _text
from sdrrl_factory.errors import under
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.transfer.dictionaries import Dictionary
from sdrrl_factory.transfer.draw import rng
from sdrrl_factory.transfer.stage import Batch, Stage
from sdrrl_factory.words import Spans, joins, segmenter

# One line of plain prose: nothing to keep in it, which most questions need not be searched for.
_PROSE = re.compile(r"(?:[^\W_]|[ ,;!?'’\"“”]|[.:](?= |$))*")


class Lookup(NamedTuple):
    """A text looked up in a dictionary: how many words it has, and (start, end, translations) of those in it."""

    text: str
    words: int
    entries: list[tuple[int, int, list[str]]]


@dataclass(frozen=True)
class Switch(Stage):
    """+ instruction_ll_cs, input_ll_cs, ... for each set, and switch_counts, {set: [words, known, switched]}.

    Source-language questions get target words, translated questions source words; each set draws for itself. What
    `text.pieces` and `text.spans` keep from the translator (code, URLs, placeholders) is kept here too.

    questions: set -> its question, "x" or "T(x)" (`sets.SWITCHED`).
    forward, backward: the dictionaries from source to target, and back.
    probability: p; 0 is the paper's ablation without code-switching.

    Raises: UserError about the key "target_lang" when a language's segmenter is missing.
    """

    questions: dict[str, str]
    forward: Dictionary
    backward: Dictionary
    probability: float
    seed: int
    source: str
    target: str
    version: ClassVar[int] = 2

    def __call__(self, batch: Batch, tool: None = None) -> Batch:
        with under("target_lang"):
            in_source, in_target = segmenter(self.source, self.forward), segmenter(self.target, self.backward)
        out: Batch = {**batch, "switch_counts": []}
        for name in self.questions:
            out[f"instruction_{name.lower()}_cs"] = []
            out[f"input_{name.lower()}_cs"] = []
        for i, record_id in enumerate(batch["id"]):
            # The sets differ in their draws only: each text is searched once.
            lookups = {
                column: _look_up(batch[column][i], dictionary, segment)
                for suffix, dictionary, segment in (("", self.forward, in_source), ("_mt", self.backward, in_target))
                for column in (f"instruction{suffix}", f"input{suffix}")
            }
            counts = {}
            for name, question in self.questions.items():
                random = rng(self.seed, record_id, f"switch {name}")
                suffix, code = ("", self.source) if question == "x" else ("_mt", self.target)
                counts[name] = [0, 0, 0]
                for part in ("instruction", "input"):
                    lookup = lookups[f"{part}{suffix}"]
                    text, switched = _switch(lookup, self.probability, random, LANGUAGES[code].spaced)
                    out[f"{part}_{name.lower()}_cs"].append(text)
                    if lookup:
                        more = (lookup.words, len(lookup.entries), switched)
                        counts[name] = [count + new for count, new in zip(counts[name], more, strict=True)]
            out["switch_counts"].append(counts)
        return out


def _look_up(text: str | None, dictionary: Dictionary, segment: Callable[[str], Spans]) -> Lookup | None:
    if text is None:
        return None
    words = segment(text) if _PROSE.fullmatch(text) else _free(text, segment)
    entries = []
    for start, end in words:
        translations = dictionary.get(text[start:end].lower())
        if translations:
            entries.append((start, end, translations))
    return Lookup(text, len(words), entries)


def _free(text: str, segment: Callable[[str], Spans]) -> Spans:
    """The words of `text` outside what is kept from the translator."""
    out, offset = [], 0
    for piece, is_text in _text.pieces(text):
        if is_text:
            kept = _text.spans(piece)
            for start, end in segment(piece):
                if not any(start < kept_end and kept_start < end for kept_start, kept_end, _ in kept):
                    out.append((offset + start, offset + end))
        offset += len(piece)
    return out


def _switch(lookup: Lookup | None, probability: float, random: Random, spaced: bool) -> tuple[str | None, int]:
    """Equation 5: (the text with each word of the dictionary replaced with probability p, how many were)."""
    if lookup is None:
        return None, 0
    text = lookup.text
    parts: list[str] = []
    done = switched = 0
    for start, end, translations in lookup.entries:
        if random.random() >= probability:
            continue
        # Dict(x): one of the word's translations, each as likely, in the case of the word.
        word = _cased(translations[int(random.random() * len(translations))], text[start:end])
        before = text[done:start] or (parts[-1] if parts else "")
        parts.append(text[done:start])
        # Between blanks nothing can run together; a Latin word in Japanese, Thai or Khmer can, with the next one.
        if not spaced and before and joins(before[-1], word[0]):
            parts.append(" ")
        parts.append(word)
        if not spaced and end < len(text) and joins(word[-1], text[end]):
            parts.append(" ")
        done = end
        switched += 1
    return "".join([*parts, text[done:]]), switched


def _cased(word: str, like: str) -> str:
    """`word` in the case of `like`: UPPER, Capitalised, or as it stands; scripts without case stay."""
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word
