"""Held-out instructions: how near the model's answers come to the reference, and how likely it finds that reference.

A question is `instruction` and `input` (or `context`), as in Alpaca, Bactrian-X and Dolly.
"""

from typing import Any, Literal

from sdrrl_eval.measure.metrics import mt
from sdrrl_eval.measure.metrics.score import token_loss
from sdrrl_eval.measure.reading import QUESTION, questions
from sdrrl_eval.measure.task import Part, Scored, Task
from sdrrl_factory.models.lm import Generation
from sdrrl_factory.models.remembered import RememberedModel


class Instructions(Task):
    """chrF of the answer, cross-entropy of the reference (nats a token)."""

    task: Literal["instructions"]
    path: str
    """Questions with reference answers, JSONL or JSON, gzipped too; `{lang}` or `{bactrian}` in the name."""
    metrics: list[Literal["chrf", "answer_loss"]] = ["chrf", "answer_loss"]

    scores = ("chrf", "answer_loss")
    answer_tokens = 256

    def without_likelihoods(self) -> str:
        return "set metrics: [chrf]" if "answer_loss" in self.metrics else ""

    def read(self) -> list[Part]:
        """One part a language."""
        langs = self.languages()
        by_language = questions(self.path, langs, answered=True)
        return [Part(self, None, lang.code, items, QUESTION) for lang, items in zip(langs, by_language, strict=True)]

    def likelihoods(self, part: Part, model: RememberedModel, batch_size: int) -> list[tuple[float, int]]:
        """(nats, tokens) of the reference answers."""
        if "answer_loss" not in self.metrics:
            return []
        return model.answer_loss([(item.prompt or "", item.reference or "") for item in part.items], batch_size)

    def score(self, part: Part, answers: list[Generation], likelihoods: list[Any], seed: int) -> Scored:
        """Corpus chrF of the greedy answers, and nats a token of the reference answers."""
        references = part.references
        rows = [
            item.row(answer, chrf=mt.sentence_chrf(answer.text, reference))
            for item, answer, reference in zip(part.items, answers, references, strict=True)
        ]
        scores = []
        if "chrf" in self.metrics:
            scores.append(part.score("chrf", mt.chrf([answer.text for answer in answers], references, seed)))
        if "answer_loss" in self.metrics:
            rows = [row | {"nats": nats, "tokens": n} for row, (nats, n) in zip(rows, likelihoods, strict=True)]
            scores.append(part.score("answer_loss", token_loss(likelihoods, "eos:no", seed)))
        return rows, scores
