"""The `sdrrl` blocks of dataset_info.json: which subset each named set belongs to, and its weight.

    "sdrrl_spa_tl": {"file_name": "tl.jsonl", "sdrrl": {"subset": "TL", "weight": 1.0}}

A mistake in a block stops the training: read over, it would train with other weights than the user wrote. So do two
subsets whose names differ only in case (`TL`, `tl`): they are one subset with a slip far more often than two, and the
weights of all samples hang on it.
"""

import contextlib
import difflib
import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrrl_factory.errors import UserError

if TYPE_CHECKING:
    from llamafactory.hparams import DataArguments

OTHER = "other"  # the one subset of all sets without a block
_EXAMPLE = '{"subset": "TL", "weight": 1.0}'
# Beyond these, the lesser of two subsets is lost in the rounding of float32 (7 digits).
_SMALLEST, _LARGEST = 1e-6, 1e6


@dataclass(frozen=True)
class Block:
    """subset: its name, without spaces around it; weight: 0, or from 1e-6 to 1e6."""

    subset: str
    weight: float = 1.0


NO_BLOCK = Block(OTHER)  # what a set without a block counts as


def read_blocks(data_args: "DataArguments") -> tuple[dict[str, Block | None], dict[str, Block | None]]:
    """The training sets and the evaluation sets that a recipe names, each once, with their blocks or None.

    A name that stands twice counts once, as in LLaMA-Factory (its pull request 5522 put the sets into a dict by name).
    What LLaMA-Factory itself cannot read of dataset_info.json is left to its own complaint. Raises UserError: a mistake
    in a block.
    """
    info = read_dataset_info(data_args) if data_args.dataset or data_args.eval_dataset else {}
    training = {name: read_block(data_args, info, name) for name in data_args.dataset or []}
    evaluation = {name: read_block(data_args, info, name) for name in data_args.eval_dataset or []}
    check_subset_names(data_args, training | evaluation)
    return training, evaluation


def read_dataset_info(data_args: "DataArguments") -> dict:
    """dataset_info.json, wherever LLaMA-Factory takes it from; empty where it cannot be read."""
    folder = data_args.dataset_dir
    if isinstance(folder, dict):
        return folder
    try:
        path = Path(folder, "dataset_info.json")
        if folder.startswith("REMOTE:"):
            from huggingface_hub import hf_hub_download

            path = Path(hf_hub_download(folder.removeprefix("REMOTE:"), "dataset_info.json", repo_type="dataset"))
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return info if isinstance(info, dict) else {}


@contextlib.contextmanager
def in_entry(data_args: "DataArguments", name: str) -> Iterator[None]:
    """Errors raised inside are about the entry `name` of dataset_info.json."""
    try:
        yield
    except UserError as err:
        if not err.at:
            folder = data_args.dataset_dir
            file = "dataset_dir" if isinstance(folder, dict) else f"{folder}/dataset_info.json"
            err.at = f"{file}: {name}"
        raise


def read_block(data_args: "DataArguments", info: dict, name: str) -> Block | None:
    """The block of one set, None without one. Raises UserError."""
    entry = info.get(name)
    if not isinstance(entry, dict):
        return None
    with in_entry(data_args, name):
        if "sdrrl" not in entry:
            # "sdrll": {...} would otherwise be a set without a block, silently in the subset `other`.
            for key, value in entry.items():
                if isinstance(value, dict) and _closest(key, ["sdrrl"], 0.75):
                    raise UserError(f'unknown key "{key}"', 'did you mean "sdrrl"?')
        block = entry.get("sdrrl")
        return None if block is None else _parse(block)


def _parse(block: Any) -> Block:
    if not isinstance(block, dict):
        raise UserError(f'"sdrrl" is {block!r}', f"give it a subset: {_EXAMPLE}")
    for key in block:
        if key not in ("subset", "weight"):
            close = _closest(key, ["subset", "weight"], 0.6)
            fix = f'did you mean "{close}"?' if close else "take it out; a block has subset and weight"
            raise UserError(f'unknown key "{key}" in "sdrrl"', fix)
    subset, weight = block.get("subset"), block.get("weight", 1.0)
    if not isinstance(subset, str) or not subset.strip() or not subset.strip().isprintable():
        raise UserError(f"sdrrl.subset is {subset!r}", f'name the subset: "sdrrl": {_EXAMPLE}')
    is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not is_number or not (weight == 0 or _SMALLEST <= weight <= _LARGEST):
        raise UserError(f"sdrrl.weight is {weight!r}", f"use 0, or a number from {_SMALLEST:g} to {_LARGEST:g}")
    return Block(subset.strip(), float(weight))


def _closest(key: str, names: list[str], cutoff: float) -> str | None:
    return next(iter(difflib.get_close_matches(key.strip().lower(), names, n=1, cutoff=cutoff)), None)


def check_subset_names(data_args: "DataArguments", blocks: dict[str, Block | None]) -> None:
    """Raises UserError: two subsets differ only in case, or one has the name of the sets without a block."""
    first: dict[str, tuple[str, str]] = {}  # by folded name: the spelling that came first, and its set
    for name, block in blocks.items():
        if block is None:
            continue
        folded = _fold(block.subset)
        subset, owner = first.setdefault(folded, (block.subset, name))
        with in_entry(data_args, name):
            if folded == _fold(OTHER):
                raise UserError(
                    f'sdrrl.subset is "{block.subset}", which is the subset of all sets without a block',
                    "choose another name",
                )
            if subset != block.subset:
                raise UserError(
                    f'sdrrl.subset is "{block.subset}", and that of {owner} is "{subset}": they differ only in case',
                    "write them alike, or choose another name",
                )


def _fold(subset: str) -> str:
    return unicodedata.normalize("NFKC", subset).casefold()
