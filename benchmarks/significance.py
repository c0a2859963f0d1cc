"""Whether `sdrrl compare` and `sdrrl eval` keep their word: false marks at the 5% level, coverage of 95% intervals.

Systems without any difference are drawn again and again, of items whose difficulty both share; a test that keeps its
level marks them 3 to 7 times in 100, an interval covers the true score at least 93 times. "Before" are the p-value of
`sacrebleu --paired-bs` and the percentile interval of 500 resamples, which stood here until both were changed.

    python benchmarks/significance.py            # 4,000 pairs of systems and 2,000 intervals a cell, on all cores
"""

import os
import sys
from functools import partial
from math import comb
from multiprocessing import get_context

import numpy as np

from sdrrl_eval import resampling
from sdrrl_eval.measure.metrics.mt import _chrf_of_sums
from sdrrl_eval.resampling import Statistics

SIZES = (10, 30, 100, 1000)
PAIRS, INTERVALS, TRUE = 4000, 2000, 1_000_000
RATES = {"right/wrong .05": 0.05, "right/wrong .25": 0.25, "right/wrong .5": 0.5}
CELLS = ("normal", *RATES, "chrF-like")
_chrf = partial(_chrf_of_sums, 4.0)


def draw(cell: str, items: int, systems: int, random: np.random.Generator) -> list[Statistics]:
    """The items of so many equally good systems; half of what an item scores is its difficulty, which they share."""
    if cell in RATES:
        return [percent(100.0 * (random.random(items) < RATES[cell])) for _ in range(systems)]
    if cell == "normal":
        hard = random.normal(50, 10, items)
        return [percent(hard + random.normal(0, 10, items)) for _ in range(systems)]
    return chrf_like(items, systems, random)


def percent(values: np.ndarray) -> Statistics:
    return resampling.ratio(np.stack([values, np.ones(len(values))], 1), bounds=(0.0, 100.0))


def chrf_like(items: int, systems: int, random: np.random.Generator) -> list[Statistics]:
    """Character n-grams of sentences of lognormal length (median 110), of answers of beta-distributed quality."""
    reference = np.exp(random.normal(4.7, 0.5, items)).astype(int) + 7
    hard, found = random.beta(1.2, 2.2, items), []
    for _ in range(systems):
        quality = (hard + random.beta(1.2, 2.2, items)) / 2
        output = np.maximum(7, (reference * np.exp(random.normal(0, 0.25, items))).astype(int))
        columns = []
        for order in range(6):
            grams = output - order, reference - order
            chance = (0.35 + 0.6 * quality) * quality ** (0.6 * order)
            columns += [*grams, random.binomial(np.minimum(*grams), chance)]
        found.append(Statistics(np.stack(columns, 1).astype(float), _chrf, tuple(range(items))))
    return found


def p_value(one: Statistics, other: Statistics) -> float:
    """As `sdrrl compare` computes it."""
    exact = resampling.exact_p(one, other)
    gap = one.total() - other.total()
    return resampling.random_p(gap, resampling.differences(one, other)) if exact is None else exact


def false_marks(cell: str, items: int, pairs: int, seed: int) -> int:
    """How many of so many pairs of equal systems are marked."""
    random = np.random.default_rng([seed, items, *cell.encode()])
    return sum(p_value(*draw(cell, items, 2, random)) < resampling.LEVEL for _ in range(pairs))


def covered(cell: str, items: int, intervals: int, seed: int, score: float) -> int:
    """How many of so many systems have their true score in their interval."""
    random = np.random.default_rng([seed, items, *cell.encode()])
    found = 0
    for i in range(intervals):
        low, high = resampling.interval(draw(cell, items, 1, random), seed=i)
        found += low <= score <= high
    return found


def true_score(cell: str) -> float:
    """Of a system over a million items, where it has no closed form."""
    if cell in RATES or cell == "normal":
        return 100 * RATES.get(cell, 0.5)
    return chrf_like(TRUE, 1, np.random.default_rng(0))[0].total()


def mcnemar_level(rate: float, items: int) -> float:
    """How often the exact test marks two independent, equal systems: discrete, it cannot always come near 5%."""
    differ, level = 2 * rate * (1 - rate), 0.0
    for n in range(items + 1):
        chance = comb(items, n) * differ**n * (1 - differ) ** (items - n)
        if chance < 1e-12:
            continue
        # `tail` in 2**n ways, no more than `lost` of the n items that differ are lost.
        lost, tail, marked = 0, 1, 0
        while 2 * tail < resampling.LEVEL * 2**n:
            lost, marked = lost + 1, 2 * tail
            tail += comb(n, lost)
        level += chance * (marked / 2**n)
    return level


def _before_marks(cell: str, items: int, pairs: int, seed: int) -> int:
    random, marked = np.random.default_rng([seed, items, *cell.encode()]), 0
    drawn = np.random.default_rng(12345).multinomial(items, np.full(items, 1 / items), 1000).astype(float)
    for _ in range(pairs):
        one, other = draw(cell, items, 2, random)
        gaps = np.abs(one.value(drawn @ one.table) - other.value(drawn @ other.table))
        extreme = gaps - gaps.mean() > abs(one.total() - other.total())
        marked += one.total() != other.total() and (extreme.sum() + 1) / 1001 < resampling.LEVEL
    return marked


def _before_covered(cell: str, items: int, intervals: int, seed: int, score: float) -> int:
    random, found = np.random.default_rng([seed, items, *cell.encode()]), 0
    drawn = np.random.default_rng(42).multinomial(items, np.full(items, 1 / items), 500).astype(float)
    for _ in range(intervals):
        (one,) = draw(cell, items, 1, random)
        low, high = np.percentile(one.value(drawn @ one.table), [2.5, 97.5])
        found += low <= score <= high
    return found


def main() -> None:
    scale = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    shares = 16  # of a cell's work, each with a seed of its own
    pairs, intervals = (round(n * scale / shares) for n in (PAIRS, INTERVALS))
    scores = {cell: true_score(cell) for cell in CELLS}
    print(f"{shares * pairs} pairs, {shares * intervals} intervals a cell; false marks in 100, coverage")
    print(f"{'items':20} {'n':>5}  marks before  now   coverage before  now")
    os.environ["OMP_NUM_THREADS"] = "1"  # a process a core: read as each new one imports numpy
    with get_context("spawn").Pool() as pool:
        for cell in CELLS:
            for n in SIZES:
                marks = [
                    100 * sum(pool.starmap(count, [(cell, n, pairs, seed) for seed in range(shares)])) / shares / pairs
                    for count in (_before_marks, false_marks)
                ]
                jobs = [(cell, n, intervals, seed, scores[cell]) for seed in range(shares)]
                cover = [sum(pool.starmap(count, jobs)) / shares / intervals for count in (_before_covered, covered)]
                line = f"{cell:20} {n:5}  {marks[0]:12.1f} {marks[1]:4.1f}   {cover[0]:15.3f} {cover[1]:.3f}"
                print(line, flush=True)


if __name__ == "__main__":
    main()
