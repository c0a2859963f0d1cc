"""D_synth (equation 4): which records have the ground truth as their answer, and which the model's own.

The draw comes before the generation, so the model answers only the questions whose answer it is to give: at the paper's
probability that halves the cost of G. Some of these answers are flawed. Their records keep the ground truth, and as
many others, those with the next draws, give the model's own answer in their place: all records whose own answer can be
used have it with equal probability still, and equation 4's share is reached as long as there are enough of them.
"""

from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, isqrt
from typing import ClassVar

from sdrrl_factory.language_id import Identifier
from sdrrl_factory.transfer.draw import rng
from sdrrl_factory.transfer.filters import identifier_of, looping
from sdrrl_factory.transfer.recipe import LanguageId
from sdrrl_factory.transfer.stage import Batch, Progress, Stage, unseen


@dataclass(frozen=True)
class Sample(Stage):
    """+ answer_origin: "D" (the ground truth) or "G" (the model's own), one draw a record.

    threshold: a draw below it is "D". First it is the probability of "D": the paper's is 0.5, and 1.0 its ablation
        without self-distillation. Where answers turn out to be flawed, `next_threshold` gives another one.
    """

    threshold: float
    seed: int

    def draw(self, record_id: str) -> float:
        """A record's draw, between 0 and 1: nothing changes it but the seed and the id."""
        return rng(self.seed, record_id, "sample").random()

    def __call__(self, batch: Batch, tool: None = None) -> Batch:
        return {**batch, "answer_origin": ["D" if self.draw(i) < self.threshold else "G" for i in batch["id"]]}


@dataclass(frozen=True)
class Settle(Stage):
    """+ answer, reasons: a flawed generation gives way to the ground truth, and its record keeps the reason.

    identifier: what tells the language identifier from any other (`Identifier.name`); "": languages are not looked at.
    """

    source: str
    language_id: LanguageId
    identifier: str
    version: ClassVar[int] = 3

    @contextmanager
    def open(self, progress: Progress = unseen) -> Iterator[Identifier | None]:
        yield identifier_of(self.language_id)

    def __call__(self, batch: Batch, tool: Identifier | None = None) -> Batch:
        out = {**batch, "answer": [], "answer_origin": [], "reasons": []}
        for origin, output, response, finish in zip(
            batch["answer_origin"], batch["output"], batch["response"], batch["response_finish"], strict=True
        ):
            reason = flaw(response, finish, self.source, tool) if origin == "G" else ""
            is_own = origin == "G" and not reason
            out["answer"].append(response if is_own else output)
            out["answer_origin"].append("G" if is_own else "D")
            out["reasons"].append([f"generation: {reason}"] if reason else [])
        return out


def flaw(response: str, finish: str, source: str, identifier: Identifier | None) -> str:
    """Why a generation cannot be a training answer in the language `source`, or ""."""
    if finish.startswith("error"):
        return finish
    if not response.strip():
        return "empty"
    # First, as no higher limit helps one that loops.
    if looping(response):
        return "looping"
    if finish == "length":
        return "cut off"
    return "off-target" if identifier and identifier.off_target(response, source) else ""


def next_threshold(sample: Sample, settled: Iterable[dict], keep_ground_truth: float) -> float:
    """The threshold that `sample` should have instead, or its own if as many own answers are kept as equation 4 draws.

    In the end it is the draw of the record that gives the last own answer wanted, or lies below all draws if there are
    too few. That depends on the records' draws and on which answers are flawed: not on how the records are sharded, nor
    on how many were asked at a time.

    Args:
        settled: the records behind `Settle`, drawn by `sample`.
        keep_ground_truth: equation 4's probability.
    """
    draws, own = array("d"), array("d")
    for record in settled:
        draws.append(sample.draw(record["id"]))
        if record["answer_origin"] == "G":
            own.append(draws[-1])
    wanted = sum(draw >= keep_ground_truth for draw in draws)
    asked = sum(draw >= sample.threshold for draw in draws)
    if len(own) > wanted:
        return sorted(own, reverse=True)[wanted - 1]
    if len(own) == wanted or asked == len(draws):
        return sample.threshold
    # So many more as will do if as many of them are flawed as so far; a standard deviation more saves a further round.
    more = ceil((wanted - len(own)) * asked / len(own)) if own else asked
    return sorted(draws, reverse=True)[min(asked + more + isqrt(more), len(draws)) - 1]
