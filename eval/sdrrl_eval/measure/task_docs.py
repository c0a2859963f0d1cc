"""The tasks as docs/evaluation.md shows them: the one table of tasks, then each file's docstring.

python -m sdrrl_eval.measure.task_docs docs/evaluation.md     # after a change to a task; a test holds them equal
"""

import json
import re
import sys
from pathlib import Path

from sdrrl_eval.measure.recipe import task_models
from sdrrl_eval.measure.task import Task

BEGIN, END = "<!-- tasks: written by sdrrl_eval.measure.task_docs -->", "<!-- tasks end -->"


def section() -> str:
    """What stands between BEGIN and END."""
    table = ["| task | measures | `path` | its own keys |", "| --- | --- | --- | --- |"]
    paragraphs = []
    for model in task_models():
        module = sys.modules[model.__module__]
        name = module.__name__.rpartition(".")[2]
        cells = [f"`{name}`", model.__doc__, model.model_fields["path"].description, ", ".join(_own_keys(model))]
        table.append("| " + " | ".join(" ".join((cell or "").split()).removesuffix(".") for cell in cells) + " |")
        paragraphs.append(f"### `{name}`\n\n{(module.__doc__ or '').strip()}")
    return "\n".join(table) + "\n\n" + "\n\n".join(paragraphs) + "\n"


def _own_keys(model: type[Task]) -> list[str]:
    """The keys that not every task takes, each with the values it chooses from."""
    keys = []
    for name, node in model.model_json_schema()["properties"].items():
        if name in Task.model_fields:
            continue
        # pydantic writes a Literal as enum, one of a single value as const, wherever in the node it stands.
        match = re.search(r'"enum": \[(.*?)\]|"const": (".*?")', json.dumps(node))
        choices = json.loads(f"[{match[1] or match[2]}]") if match else []
        values = ", ".join(f"`{choice}`" for choice in choices)
        keys.append(f"`{name}` ({values})" if values else f"`{name}`")
    return keys


def written(text: str) -> str:
    """`text` with the section as it is now."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no {BEGIN} and {END} in the text")
    return f"{head}{BEGIN}\n\n{section()}\n{END}{tail}"


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
