"""The sets of one run: the rows, whose column tells which named set each comes from, and those sets."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sdrrl_factory.training.blocks import NO_BLOCK, OTHER, Block
from sdrrl_factory.training.weights import Entry, sample_weights

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass
class Sets:
    """The rows of a run and the named sets they come from.

    rows        "train", "validation" or "validation_<name>", as LLaMA-Factory names them. The column `sdrrl_entry` of a
                row is an index into train + evaluation; rows of "train" without it are trained as LLaMA-Factory does
    train       the weighted training sets. Rows held out by val_size keep the index, and so the weight, of training
    evaluation  the weighted evaluation sets
    each        the evaluation sets stand alone, unweighted
    pack_to     training rows are to be packed to at most so many tokens; None: not packed
    remarks     what a person should know of the sets, each a clause
    warnings    what a person should know of how they were read this time, each a line
    """

    rows: dict[str, "Dataset"]
    train: list[Entry] = field(default_factory=list)
    evaluation: list[Entry] = field(default_factory=list)
    each: bool = False
    pack_to: int | None = None
    remarks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def weights(self) -> list[float]:
        """w_i of the samples of each of train + evaluation: equation 6 over the ones, and over the others."""
        evaluation = [1.0 for _ in self.evaluation] if self.each else sample_weights(self.evaluation)
        return sample_weights(self.train) + evaluation

    def take_blocks(self, blocks: dict[str, Block | None]) -> list[str]:
        """Puts the subsets and weights of `blocks` in the place of the sets' own; returns what changed, in words."""
        changes = []
        for entries in (self.train, self.evaluation):
            for i, entry in enumerate(entries):
                if entry.name not in blocks:
                    continue
                block = blocks[entry.name] or NO_BLOCK
                if (block.subset, block.weight) != (entry.subset, entry.weight):
                    changes.append(
                        f"{entry.name} is now {block.subset} x {block.weight:g}, was {entry.subset} x {entry.weight:g}"
                    )
                    entries[i] = replace(entry, subset=block.subset, weight=block.weight)
        return changes


def describe_sets(sets: Sets) -> str:
    """One line for the person who trains: each set's subset, rows and weight, and what else there is to know."""
    training = _list_entries(sets.train, sets.weights[: len(sets.train)])
    evaluation = _list_entries(sets.evaluation, sets.weights[len(sets.train) :])
    if not sets.train:
        clauses = [f"subset-weighted loss (equation 6) is on in evaluation: {evaluation}"]
    else:
        clauses = [f"subset-weighted loss (equation 6) is on: {training}"]
        if evaluation:
            clauses.append(f"evaluation: {evaluation}")
    without_block = [entry.name for entry in sets.train + sets.evaluation if entry.subset == OTHER]
    if without_block:
        names = ", ".join(without_block)
        clauses.append(f"without an sdrrl block, together one more subset of weight 1, {OTHER}: {names}")
    absent = [entry.name for entry in sets.train if not entry.size]
    if absent:
        clauses.append(f"not trained, no row of it was drawn: {', '.join(absent)}")
    if sets.train:
        clauses.append(
            "in each line of the log, loss is the weighted mean that is trained on, loss_<subset> the plain mean of"
            " that subset's samples since the line before, samples_<subset> their number"
        )
    return "; ".join(clauses + sets.remarks)


def _list_entries(entries: list[Entry], weights: list[float]) -> str:
    pairs = zip(entries, weights, strict=True)
    return ", ".join(f"{entry.subset} {entry.size} rows x {weight:.4g}" for entry, weight in pairs if entry.size)
