"""The `sdrrl` blocks of dataset_info.json: which subset each named set belongs to, and its weight.

    "sdrrl_spa_tl": {"file_name": "tl.jsonl", "sdrrl": {"subset": "TL", "weight": 1.0}}

A mistake in a block stops the training: read over, it would train with other weights than the user wrote. So do two
subsets whose names differ only in case (`TL`, `tl`): they are one subset with a slip far more often than two, and the
weights of all samples hang on it.
"""

import difflib
import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from sdrrl_factory.errors import UserError

OTHER = "other"  # the one subset of all sets without a block
_EXAMPLE = '{"subset": "TL", "weight": 1.0}'
# Beyond these, the lesser of two subsets is lost in the rounding of float32 (7 digits).
_SMALLEST, _LARGEST = 1e-6, 1e6


@dataclass(frozen=True)
class Block:
    """subset: its name, without spaces around it; weight: 0, or from 1e-6 to 1e6."""

    subset: str
    weight: float = 1.0


WITHOUT = Block(OTHER)


def read_blocks(data_args) -> tuple[dict[str, Block | None], dict[str, Block | None]]:
    """The training sets and the evaluation sets that a recipe names, each once, with their blocks or None.

    A name that stands twice counts once, as in LLaMA-Factory. What LLaMA-Factory itself cannot read of
    dataset_info.json is left to its own complaint. Raises UserError: a mistake in a block.
    """
    info = read_info(data_args) if data_args.dataset or data_args.eval_dataset else {}
    training, evaluation = (
        {name: block_of(data_args, info, name) for name in names or []}
        for names in (data_args.dataset, data_args.eval_dataset)
    )
    check_names(data_args, training | evaluation)
    return training, evaluation


def read_info(data_args) -> dict:
    """dataset_info.json, wherever LLaMA-Factory takes it from; empty where it cannot be read."""
    folder = data_args.dataset_dir
    if isinstance(folder, dict):
        return folder
    try:
        path = Path(folder, "dataset_info.json")
        if folder.startswith("REMOTE:"):
            from huggingface_hub import hf_hub_download

            path = Path(hf_hub_download(folder[7:], "dataset_info.json", repo_type="dataset"))
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return info if isinstance(info, dict) else {}


def place_of(data_args, name: str) -> str:
    """Where a mistake in the entry of a set is to be mended."""
    folder = data_args.dataset_dir
    file = "dataset_dir" if isinstance(folder, dict) else f"{folder}/dataset_info.json"
    return f"{file}: {name}"


def block_of(data_args, info: dict, name: str) -> Block | None:
    """The block of one set, None without one. Raises UserError."""
    entry = info.get(name)
    if not isinstance(entry, dict):
        return None
    place = place_of(data_args, name)
    if "sdrrl" not in entry:
        near = [key for key, value in entry.items() if isinstance(value, dict) and _near(key, ["sdrrl"], 0.75)]
        if near:
            raise UserError(f'{place}: unknown key "{near[0]}"; did you mean "sdrrl"?')
    block = entry.get("sdrrl")
    return None if block is None else _parse(block, place)


def _parse(block, place: str) -> Block:
    if not isinstance(block, dict):
        raise UserError(f'{place}: "sdrrl" is {block!r}; give it a subset: {_EXAMPLE}')
    for key in block:
        if key not in ("subset", "weight"):
            near = _near(key, ["subset", "weight"], 0.6)
            step = f'did you mean "{near[0]}"?' if near else "take it out; a block has subset and weight"
            raise UserError(f'{place}: unknown key "{key}" in "sdrrl"; {step}')
    subset, weight = block.get("subset"), block.get("weight", 1.0)
    if not isinstance(subset, str) or not subset.strip() or not subset.strip().isprintable():
        raise UserError(f'{place}: sdrrl.subset is {subset!r}; name the subset: "sdrrl": {_EXAMPLE}')
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not number or not (weight == 0 or _SMALLEST <= weight <= _LARGEST):
        raise UserError(f"{place}: sdrrl.weight is {weight!r}; use 0, or a number from {_SMALLEST:g} to {_LARGEST:g}")
    return Block(subset.strip(), float(weight))


def _near(key: str, known: list[str], cutoff: float) -> list[str]:
    return difflib.get_close_matches(key.strip().lower(), known, n=1, cutoff=cutoff)


def check_names(data_args, blocks: dict[str, Block | None]) -> None:
    """Raises UserError: two subsets differ only in case, or one has the name of the sets without a block."""
    first: dict[str, tuple[str, str]] = {_folded(OTHER): (OTHER, "")}
    for name, block in blocks.items():
        if block is None:
            continue
        subset, owner = first.setdefault(_folded(block.subset), (block.subset, name))
        if not owner:
            raise UserError(
                f'{place_of(data_args, name)}: sdrrl.subset is "{block.subset}", which is the subset of all sets'
                " without a block; choose another name"
            )
        if subset != block.subset:
            raise UserError(
                f'{place_of(data_args, name)}: sdrrl.subset is "{block.subset}", and that of {owner} is "{subset}":'
                " they differ only in case; write them alike, or choose another name"
            )


def _folded(subset: str) -> str:
    return unicodedata.normalize("NFKC", subset).casefold()
