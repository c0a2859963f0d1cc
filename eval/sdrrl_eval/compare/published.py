"""The paper's published figures (Tables 2 to 12), and runs set beside them.

paper/table<N>.json: {"table", "title", "model", "columns", "notes", "blocks"}, a row a system, its last number the
printed AVG. where there is one. A block's column is a language, or, where it has "of", the mean over the (task, metric,
side) named there. "notes" say where the paper contradicts itself; its figures stand here as they are printed.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files

from sdrrl_eval import remarks, show
from sdrrl_eval.compare.rescoring import signature_parts
from sdrrl_eval.compare.runs import ENGLISH, Key, Run
from sdrrl_eval.compare.shared import SIDES
from sdrrl_eval.compare.tables import Block, Line, Table, ranked
from sdrrl_factory.errors import UserError

# What the figures stand on: the paper's BLEU signature (appendix A) names its tokenizer; it names no examples in its
# prompts, and takes the benchmarks whole: the test sets of XL-SUM's second version, MKQA's questions with an answer.
_TOKENIZER, _SHOTS = "flores200", "0"
_ITEMS = {"belebele": 900, "flores": 1012, "mkqa": 6758}
_XLSUM = {"eng": 11535, "ind": 4780, "jpn": 889, "kor": 550, "por": 7175, "tha": 826, "ukr": 5399, "vie": 4013}
# Marks of a cell whose score stands on something else.
_MARKS = {"ᵗ": "another BLEU tokenizer than the paper's", "ⁿ": "another number of items", "ˢ": "examples in the prompt"}
SETS = {f"table{n}": [n] for n in range(2, 13)} | {"llama2": [2, 3, 4, 5], "seallm": [8, 9, 10, 11]}
_DASH = "–"
_CAVEAT = (
    "Published figures of the SDRRL paper's Table {table} ({model}), above the line, not measured here; test items, "
    "prompt, decoding and versions may differ from those below it."
)


def tables(name: str) -> list[dict]:
    """The data of "table2" ... "table12", "llama2" (Tables 2 to 5) or "seallm" (8 to 11)."""
    if name not in SETS:
        raise UserError(f"--paper {name}: unknown", f"known: {', '.join(SETS)}")
    folder = files("sdrrl_eval") / "compare" / "paper"
    return [json.loads((folder / f"table{number}.json").read_text("utf-8")) for number in SETS[name]]


def beside(runs: Sequence[Run], name: str) -> list[Table]:
    """The paper's tables with a line for each run below the paper's, of what any of the runs has."""
    found = [table for data in tables(name) if (table := _table(data, runs)) is not None]
    if not found:
        raise UserError(f"--paper {name}: the runs have no score of it", "evaluate its tasks and languages first")
    return found


def _table(data: dict, runs: Sequence[Run]) -> Table | None:
    """One table of the paper; None where the runs have nothing of it."""
    # 1. The blocks of which the runs have something, with all of the paper's columns.
    blocks: list[Block] = []
    filled: set[int] = set()
    marked: set[str] = set()
    basis: dict[str, None] = {}
    for block in data["blocks"]:
        keys = [_keys(data, block, run) for run in runs]
        values = [_values(data, block, run) for run in runs]
        if data.get("gain"):
            # The first run is the one over which the others gain.
            values = [_minus(row, values[0]) for row in values]
        columns = {c for row in values for c, value in enumerate(row) if value is not None}
        if not columns:
            continue
        filled |= columns
        lines = []
        for run, run_keys, cells in zip(runs, keys, ranked(values, 2), strict=True):
            marks = [_marks(run, column) for column in run_keys]
            cells = [replace(c, marks="" if c.text == _DASH else m) for c, m in zip(cells, marks, strict=True)]
            cells = [
                cell if cell.text == _DASH else replace(cell, remarks=_remarks(run, column))
                for cell, column in zip(cells, run_keys, strict=True)
            ]
            marked |= {mark for c in cells for mark in c.marks}
            if any(c.text != _DASH for c in cells):
                lines.append(Line(run.name, cells))
        names = [f"{system} (paper)" for system in block["rows"]]
        paper = [Line(name, row) for name, row in zip(names, ranked([*block["rows"].values()], 2), strict=True)]
        blocks.append(Block(_name(block), lines, paper))
        if "metric" in block:
            scores = [run.score(key) for run, run_keys in zip(runs, keys, strict=True) for (key,) in run_keys[:-1]]
            metric = show.metric(block["metric"]).rpartition(" ")[0]
            basis |= dict.fromkeys(f"{metric} here: n {s['n']}, {s['signature']}" for s in scores if s)
    if not blocks:
        return None

    # 2. Without the columns of which the runs have nothing.
    kept = [c for c in range(len(data["columns"])) if c in filled]
    left_out = [_head(column) for c, column in enumerate(data["columns"]) if c not in filled]
    blocks = [Block(b.name, _only(b.lines, kept), _only(b.published, kept)) for b in blocks]

    # 3. What has to be said of it.
    notes = [_CAVEAT.format(**data), *(f"In the paper: {note}" for note in data["notes"])]
    if left_out:
        notes.append(f"Not in the runs, left out: {', '.join(left_out).removesuffix('.')}.")
    notes += [f"{mark} {what}" for mark, what in _MARKS.items() if mark in marked]
    title = f"{data['title']} (the paper's Table {data['table']})"
    return Table(title, [_head(data["columns"][c]) for c in kept], blocks, [*notes, *basis])


def _head(column: str) -> str:
    return column.upper() if len(column) == 3 else column


def _only(lines: Sequence[Line], columns: Sequence[int]) -> list[Line]:
    return [Line(line.name, [line.cells[c] for c in columns]) for line in lines]


def _name(block: dict) -> str:
    side = SIDES[block["side"]] if "side" in block else "averages"
    return f"{show.metric(block['metric'])}, {side}" if "metric" in block else side


def _keys(data: dict, block: dict, run: Run) -> list[list[Key]]:
    """The keys of the run's scores that stand in each column; an average has those of all columns before it."""
    if "of" in block:
        columns = [[key for part in column for key in _of_side(run, *part)] for column in block["of"]]
    else:
        columns = [[_key(data["task"], block["metric"], block["side"], lang)] for lang in data["columns"][:-1]]
    if len(columns) < len(data["columns"]):
        columns.append([key for column in columns for key in column])
    return columns


def _key(task: str, metric: str, side: str, lang: str) -> Key:
    if side == "target":
        return task, metric, None, lang, None
    if side == "english":
        return task, metric, None, ENGLISH, lang
    if side == "to_english":
        return task, metric, lang, ENGLISH, None
    return task, metric, ENGLISH, lang, None


def _of_side(run: Run, task: str, metric: str, side: str) -> list[Key]:
    """The keys of the run's scores on one side of a task, over all its languages."""
    keys = []
    for key in run.scores:
        source, target = key[2], key[3]
        is_on_side = {
            "target": not source and target != ENGLISH,
            "english": not source and target == ENGLISH,
            "to_english": bool(source) and target == ENGLISH,
            "from_english": source == ENGLISH,
        }[side]
        if key[:2] == (task, metric) and is_on_side:
            keys.append(key)
    return keys


def _values(data: dict, block: dict, run: Run) -> list[float | None]:
    """The run's value in each column; None where it has none."""
    values: list[float | None] = []
    if "of" in block:
        for column in block["of"]:
            # A mean over benchmarks of means over languages.
            values.append(_mean([_mean([run.scores[key]["value"] for key in _of_side(run, *p)]) for p in column]))
    else:
        for lang in data["columns"][:-1]:
            score = run.score(_key(data["task"], block["metric"], block["side"], lang))
            values.append(score["value"] if score else None)
    if data["columns"][-1] == "AVG.":
        values.append(_mean(values))
    return values


def _mean(values: Sequence[float | None]) -> float | None:
    """None unless every part is there: a mean over fewer languages is another figure."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present and len(present) == len(values) else None


def _minus(row: list[float | None], base: list[float | None]) -> list[float | None]:
    return [None if a is None or b is None else a - b for a, b in zip(row, base, strict=True)]


def _remarks(run: Run, keys: Sequence[Key]) -> str:
    return remarks.marks({"remarks": remarks.total([score for key in keys if (score := run.score(key))])})


def _marks(run: Run, keys: Sequence[Key]) -> str:
    """How the run's scores of a column differ from the paper's in what they stand on."""
    marks = set()
    for key in keys:
        score = run.score(key)
        if score is None:
            continue
        task, metric, _, lang, _ = key
        signature = signature_parts(score["signature"])
        items = _XLSUM.get(lang) if task == "xlsum" else _ITEMS.get(task)
        if metric == "bleu" and signature.get("tok") != _TOKENIZER:
            marks.add("ᵗ")
        if items is not None and items != score["n"]:
            marks.add("ⁿ")
        if signature.get("shots", _SHOTS) != _SHOTS:
            marks.add("ˢ")
    return "".join(mark for mark in _MARKS if mark in marks)
