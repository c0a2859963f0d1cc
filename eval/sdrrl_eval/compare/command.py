"""Sets evaluations side by side: on the terminal, in Markdown, in LaTeX, and in report.html."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sdrrl_eval import resampling, show
from sdrrl_eval.compare import cases, export, published, report, runs, tables
from sdrrl_eval.compare.differences import differences
from sdrrl_eval.compare.runs import ENGLISH, Row, Run
from sdrrl_eval.compare.tables import Block, Table
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import atomic_write
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.rows import read_rows

_CHANGES = 3  # up to so many runs, each has its change against the base beside it


@dataclass(frozen=True)
class _Layout:
    """A table of the paper's layout before its cells are written: blocks of (name, rows), a row a column."""

    title: str
    columns: list[str]
    blocks: list[tuple[str, list[Row]]]


def compare(
    run_dirs: list[str],
    train_log: str | None = None,
    output: str | None = None,
    markdown: str | None = None,
    latex: str | None = None,
    paper: str | None = None,
    case_ids: str | None = None,
    tsne: str | None = None,
    json: str | None = None,
    csv: str | None = None,
    correct: str | None = None,
    sacrebleu: str | None = None,
) -> str:
    """Print the tables of two or more systems, the first being the base; returns the path of the report.

    Args:
        run_dirs: evaluation folders, each FOLDER or NAME=FOLDER, or NAME=FOLDER,FOLDER for one checkpoint a language.
        train_log: a LLaMA-Factory trainer_log.jsonl; its per-subset losses are drawn into the report.
        output: the report's path; None is report.html in the last folder.
        markdown, latex: files the tables are written to as well; json, csv: every score, interval and p-value.
        paper: "table2" ... "table12", "llama2" or "seallm": the published figures; then one system is enough.
        case_ids: the ids of the case study's items, comma between; None takes the most changed ones.
        tsne: a folder `sdrrl tsne` wrote; its picture goes into the report.
        correct: "holm" corrects the p-values for the number of tests.
        sacrebleu: "bs" or "ar": the p-values of `sacrebleu --paired-bs` or `--paired-ar` stand beside.
    """
    if len(run_dirs) < (1 if paper else 2):
        raise UserError("compare: fewer than two evaluation folders; name the base's first, then the others")
    runs.predictions.cache_clear()
    systems = _named([runs.read_run(text) for text in run_dirs], run_dirs)
    beside = published.beside(systems, paper) if paper else []
    picture = report.picture(tsne) if tsne else ""
    rows, left_out = runs.rows(systems)
    layouts, rest = _layouts(rows)
    family = rows + [row for layout in layouts for _, (*_, row) in layout.blocks]
    tests = [p for row in family for p in row.tests.values()]
    if correct:
        corrected = resampling.holm(tests)
        family, rows, rest = ([replace(row, corrected=corrected) for row in some] for some in (family, rows, rest))
        layouts = [_corrected(layout, corrected) for layout in layouts]
    legend = _legend(len(tests), correct) if len(systems) > 1 else _RANKS
    said = differences(systems)
    scores = export.entries(systems, family, sacrebleu)
    wide = [_table(systems, layout) for layout in layouts]
    groups = _groups(rest)
    notes = _notes(systems, rows, left_out) + _sacrebleu_notes(scores, sacrebleu)
    pages = report.Content(
        systems,
        wide + beside,
        groups,
        rows,
        notes,
        read_curves(train_log) if train_log else {},
        picture,
        cases.pick(systems, rows, case_ids.split(",") if case_ids else None),
        cases.first(systems, rows),
        said,
        legend,
    )
    target = Path(output) if output else systems[-1].folders[-1] / "report.html"
    _write(target, report.page(pages))
    written = [*wide, *_narrow(systems, groups), *beside]
    for path, text in (
        (markdown, lambda: tables.markdown(written, legend, said)),
        (latex, lambda: tables.latex(written, legend, said)),
        (json, lambda: export.as_json(scores, legend, said, correct)),
        (csv, lambda: export.as_csv(scores)),
    ):
        if path:
            _write(Path(path), text())
    _print(systems, groups, [*wide, *beside], said, [legend, *notes])
    print(f"report: {target}")
    return str(target)


_RANKS = "Bold: best; underlined: second best."


def _legend(tests: int, correct: str | None) -> str:
    """What the marks mean, and how many of them chance alone would make."""
    marks = (
        f"{_RANKS} † differs from the first system, ‡ the best from the second best (two-sided p < {resampling.LEVEL}: "
        "exact McNemar test where items are right or wrong, else approximate randomisation, "
        f"{resampling.PERMUTATIONS:,} permutations, seed {resampling.SEED})."
    )
    if correct:
        chance = "of 100 comparisons without any difference, at most 5 have a mark."
        return f"{marks} {tests} tests, p corrected by Holm: {chance}"
    chance = f"{tests * resampling.LEVEL:.1f}"
    return f"{marks} {tests} tests, not corrected: without any difference, chance alone would mark about {chance}."


def _corrected(layout: _Layout, corrected: dict[float, float]) -> _Layout:
    blocks = [(name, [replace(row, corrected=corrected) for row in rows]) for name, rows in layout.blocks]
    return replace(layout, blocks=blocks)


def _sacrebleu_notes(scores: Sequence[dict], test: str | None) -> list[str]:
    said = [
        f"{show.label(s['task'], s['metric'])[:-2]} {show.direction(s)}: {s['system']} {s['p_sacrebleu']:.3f}"
        for s in scores
        if s.get("p_sacrebleu") is not None
    ]
    return [f"p by sacrebleu --paired-{test}, not corrected: {'; '.join(said)}"] if said else []


def _write(path: Path, text: str) -> None:
    try:
        atomic_write(path, text)
    except OSError as err:
        raise UserError(f"{path}: cannot be written ({err.strerror}); name another file") from None


def _named(systems: list[Run], texts: list[str]) -> list[Run]:
    """The folders' names; what was typed where names clash."""
    if len({run.name for run in systems}) == len(systems):
        return systems
    return [replace(run, name=text) for run, text in zip(systems, texts, strict=True)]


def _layouts(rows: Sequence[Row]) -> tuple[list[_Layout], list[Row]]:
    """(the paper's layout of every score there is in two languages or more; the rows that are left)."""
    blocks: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        blocks.setdefault((row.scores[0]["task"], row.metric, _side(row)), {})[row.of or row.language] = row
    found: dict[tuple, list[tuple[str, list[Row]]]] = {}
    rest = []
    for (task, metric, side), columns in blocks.items():
        if len(columns) < 2:
            rest += columns.values()
            continue
        shown = [*columns.values(), runs.average([*columns.values()])]
        name = f"{show.metric(metric)}, {published.SIDES[side]}" if task != metric else published.SIDES[side]
        found.setdefault((task, *columns), []).append((name, shown))
    out = []
    for (task, *columns), lines in found.items():
        title = show.label(task, task) if (task, task) in {(r.scores[0]["task"], r.metric) for r in rows} else task
        heads = [*(code.upper() for code in columns), "AVG."]
        out.append(_Layout(show.task(title) if title == task else title, heads, lines))
    return out, rest


def _table(systems: list[Run], layout: _Layout) -> Table:
    blocks = [
        Block(name, [(run.name, [row.cell(i) for row in rows]) for i, run in enumerate(systems)])
        for name, rows in layout.blocks
    ]
    basis = _bases([row for _, rows in layout.blocks for row in rows if not row.parts])
    return Table(layout.title, layout.columns, blocks, basis=basis)


def _side(row: Row) -> str:
    if row.scores[0]["source_lang"]:
        return "to_english" if row.scores[0]["target_lang"] == ENGLISH else "from_english"
    return "english" if row.language == ENGLISH else "target"


def _groups(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """(language name, its rows), English last: what was to be learned, then what was to be kept."""
    codes = sorted(dict.fromkeys(row.language for row in rows), key=lambda code: code == ENGLISH)
    return [(language_name(code), [row for row in rows if row.language == code]) for code in codes]


def language_name(code: str) -> str:
    return LANGUAGES[code].name if code in LANGUAGES else code


def _narrow(systems: list[Run], groups: list[tuple[str, list[Row]]]) -> list[Table]:
    """A row a score, a column a system: what one language has of scores."""
    blocks = [
        Block(
            name,
            [
                (f"{row.label}, {show.direction(row.scores[0])}", [row.cell(i) for i in range(len(systems))])
                for row in rows
            ],
        )
        for name, rows in groups
    ]
    basis = _bases([row for _, rows in groups for row in rows])
    return [Table("Scores", [run.name for run in systems], blocks, basis=basis)] if blocks else []


def _notes(systems: list[Run], rows: Sequence[Row], left_out: Sequence[str]) -> list[str]:
    """What each number stands on, and what is missing."""
    notes = _bases(sorted(rows, key=lambda row: row.language == ENGLISH))
    few = [row for row in rows if not row.mismatch and row.few]
    untested = [row for row in rows if not (row.mismatch or row.few) and None in row.statistics]
    if few and len(systems) > 1:
        notes.append(f"no p-value, of fewer than {resampling.MIN_ITEMS} items: {_called(few)}")
    if untested and len(systems) > 1:
        notes.append(f"no p-value, as predictions/ is not there or does not give the score: {_called(untested)}")
    if left_out:
        notes.append(f"not in every run, left out: {', '.join(left_out)}")
    return notes


def _bases(rows: Sequence[Row]) -> list[str]:
    """n and signature, rows that share them on one line."""
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(_basis(row), []).append(row)
    return [f"{_called(same)}: {basis}" for basis, same in lines.items()]


def _called(rows: Sequence[Row]) -> str:
    """ "MKQA F1 dan, fin; XL-SUM ROUGE-1 ind"."""
    names: dict[str, dict[str, None]] = {}
    for row in rows:
        names.setdefault(row.label[:-2], {})[show.direction(row.scores[0])] = None
    return "; ".join(f"{label} {', '.join(where)}" for label, where in names.items())


def _basis(row: Row) -> str:
    each = dict.fromkeys(f"n {s['n']}, {s['signature']}" for s in row.scores)
    said = f" ({row.mismatch}: not comparable)" if row.mismatch else f" ({row.common})" if row.common else ""
    return " against ".join(each) + said


def read_curves(train_log: str) -> dict[str, list[tuple[int, float]]]:
    """Per subset (LL, TL, ...) its (step, loss) points; the total ("all") where the log has no subsets.

    A step logged twice (a resumed run) keeps its last loss.
    """
    points: dict[str, dict[int, float]] = {}
    for at, _, row in read_rows(train_log):
        losses = {m[1] or "all": row[key] for key in row if (m := re.fullmatch(r"loss(?:_([A-Za-z]\w*))?", key))}
        for name, loss in losses.items():
            if not isinstance(row.get("current_steps"), int) or not runs.finite(loss):
                raise UserError("current_steps or a loss is no number", "remove the line", at=at)
            points.setdefault(name, {})[row["current_steps"]] = float(loss)
    if not points:
        raise UserError(f"{train_log}: no line with a loss; name the trainer_log.jsonl in the training's output_dir")
    if len(points) > 1:
        points.pop("all", None)
    return {name: sorted(curve.items()) for name, curve in points.items()}


def _print(systems: list[Run], groups: list, wide: list[Table], said: list[str], notes: list[str]) -> None:
    from rich.text import Text

    console = show.console()
    for line in said:
        console.print(Text(f"differs: {line}", style="yellow"), soft_wrap=True)
    if said:
        console.print()
    tables.terminal(wide, console)
    if groups:
        console.print(_grid(systems, groups))
        console.print()
    for line in notes:
        console.print(Text(line, style="dim"), soft_wrap=True)


def _grid(systems: list[Run], groups: list[tuple[str, list[Row]]]):
    from rich.table import Table as Rich
    from rich.text import Text

    changes = len(systems) <= _CHANGES
    table = Rich(box=None, pad_edge=False, header_style="bold")
    table.add_column("score", no_wrap=True)
    table.add_column("language", no_wrap=True)
    for i, run in enumerate(systems):
        table.add_column(Text(run.name), justify="right")
        if i and changes:
            table.add_column("change")
    colours = {"better": "green", "worse": "red", "same": "dim"}
    looks = {1: "bold", 2: "underline"}
    for name, rows in groups:
        table.add_row(Text(name, style="bold"))
        for row in rows:
            cells = [Text(f"  {row.label}"), Text(show.direction(row.scores[0]))]
            for i in range(len(systems)):
                marks = "" if changes else row.marks(i)
                cells.append(Text(row.value(i), style=looks.get(row.ranks[i], "")) + Text(marks))
                if i and changes:
                    text, marks = row.change(i)[0], row.marks(i)
                    cells.append(Text(f"{text} {marks}".rstrip(), style=colours[row.colour(i)]))
            table.add_row(*cells)
    return table
