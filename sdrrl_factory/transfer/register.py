"""Data sets and their entries in LLaMA-Factory's dataset_info.json."""

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import (
    atomic_write,
    count_lines,
    dump_line,
    move,
    read_text,
    real_path,
    refuse_foreign,
    sha256_file,
)
from sdrrl_factory.log import warn
from sdrrl_factory.transfer.sets import SETS, sets_of

# What the card of the sets has in its first line of text, which tells it from a README of others.
CARD_MARK = "`sdrrl prepare`"
_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output"}


class DataSets:
    """Writes `<name>_<target>/<set>.jsonl` row by row, and on `register` puts all in place at once.

    Until then nothing a training could read has changed; a `with` block left early leaves no trace.

    Args:
        has_system: whether some row has a system prompt, so that the sets have that column.
        overwrite: whether sets may take the place of registered ones that have more rows.
        recipe: of which the entries say that they come from it; "" says nothing.
    """

    def __init__(
        self,
        dataset_dir: Path,
        name: str,
        target: str,
        systems: list[str],
        has_system: bool,
        overwrite: bool = False,
        recipe: str = "",
    ):
        self.dataset_dir, self.folder, self.has_system = dataset_dir, f"{name}_{target}", has_system
        self.overwrite, self.recipe = overwrite, recipe
        self.sets = [row.name for row in sets_of(systems)]
        self.rows = dict.fromkeys(self.sets, 0)
        refuse_others(dataset_dir, self.folder, systems)
        (dataset_dir / self.folder).mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "DataSets":
        self._parts = {}
        for subset in self.sets:
            # Beside its place, so that the move is a rename; where that is a link, beside the file it leads to.
            place = real_path(self._path(subset))
            fd, part = tempfile.mkstemp(dir=place.parent, prefix=f".{subset}.", suffix=".part")
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

        Raises: UserError where a registered set would lose rows; then nothing has changed.
        """
        info_path = self.dataset_dir / "dataset_info.json"
        entries = {entry_name(self.folder, s): self._entry(s) for s in self.sets if self.rows[s]}
        own = {entry_name(self.folder, s) for s in self.sets}
        with lock(self.dataset_dir):
            before = read_info(info_path)
            registered = rows_registered(self.dataset_dir, self.folder, self.sets)
            if not self.overwrite:
                refuse_fewer(self.folder, registered, self.rows)
            replaced = {s: rows for s, rows in registered.items() if not self._same(s)}
            after = {n: entries.get(n, entry) for n, entry in before.items() if n in entries or n not in own} | entries
            others = {n: entry for n, entry in before.items() if n not in own}
            if others != before and not all(map(self._same, self.sets)):
                write_info(info_path, others)
            for subset in self.sets:
                self._move(subset)
            if read_info(info_path) != after:
                write_info(info_path, after)
        if replaced:
            counts = ", ".join(f"{s.lower()} {rows} -> {self.rows[s]} rows" for s, rows in replaced.items())
            warn(f"replaced  {self.folder}: {counts}")
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
        move(part, real_path(self._path(subset)))

    def _path(self, subset: str) -> Path:
        return self.dataset_dir / file_name(self.folder, subset)

    def _entry(self, subset: str) -> dict:
        entry: dict[str, Any] = {"file_name": file_name(self.folder, subset), "columns": dict(_COLUMNS)}
        if self.has_system:
            entry["columns"]["system"] = "system"
        if self.recipe:
            entry["recipe"] = self.recipe
        return entry | {"sdrrl": {"subset": subset, "weight": 1.0}} if SETS[subset].is_weighted else entry


def entry_name(folder: str, subset: str) -> str:
    """The name in dataset_info.json of a set of `folder`, which is <name>_<target>."""
    return f"{folder}_{subset.lower()}"


def file_name(folder: str, subset: str) -> str:
    """Where a set of `folder` lies in dataset_dir, as its entry says."""
    return f"{folder}/{subset.lower()}.jsonl"


def is_own(entry: Any, folder: str, subset: str) -> bool:
    """Whether an entry of dataset_info.json is one that `register` writes for the set."""
    return isinstance(entry, dict) and entry.get("file_name") == file_name(folder, subset)


def set_mark(subset: str) -> str:
    """What every row of a set has near its beginning: that tells its file from those of others."""
    return f'"subset": "{subset}"'


def refuse_others(dataset_dir: Path, folder: str, systems: Iterable[str]) -> None:
    """Say before any work that files or entries of others stand where a target language's sets go.

    Raises: UserError at the file, or about the recipe's `name`.
    """
    info_path = dataset_dir / "dataset_info.json"
    info = read_info(info_path)
    for row in sets_of(systems):
        name = entry_name(folder, row.name)
        if name not in info:
            # A run that was interrupted while it replaced the files leaves them so.
            refuse_foreign(dataset_dir / file_name(folder, row.name), set_mark(row.name))
        elif not is_own(info[name], folder, row.name):
            what = f"{name} stands for another data set in {info_path}"
            raise UserError(what, "choose another name", key="name")
    refuse_foreign(dataset_dir / folder / "README.md", CARD_MARK)


def rows_registered(dataset_dir: Path, folder: str, subsets: Iterable[str]) -> dict[str, int]:
    """Set -> its rows, of those sets of `folder` that are registered and there."""
    info = read_info(dataset_dir / "dataset_info.json")
    rows = {}
    for subset in subsets:
        path = dataset_dir / file_name(folder, subset)
        if is_own(info.get(entry_name(folder, subset)), folder, subset) and path.is_file():
            rows[subset] = count_lines(path)
    return rows


def refuse_fewer(folder: str, registered: dict[str, int], rows: dict[str, int], at_most: str = "") -> None:
    """Say that registered sets would be replaced by smaller ones.

    rows: that each set gets; at_most: "at most " where they are not counted yet.

    Raises: UserError about the recipe's `overwrite`, with both counts of each set.
    """
    fewer = [
        f"{subset.lower()} {before} -> {at_most}{rows[subset]}"
        for subset, before in registered.items()
        if rows.get(subset, before) < before
    ]
    if fewer:
        what = f"{folder} is registered with more rows ({', '.join(fewer)})"
        raise UserError(what, "set another name, or overwrite: true", key="overwrite")


def lock(dataset_dir: Path) -> FileLock:
    """Held while dataset_info.json changes; beside the file itself, which several folders may link to."""
    return FileLock(real_path(dataset_dir / "dataset_info.json").with_name(".dataset_info.lock"))


def read_info(path: Path) -> dict:
    if not path.exists():
        return {}
    try:
        info = json.loads(read_text(path) or "{}")
    except (ValueError, RecursionError) as err:
        line = getattr(err, "lineno", 1)
        raise UserError(f"not JSON ({err})", "mend it by hand first", at=f"{path}:{line}") from None
    if not isinstance(info, dict):
        what = f"a {type(info).__name__} instead of an object of data sets"
        raise UserError(what, "mend it by hand first", at=str(path))
    return info


def write_info(path: Path, info: dict) -> None:
    atomic_write(path, json.dumps(info, ensure_ascii=False, indent=2) + "\n")
