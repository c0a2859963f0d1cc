"""ROUGE-1 and ROUGE-L F1 (Lin 2004) by rouge-score, over words cut as XL-SUM's own multilingual scorer cuts them.

rouge-score's own tokenizer keeps a-z and 0-9 alone: right for English, nothing is left of Japanese or Ukrainian. The
benchmark's scorer (Hasan et al. 2021) drops punctuation by Unicode category instead, segments Japanese and Thai, and
stems where Snowball has a stemmer. It leaves stopwords unstemmed, by a list that NLTK downloads; here all are stemmed.
"""

import re
import string
import unicodedata
from collections.abc import Callable, Sequence

from sdrrl_eval.measure.metrics.score import Score, ratio
from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import Language
from sdrrl_factory.text import normal

_STEMMERS = {"eng": "english", "fra": "french", "spa": "spanish", "por": "portuguese", "dan": "danish"}
_STEMMERS |= {"fin": "finnish", "hun": "hungarian", "nob": "norwegian"}
_MIN_STEMMED = 4  # shorter words are left alone
_INSTALL = "run `pip install 'sdrrl-factory[rouge]'`"

_PUNCTUATION = set(string.punctuation)
_HAN = "\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f"
_HAN_CHARACTER = re.compile(f"([{_HAN}])")


class Rouge:
    """The scorer of one language.

    Args:
        tokenizer: "rouge-score" (its own, with Porter's stemmer) or "xlsum"; None is the first for English, else the
            second.

    Raises: UserError for what is not installed.
    """

    def __init__(self, lang: Language, tokenizer: str | None):
        try:
            from importlib.metadata import version

            from rouge_score.rouge_scorer import RougeScorer
        except ImportError:
            raise UserError("rouge-score is not installed", _INSTALL) from None
        own = (tokenizer or ("rouge-score" if lang.code == "eng" else "xlsum")) == "rouge-score"
        words = None if own else _Words(lang)
        self._scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=own, tokenizer=words)
        scheme = "tok:rouge-score|stem:porter" if words is None else words.scheme
        self.signature = f"f1|{scheme}|rouge-score:{version('rouge-score')}"

    def f1(self, output: str, reference: str) -> dict[str, float]:
        """{"rouge1", "rougeL"} of one answer, in [0, 1]."""
        return {name: float(score.fmeasure) for name, score in self._scorer.score(reference, output).items()}

    def score(self, values: Sequence[float], seed: int) -> Score:
        """The mean over answers, in [0, 100]."""
        return ratio([(value, 1.0) for value in values], self.signature, seed, scale=100)


class _Words:
    """rouge-score's tokenizer interface."""

    def __init__(self, lang: Language):
        self._segment, name = _segmenter(lang.code)
        stemmer = _STEMMERS.get(lang.code)
        self._stem = _snowball(stemmer) if stemmer else None
        self.scheme = f"tok:xlsum-{name}|stem:{'snowball' if stemmer else 'no'}"

    def tokenize(self, text: str) -> list[str]:
        words = self._segment(bare(text))
        if self._stem:
            words = [self._stem(word) if len(word) >= _MIN_STEMMED else word for word in words]
        return [word for word in words if word]


def bare(text: str) -> str:
    """Composed (NFC), in lower case, without punctuation and control characters, one blank between words."""
    return " ".join("".join(map(_plain, normal(text).lower())).split())


def _plain(char: str) -> str:
    category = unicodedata.category(char)
    if char in "\t\n\r" or category == "Zs" or char in _PUNCTUATION or category[0] == "P":
        return " "
    return "" if category[0] == "C" or char == "\ufffd" else char


def _segmenter(code: str) -> tuple[Callable[[str], list[str]], str]:
    """(what cuts a bare text into words, its name)."""
    if code == "jpn":
        return _mecab()
    if code == "tha":
        return _newmm()
    return pieces, "words"


def pieces(text: str) -> list[str]:
    """Words where blanks divide them: runs of letters, runs of digits, each Han character and other sign alone."""
    words: list[str] = []
    for part in text.split():
        kind = ""
        for char in part:
            category = unicodedata.category(char)[0]
            is_mark, goes_on = category == "M", category == kind and category in "LN"
            if kind and (is_mark or goes_on):
                words[-1] += char  # a mark belongs to what it stands on
            else:
                words.append(char)
                kind = category
    return _HAN_CHARACTER.sub(r" \1 ", " ".join(words)).split()


def _mecab() -> tuple[Callable[[str], list[str]], str]:
    try:
        from fugashi import Tagger

        # fugashi takes UniDic where it is, else the small UniDic of 2013 (unidic-lite).
        tagger = Tagger("-O wakati -b 50000")
    except (ImportError, RuntimeError):
        raise UserError("Japanese needs fugashi with a UniDic dictionary", _INSTALL) from None
    lite = "unidic_lite" in tagger.dictionary_info[0]["filename"]
    return lambda text: tagger.parse(text).split(), "fugashi-unidic-lite" if lite else "fugashi-unidic"


def _newmm() -> tuple[Callable[[str], list[str]], str]:
    try:
        from pythainlp.tokenize import word_tokenize
    except ImportError:
        raise UserError("Thai needs pythainlp", _INSTALL) from None
    return lambda text: word_tokenize(text, engine="newmm"), "newmm"  # blanks are words of their own, as there


def _snowball(name: str) -> Callable[[str], str]:
    from nltk.stem import SnowballStemmer

    return SnowballStemmer(name).stem
