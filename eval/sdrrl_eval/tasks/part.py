"""A part: one task in one language or direction, read and checked before any model is loaded."""

from dataclasses import dataclass

from sdrrl_eval.metrics.score import Score
from sdrrl_factory.lm import Generation


@dataclass(frozen=True)
class Item:
    """`prompt` is None where nothing is generated."""

    id: str
    prompt: str | None
    reference: str | None

    def row(self, answer: Generation | None = None, **scores) -> dict:
        """The item's line in predictions/."""
        output, finish = (answer.text, answer.finish) if answer else (None, None)
        head = {"id": self.id, "prompt": self.prompt, "output": output, "reference": self.reference, "finish": finish}
        return head | scores


@dataclass(frozen=True)
class Part:
    """`source_lang` is None where a single language is at work; `max_new_tokens` is set by the runner."""

    task: str
    source_lang: str | None
    target_lang: str
    items: list[Item]
    max_new_tokens: int = 0

    @property
    def name(self) -> str:
        """The file stem of its predictions: translation.eng-spa, instructions.spa."""
        pair = f"{self.source_lang}-{self.target_lang}" if self.source_lang else self.target_lang
        return f"{self.task}.{pair}"

    def score(self, metric: str, score: Score) -> dict:
        """One entry of results.json. Rounded: the digits past the fourth are the machine's, not the model's."""
        return {
            "task": self.task,
            "metric": metric,
            "source_lang": self.source_lang,
            "target_lang": self.target_lang,
            "value": round(score.value, 4),
            "n": len(self.items),
            "ci95": [round(bound, 4) for bound in score.ci95],
            "signature": score.signature,
        }
