"""Where the words of a text are: letters between blanks, or the field's segmenter where a script has no blanks."""

import os
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib.util import find_spec

import regex

from sdrrl_factory import text as _text
from sdrrl_factory.errors import UserError

Spans = list[tuple[int, int]]

# The characters of the scripts written without blanks, but for their digits and punctuation; runs of them go to the
# segmenter, all else is letters. Unicode counts the signs that hiragana and katakana share (ー) to neither.
_RUNS = {
    "jpn": r"[[\p{Han}\p{Hiragana}\p{Katakana}〆ーｰﾞﾟ]&&[\p{L}\p{M}\p{Nl}]]",
    "tha": r"[\p{Thai}&&[\p{L}\p{M}]]",
    "khm": r"[\p{Khmer}&&[\p{L}\p{M}]]",
}
_PACKAGES = {"jpn": ("janome", "janome"), "tha": ("pythainlp", "pythainlp"), "khm": ("khmernltk", "khmer-nltk")}
_UNSPACED = regex.compile("|".join(_RUNS.values()), regex.V1)  # V1 has sets of sets


def segmenter(code: str) -> Callable[[str], Spans]:
    """What finds the words of a text in the language `code`: text -> their (start, end), in order, never touching
    punctuation or blanks; in Japanese, Thai and Khmer text, words of other scripts are found as well.

    Raises UserError without a key that says which package to install.
    """
    if code not in _RUNS:
        return _spaced
    if find_spec(_PACKAGES[code][0]) is None:
        package = _PACKAGES[code][1]
        hint = f"run `pip install 'sdrrl-factory[{code}]'` or `pip install {package}`"
        raise UserError(f"{code} is written without blanks and needs {package}", hint)
    runs, cut = regex.compile(f"{_RUNS[code]}+", regex.V1), _cutter(code)

    def unspaced(text: str) -> Spans:
        out: Spans = []
        end = 0
        for run in runs.finditer(text):
            out += _located(_text.words(text[end : run.start()]), text, end, run.start())
            out += _located(cut(run.group()), text, *run.span())
            end = run.end()
        return out + _located(_text.words(text[end:]), text, end, len(text))

    return unspaced


def joins(left: str, right: str) -> bool:
    """Whether two characters side by side would read as one word: letters of scripts that divide words by blanks."""
    return left.isalpha() and right.isalpha() and not _UNSPACED.match(left) and not _UNSPACED.match(right)


def _spaced(text: str) -> Spans:
    return _located(_text.words(text), text, 0, len(text))


def _located(words: Iterable[str], text: str, start: int, end: int) -> Spans:
    """The spans of `words`, which stand in text[start:end] in this order; what a segmenter rewrote is passed over."""
    out = []
    for word in words:
        begin = text.find(word, start, end)
        if begin >= 0 and word:
            start = begin + len(word)
            out.append((begin, start))
    return out


@lru_cache(maxsize=len(_RUNS))
def _cutter(code: str) -> Callable[[str], list[str]]:
    """Cuts a run of one script into words; the packages' dictionaries load once, from their own folders."""
    if code == "jpn":
        from janome.tokenizer import Tokenizer

        tokenizer = Tokenizer(wakati=True)
        return lambda run: [str(word) for word in tokenizer.tokenize(run)]
    if code == "tha":
        # Without it PyThaiNLP 5 makes a folder for downloads in the user's home; it stops where the older name of the
        # variable is set beside it.
        if "PYTHAINLP_READ_MODE" not in os.environ:
            os.environ.setdefault("PYTHAINLP_READ_ONLY", "1")
        from pythainlp.tokenize import word_tokenize

        return lambda run: word_tokenize(run, engine="newmm", keep_whitespace=False)
    import logging

    import khmernltk

    logging.getLogger("khmer-nltk").setLevel(logging.WARNING)  # it logs which file it loads
    return khmernltk.word_tokenize
