"""How much of a score may be chance: 95% intervals of one system, p-values of two on the same items, many at once.

One resampler and one seed for `sdrrl eval` and `sdrrl compare`. The methods were chosen by simulation, which
benchmarks/significance.py repeats and docs/evaluation.md reports:

- p-values: approximate randomisation (Noreen 1989; Riezler and Maxwell 2005), two-sided. If the systems are the same,
  each item's two answers could as well be swapped; the p-value is how often random swaps make so large a difference.
  It needs no assumption on the score, hence serves means and corpus scores alike. Of right/wrong items the swaps have a
  closed form, the exact test of McNemar (1947). The p-value of `sacrebleu --paired-bs` is of one tail where the
  difference is clear: twice as many differences are marked as the level says.
- items that share a passage are drawn and swapped together: of two questions on one text a model has both right, or
  both wrong, more often than chance would have it, and they are no two independent draws.
- intervals: the bootstrap-t (Efron 1979; Hall 1988, "percentile-t"), as percentiles of the resamples cover too seldom
  below 30 items. Rates have Wilson's interval (1927), modified near 0 and 100% by Brown, Cai and DasGupta (2001); where
  items are drawn together, that of as many items as have the rate's jackknife error.
"""

import hashlib
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any

Array = Any  # of numpy, which is imported where it computes: a recipe is read and checked without
SEED = 42  # the one seed; an eval recipe may name another for its intervals
LEVEL = 0.05  # p-values below it are marked
RESAMPLES = 1000  # of an interval
PERMUTATIONS = 10_000  # as sacrebleu's `--paired-ar`; a multiple of 8
# The smallest number of items of which all in one system's favour are significant: 2 / 2**6 = 0.031.
MIN_ITEMS = next(n for n in count(1) if 2 / 2**n < LEVEL)
_ENUMERATED = 13  # so many items have fewer swaps than PERMUTATIONS: all are tried
_Z = 1.959963984540054  # the normal distribution's 97.5% point
# Student's t, the 97.5% point of 1, 2, ... degrees of freedom: fewer than 8 items are too few to resample.
_STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469)
# The mean of a Poisson count that is 0, 1, 2, 3 or more with probability 0.05 (Brown, Cai and DasGupta 2001, 4.1.1).
_POISSON = (0.0, 0.05129329, 0.35536151, 0.81769145)
_BLOCK = 4_000_000  # numbers in memory at a time


@dataclass(frozen=True, eq=False)
class Statistics:
    """What a system's score is computed from, item by item.

    Attributes:
        table: [items, statistics] float64.
        value: the score of summed rows of the table, [..., statistics] -> [...].
        items: their names, the same in every system; parallel items of several languages share a name.
        bounds: between which the score must lie.
        rate: whether an item is right (100) or wrong (0), and no more; the table's second column then counts items.
    """

    table: Array
    value: Callable[[Array], Array]
    items: tuple[Hashable, ...]
    bounds: tuple[float, float] = (0.0, 100.0)
    rate: bool = False

    def total(self) -> float:
        return float(self.value(self.table.sum(0)))

    def only(self, items: Sequence[Hashable]) -> "Statistics":
        """Of these items, in their order."""
        row = {item: i for i, item in enumerate(self.items)}
        table = self.table[[row[item] for item in items]]
        return Statistics(table, self.value, tuple(items), self.bounds, self.rate)

    def grouped(self, groups: Sequence[Hashable]) -> "Statistics":
        """The same score, its items drawn and swapped together that share a group; groups: of each item, in order."""
        import numpy as np

        index = {group: i for i, group in enumerate(dict.fromkeys(groups))}
        # A score is computed from sums, so a group's sums stand for its items.
        table = np.zeros((len(index), self.table.shape[1]))
        np.add.at(table, [index[group] for group in groups], self.table)
        return Statistics(table, self.value, tuple(index), self.bounds, self.rate)

    @property
    def has_groups(self) -> bool:
        """Of a rate, whether several of its items are drawn together."""
        return self.rate and bool((self.table[:, 1] > 1).any())


def ratio(
    pairs: Sequence[tuple[float, float]],
    items: Sequence[Hashable] | None = None,
    scale: float = 1.0,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Statistics:
    """`scale` * the sum of the first numbers / the sum of the second: a mean over items, or a loss a token.

    pairs: one an item; the second number is 1 in a mean, the number of tokens in a loss.
    """
    import numpy as np

    table = np.asarray(pairs, dtype=np.float64).reshape(-1, 2)

    def value(sums: Array) -> Array:
        return scale * sums[..., 0] / np.where(sums[..., 1], sums[..., 1], 1)

    rate = bounds == (0.0, 100.0) and bool(np.isin(scale * table[:, 0], (0, 100)).all() and (table[:, 1] == 1).all())
    return Statistics(table, value, tuple(range(len(table)) if items is None else items), bounds, rate)


def interval(parts: Sequence[Statistics], seed: int = SEED) -> tuple[float, float]:
    """The 95% interval of a score, or of the mean of several (an average over languages).

    Items of one name are drawn together in all parts, as a hard question is hard in every language.
    """
    import numpy as np

    names = {item: i for i, item in enumerate(dict.fromkeys(item for part in parts for item in part.items))}
    rows = [np.array([names[item] for item in part.items]) for part in parts]
    score, bounds = float(np.mean([part.total() for part in parts])), parts[0].bounds
    error = _standard_error(parts, rows, len(names))
    # Without a spread there is nothing to resample; a bounded score is then as uncertain as a rate of its size.
    if all(part.rate for part in parts) or (not error and math.isfinite(bounds[1])):
        share = min(max(score / 100, 0.0), 1.0)
        size = float(len(names))
        has_groups = any(part.has_groups for part in parts)
        if (len(parts) > 1 or has_groups) and error:
            # An average of rates, or one of groups, has the interval of so many items as have its standard error.
            size = 1 + share * (1 - share) / (error / 100) ** 2
        if len(parts) == 1 and has_groups:
            size = min(size, float(parts[0].table[:, 1].sum()))
        low, high = wilson(share * size, size)
        return 100 * low, 100 * high
    if not error:
        return score, score  # an unbounded score whose items are all alike: nothing tells how uncertain it is
    degrees = max(len(names), 2) - 1
    if degrees <= len(_STUDENT):
        point = _STUDENT[degrees - 1]
        low, high = score - point * error, score + point * error
    else:
        # By as much as a resample lies above the score, the score lies above the truth: hence the minus.
        points = _studentised(parts, rows, len(names), score, seed)
        upper, lower = np.quantile(points, [0.975, 0.025])
        low, high = score - error * float(upper), score - error * float(lower)
    return max(low, bounds[0]), min(high, bounds[1])


def _standard_error(parts: Sequence[Statistics], rows: Sequence[Array], names: int) -> float:
    """The jackknife's (Tukey 1958): how much the score changes as each item is left out.

    rows: of each part, [items]: the number of each item's name.
    """
    import numpy as np

    changes = np.zeros(names)
    for part, row in zip(parts, rows, strict=True):
        n = len(part.items)
        without = part.value(part.table.sum(0) - part.table)
        changes[row] += (without.mean() - without) * math.sqrt((n - 1) / n) / len(parts)
    error = float(np.sqrt((changes**2).sum()))
    return error if error > 1e-9 else 0.0  # sums that should be equal round otherwise


def _studentised(parts: Sequence[Statistics], rows: Sequence[Array], names: int, score: float, seed: int) -> Array:
    """Each resample's (score - `score`) / its own standard error, those that have one.

    That error is the linear one: an item's share in it is the score's derivative along the item's statistics.
    """
    import numpy as np

    random, points = np.random.default_rng(seed), []
    block = max(1, _BLOCK // names)
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        # 1. How often each name is drawn in each resample: [size, names].
        drawn = random.integers(0, names, (size, names)) + names * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * names).reshape(size, names).astype(np.float64)
        # 2. The resamples' scores [size], and each item's share in their standard errors [size, names].
        scores, changes = np.zeros(size), np.zeros((size, names))
        for part, row in zip(parts, rows, strict=True):
            own = times[:, row]
            sums, n = own @ part.table, np.maximum(own.sum(1), 1)
            slopes = _slopes(part.value, sums)
            share = slopes @ part.table.T - ((slopes * sums).sum(1) / n)[:, None]
            changes[:, row] += share / len(parts)
            scores += part.value(sums) / len(parts)
        # 3. Where all drawn items are alike there is no error to divide by.
        errors = np.sqrt((times * changes**2).sum(1) * names / (names - 1))
        has_error = errors > 1e-9
        points.append((scores - score)[has_error] / errors[has_error])
    return np.concatenate(points)


def _slopes(value: Callable[[Array], Array], sums: Array) -> Array:
    """The derivatives of `value` by each statistic at `sums`, [..., statistics], as central differences."""
    import numpy as np

    slopes = np.empty_like(sums)
    for i in range(sums.shape[1]):
        step = np.zeros_like(sums)
        step[:, i] = 1e-5 * (np.abs(sums[:, i]) + 1)
        slopes[:, i] = (value(sums + step) - value(sums - step)) / (2 * step[:, i])
    return slopes


def wilson(right: float, items: float) -> tuple[float, float]:
    """The 95% interval of a share, in [0, 1].

    Wilson's own covers a share of 5% in 10 items 91 times in 100, as its lower end stands too high where few items are
    right; there it is the Poisson distribution's.
    """
    import numpy as np

    share, square = right / items, _Z**2
    middle = (share + square / (2 * items)) / (1 + square / items)
    half = _Z / (1 + square / items) * math.sqrt(share * (1 - share) / items + square / (4 * items**2))
    low, high = middle - half, middle + half
    few = 2 if items <= 50 else 3  # Brown, Cai and DasGupta's choice
    # `right` need not be whole: an average over languages has an effective number of items.
    if right < few + 0.5:
        low = float(np.interp(right, range(4), _POISSON)) / items
    if items - right < few + 0.5:
        high = 1 - float(np.interp(items - right, range(4), _POISSON)) / items
    return max(low, 0.0), min(high, 1.0)


def mcnemar(won: int, lost: int) -> float:
    """The exact two-sided p-value of `won` items that only one system has right and `lost` that only the other has."""
    differ = won + lost
    tail = sum(math.comb(differ, k) for k in range(min(won, lost) + 1))
    return min(1.0, 2 * tail / 2**differ)


def exact_p(one: Statistics, other: Statistics) -> float | None:
    """The p-value over all swaps of a single score's items, where they can be counted; None where they are too many."""
    import numpy as np

    gaps = one.value(one.table) - other.value(other.table)
    sizes = np.unique(np.abs(gaps).round(9))
    is_mean = one.table.shape[1] == 2 and bool((one.table[:, 1:] == 1).all())
    # A mean whose items differ by one size alone, as right from wrong: swaps are tosses of a coin.
    if is_mean and len(sizes[sizes > 0]) <= 1:
        return mcnemar(int((gaps > 1e-9).sum()), int((gaps < -1e-9).sum()))
    if len(one.items) > _ENUMERATED:
        return None
    # Column k swaps the items that are the ones of k in binary: all 2**n swaps.
    swaps = (np.arange(2 ** len(one.items))[None] >> np.arange(len(one.items))[:, None] & 1).astype(np.uint8)
    return float(_extreme(one.total() - other.total(), _swapped(one, other, swaps)).mean())


def random_p(difference: float, swapped: Array) -> float:
    """The p-value of `difference` among those of random swaps; it counts as one of them (Phipson and Smyth 2010)."""
    return (1 + int(_extreme(difference, swapped).sum())) / (1 + len(swapped))


def _extreme(difference: float, swapped: Array) -> Array:
    import numpy as np

    return np.abs(swapped) >= abs(difference) - 1e-9  # sums in another order round otherwise


def differences(one: Statistics, other: Statistics) -> Array:
    """[PERMUTATIONS]: the difference of the two scores after each of the random swaps."""
    return _swapped(one, other, _swaps(one.items))


def _swapped(one: Statistics, other: Statistics, swaps: Array) -> Array:
    """[permutations]: the difference of the scores after each swap; swaps: [items, permutations] of 0 and 1."""
    import numpy as np

    # A swap moves an item's difference from the sums of one system to the other's: no table is built anew.
    totals, gaps = (one.table.sum(0), other.table.sum(0)), other.table - one.table
    differences = []
    block = max(1, _BLOCK // len(gaps))
    for start in range(0, swaps.shape[1], block):
        moved = swaps[:, start : start + block].T.astype(np.float64) @ gaps
        differences.append(one.value(totals[0] + moved) - other.value(totals[1] - moved))
    return np.concatenate(differences)


@lru_cache(maxsize=4)
def _swaps(items: tuple[Hashable, ...]) -> Array:
    """[items, PERMUTATIONS] of 0 and 1, drawn for each item by its name.

    So parallel items are swapped together in all languages, and an average's differences are the mean of its scores'.
    """
    import numpy as np

    return np.stack([_coins(item) for item in items])


@lru_cache(maxsize=8192)
def _coins(item: Hashable) -> Array:
    """[PERMUTATIONS] of 0 and 1, from the item's name: the same whatever other items there are."""
    import numpy as np

    tossed = hashlib.shake_256(f"{SEED} {item!r}".encode()).digest(PERMUTATIONS // 8)
    return np.unpackbits(np.frombuffer(tossed, dtype=np.uint8))


def holm(values: Sequence[float]) -> dict[float, float]:
    """Each p-value of a family of tests -> the corrected one (Holm 1979).

    Marks at the 5% level of these are all right in 95 of 100 families, whatever depends on what.
    """
    corrected: dict[float, float] = {}
    highest = 0.0  # a larger p-value must not become the smaller one
    for rank, p in enumerate(sorted(values)):
        highest = max(highest, min(1.0, (len(values) - rank) * p))
        corrected.setdefault(p, highest)
    return corrected
