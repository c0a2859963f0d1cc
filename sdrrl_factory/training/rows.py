"""The rows of a set: which of them are trained, how many there are of each set, which are held out."""

from typing import TYPE_CHECKING

import numpy as np

from sdrrl_factory.errors import UserError
from sdrrl_factory.training.blocks import NO_BLOCK, Block
from sdrrl_factory.training.packing import ENTRY, IGNORE
from sdrrl_factory.training.weights import Entry

if TYPE_CHECKING:
    from datasets import Dataset


def rows_to_train(rows: "Dataset") -> list[int]:
    """The indices of the rows with a token to train on.

    The others count neither in |D_d| nor in |B|: their l_CE is a mean over nothing. The label in the first place is no
    target, since nothing stands before it to predict it.
    """
    is_trained = []
    # As Arrow: for NumPy's format datasets 4.0 imports torchvision's VideoReader, which torchvision 0.26 has no more
    # (datasets issue 8085, mended by pull request 8087).
    for table in rows.select_columns("labels").with_format("arrow").iter(1000):
        for row in table["labels"]:
            labels = row.values.to_numpy(zero_copy_only=False)
            is_trained.append(bool((labels[1:] != IGNORE).any()))
    return np.flatnonzero(is_trained).tolist()


def count_entries(blocks: dict[str, Block | None], rows: "Dataset", first: int = 0) -> list[Entry]:
    """The named sets with how many rows there are of each in `rows`, whose column counts the sets from `first`."""
    counts = np.bincount(np.asarray(rows[ENTRY][:], dtype=np.int64), minlength=first + len(blocks))
    entries = []
    for index, (name, block) in enumerate(blocks.items(), first):
        block = block or NO_BLOCK
        entries.append(Entry(name, block.subset, block.weight, int(counts[index])))
    return entries


def split(sets: list["Dataset"], val_size: float, seed: int) -> tuple[list["Dataset"], list["Dataset"]]:
    """Rows of each set are held out at random, so that the validation set is made like the training set.

    Returns the rows that stay, set by set, and those held out, of the sets that have any. Raises UserError: see
    `apportion`.
    """
    training, held = [], []
    for rows, size in zip(sets, apportion([len(rows) for rows in sets], val_size), strict=True):
        if size:
            parts = rows.train_test_split(test_size=size, seed=seed)
            training.append(parts["train"])
            held.append(parts["test"])
        else:
            training.append(rows)
    return training, held


def apportion(sizes: list[int], val_size: float) -> list[int]:
    """How many rows of each set are held out: by largest remainders, one row of each stays.

    val_size: a number of rows, from 1 on; below, a share of all rows, which is met as near as whole rows allow. It is
    computed in whole numbers, so that every rank and every machine gets the same. Raises UserError: there are not so
    many rows.
    """
    total, most = sum(sizes), sum(size - 1 for size in sizes)
    rows = int(val_size) if val_size >= 1 else min(max(round(val_size * total), 1), most)
    if rows > most or not rows:
        raise UserError(
            f"{val_size:g} of {total} rows in {len(sizes)} sets cannot be held out; one row of each set must stay, so"
            f" at most {most} can be",
            "lower val_size, or name an eval_dataset",
            key="val_size",
        )
    # Each set's exact share is rows * size / total: first its whole part, then one more row where most is missing.
    held = [min(rows * size // total, size - 1) for size in sizes]
    while sum(held) < rows:
        with_rows_left = [i for i, size in enumerate(sizes) if held[i] < size - 1]
        missing = [rows * sizes[i] - held[i] * total for i in with_rows_left]
        held[with_rows_left[missing.index(max(missing))]] += 1
    return held
