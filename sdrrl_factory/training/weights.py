"""Equation 6 as weights of single samples.

The paper minimises (equation 6, section 3.2.5), with U = {LL, TL, LT, TT, mt, comp},

    L  =  sum over d in U of  1/|D_d| * sum over the samples of D_d of  l_CE

A training takes means over batches of samples, so each sample i of D_d is given a weight. With N samples in K subsets,

    w_i  =  N / (K |D_d|) * weight          weight: that of the set's block, 1 in the paper

and the mean over all samples is the paper's sum over subsets, divided by their number:

    1/N * sum over i of  w_i l_i  =  1/K * sum over d of  weight/|D_d| * sum over D_d of  l_i

The weights are around 1 (their mean is 1 where no block has another weight), so learning rates keep their meaning.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A named training set: the subset d it belongs to, its extra `weight`, and its rows that are trained on."""

    name: str
    subset: str
    weight: float
    size: int


def sample_weights(entries: list[Entry]) -> list[float]:
    """w_i of the samples of each entry.

    Entries of one subset (two target languages, say) share |D_d|; an entry without samples counts for nothing.
    """
    sizes: dict[str, int] = {}  # |D_d|
    for entry in entries:
        if entry.size:
            sizes[entry.subset] = sizes.get(entry.subset, 0) + entry.size
    n, k = sum(sizes.values()), len(sizes)
    return [entry.weight * n / (k * sizes[entry.subset]) if entry.size else 0.0 for entry in entries]
