"""The sets of a recipe, read: what happens to a set from dataset_info.json to weighted rows.

    1  blocks    which sets the recipe names, and the subset and weight of each          blocks.py
    2  mix       whether `datasets` can mix so many sets as mix_strategy says            limits.py
    3  read      each set alone, tokenized by LLaMA-Factory's own get_dataset            here, `_read_each`
    4  mark      rows without a trained token go; a column tells which set a row is of   here, rows.py
    5  hold out  val_size rows, the same share of each set                               rows.py
    6  mix       the sets become one, by LLaMA-Factory's own merge_dataset               here
    7  count     the rows of each set: |D_d|, and from it the weights                    rows.py, weights.py
    8  keep      on disk, where the recipe has a tokenized_path                          tokenized.py
    9  pack      the rows that are trained on, where the recipe asks for it              packing.py

Reading each set alone is what needs no seam inside LLaMA-Factory's loader, whose rows do not say where they come from.
This is the only file of the training that calls LLaMA-Factory's data functions (0.9.5: get_dataset as it is handed in,
merge_dataset, get_dataset_module, greedy_knapsack).
"""

import contextlib
import copy
import difflib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrrl_factory.errors import UserError
from sdrrl_factory.training.blocks import OTHER, Block, in_entry, read_blocks, read_dataset_info
from sdrrl_factory.training.limits import check_mix
from sdrrl_factory.training.packing import ENTRY, pack
from sdrrl_factory.training.rows import count_entries, rows_to_train, split
from sdrrl_factory.training.sets import Sets
from sdrrl_factory.training.tokenized import has_note, is_tokenized, load_note, load_sets, save_sets

if TYPE_CHECKING:
    from datasets import Dataset
    from llamafactory.hparams import DataArguments, TrainingArguments

# What a mistake in a recipe or in a data file is raised as, by LLaMA-Factory and by datasets.
_DATA_MISTAKES = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, StopIteration)
_WHY_UNTRAINED = "the answer is missing, or cut off at cutoff_len"
_NO_VALID_ROW = ("no valid row", "each needs a question and an answer, in the columns that dataset_info.json names")


def weighted_parts(data_args: "DataArguments") -> tuple[bool, bool]:
    """Whether the training, and whether the evaluation, has a set with a block.

    Raises UserError: a mistake in a block, or tokenized sets that do not say which rows are whose.
    """
    folder = data_args.tokenized_path
    if not is_tokenized(folder):
        training, evaluation = read_blocks(data_args)
        return any(training.values()), any(evaluation.values())
    if has_note(folder):
        sets, _ = load_note(data_args)
        in_training = any(entry.subset != OTHER for entry in sets.train)
        in_evaluation = any(entry.subset != OTHER for entry in sets.evaluation)
        # Rows that were kept as weighted ones stay so while any set has a block: as `other`, without one of their own.
        return bool(sets.train) and (in_training or in_evaluation), in_evaluation
    training, evaluation = read_blocks(data_args)
    if any(training.values()) or any(evaluation.values()):
        raise UserError(
            f"{folder} was written without this plugin and tells no subsets",
            "remove it, name another, or train unweighted with SDRRL_FACTORY_DISABLE=1",
            key="tokenized_path",
        )
    return False, False


def read_sets(
    read: Callable, data_args: "DataArguments", training_args: "TrainingArguments", trains: bool, packing: bool
) -> Sets:
    """The sets of a recipe: steps 1 to 8, or those that a tokenized_path has kept.

    read: LLaMA-Factory's get_dataset, given data_args and training_args by name; trains: the training sets are
    weighted, otherwise they are read as LLaMA-Factory does; packing: their rows are to be packed. Raises UserError.
    """
    if is_tokenized(data_args.tokenized_path):
        sets = load_sets(data_args, training_args.do_train)
        _check_trained(sets)
        return sets

    from llamafactory.data.data_utils import merge_dataset

    # 1, 2
    train_blocks, eval_blocks = read_blocks(data_args)
    sets = Sets({}, each=data_args.eval_on_each_dataset)
    check_mix(data_args, len(train_blocks), merge_dataset)
    if not sets.each:
        check_mix(data_args, len(eval_blocks), merge_dataset)

    # 3 to 7, the training sets
    if trains:
        train = _read_each(sets, read, data_args, training_args, train_blocks)
        if data_args.val_size > 1e-6:  # as LLaMA-Factory has it
            train, held = split(train, data_args.val_size, training_args.seed)
            sets.rows["validation"] = _concatenate(held)
            counts = count_entries(train_blocks, sets.rows["validation"])
            sets.remarks.append(f"val_size holds out {', '.join(f'{e.size} rows of {e.name}' for e in counts)}")
        sets.rows["train"] = merge_dataset(train, data_args=data_args, seed=training_args.seed)
        sets.train = count_entries(train_blocks, sets.rows["train"])
        sets.pack_to = data_args.cutoff_len if packing else None
        if data_args.interleave_probs or len(sets.rows["train"]) != sum(len(rows) for rows in train):
            sets.remarks.append(
                f"mix_strategy: {data_args.mix_strategy} draws unevenly from the sets, so equation 6 holds over the"
                " rows drawn, not over the sets"
            )
        _check_trained(sets)
    elif train_blocks:
        without_evaluation = copy.copy(data_args)
        without_evaluation.eval_dataset = without_evaluation.tokenized_path = None
        sets.rows["train"] = read(data_args=without_evaluation, training_args=training_args)["train_dataset"]
        sets.remarks.append(
            f"the training is LLaMA-Factory's own, none of its sets has an sdrrl block: {', '.join(train_blocks)}"
        )

    # 3, 4, 6, 7, the evaluation sets, which are numbered behind the training sets
    first = len(sets.train)
    evaluation = _read_each(sets, read, data_args, training_args, eval_blocks, first)
    if evaluation:
        if sets.each:
            sets.rows |= {f"validation_{name}": rows for name, rows in zip(eval_blocks, evaluation, strict=True)}
            counted = _concatenate([rows.select_columns(ENTRY) for rows in evaluation])
        else:
            sets.rows["validation"] = merge_dataset(evaluation, data_args=data_args, seed=training_args.seed)
            counted = sets.rows["validation"]
        sets.evaluation = count_entries(eval_blocks, counted, first)

    # 8
    if data_args.tokenized_path and training_args.should_save:
        save_sets(sets, data_args.tokenized_path)
    return sets


def dataset_module(
    sets: Sets, data_args: "DataArguments", training_args: "TrainingArguments", shuffled: bool
) -> dict[str, Any]:
    """What LLaMA-Factory's get_dataset returns; the training rows are packed first, where they are to be (step 9)."""
    from datasets import DatasetDict
    from llamafactory.data.data_utils import get_dataset_module
    from llamafactory.data.processor.processor_utils import greedy_knapsack

    rows = dict(sets.rows)
    if "train" in rows and sets.pack_to is not None:
        # datasets keeps the packs in a file beside that of the rows, unless that folder is somebody else's.
        folders = {os.path.dirname(file["filename"]) for file in rows["train"].cache_files}
        # The first rank packs, and the others find its file.
        with training_args.main_process_first(desc="pack", local=not data_args.data_shared_file_system):
            rows["train"] = pack(
                rows["train"],
                sets.pack_to,
                greedy_knapsack,
                training_args.seed if shuffled else None,
                batch_size=data_args.preprocessing_batch_size,
                num_proc=data_args.preprocessing_num_workers,
                keep_in_memory=not all(os.access(folder, os.W_OK) for folder in folders),
            )
    return get_dataset_module(DatasetDict(rows))


def _read_each(
    sets: Sets,
    read: Callable,
    data_args: "DataArguments",
    training_args: "TrainingArguments",
    blocks: dict[str, Block | None],
    first: int = 0,
) -> list["Dataset"]:
    """The rows of each named set that have a token to train on, with the column that numbers the sets from `first`.

    Puts into sets.remarks how many rows are left out. Raises UserError: a set cannot be read, or no row is left.
    """
    rows_of_sets = []
    for entry, name in enumerate(blocks, first):
        alone = copy.copy(data_args)
        alone.dataset, alone.eval_dataset, alone.val_size, alone.tokenized_path = [name], None, 0.0, None
        alone.packing = alone.neat_packing = False
        # LLaMA-Factory prints a first example of whatever it tokenizes: one is enough.
        is_first = entry == 0 and not sets.rows
        with contextlib.nullcontext() if is_first else contextlib.redirect_stdout(io.StringIO()):
            rows = _read_set(name, read, alone, training_args)
        trained = rows_to_train(rows)
        if not trained:
            with in_entry(data_args, name):
                raise UserError(
                    f"none of its {len(rows)} rows has a token to train on: {_WHY_UNTRAINED}",
                    "raise cutoff_len, or mend the set",
                )
        rows = rows.add_column(ENTRY, [entry] * len(rows))
        if len(trained) < len(rows):
            sets.remarks.append(
                f"{len(rows) - len(trained)} of {len(rows)} rows of {name} are left out: {_WHY_UNTRAINED}"
            )
            rows = rows.select(trained)
        rows_of_sets.append(rows)
    return rows_of_sets


def _read_set(name: str, read: Callable, data_args: "DataArguments", training_args: "TrainingArguments") -> "Dataset":
    """The tokenized rows of one set, by LLaMA-Factory. Raises UserError, with what LLaMA-Factory or datasets said."""
    from datasets.exceptions import DatasetsError

    with in_entry(data_args, name):
        try:
            rows = read(data_args=data_args, training_args=training_args)["train_dataset"]
        except (*_DATA_MISTAKES, DatasetsError) as error:
            raise UserError(*_explain(error, name, data_args)) from error
        # LLaMA-Factory 0.9.5 notices an empty set where it prints an example: on the rank that logs alone.
        if not len(rows):
            raise UserError(*_NO_VALID_ROW)
    return rows


def _explain(error: Exception, name: str, data_args: "DataArguments") -> tuple[str, str]:
    """Why a set cannot be read, and what to do."""
    info = read_dataset_info(data_args)
    entry = info.get(name)
    if info and entry is None:
        close = difflib.get_close_matches(name, info, n=1)
        return f'no entry "{name}"', f"did you mean {close[0]}?" if close else "mend dataset or eval_dataset"
    if isinstance(entry, dict) and isinstance(data_args.dataset_dir, str):
        file = Path(data_args.dataset_dir, str(entry.get("file_name")))
        if file.is_file() and not file.read_bytes().strip():
            return f"{file} is empty", "write rows into it, or take the set out of the recipe"
    if isinstance(error, StopIteration):  # LLaMA-Factory asks for a first row
        return "no row", "write some into its file, or mend max_samples"
    if "Cannot find valid samples" in str(error):
        return _NO_VALID_ROW
    # datasets puts a general error around the one that says what is wrong.
    cause = error.__cause__ or error
    message = next(iter(str(cause).splitlines()), "")[:300]
    return (
        f"LLaMA-Factory cannot read this set ({type(cause).__name__}: {message})",
        "mend its file or its columns; SDRRL_FACTORY_DISABLE=1 shows the whole message",
    )


def _concatenate(sets: list["Dataset"]) -> "Dataset":
    from datasets import concatenate_datasets

    return concatenate_datasets(sets)


def _check_trained(sets: Sets) -> None:
    if sets.train and not any(sets.weights[: len(sets.train)]):
        raise UserError("sdrrl.weight is 0 for every training set, so nothing would be trained", "raise one")
