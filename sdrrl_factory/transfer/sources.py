"""D: instructions with answers, from files (JSON, JSONL, CSV, TSV, Parquet) or a hub, one record at a time.

What is wrong with a file (its encoding, its columns) stops with one line; what is wrong with one row (its syntax, no
answer, a duplicate, a NUL character) leaves the row out and is counted. Only a file with nothing usable stops.
"""

import hashlib
import os
import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from pathlib import Path

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import looked_in
from sdrrl_factory.models.hub import is_hub_id
from sdrrl_factory.rows import KINDS, SUFFIXES, Row, read_hub, read_rows_and_mistakes, suffix
from sdrrl_factory.transfer.exchanges import SYSTEMS, Exchange, Layout, listed, recognise
from sdrrl_factory.transfer.recipe import Source

Instructions = str | Source | list[str | Source]

_FIRST_ROWS = 20  # their columns tell the format
_MOST_MISTAKES = 1000  # before a row that is none of them: then it is the file that is wrong


def check(instructions: Instructions) -> None:
    """Say at once what keeps a source from being read, as far as its first rows tell; a hub's is downloaded.

    Raises UserError with a key relative to `instructions` (of a list: "0", "1", ...), or at a file and line.
    """
    for origin in _origins(instructions):
        origin.layout(_first(origin.rows()))


class Reading:
    """Iterating yields records {id, instruction, input, output, system}; memory does not grow with their number.

    After it: `left_out` counts what was left out by reason: rows, and turns of conversations. `formats` says what was
    recognised, a line a source. Of two rows that are alike but for case, width, blanks and punctuation the first is
    kept. Raises UserError as `check` does.

    Args:
        max_samples: at most so many records in all; a source's own `max_samples` caps its part.
    """

    def __init__(self, instructions: Instructions, max_samples: int | None):
        self._origins, self._max_samples = _origins(instructions), max_samples
        self.left_out: Counter[str] = Counter()
        self.formats: list[str] = []

    def __iter__(self) -> Iterator[dict]:
        self.left_out, self.formats = Counter(), []
        kept = 0
        with closing(_Seen()) as seen:
            for origin in self._origins:
                rest = None if self._max_samples is None else self._max_samples - kept
                cap = min((c for c in (origin.source.max_samples, rest) if c is not None), default=None)
                if cap == 0:
                    break
                for record in islice(self._read(origin, seen, cap), cap):
                    kept += 1
                    yield record
        if not kept:
            reasons = ", ".join(f"{n} {reason}" for reason, n in self.left_out.items())
            first = self._origins[0].source.path
            raise UserError(f"no usable row ({reasons})", "name a file with questions and answers", at=first)

    def _read(self, origin: "_Origin", seen: "_Seen", cap: int | None) -> Iterator[dict]:
        rows = origin.rows()
        # The first rows tell the format; then they are records like the others.
        first = _first(rows)
        layout = origin.layout(first)
        count = _Count()
        for row in chain(first, rows):
            # 1. One row that is none is left out, and the others stay.
            try:
                if isinstance(row, UserError):
                    raise row
                own, exchanges = layout.id_of(row), layout.exchanges(row)
            except UserError as mistake:
                count.rows += 1
                count.mistakes += 1
                count.first_mistake = count.first_mistake or mistake
                self.left_out[mistake.what.partition(" (")[0]] += 1
                continue
            # 2. The turns that the recipe takes. The id counts rows, not records: one more row left out renames none
            #    of those behind it.
            first_id = default = f"{origin.stem}-{count.rows:06d}"
            count.rows += 1
            taken, others = _taken(exchanges, origin.source.turns)
            self.left_out.update(others)
            for turn, exchange in enumerate(taken, 1):
                # The further turns of a conversation have its first one's id with a suffix.
                if turn > 1:
                    own, default = "", f"{first_id}-{turn}"
                record_id, is_twice = seen.new_id(own, origin.stem, default, count.rows)
                first_id = record_id if turn == 1 else first_id
                count.twice += is_twice
                reason = exchange.flaw or _flaw(exchange) or seen.twin(exchange)
                if reason:
                    self.left_out[reason] += 1
                    continue
                count.kept += 1
                if count.kept == cap:  # noted before the last record leaves: nobody asks for the next
                    self._note(origin, layout, count)
                yield {
                    "id": record_id,
                    "instruction": exchange.instruction,
                    "input": exchange.input,
                    "output": exchange.output,
                    "system": exchange.system,
                }
        if count.first_mistake and count.mistakes == count.rows:
            raise count.first_mistake
        self._note(origin, layout, count)

    def _note(self, origin: "_Origin", layout: Layout, count: "_Count") -> None:
        twice = f", {count.twice} ids stood twice and have a suffix" if count.twice else ""
        self.formats.append(f"{origin.name}: {layout.name} ({origin.kind}), {count.rows} rows{twice}")


@dataclass
class _Count:
    """Of one source's rows: those read, the records kept, the rows that are none, the ids that stood there before."""

    rows: int = 0
    kept: int = 0
    mistakes: int = 0
    first_mistake: UserError | None = None
    twice: int = 0


def _first(rows: Iterator[Row | UserError]) -> list[Row | UserError]:
    """The first rows, as many as tell the format."""
    first: list[Row | UserError] = []
    usable = 0
    for row in rows:
        first.append(row)
        usable += isinstance(row, Row)
        if usable == _FIRST_ROWS or len(first) - usable == _MOST_MISTAKES:
            break
    return first


def _taken(exchanges: list[Exchange], turns: str) -> tuple[list[Exchange], dict[str, int]]:
    """The exchanges of a row that become records, and how many others there are, by reason."""
    others = len(exchanges) - 1
    if turns == "all" or not others:
        return exchanges, {}
    if turns == "first":
        return exchanges[:1], {"later turns": others}
    return exchanges[-1:], {"earlier turns": others}


@dataclass
class _Origin:
    """A source, its key below `instructions` ("" or its place in the list), and the start of the ids it gives."""

    source: Source
    key: str
    stem: str

    @property
    def kind(self) -> str:
        path = self.source.path
        if os.path.isdir(path):
            return "folder"
        # A data file that is not there must not be looked for on the hub: org/name.jsonl has an id's shape.
        if is_hub_id(path) and not path.endswith(SUFFIXES):
            return "hub"
        return KINDS.get(suffix(path), "")

    @property
    def name(self) -> str:
        return self.source.path if self.kind == "hub" else Path(self.source.path).name

    def rows(self) -> Iterator[Row | UserError]:
        """Yield each row, or what is wrong with it; no row at all is an error."""
        row = None
        for row in self._rows():
            yield row
        if row is None:
            fix = "name a file of {instruction, input, output} rows"
            raise UserError("no rows in it", fix, at=self.source.path)

    def _rows(self) -> Iterator[Row | UserError]:
        path = self.source.path
        if self.kind in ("folder", "hub"):
            try:
                yield from read_hub(path, self.source.subset, self.source.split)
            except UserError as err:
                raise self._mistake(err.what, err.fix) from None
            return
        if not os.path.exists(path):
            raise self._mistake(f"{path}: no such file{looked_in(path)}", "check the path (a hub id is org/name)")
        if not os.path.isfile(path):
            raise self._mistake(f"{path} is neither a file nor a folder", "name one")
        if not path.endswith(SUFFIXES):
            raise self._mistake(f"{path}: its suffix is none of {' '.join(SUFFIXES)}", "rename it")
        yield from read_rows_and_mistakes(path)

    def _mistake(self, what: str, fix: str, key: str = "") -> UserError:
        return UserError(what, fix, key=".".join(part for part in (self.key, key) if part))

    def layout(self, first: list[Row | UserError]) -> Layout:
        """Which column is what: the recipe's `columns` over what the format of the first rows has."""
        source = self.source
        # The columns that any of the rows has, in the order in which they are first met.
        rows = [row for row in first if isinstance(row, Row)]
        columns = list(dict.fromkeys(column for row in rows for column in row.values))
        for mistake in first:
            if isinstance(mistake, UserError) and not rows:
                raise mistake
        named = {name: column for name, column in source.columns.model_dump().items() if column is not None}
        for name, column in named.items():
            if column not in columns:
                what = f"{source.path} has no column {column!r} (it has: {listed(columns)})"
                raise self._mistake(what, "name one", f"columns.{name}")
        layout = recognise(columns, named, source.format)
        if layout:
            system = named.get("system") or next((c for c in SYSTEMS if c in columns), None)
            return replace(layout, id=named.get("id", "id"), system=system)
        if source.format != "auto":
            what = f"{source.path} is not {source.format} (columns: {listed(columns)})"
            raise self._mistake(what, "set auto", "format")
        hint = "name them under columns: (instruction, output) in the recipe"
        raise UserError(f"no known format (columns: {listed(columns)})", hint, at=source.path)


def _origins(instructions: Instructions) -> list[_Origin]:
    origins: list[_Origin] = []
    stems: set[str] = set()
    for number, entry in enumerate(instructions if isinstance(instructions, list) else [instructions]):
        source = Source(path=entry) if isinstance(entry, str) else entry
        # Ids begin with the file's name; of two files of one name, the second's with name-2.
        stem = Path(source.path).name.removesuffix(".gz").removesuffix(suffix(source.path))
        names = (stem if n == 1 else f"{stem}-{n}" for n in count(1))
        stem = next(name for name in names if name not in stems)
        stems.add(stem)
        origins.append(_Origin(source, str(number) if isinstance(instructions, list) else "", stem))
    return origins


def _flaw(exchange: Exchange) -> str:
    texts = (exchange.instruction, exchange.input, exchange.output, exchange.system)
    if any("\0" in text for text in texts):
        return "NUL character"  # Apertium and others end a text at it
    if not exchange.instruction.strip():
        return "no instruction"
    return "" if exchange.output.strip() else "no answer"


class _Seen:
    """The ids and texts so far, on disk: SQLite's unnamed database leaves memory when it grows."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")
        for table in ("ids", "own", "exact", "near"):
            self._db.execute(f"CREATE TABLE {table} (key BLOB PRIMARY KEY) WITHOUT ROWID")

    def close(self) -> None:
        self._db.close()

    def _is_new(self, table: str, text: str) -> bool:
        # A hash instead of the text: 16 bytes a row, and no two texts of a corpus share them.
        key = hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
        return self._db.execute(f"INSERT OR IGNORE INTO {table} VALUES (?)", (key,)).rowcount == 1

    def new_id(self, own: str, stem: str, default: str, row: int) -> tuple[str, bool]:
        """(id, whether the row's own stood in its source before).

        The row's own id; where another source has it, with the stem before it; where its own source has it, with the
        number of the row behind it.
        """
        is_twice = bool(own) and not self._is_new("own", f"{stem}\0{own}")
        candidates = [own, f"{stem}-{own}"] if own else [default]
        if is_twice:
            candidates = [f"{own}-{row}"]
        numbered = (f"{candidates[-1]}-{n}" for n in count(2))
        return next(name for name in chain(candidates, numbered) if self._is_new("ids", name)), is_twice

    def twin(self, exchange: Exchange) -> str:
        """Why the exchange is left out, if one like it was before."""
        question, answer = (exchange.instruction, exchange.input), exchange.output
        if not self._is_new("exact", "\0".join((*question, answer))):
            return "duplicate"
        near = f"{normalise(' '.join(question))}\0{normalise(answer)}"
        return "" if self._is_new("near", near) else "near duplicate"


class _Blanks(dict[int, int]):
    """For `str.translate`: white space and punctuation become blanks."""

    def __missing__(self, code: int) -> int:
        char = chr(code)
        self[code] = 0x20 if char.isspace() or unicodedata.category(char)[0] == "P" else code
        return self[code]


_BLANKS = _Blanks()


def normalise(text: str) -> str:
    """NFKC, case folded, runs of white space and punctuation one blank; nothing but those stays as it is."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_BLANKS).split()) or text
