"""The wish for the answer's language, in the question's language: what tells TL from TT and LT from LL.

Without it the same question is answered in two languages and nothing in it says which (`answer_language: none`, the
paper's letter). The wordings stand in wishes.yaml, where native readers can correct them.
"""

from functools import cache
from pathlib import Path
from random import Random
from typing import Any


def wish(asked: str, answered: str, answer_language: str, random: Random) -> str:
    """The wish to append to a question in `asked` whose answer is in `answered`, one of its wordings drawn; or "".

    Raises KeyError for languages that are not worded (`are_worded`).
    """
    if answer_language == "none" or (answer_language == "cross" and asked == answered):
        return ""
    return random.choice(wordings(asked, answered))


def are_worded(source: str, target: str) -> bool:
    """Whether there are wishes in both languages for answers in both: where only some were, the sets would mix."""
    wishes = _wishes()
    names = [wishes[asked]["names"] for asked in (source, target) if asked in wishes]
    return len(names) == 2 and all(answered in known for known in names for answered in (source, target))


def wordings(asked: str, answered: str) -> list[str]:
    """The wordings, in the language `asked`, of the wish for an answer in `answered`."""
    wishes = _wishes()[asked]
    return [wording.format(wishes["names"][answered]) for wording in wishes["wordings"]]


@cache
def _wishes() -> dict[str, Any]:
    """Question language -> {wordings: [...], names: {answer language: its name}}."""
    import yaml

    return yaml.safe_load(Path(__file__).with_name("wishes.yaml").read_text(encoding="utf-8"))


def joined(instruction: str, wish: str, asked: str) -> str:
    """`wish` behind `instruction`, on a line of its own where that has several (a list, code).

    Thai and Khmer too divide sentences by a blank; Japanese and Chinese need none behind their full stop.
    """
    if not wish or not instruction or instruction[-1].isspace():
        return instruction + wish
    if "\n" in instruction:
        return f"{instruction}\n{wish}"
    if asked in ("jpn", "zho") and instruction[-1] in "。！？":
        return instruction + wish
    return f"{instruction} {wish}"
