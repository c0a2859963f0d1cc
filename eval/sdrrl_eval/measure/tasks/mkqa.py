"""MKQA (Longpre et al. 2020): open questions with short answers, scored as by its official script.

The official normalisation and scores, the best over answers and aliases; questions without an answer (unanswerable,
long_answer) are not asked, hence the figures are the script's `answerable_f1` and `answerable_exact_match`. A yes or no
is, as there, the English word in every language.
"""

from functools import lru_cache
from typing import Any, Literal

from sdrrl_eval.measure.metrics import mkqa
from sdrrl_eval.measure.metrics.score import ratio
from sdrrl_eval.measure.reading import checked_prompt, field, keep
from sdrrl_eval.measure.task import Item, Part, PromptedTask, Scored
from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import LANGUAGES, Language
from sdrrl_factory.models.lm import Generation
from sdrrl_factory.rows import Row, read_rows

PROMPT = "Answer the following question in {language} with as few words as possible.\n{question}"
_SEPARATOR = "\n"  # of the accepted answers in an item's reference


class Mkqa(PromptedTask):
    """The official token F1 and exact match."""

    task: Literal["mkqa"]
    path: str
    """`mkqa.jsonl.gz`, all languages (apple/ml-mkqa); or the file unpacked."""
    prompt: str | None = None
    metrics: list[Literal["f1", "em"]] = ["f1", "em"]

    scores = ("f1", "em")
    answer_tokens = 32

    def zero_shot(self) -> list[Part]:
        """One part a language."""
        prompt = checked_prompt(self.prompt, PROMPT, ("language", "question"))
        parts = []
        for lang in self.languages():
            if lang.mkqa is None:
                raise UserError(f"MKQA has no {lang.name}", f"remove {lang.code}", key="langs")
            items = _items(self.path, lang, lang.mkqa, prompt)
            asked = prompt.replace("{language}", lang.name)
            parts.append(Part(self, None, lang.code, items, asked, files=(self.path,)))
        return parts

    def solution(self, item: Item) -> str:
        return (item.reference or "").split(_SEPARATOR)[0]

    def score(self, part: Part, answers: list[Generation], likelihoods: list[Any], seed: int) -> Scored:
        """Token F1 and exact match in percent, the best over the accepted answers."""
        lang = LANGUAGES[part.target_lang].mkqa or ""
        names = [name for name in self.scores if name in self.metrics]
        rows = []
        for item, reference, answer in zip(part.items, part.references, answers, strict=True):
            accepted = reference.split(_SEPARATOR)
            rows.append(item.row(answer, **{name: mkqa.METRICS[name](answer.text, accepted, lang) for name in names}))
        signature = f"mkqa:answerable|norm:{lang}|prompt:{'custom' if self.prompt else 'default'}"
        return rows, [
            part.score(name, ratio([(row[name], 1.0) for row in rows], signature, seed, scale=100)) for name in names
        ]


@lru_cache(maxsize=1)  # all languages are in one file
def _rows(path: str) -> list[Row]:
    return list(read_rows(path))


def _items(path: str, lang: Language, code: str, prompt: str) -> list[Item]:
    """code: MKQA's of the language."""
    items: dict[str, Item] = {}
    for at, number, row in _rows(path):
        accepted = _accepted(row, code, at)
        if not accepted:
            continue
        queries = row.get("queries")
        question = field(queries if isinstance(queries, dict) else {}, code, f"{at}: queries")
        asked = prompt.format(language=lang.name, question=question)
        item = Item(str(row.get("example_id", number)), asked, _SEPARATOR.join(accepted), {"question": question})
        keep(items, item, at, "example_id")
    if not items:
        raise UserError(f"0 questions with an answer in {lang.name}", "fetch the official file again", at=path)
    return list(items.values())


def _accepted(row: dict, lang: str, at: str) -> list[str]:
    """The accepted answers, aliases included; none of a question that has only the answer "none"."""
    answers = row.get("answers")
    answers = answers.get(lang) if isinstance(answers, dict) else None
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, dict) for answer in answers):
        raise UserError(f"answers.{lang} is missing or empty", "fetch the official file again", at=at)
    texts: dict[str, None] = {}  # each once, in their order
    for answer in answers:
        for text in [answer.get("text") or "", *(answer.get("aliases") or [])]:
            if not isinstance(text, str):
                raise UserError(f"an answer in answers.{lang} is no text", "fetch the official file again", at=at)
            texts[text] = None
    return [] if list(texts) == [""] else list(texts)
