"""Few-shot prompts: solved examples before each question of a task, drawn once for every language and every system."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdrrl_eval.measure.reading import has_language_hole
from sdrrl_eval.measure.task import Item, Part, PromptedTask
from sdrrl_factory.errors import UserError, under


def with_shots(task: PromptedTask, parts: Sequence[Part]) -> list[Part]:
    """The parts with `task.shots` solved examples before each of their questions.

    The examples are drawn from `task.examples`, read as the test is read; a file of the test is refused, and so is, as
    an example, what stands in the test as well. Items on a passage that an example shows are not asked: whoever has
    seen one question's answer knows more about the other.

    Raises: UserError about "examples" or "shots".
    """
    path = task.examples or task.default_examples()
    pools = list(parts)
    if path:
        with under("examples"):
            pools = _pools(task, path)
        for part in parts:
            _refuse_the_test(part, pools)
    elif not task.examples_in_test:
        fix = "name a file or folder like that of path, as a training split"
        raise UserError(f"{task.shots} shots need examples that are not the test", fix, key="examples")
    by_name = {pool.name: pool for pool in pools}
    return [_with_examples(task, part, by_name[part.name]) for part in parts]


def _pools(task: PromptedTask, path: str) -> list[Part]:
    """The parts of `path`. A file without a hole for the language has the examples of all: English ones, say."""
    update: dict[str, Any] = {"path": path, "shots": 0}
    if not has_language_hole(path) and Path(path).is_file() and "only" in type(task).model_fields:
        update["only"] = {}
    try:
        # One language at a time: a file is read as two languages here on purpose.
        copies = [task.model_copy(update=update | {"langs": [lang]}) for lang in task.langs]
        return [part for copy in copies for part in copy.zero_shot()]
    except UserError as err:
        # What is wrong with the path of this copy is wrong with `examples`; files have their own place.
        err.key = "" if err.key == "path" else err.key
        raise


def _refuse_the_test(part: Part, pools: Sequence[Part]) -> None:
    tests = {Path(file).resolve() for file in part.files}
    for file in (file for pool in pools for file in pool.files):
        if Path(file).resolve() in tests:
            raise UserError(f"{file} is the test itself", "name another file, as a training split", key="examples")


def _with_examples(task: PromptedTask, part: Part, pool: Part) -> Part:
    # 1. The draw: parallel items have the same id, hence the same examples in every language and direction.
    test = [] if pool is part else [item.texts for item in part.items]
    candidates = [item for item in pool.items if task.solution(item).strip() and item.texts not in test]
    examples = sorted(candidates, key=lambda item: _rank(task.shots_seed, item))[: task.shots]
    passages = {item.group for item in examples if item.group}
    ids = {item.id for item in examples} if pool is part else set()
    items = [item for item in part.items if item.id not in ids and item.group not in passages]
    if len(examples) < task.shots or not items:
        file = ", ".join(pool.files) or task.path
        raise UserError(f"{file} has too few questions for {task.shots} examples", "ask for fewer", key="shots")

    # 2. Each with its answer, an empty line between one and the next.
    prefix = "".join(f"{_joined(task.question(pool, item), task.solution(item))}\n\n" for item in examples)
    items = [replace(item, prompt=prefix + item.prompt) if item.prompt is not None else item for item in items]
    return replace(part, items=items, prompt=prefix.replace("{", "{{").replace("}", "}}") + part.prompt)


def _rank(seed: int, item: Item) -> bytes:
    # Seed 0 is the hash of the id alone: the draw of results from before there was a seed.
    return hashlib.sha256((f"{seed} {item.id}" if seed else item.id).encode()).digest()


def _joined(question: str, answer: str) -> str:
    """In the question's last line where it ends in a colon, below it otherwise."""
    if question.endswith((" ", "\n")):
        return question + answer
    return f"{question} {answer}" if question.endswith(":") else f"{question}\n{answer}"
