"""What a stage leaves on disk: JSONL shards, written atomically, named by fingerprint, reused when nothing changed.

A shard's name carries a hash of the stage, its version, its own settings and the bytes of its input shard. So a killed
run goes on where it stopped, a changed threshold re-runs only what depends on it, and equal inputs give equal bytes.
Memory holds one shard at a time, however many there are.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sdrrl_factory import rows
from sdrrl_factory.files import dump_line, sha256, sha256_file, write_jsonl

Batch = dict[str, list]


@dataclass(frozen=True)
class Stage:
    """`function` maps a batch of columns to a batch of columns and depends on nothing but `settings` and the batch."""

    name: str
    function: Callable[[Batch], Batch]
    settings: dict[str, Any]
    version: int = 1


class Store:
    def __init__(self, root: Path):
        self.root = root

    def write_shards(self, rows: Iterable[dict], size: int, name: str = "read") -> list[Path]:
        """Lay `rows` down in shards of `size`; what is there already stays."""
        paths, rows = [], iter(rows)
        while shard := list(islice(rows, size)):
            text = "".join(map(dump_line, shard))
            path = self.root / name / f"{len(paths):05d}-{sha256(text)[:16]}.jsonl"
            if not path.exists():
                write_jsonl(path, shard)
            paths.append(path)
        return paths

    def run(self, stage: Stage, inputs: list[Path], done: Callable[[int, bool], None]) -> list[Path]:
        """Put each input shard through `stage`; `done(rows, reused)` is called after each."""
        paths = []
        for source in inputs:
            key = json.dumps([stage.name, stage.version, stage.settings, sha256_file(source)], sort_keys=True)
            path = self.root / stage.name / f"{source.stem.split('-')[0]}-{sha256(key)[:16]}.jsonl"
            reused = path.exists()
            if reused:
                rows = _lines(path)
            else:
                out = stage.function(columns(list(read_rows([source]))))
                rows = len(out["id"])
                write_jsonl(path, rows_of(out))
            done(rows, reused)
            paths.append(path)
        return paths


def read_rows(shards: Iterable[Path]) -> Iterator[dict]:
    """The rows of `shards`, one shard in memory at a time."""
    for shard in shards:
        for row in rows.read_rows(shard):
            yield row.values


def columns(rows: list[dict]) -> Batch:
    """Rows to columns; all rows have the same keys."""
    return {key: [row[key] for row in rows] for key in rows[0]} if rows else {"id": []}


def rows_of(batch: Batch) -> list[dict]:
    """Columns to rows."""
    keys = list(batch)
    return [dict(zip(keys, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def _lines(path: Path) -> int:
    with open(path, "rb") as f:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: f.read(1 << 20), b""))
