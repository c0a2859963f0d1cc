"""BELEBELE (Bandarkar et al. 2023): a question on a short passage, four answers, one of them right.

`mode: likelihood` (the default) takes the letter with the highest probability behind
`P: ... Q: ... A: ... B: ... C: ... D: ... Answer:`, as plain text, letter for letter lm-evaluation-harness's. Where
" A" to " D" are single tokens, one forward pass gives all four, and a passage with two questions is computed once.
`shots: 5` draws the same questions in every language, from `examples` (a file of this shape) or from the file itself;
questions on those passages are then not asked. `mode: generate` asks with the paper's instruction, in the chat format,
and reads the letter as models write it: "(B)", "b)", "**B**", "The answer is B.", "Respuesta: B", "\\boxed{B}"; an
answer that names several, and none as its own, has none. `metrics: [accuracy, accuracy_paper]` gives beside it what the
parser in the paper's repository reads: the first character without brackets, "B" of "Because" and "*" of "**B**" too.
Signature: `mode:likelihood|shots:0|prompt:official`, `mode:generate|shots:0|prompt:official|letter:written`.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from sdrrl_eval.measure.metrics.score import ratio
from sdrrl_eval.measure.reading import checked_prompt, field, file_for, keep
from sdrrl_eval.measure.task import Item, Part, Scored, Task
from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import Language
from sdrrl_factory.models.lm import Generation
from sdrrl_factory.models.remembered import RememberedModel
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
_HOLES = ("passage", "question", *LETTERS)
# hole of the prompt -> field of the official file
_FIELDS = {"passage": "flores_passage", "question": "question"}
_FIELDS |= {letter: f"mc_answer{i}" for i, letter in enumerate(LETTERS, 1)}
_KEPT = 8  # batches of questions that are kept at a time


class Belebele(Task):
    """Accuracy of the likeliest letter, or of the written one."""

    task: Literal["belebele"]
    path: str
    """The folder of `spa_Latn.jsonl`, a file a language (facebookresearch/belebele); or a file with `{flores}` in its
    name."""
    mode: Literal["likelihood", "generate"] = "likelihood"
    """generate has the model write the letter."""
    shots: int = Field(default=0, ge=0)
    """Examples before the question; with mode likelihood."""
    examples: str | None = None
    """Where the shots are drawn from; null: from the file itself."""
    prompt: str | None = None
    metrics: list[Literal["accuracy", "accuracy_paper"]] = ["accuracy"]
    """accuracy_paper: by the parser of the paper's repository; with mode generate."""

    scores = ("accuracy", "accuracy_paper")
    article = "passage"

    def without_likelihoods(self) -> str:
        return "" if self.mode == "generate" else "set mode: generate"

    def read(self) -> list[Part]:
        """One part a language."""
        if self.mode == "generate" and self.shots:
            raise UserError("examples are for mode likelihood", "remove them", key="shots")
        if self.mode == "likelihood" and "accuracy_paper" in self.metrics:
            raise UserError("accuracy_paper reads a written letter", "set mode: generate", key="metrics")
        prompt = checked_prompt(self.prompt, INSTRUCTION if self.mode == "generate" else PROMPT, _HOLES)
        return [self._part(lang, prompt) for lang in self.languages()]

    def _part(self, lang: Language, prompt: str) -> Part:
        path = file_for(self.path, "{flores}.jsonl", lang)
        items = _questions(path)
        if self.shots:
            # By the hash of link and number, hence the same questions in every language.
            other = file_for(self.examples, "{flores}.jsonl", lang) if self.examples else path
            pool = _questions(other) if self.examples else items
            examples = sorted(pool, key=lambda item: hashlib.sha256(item.id.encode()).digest())[: self.shots]
            if len(examples) < self.shots or len(items) <= self.shots:
                raise UserError(
                    f"{other} has too few questions for {self.shots} examples", "ask for fewer", key="shots"
                )
            # Whoever has seen the passage with one question's answer knows more about the other.
            shown = {item.texts["passage"] for item in examples}
            items = [item for item in items if item.texts["passage"] not in shown]
            solved = "".join(f"{prompt.format_map(item.texts)} {item.reference}\n\n" for item in examples)
            prompt = solved.replace("{", "{{").replace("}", "}}") + prompt
        if self.mode == "generate":
            items = [Item(item.id, prompt.format_map(item.texts), item.reference, item.texts) for item in items]
        return Part(self, None, lang.code, items, prompt)

    def likelihoods(self, part: Part, model: RememberedModel, batch_size: int) -> list[list[float]]:
        """[items][letters]: the log-probability of each letter behind the item's prompt; [] in mode generate."""
        if self.mode == "generate":
            return []
        prompts = [part.prompt.format_map(item.texts) for item in part.items]
        # A passage's questions go together: the passage is then computed once.
        by_passage: dict[str, list[str]] = {}
        for item, prompt in zip(part.items, prompts, strict=True):
            by_passage.setdefault(item.texts["passage"], []).append(prompt)
        groups = [tuple(group) for group in by_passage.values()]
        choices = [f" {letter}" for letter in LETTERS]

        def compute(batch: list[tuple[str, ...]]) -> list[list[list[float]]]:
            flat = model.model.choose([prompt for group in batch for prompt in group], choices, batch_size)
            rounded: Iterator[list[float]] = ([round(value, 6) for value in row] for row in flat)
            return [[next(rounded) for _ in group] for group in batch]

        values = model.remember(
            "choose",
            {"choices": choices},
            f"passages of {part.name}",
            groups,
            compute,
            _KEPT * batch_size,
            lambda group: len(group[0]),  # letters stand for tokens, near enough: the longest come first
        )
        by_prompt: dict[str, list[float]] = {}
        for group, rows in zip(groups, values, strict=True):
            by_prompt |= zip(group, rows, strict=True)
        return [by_prompt[prompt] for prompt in prompts]

    def score(self, part: Part, answers: list[Generation], likelihoods: list[Any], seed: int) -> Scored:
        """Percent of questions answered right."""
        if self.mode == "generate":
            letters = [written_letter(answer.text) for answer in answers]
            paper_letters = [paper_letter(answer.text) for answer in answers]
            rows = [
                item.row(answer, letter=letter, paper_letter=other)
                for item, answer, letter, other in zip(part.items, answers, letters, paper_letters, strict=True)
            ]
        else:
            letters = [LETTERS[row.index(max(row))] for row in likelihoods]
            rows = [
                item.row(letter=letter, logprobs=row) | {"prompt": part.prompt.format_map(item.texts), "output": letter}
                for item, letter, row in zip(part.items, letters, likelihoods, strict=True)
            ]
        prompt = "custom" if self.prompt else "official"
        signature = f"mode:{self.mode}|shots:{self.shots}|prompt:{prompt}"
        readings = {"accuracy": (letters, signature)}
        if self.mode == "generate":
            readings["accuracy"] = (letters, f"{signature}|letter:written")
            readings["accuracy_paper"] = (paper_letters, f"{signature}|letter:paper")
        scores = []
        for name in self.scores:
            if name in self.metrics:
                read, signature = readings[name]
                right = [letter == item.reference for letter, item in zip(read, part.items, strict=True)]
                rows = [row | {name: is_right} for row, is_right in zip(rows, right, strict=True)]
                accuracy = ratio([(float(is_right), 1.0) for is_right in right], signature, seed, scale=100)
                scores.append(part.score(name, accuracy))
        return rows, scores


def _questions(path: str) -> list[Item]:
    """Without prompts; the id is `<link> <question_number>`, the reference the right letter."""
    items: dict[str, Item] = {}
    for at, number, row in read_rows(path):
        texts = {hole: field(row, key, at) for hole, key in _FIELDS.items()}
        texts["question"] = texts["question"].strip()
        right = str(row.get("correct_answer_num"))
        if right not in ("1", "2", "3", "4"):
            raise UserError(f"correct_answer_num is {right}, not 1 to 4", "fetch the file again", at=at)
        name = f"{row.get('link', '')} {row.get('question_number', number)}".strip()
        keep(items, Item(name, None, LETTERS[int(right) - 1], texts), at, "link and question_number")
    if not items:
        raise UserError("0 questions", "fetch the official JSONL again", at=path)
    return list(items.values())


# Marks of Markdown and LaTeX around a letter: **B**, `B`, $\\boxed{\\text{B}}$.
_MARKS = re.compile(r"\\(boxed|text|textbf|mathrm|mathbf)|[*_`${}\"'“”‘’«»]|\\[()\[\]]")
# A letter that the answer begins with: "B", "(b)", "B. Los domingos", "B Los domingos"; "A dog" begins with a word.
_FIRST = re.compile(r"[(\[]?([A-D])(?:[)\].:,;\-–—]|\s*\n|\s*$)|[(\[]?([a-d])(?:[)\].:]|\s*$)|([B-D])\s", re.ASCII)
# What announces it, in English (the question's language) or by a colon in any: "The correct answer is option (B)",
# "Respuesta: B".
_ANNOUNCED = re.compile(
    r"(?:answer|choice|option)\s*(?:(?:is|would be|must be|:|=)\s*)+(?:the\s+)?(?:option|choice|letter|answer)?"
    r"\s*:?\s*[(\[]?([A-D])(?![\w'])"
)
_COLON = re.compile(r":\s*[(\[]?([A-D])[)\]]?\s*(?:[.。!]|$)", re.MULTILINE)
# One that stands for itself: in brackets, before a bracket or a full stop, or at the end of a line.
_ALONE = re.compile(r"(?<![\w])[(\[]?([A-D])(?:[)\]]|\s*(?:[.。!]|$)|\s+(?:is|es|adalah)\b)", re.MULTILINE)


def written_letter(answer: str) -> str:
    """The letter that an answer names as its own; "" where it names none, or several alike."""
    # Letters of full width are letters; what a model puts around them is not read.
    bare = _MARKS.sub("", unicodedata.normalize("NFKC", answer)).strip()
    # The last one announced: whoever goes through the choices comes to the answer at the end.
    if announced := _ANNOUNCED.findall(bare):
        return announced[-1]
    if first := _FIRST.match(bare):
        return next(filter(None, first.groups())).upper()
    if announced := _COLON.findall(bare):
        return announced[-1]
    alone = set(_ALONE.findall(bare))
    return alone.pop() if len(alone) == 1 else ""


def paper_letter(answer: str) -> str:
    """The letter a written answer begins with, parsed as in the paper's repository; "" of an empty one."""
    bare = answer.replace("(", "").replace(")", "").strip()
    if bare[:1] not in LETTERS:
        bare = bare.removeprefix("The correct answer is ")
    return bare[:1]
