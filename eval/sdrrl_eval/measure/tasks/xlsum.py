"""XL-SUM (Hasan et al. 2021): a news text to be summarised in one sentence."""

from pathlib import Path

from sdrrl_eval.measure.answers import Answers
from sdrrl_eval.measure.metrics.rouge import Rouge
from sdrrl_eval.measure.recipe import TaskConfig, metrics
from sdrrl_eval.measure.tasks.part import Item, Part, fill
from sdrrl_eval.measure.tasks.words import form, text
from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import Language, language
from sdrrl_factory.models.lm import Generation
from sdrrl_factory.rows import read_rows

PROMPT = "Summarize the following text in one sentence in {language}.\n{text}"
_METRICS = ("rouge1", "rougeL")


def check(task: TaskConfig, place: str) -> None:
    """Say before anything runs what ROUGE lacks."""
    metrics(task, _METRICS, _METRICS, place)
    for code in task.langs:
        Rouge(language(code, f"{place}.langs"), task.tokenizer, place)


def read(task: TaskConfig, place: str) -> list[Part]:
    """One part a language, from the official JSONL: `path` is its folder, or a file with {xlsum} in its name."""
    prompt = form(task.prompt, PROMPT, ("language", "title", "text"), f"{place}.prompt")
    return [_part(task, language(code, f"{place}.langs"), prompt, place) for code in task.langs]


def _part(task: TaskConfig, lang: Language, prompt: str, place: str) -> Part:
    path = fill(task.path, lang, place)
    if Path(path).is_dir():
        path = str(Path(path) / fill("{xlsum}_test.jsonl", lang, place))
    prompt = prompt.replace("{language}", lang.name)
    items: dict[str, Item] = {}
    for where, number, row in read_rows(path):
        summary, whole = text(row, "summary", where), text(row, "text", where)
        name = str(row.get("id", number))
        if name in items:
            raise UserError(f"{where}: id {name!r} stands twice; remove one")
        asked = prompt.format(title=row.get("title", ""), text=whole)
        items[name] = Item(name, asked, summary, {"text": whole})
    if not items:
        raise UserError(f"{path}: 0 texts; fetch the official JSONL again")
    return Part("xlsum", None, lang.code, list(items.values()), prompt=prompt)


def score(
    part: Part, answers: list[Generation], lm: Answers, batch_size: int, seed: int
) -> tuple[list[dict], list[dict]]:
    """The mean ROUGE-1 and ROUGE-L F1 in [0, 100]: (prediction rows, scores)."""
    wanted = metrics(part.config, _METRICS, _METRICS, part.place)
    rouge = Rouge(language(part.target_lang, part.place), part.config.tokenizer, part.place)
    values = [rouge.f1(a.text, item.reference) for item, a in zip(part.items, answers, strict=True)]
    found = [
        item.row(a, **{name: round(100 * v[name], 2) for name in wanted})
        for item, a, v in zip(part.items, answers, values, strict=True)
    ]
    return found, [part.score(name, rouge.score([v[name] for v in values], seed)) for name in wanted]
