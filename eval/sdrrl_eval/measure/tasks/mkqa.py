"""MKQA (Longpre et al. 2020): open questions with short answers, scored as by its official script."""

from functools import lru_cache

from sdrrl_eval.measure.answers import Answers
from sdrrl_eval.measure.metrics import mkqa
from sdrrl_eval.measure.metrics.score import ratio
from sdrrl_eval.measure.recipe import TaskConfig, metrics
from sdrrl_eval.measure.tasks.part import Item, Part
from sdrrl_eval.measure.tasks.words import form, text
from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import Language, language
from sdrrl_factory.models.lm import Generation
from sdrrl_factory.rows import Row, read_rows

PROMPT = "Answer the following question in {language} with as few words as possible.\n{question}"
_METRICS = tuple(mkqa.METRICS)
_SEPARATOR = "\n"  # of the accepted answers in an item's reference


def read(task: TaskConfig, place: str) -> list[Part]:
    """One part a language, from mkqa.jsonl.gz (or unpacked), which holds all languages.

    Questions without an answer (types unanswerable and long_answer) are skipped, as in the paper (appendix B).
    """
    metrics(task, _METRICS, _METRICS, place)
    prompt = form(task.prompt, PROMPT, ("language", "question"), f"{place}.prompt")
    langs = [language(code, f"{place}.langs") for code in task.langs]
    for lang in langs:
        if lang.mkqa is None:
            raise UserError(f"{place}.langs: MKQA has no {lang.name}; remove {lang.code}")
    return [
        Part("mkqa", None, lang.code, _items(task.path, lang, prompt), prompt=prompt.replace("{language}", lang.name))
        for lang in langs
    ]


@lru_cache(maxsize=1)
def _rows(path: str) -> list[Row]:
    return list(read_rows(path))


def _items(path: str, lang: Language, prompt: str) -> list[Item]:
    items: dict[str, Item] = {}
    for place, number, row in _rows(path):
        if gold := _gold(row, lang.mkqa, place):
            queries = row.get("queries")
            question = text(queries if isinstance(queries, dict) else {}, lang.mkqa, f"{place}: queries")
            name = str(row.get("example_id", number))
            if name in items:
                raise UserError(f"{place}: example_id {name} stands twice; remove one")
            asked = prompt.format(language=lang.name, question=question)
            items[name] = Item(name, asked, _SEPARATOR.join(gold), {"question": question})
    if not items:
        raise UserError(f"{path}: 0 questions with an answer in {lang.name}; fetch the official file again")
    return list(items.values())


def _gold(row: dict, lang: str, place: str) -> list[str]:
    """The accepted answers, aliases included; none of a question that has only the answer "none"."""
    answers = row.get("answers")
    answers = answers.get(lang) if isinstance(answers, dict) else None
    if not isinstance(answers, list) or not answers or not all(isinstance(a, dict) for a in answers):
        raise UserError(f"{place}: answers.{lang} is missing or empty; fetch the official file again")
    gold: dict[str, None] = {}
    for answer in answers:
        for one in [answer.get("text") or "", *(answer.get("aliases") or [])]:
            if not isinstance(one, str):
                raise UserError(f"{place}: an answer in answers.{lang} is no text; fetch the official file again")
            gold[one] = None
    return [] if list(gold) == [""] else list(gold)


def score(
    part: Part, answers: list[Generation], lm: Answers, batch_size: int, seed: int
) -> tuple[list[dict], list[dict]]:
    """Token F1 and exact match in percent, the best over the accepted answers: (prediction rows, scores)."""
    wanted = metrics(part.config, _METRICS, _METRICS, part.place)
    lang = language(part.target_lang, part.place).mkqa
    found = []
    for item, answer in zip(part.items, answers, strict=True):
        gold = item.reference.split(_SEPARATOR)
        found.append(item.row(answer, **{name: mkqa.METRICS[name](answer.text, gold, lang) for name in wanted}))
    custom = "custom" if part.config.prompt else "default"
    signature = f"mkqa:answerable|norm:{lang}|prompt:{custom}"
    return found, [
        part.score(name, ratio([(row[name], 1.0) for row in found], signature, seed, scale=100)) for name in wanted
    ]
