"""The share of answers in the wrong language: the off-target problem of the paper (section 1, appendix E).

An answer counts when the identifier is sure: at least 20 letters, and a probability of 0.5 (CLD3: 0.98), or a script
that no other language of the table is written in. A short or doubtful one gets the benefit of the doubt; an empty one
is off target. The score's `confusion` says how many answers are in which language. The questions need no reference
answers.
"""

from collections import Counter
from functools import lru_cache
from typing import Any, Literal

from sdrrl_eval.measure.metrics.score import ratio
from sdrrl_eval.measure.reading import QUESTION, questions
from sdrrl_eval.measure.task import Part, Scored, Task
from sdrrl_factory.errors import under
from sdrrl_factory.language_id import Identifier
from sdrrl_factory.models.lm import Generation

_MIN_LETTERS, _MIN_PROBABILITY = 20, 0.5


class OffTarget(Task):
    """Percent of answers surely not in the question's language, and in which they are."""

    task: Literal["off_target"]
    path: str
    """Questions, JSONL or JSON, gzipped too; `{lang}` or `{bactrian}` in the name."""
    identifier: Literal["fasttext", "cld3"] = "fasttext"
    """What tells an answer's language."""

    scores = ("off_target",)

    def check(self) -> None:
        codes = [lang.code for lang in self.languages()]
        with under("identifier"):
            _identifier(self.identifier).require(codes, "take the other identifier, or remove the language")

    def read(self) -> list[Part]:
        """One part a language; the rows need no output."""
        langs = self.languages()
        by_language = questions(self.path, langs, answered=False)
        return [Part(self, None, lang.code, items, QUESTION) for lang, items in zip(langs, by_language, strict=True)]

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
