"""Held-out instructions: how near the model's answers come to the reference, and how likely it finds that reference."""

from sdrrl_eval.metrics import mt
from sdrrl_eval.metrics.score import token_loss
from sdrrl_eval.recipe import TaskConfig
from sdrrl_eval.tasks.part import Item, Part
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import read_jsonl
from sdrrl_factory.languages import language
from sdrrl_factory.lm import LM, Generation


def question_parts(task: TaskConfig, place: str, answered: bool) -> list[Part]:
    """One part a language, from `path` with its `{lang}` filled in.

    A row is {"id", "instruction", "input", "output"}; the question is instruction and input on lines of their own,
    as LLaMA-Factory's alpaca format joins them. `answered`: every row must have an output.
    """
    if "{lang}" not in task.path and len(task.langs) > 1:
        raise UserError(f"{place}.path: {task.path} has no {{lang}} for {len(task.langs)} languages; write it in")
    for code in task.langs:
        language(code, f"{place}.langs")
    return [Part(task.task, None, code, _items(task.path.replace("{lang}", code), answered)) for code in task.langs]


def _items(path: str, answered: bool) -> list[Item]:
    items, seen = [], set()
    for number, row in read_jsonl(path):
        for key in ("instruction", "output") if answered else ("instruction",):
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise UserError(f"{path}:{number}: {key} is missing or empty; write it as text")
        if not isinstance(row.get("input") or "", str):
            raise UserError(f"{path}:{number}: input is {type(row['input']).__name__}; write it as text")
        name = str(row.get("id", number))
        if name in seen:
            raise UserError(f"{path}:{number}: id {name!r} stands twice; make the ids distinct")
        seen.add(name)
        question = "\n".join(filter(None, [row["instruction"], row.get("input")]))
        items.append(Item(name, question, row.get("output")))
    if not items:
        raise UserError(f'{path}: 0 rows; put {{"id", "instruction", "input", "output"}} objects in it, one a line')
    return items


def read(task: TaskConfig, place: str) -> list[Part]:
    return question_parts(task, place, answered=True)


def score(part: Part, answers: list[Generation], lm: LM, batch_size: int, seed: int) -> tuple[list[dict], list[dict]]:
    """Corpus chrF of the greedy answers, and nats a token of the reference answers: (prediction rows, scores)."""
    losses = lm.answer_loss([(item.prompt, item.reference) for item in part.items], batch_size)
    rows = [
        item.row(answer, chrf=mt.sentence_chrf(answer.text, item.reference), nats=nats, tokens=n)
        for item, answer, (nats, n) in zip(part.items, answers, losses, strict=True)
    ]
    chrf = mt.chrf([a.text for a in answers], [item.reference for item in part.items], seed)
    return rows, [
        part.score("chrf", chrf),
        part.score("answer_loss", token_loss(losses, "eos:no", seed)),
    ]
