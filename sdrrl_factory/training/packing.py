"""Packs: the samples of all sets joined to rows of at most cutoff_len tokens, and taken apart again by the collator.

    a row         input_ids 5 6 7        labels . 6 7        entry 2
    a pack        input_ids 5 6 7 8 9    labels . 6 7 . 9    entry [2, 0]    lengths [3, 2]

A pack is how rows are dealt out, as LLaMA-Factory's `packing` and `neat_packing` do, for batches of even length. In the
loss its samples are single ones again: a weight follows its sample, and samples do not see each other.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sdrrl_factory.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

ENTRY = "sdrrl_entry"  # column: the named set of a row, or of each sample of a pack
LENGTHS = "sdrrl_lengths"  # column: the tokens of each sample of a pack
IGNORE = -100  # the label of a token that is not trained
_TOKENS = ("input_ids", "attention_mask", "labels")
_MEDIA = ("images", "videos", "audios")


def pack(rows: "Dataset", longest: int, knapsack: Callable, seed: int | None, **kwargs: Any) -> "Dataset":
    """Rows of samples of at most `longest` tokens joined to packs of at most as many, whatever set they come from.

    knapsack: LLaMA-Factory's own; seed: the rows are shuffled first, or None; kwargs: those of Dataset.map.
    Raises UserError: a longer sample, images, videos or audios.
    """
    for column in _MEDIA:
        if column in rows.column_names and any(rows[column]):
            raise UserError(f"true cannot be weighted where a set has {column}", "take packing out", key="packing")
    if seed is not None:
        rows = rows.shuffle(seed=seed)
    options = {"longest": longest, "knapsack": knapsack}
    return rows.map(
        _pack_batch, batched=True, remove_columns=rows.column_names, fn_kwargs=options, desc="Packing", **kwargs
    )


def _pack_batch(batch: dict[str, list], longest: int, knapsack: Callable) -> dict[str, list]:
    lengths = [len(ids) for ids in batch["input_ids"]]
    # LLaMA-Factory's greedy_knapsack (0.9.5) never ends where a sample fits into no pack; LLaMA-Factory itself drops
    # such samples before.
    if max(lengths) > longest:
        raise UserError(
            f"a sample has {max(lengths)} tokens, and a pack holds {longest}", "raise cutoff_len", key="packing"
        )
    # The knapsack knows lengths alone; each of its numbers takes the last row left of that length.
    rows_of_length = defaultdict(list)
    for row, length in enumerate(lengths):
        rows_of_length[length].append(row)
    packs = [[rows_of_length[length].pop() for length in bag] for bag in knapsack(list(lengths), longest)]

    packed = {key: [[token for row in rows for token in batch[key][row]] for rows in packs] for key in _TOKENS}
    packed[ENTRY] = [[batch[ENTRY][row] for row in rows] for rows in packs]
    packed[LENGTHS] = [[lengths[row] for row in rows] for rows in packs]
    return packed


def unpack(feature: dict[str, Any]) -> list[dict[str, Any]]:
    """A pack's samples; a row that is no pack is its own only sample."""
    lengths = feature.pop(LENGTHS, None)
    if lengths is None:
        return [feature]
    samples, start = [], 0
    for entry, length in zip(feature[ENTRY], lengths, strict=True):
        sample = {key: feature[key][start : start + length] for key in _TOKENS}
        samples.append(sample | {ENTRY: entry})
        start += length
    return samples
