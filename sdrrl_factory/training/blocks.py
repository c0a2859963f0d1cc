"""The `sdrrl` blocks of dataset_info.json: which subset each named set belongs to, and its weight."""

import json
from pathlib import Path

from sdrrl_factory.errors import UserError


def read_blocks(data_args, names: list[str] | None) -> dict[str, dict | None]:
    """Named sets and their sdrrl blocks; LLaMA-Factory itself complains of what it cannot read."""
    info = _dataset_info(data_args.dataset_dir) if names else {}
    blocks = {name: (info.get(name) or {}).get("sdrrl") for name in names or []}
    for name, block in blocks.items():
        if block is None:
            continue
        where = f"{data_args.dataset_dir}/dataset_info.json: {name}"
        subset = block.get("subset") if isinstance(block, dict) else None
        weight = block.get("weight", 1.0) if isinstance(block, dict) else None
        if not isinstance(subset, str) or not subset:
            raise UserError(f'{where}: "sdrrl" needs {{"subset": "TL", "weight": 1.0}}')
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
            raise UserError(f"{where}: sdrrl.weight is {weight!r}; use a number from 0")
    return blocks


def _dataset_info(folder: str | dict) -> dict:
    if isinstance(folder, dict):
        return folder
    try:
        path = Path(folder, "dataset_info.json")
        if folder.startswith("REMOTE:"):
            from huggingface_hub import hf_hub_download

            path = Path(hf_hub_download(folder[7:], "dataset_info.json", repo_type="dataset"))
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
