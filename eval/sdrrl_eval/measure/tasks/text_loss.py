"""How well the model foresees natural text: the token-level cross-entropy of a FLORES-shaped folder's sentences.

Only comparable between checkpoints that share a tokenizer; the signature holds the number of tokens.
"""

from sdrrl_eval.measure.answers import Answers
from sdrrl_eval.measure.metrics.score import token_loss
from sdrrl_eval.measure.recipe import TaskConfig
from sdrrl_eval.measure.tasks import flores
from sdrrl_eval.measure.tasks.part import Item, Part
from sdrrl_factory.languages import language
from sdrrl_factory.models.lm import Generation


def read(task: TaskConfig, place: str) -> list[Part]:
    """One part a language."""
    parts = []
    for code in task.langs:
        lines = flores.sentences(task.path, language(code, f"{place}.langs"))
        parts.append(
            Part("text_loss", None, code, [Item(str(i), None, s, {"sentence": s}) for i, s in enumerate(lines, 1)])
        )
    return parts


def score(
    part: Part, answers: list[Generation], lm: Answers, batch_size: int, seed: int
) -> tuple[list[dict], list[dict]]:
    """Nats a token, each sentence after one start token: (prediction rows, scores)."""
    losses = lm.text_loss([item.reference for item in part.items], batch_size)
    rows = [item.row(nats=nats, tokens=n) for item, (nats, n) in zip(part.items, losses, strict=True)]
    return rows, [part.score("text_loss", token_loss(losses, "bos:1", seed))]
