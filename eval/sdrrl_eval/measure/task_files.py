"""A task written in YAML: what kind of task it is, and that kind's keys, a recipe's defaults.

    kind: multiple_choice                       # generation, translation, multiple_choice, answer_language
    path: data/copa/{iso1}.jsonl                # the recipe may name another
    fields: {premise: premise, choices: [choice1, choice2], answer: label}
    answers: index
    by: text
    prompt: "{premise}\\n"

A recipe asks it as `task: my/copa.yaml`; those in tasks/ go by their name.
"""

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError, create_model

from sdrrl_eval.measure.task import Task
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import read_text
from sdrrl_factory.mistakes import mistakes
from sdrrl_factory.recipe import Recipe, read

SUFFIXES = (".yaml", ".yml")
# Keys of the file that are no keys of a recipe: what the docs say, and what the task's class knows.
_DOCS = ("kind", "measures", "data", "description")
_CLASS = ("answer_tokens", "article")


def kinds() -> dict[str, type[Task]]:
    """By their names in `task` too: with all keys in the recipe, a task needs no file."""
    from sdrrl_eval.measure.tasks.answer_language import AnswerLanguage
    from sdrrl_eval.measure.tasks.generation import Generation
    from sdrrl_eval.measure.tasks.multiple_choice import MultipleChoice
    from sdrrl_eval.measure.tasks.translation import Translation

    models: list[type[Task]] = [MultipleChoice, Generation, Translation, AnswerLanguage]
    return {task_name(model): model for model in models}


def task_name(model: type[Task]) -> str:
    """The value of the key `task`."""
    (name,) = get_args(model.model_fields["task"].annotation)
    return str(name)


def task_of_file(path: str, name: str) -> type[Task]:
    """The task that a YAML file describes; in a recipe it is `task: NAME`.

    Raises:
        Mistakes: all that is wrong with its keys, one line each.
        UserError: it cannot be read at all.
    """
    return _class_of(path, name, read_text(path))


@lru_cache
def _class_of(path: str, name: str, text: str) -> type[Task]:
    """text: the file's; as long as it is the same, so is the class."""
    file = read(path)
    kind = _kind(file)
    keys = {key: value for key, value in file.config.items() if key not in (*_DOCS, *_CLASS) and value is not None}
    _check(kind, keys, file)
    # 1. The kind's keys with this file's values as their defaults.
    defaults: dict[str, Any] = {"task": (Literal[name], ...)}
    if Path(name).suffix in SUFFIXES:
        keys.setdefault("name", Path(name).stem)
    for key, value in keys.items():
        field = copy.copy(kind.model_fields[key])
        field.default = value
        defaults[key] = (field.annotation, field)
    if "path" not in defaults and file.config.get("data"):
        field = copy.copy(kind.model_fields["path"])
        field.description = file.config["data"]
        defaults["path"] = (field.annotation, field)
    # 2. A class of its own, so that the schema and the messages know it.
    title = "".join(part.title() for part in Path(name).stem.replace("-", "_").split("_"))
    model = create_model(title, __base__=kind, __doc__=file.config.get("measures") or kind.__doc__, **defaults)
    for key in _CLASS:
        if key in file.config:
            setattr(model, key, file.config[key])
    return model


def description(path: str) -> str:
    """What the docs say of a task that is a YAML."""
    return str(read(path).config.get("description") or "").strip()


def _kind(file: Recipe[dict[str, Any]]) -> type[Task]:
    models = kinds()
    name = file.config.get("kind")
    if name not in models:
        what = "key kind is missing" if name is None else f"kind is {name!r}"
        raise UserError(what, f"it must be {' | '.join(models)}", at=file.line("kind"))
    return models[name]


def _check(kind: type[Task], keys: dict[str, Any], file: Recipe[dict[str, Any]]) -> None:
    # What only the recipe knows is put in.
    values = {"task": file.config["kind"], "langs": ["eng"], "path": "", **keys}
    try:
        kind.model_validate(values)
    except ValidationError as err:
        raise mistakes(err, kind, values, file.line, list(file.lines.values())) from None
    tokens, article = file.config.get("answer_tokens", 1), file.config.get("article")
    if not isinstance(tokens, int) or tokens < 1:
        raise UserError(f"answer_tokens is {tokens!r}", "it must be a whole number", at=file.line("answer_tokens"))
    if article and article not in keys.get("fields", {}):
        raise UserError(f"article is {article!r}", "it must be one of the fields", at=file.line("article"))
