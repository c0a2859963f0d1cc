"""The wish for the answer's language, in the question's language: what tells TL from TT and LT from LL.

Without it the same question is answered in two languages and nothing in it says which (`answer_language: none`, the
paper's letter).
"""

from sdrrl_factory.errors import UserError

# Question language -> answer language -> the wish.
_WISHES = {
    "eng": {"eng": "Answer in English.", "spa": "Answer in Spanish."},
    "spa": {"eng": "Responde en inglés.", "spa": "Responde en español."},
}


def check(source: str, target: str, place: str) -> None:
    for asked, answered in ((source, target), (target, source)):
        if answered not in _WISHES.get(asked, {}):
            raise UserError(
                f"{place}: no wish for an answer in {answered} worded in {asked} yet; set answer_language: none"
            )


def wish(asked: str, answered: str, answer_language: str) -> str:
    """The wish to append to a question in `asked` whose answer is in `answered`, or ""."""
    if answer_language == "none" or (answer_language == "cross" and asked == answered):
        return ""
    return _WISHES[asked][answered]
