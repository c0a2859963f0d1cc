"""D: instructions with answers, from files (JSON, JSONL, CSV, TSV, Parquet) or a hub, one record at a time.

What is wrong with a file (its encoding, its syntax, a column's type, an id that stands twice) stops with one line; what
is wrong with one row alone (no answer, a duplicate, a NUL character) leaves the row out and is counted.
"""

import hashlib
import os
import re
import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from sdrrl_factory.errors import UserError
from sdrrl_factory.models.hub import is_hub_id
from sdrrl_factory.rows import KINDS, SUFFIXES, Row, is_held_out, read_hub, read_rows, suffix, type_name
from sdrrl_factory.transfer.recipe import Source

Instructions = str | Source | list[str | Source]

_FIRST_ROWS = 20  # their columns tell the format

_QUESTIONS = ("instruction", "prompt", "question")
_ANSWERS = ("output", "response", "completion", "answer")
_INPUTS = ("input", "context")
_SYSTEMS = ("system", "system_prompt")
_TURNS = {"sharegpt": "conversations", "messages": "messages"}
_TITLES = {"sharegpt": "ShareGPT", "messages": "OpenAI messages"}
_USER = ("user", "human")
_ASSISTANT = ("assistant", "gpt", "chatgpt")
_SYSTEM = ("system", "developer")
_SURROGATE = re.compile("[\ud800-\udfff]")


def check(instructions: Instructions) -> None:
    """Say at once what keeps a source from being read, as far as its first rows tell; a hub's is downloaded.

    Raises UserError with a key relative to `instructions` (of a list: "0", "1", ...), or at a file and line.
    """
    for origin in _origins(instructions):
        origin.layout(_columns(islice(origin.rows(), _FIRST_ROWS)))


class Reading:
    """Iterating yields records {id, instruction, input, output, system}; memory does not grow with their number.

    After it: `left_out` counts rows by reason, `formats` says what was recognised, a line a source. Of two rows that
    are alike but for case, width, blanks and punctuation the first is kept. Raises UserError as `check` does.

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
        first = list(islice(rows, _FIRST_ROWS))
        layout = origin.layout(_columns(first))
        read = kept = 0
        for row in chain(first, rows):
            record, reason = layout.record(row)
            # The id counts rows, not records: one more row left out renames none of those behind it.
            record["id"] = seen.new_id(record["id"], origin.stem, f"{origin.stem}-{read:06d}", row.at)
            read += 1
            reason = reason or seen.twin(record)
            if reason:
                self.left_out[reason] += 1
                continue
            kept += 1
            if kept == cap:  # noted before the last record leaves: nobody asks for the next
                self._note(origin, layout, read)
            yield record
        self._note(origin, layout, read)

    def _note(self, origin: "_Origin", layout: "_Layout", read: int) -> None:
        self.formats.append(f"{origin.name}: {layout.name} ({origin.kind}), {read} rows")


def _columns(rows: Iterable[Row]) -> list[str]:
    """The columns that any of the rows has, in the order in which they are first met."""
    return list(dict.fromkeys(column for row in rows for column in row.values))


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

    def rows(self) -> Iterator[Row]:
        """Yield each row; no row at all is an error."""
        row = None
        for row in self._rows():
            yield row
        if row is None:
            fix = "name a file of {instruction, input, output} rows"
            raise UserError("no rows in it", fix, at=self.source.path)

    def _rows(self) -> Iterator[Row]:
        path = self.source.path
        if self.kind in ("folder", "hub"):
            try:
                yield from read_hub(path, self.source.subset, self.source.split)
            except UserError as err:
                raise self._mistake(err.what, err.fix) from None
            return
        if not os.path.exists(path):
            raise self._mistake(f"{path}: no such file", "check the path (a hub id is org/name)")
        if not os.path.isfile(path):
            raise self._mistake(f"{path} is neither a file nor a folder", "name one")
        if not path.endswith(SUFFIXES):
            raise self._mistake(f"{path}: its suffix is none of {' '.join(SUFFIXES)}", "rename it")
        yield from read_rows(path)

    def _mistake(self, what: str, fix: str, key: str = "") -> UserError:
        return UserError(what, fix, key=".".join(part for part in (self.key, key) if part))

    def layout(self, columns: list[str]) -> "_Layout":
        """Which column is what: the recipe's `columns` over what the format has."""
        source = self.source
        named = {name: column for name, column in source.columns.model_dump().items() if column is not None}
        for name, column in named.items():
            if column not in columns:
                what = f"{source.path} has no column {column!r} (it has: {_listed(columns)})"
                raise self._mistake(what, "name one", f"columns.{name}")
        system = named.get("system") or next((c for c in _SYSTEMS if c in columns), None)
        layout = None
        if source.format in ("auto", "alpaca"):
            layout = _pair(columns, named)
        layout = layout or _turns(columns, named, source.format)
        if layout:
            return _Layout(*layout, named.get("id", "id"), system)
        if source.format != "auto":
            what = f"{source.path} is not {source.format} (columns: {_listed(columns)})"
            raise self._mistake(what, "set auto", "format")
        hint = "name them under columns: (instruction, output) in the recipe"
        raise UserError(f"no known format (columns: {_listed(columns)})", hint, at=source.path)


def _listed(columns: list[str]) -> str:
    names = ", ".join(repr(column)[1:-1] for column in columns)
    return names if len(names) <= 200 else names[:200] + "..."


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


# --- records out of rows


@dataclass
class _Layout:
    """Which column is what; without an `output`, `instruction` holds a conversation's turns."""

    name: str
    instruction: str
    input: str | None
    output: str | None
    id: str
    system: str | None

    def record(self, row: Row) -> tuple[dict[str, str], str]:
        """The row as a record, and why to leave it out ("" if it may stay)."""
        at, values = row.at, row.values
        for column in (self.instruction, self.output):
            if column and column not in values:
                what = f"no {column!r} (columns: {_listed(list(values))})"
                raise UserError(what, "rename the column", at=at)
        record, reason = {"id": _id(values.get(self.id), at)}, ""
        system = _text(values.get(self.system), self.system, at) if self.system else ""
        if self.output:
            record["instruction"] = _text(values[self.instruction], self.instruction, at)
            record["input"] = _text(values.get(self.input), self.input, at) if self.input else ""
            record["output"] = _text(values[self.output], self.output, at)
        else:
            turn, reason = _first_turn(values[self.instruction], self.instruction, at)
            system = turn.pop("system") or system
            record |= turn
        record["system"] = system
        return record, "held out" if is_held_out(values) else reason or _flaw(record)


# A layout's name, and its instruction, input and output columns.
_Found = tuple[str, str, str | None, str | None]


def _pair(columns: list[str], named: dict[str, str]) -> _Found | None:
    """Question and answer in columns of their own: both of Alpaca's names, or the only ones of their kind."""
    questions = [named["instruction"]] if "instruction" in named else [c for c in _QUESTIONS if c in columns]
    taken = set(named.values())
    answers = [named["output"]] if "output" in named else [c for c in _ANSWERS if c in columns and c not in taken]
    if not questions or not answers:
        return None
    # Two candidates for one part: which is meant cannot be guessed, unless Alpaca's names are among them.
    alpaca = questions[0] == "instruction" and answers[0] in ("output", "response")
    if not alpaca and (len(questions) > 1 or len(answers) > 1):
        return None
    question, answer = questions[0], answers[0]
    taken |= {question, answer}
    context = named.get("input") or next((c for c in _INPUTS if c in columns and c not in taken), None)
    name = f"{question} and {answer}"
    if alpaca:
        name = "Dolly" if (answer, context) == ("response", "context") else "Alpaca"
    return name, question, context, answer


def _turns(columns: list[str], named: dict[str, str], form: str) -> _Found | None:
    """A conversation in one column; `columns.instruction` may give it another name when the format is given."""
    for name, usual in _TURNS.items():
        column = named.get("instruction", usual) if form == name else usual
        if form in ("auto", name) and column in columns:
            return _TITLES[name], column, None, None
    return None


def _first_turn(turns: Any, column: str, at: str) -> tuple[dict[str, str], str]:
    """The first user turn, the answer right after it, the system prompt before it; and why there are none."""
    turn = {"instruction": "", "input": "", "output": "", "system": ""}
    if turns is not None and not isinstance(turns, list):
        raise UserError(f"{column!r} is {type_name(turns)} instead of a list of turns", "mend the row", at=at)
    is_asked = False
    for number, message in enumerate(turns or [], 1):
        role, text = _message(message, f"{at}: turn {number} of {column!r}")
        if is_asked:
            turn["output"] = text
            return turn, "" if role in _ASSISTANT else "no answer to the first user turn"
        if role in _SYSTEM:
            turn["system"] = turn["system"] or text
        elif role in _USER:
            turn["instruction"], is_asked = text, True
    return turn, "no answer to the first user turn" if is_asked else "no user turn"


def _message(message: Any, at: str) -> tuple[str, str]:
    """The role and the text of one turn."""
    if not isinstance(message, dict):
        raise UserError(f"{type_name(message)} instead of an object", "mend the row", at=at)
    role_key = "role" if "role" in message else "from"
    role = message.get(role_key)
    if not isinstance(role, str):
        raise UserError(f"{role_key!r} is {type_name(role)} instead of text", "mend the row", at=at)
    key = "content" if "content" in message else "value"
    text = message.get(key)
    if isinstance(text, list):  # OpenAI's content parts
        parts = [part.get("text") if isinstance(part, dict) else part for part in text]
        text = "".join(_text(part, key, at) for part in parts)
    return role.strip().lower(), _text(text, key, at)


def _text(value: Any, column: str, at: str) -> str:
    if value is None or value != value:  # pandas writes NaN for an empty cell
        return ""
    if not isinstance(value, str):
        raise UserError(f"{column!r} is {type_name(value)} instead of text", "mend the row", at=at)
    if _SURROGATE.search(value):
        raise UserError(f"{column!r} has half a surrogate pair (\\ud800 to \\udfff)", "mend the row", at=at)
    return value


def _id(value: Any, at: str) -> str:
    return str(value) if isinstance(value, int | float) and value == value else _text(value, "id", at)


def _flaw(record: dict[str, str]) -> str:
    if any("\0" in value for value in record.values()):
        return "NUL character"  # Apertium and others end a text at it
    if not record["instruction"].strip():
        return "no instruction"
    return "" if record["output"].strip() else "no answer"


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

    def new_id(self, own: str, stem: str, default: str, at: str) -> str:
        """The row's own id, which must be new in its source; where another source has it, with the stem before it."""
        if own and not self._is_new("own", f"{stem}\0{own}"):
            raise UserError(f"id {own!r} stands twice", "give each row its own", at=at)
        candidates = [own, f"{stem}-{own}"] if own else [default]
        numbered = (f"{candidates[-1]}-{n}" for n in count(2))
        return next(name for name in chain(candidates, numbered) if self._is_new("ids", name))

    def twin(self, record: dict[str, str]) -> str:
        """Why the record is left out, if one like it was before."""
        question, answer = (record["instruction"], record["input"]), record["output"]
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
