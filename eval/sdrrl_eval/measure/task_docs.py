"""The tasks as docs/evaluation.md shows them: the one table of tasks, then what each file says of its own.

python -m sdrrl_eval.measure.task_docs docs/evaluation.md     # after a change to a task; a test holds them equal
"""

import json
import re
import sys
from pathlib import Path

from sdrrl_eval.measure.recipe import task_models, task_yamls
from sdrrl_eval.measure.row_task import RowTask
from sdrrl_eval.measure.task import PromptedTask, Task
from sdrrl_eval.measure.task_files import description, kinds, task_name

BEGIN, END = "<!-- tasks: written by sdrrl_eval.measure.task_docs -->", "<!-- tasks end -->"


def section() -> str:
    """What stands between BEGIN and END: the tasks, the kinds that one's own are written as last."""
    table = ["| task | measures | `path` | its own keys |", "| --- | --- | --- | --- |"]
    paragraphs = []
    yamls = {path.stem: path for path in task_yamls()}
    for model in sorted(task_models(), key=lambda model: (model in kinds().values(), task_name(model))):
        name = task_name(model)
        says = description(str(yamls[name])) if name in yamls else (sys.modules[model.__module__].__doc__ or "").strip()
        cells = [f"`{name}`", model.__doc__, model.model_fields["path"].description, ", ".join(_own_keys(model))]
        table.append("| " + " | ".join(" ".join((cell or "").split()).removesuffix(".") for cell in cells) + " |")
        paragraphs.append(f"### `{name}`\n\n{says}")
    return "\n".join(table) + "\n\n" + "\n\n".join(paragraphs) + "\n"


def _own_keys(model: type[Task]) -> list[str]:
    """The keys that not every task of its sort takes, each with the values it chooses from."""
    common = {*Task.model_fields, *PromptedTask.model_fields}
    # A kind is what the keys of rows are for.
    common |= set() if model in kinds().values() else {*RowTask.model_fields} - {"prompt"}
    keys = []
    for name, node in model.model_json_schema()["properties"].items():
        if name in common:
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
