"""Data sets and their entries in LLaMA-Factory's dataset_info.json."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import atomic_write, dump_line, read_text, sha256_file
from sdrrl_factory.transfer.sets import SETS, sets_of

_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output"}


class DataSets:
    """Writes `<name>_<target>/<set>.jsonl` row by row, and on `register` puts all in place at once.

    Until then nothing a training could read has changed; a `with` block left early leaves no trace.
    """

    def __init__(self, dataset_dir: Path, name: str, target: str, systems: list[str], has_system: bool):
        self.dataset_dir, self.folder, self.has_system = dataset_dir, f"{name}_{target}", has_system
        self.sets = [row.name for row in sets_of(systems)]
        self.rows = dict.fromkeys(self.sets, 0)
        read_info(dataset_dir / "dataset_info.json")
        (dataset_dir / self.folder).mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "DataSets":
        self._parts = {}
        for subset in self.sets:
            # Beside its place, so that the move is a rename.
            fd, part = tempfile.mkstemp(dir=self.dataset_dir / self.folder, prefix=f".{subset}.", suffix=".part")
            self._parts[subset] = os.fdopen(fd, "w", encoding="utf-8", newline=""), Path(part)
        return self

    def __exit__(self, *error: object) -> None:
        for file, part in self._parts.values():
            file.close()
            part.unlink(missing_ok=True)

    def write(self, subset: str, row: dict) -> None:
        if not self.has_system:
            row = {key: value for key, value in row.items() if key != "system"}
        self._parts[subset][0].write(dump_line(row))
        self.rows[subset] += 1

    def register(self) -> list[str]:
        """Move the files to their places and name them; returns the entries' names.

        Under a lock, leaving every entry it does not own as it was. While files are being replaced their entries are
        gone, so that no training mixes old and new. An empty set has no entry; sets not asked for this time stay.
        """
        info_path = self.dataset_dir / "dataset_info.json"
        entries = {self._name(s): self._entry(s) for s in self.sets if self.rows[s]}
        own = {self._name(s) for s in self.sets}
        with FileLock(self.dataset_dir / ".dataset_info.lock"):
            before = read_info(info_path)
            after = {n: entries.get(n, entry) for n, entry in before.items() if n in entries or n not in own} | entries
            others = {n: entry for n, entry in before.items() if n not in own}
            if others != before and not all(map(self._same, self.sets)):
                _write_info(info_path, others)
            for subset in self.sets:
                self._move(subset)
            if read_info(info_path) != after:
                _write_info(info_path, after)
        return list(entries)

    def _same(self, subset: str) -> bool:
        file, part = self._parts[subset]
        file.flush()
        there = self._path(subset)
        if not self.rows[subset] or not there.is_file():
            return not self.rows[subset] and not there.is_file()
        return there.stat().st_size == part.stat().st_size and sha256_file(there) == sha256_file(part)

    def _move(self, subset: str) -> None:
        """A file that holds these bytes already keeps its time of change."""
        if self._same(subset):
            return
        file, part = self._parts[subset]
        if not self.rows[subset]:
            self._path(subset).unlink(missing_ok=True)
            return
        os.fsync(file.fileno())
        os.chmod(part, 0o644)
        os.replace(part, self._path(subset))

    def _path(self, subset: str) -> Path:
        return self.dataset_dir / self.folder / f"{subset.lower()}.jsonl"

    def _name(self, subset: str) -> str:
        return f"{self.folder}_{subset.lower()}"

    def _entry(self, subset: str) -> dict:
        entry: dict[str, Any] = {"file_name": f"{self.folder}/{subset.lower()}.jsonl", "columns": dict(_COLUMNS)}
        if self.has_system:
            entry["columns"]["system"] = "system"
        return entry | {"sdrrl": {"subset": subset, "weight": 1.0}} if SETS[subset].is_weighted else entry


def read_info(path: Path) -> dict:
    if not path.exists():
        return {}
    try:
        info = json.loads(read_text(path) or "{}")
    except ValueError as err:
        line = getattr(err, "lineno", 1)
        raise UserError(f"not JSON ({err})", "mend it by hand first", at=f"{path}:{line}") from None
    if not isinstance(info, dict):
        what = f"a {type(info).__name__} instead of an object of data sets"
        raise UserError(what, "mend it by hand first", at=str(path))
    return info


def _write_info(path: Path, info: dict) -> None:
    atomic_write(path, json.dumps(info, ensure_ascii=False, indent=2) + "\n")
