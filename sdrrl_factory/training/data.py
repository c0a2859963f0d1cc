"""The sets of one run: each named set's rows with a column that tells which it is, split, packed, kept on disk."""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from sdrrl_factory.errors import UserError
from sdrrl_factory.training.blocks import OTHER, WITHOUT, Block
from sdrrl_factory.training.collator import ENTRY, IGNORE, LENGTHS
from sdrrl_factory.training.weights import Entry, sample_weights

NOTE = "sdrrl.json"  # beside a tokenized_path's sets: what the rows' entries are
_COLUMNS = "sdrrl"  # beside a tokenized_path's sets: the entry of each row
_MEDIA = ("images", "videos", "audios")


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

    rows: dict
    train: list[Entry] = field(default_factory=list)
    evaluation: list[Entry] = field(default_factory=list)
    each: bool = False
    pack_to: int | None = None
    remarks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def weights(self) -> list[float]:
        alone = [1.0] * len(self.evaluation)
        return sample_weights(self.train) + (alone if self.each else sample_weights(self.evaluation))

    def save(self, folder: str) -> None:
        """Writes the rows as LLaMA-Factory would, unpacked, and beside them whose they are.

        The columns of this plugin stand in a folder of their own: with the plugin off, LLaMA-Factory reads the rows as
        its own. Raises UserError: the folder cannot be written.
        """
        from datasets import DatasetDict

        marked = {name: rows for name, rows in self.rows.items() if ENTRY in rows.column_names}
        plain = self.rows | {name: rows.remove_columns(ENTRY) for name, rows in marked.items()}
        keys = ("train", "evaluation", "each", "pack_to", "remarks")
        note = {key: value for key, value in asdict(replace(self, rows={})).items() if key in keys}
        try:
            DatasetDict(plain).save_to_disk(folder)
            DatasetDict({name: rows.select_columns(ENTRY) for name, rows in marked.items()}).save_to_disk(
                str(Path(folder, _COLUMNS))
            )
            Path(folder, NOTE).write_text(json.dumps(note, indent=1), encoding="utf-8")
        except OSError as error:
            raise UserError(f"tokenized_path {folder} cannot be written ({error}); name another") from None

    @classmethod
    def load(cls, folder: str) -> "Sets":
        """Raises UserError: it is not what `save` wrote."""
        from datasets import concatenate_datasets, load_from_disk

        sets = cls.load_note(folder)
        try:
            sets.rows = dict(load_from_disk(folder))
            for name, entries in load_from_disk(str(Path(folder, _COLUMNS))).items():
                sets.rows[name] = concatenate_datasets([sets.rows[name], entries], axis=1)
        except (OSError, ValueError, KeyError) as error:
            raise _unreadable(folder) from error
        return sets

    @classmethod
    def load_note(cls, folder: str) -> "Sets":
        """The same without the rows."""
        try:
            note = json.loads(Path(folder, NOTE).read_text(encoding="utf-8"))
            train, evaluation = ([Entry(**entry) for entry in note[key]] for key in ("train", "evaluation"))
            return cls({}, train, evaluation, note["each"], note["pack_to"], note["remarks"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _unreadable(folder) from error

    def take_blocks(self, blocks: dict[str, Block | None]) -> list[str]:
        """Puts the subsets and weights of `blocks` in the place of those the sets have; says which ones changed."""
        changes = []
        for entries in (self.train, self.evaluation):
            for i, entry in enumerate(entries):
                block = blocks.get(entry.name, Block(entry.subset, entry.weight)) or WITHOUT
                if (block.subset, block.weight) != (entry.subset, entry.weight):
                    changes.append(
                        f"{entry.name} is now {block.subset} x {block.weight:g}, was {entry.subset} x {entry.weight:g}"
                    )
                    entries[i] = replace(entry, subset=block.subset, weight=block.weight)
        return changes


def _unreadable(folder: str) -> UserError:
    return UserError(
        f"tokenized_path {folder} cannot be read, or an older sdrrl-factory wrote it; remove it to have it written anew"
    )


def describe_sets(sets: Sets) -> str:
    """One line for the person who trains: each set's subset, rows and weight, and what else there is to know."""
    training = _list_entries(sets.train, sets.weights[: len(sets.train)])
    evaluation = _list_entries(sets.evaluation, sets.weights[len(sets.train) :])
    if not sets.train:
        clauses = [f"subset-weighted loss (equation 6) is on in evaluation: {evaluation}"]
    else:
        clauses = [f"subset-weighted loss (equation 6) is on: {training}"]
        clauses += [f"evaluation: {evaluation}"] if evaluation else []
    entries = sets.train + sets.evaluation
    bare = [entry.name for entry in entries if entry.subset == OTHER]
    if bare:
        clauses.append(f"without an sdrrl block, together one more subset of weight 1, {OTHER}: {', '.join(bare)}")
    absent = [entry.name for entry in sets.train if not entry.size]
    if absent:
        clauses.append(f"not trained, no row of it was drawn: {', '.join(absent)}")
    if sets.train:
        clauses.append(_LOGGED)
    return "; ".join(clauses + sets.remarks)


_LOGGED = (
    "in each line of the log, loss is the weighted mean that is trained on, loss_<subset> the plain mean of that"
    " subset's samples since the line before, samples_<subset> their number"
)


def _list_entries(entries: list, weights: list[float]) -> str:
    return ", ".join(f"{e.subset} {e.size} rows x {w:.4g}" for e, w in zip(entries, weights, strict=True) if e.size)


def entries_of(blocks: dict[str, Block | None], rows, first: int = 0) -> list[Entry]:
    """The named sets with how many rows there are of each in `rows`, whose column counts the sets from `first`."""
    counts = np.bincount(np.asarray(rows[ENTRY][:], dtype=np.int64), minlength=first + len(blocks))
    named = [(name, block or WITHOUT) for name, block in blocks.items()]
    return [Entry(name, b.subset, b.weight, int(counts[first + i])) for i, (name, b) in enumerate(named)]


def rows_to_train(rows) -> list[int]:
    """The indices of the rows with a token to train on.

    The others count neither in |D_d| nor in |B|: their l_CE is a mean over nothing. The label in the first place is no
    target, since nothing stands before it to predict it.
    """
    kept = []
    # Not in NumPy's format: datasets 4.0 imports torchvision's VideoReader for it, which torchvision 0.26 has no more.
    for table in rows.select_columns("labels").with_format("arrow").iter(1000):
        for row in table["labels"]:
            labels = row.values.to_numpy(zero_copy_only=False)
            kept.append(bool((labels[1:] != IGNORE).any()))
    return np.flatnonzero(kept).tolist()


def split(sets: list, val_size: float, seed: int) -> tuple[list, list]:
    """Rows of each set are held out at random, so that the validation set is made like the training set.

    Returns the rows that stay, set by set, and those held out, of the sets that have any. Raises UserError: see
    `apportion`.
    """
    training, held = [], []
    for rows, size in zip(sets, apportion([len(rows) for rows in sets], val_size), strict=True):
        parts = rows.train_test_split(test_size=size, seed=seed) if size else {"train": rows}
        training.append(parts["train"])
        held += [parts["test"]] if size else []
    return training, held


def apportion(sizes: list[int], val_size: float) -> list[int]:
    """How many rows of each set are held out: by largest remainders, one row of each stays.

    val_size: a number of rows, from 1 on; below, a share of all rows, which is met as near as whole rows allow. Sizes
    in whole numbers, so that every rank and every machine gets the same. Raises UserError: there are not so many rows.
    """
    total, most = sum(sizes), sum(size - 1 for size in sizes)
    rows = int(val_size) if val_size >= 1 else min(max(round(val_size * total), 1), most)
    if rows > most or not rows:
        raise UserError(
            f"val_size: {val_size:g} of {total} rows in {len(sizes)} sets cannot be held out; one row of each set must"
            f" stay, so at most {most} can be; lower val_size, or name an eval_dataset"
        )
    held = [min(rows * size // total, size - 1) for size in sizes]
    while sum(held) < rows:
        open_ = [i for i, size in enumerate(sizes) if held[i] < size - 1]
        held[max(open_, key=lambda i: rows * sizes[i] - held[i] * total)] += 1
    return held


def pack(rows, longest: int, knapsack, seed: int | None, **kwargs):
    """Rows of samples of at most `longest` tokens joined to packs of at most as many, whatever set they come from.

    A pack holds its samples' input_ids, attention_mask and labels one after the other, their lengths, and their
    entries. knapsack: LLaMA-Factory's own; seed: the rows are shuffled first, or None; kwargs: those of Dataset.map.
    Raises UserError: a longer sample, images, videos or audios.
    """
    for column in _MEDIA:
        if column in rows.column_names and any(rows[column]):
            raise UserError(f"packing cannot be weighted where a set has {column}; take packing out")
    rows = rows if seed is None else rows.shuffle(seed=seed)
    options = {"longest": longest, "knapsack": knapsack}
    return rows.map(_join, batched=True, remove_columns=rows.column_names, fn_kwargs=options, desc="Packing", **kwargs)


def _join(batch: dict[str, list], longest: int, knapsack) -> dict[str, list]:
    of_length = defaultdict(list)
    for index, ids in enumerate(batch["input_ids"]):
        of_length[len(ids)].append(index)
    if max(of_length) > longest:  # LLaMA-Factory's knapsack would never end
        raise UserError(f"packing: a sample has {max(of_length)} tokens, and a pack holds {longest}; raise cutoff_len")
    bags = knapsack([len(ids) for ids in batch["input_ids"]], longest)
    packs = [[of_length[length].pop() for length in bag] for bag in bags]
    joined = {
        key: [[token for i in pack for token in batch[key][i]] for pack in packs]
        for key in ("input_ids", "attention_mask", "labels")
    }
    joined[ENTRY] = [[batch[ENTRY][i] for i in pack] for pack in packs]
    joined[LENGTHS] = [[len(batch["input_ids"][i]) for i in pack] for pack in packs]
    return joined
