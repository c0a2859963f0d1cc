"""D: English (or other source-language) instructions with answers, in Alpaca's format, JSON or JSONL."""

import json
from collections import Counter
from pathlib import Path

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import read_jsonl, read_text


def read(paths: list[str], max_samples: int | None) -> tuple[list[dict], Counter]:
    """Read rows {instruction, input, output[, id, held_out]} as records, and count what was left out by reason.

    Left out: rows marked `held_out` (they are for evaluation), rows without question or answer, and duplicates.
    """
    records, rejected, ids, seen = [], Counter(), set(), set()
    for path in paths:
        found = False
        for place, row in _rows(path):
            found = True
            record = _record(row, place, f"{Path(path).stem}-{len(ids):06d}")
            if record["id"] in ids:
                raise UserError(f"{place}: id {record['id']!r} stands twice; give each row its own")
            ids.add(record["id"])
            key = (record["instruction"], record["input"], record["output"])
            if row.get("held_out"):
                rejected["held out"] += 1
            elif not record["instruction"].strip():
                rejected["no instruction"] += 1
            elif not record["output"].strip():
                rejected["no answer"] += 1
            elif key in seen:
                rejected["duplicate"] += 1
            else:
                seen.add(key)
                records.append(record)
            if len(records) == max_samples:
                return records, rejected
        if not found:
            raise UserError(f"{path}: no rows in it; name a file of {{instruction, input, output}} rows")
    if not records:
        raise UserError(f"{paths[0]}: no usable row ({_told(rejected)}); name a file with questions and answers")
    return records, rejected


def _told(counts: Counter) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in counts.items())


def _rows(path: str):
    """Yield (place, row)."""
    suffix = Path(path).suffix
    if suffix not in (".json", ".jsonl"):
        raise UserError(f"{path}: {suffix or 'no'} suffix; instructions are .json or .jsonl in Alpaca's format")
    if suffix == ".jsonl":
        for number, row in read_jsonl(path):
            yield f"{path}:{number}", row
        return
    text = read_text(path)
    if not text.strip():
        return
    try:
        rows = json.loads(text)
    except ValueError as err:
        raise UserError(f"{path}:{getattr(err, 'lineno', 1)}: not JSON ({err}); mend the file") from None
    if not isinstance(rows, list):
        raise UserError(f"{path}: a JSON {type(rows).__name__} instead of a list of rows; is it a .jsonl file?")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {number} is {type(row).__name__} instead of an object; mend the row")
        yield f"{path}: row {number}", row


def _record(row: dict, place: str, default_id: str) -> dict:
    for key in ("instruction", "output"):
        if key not in row:
            raise UserError(f"{place}: no {key!r} (keys: {', '.join(map(str, row))}); rename the column")
    record = {"id": default_id if row.get("id") in (None, "") else str(row["id"])}
    for key in ("instruction", "input", "output"):
        value = row.get(key)
        value = "" if value is None else value
        if not isinstance(value, str):
            raise UserError(f"{place}: {key!r} is {type(value).__name__} instead of text; mend the row")
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise UserError(f"{place}: {key!r} has half a surrogate pair (\\ud800 to \\udfff); mend the row")
        record[key] = value
    return record
