"""The one reader of rows, one at a time: out of files (JSON, JSONL, CSV, TSV, Parquet; gzip known by its first bytes),
out of a hub; and of lines out of plain text. Texts come composed (NFC), whatever the file has.

Instructions, corpora, benchmarks, predictions and shards all come in here. What is wrong with a file is a `UserError`
that names the file and the line or row. By hand, for no library reads a list of objects of any length one at a time,
says the line of a mistake in it, and stops before a file that is no such list is in memory whole.
"""

import codecs
import csv
import gzip
import io
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import naming_errors
from sdrrl_factory.text import normal

KINDS = {".json": "JSON", ".jsonl": "JSONL", ".csv": "CSV", ".tsv": "TSV", ".parquet": "Parquet"}
SUFFIXES = (*KINDS, ".json.gz", ".jsonl.gz", ".csv.gz", ".tsv.gz")
ROW_LIMIT = 1 << 26  # bytes of one row: a file that is no such format is not read whole to find that out
_CHUNK = 1 << 16
_PARQUET_BATCH = 256  # rows in memory at a time


class Row(NamedTuple):
    """One row of a file or a hub's data set.

    at: where it stands, as "file:line" or "file: row 3". number: its line; of a JSON list, of Parquet and of a hub,
    which row it is; both from 1. values: its columns.
    """

    at: str
    number: int
    values: dict[str, Any]


def suffix(path: str) -> str:
    """The suffix that tells the format: of "a.jsonl.gz" it is ".jsonl"."""
    return Path(path.removesuffix(".gz")).suffix


def read_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a file: Parquet, CSV and TSV are known by their suffix; anything else is JSON, as a list or by lines.

    Blank lines are passed over. Raises UserError at the file and line for what is no such row.
    """
    for row in read_rows_and_mistakes(path):
        if isinstance(row, UserError):
            raise row
        yield row


def read_rows_and_mistakes(path: str | Path) -> Iterator[Row | UserError]:
    """As `read_rows`; a mistake that ends with its row stands in the row's place, those of a whole file are raised."""
    for row in _as_written(str(path)):
        yield row if isinstance(row, UserError) else row._replace(values=_composed(row.values))


def _composed(value: Any) -> Any:
    """A value with all its texts in NFC; the names of columns stay."""
    if isinstance(value, str):
        return normal(value)
    if isinstance(value, list):
        return [_composed(item) for item in value]
    return {key: _composed(item) for key, item in value.items()} if isinstance(value, dict) else value


def _as_written(path: str) -> Iterator[Row | UserError]:
    if suffix(path) == ".parquet":
        yield from _read_parquet(path)
        return
    with open_bytes(path) as f:
        head = _skip_mark(f, path)
        if suffix(path) in (".csv", ".tsv"):
            yield from _read_csv(f, path, "," if suffix(path) == ".csv" else "\t")
        # JSONL called .json, and the other way round, are common on hubs: the first character decides.
        elif head.lstrip()[:1] == b"[":
            yield from _read_list(f, path)
        else:
            yield from _read_objects(f, path)


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of a plain text, the file's own markup included."""
    path = str(path)
    with open_bytes(path) as f:
        _skip_mark(f, path, may_be_markup=True)
        for number, line in _lines(f, path):
            yield number, normal(line.rstrip("\r\n"))


def read_hub(path: str, subset: str | None, split: str) -> Iterator[Row]:
    """Rows of a hub's data set, or of a local folder of data files; memory-mapped from the cache.

    Raises UserError without a key: the caller knows which key of its recipe named the data set.
    """
    import datasets

    name = f"{path} {subset}" if subset else path
    try:
        # datasets before 4 run a data set's own code unless told not to.
        rows = datasets.load_dataset(path, subset, split=split, trust_remote_code=False)
    except Exception as err:  # whatever the hub's client, a format's reader or the network raises
        why = first_line(err)
        if datasets.config.HF_HUB_OFFLINE and not os.path.isdir(path):
            why = f"HF_HUB_OFFLINE is set; {why}"
        hint = "check the network, the id, subset and split, or name a file"
        raise UserError(f"{name} cannot be loaded ({why})", hint) from None
    number = 0
    # By batches: `datasets` decodes one row alone some ten times as slowly.
    for batch in rows.iter(batch_size=_PARQUET_BATCH):
        for values in zip(*batch.values(), strict=True):
            number += 1
            yield Row(f"{path}: row {number}", number, _composed(dict(zip(batch, values, strict=True))))


def is_held_out(row: dict[str, Any]) -> bool:
    """Whether the row says `held_out`; a CSV says it as text."""
    value = row.get("held_out")
    return value.strip().lower() not in ("", "0", "no", "false") if isinstance(value, str) else bool(value)


# --- bytes and lines


@contextmanager
def open_bytes(path: str | Path) -> Iterator[io.BufferedReader]:
    """The file's bytes; gzip is known by its first two, whatever the name says."""
    with naming_errors(path), open(path, "rb") as f:
        if f.peek(2)[:2] != b"\x1f\x8b":
            yield f
            return
        try:
            yield io.BufferedReader(gzip.GzipFile(fileobj=f))
        except (EOFError, zlib.error, gzip.BadGzipFile) as err:
            raise UserError(f"broken gzip ({first_line(err)})", "fetch the file again", at=str(path)) from None


def _skip_mark(f: io.BufferedReader, path: str, may_be_markup: bool = False) -> bytes:
    """Read past a byte order mark; returns the first bytes. What is plainly no UTF-8 text of rows stops here."""
    head = f.peek(_CHUNK)
    if head.startswith(codecs.BOM_UTF8):
        f.read(len(codecs.BOM_UTF8))
        head = head[len(codecs.BOM_UTF8) :]
    start = head.lstrip()[:64].lower()
    # Two NULs in a row of ASCII are UTF-16 without its mark, in either order.
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in head[:2]:
        raise UserError("UTF-16 or binary", "convert it with iconv -f UTF-16 -t UTF-8", at=path)
    if not may_be_markup and start.startswith((b"<!", b"<html", b"<?xml")):
        raise UserError("a web page instead of rows", "download the file itself", at=path)
    if start.startswith(b"version https://git-lfs"):
        raise UserError("a Git LFS pointer instead of the file", "run `git lfs pull`", at=path)
    return head


def _lines(f: io.BufferedReader, path: str) -> Iterator[tuple[int, str]]:
    # Only "\n" ends a line: JSON strings may hold U+2028 and its like.
    number = 0
    while raw := f.readline(ROW_LIMIT + 1):
        number += 1
        if len(raw) > ROW_LIMIT:
            what = f"a line of more than {ROW_LIMIT >> 20} MiB"
            raise UserError(what, "write one row a line", at=f"{path}:{number}")
        try:
            yield number, raw.decode("utf-8")
        except UnicodeDecodeError as err:
            what = f"not UTF-8 (byte {err.start} of the line)"
            raise UserError(what, "convert it with iconv -t UTF-8", at=f"{path}:{number}") from None


# --- JSON


def _read_objects(f: io.BufferedReader, path: str) -> Iterator[Row | UserError]:
    """JSONL: an object a line."""
    for number, line in _lines(f, path):
        if not line.strip():
            continue
        at = f"{path}:{number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as err:
            if number == 1 and line.strip() == "{" and suffix(path) == ".json":
                fix = "write [...] or one object a line"
                raise UserError("a JSON object instead of a list", fix, at=path) from None
            yield UserError(f"not JSON ({first_line(err)})", "mend or remove the line", at=at)
            continue
        if isinstance(values, dict):
            yield Row(at, number, values)
        else:
            what = f"{type_name(values)} instead of an object {{...}}"
            yield UserError(what, "mend the line", at=at)


def _read_list(f: io.BufferedReader, path: str) -> Iterator[Row | UserError]:
    """A JSON list's objects, without holding the list."""
    text = _Window(f, path)
    text.expect("[")
    number = 0
    while text.peek() != "]":
        if number:
            text.expect(",")
        number += 1
        at = f"{path}: row {number}"
        values = text.value()
        if isinstance(values, dict):
            yield Row(at, number, values)
        else:
            what = f"{type_name(values)} instead of an object"
            yield UserError(what, "mend the row", at=at)
    text.expect("]")
    if text.peek():
        raise text.mistake("more text after the list's end", text.position)


class _Window:
    """JSON read from a window that slides over the file; `position` is the place in it."""

    def __init__(self, f: io.BufferedReader, path: str):
        self._f, self._path = f, path
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._json = json.JSONDecoder()
        self._text, self._line, self._bytes, self._ended = "", 1, 0, False
        self.position = 0

    def peek(self) -> str:
        """The next character that is not blank; "" at the end."""
        while True:
            while self.position < len(self._text):
                if self._text[self.position] not in " \t\n\r":
                    return self._text[self.position]
                self.position += 1
            if not self._more(_CHUNK):
                return ""

    def expect(self, mark: str) -> None:
        if self.peek() != mark:
            raise self.mistake(f"{mark!r} expected", self.position)
        self.position += 1

    def value(self) -> object:
        """The next JSON value."""
        self.peek()
        while True:
            try:
                value, self.position = self._json.raw_decode(self._text, self.position)
                return value
            except json.JSONDecodeError as err:
                # A value cut off by the window's end fails near it, or as a string without an end.
                is_cut_off = err.msg.startswith("Unterminated string") or err.pos >= len(self._text) - 16
                size = len(self._text) - self.position
                if size > ROW_LIMIT:
                    raise self.mistake(f"a row of more than {ROW_LIMIT >> 20} MiB", self.position) from None
                # Twice as much each time: a long row is parsed a few times, not once a chunk.
                if not (is_cut_off and self._more(max(_CHUNK, size))):
                    raise self.mistake(err.msg, err.pos) from None
            except (ValueError, RecursionError) as err:
                raise self.mistake(first_line(err), self.position) from None

    def mistake(self, why: str, position: int) -> UserError:
        line = self._line + self._text.count("\n", 0, position)
        return UserError(f"not JSON ({why})", "mend the file", at=f"{self._path}:{line}")

    def _more(self, size: int) -> bool:
        """Drop what is read and take `size` bytes more; False at the file's end."""
        if self._ended:
            return False
        raw = self._f.read(size)
        self._ended = not raw
        undecoded = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(raw, final=self._ended)
        except UnicodeDecodeError as err:
            byte = self._bytes - undecoded + err.start
            raise UserError(f"not UTF-8 (byte {byte})", "convert it with iconv -t UTF-8", at=self._path) from None
        self._bytes += len(raw)
        self._line += self._text.count("\n", 0, self.position)
        self._text, self.position = self._text[self.position :] + text, 0
        return not self._ended


# --- tables


def _read_csv(f: io.BufferedReader, path: str, delimiter: str) -> Iterator[Row | UserError]:
    csv.field_size_limit(max(csv.field_size_limit(), ROW_LIMIT))
    reader = csv.reader((line for _, line in _lines(f, path)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    number = 1  # the line on which the row begins: a quoted field may hold line ends
    while True:
        at = f"{path}:{number}"
        try:
            cells = next(reader, None)
        except csv.Error as err:
            hint = 'quote a field that holds quotes or line ends, and write " in it twice'
            raise UserError(f"not {KINDS[suffix(path)]} ({err})", hint, at=at) from None
        if cells is None:
            return
        if header is None and cells:
            header = cells
            _check_names(header, at)
        elif header is not None and cells:
            if len(cells) != len(header):
                what = f"{len(cells)} cells under {len(header)} columns"
                yield UserError(what, "mend the quoting of the row", at=at)
            else:
                yield Row(at, number, dict(zip(header, cells, strict=True)))
        number = reader.line_num + 1


def _read_parquet(path: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    with open_bytes(path):  # a file that is not there is no mistake of Parquet's
        pass
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_names(file.schema_arrow.names, path)
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{path}: row {number}", number, values)
    except (pyarrow.ArrowException, OSError, ValueError) as err:
        what = f"not Parquet from row {number + 1} on ({first_line(err)})"
        raise UserError(what, "fetch it again", at=path) from None


def _check_names(names: Iterable[str], at: str) -> None:
    for name, n in Counter(names).items():
        if n > 1:
            raise UserError(f"{n} columns are called {name!r}", "rename all but one", at=at)


def first_line(err: BaseException) -> str:
    """What an error says, in one line of at most 300 characters."""
    return (str(err).splitlines() or [type(err).__name__])[0][:300]


def type_name(value: object) -> str:
    """A JSON value's type, as messages say it."""
    return "null" if value is None else type(value).__name__
