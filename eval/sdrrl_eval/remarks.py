"""What a reader must know of the answers behind a score: how many are missing or cut off, how many prompts were cut.

An entry of results.json has the counts that are not 0 under "remarks"; its line in predictions/ says it of each item.
"""

from collections.abc import Mapping, Sequence
from typing import Any

# kind: (the raised letter behind a score, what it means, after a number)
_KINDS = {
    "missing": ("ᵐ", "without an answer"),
    "cut_off": ("ᶜ", "cut off"),
    "cut_prompts": ("ᵖ", "prompts cut"),
    "left_out": ("ˡ", "left out"),
}
MEANINGS = {
    "missing": "answers that did not come, scored as if nothing had been said",
    "cut_off": "answers cut off at the limit of new tokens",
    "cut_prompts": "prompts longer than the model's context, their article cut at its end",
    "left_out": "prompts longer than the model's context, left out of the score",
}
KINDS = tuple(_KINDS)
# Raised letter -> the letter, for pages that raise it themselves.
RAISED = {mark: letter for (mark, _), letter in zip(_KINDS.values(), "mcpl", strict=True)}


def of_rows(rows: Sequence[Mapping[str, Any]], signature: str) -> dict[str, int]:
    """The counts of a score with that signature, from its items' lines in predictions/; 0 is left out."""
    cut_prompts = sum(bool(row.get("prompt_cut")) for row in rows)
    ends = [str(row.get("finish")) for row in rows]
    # A loss is of the reference: how the model's own answer ended is nothing to it.
    if signature.startswith("unit:nats"):
        ends = []
    counts = {
        "missing": sum(end.startswith("error: ") for end in ends),
        "cut_off": ends.count("length"),
        "cut_prompts": cut_prompts,
    }
    return {kind: count for kind, count in counts.items() if count}


def total(scores: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The counts of several entries together."""
    counts = {kind: sum(score.get("remarks", {}).get(kind, 0) for score in scores) for kind in KINDS}
    return {kind: count for kind, count in counts.items() if count}


def marks(score: Mapping[str, Any]) -> str:
    """The raised letters that stand behind an entry's value."""
    return "".join(_KINDS[kind][0] for kind in KINDS if kind in score.get("remarks", {}))


def mark(kind: str) -> str:
    return _KINDS[kind][0]


def words(score: Mapping[str, Any]) -> str:
    """ "26 of 100 cut off, 3 of 100 without an answer"; "" where nothing is to be said."""
    return ", ".join(f"{share(score, kind)} {_KINDS[kind][1]}" for kind in KINDS if kind in score.get("remarks", {}))


def share(score: Mapping[str, Any], kind: str) -> str:
    """ "26 of 100"; of the items left out, of all that there were."""
    remarks = score["remarks"]
    return f"{remarks[kind]} of {score['n'] + (remarks.get('left_out', 0) if kind == 'left_out' else 0)}"
