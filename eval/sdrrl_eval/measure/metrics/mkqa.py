"""MKQA's exact match and token F1 (Longpre et al. 2020), with what its official script does to a text, quirks included.

Languages by MKQA's keys.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from sdrrl_factory.text import normal

# Scripts without blanks: every character is a token.
_BY_CHARACTER = {"ja", "km", "th", "zh_cn", "zh_hk", "zh_tw"}
# Articles, as whole words; of Vietnamese some other small words.
_WHOLE = {
    "da": "en et",
    "de": "ein eine einen einem eines einer der die das den dem des",
    "en": "a an the",
    "es": "un una unos unas el la los las",
    "fi": "se yks yksi",
    "hu": "a az egy",
    "nl": "de het een des der den",
    "no": "en et ei",
    "pt": "o a os as um uma uns umas",
    "sv": "en ett",
    "vi": "của là cái chiếc những",
}
# Here the official pattern has no end of word: "lemon" loses "le", the first that fits in this order.
_BEGINNING = {"fr": "le la du de un", "it": "il lo la i gli le del dei degli uno una un"}
_ARTICLES = {lang: re.compile(rf"\b(?:{'|'.join(words.split())})\b") for lang, words in _WHOLE.items()}
_ARTICLES |= {lang: re.compile(rf"\b(?:{'|'.join(words.split())})") for lang, words in _BEGINNING.items()}
_ARTICLES["ar"] = re.compile("ال")  # anywhere
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str, lang: str) -> str:
    """Composed (NFC), in lower case, without ASCII punctuation and articles, its tokens with one blank between them."""
    text = normal(text).lower().translate(_PUNCTUATION)
    if lang in _ARTICLES:
        text = _ARTICLES[lang].sub(" ", text)
    return " ".join("".join(text.split()) if lang in _BY_CHARACTER else text.split())


def em(answer: str, gold: Sequence[str], lang: str) -> float:
    """1 if the answer is one of `gold`, else 0."""
    return float(any(normalise(answer, lang) == normalise(accepted, lang) for accepted in gold))


def f1(answer: str, gold: Sequence[str], lang: str) -> float:
    """The best overlap of tokens with one of `gold`, in [0, 1]; no tokens on both sides is 1."""
    tokens = normalise(answer, lang).split()
    return max(_overlap(tokens, normalise(accepted, lang).split()) for accepted in gold)


def _overlap(answer: list[str], gold: list[str]) -> float:
    if not answer or not gold:
        return float(answer == gold)
    common = (Counter(answer) & Counter(gold)).total()
    if not common:
        return 0.0
    recall, precision = common / len(gold), common / len(answer)
    return 2 * precision * recall / (precision + recall)


METRICS: dict[str, Callable[[str, Sequence[str], str], float]] = {"f1": f1, "em": em}
