"""Rules that reject a bad translation (section 4.1, after the filters of WMT news systems) or a degenerate text."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar
from unicodedata import digit

from sdrrl_factory.errors import under
from sdrrl_factory.language_id import Identifier, letters, script_share
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.transfer.quality import side_pairs
from sdrrl_factory.transfer.recipe import Filters, LanguageId
from sdrrl_factory.transfer.stage import Batch, Progress, Stage, unseen

# Characters of a text over those of the same text in Latin or Cyrillic letters: medians over Django's catalogues.
_LENGTH = {"Jpan": 0.6, "Hang": 0.6, "Thai": 0.9, "Hans": 0.4, "Hant": 0.4}
# A number, with its thousands grouped: 1,000 1.000 1 000 1'000.
_GROUPED = re.compile(r"(?<!\d)\d{1,3}(?:[.,'’٬ \u00a0\u2009\u202f]\d{3})+(?!\d)")
_NUMBER = re.compile(r"\d+")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|```|`|\*\*")
_PLACEHOLDER = re.compile(r"\{[^{}\s]*\}|%\(?\w*\)?[sd]")
_BRACKETS = (("(（", ")）"), ("[［", "]］"), ("{｛", "}｝"))
# Code and addresses are in no language; a fence may be left open.
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|\w+://\S+", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]+")
# How likely the words that two languages have in common must be in the target language to be taken for shared ones;
# "tablespoons" is Spanish with less than 0.01, "animal general" with 0.06, "sistema solar" Portuguese with 0.2.
_SHARED = 0.05
_FIRST = 200  # instructions whose language is looked at before any work


@dataclass(frozen=True)
class Filter(Stage):
    """+ question_ok, answer_ok, output_ok (as `sides` says); the reason of each rejection is added to `reasons`.

    rules: of a single pair (`pair_flaw`).
    threshold: tau on question_qe and its like; None, or no score, lets the pair through.
    language_id, identifier: as of `Settle`.
    """

    sides: tuple[str, ...]
    source: str
    target: str
    rules: Filters
    threshold: float | None
    language_id: LanguageId
    identifier: str
    version: ClassVar[int] = 3

    @contextmanager
    def open(self, progress: Progress = unseen) -> Iterator[Identifier | None]:
        yield identifier_of(self.language_id)

    def __call__(self, batch: Batch, tool: Identifier | None = None) -> Batch:
        out = {**batch, "reasons": [list(reasons) for reasons in batch["reasons"]]}
        for side in self.sides:
            out[f"{side}_ok"] = []
            pairs = zip(side_pairs(batch, side), batch[f"{side}_qe"], batch[f"{side}_why"], strict=True)
            for reasons, ((text, translation), score, failure) in zip(out["reasons"], pairs, strict=True):
                if translation is None:
                    reason = f"not translated ({failure})"
                else:
                    reason = self._reason(text, translation, score, tool)
                out[f"{side}_ok"].append(not reason)
                if reason:
                    reasons.append(f"{side}: {reason}")
        return out

    def _reason(self, text: str, translation: str, score: float | None, identifier: Identifier | None) -> str:
        """Why the translation is rejected, or "": what costs least is looked at first."""
        if reason := pair_flaw(text, translation, self.rules, self.source, self.target):
            return reason
        if self.threshold is not None and score is not None and score < self.threshold:
            return "low quality"
        if identifier and identifier.off_target(_prose(translation), self.target):
            return "off-target"
        words = source_words(text, translation)
        most = self.rules.max_source_words
        if most is None or not LANGUAGES[self.target].spaced or len(words) <= most * len(_WORD.findall(translation)):
            return ""
        # Languages that are near share words: those that look like the target's are no one's mistake.
        is_shared = identifier is not None and identifier.probability(" ".join(words), self.target) >= _SHARED
        return "" if is_shared else "untranslated words"


def source_words(source: str, translation: str) -> list[str]:
    """The words of the translation that stand in the source text as they are: small letters, four at least, no code."""
    originals = set(_WORD.findall(_prose(source)))
    return [w for w in _WORD.findall(_prose(translation)) if len(w) > 3 and w in originals and w == w.lower()]


def identifier_of(config: LanguageId) -> Identifier | None:
    """The recipe's language identifier, or None.

    Raises: UserError about the key "language_id".
    """
    if config.backend == "none":
        return None
    with under("language_id"):
        return Identifier(config.backend, config.model, config.min_letters, config.min_probability)


def not_in_language(texts: Iterable[str], code: str, config: LanguageId) -> str:
    """What is to be said where some of the first texts are surely in another language than `code`; ""."""
    tool = identifier_of(config)
    first = list(islice(texts, _FIRST))
    foreign = [text for text in first if tool and tool.off_target(_prose(text), code)]
    if not tool or len(foreign) * 20 <= len(first):
        return ""
    other = Counter(tool.identify(text)[0] for text in foreign).most_common(1)[0][0]
    name = LANGUAGES[other].name if other in LANGUAGES else other
    share = f"{len(foreign)} of the first {len(first)} instructions"
    return f"{share} are not in {LANGUAGES[code].name}, most of them in {name}: see source_lang"


def looping(text: str) -> bool:
    """Whether some run of four words stands four times or more: a generation that got stuck."""
    return _repeats(text.split(), 4)


def pair_flaw(source: str, target: str, config: Filters, source_lang: str, target_lang: str) -> str:
    """The first rule the translation `target` of `source` breaks, or "". Lengths are in characters."""
    spaced = LANGUAGES[target_lang].spaced
    if not target.strip():
        return "empty"
    if len(target) < config.min_chars:
        return "too short"
    if config.max_chars is not None and len(target) > config.max_chars:
        return "too long"
    if config.max_length_ratio is not None:
        long, short = _usual_lengths(source, target, source_lang, target_lang)
        # A few characters more or less say nothing.
        if long > config.max_length_ratio * max(short, 1) and long - short > 20:
            return "length ratio"
    if spaced and config.max_word_chars is not None and _long_word(source, target, config.max_word_chars):
        return "long word"
    if config.max_copied_words is not None and source.strip() == target.strip():
        return "copy of the source" if len(_WORD.findall(_prose(source))) > config.max_copied_words else ""
    if config.repeats and _stuck(target, spaced) and not _stuck(source, LANGUAGES[source_lang].spaced):
        return "repetition"
    if config.numbers and _numbers_differ(source, target):
        return "lost number"
    if config.markup:
        if Counter(_TAG.findall(source)) != Counter(_TAG.findall(target)):
            return "lost markup"
        if Counter(_PLACEHOLDER.findall(source)) != Counter(_PLACEHOLDER.findall(target)):
            return "lost placeholder"
        if not _balanced(target) and _balanced(source):
            return "unbalanced markup"
    if config.script and _other_script(source, target, LANGUAGES[target_lang].script):
        return "script mismatch"
    return ""


def _repeats(units: Sequence, n: int) -> bool:
    if len(units) < n + 3:
        return False
    grams = Counter(zip(*(units[i:] for i in range(n)), strict=False))
    return max(grams.values()) >= 4


def _stuck(text: str, spaced: bool) -> bool:
    # Twelve letters stand for four words where no space divides them.
    return looping(text) or (not spaced and _repeats("".join(_WORD.findall(text)), 12))


def _usual_lengths(source: str, target: str, source_lang: str, target_lang: str) -> tuple[float, float]:
    """The longer and the shorter length, each as long as the text would be in Latin letters."""
    usual = [len(t) / _LENGTH.get(LANGUAGES[c].script, 1.0) for t, c in ((source, source_lang), (target, target_lang))]
    return max(usual), min(usual)


def _long_word(source: str, target: str, most: int) -> bool:
    long = [w for w in target.split() if len(w) > most]
    return any("://" not in w and w not in source for w in long)


def _numbers(text: str) -> list[str]:
    """The runs of digits, sorted; digits of any script as 0 to 9."""
    runs = _NUMBER.findall(text)
    return sorted(run if run.isascii() else "".join(str(digit(character)) for character in run) for run in runs)


def _ungrouped(text: str) -> str:
    return _GROUPED.sub(lambda n: "".join(_NUMBER.findall(n.group())), text)


def _numbers_differ(source: str, target: str) -> bool:
    # 1,000 is 1000; yet in "20 300 of them" may stand two numbers.
    return _numbers(source) != _numbers(target) and _numbers(_ungrouped(source)) != _numbers(_ungrouped(target))


def _balanced(text: str) -> bool:
    return all(sum(map(text.count, left)) == sum(map(text.count, right)) for left, right in _BRACKETS)


def _prose(text: str) -> str:
    return _CODE.sub(" ", text) if "`" in text or "://" in text else text


def _other_script(source: str, target: str, script: str) -> bool:
    """Whether most letters of `target` are in another script; names, code and quotes out of `source` may stay."""
    if script_share(target, script) >= 0.5:
        return False
    copied = set(_WORD.findall(source))
    new = " ".join(w for w in _WORD.findall(_prose(target)) if w not in copied)
    return letters(new) > 0 and script_share(new, script) < 0.5
