"""What the benchmarks' tasks have in common: the fields of a row, and the prompt with its {holes}."""

import string
from collections.abc import Sequence

from sdrrl_factory.errors import UserError


def text(row: dict, key: str, place: str) -> str:
    """A field that must be there and say something; `place` is file:line."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{place}: {key} is missing or empty; fetch the official file again, or mend the line")
    return value


def form(prompt: str | None, default: str, holes: Sequence[str], place: str) -> str:
    """The prompt as the recipe has it; `holes` are the names it may put in braces, the last one it must."""
    if prompt is None:
        return default
    names = ", ".join(f"{{{name}}}" for name in holes)
    try:
        used = {name for _, name, _, _ in string.Formatter().parse(prompt) if name is not None}
        prompt.format_map(dict.fromkeys(holes, ""))
    except (ValueError, KeyError, IndexError, AttributeError):
        raise UserError(f"{place}: {prompt!r} has a hole that is none of {names}; write other braces twice") from None
    if holes[-1] not in used:
        raise UserError(f"{place}: {prompt!r} lacks {{{holes[-1]}}}; it takes {names}")
    return prompt
