"""`tokenized_path`: the rows of a run kept on disk as LLaMA-Factory keeps them, and beside them whose they are.

    tokenized_path/
      dataset_dict.json, train/, validation/   as LLaMA-Factory writes and reads them, unpacked
      sdrrl.json                               the named sets
      sdrrl/train/, sdrrl/validation/          the column that tells which set a row comes from

The column stands apart from the rows: with the plugin off, LLaMA-Factory reads them as its own, and it hands every
column to the model.
"""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdrrl_factory.errors import UserError
from sdrrl_factory.training.blocks import OTHER, Block, check_subset_names, read_block, read_dataset_info
from sdrrl_factory.training.packing import ENTRY
from sdrrl_factory.training.sets import Sets
from sdrrl_factory.training.weights import Entry

if TYPE_CHECKING:
    from llamafactory.hparams import DataArguments

NOTE = "sdrrl.json"
_COLUMNS = "sdrrl"


def is_tokenized(folder: str | None) -> bool:
    """Whether LLaMA-Factory would take tokenized sets from there. Raises UserError: it is no folder."""
    if folder is None or not os.path.exists(folder):
        return False
    if not os.path.isdir(folder):
        raise UserError(f"{folder} is a file", "name a folder", key="tokenized_path")
    return bool(os.listdir(folder))


def has_note(folder: str) -> bool:
    """Whether the tokenized sets say which rows are whose: whether this plugin wrote them."""
    return Path(folder, NOTE).is_file()


def save_sets(sets: Sets, folder: str) -> None:
    """Raises UserError: the folder cannot be written."""
    from datasets import DatasetDict

    with_entries = {name: rows for name, rows in sets.rows.items() if ENTRY in rows.column_names}
    plain = sets.rows | {name: rows.remove_columns(ENTRY) for name, rows in with_entries.items()}
    columns = {name: rows.select_columns(ENTRY) for name, rows in with_entries.items()}
    note = asdict(replace(sets, rows={}))
    for key in ("rows", "warnings"):  # the rows stand beside it; the warnings were of this reading
        del note[key]
    try:
        DatasetDict(plain).save_to_disk(folder)
        DatasetDict(columns).save_to_disk(str(Path(folder, _COLUMNS)))
        Path(folder, NOTE).write_text(json.dumps(note, indent=1), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error})", "name another", key="tokenized_path") from None


def load_note(data_args: "DataArguments") -> tuple[Sets, list[str]]:
    """The kept sets without their rows, with the subsets and weights that dataset_info.json has today.

    Returns what of them changed besides, in words: no row has to be tokenized again for another weight. A set that
    dataset_info.json does not name keeps what it had: the folder may have been written on another machine. Raises
    UserError: it is not what `save_sets` wrote, or a mistake in a block.
    """
    folder = data_args.tokenized_path
    try:
        note = json.loads(Path(folder, NOTE).read_text(encoding="utf-8"))
        train = [Entry(**entry) for entry in note["train"]]
        evaluation = [Entry(**entry) for entry in note["evaluation"]]
        sets = Sets({}, train, evaluation, note["each"], note["pack_to"], note["remarks"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(folder) from error
    info = read_dataset_info(data_args)
    names = [entry.name for entry in sets.train + sets.evaluation if entry.name in info]
    changes = sets.take_blocks({name: read_block(data_args, info, name) for name in names})
    blocks = [entry for entry in sets.train + sets.evaluation if entry.subset != OTHER]
    check_subset_names(data_args, {entry.name: Block(entry.subset, entry.weight) for entry in blocks})
    return sets, changes


def load_sets(data_args: "DataArguments", do_train: bool) -> Sets:
    """The kept sets as `load_note` has them, their rows, and in `warnings` what of the recipe is not looked at.

    Raises UserError: it is not what `save_sets` wrote, or has no training set to train.
    """
    from datasets import concatenate_datasets, load_from_disk

    folder = data_args.tokenized_path
    sets, changes = load_note(data_args)
    try:
        sets.rows = dict(load_from_disk(folder))
        for name, column in load_from_disk(str(Path(folder, _COLUMNS))).items():
            sets.rows[name] = concatenate_datasets([sets.rows[name], column], axis=1)
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(folder) from error
    if do_train and "train" not in sets.rows:
        raise UserError(f"{folder} has no training set", "remove it to have it written anew", key="tokenized_path")
    names = ", ".join(entry.name for entry in sets.train + sets.evaluation)
    sets.warnings = [
        f"tokenized_path {folder} is used again, with {names}; the data keys of the recipe (dataset, eval_dataset,"
        " cutoff_len, val_size, packing, ...) are not looked at"
    ]
    if changes:
        sets.warnings.append(f"dataset_info.json has changed since, and counts: {'; '.join(changes)}")
    return sets


def _unreadable(folder: str) -> UserError:
    return UserError(
        f"{folder} cannot be read, or an older sdrrl-factory wrote it",
        "remove it to have it written anew",
        key="tokenized_path",
    )
