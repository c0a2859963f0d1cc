"""How well the model foresees natural text: the token-level cross-entropy of a FLORES-shaped folder's sentences.

Only comparable between checkpoints that share a tokenizer; the signature holds the number of tokens.
"""

from typing import Any, Literal

from sdrrl_eval.measure.metrics.score import token_loss
from sdrrl_eval.measure.reading import sentences, sentences_path
from sdrrl_eval.measure.task import Item, Part, Scored, Task
from sdrrl_factory.models.lm import Generation
from sdrrl_factory.models.remembered import RememberedModel


class TextLoss(Task):
    """Cross-entropy of natural text (nats a token)."""

    task: Literal["text_loss"]
    path: str
    """A folder like FLORES's, or a file with `{lang}` or another hole in its name."""

    scores = ("text_loss",)

    def without_likelihoods(self) -> str:
        return "remove the task, or evaluate the checkpoint itself"

    def read(self) -> list[Part]:
        """One part a language."""
        parts = []
        for lang in self.languages():
            lines = sentences(self.path, lang)
            items = [Item(str(number), None, line, {"sentence": line}) for number, line in enumerate(lines, 1)]
            parts.append(Part(self, None, lang.code, items, files=(str(sentences_path(self.path, lang)),)))
        return parts

    def likelihoods(self, part: Part, model: RememberedModel, batch_size: int) -> list[tuple[float, int]]:
        """(nats, tokens) of the sentences, each after one start token."""
        return model.text_loss(part.references, batch_size)

    def score(self, part: Part, answers: list[Generation], likelihoods: list[Any], seed: int) -> Scored:
        """Nats a token."""
        rows = [item.row(nats=nats, tokens=n) for item, (nats, n) in zip(part.items, likelihoods, strict=True)]
        return rows, [part.score("text_loss", token_loss(likelihoods, "bos:1", seed))]
