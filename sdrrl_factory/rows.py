"""Rows out of files (JSON, JSONL, CSV, TSV, Parquet; gzip known by its first bytes) and out of a hub, one at a time;
lines out of plain text.

What is wrong with a file stops with one line that names the file and the line or row.
"""

import codecs
import csv
import gzip
import io
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdrrl_factory.errors import UserError

Rows = Iterator[tuple[str, dict]]  # (where the row stands, row)

KINDS = {".json": "JSON", ".jsonl": "JSONL", ".csv": "CSV", ".tsv": "TSV", ".parquet": "Parquet"}
SUFFIXES = (*KINDS, ".json.gz", ".jsonl.gz", ".csv.gz", ".tsv.gz")
ROW_LIMIT = 1 << 26  # bytes of one row: a file that is no such format is not read whole to find that out
_CHUNK = 1 << 16


def suffix(path: str) -> str:
    return Path(path.removesuffix(".gz")).suffix


def read_rows(path: str) -> Rows:
    """The rows of a file whose suffix is one of SUFFIXES."""
    return read_parquet(path) if suffix(path) == ".parquet" else read_text(path)


def read_text(path: str) -> Rows:
    with _open(path) as f:
        head = _head(f, path)
        if suffix(path) in (".csv", ".tsv"):
            yield from _read_csv(f, path, "," if suffix(path) == ".csv" else "\t")
        elif head.lstrip()[:1] == b"[":
            yield from _read_array(f, path)
        else:
            yield from _read_lines(f, path)


def read_plain(path: str) -> Iterator[tuple[str, str]]:
    """(where the line stands, line) of a plain text, the file's own markup included."""
    with _open(path) as f:
        _head(f, path, markup=True)
        for number, line in _lines(f, path):
            yield f"{path}:{number}", line


def is_held_out(row: dict) -> bool:
    """Whether the row says `held_out`; a CSV says it as text."""
    value = row.get("held_out")
    return value.strip().lower() not in ("", "0", "no", "false") if isinstance(value, str) else bool(value)


@contextmanager
def _open(path: str) -> Iterator[io.BufferedReader]:
    """The file's bytes; gzip is known by its first two, whatever the name says."""
    try:
        with open(path, "rb") as f:
            yield io.BufferedReader(gzip.GzipFile(fileobj=f)) if f.peek(2)[:2] == b"\x1f\x8b" else f
    except (EOFError, zlib.error, gzip.BadGzipFile) as err:
        raise UserError(f"{path}: broken gzip ({first_line(err)}); fetch the file again") from None
    except OSError as err:
        raise UserError(f"{path}: cannot be read ({err.strerror or first_line(err)}); check the file") from None


def _head(f: io.BufferedReader, path: str, markup: bool = False) -> bytes:
    """The first bytes, less a byte order mark; what is plainly no UTF-8 text of rows stops here."""
    head = f.peek(_CHUNK)
    if head.startswith(codecs.BOM_UTF8):
        f.read(3)
        head = head[3:]
    start = head.lstrip()[:64].lower()
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or head[1:2] == b"\0" or head[:1] == b"\0":
        raise UserError(f"{path}: UTF-16 or binary; convert it with iconv -f UTF-16 -t UTF-8")
    if not markup and start.startswith((b"<!", b"<html", b"<?xml")):
        raise UserError(f"{path}: a web page instead of rows; download the file itself")
    if start.startswith(b"version https://git-lfs"):
        raise UserError(f"{path}: a Git LFS pointer instead of the file; run `git lfs pull`")
    return head


def _lines(f: io.BufferedReader, path: str) -> Iterator[tuple[int, str]]:
    # Only "\n" ends a line: JSON strings may hold U+2028 and its like.
    number = 0
    while raw := f.readline(ROW_LIMIT + 1):
        number += 1
        if len(raw) > ROW_LIMIT:
            raise UserError(f"{path}:{number}: a line of more than {ROW_LIMIT >> 20} MiB; write one row a line")
        try:
            yield number, raw.decode("utf-8")
        except UnicodeDecodeError as err:
            at = f"{path}:{number}"
            raise UserError(f"{at}: not UTF-8 (byte {err.start} of the line); convert it with iconv -t UTF-8") from None


def _read_lines(f: io.BufferedReader, path: str) -> Rows:
    for number, line in _lines(f, path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as err:
            if number == 1 and line.strip() == "{":
                raise UserError(f"{path}: a JSON object instead of a list; write [...] or one object a line") from None
            raise UserError(f"{path}:{number}: not JSON ({first_line(err)}); mend or remove the line") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: {type_name(row)} instead of an object {{...}}; mend the line")
        yield f"{path}:{number}", row


def _read_array(f: io.BufferedReader, path: str) -> Rows:
    """Yield a JSON list's objects without holding the list."""
    text = _Text(f, path)
    text.expect("[")
    number = 0
    while text.peek() != "]":
        if number:
            text.expect(",")
        number += 1
        row = text.value()
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {number} is {type_name(row)} instead of an object; mend the row")
        yield f"{path}: row {number}", row
    text.expect("]")
    if text.peek():
        raise text.wrong("more text after the list's end", text.at)


class _Text:
    """JSON read from a window that slides over the file; `at` is the place in it."""

    def __init__(self, f: io.BufferedReader, path: str):
        self._f, self._path = f, path
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._json = json.JSONDecoder()
        self._text, self._line, self._bytes, self._ended = "", 1, 0, False
        self.at = 0

    def peek(self) -> str:
        """The next character that is not blank; "" at the end."""
        while True:
            while self.at < len(self._text):
                if self._text[self.at] not in " \t\n\r":
                    return self._text[self.at]
                self.at += 1
            if not self._more(_CHUNK):
                return ""

    def expect(self, mark: str) -> None:
        if self.peek() != mark:
            raise self.wrong(f"{mark!r} expected", self.at)
        self.at += 1

    def value(self):
        self.peek()
        while True:
            try:
                value, self.at = self._json.raw_decode(self._text, self.at)
                return value
            except json.JSONDecodeError as err:
                # A value cut off by the window's end fails near it, or as a string without an end.
                cut = err.msg.startswith("Unterminated string") or err.pos >= len(self._text) - 16
                window = len(self._text) - self.at
                if window > ROW_LIMIT:
                    raise self.wrong(f"a row of more than {ROW_LIMIT >> 20} MiB", self.at) from None
                # Twice as much each time: a long row is parsed a few times, not once a chunk.
                if not (cut and self._more(max(_CHUNK, window))):
                    raise self.wrong(err.msg, err.pos) from None
            except (ValueError, RecursionError) as err:
                raise self.wrong(first_line(err), self.at) from None

    def wrong(self, why: str, at: int) -> UserError:
        line = self._line + self._text.count("\n", 0, at)
        return UserError(f"{self._path}:{line}: not JSON ({why}); mend the file")

    def _more(self, size: int) -> bool:
        """Drop what is read and take `size` bytes more; False at the file's end."""
        if self._ended:
            return False
        raw = self._f.read(size)
        self._ended = not raw
        held = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(raw, final=self._ended)
        except UnicodeDecodeError as err:
            byte = self._bytes - held + err.start
            raise UserError(f"{self._path}: not UTF-8 (byte {byte}); convert it with iconv -t UTF-8") from None
        self._bytes += len(raw)
        self._line += self._text.count("\n", 0, self.at)
        self._text, self.at = self._text[self.at :] + text, 0
        return not self._ended


def _read_csv(f: io.BufferedReader, path: str, delimiter: str) -> Rows:
    csv.field_size_limit(max(csv.field_size_limit(), ROW_LIMIT))
    reader = csv.reader((line for _, line in _lines(f, path)), delimiter=delimiter, strict=True)
    header, number = None, 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as err:
            hint = 'quote a field that holds quotes or line ends, and write " in it twice'
            raise UserError(f"{path}:{number}: not {KINDS[suffix(path)]} ({err}); {hint}") from None
        place, number = f"{path}:{number}", reader.line_num + 1
        if cells is None:
            return
        if not cells:
            continue
        if header is None:
            header = cells
            _check_names(header, place)
            continue
        if len(cells) != len(header):
            raise UserError(f"{place}: {len(cells)} cells under {len(header)} columns; mend the quoting of the row")
        yield place, dict(zip(header, cells, strict=True))


def read_parquet(path: str) -> Rows:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_names(file.schema_arrow.names, path)
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
    except (pyarrow.ArrowException, OSError, ValueError) as err:
        raise UserError(f"{path}: not Parquet from row {number + 1} on ({first_line(err)}); fetch it again") from None


def _check_names(names: list[str], place: str) -> None:
    for name, n in Counter(names).items():
        if n > 1:
            raise UserError(f"{place}: {n} columns are called {name!r}; rename all but one")


def read_hub(path: str, subset: str | None, split: str, place: str) -> Rows:
    """Rows of a hub's data set, or of a local folder of data files; memory-mapped from the cache."""
    import datasets

    try:
        # The older `datasets` run a data set's own code unless told not to.
        rows = datasets.load_dataset(path, subset, split=split, trust_remote_code=False)
    except Exception as err:  # whatever the hub's client, a format's reader or the network raises
        offline = datasets.config.HF_HUB_OFFLINE and not os.path.isdir(path)
        why = f"HF_HUB_OFFLINE is set; {first_line(err)}" if offline else first_line(err)
        hint = "check the id, subset and split, or name a file"
        raise UserError(f"{place}: {path} cannot be loaded ({why}); {hint}") from None
    for number, row in enumerate(rows, 1):
        yield f"{path}: row {number}", row


def first_line(err: BaseException) -> str:
    return (str(err).splitlines() or [type(err).__name__])[0][:300]


def type_name(value) -> str:
    return "null" if value is None else type(value).__name__
