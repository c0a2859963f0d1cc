"""The keys of a recipe as a table in Markdown: what each takes, its default, what it does.

The words are read off the pydantic model, whose docstrings stand in the editors' schema as well. So the page, the
schema and the check of a recipe cannot disagree.
"""

import json
import re
from collections.abc import Container
from typing import Any

from pydantic.fields import FieldInfo

from sdrrl_factory.mistakes import Schema
from sdrrl_factory.recipe import Group, is_group


def table(model: type[Group], leave_out: Container[str] = ()) -> str:
    """A row for each key of `model`, those in `leave_out` excepted.

    A key that is a group of keys has no default of its own; the description is then the group's.
    """
    schema = Schema(model)
    rows = ["| key | takes | default | what it does |", "| --- | --- | --- | --- |"]
    for name, key in model.model_fields.items():
        if name not in leave_out:
            takes = schema.takes(name).replace(" | ", ", ").replace("a list of a group", "a list of groups")
            cells = [f"`{name}`", takes, _default(key), _description(key)]
            rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def _default(key: FieldInfo) -> str:
    if key.is_required():
        return "required"
    value: Any = key.get_default(call_default_factory=True)
    if isinstance(value, Group):
        return ""
    # As one writes it in YAML: text without quotes, everything else as JSON has it.
    return f"`{value if value and isinstance(value, str) else json.dumps(value)}`".replace("\n", "\\n")


def _description(key: FieldInfo) -> str:
    """The docstring below the key; of a group without one, the group's own."""
    text = key.description or (is_group(key.annotation) and key.annotation.__doc__) or ""
    # Outside of code, what looks like a tag or a column would be taken for one.
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(part if part.startswith("`") else part.replace("<", "\\<").replace("|", "\\|") for part in parts)
