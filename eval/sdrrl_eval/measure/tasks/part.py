"""A part: one task in one language or direction, read and checked before any model is loaded."""

from dataclasses import dataclass, field, fields

from sdrrl_eval.measure.metrics.score import Score
from sdrrl_eval.measure.recipe import TaskConfig
from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import Language
from sdrrl_factory.models.lm import Generation


@dataclass(frozen=True)
class Item:
    """`prompt` is None where nothing is generated.

    texts: the item's own words by what they are (question, source, passage), without what the task wraps around them.
    """

    id: str
    prompt: str | None
    reference: str | None
    texts: dict[str, str] = field(default_factory=dict)

    def row(self, answer: Generation | None = None, **scores) -> dict:
        """The item's line in predictions/."""
        output, finish = (answer.text, answer.finish) if answer else (None, None)
        head = {"id": self.id, "prompt": self.prompt, "output": output, "reference": self.reference, "finish": finish}
        return head | scores


@dataclass(frozen=True)
class Part:
    """`source_lang` is None where a single language is at work.

    prompt: what the items' prompts are made by, with {holes}. max_new_tokens, config (the entry under `tasks`) and
    place (where it stands, for errors) are set by the runner.
    """

    task: str
    source_lang: str | None
    target_lang: str
    items: list[Item]
    max_new_tokens: int = 0
    prompt: str | None = None
    config: TaskConfig | None = None
    place: str = ""

    @property
    def name(self) -> str:
        """The file stem of its predictions: translation.eng-spa, instructions.spa."""
        pair = f"{self.source_lang}-{self.target_lang}" if self.source_lang else self.target_lang
        return f"{self.task}.{pair}"

    def score(self, metric: str, score: Score, **more) -> dict:
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
        } | more


def fill(path: str, lang: Language, place: str) -> str:
    """`path` for one language: {lang} is its ISO 639-3 code, {flores}, {iso1}, ... the table's other columns."""
    path = path.replace("{lang}", lang.code)
    for column in fields(Language):
        if (hole := f"{{{column.name}}}") in path:
            if getattr(lang, column.name) is None:
                raise UserError(f"{place}.langs: the data behind {hole} have no {lang.name}; remove {lang.code}")
            path = path.replace(hole, str(getattr(lang, column.name)))
    return path
