"""Subset files and their entries in LLaMA-Factory's dataset_info.json."""

import json
from pathlib import Path

from filelock import FileLock

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import atomic_write, read_text, write_jsonl

_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output"}


def register(dataset_dir: Path, name: str, target: str, subsets: dict[str, list[dict]]) -> list[str]:
    """Write `<name>_<target>/<subset>.jsonl`, then name them in dataset_info.json; returns the entries' names.

    The update is atomic, under a lock, and leaves every entry it does not own as it was. An empty subset has no entry.
    """
    folder = f"{name}_{target}"
    filled = {subset: rows for subset, rows in subsets.items() if rows}
    read_info(dataset_dir / "dataset_info.json")
    for subset, rows in filled.items():
        write_jsonl(dataset_dir / folder / f"{subset.lower()}.jsonl", rows)
    entries = {f"{folder}_{subset.lower()}": _entry(folder, subset) for subset in filled}
    info_path = dataset_dir / "dataset_info.json"
    with FileLock(dataset_dir / ".dataset_info.lock"):
        info = read_info(info_path)
        for subset in subsets:
            info.pop(f"{folder}_{subset.lower()}", None)
        atomic_write(info_path, json.dumps(info | entries, ensure_ascii=False, indent=2) + "\n")
    for subset in subsets.keys() - filled.keys():
        (dataset_dir / folder / f"{subset.lower()}.jsonl").unlink(missing_ok=True)
    return list(entries)


def read_info(path: Path) -> dict:
    if not path.exists():
        return {}
    try:
        info = json.loads(read_text(path) or "{}")
    except ValueError as err:
        raise UserError(f"{path}:{getattr(err, 'lineno', 1)}: not JSON ({err}); mend it by hand first") from None
    if not isinstance(info, dict):
        raise UserError(f"{path}: a {type(info).__name__} instead of an object of data sets; mend it by hand first")
    return info


def _entry(folder: str, subset: str) -> dict:
    return {
        "file_name": f"{folder}/{subset.lower()}.jsonl",
        "columns": _COLUMNS,
        "sdrrl": {"subset": subset, "weight": 1.0},
    }
