"""`sdrrl sets`: the data sets of ours that dataset_info.json names, and `sdrrl sets rm`, which forgets them."""

import difflib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import count_lines, looked_in, refuse_foreign
from sdrrl_factory.transfer.register import (
    CARD_MARK,
    entry_name,
    file_name,
    is_own,
    lock,
    read_info,
    set_mark,
    write_info,
)
from sdrrl_factory.transfer.sets import SETS


@dataclass(frozen=True)
class Registered:
    """A set of ours that is named in dataset_info.json, or lies where one was.

    name: of its entry. folder, subset: <name>_<target>, and the set's name in sets.py. recipe: what it came from, ""
    where the entry does not say.
    """

    name: str
    folder: str
    subset: str
    path: Path
    recipe: str


def registered(dataset_dir: Path) -> list[Registered]:
    """Our sets in the order of dataset_info.json; other entries are passed over."""
    found = []
    for name, entry in read_info(dataset_dir / "dataset_info.json").items():
        subset = next((s for s in SETS if name.endswith(f"_{s.lower()}")), "")
        folder = name.removesuffix(f"_{subset.lower()}")
        if subset and is_plain(folder) and is_own(entry, folder, subset):
            path = dataset_dir / file_name(folder, subset)
            found.append(Registered(name, folder, subset, path, str(entry.get("recipe") or "")))
    return found


def is_plain(folder: str) -> bool:
    """Whether it is the name of a folder right below another."""
    return folder not in ("", ".", "..") and Path(folder).name == folder


def print_sets(dataset_dir: Path) -> None:
    """A line a set: name, rows, when its file was written, the recipe it came from."""
    sets = registered(dataset_dir)
    if not sets:
        here = looked_in(dataset_dir)
        print(f"no data sets of `sdrrl prepare` in {dataset_dir / 'dataset_info.json'}{here}")
        return
    width = max(len(row.name) for row in sets)
    for row in sets:
        if row.path.is_file():
            when = datetime.fromtimestamp(row.path.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
            state = f"{count_lines(row.path):>8} rows  {when}"
        else:
            state = f"no file {row.path}"
        print(f"{row.name:{width}}  {state}  {row.recipe}".rstrip())


def remove(dataset_dir: Path, name: str) -> list[str]:
    """Forget a set, or all sets of a folder: first the entries, all at once, then the files.

    So no training finds an entry without its file; what a kill leaves of the files, the same command removes. Nothing
    that `sdrrl prepare` did not write is touched.

    Returns: what was removed, the entries first.

    Raises: UserError where no set or folder has the name, or a file that another program wrote stands in its place.
    """
    info_path = dataset_dir / "dataset_info.json"
    if not dataset_dir.is_dir():
        raise UserError(f"no such folder{looked_in(dataset_dir)}", "name it with --dataset_dir", at=str(dataset_dir))
    with lock(dataset_dir):
        # 1. What is meant by the name.
        sets = registered(dataset_dir)
        sets += _without_entry(dataset_dir, name, {row.name for row in sets})
        chosen = [row for row in sets if name in (row.name, row.folder)]
        if not chosen:
            near = difflib.get_close_matches(name, {n for row in sets for n in (row.name, row.folder)}, n=1)
            hint = f"did you mean {near[0]}?" if near else "`sdrrl sets` lists them"
            raise UserError(f"no data set of `sdrrl prepare` in {info_path}{looked_in(info_path)}", hint, at=name)
        folder = dataset_dir / chosen[0].folder
        # The card goes with the last set of its folder.
        files = {row.path: set_mark(row.subset) for row in chosen}
        if not any(row.folder == chosen[0].folder for row in sets if row not in chosen):
            files[folder / "README.md"] = CARD_MARK
        for path, mark in files.items():
            refuse_foreign(path, mark)
        # 2. The entries, then the files.
        info = read_info(info_path)
        removed = [row.name for row in chosen if info.pop(row.name, None) is not None]
        if removed:
            write_info(info_path, info)
        for path in files:
            if os.path.lexists(path):
                path.unlink()
                removed.append(str(path))
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
            removed.append(f"{folder}/")
    return removed


def _without_entry(dataset_dir: Path, name: str, named: set[str]) -> Iterator[Registered]:
    """The sets that are meant by `name`, a set's or a folder's, and lie there without an entry."""
    for subset in SETS:
        for folder in {name, name.removesuffix(f"_{subset.lower()}")}:
            row = Registered(entry_name(folder, subset), folder, subset, dataset_dir / file_name(folder, subset), "")
            if is_plain(folder) and row.name not in named and row.path.is_file():
                with suppress(UserError):
                    refuse_foreign(row.path, set_mark(subset))
                    yield row
