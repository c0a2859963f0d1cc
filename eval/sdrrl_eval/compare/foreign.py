"""Words of an answer that look like another language than the one it should be in, for the eye of a reader."""

from functools import cache

import regex

from sdrrl_factory.language_id import Identifier
from sdrrl_factory.languages import Language

# Of a window of so many words, the letters and the probability it takes to be in another language.
_WINDOW, _MIN_LETTERS, _SURE = 6, 12, 0.7


def foreign(text: str, lang: Language) -> list[tuple[str, bool]]:
    """`text` in pieces that join to it: (piece, whether it looks like another language than `lang`).

    No dictionary is asked. A word is marked for a letter outside the language's script or, in languages with spaces,
    for standing in runs of six words most of which fastText surely takes for another language. So a borrowed word
    may be marked, a misspelt or a short foreign one may not: a hint for the eye, not a verdict.
    """
    # Where no blank divides words, a run of letters of another script is one.
    pieces = regex.split(r"(\s+)" if lang.spaced else rf"(\s+|{_foreign_letter(lang)}+)", text, flags=regex.V1)
    words = [i for i, piece in enumerate(pieces) if piece and not piece.isspace()]
    marked = {i for i in words if _is_in_other_script(pieces[i], lang)}
    if lang.spaced:
        marked |= {words[k] for k in _foreign_runs([pieces[i] for i in words], lang)}
    joined: list[tuple[str, bool]] = []
    for i, piece in enumerate(pieces):
        # A gap between two marked words is marked with them.
        is_marked = i in marked or (piece.isspace() and i - 1 in marked and i + 1 in marked)
        if joined and joined[-1][1] == is_marked:
            joined[-1] = (joined[-1][0] + piece, is_marked)
        elif piece:
            joined.append((piece, is_marked))
    return joined


def _foreign_letter(lang: Language) -> str:
    """A letter of a script that `lang` is not written in; Common and Inherited are everyone's."""
    own = "".join(rf"\p{{Script={script}}}" for script in sorted(lang.scripts))
    return rf"[\p{{L}}--[{own}\p{{Script=Common}}\p{{Script=Inherited}}]]"


def _is_in_other_script(word: str, lang: Language) -> bool:
    if regex.fullmatch(r"[\W\d]*\p{Lu}[\p{Lu}\d]*[\W\d]*", word):  # an abbreviation: DNA is everyone's
        return False
    return bool(regex.search(_foreign_letter(lang), word, flags=regex.V1))


def _foreign_runs(words: list[str], lang: Language) -> set[int]:
    """The indices of words of which at least half of the windows around them surely are in another language."""
    votes, windows = [0] * len(words), [0] * len(words)
    for start in range(len(words) - _WINDOW + 1):
        is_foreign = _identifier().off_target(" ".join(words[start : start + _WINDOW]), lang.code)
        for k in range(start, start + _WINDOW):
            votes[k] += is_foreign
            windows[k] += 1
    return {k for k, vote in enumerate(votes) if vote and 2 * vote >= windows[k]}


@cache
def _identifier() -> Identifier:
    return Identifier(min_letters=_MIN_LETTERS, min_probability=_SURE)
