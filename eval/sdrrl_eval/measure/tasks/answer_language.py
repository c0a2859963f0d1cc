"""Any questions, a row each: the share of answers in another language than the question's.

As `off_target`, for rows of any fields.
"""

from collections import Counter
from functools import lru_cache
from typing import Any, Literal

from sdrrl_eval.measure.metrics.score import ratio
from sdrrl_eval.measure.row_task import RowTask
from sdrrl_eval.measure.task import Part, Scored
from sdrrl_factory.errors import under
from sdrrl_factory.language_id import Identifier
from sdrrl_factory.models.lm import Generation

_MIN_LETTERS, _MIN_PROBABILITY = 20, 0.5


class AnswerLanguage(RowTask):
    """Percent of answers surely not in the question's language, and in which they are."""

    task: Literal["answer_language"]
    identifier: Literal["fasttext", "cld3"] = "fasttext"
    """What tells an answer's language."""

    scores = ("off_target",)

    def check(self) -> None:
        codes = [lang.code for lang in self.languages()]
        with under("identifier"):
            _identifier(self.identifier).require(codes, "take the other identifier, or remove the language")

    def score(self, part: Part, answers: list[Generation], likelihoods: list[Any], seed: int) -> Scored:
        """Percent of answers surely not in the question's language, empty ones counted in."""
        with under("identifier"):
            identifier = _identifier(self.identifier)
            rows = [
                item.row(answer, **flag(answer.text, part.target_lang, identifier))
                for item, answer in zip(part.items, answers, strict=True)
            ]
        signature = f"{identifier.name}|minletters:{_MIN_LETTERS}|minprob:{identifier.min_probability}"
        rate = ratio([(float(row["off_target"]), 1.0) for row in rows], signature, seed, scale=100)
        # A doubtful answer counts as the question's language, "" are the empty ones; the most frequent come first.
        counts = Counter(row["language"] if row["off_target"] else part.target_lang for row in rows)
        confusion = dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
        return rows, [part.score("off_target", rate, confusion=confusion)]


@lru_cache(maxsize=2)
def _identifier(backend: str) -> Identifier:
    return Identifier(backend, None, _MIN_LETTERS, _MIN_PROBABILITY)


def flag(text: str, code: str, identifier: Identifier) -> dict[str, Any]:
    """The language of `text` (ISO 639-3, or the identifier's own name for it), its probability, and whether it is off
    target for the language `code`.

    An empty answer is in no language (""), and off target: a model that falls silent has not answered in the question's
    language.
    """
    name, probability = identifier.identify(text)
    off = not text.strip() or identifier.off_target(text, code)
    return {"language": name, "probability": round(probability, 4), "off_target": off}
