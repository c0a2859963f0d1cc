"""D_synth (equation 4): which records have the ground truth as their answer, and which the model's own.

The draw comes before the generation, so the model answers only the questions whose answer it is to give: at the paper's
probability that halves the cost of G.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from sdrrl_factory.language_id import Identifier
from sdrrl_factory.transfer.draw import rng
from sdrrl_factory.transfer.filters import identifier_of, looping
from sdrrl_factory.transfer.recipe import LanguageId
from sdrrl_factory.transfer.stage import Batch, Progress, Stage, unseen


@dataclass(frozen=True)
class Sample(Stage):
    """+ answer_origin: "D" (the ground truth) or "G" (the model's own), one draw a record.

    keep_ground_truth: the probability of "D"; the paper's is 0.5, and 1.0 its ablation without self-distillation.
    """

    keep_ground_truth: float
    seed: int

    def __call__(self, batch: Batch, tool: None = None) -> Batch:
        draws = [rng(self.seed, record_id, "sample").random() for record_id in batch["id"]]
        return {**batch, "answer_origin": ["D" if draw < self.keep_ground_truth else "G" for draw in draws]}


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
