"""What a stage leaves on disk: JSONL shards, written atomically, named by fingerprint, reused when nothing changed.

A shard's name carries a hash of the stage, its version, its own settings and the bytes of its input shard. So a killed
run goes on where it stopped, a changed threshold re-runs only what depends on it, and equal inputs give equal bytes,
whoever makes them. Memory holds one shard at a time, however many there are.
"""

import json
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from sdrrl_factory.engine import Engine, Local, Pool
from sdrrl_factory.files import count_lines, dump_line, sha256, sha256_file, write_jsonl
from sdrrl_factory.rows import read_rows as read_file
from sdrrl_factory.transfer.stage import Batch, Hop, Progress, Stage, unseen

# Segments a unit: some twenty seconds of a 3.3B translator on a GPU, which is what a kill can cost, and what may pass
# while other workers have nothing left.
UNIT = 1024
_UNSEEN = 90.0  # seconds


class Store:
    """The shards of all stages below one folder; `rejected` counts the records left out of them, by reason."""

    def __init__(self, root: Path):
        self.root = root
        self.rejected: Counter[str] = Counter()

    def write_shards(self, rows: Iterable[dict], size: int) -> list[Path]:
        """Lay `rows` down in shards of `size`; what is there already stays."""
        paths: list[Path] = []
        rows = iter(rows)
        while shard := list(islice(rows, size)):
            text = "".join(map(dump_line, shard))
            path = self.root / "read" / f"{len(paths):05d}-{sha256(text)[:16]}.jsonl"
            if not path.exists():
                write_jsonl(path, shard)
            paths.append(path)
        return paths

    def run(
        self,
        stage: Stage,
        inputs: list[Path],
        done: Callable[[int, bool], None],
        progress: Progress = unseen,
        engine: Engine | None = None,
        opened: Callable[[Pool], None] = lambda pool: None,
        answered: Callable[[int, int], None] = lambda units, total: None,
    ) -> list[Path]:
        """Put each input shard through `stage`; returns the shards that come out, in the same order.

        done: is called with (rows, whether they were there already) after each shard.
        progress: as of `Stage.open`.
        engine: who does the work; None: this process.
        opened: is called with the workers, when there are any.
        answered: is called with (units of a translator's segments that are done, of how many).
        """
        fingerprint = stage.fingerprint()
        outputs = [self._output(stage, fingerprint, source) for source in inputs]
        missing = [i for i, path in enumerate(outputs) if not path.exists()]
        for path in outputs:
            if path.exists():
                done(count_lines(path), True)
        # Where nothing is missing, no model is loaded.
        if not missing:
            return outputs
        with (engine or Local()).pool(_Opening(stage), stage.need(), progress) as pool:
            opened(pool)
            # A shard whose sentences are not all translated yet gives its questions instead, and is tried again when
            # they are answered: after the second hop of a pivot, after the parts around what gets lost.
            while missing:
                shards = [_Shard(inputs[i], outputs[i]) for i in missing]
                with self._questions(stage) as questions:
                    left = []
                    for k, outcome in pool.map(shards):
                        if outcome.questions:
                            questions.add(outcome.questions)
                            left.append(missing[k])
                        elif outcome.path:
                            _await(outcome.path)
                            outputs[missing[k]] = outcome.path
                            self.rejected += outcome.rejected
                            done(outcome.rows, False)
                    units = questions.units()
                    for n, _ in enumerate(pool.map(units), 1):
                        answered(n, len(units))
                # Results come as the workers end.
                missing = sorted(left)
        return outputs

    @contextmanager
    def _questions(self, stage: Stage) -> Iterator["_Questions"]:
        folder = self.root / stage.name / ".questions"
        with closing(_Questions(folder)) as questions:
            try:
                yield questions
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _output(self, stage: Stage, fingerprint: str, source: Path) -> Path:
        key = f"{fingerprint} {sha256_file(source)}"
        return self.root / stage.name / f"{source.stem.split('-')[0]}-{sha256(key)[:16]}.jsonl"


@dataclass(frozen=True)
class _Opening:
    """The pool's opener: the stage and its tool, sent to each worker once, as the stage may hold a dictionary."""

    stage: Stage

    @contextmanager
    def __call__(self, progress: Progress) -> Iterator[tuple[Stage, Any]]:
        with self.stage.open(progress) as tool:
            yield self.stage, tool


@dataclass(frozen=True)
class Outcome:
    """What became of a shard: `path`, or `questions` to be answered before; of a unit, neither."""

    rows: int = 0
    path: Path | None = None
    questions: Path | None = None
    rejected: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Shard:
    """Rows `start` to `stop` of the shard at `source`, to be put through the stage; a part of it has its own file.

    reason: why its one record is left out; "": it is not.
    """

    source: Path
    output: Path
    start: int = 0
    stop: int | None = None
    reason: str = ""

    def work(self, opened: tuple[Stage, Any]) -> Outcome:
        stage, tool = opened
        rows = list(islice(read_rows([self.source]), self.start, self.stop))
        if self.reason or not rows:
            # The next run tries again: what killed the worker may have been the machine.
            again = self.output.with_suffix(".again.jsonl")
            write_jsonl(again, [])
            why = f"{stage.name}: {self.reason}"
            return Outcome(0, again, rejected=Counter([why] * len(rows)))
        batch = columns(rows)
        asked = [(hop, text) for hop, texts in stage.segments(batch, tool).items() for text in texts]
        if asked:
            path = self.output.parent / ".questions" / f"{self.output.stem}.jsonl"
            write_jsonl(path, [{"hop": hop, "text": text} for hop, text in asked])
            return Outcome(0, questions=path)
        out = stage(batch, tool)
        # This run goes on with what is not final; the next one does not find it, and makes it anew.
        path = self.output if stage.is_final(out) else self.output.with_suffix(".again.jsonl")
        write_jsonl(path, rows_of(out))
        return Outcome(len(rows), path)

    def halves(self) -> list["_Shard"]:
        stop = count_lines(self.source) if self.stop is None else self.stop
        middle = (self.start + stop) // 2
        if middle == self.start:
            return []
        parts = [(self.start, middle), (middle, stop)]
        stem = self.output.name.split(".")[0]
        return [
            replace(self, output=self.output.with_name(f"{stem}.{start}-{end}.jsonl"), start=start, stop=end)
            for start, end in parts
        ]

    def joined(self, results: list[Outcome]) -> Outcome:
        asked = [result.questions for result in results if result.questions]
        if asked:
            path = self.output.parent / ".questions" / f"{self.output.stem}.joined.jsonl"
            write_jsonl(path, [row for part in asked for row in _lines(part)])
            return Outcome(0, questions=path)
        parts = [result.path for result in results if result.path]
        is_final = not any(path.name.endswith(".again.jsonl") for path in parts)
        path = self.output if is_final else self.output.with_suffix(".again.jsonl")
        write_jsonl(path, list(read_rows(parts)))
        for part in parts:
            part.unlink()
        rejected = sum((result.rejected for result in results), Counter[str]())
        return Outcome(sum(result.rows for result in results), path, rejected=rejected)

    def rejected(self, reason: str) -> "_Shard":
        return replace(self, reason=reason)


@dataclass(frozen=True)
class _Unit:
    """Lines `start` to `stop` of a file of segments alike in length, of one hop."""

    source: Path
    hop: Hop
    start: int
    stop: int
    reason: str = ""

    def work(self, opened: tuple[Stage, Any]) -> Outcome:
        stage, tool = opened
        segments = [row["text"] for row in islice(_lines(self.source), self.start, self.stop)]
        stage.answer(segments, self.hop, tool, self.reason)
        return Outcome()

    def halves(self) -> list["_Unit"]:
        middle = (self.start + self.stop) // 2
        if middle == self.start:
            return []
        return [replace(self, stop=middle), replace(self, start=middle)]

    def joined(self, results: list[Outcome]) -> Outcome:
        return Outcome()

    def rejected(self, reason: str) -> "_Unit":
        return replace(self, reason=reason)


class _Questions:
    """The distinct segments that the shards of a corpus ask, on disk: SQLite's unnamed database spills by itself."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._db = sqlite3.connect("")
        # By length and then by text, which is the order of the units.
        fields = "source TEXT, target TEXT, length INTEGER, text TEXT"
        order = "PRIMARY KEY (source, target, length DESC, text)"
        self._db.execute(f"CREATE TABLE asked ({fields}, {order}) WITHOUT ROWID")

    def add(self, path: Path) -> None:
        rows = ((*row["hop"], len(row["text"]), row["text"]) for row in _lines(path))
        self._db.executemany("INSERT OR IGNORE INTO asked VALUES (?, ?, ?, ?)", rows)

    def units(self) -> Sequence[_Unit]:
        """The segments of each direction, the longest first, cut into units.

        Each unit has the same number of segments, so that a run that goes on after a kill, with some units answered,
        cuts the others as they were: not even a rounding of the translator's sums differs.
        """
        units: list[_Unit] = []
        for hop in self._db.execute("SELECT DISTINCT source, target FROM asked").fetchall():
            query = "SELECT text FROM asked WHERE source=? AND target=? ORDER BY length DESC, text"
            rows = self._db.execute(query, hop)
            while segments := rows.fetchmany(UNIT):
                path = self._folder / f"unit-{len(units):05d}.jsonl"
                write_jsonl(path, [{"text": text} for (text,) in segments])
                units.append(_Unit(path, hop, 0, len(segments)))
        return units

    def close(self) -> None:
        self._db.close()


def _await(path: Path) -> None:
    """Until a file that another machine has written is seen here.

    A network file system may remember for half a minute that it was not there (NFS: acdirmin, 30 s), and it was looked
    for before the stage began.
    """
    end = time.monotonic() + _UNSEEN
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.2)


def read_rows(shards: Iterable[Path]) -> Iterator[dict]:
    """The rows of `shards`, one shard in memory at a time."""
    for shard in shards:
        for row in read_file(shard):
            yield row.values


def _lines(path: Path) -> Iterator[dict]:
    """The rows of a file of ours, to the letter: segments are keys."""
    with path.open(encoding="utf-8", newline="\n") as f:
        yield from map(json.loads, f)


def columns(rows: list[dict]) -> Batch:
    """Rows to columns; all rows have the same keys."""
    return {key: [row[key] for row in rows] for key in rows[0]} if rows else {"id": []}


def rows_of(batch: Batch) -> list[dict]:
    """Columns to rows."""
    keys = list(batch)
    return [dict(zip(keys, values, strict=True)) for values in zip(*batch.values(), strict=True)]
