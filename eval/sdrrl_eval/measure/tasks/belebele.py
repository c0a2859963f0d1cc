"""BELEBELE (Bandarkar et al. 2023): a question on a short passage, four answers, one of them right."""

import hashlib
from pathlib import Path

from sdrrl_eval.measure.answers import Answers
from sdrrl_eval.measure.metrics.score import ratio
from sdrrl_eval.measure.recipe import TaskConfig, metrics
from sdrrl_eval.measure.tasks.part import Item, Part, fill
from sdrrl_eval.measure.tasks.words import form, text
from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import Language, language
from sdrrl_factory.models.lm import Generation
from sdrrl_factory.rows import read_rows

LETTERS = ("A", "B", "C", "D")
# The paper's few-shot form, blanks as in lm-evaluation-harness.
PROMPT = "P: {passage}\nQ: {question}\nA: {A}\nB: {B}\nC: {C}\nD: {D}\nAnswer:"
# The paper's instruction to chat models.
INSTRUCTION = (
    "Given the following passage, query, and answer choices, output the letter corresponding to the correct answer."
    "\n###\nPassage:\n{passage}\n###\nQuery:\n{question}\n###\nChoices:\n(A) {A}\n(B) {B}\n(C) {C}\n(D) {D}\n###\n"
    "Answer:\n"
)
_METRICS = ("accuracy",)
_HOLES = ("passage", "question", *LETTERS)
_KEYS = {"passage": "flores_passage", "question": "question"} | {c: f"mc_answer{i}" for i, c in enumerate(LETTERS, 1)}
_WRITTEN = 8  # batches between two writes


def read(task: TaskConfig, place: str) -> list[Part]:
    """One part a language, from the official JSONL: `path` is its folder, or a file with {flores} in its name.

    The examples of `shots` are drawn by the hash of link and number, hence are the same questions in every language:
    from `examples`, or from the file itself, whose questions on their passages are then not asked.
    """
    metrics(task, _METRICS, _METRICS, place)
    if task.mode not in (None, "likelihood", "generate"):
        raise UserError(f"{place}.mode: {task.mode!r} is neither likelihood nor generate; take one of them")
    generate = task.mode == "generate"
    if generate and task.shots:
        raise UserError(f"{place}.shots: examples are for mode likelihood; remove them")
    prompt = form(task.prompt, INSTRUCTION if generate else PROMPT, _HOLES, f"{place}.prompt")
    return [_part(task, language(code, f"{place}.langs"), prompt, place) for code in task.langs]


def _part(task: TaskConfig, lang: Language, prompt: str, place: str) -> Part:
    path = fill(task.path, lang, place)
    path = str(Path(path) / f"{lang.flores}.jsonl") if Path(path).is_dir() else path
    items = _items(path)
    if task.shots:
        other = task.examples and fill(task.examples, lang, place)
        shots = sorted(_items(other) if other else items, key=lambda item: hashlib.sha256(item.id.encode()).digest())
        shots = shots[: task.shots]
        if len(shots) < task.shots or len(items) <= task.shots:
            raise UserError(f"{place}.shots: {other or path} has too few questions for {task.shots} examples")
        shown = {item.texts["passage"] for item in shots}
        items = [item for item in items if item.texts["passage"] not in shown]
        told = "".join(f"{prompt.format_map(item.texts)} {item.reference}\n\n" for item in shots)
        prompt = told.replace("{", "{{").replace("}", "}}") + prompt
    if task.mode == "generate":
        items = [Item(i.id, prompt.format_map(i.texts), i.reference, i.texts) for i in items]
    return Part("belebele", None, lang.code, items, prompt=prompt)


def _items(path: str) -> list[Item]:
    """Without prompts; the id is `<link> <question_number>`, the reference the right letter."""
    items: dict[str, Item] = {}
    for place, number, row in read_rows(path):
        texts = {name: text(row, key, place) for name, key in _KEYS.items()}
        texts["question"] = texts["question"].strip()
        right = str(row.get("correct_answer_num"))
        if right not in ("1", "2", "3", "4"):
            raise UserError(f"{place}: correct_answer_num is {right}, not 1 to 4; fetch the file again")
        name = f"{row.get('link', '')} {row.get('question_number', number)}".strip()
        if name in items:
            raise UserError(f"{place}: {name} stands twice (link and question_number); remove one")
        items[name] = Item(name, None, LETTERS[int(right) - 1], texts)
    if not items:
        raise UserError(f"{path}: 0 questions; fetch the official JSONL again")
    return list(items.values())


def letter(answer: str) -> str:
    """The letter a written answer begins with, parsed as in the paper's repository; "" of an empty one."""
    bare = answer.replace("(", "").replace(")", "").strip()
    if bare[:1] not in LETTERS:
        bare = bare.removeprefix("The correct answer is ")
    return bare[:1]


def score(
    part: Part, answers: list[Generation], lm: Answers, batch_size: int, seed: int
) -> tuple[list[dict], list[dict]]:
    """Percent of questions answered right: (prediction rows, scores)."""
    if part.config.mode == "generate":
        picked = [letter(a.text) for a in answers]
        found = [item.row(a, letter=p) for item, a, p in zip(part.items, answers, picked, strict=True)]
    else:
        values = _likelihoods(part, lm, batch_size)
        picked = [LETTERS[row.index(max(row))] for row in values]
        found = [
            item.row(letter=p, logprobs=row) | {"prompt": part.prompt.format_map(item.texts), "output": p}
            for item, p, row in zip(part.items, picked, values, strict=True)
        ]
    right = [p == item.reference for p, item in zip(picked, part.items, strict=True)]
    found = [row | {"accuracy": r} for row, r in zip(found, right, strict=True)]
    custom = "custom" if part.config.prompt else "official"
    signature = f"mode:{part.config.mode or 'likelihood'}|shots:{part.config.shots or 0}|prompt:{custom}"
    return found, [part.score("accuracy", ratio([(float(r), 1.0) for r in right], signature, seed, scale=100))]


def _likelihoods(part: Part, lm: Answers, batch_size: int) -> list[list[float]]:
    """Per item the log-probability of each letter behind the prompt; a passage's questions go together."""
    asked: dict[str, list[str]] = {}
    for item in part.items:
        asked.setdefault(item.texts["passage"], []).append(part.prompt.format_map(item.texts))
    choices = [f" {c}" for c in LETTERS]

    def compute(batch: list[tuple[str, ...]]) -> list[list[list[float]]]:
        flat = iter(lm.model.choose([prompt for some in batch for prompt in some], choices, batch_size))
        return [[[round(value, 6) for value in next(flat)] for _ in some] for some in batch]

    together = [tuple(some) for some in asked.values()]
    found = lm.remember(
        ["choose", choices], f"passages of {part.name}", together, compute, _WRITTEN * batch_size, lambda s: len(s[0])
    )
    by_prompt: dict[str, list[float]] = {}
    for some, values in zip(together, found, strict=True):
        by_prompt |= zip(some, values, strict=True)
    return [by_prompt[part.prompt.format_map(item.texts)] for item in part.items]
