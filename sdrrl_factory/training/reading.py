"""The sets of a recipe: each read alone, by LLaMA-Factory's own get_dataset, or taken from a tokenized_path."""

import contextlib
import copy
import difflib
import functools
import io
import os
from pathlib import Path

from sdrrl_factory.errors import UserError
from sdrrl_factory.training import data
from sdrrl_factory.training.blocks import OTHER, Block, block_of, check_names, place_of, read_blocks, read_info
from sdrrl_factory.training.collator import ENTRY
from sdrrl_factory.training.limits import check_mix

# What a mistake in a recipe or in a data file is raised as, by LLaMA-Factory and by datasets.
_DATA_MISTAKES = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, StopIteration)


def weighted_parts(data_args) -> tuple[bool, bool]:
    """Whether the training, and whether the evaluation, has a set with a block.

    Raises UserError: a mistake in a block, or tokenized sets that do not say which rows are whose.
    """
    folder = data_args.tokenized_path
    if not is_kept(folder):
        training, evaluation = read_blocks(data_args)
        return any(training.values()), any(evaluation.values())
    if Path(folder, data.NOTE).is_file():
        sets = data.Sets.load_note(folder)
        _take_current_blocks(sets, data_args)
        # Rows that were kept as weighted ones stay so while any set has a block: as `other`, without one of their own.
        return bool(sets.train) and _has_block(sets.train + sets.evaluation), _has_block(sets.evaluation)
    if any(any(blocks.values()) for blocks in read_blocks(data_args)):
        raise UserError(
            f"tokenized_path {folder} was written without this plugin and tells no subsets; remove it, name another, or"
            " train unweighted with SDRRL_FACTORY_DISABLE=1"
        )
    return False, False


def _has_block(entries: list) -> bool:
    return any(entry.subset != OTHER for entry in entries)


def dataset_module(sets: data.Sets, data_args, training_args, shuffled: bool) -> dict:
    """What LLaMA-Factory's get_dataset returns; the training rows are packed first, where they are to be."""
    from datasets import DatasetDict
    from llamafactory.data.data_utils import get_dataset_module

    rows = dict(sets.rows)
    if "train" in rows and sets.pack_to is not None:
        rows["train"] = _pack(rows["train"], sets.pack_to, data_args, training_args, shuffled)
    return get_dataset_module(DatasetDict(rows))


def _pack(rows, longest: int, data_args, training_args, shuffled: bool):
    from llamafactory.data.processor.processor_utils import greedy_knapsack

    # Packs of kept sets are cached beside them, unless that folder is somebody else's.
    folders = {os.path.dirname(file["filename"]) for file in rows.cache_files}
    with training_args.main_process_first(desc="pack", local=not data_args.data_shared_file_system):
        return data.pack(
            rows,
            longest,
            greedy_knapsack,
            training_args.seed if shuffled else None,
            batch_size=data_args.preprocessing_batch_size,
            num_proc=data_args.preprocessing_num_workers,
            keep_in_memory=not all(os.access(folder, os.W_OK) for folder in folders),
        )


# --- read anew


def read_sets(read, data_args, training_args, trains: bool, packing: bool) -> data.Sets:
    """The sets that a recipe names.

    read: LLaMA-Factory's get_dataset, given data_args and training_args by name; trains: the training sets are
    weighted, otherwise they are read as LLaMA-Factory does; packing: their rows are to be packed. Raises UserError.
    """
    from llamafactory.data.data_utils import merge_dataset

    train_blocks, eval_blocks = read_blocks(data_args)
    sets = data.Sets({}, each=data_args.eval_on_each_dataset)
    check_mix(data_args, len(train_blocks), merge_dataset)
    check_mix(data_args, 0 if sets.each else len(eval_blocks), merge_dataset)
    read_each = functools.partial(_read_each, sets, read, data_args, training_args)
    merge = functools.partial(merge_dataset, data_args=data_args, seed=training_args.seed)
    if trains:
        train = read_each(train_blocks)
        if data_args.val_size > 1e-6:
            train, held = data.split(train, data_args.val_size, training_args.seed)
            sets.rows["validation"] = _concatenate(held)
            counts = data.entries_of(train_blocks, sets.rows["validation"])
            sets.remarks.append(f"val_size holds out {', '.join(f'{e.size} rows of {e.name}' for e in counts)}")
        sets.rows["train"] = merge(train)
        sets.train = data.entries_of(train_blocks, sets.rows["train"])
        sets.pack_to = data_args.cutoff_len if packing else None
        if data_args.interleave_probs or len(sets.rows["train"]) != sum(map(len, train)):
            sets.remarks.append(
                f"mix_strategy: {data_args.mix_strategy} draws unevenly from the sets, so equation 6 holds over the"
                " rows drawn, not over the sets"
            )
        _check_trained(sets)
    elif train_blocks:
        alone = copy.copy(data_args)
        alone.eval_dataset = alone.tokenized_path = None
        sets.rows["train"] = read(data_args=alone, training_args=training_args)["train_dataset"]
        sets.remarks.append(
            f"the training is LLaMA-Factory's own, none of its sets has an sdrrl block: {', '.join(train_blocks)}"
        )
    # Evaluation sets are numbered behind the training sets.
    first = len(sets.train)
    evaluation = dict(zip(eval_blocks, read_each(eval_blocks, first), strict=True))
    if sets.each:
        sets.rows |= {f"validation_{name}": rows for name, rows in evaluation.items()}
    elif evaluation:
        sets.rows["validation"] = merge(list(evaluation.values()))
    if evaluation:
        rows = _concatenate([rows.select_columns(ENTRY) for rows in evaluation.values()])
        sets.evaluation = data.entries_of(eval_blocks, rows if sets.each else sets.rows["validation"], first)
    return sets


def _read_each(
    sets: data.Sets, read, data_args, training_args, blocks: dict[str, Block | None], first: int = 0
) -> list:
    """The rows of each named set that have a token to train on, with the column that numbers the sets from `first`.

    Puts into sets.remarks how many rows are left out. Raises UserError: a set cannot be read, or no row is left.
    """
    everything = []
    for index, name in enumerate(blocks, first):
        one = copy.copy(data_args)
        one.dataset, one.eval_dataset, one.val_size, one.tokenized_path = [name], None, 0.0, None
        one.packing = one.neat_packing = False
        # LLaMA-Factory prints a first example of whatever it tokenises: one is enough.
        with contextlib.redirect_stdout(io.StringIO()) if index or sets.rows else contextlib.nullcontext():
            rows = _read_one(name, read, one, training_args)
        trained = data.rows_to_train(rows)
        if not trained:
            raise UserError(
                f"{place_of(data_args, name)}: none of its {len(rows)} rows has a token to train on: {_WHY_UNTRAINED};"
                " raise cutoff_len, or mend the set"
            )
        rows = rows.add_column(ENTRY, [index] * len(rows))
        if len(trained) < len(rows):
            sets.remarks.append(
                f"{len(rows) - len(trained)} of {len(rows)} rows of {name} are left out: {_WHY_UNTRAINED}"
            )
            rows = rows.select(trained)
        everything.append(rows)
    return everything


_WHY_UNTRAINED = "the answer is missing, or cut off at cutoff_len"


def _read_one(name: str, read, data_args, training_args):
    """The tokenized rows of one set, by LLaMA-Factory. Raises UserError, with what LLaMA-Factory or datasets said."""
    from datasets.exceptions import DatasetsError

    place = place_of(data_args, name)
    try:
        rows = read(data_args=data_args, training_args=training_args)["train_dataset"]
    except (*_DATA_MISTAKES, DatasetsError) as error:
        raise UserError(f"{place}: {_explain(error, name, data_args)}") from error
    # Only the rank that prints an example stops at an empty set by itself.
    if not len(rows):
        raise UserError(f"{place}: {_NO_VALID_ROW}")
    return rows


_NO_VALID_ROW = "no valid row; each needs a question and an answer, in the columns that dataset_info.json names"


def _explain(error: Exception, name: str, data_args) -> str:
    """Why a set cannot be read, and what to do, in one line."""
    info = read_info(data_args)
    entry = info.get(name)
    if info and entry is None:
        near = difflib.get_close_matches(name, info, n=1)
        return f'no entry "{name}"; ' + (f"did you mean {near[0]}?" if near else "mend dataset or eval_dataset")
    if isinstance(entry, dict) and isinstance(data_args.dataset_dir, str):
        file = Path(data_args.dataset_dir, str(entry.get("file_name")))
        if file.is_file() and not file.read_bytes().strip():
            return f"{file} is empty; write rows into it, or take the set out of the recipe"
    if isinstance(error, StopIteration):
        return "no row; write some into its file, or mend max_samples"
    if "Cannot find valid samples" in str(error):
        return _NO_VALID_ROW
    cause = error.__cause__ or error
    message = next(iter(str(cause).splitlines()), "")[:300]
    return (
        f"LLaMA-Factory cannot read this set ({type(cause).__name__}: {message}); mend its file or its columns;"
        " SDRRL_FACTORY_DISABLE=1 shows the whole message"
    )


def _concatenate(sets: list):
    from datasets import concatenate_datasets

    return concatenate_datasets(sets)


def _check_trained(sets: data.Sets) -> None:
    if sets.train and not any(sets.weights[: len(sets.train)]):
        raise UserError("sdrrl.weight is 0 for every training set, so nothing would be trained; raise one")


# --- taken from a tokenized_path


def is_kept(folder: str | None) -> bool:
    """Whether LLaMA-Factory would take tokenized sets from there. Raises UserError: it is no folder."""
    if folder is not None and os.path.exists(folder) and not os.path.isdir(folder):
        raise UserError(f"tokenized_path {folder} is a file; name a folder")
    return folder is not None and os.path.isdir(folder) and bool(os.listdir(folder))


def load_sets(data_args, training_args) -> data.Sets:
    """Kept sets, with the blocks of today, and in `warnings` what of the recipe is not looked at. Raises UserError."""
    folder = data_args.tokenized_path
    sets = data.Sets.load(folder)
    changes = _take_current_blocks(sets, data_args)
    _check_trained(sets)
    if training_args.do_train and "train" not in sets.rows:
        raise UserError(f"tokenized_path {folder} has no training set; remove it to have it written anew")
    named = ", ".join(entry.name for entry in sets.train + sets.evaluation)
    sets.warnings = [
        f"tokenized_path {folder} is used again, with {named}; the data keys of the recipe (dataset, eval_dataset,"
        " cutoff_len, val_size, packing, ...) are not looked at"
    ]
    if changes:
        sets.warnings.append(f"dataset_info.json has changed since, and counts: {'; '.join(changes)}")
    return sets


def _take_current_blocks(sets: data.Sets, data_args) -> list[str]:
    """Gives kept sets the subsets and weights that dataset_info.json has now; returns what changed.

    No row has to be tokenized again for it. A set that dataset_info.json does not name keeps what it had: the folder
    may have been written on another machine. Raises UserError: a mistake in a block.
    """
    info = read_info(data_args)
    entries = sets.train + sets.evaluation
    changes = sets.take_blocks({e.name: block_of(data_args, info, e.name) for e in entries if e.name in info})
    entries = sets.train + sets.evaluation
    check_names(data_args, {e.name: Block(e.subset, e.weight) for e in entries if e.subset != OTHER})
    return changes
