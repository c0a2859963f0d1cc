"""Held-out instructions: how near the model's answers come to the reference, and how likely it finds that reference."""

from sdrrl_eval.measure.answers import Answers
from sdrrl_eval.measure.metrics import mt
from sdrrl_eval.measure.metrics.score import token_loss
from sdrrl_eval.measure.recipe import TaskConfig, metrics
from sdrrl_eval.measure.tasks.part import Item, Part, fill
from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import language
from sdrrl_factory.models.lm import Generation
from sdrrl_factory.rows import read_rows

_METRICS = ("chrf", "answer_loss")


def question_parts(task: TaskConfig, place: str, answered: bool) -> list[Part]:
    """One part a language, from `path` with its {lang} filled in.

    A row is {"instruction"[, "id", "input" or "context", "output"]} as in Alpaca, Bactrian-X or Dolly; the question is
    instruction and input on lines of their own, as LLaMA-Factory's alpaca format joins them. `answered`: every row
    must have an output.
    """
    langs = [language(code, f"{place}.langs") for code in task.langs]
    paths = [fill(task.path, lang, place) for lang in langs]
    if len(set(paths)) < len(set(task.langs)):
        raise UserError(f"{place}.path: {task.path} has no {{lang}} for {len(langs)} languages; write it in")
    form = "{instruction}\n{input}"
    return [
        Part(task.task, None, lang.code, _items(path, answered), prompt=form)
        for lang, path in zip(langs, paths, strict=True)
    ]


def _items(path: str, answered: bool) -> list[Item]:
    items, seen = [], set()
    for place, number, row in read_rows(path):
        for key in ("instruction", "output") if answered else ("instruction",):
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise UserError(f"{place}: {key} is missing or empty; write it as text")
        given = next((row[key] for key in ("input", "context") if row.get(key)), "")
        output = row.get("output")
        for key, value in (("input", given), ("output", output or "")):
            if not isinstance(value, str):
                raise UserError(f"{place}: {key} is {type(value).__name__}; write it as text")
        name = str(row.get("id", number))
        if name in seen:
            raise UserError(f"{place}: id {name!r} stands twice; make the ids distinct")
        seen.add(name)
        question = "\n".join(filter(None, [row["instruction"], given]))
        items.append(Item(name, question, output, {"question": question}))
    if not items:
        raise UserError(f'{path}: 0 rows; put {{"id", "instruction", "input", "output"}} objects in it, one a line')
    return items


def read(task: TaskConfig, place: str) -> list[Part]:
    metrics(task, _METRICS, _METRICS, place)
    return question_parts(task, place, answered=True)


def score(
    part: Part, answers: list[Generation], lm: Answers, batch_size: int, seed: int
) -> tuple[list[dict], list[dict]]:
    """Corpus chrF of the greedy answers, and nats a token of the reference answers: (prediction rows, scores)."""
    wanted = metrics(part.config, _METRICS, _METRICS, part.place)
    references = [item.reference for item in part.items]
    found = [{"chrf": mt.sentence_chrf(a.text, r)} for a, r in zip(answers, references, strict=True)]
    scores = [part.score("chrf", mt.chrf([a.text for a in answers], references, seed))] * ("chrf" in wanted)
    if "answer_loss" in wanted:
        losses = lm.answer_loss([(item.prompt, item.reference) for item in part.items], batch_size)
        found = [f | {"nats": nats, "tokens": n} for f, (nats, n) in zip(found, losses, strict=True)]
        scores.append(part.score("answer_loss", token_loss(losses, "eos:no", seed)))
    return [item.row(a, **f) for item, a, f in zip(part.items, answers, found, strict=True)], scores
