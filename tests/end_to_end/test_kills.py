"""SIGKILL at any moment of `sdrrl prepare`: what is registered is whole, the run that goes on ends with the same bytes.

Half of the kills come at a random time, half at a random operation on a file, before it is done: files are replaced
within microseconds of each other, which no clock would hit.
"""

import json
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.end_to_end.conftest import SUBSETS, files, needs_programs, prepare_command

pytestmark = [pytest.mark.slow, needs_programs]


class Runs:
    """Runs of `sdrrl`, each a fork of one process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.end_to_end.forks"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, arguments: list[str], **moment: float) -> dict:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"arguments": arguments, **moment}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    with closing(Runs()) as runs:
        yield runs


def arguments(tiny: Path, folder: Path) -> list[str]:
    return prepare_command(tiny, folder, "max_samples=6", "shard_size=2", "parallel.size=4")[1:]


@pytest.mark.parametrize("kills", [30, pytest.param(1000, marks=pytest.mark.exhaustive)])
def test_kills_at_random_moments(kills, runs, tiny, tmp_path):
    whole = tmp_path / "whole"
    (whole / "data").mkdir(parents=True)
    undisturbed = runs(arguments(tiny, whole))
    assert undisturbed["status"] == 0
    expected = files(whole)
    seconds, operations = undisturbed["seconds"], undisturbed["operations"]
    assert operations > 100

    folder, moments = tmp_path / "killed", random.Random(kills)
    done = lives = 0
    killed_at = []
    while done < kills:
        (folder / "data").mkdir(parents=True, exist_ok=True)
        if moments.random() < 0.5:
            moment = {"operation": moments.randrange(1, operations)}
        else:
            moment = {"seconds": moments.uniform(0, seconds)}
        end = runs(arguments(tiny, folder), **moment)
        assert end["status"] in (0, -9), (moment, end)
        check_what_is_registered(folder, expected)
        if end["status"] == -9:
            done += 1
            killed_at.append(moment)
            # Most lives see several kills; some are let come to their end.
            if moments.random() < 0.8:
                continue
            assert runs(arguments(tiny, folder))["status"] == 0, killed_at
        assert files(folder) == expected, killed_at
        check_memory(folder)
        assert not [
            path for path in folder.rglob("*") if path.name == "dataset_info.json" and path.parent.name != "data"
        ]
        # A new life, from nothing, or from what is registered already.
        lives += 1
        killed_at.clear()
        shutil.rmtree(folder / "work")
        if lives % 2:
            shutil.rmtree(folder)
    assert lives > kills / 30


def check_what_is_registered(folder: Path, expected: dict[str, bytes]) -> None:
    """An entry is there only with the whole of its file."""
    info = folder / "data/dataset_info.json"
    if not info.exists():
        return
    entries = json.loads(info.read_text())
    assert set(entries) <= {f"demo_spa_{subset}" for subset in SUBSETS}
    for entry in entries.values():
        path = folder / "data" / entry["file_name"]
        assert path.read_bytes() == expected[path.name], path


def check_memory(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "memory.sqlite")) as memory:
        assert memory.execute("PRAGMA integrity_check").fetchone() == ("ok",)
