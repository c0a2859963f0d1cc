"""The share of answers in the wrong language: the off-target problem of the paper (section 1, appendix E)."""

from collections import Counter
from functools import lru_cache

from sdrrl_eval.measure.answers import Answers
from sdrrl_eval.measure.metrics.score import ratio
from sdrrl_eval.measure.recipe import TaskConfig
from sdrrl_eval.measure.tasks.instructions import question_parts
from sdrrl_eval.measure.tasks.part import Part
from sdrrl_factory.language_id import Identifier
from sdrrl_factory.models.lm import Generation

_MIN_LETTERS, _MIN_PROBABILITY = 20, 0.5


def check(task: TaskConfig, place: str) -> None:
    """Say before anything runs what the identifier lacks."""
    _identifier(task.identifier, f"{place}.identifier")


def read(task: TaskConfig, place: str) -> list[Part]:
    """As `instructions`; the rows need no output."""
    return question_parts(task, place, answered=False)


@lru_cache(maxsize=2)
def _identifier(backend: str, place: str) -> Identifier:
    return Identifier(backend, None, _MIN_LETTERS, _MIN_PROBABILITY, place)


def flag(text: str, code: str, identifier: Identifier) -> dict:
    """The language of `text` (ISO 639-3, or the identifier's own name for it), its probability, and whether it is off
    target for the language `code`.

    A short or doubtful answer gets the benefit of the doubt. An empty one is in no language (""), and off target:
    a model that falls silent has not answered in the question's language.
    """
    found, probability = identifier.identify(text)
    off = not text.strip() or identifier.off_target(text, code)
    return {"language": found, "probability": round(probability, 4), "off_target": off}


def score(
    part: Part, answers: list[Generation], lm: Answers, batch_size: int, seed: int
) -> tuple[list[dict], list[dict]]:
    """Percent of answers surely not in the question's language, empty ones counted in: (prediction rows, scores).

    The score's `confusion` is how many answers are in which language; a doubtful one counts as the question's, "" are
    the empty ones.
    """
    identifier = _identifier(part.config.identifier, f"{part.place}.identifier")
    rows = [
        item.row(a, **flag(a.text, part.target_lang, identifier)) for item, a in zip(part.items, answers, strict=True)
    ]
    signature = f"{identifier.name}|minletters:{_MIN_LETTERS}|minprob:{identifier.min_probability}"
    rate = ratio([(float(row["off_target"]), 1.0) for row in rows], signature, seed, scale=100)
    confusion = Counter(row["language"] if row["off_target"] else part.target_lang for row in rows)
    ordered = dict(sorted(confusion.items(), key=lambda pair: (-pair[1], pair[0])))
    return rows, [part.score("off_target", rate, confusion=ordered)]
