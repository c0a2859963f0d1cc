"""Where the words of a text are: letters between blanks, or the field's segmenter where a script has no blanks, or else
the longest words of a dictionary."""

import os
from collections.abc import Callable, Container, Iterable
from functools import lru_cache
from importlib.util import find_spec

import regex

from sdrrl_factory import text as _text
from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import LANGUAGES

Spans = list[tuple[int, int]]

# The characters of the scripts written without blanks, but for their digits and punctuation; runs of them go to the
# segmenter, all else is letters. Unicode counts the signs that hiragana and katakana share (ー) to neither.
_RUNS = {
    "jpn": r"[[\p{Han}\p{Hiragana}\p{Katakana}〆ーｰﾞﾟ]&&[\p{L}\p{M}\p{Nl}]]",
    "tha": r"[\p{Thai}&&[\p{L}\p{M}]]",
    "khm": r"[\p{Khmer}&&[\p{L}\p{M}]]",
}
_PACKAGES = {"jpn": ("janome", "janome"), "tha": ("pythainlp", "pythainlp"), "khm": ("khmernltk", "khmer-nltk")}
# The languages without blanks that have no segmenter here, and their letters; Tibetan divides syllables, not words.
_HAN, _MYANMAR, _TIBETAN = (rf"[\p{{{script}}}&&[\p{{L}}\p{{M}}\p{{Nl}}]]" for script in ("Han", "Myanmar", "Tibetan"))
_UNCUT = {"zho": _HAN, "zho_Hant": _HAN, "yue": _HAN, "lao": r"[\p{Lao}&&[\p{L}\p{M}]]", "mya": _MYANMAR}
_UNCUT |= {"shn": _MYANMAR, "bod": _TIBETAN, "dzo": _TIBETAN}
# What is never cut: a grapheme cluster, what a Burmese letter is stacked on, a Tibetan syllable.
_UNIT = regex.compile(rf"{_TIBETAN}+|(?:\X(?<=\u1039))*\X", regex.V1)
_LONGEST = 12  # units of a word of the dictionary
_UNSPACED = regex.compile("|".join([*_RUNS.values(), *_UNCUT.values()]), regex.V1)  # V1 has sets of sets


def segmenter(code: str, dictionary: Container[str] | None = None) -> Callable[[str], Spans]:
    """What finds the words of a text in the language `code`: text -> their (start, end), in order, never touching
    punctuation or blanks; in languages without blanks, words of other scripts are found as well.

    dictionary: words of the language, in lower case. Chinese, Cantonese, Lao, Burmese, Shan, Tibetan and Dzongkha are
    cut by them, the longest first, from the left; what begins none of them is a word of one character (in Tibetan, of
    one syllable).

    Raises UserError without a key that says which package to install, or that a dictionary is needed.
    """
    if code in _UNCUT:
        return _by_dictionary(code, dictionary)
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


def _by_dictionary(code: str, dictionary: Container[str] | None) -> Callable[[str], Spans]:
    if dictionary is None:
        what = f"{LANGUAGES[code].name} is written without blanks and has no segmenter here"
        raise UserError(what, "name a MUSE or TSV dictionary, whose words are looked for")
    # Between Tibetan syllables stands a mark, within words too.
    runs = regex.compile(rf"{_UNCUT[code]}+(?:་{_UNCUT[code]}+)*", regex.V1)

    def longest(text: str) -> Spans:
        out: Spans = []
        end = 0
        for run in runs.finditer(text):
            out += _located(_text.words(text[end : run.start()]), text, end, run.start())
            units = [unit.span() for unit in _UNIT.finditer(text, *run.span()) if unit.group() != "་"]
            i = 0
            while i < len(units):
                start, stop = units[i][0], i + 1
                for j in range(min(i + _LONGEST, len(units)), i + 1, -1):
                    if text[start : units[j - 1][1]] in dictionary:
                        stop = j
                        break
                out.append((start, units[stop - 1][1]))
                i = stop
            end = run.end()
        return out + _located(_text.words(text[end:]), text, end, len(text))

    return longest


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
