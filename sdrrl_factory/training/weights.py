"""Equation 6 as weights of single samples."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A named training set: the subset d it belongs to, its extra `weight`, and its rows that are trained on."""

    name: str
    subset: str
    weight: float
    size: int


def sample_weights(entries: list[Entry]) -> list[float]:
    """The weight of each entry's samples: N / (K |D_d|) times the entry's own weight.

    N samples in K subsets, |D_d| of them in subset d. Equation 6 is sum over d of (1/|D_d|) times the sum over D_d of
    l_CE; times N/K it is a mean over all samples of weight * l_CE, with weights around 1, so learning rates keep their
    meaning. Entries of one subset (two target languages, say) share |D_d|; an entry without samples counts for nothing.
    """
    sizes: dict[str, int] = {}
    for entry in entries:
        sizes[entry.subset] = sizes.get(entry.subset, 0) + entry.size
    sizes = {subset: size for subset, size in sizes.items() if size}
    total, subsets = sum(sizes.values()), len(sizes)
    return [e.weight * total / (subsets * sizes[e.subset]) if e.size else 0.0 for e in entries]
