"""The order of an epoch's rows: each subset spread evenly over the steps.

A shuffled order leaves to chance how many rows of a small, heavy subset a step has. Here each row still comes once an
epoch, but every run of consecutive rows, and so every step, has of each subset what its share asks, as near as whole
rows allow. This is systematic sampling of each subset with a random start.

    shuffled   L L m L L L L L m m L L        a step of four has 1, 0 or 3 rows of m
    here       L m L L L m L L L m L L        each has 1
"""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class StratifiedSampler(Sampler):
    """Row indices, each once an epoch, in an order drawn from (seed, epoch) alone: the same on every rank.

    entries: [rows] the named set of each row; subsets: [sets] the subset of each named set.

    Accelerate deals consecutive batches to the ranks in turn, so the rows of a step (batch x ranks x accumulation) are
    consecutive in this order. 5 million rows take some 4 s an epoch.
    """

    def __init__(self, entries: np.ndarray, subsets: np.ndarray, seed: int):
        self._entries, self._subsets, self._seed = np.asarray(entries), np.asarray(subsets), seed % 2**32
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._entries)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self._seed, self.epoch])
        order = random.permutation(len(self._entries))
        # First the named sets, then the subsets: a subset of two languages has both of them spread within it.
        order = spread(order, self._entries[order], random)
        order = spread(order, self._subsets[self._entries[order]], random)
        yield from order.tolist()


def spread(order: np.ndarray, strata: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The rows in `order` again, [rows], those of each stratum evenly spaced and in the order they had.

    strata: [rows] the stratum of each row in `order`, integers from 0.

    Row j of the n of a stratum lies at (j + u) / n of the epoch, u uniform in [0, 1) and one for the stratum. An
    interval of length t has then n t of its rows, less than one more or fewer, and so any B consecutive rows of N have
    B n/N of them with a difference below 1 + (strata - 2) n/N.
    """
    sizes = np.bincount(strata)
    # j: a stable sort puts each stratum together in the order it had; j counts from where the stratum begins there.
    together = np.argsort(strata, kind="stable")
    begins = np.cumsum(sizes) - sizes
    j = np.empty(len(strata))
    j[together] = np.arange(len(strata)) - np.repeat(begins, sizes)
    u = random.random(len(sizes))
    return order[np.argsort((j + u[strata]) / sizes[strata], kind="stable")]


def stratum_of_rows(column: Sequence, weights: list[float]) -> np.ndarray:
    """The named set that each row is spread as, [rows]; column: its set, or where it is a pack its samples' sets.

    A pack is spread as its heaviest sample: packs with a row of D_comp come at even distances. Its other samples come
    as they do; they are light, and many.
    """
    if len(column) and isinstance(column[0], list):
        return np.array([max(pack, key=weights.__getitem__) for pack in column])
    return np.asarray(column)
