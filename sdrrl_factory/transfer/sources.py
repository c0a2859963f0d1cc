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
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path

from sdrrl_factory.errors import UserError
from sdrrl_factory.rows import KINDS, SUFFIXES, Rows, is_held_out, read_hub, read_rows, suffix, type_name
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


def check(instructions: Instructions, place: Callable[[str], str]) -> None:
    """Say at once what keeps a source from being read, as far as its first rows tell; a hub's is downloaded."""
    for origin in _origins(instructions, place):
        columns = [row.keys() for _, row in islice(origin.rows(), _FIRST_ROWS)]
        origin.layout(list(dict.fromkeys(c for keys in columns for c in keys)))


class Reading:
    """Iterating yields records {id, instruction, input, output, system}; memory does not grow with their number.

    After it: `left_out` counts rows by reason, `formats` says what was recognised, a line a source. Of two rows that
    are alike but for case, width, blanks and punctuation the first is kept.

    Args:
        max_samples: at most so many records in all; a source's own `max_samples` caps its part.
        place: where a recipe key stands (file:line: key), for errors.
    """

    def __init__(self, instructions: Instructions, max_samples: int | None, place: Callable[[str], str]):
        self._origins, self._cap = _origins(instructions, place), max_samples
        self.left_out: Counter = Counter()
        self.formats: list[str] = []

    def __iter__(self) -> Iterator[dict]:
        self.left_out, self.formats = Counter(), []
        kept = 0
        with closing(_Seen()) as seen:
            for origin in self._origins:
                cap = min((c for c in (origin.source.max_samples, self._left(kept)) if c is not None), default=None)
                if cap == 0:
                    break
                for record in islice(self._read(origin, seen, cap), cap):
                    kept += 1
                    yield record
        if not kept:
            told = ", ".join(f"{n} {reason}" for reason, n in self.left_out.items())
            first = self._origins[0].source.path
            raise UserError(f"{first}: no usable row ({told}); name a file with questions and answers")

    def _left(self, kept: int) -> int | None:
        return None if self._cap is None else self._cap - kept

    def _read(self, origin: "_Origin", seen: "_Seen", cap: int | None) -> Iterator[dict]:
        rows = origin.rows()
        first = list(islice(rows, _FIRST_ROWS))
        layout = origin.layout(list(dict.fromkeys(c for _, row in first for c in row)))
        read = kept = 0
        for place, row in chain(first, rows):
            record, reason = layout.record(row, place)
            record["id"] = seen.new_id(record["id"], origin.stem, f"{origin.stem}-{read:06d}", place)
            read += 1
            reason = reason or seen.twin(record)
            if reason:
                self.left_out[reason] += 1
                continue
            kept += 1
            if kept == cap:  # said before the last record leaves: nobody asks for the next
                self._say(origin, layout, read)
            yield record
        self._say(origin, layout, read)

    def _say(self, origin: "_Origin", layout: "_Layout", read: int) -> None:
        self.formats.append(f"{origin.name}: {layout.name} ({origin.kind}), {read} rows")


@dataclass
class _Origin:
    """A source with where its recipe key stands, and the start of the ids it gives."""

    source: Source
    key: str
    place: Callable[[str], str]
    stem: str = ""

    @property
    def kind(self) -> str:
        path = self.source.path
        return "folder" if os.path.isdir(path) else "hub" if _is_hub_id(path) else KINDS.get(suffix(path), "")

    @property
    def name(self) -> str:
        return self.source.path if self.kind == "hub" else Path(self.source.path).name

    def rows(self) -> Rows:
        """Yield each row with its place; no row at all is an error."""
        path, found = self.source.path, False
        if self.kind in ("folder", "hub"):
            rows = read_hub(path, self.source.subset, self.source.split, self.place(self.key))
        else:
            self._check_file()
            rows = read_rows(path)
        for place, row in rows:
            found = True
            yield place, row
        if not found:
            raise UserError(f"{path}: no rows in it; name a file of {{instruction, input, output}} rows")

    def _check_file(self) -> None:
        path = self.source.path
        if not os.path.exists(path):
            raise UserError(f"{self.place(self.key)}: {path}: no such file; check the path (a hub id is org/name)")
        if not os.path.isfile(path):
            raise UserError(f"{self.place(self.key)}: {path} is neither a file nor a folder; name one")
        if not path.endswith(SUFFIXES):
            raise UserError(f"{self.place(self.key)}: {path}: its suffix is none of {' '.join(SUFFIXES)}; rename it")

    def layout(self, columns: list[str]) -> "_Layout":
        """Which column is what: the recipe's `columns` over what the format has."""
        source = self.source
        named = {k: c for k, c in source.columns.model_dump().items() if c is not None}
        for key, column in named.items():
            if column not in columns:
                at = self.place(f"{self.key}.columns.{key}")
                raise UserError(f"{at}: {source.path} has no column {column!r} (it has: {_told(columns)}); name one")
        others = {
            "id": named.get("id", "id"),
            "system": named.get("system") or next((c for c in _SYSTEMS if c in columns), None),
        }
        found = _pair(columns, named) if source.format in ("auto", "alpaca") else None
        found = found or _turns(columns, named, source.format)
        if found:
            return _Layout(**found, **others)
        if source.format != "auto":
            at = self.place(f"{self.key}.format")
            raise UserError(f"{at}: {source.path} is not {source.format} (columns: {_told(columns)}); set auto")
        hint = "name them under columns: (instruction, output) in the recipe"
        raise UserError(f"{source.path}: no known format (columns: {_told(columns)}); {hint}")


def _told(columns: list[str]) -> str:
    told = ", ".join(repr(c)[1:-1] for c in columns)
    return told if len(told) <= 200 else told[:200] + "..."


def _origins(instructions: Instructions, place: Callable[[str], str]) -> list[_Origin]:
    several = isinstance(instructions, list)
    origins, stems = [], set()
    for i, source in enumerate(instructions if several else [instructions]):
        key = f"instructions.{i}" if several else "instructions"
        origin = _Origin(Source(path=source) if isinstance(source, str) else source, key, place)
        path = origin.source.path
        stem = Path(path).name.removesuffix(".gz").removesuffix(suffix(path))
        names = (stem if n == 1 else f"{stem}-{n}" for n in range(1, len(origins) + 2))
        origin.stem = next(name for name in names if name not in stems)
        stems.add(origin.stem)
        origins.append(origin)
    return origins


def _is_hub_id(path: str) -> bool:
    """org/name, unless it looks like a data file or stands (or fails to) in a folder that is there."""
    shaped = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", path) and not path.endswith(SUFFIXES)
    return bool(shaped) and not os.path.exists(path.split("/")[0])


# --- records out of rows ---


@dataclass
class _Layout:
    """Which column is what; without an `output`, `instruction` holds a conversation's turns."""

    name: str
    instruction: str
    input: str | None
    output: str | None
    id: str
    system: str | None

    def record(self, row: dict, place: str) -> tuple[dict, str]:
        """The row as a record, and why to leave it out ("" if it may stay)."""
        for column in (self.instruction, self.output):
            if column and column not in row:
                raise UserError(f"{place}: no {column!r} (columns: {_told(list(row))}); rename the column")
        record, reason = {"id": _id(row.get(self.id), place)}, ""
        system = _text(row.get(self.system), self.system, place) if self.system else ""
        if self.output:
            record["instruction"] = _text(row[self.instruction], self.instruction, place)
            record["input"] = _text(row.get(self.input), self.input, place) if self.input else ""
            record["output"] = _text(row[self.output], self.output, place)
        else:
            turns, reason = _first_turn(row[self.instruction], self.instruction, place)
            system = turns.pop("system") or system
            record |= turns
        record["system"] = system
        return record, "held out" if is_held_out(row) else reason or _flaw(record)


def _pair(columns: list[str], named: dict[str, str]) -> dict | None:
    """Question and answer in columns of their own: both of Alpaca's names, or the only ones of their kind."""
    questions = [named["instruction"]] if "instruction" in named else [c for c in _QUESTIONS if c in columns]
    taken = set(named.values())
    answers = [named["output"]] if "output" in named else [c for c in _ANSWERS if c in columns and c not in taken]
    if not questions or not answers:
        return None
    alpaca = questions[0] == "instruction" and answers[0] in ("output", "response")
    if not alpaca and (len(questions) > 1 or len(answers) > 1):
        return None
    question, answer = questions[0], answers[0]
    taken |= {question, answer}
    more = named.get("input") or next((c for c in _INPUTS if c in columns and c not in taken), None)
    name = "Dolly" if alpaca and (answer, more) == ("response", "context") else "Alpaca" if alpaca else None
    return {"name": name or f"{question} and {answer}", "instruction": question, "input": more, "output": answer}


def _turns(columns: list[str], named: dict[str, str], wanted: str) -> dict | None:
    """A conversation in one column; `columns.instruction` may give it another name when the format is said."""
    for form, usual in _TURNS.items():
        column = named.get("instruction", usual) if wanted == form else usual
        if wanted in ("auto", form) and column in columns:
            return {"name": _TITLES[form], "instruction": column, "input": None, "output": None}
    return None


def _first_turn(turns, column: str, place: str) -> tuple[dict, str]:
    """The first user turn, the answer right after it, the system prompt before it; and why there are none."""
    found = {"instruction": "", "input": "", "output": "", "system": ""}
    if turns is not None and not isinstance(turns, list):
        raise UserError(f"{place}: {column!r} is {type_name(turns)} instead of a list of turns; mend the row")
    asked = False
    for number, turn in enumerate(turns or [], 1):
        role, text = _turn(turn, f"{place}: turn {number} of {column!r}")
        if asked:
            found["output"] = text
            return found, "" if role in _ASSISTANT else "no answer to the first user turn"
        if role in _SYSTEM:
            found["system"] = found["system"] or text
        elif role in _USER:
            found["instruction"], asked = text, True
    return found, "no answer to the first user turn" if asked else "no user turn"


def _turn(turn, place: str) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise UserError(f"{place} is {type_name(turn)} instead of an object; mend the row")
    role_key = "role" if "role" in turn else "from"
    role = turn.get(role_key)
    if not isinstance(role, str):
        raise UserError(f"{place}: {role_key!r} is {type_name(role)} instead of text; mend the row")
    key = "content" if "content" in turn else "value"
    text = turn.get(key)
    if isinstance(text, list):  # OpenAI's content parts
        parts = [part.get("text") if isinstance(part, dict) else part for part in text]
        text = "".join(_text(part, key, place) for part in parts)
    return role.strip().lower(), _text(text, key, place)


def _text(value, column: str, place: str) -> str:
    if value is None or value != value:  # pandas writes NaN for an empty cell
        return ""
    if not isinstance(value, str):
        raise UserError(f"{place}: {column!r} is {type_name(value)} instead of text; mend the row")
    if _SURROGATE.search(value):
        raise UserError(f"{place}: {column!r} has half a surrogate pair (\\ud800 to \\udfff); mend the row")
    return value


def _id(value, place: str) -> str:
    return str(value) if isinstance(value, int | float) and value == value else _text(value, "id", place)


def _flaw(record: dict) -> str:
    if any("\0" in value for value in record.values()):
        return "NUL character"  # Apertium and others end a text at it
    if not record["instruction"].strip():
        return "no instruction"
    return "" if record["output"].strip() else "no answer"


class _Seen:
    """The ids and texts so far, on disk: SQLite's unnamed database leaves memory when it grows."""

    def __init__(self):
        self._db = sqlite3.connect("")
        for table in ("ids", "own", "exact", "near"):
            self._db.execute(f"CREATE TABLE {table} (key BLOB PRIMARY KEY) WITHOUT ROWID")

    def close(self) -> None:
        self._db.close()

    def _is_new(self, table: str, text: str) -> bool:
        key = hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
        return self._db.execute(f"INSERT OR IGNORE INTO {table} VALUES (?)", (key,)).rowcount == 1

    def new_id(self, given: str, stem: str, default: str, place: str) -> str:
        """The row's own id, which must be new in its source; where another source has it, with the stem before it."""
        if given and not self._is_new("own", f"{stem}\0{given}"):
            raise UserError(f"{place}: id {given!r} stands twice; give each row its own")
        firsts = [given, f"{stem}-{given}"] if given else [default]
        more = (f"{firsts[-1]}-{n}" for n in count(2))
        return next(name for name in chain(firsts, more) if self._is_new("ids", name))

    def twin(self, record: dict) -> str:
        """Why the record is left out, if one like it was before."""
        question, answer = (record["instruction"], record["input"]), record["output"]
        if not self._is_new("exact", "\0".join((*question, answer))):
            return "duplicate"
        near = f"{normalise(' '.join(question))}\0{normalise(answer)}"
        return "" if self._is_new("near", near) else "near duplicate"


class _Blanks(dict):
    """For `str.translate`: white space and punctuation become blanks."""

    def __missing__(self, code: int) -> int:
        c = chr(code)
        self[code] = 0x20 if c.isspace() or unicodedata.category(c)[0] == "P" else code
        return self[code]


_BLANKS = _Blanks()


def normalise(text: str) -> str:
    """NFKC, case folded, runs of white space and punctuation one blank; nothing but those stays as it is."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_BLANKS).split()) or text
