"""Any questions with choices, a row each, one of the choices right: by likelihood, or by a written letter.

Among the `fields`, `choices` is a list of fields, or the field of a list; `answer` says which is right, as `answers`
has it. The other fields and the choices' letters (`{A}`, `{B}`, ...) are holes of the prompt. `mode: likelihood` takes
the likeliest letter behind the prompt or, with `by: text`, the likeliest choice, as plain text; `accuracy_norm` divides
a choice's log-probability by its characters. `mode: generate` reads the letter out of an answer, as for `belebele`.
"""

import hashlib
import string
from typing import Any, Literal

from sdrrl_eval.measure.metrics.letters import paper_letter, written_letter
from sdrrl_eval.measure.metrics.score import ratio
from sdrrl_eval.measure.reading import Column, cell, checked_prompt, field, path_for
from sdrrl_eval.measure.row_task import ANSWER, RowTask
from sdrrl_eval.measure.task import Item, Part, Scored
from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import Language
from sdrrl_factory.models.lm import Generation
from sdrrl_factory.models.remembered import RememberedModel

_CHOICES = "choices"  # of `fields`
_LETTERS = string.ascii_uppercase[:10]


class MultipleChoice(RowTask):
    """Accuracy of the likeliest letter or choice, or of the written letter."""

    task: Literal["multiple_choice"]
    answers: Literal["number", "index", "letter", "text"] = "number"
    """What the field `answer` holds: a number from 1, an index from 0, a letter, the text of the right choice."""
    mode: Literal["likelihood", "generate"] = "likelihood"
    """generate has the model write the letter."""
    by: Literal["letter", "text"] = "letter"
    """What stands behind the prompt, with mode likelihood: each letter, or each choice itself."""
    instruction: str | None = None
    """The prompt of mode generate; null: `prompt`."""
    metrics: list[Literal["accuracy", "accuracy_norm", "accuracy_paper"]] = ["accuracy"]
    """accuracy_norm: with by text; accuracy_paper: by the parser of BELEBELE's repository, with mode generate."""

    scores = ("accuracy", "accuracy_norm", "accuracy_paper")
    examples_in_test = True

    def without_likelihoods(self) -> str:
        return "" if self.mode == "generate" else "set mode: generate"

    def needs_losses(self) -> bool:
        return self._by_text

    def zero_shot(self) -> list[Part]:
        """One part a language."""
        if self.mode == "likelihood" and "accuracy_paper" in self.metrics:
            raise UserError("accuracy_paper reads a written letter", "set mode: generate", key="metrics")
        if "accuracy_norm" in self.metrics and (self.mode, self.by) != ("likelihood", "text"):
            raise UserError("accuracy_norm is of choices by their text", "set by: text", key="metrics")
        if self.mode == "likelihood" and self.system_prompt:
            fix = "remove it, or set mode: generate"
            raise UserError("likelihoods are of plain text, without a system prompt", fix, key="system_prompt")
        parts = super().zero_shot()
        for part in parts:
            numbers = sorted({len(_choices_of(item)) for item in part.items})
            if len(numbers) > 1 and not self._by_text:
                what = f"the questions have {numbers[0]} to {numbers[-1]} choices"
                raise UserError(what, "set by: text, or ask those of one number", at=part.files[0])
        return parts

    @property
    def _by_text(self) -> bool:
        return self.mode == "likelihood" and self.by == "text"

    def holes(self) -> list[str]:
        return [name for name in super().holes() if name != _CHOICES]

    def template(self) -> str:
        columns = self.fields.get(_CHOICES)
        if columns is None:
            raise UserError("no choices among the fields", "write choices: [a, b, ...]", key="fields")
        letters = _LETTERS if isinstance(columns, str) else _LETTERS[: len(columns)]
        needed = self.holes()[-1] if self._by_text or isinstance(columns, str) else letters[-1]
        return checked_prompt(self._asked_with(), "", [*self.holes(), *letters, "language"], needed)

    def _asked_with(self) -> str:
        # A recipe's prompt is that of either mode, unless it has an instruction too.
        is_of_both = "prompt" in self.model_fields_set and "instruction" not in self.model_fields_set
        return self.instruction if self.mode == "generate" and self.instruction and not is_of_both else self.prompt

    def item(self, lang: Language, row: dict, at: str, number: int, prompt: str) -> Item:
        """Its prompt is None where nothing is generated; the reference is the right letter, the texts are the holes."""
        texts = {name: self.value(name, lang, row, at) for name in self.holes()}
        if "question" in texts:
            texts["question"] = texts["question"].strip()  # as lm-evaluation-harness
        choices = _choices(self.fields[_CHOICES], lang, row, at)
        texts |= dict(zip(_LETTERS, choices, strict=False))
        right = self._right(lang, row, choices, at)
        group = hashlib.sha256(texts[self.article].encode()).hexdigest()[:12] if texts.get(self.article) else ""
        asked = prompt.format_map(texts) if self.mode == "generate" else None
        return Item(self.item_id(lang, row, number), asked, right, texts, group)

    def _right(self, lang: Language, row: dict, choices: list[str], at: str) -> str:
        """The letter of the right choice."""
        name = path_for(str(self.fields.get(ANSWER, ANSWER)), lang)
        value = cell(row, name)
        possible = {
            "number": [str(i) for i in range(1, len(choices) + 1)],
            "index": [str(i) for i in range(len(choices))],
            "letter": list(_LETTERS[: len(choices)]),
            "text": [choice.strip() for choice in choices],
        }[self.answers]
        if str(value).strip() not in possible:
            ends = "one of the choices" if self.answers == "text" else f"{possible[0]} to {possible[-1]}"
            raise UserError(f"{name} is {value}, not {ends}", "fetch the file again, or set answers", at=at)
        return _LETTERS[possible.index(str(value).strip())]

    def question(self, part: Part, item: Item) -> str:
        return item.prompt if item.prompt is not None else part.prompt.format_map(item.texts)

    def solution(self, item: Item) -> str:
        return item.texts[item.reference or ""] if self._by_text else item.reference or ""

    # --- likelihoods

    def likelihoods(self, part: Part, model: RememberedModel, batch_size: int) -> list[list[float]]:
        """[items][choices]: the log-probability of each behind the item's prompt; [] in mode generate."""
        if self.mode == "generate":
            return []
        questions = [(self.question(part, item), self._behind(part, item)) for item in part.items]
        return model.choose(questions, batch_size, f"questions of {part.name}")

    def _behind(self, part: Part, item: Item) -> list[str]:
        """What may stand behind the prompt: letters, or the choices behind a blank where the prompt has none."""
        choices = _choices_of(item)
        if self.by == "letter":
            return [f" {letter}" for letter in _LETTERS[: len(choices)]]
        blank = "" if part.prompt[-1:].isspace() else " "
        return [f"{blank}{choice}" for choice in choices]

    # --- scores

    def score(self, part: Part, answers: list[Generation], likelihoods: list[Any], seed: int) -> Scored:
        """Percent of questions answered right."""
        prompt = "custom" if {"prompt", "instruction"} & self.model_fields_set else "official"
        signature = f"mode:{self.mode}|shots:{self.shots}|prompt:{prompt}"
        # 1. What each metric reads as the answer: metric -> (letters, signature).
        readings: dict[str, tuple[list[str], str]] = {}
        if self.mode == "generate":
            letters = _LETTERS[: len(_choices_of(part.items[0]))]
            written = [written_letter(answer.text, letters) for answer in answers]
            by_paper = [paper_letter(answer.text, letters) for answer in answers]
            readings["accuracy"] = (written, f"{signature}|letter:written")
            readings["accuracy_paper"] = (by_paper, f"{signature}|letter:paper")
            rows = [
                item.row(answer, letter=letter, paper_letter=other)
                for item, answer, letter, other in zip(part.items, answers, written, by_paper, strict=True)
            ]
        else:
            signature += "|by:text" if self.by == "text" else ""
            likeliest = [_LETTERS[row.index(max(row))] for row in likelihoods]
            readings["accuracy"] = (likeliest, signature)
            if self.by == "text":
                normed = [_likeliest_by_character(item, row) for item, row in zip(part.items, likelihoods, strict=True)]
                readings["accuracy_norm"] = (normed, f"{signature}|norm:characters")
            rows = [
                item.row(letter=letter, logprobs=row)
                | {"prompt": self.question(part, item), "output": item.texts[letter] if self.by == "text" else letter}
                for item, letter, row in zip(part.items, likeliest, likelihoods, strict=True)
            ]
        # 2. The share of right ones.
        scores = []
        for name in self.scores:
            if name in self.metrics:
                read, signature = readings[name]
                right = [letter == item.reference for letter, item in zip(read, part.items, strict=True)]
                rows = [row | {name: is_right} for row, is_right in zip(rows, right, strict=True)]
                groups = [item.group or item.id for item in part.items]
                accuracy = ratio([(float(is_right), 1.0) for is_right in right], signature, seed, 100, groups)
                scores.append(part.score(name, accuracy))
        return rows, scores


def _choices(columns: Column, lang: Language, row: dict, at: str) -> list[str]:
    """The texts of the choices: a list of fields, or the field of a list."""
    if isinstance(columns, list):
        return [field(row, path_for(column, lang), at) for column in columns]
    name = path_for(columns, lang)
    values = cell(row, name)
    if not isinstance(values, list) or not values or not all(isinstance(one, str) and one.strip() for one in values):
        raise UserError(f"{name} is no list of texts", "name the field of the choices, or the fields", at=at)
    if len(values) > len(_LETTERS):
        raise UserError(f"{name} has {len(values)} choices, more than {len(_LETTERS)}", "leave the row out", at=at)
    return values


def _choices_of(item: Item) -> list[str]:
    return [item.texts[letter] for letter in _LETTERS if letter in item.texts]


def _likeliest_by_character(item: Item, logprobs: list[float]) -> str:
    per_character = [value / len(choice) for value, choice in zip(logprobs, _choices_of(item), strict=True)]
    return _LETTERS[per_character.index(max(per_character))]
