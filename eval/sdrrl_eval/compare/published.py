"""The paper's published figures (Tables 2 to 12), and runs set beside them.

paper/table<N>.json: {"table", "title", "model", "columns", "notes", "blocks"}, a row a system, its last number the
printed AVG. where there is one. A block's column is a language, or, where it has "of", the mean over the (task, metric,
side) named there. "notes" say where the paper contradicts itself; its figures stand here as they are printed.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files

from sdrrl_eval import show
from sdrrl_eval.compare.rescoring import signature_parts
from sdrrl_eval.compare.runs import ENGLISH, Run, score_of
from sdrrl_eval.compare.tables import Block, Cell, Table, ranked
from sdrrl_factory.errors import UserError

# What the figures stand on: the paper's BLEU signature (appendix A) names its tokenizer; it names no examples in its
# prompts, and takes the benchmarks whole: the test sets of XL-SUM's second version, MKQA's questions with an answer.
_TOKENIZER, _SHOTS = "flores200", 0
_ITEMS = {"belebele": 900, "flores": 1012, "mkqa": 6758}
_XLSUM = {"eng": 11535, "ind": 4780, "jpn": 889, "kor": 550, "por": 7175, "tha": 826, "ukr": 5399, "vie": 4013}
# Marks of a cell whose score stands on something else.
_MARKS = {"ᵗ": "another BLEU tokenizer than the paper's", "ⁿ": "another number of items", "ˢ": "examples in the prompt"}
_SETS = {f"table{n}": [n] for n in range(2, 13)} | {"llama2": [2, 3, 4, 5], "seallm": [8, 9, 10, 11]}
SIDES = {
    "target": "target languages",
    "english": "English, by the language taught",
    "to_english": "X → English",
    "from_english": "English → X",
}
_CAVEAT = (
    "Published figures of the SDRRL paper's Table {table} ({model}), above the line, not measured here; test items, "
    "prompt, decoding and versions may differ from those below it."
)


def tables(name: str) -> list[dict]:
    """The data of "table2" ... "table12", "llama2" (Tables 2 to 5) or "seallm" (8 to 11)."""
    if name not in _SETS:
        raise UserError(f"--paper {name}: unknown; known: {', '.join(_SETS)}")
    return [
        json.loads((files("sdrrl_eval") / "compare" / "paper" / f"table{n}.json").read_text("utf-8"))
        for n in _SETS[name]
    ]


def beside(runs: Sequence[Run], name: str) -> list[Table]:
    """The paper's tables with a row for each run below the paper's, of what any of the runs has."""
    found = [table for data in tables(name) if (table := _table(data, runs))]
    if not found:
        raise UserError(f"--paper {name}: the runs have no score of it; evaluate its tasks and languages first")
    return found


def _table(data: dict, runs: Sequence[Run]) -> Table | None:
    """Without the columns and rows of which the runs have nothing; None where nothing is left."""
    blocks, there, bases, marked = [], set(), {}, set()
    for block in data["blocks"]:
        values = [_values(data, block, run) for run in runs]
        if data.get("gain"):
            values = [_minus(row, values[0]) for row in values]
        if not any(value is not None for row in values for value in row):
            continue
        there |= {c for row in values for c, value in enumerate(row) if value is not None}
        marks = [_marks(data, block, run) for run in runs]
        cells = [
            [replace(cell, marks=mark if cell.text != "–" else "") for cell, mark in zip(*row, strict=True)]
            for row in zip(ranked(values, 2), marks, strict=True)
        ]
        marked |= {mark for row in cells for cell in row for mark in cell.marks}
        ours = [(run.name, row) for run, row in zip(runs, cells, strict=True) if any(c.text != "–" for c in row)]
        paper = list(zip((f"{n} (paper)" for n in block["rows"]), ranked([*block["rows"].values()], 2), strict=True))
        blocks.append(Block(_name(data, block), ours, paper))
        if "metric" in block:
            found = [score_of(run, key) for run in runs for key in map(_keys(data, block), data["columns"][:-1])]
            told = dict.fromkeys(f"n {s['n']}, {s['signature']}" for s in found if s)
            bases |= dict.fromkeys(f"{show.metric(block['metric'])[:-2]} here: {line}" for line in told)
    kept = [c for c in range(len(data["columns"])) if c in there]
    left_out = [_head(column) for c, column in enumerate(data["columns"]) if c not in there]
    notes = [_CAVEAT.format(**data), *(f"In the paper: {note}" for note in data["notes"])]
    notes += [f"Not in the runs, left out: {', '.join(left_out)}."] * bool(left_out)
    notes += [f"{mark} {what}" for mark, what in _MARKS.items() if mark in marked]
    title = f"{data['title']} (the paper's Table {data['table']})"
    columns = [_head(data["columns"][c]) for c in kept]
    blocks = [Block(b.name, _only(b.rows, kept), _only(b.published, kept)) for b in blocks]
    return Table(title, columns, blocks, [*notes, *bases]) if blocks else None


def _head(column: str) -> str:
    return column.upper() if len(column) == 3 else column


def _only(rows: Sequence[tuple[str, list[Cell]]], columns: Sequence[int]) -> list[tuple[str, list[Cell]]]:
    return [(name, [cells[c] for c in columns]) for name, cells in rows]


def _marks(data: dict, block: dict, run: Run) -> list[str]:
    """Of each column, how the run's score differs from the paper's in what it stands on; an average has its scores'."""
    if "of" in block:
        keys = [[key for one in column for key in _of_side(run, *one)] for column in block["of"]]
    else:
        keys = [[key] for key in map(_keys(data, block), data["columns"][:-1])]
    # The average's column is the last, in tables that have one.
    keys += [sum(keys, [])] * (len(data["columns"]) - len(keys))
    marks = [{mark for key in column if (s := score_of(run, key)) for mark in _mark(key, s)} for column in keys]
    return ["".join(mark for mark in _MARKS if mark in column) for column in marks]


def _mark(key: tuple, score: dict) -> str:
    task, metric, _, lang, _ = key
    parts = signature_parts(score["signature"])
    items = _XLSUM.get(lang) if task == "xlsum" else _ITEMS.get(task)
    marks = "ᵗ" if metric == "bleu" and parts.get("tok") != _TOKENIZER else ""
    marks += "ⁿ" if items not in (None, score["n"]) else ""
    return marks + ("ˢ" if parts.get("shots", str(_SHOTS)) != str(_SHOTS) else "")


def _name(data: dict, block: dict) -> str:
    side = SIDES.get(block.get("side"), "averages")
    return f"{show.metric(block['metric'])}, {side}" if "metric" in block else side


def _values(data: dict, block: dict, run: Run) -> list[float | None]:
    if "of" in block:
        values = [_mean([_over_languages(run, *key) for key in column]) for column in block["of"]]
    else:
        found = [score_of(run, key) for key in map(_keys(data, block), data["columns"][:-1])]
        values = [score["value"] if score else None for score in found]
    return [*values, _mean(values)] if data["columns"][-1] == "AVG." else values


def _keys(data: dict, block: dict):
    task, metric = data["task"], block["metric"]
    return {
        "target": lambda lang: (task, metric, None, lang, None),
        "english": lambda lang: (task, metric, None, ENGLISH, lang),
        "to_english": lambda lang: (task, metric, lang, ENGLISH, None),
        "from_english": lambda lang: (task, metric, ENGLISH, lang, None),
    }[block["side"]]


def _over_languages(run: Run, task: str, metric: str, side: str) -> float | None:
    return _mean([run.scores[key]["value"] for key in _of_side(run, task, metric, side)])


def _of_side(run: Run, task: str, metric: str, side: str) -> list[tuple]:
    """The keys of the run's scores on one side of a task, over all its languages."""

    def belongs(source: str | None, target: str) -> bool:
        if side == "target":
            return not source and target != ENGLISH
        if side == "english":
            return not source and target == ENGLISH
        return (target if side == "to_english" else source) == ENGLISH and source is not None

    return [key for key in run.scores if key[:2] == (task, metric) and belongs(*key[2:4])]


def _mean(values: Sequence[float | None]) -> float | None:
    """None unless every part is there: a mean over fewer languages is another figure."""
    return sum(values) / len(values) if values and None not in values else None


def _minus(row: list[float | None], base: list[float | None]) -> list[float | None]:
    return [None if a is None or b is None else a - b for a, b in zip(row, base, strict=True)]
