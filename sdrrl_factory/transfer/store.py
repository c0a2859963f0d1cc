"""What a stage leaves on disk: JSONL shards, written atomically, named by fingerprint, reused when nothing changed.

A shard's name carries a hash of the stage, its version, its own settings and the bytes of its input shard. So a killed
run goes on where it stopped, a changed threshold re-runs only what depends on it, and equal inputs give equal bytes.
Memory holds one shard at a time, however many there are.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from sdrrl_factory.files import count_lines, dump_line, sha256, sha256_file, write_jsonl
from sdrrl_factory.rows import read_rows as read_file
from sdrrl_factory.transfer.stage import Batch, Progress, Stage, unseen


class Store:
    """The shards of all stages below one folder."""

    def __init__(self, root: Path):
        self.root = root

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
    ) -> list[Path]:
        """Put each input shard through `stage`; returns the shards that come out, in the same order.

        done: is called with (rows, whether they were there already) after each shard.
        progress: as of `Stage.open`.
        """
        fingerprint = stage.fingerprint()
        outputs = [self._output(stage, fingerprint, source) for source in inputs]
        missing = [i for i, path in enumerate(outputs) if not path.exists()]
        for path in outputs:
            if path.exists():
                done(count_lines(path), True)
        # Where nothing is missing, no model is loaded.
        if missing:
            with stage.open(progress) as tool:
                for i in missing:
                    batch = stage(columns(list(read_rows([inputs[i]]))), tool)
                    if not stage.is_final(batch):
                        # This run goes on with it; the next one does not find it, and makes it anew.
                        outputs[i] = outputs[i].with_suffix(".again.jsonl")
                    write_jsonl(outputs[i], rows_of(batch))
                    done(len(batch["id"]), False)
        return outputs

    def _output(self, stage: Stage, fingerprint: str, source: Path) -> Path:
        key = f"{fingerprint} {sha256_file(source)}"
        return self.root / stage.name / f"{source.stem.split('-')[0]}-{sha256(key)[:16]}.jsonl"


def read_rows(shards: Iterable[Path]) -> Iterator[dict]:
    """The rows of `shards`, one shard in memory at a time."""
    for shard in shards:
        for row in read_file(shard):
            yield row.values


def columns(rows: list[dict]) -> Batch:
    """Rows to columns; all rows have the same keys."""
    return {key: [row[key] for row in rows] for key in rows[0]} if rows else {"id": []}


def rows_of(batch: Batch) -> list[dict]:
    """Columns to rows."""
    keys = list(batch)
    return [dict(zip(keys, values, strict=True)) for values in zip(*batch.values(), strict=True)]
