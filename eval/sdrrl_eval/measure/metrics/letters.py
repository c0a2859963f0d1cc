"""Which choice a written answer names: its letter as models write it, or as the parser of BELEBELE's authors has it."""

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

# Marks of Markdown and LaTeX around a letter: **B**, `B`, $\\boxed{\\text{B}}$.
_MARKS = re.compile(r"\\(boxed|text|textbf|mathrm|mathbf)|[*_`${}\"'“”‘’«»]|\\[()\[\]]")


class _Patterns(NamedTuple):
    """Of the letters of one number of choices."""

    first: re.Pattern[str]
    announced: re.Pattern[str]
    colon: re.Pattern[str]
    alone: re.Pattern[str]


@lru_cache
def _patterns(letters: str) -> _Patterns:
    big, small = f"[{letters}]", f"[{letters.lower()}]"
    # "A dog" and "I do not know" begin with a word.
    no_word = f"[{letters.replace('A', '').replace('I', '')}]" if len(letters) > 1 else "(?!)"
    return _Patterns(
        # A letter that the answer begins with: "B", "(b)", "B. Los domingos", "B Los domingos".
        re.compile(
            rf"[(\[]?({big})(?:[)\].:,;\-–—]|\s*\n|\s*$)|[(\[]?({small})(?:[)\].:]|\s*$)|({no_word})\s", re.ASCII
        ),
        # What announces it, in English (the question's language) or by a colon in any: "The correct answer is option
        # (B)", "Respuesta: B".
        re.compile(
            r"(?:answer|choice|option)\s*(?:(?:is|would be|must be|:|=)\s*)+(?:the\s+)?(?:option|choice|letter|answer)?"
            rf"\s*:?\s*[(\[]?({big})(?![\w'])"
        ),
        re.compile(rf":\s*[(\[]?({big})[)\]]?\s*(?:[.。!]|$)", re.MULTILINE),
        # One that stands for itself: in brackets, before a bracket or a full stop, or at the end of a line.
        re.compile(rf"(?<![\w])[(\[]?({big})(?:[)\]]|\s*(?:[.。!]|$)|\s+(?:is|es|adalah)\b)", re.MULTILINE),
    )


def written_letter(answer: str, letters: str = "ABCD") -> str:
    """The letter that an answer names as its own; "" where it names none, or several alike."""
    patterns = _patterns(letters)
    # Letters of full width are letters; what a model puts around them is not read.
    bare = _MARKS.sub("", unicodedata.normalize("NFKC", answer)).strip()
    # The last one announced: whoever goes through the choices comes to the answer at the end.
    if announced := patterns.announced.findall(bare):
        return announced[-1]
    if first := patterns.first.match(bare):
        return next(filter(None, first.groups())).upper()
    if announced := patterns.colon.findall(bare):
        return announced[-1]
    alone = set(patterns.alone.findall(bare))
    return alone.pop() if len(alone) == 1 else ""


def paper_letter(answer: str, letters: str = "ABCD") -> str:
    """The letter a written answer begins with, parsed as in BELEBELE's repository; "" of an empty one."""
    bare = answer.replace("(", "").replace(")", "").strip()
    if bare[:1] not in tuple(letters):
        bare = bare.removeprefix("The correct answer is ")
    return bare[:1]
