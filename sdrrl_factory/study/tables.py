"""The tables of a study, from what is kept of its trainings: no model is needed any more.

A system's score is the mean over its seeds, and over languages the mean of these; the seeds are pooled in the tests: an
item is swapped between two systems in all seeds together, as parallel items are in all languages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sdrrl_eval import resampling, show
from sdrrl_eval.compare import layout, published
from sdrrl_eval.compare.markdown import markdown
from sdrrl_eval.compare.runs import Run
from sdrrl_eval.compare.shared import SharedScore, average, average_over_languages
from sdrrl_eval.compare.tables import Block, Cell, Line, Table
from sdrrl_factory.errors import UserError
from sdrrl_factory.study import picture
from sdrrl_factory.study.kept import Kept, read_kept
from sdrrl_factory.study.plan import Plan, systems
from sdrrl_factory.study.recipe import Backbone, StudyConfig, StudyTable
from sdrrl_factory.study.systems import BASE

# (system, language, seed) -> its run; of the untrained backbone and of what is trained for all languages, any seed's.
Cells = dict[tuple[str, str, int], Kept]


@dataclass(frozen=True)
class Made:
    """The tables of a study.

    text: in Markdown. shown: the same as data, for the terminal. missing: the systems that tables lack, a line each.
    pictures: file name -> SVG, a picture a table.
    """

    text: str
    shown: list[Table]
    missing: list[str]
    pictures: dict[str, str]


def tables(config: StudyConfig, plan: Plan) -> Made:
    """All tables of a study, from what is kept so far: a system appears once all of its seeds and languages are there.

    Raises: UserError where nothing is kept yet.
    """
    kept = list(read_kept(config, plan))
    if not kept:
        raise UserError("nothing is measured yet", "run the study first", at=str(config.kept_folder))
    parts: list[str] = []
    shown: list[Table] = []
    missing: list[str] = []
    pictures: dict[str, str] = {}
    for backbone in config.backbones:
        for table in config.tables:
            cells = _cells(config, table, [run for run in kept if run.one.backbone == backbone.name])
            names = [table.against, *(name for name in (BASE, *table.systems) if name != table.against)]
            there = [name for name in names if _is_whole(config, table, cells, name)]
            absent = [name for name in names if name not in there]
            if absent:
                missing.append(f"{backbone.name}, {table.name}: not measured yet: {', '.join(absent)}")
            if len(there) < 2:
                continue
            made, legend, drawn = _compared(config, backbone, table, cells, there)
            shown += made
            title = table.title or table.name
            heading = f"{title}, {backbone.name}" if len(config.backbones) > 1 else title
            file = f"{config.name}-{backbone.name}-{table.name}.svg"
            pictures[file] = drawn
            parts.append(f"## {heading}\n\n![{heading}]({file})\n\n{markdown(made, legend)}")
    return Made("\n".join(parts), shown, missing, pictures)


def _cells(config: StudyConfig, table: StudyTable, kept: Sequence[Kept]) -> Cells:
    cells: Cells = {}
    for run in kept:
        one = run.one
        if one.system == BASE:
            cells |= {(BASE, one.language, seed): run for seed in table.seeds}
        elif one.budget == table.budget and one.seed in table.seeds:
            cells[one.system, one.language, one.seed] = run
    return cells


def _is_whole(config: StudyConfig, table: StudyTable, cells: Cells, system: str) -> bool:
    return all((system, code, seed) in cells for code in config.languages for seed in table.seeds)


def _compared(
    config: StudyConfig, backbone: Backbone, table: StudyTable, cells: Cells, names: Sequence[str]
) -> tuple[list[Table], str, str]:
    """(the tables of systems, the first being the one that the others are tested against; legend; picture)."""
    labels = [backbone.name if name == BASE else systems(config)[name].label for name in names]
    # 1. Each score in each language, its seeds pooled.
    by_language: dict[str, list[SharedScore]] = {}
    for code in config.languages:
        by_language[code] = _of_language(config, table, cells, names, code)
    scores = [score for of_language in by_language.values() for score in of_language]
    # 2. Averages over languages; the paper's shape where there are several.
    averages, single = average_over_languages(scores)
    averages = [_over_seeds_too(one) for one in averages]
    runs = [Run(label, [], label, {}) for label in labels]
    # The one that is tested against came first; it is shown in the recipe's place.
    order = [names.index(name) for name in (BASE, *table.systems) if name in names]
    made = [_lines_in_order(one, order) for one in layout.language_tables(runs, averages)]
    # 3. Beside them the intervals, the seeds one by one, what the trainings took, and the paper's figures.
    columns = [_intervals(scores, labels), _trainings(config, table, cells, names, labels)]
    if len(table.seeds) > 1:
        columns.insert(1, _seeds(table, scores, labels))
    score_table = layout.score_table(runs, single)
    if score_table:
        columns.insert(0, replace(score_table, title=table.title or table.name))
    made += [_columns_in_order(one, order) for one in columns]
    if table.paper:
        made += published.beside([_as_run(label, i, scores) for i, label in enumerate(labels)], table.paper)
    tests = [p for score in averages + single for p in score.tests]
    drawn = picture.svg(averages or single, labels, order)
    return made, _legend(labels[0], len(table.seeds), len(tests)), drawn


def _of_language(
    config: StudyConfig, table: StudyTable, cells: Cells, names: Sequence[str], code: str
) -> list[SharedScore]:
    """The scores that all systems have in a language, each pooled over the seeds."""
    first = [cells[name, code, table.seeds[0]] for name in names]
    shared = [key for key in first[0].scores if all(key in run.scores for run in first)]
    pooled = []
    for key in shared:
        parts = []
        for seed in table.seeds:
            runs = [cells[name, code, seed].scores[key] for name in names]
            entries, statistics = [entry for entry, _ in runs], [known for _, known in runs]
            items = {known.items for known in statistics if known}
            mismatch = None if len(items) < 2 and len({entry["n"] for entry in entries}) == 1 else "items differ"
            home = entries[0]["target_lang"] == config.source_lang and not entries[0]["source_lang"]
            taught = code if home and len(config.languages) > 1 else None
            parts.append(SharedScore(entries, statistics, mismatch, taught))
        pooled.append(replace(average(parts), taught=parts[0].taught) if len(parts) > 1 else parts[0])
    return pooled


def _over_seeds_too(score: SharedScore) -> SharedScore:
    """An average over languages whose parts are averages over seeds: its interval is of all of them."""
    parts = [seed for language in score.parts for seed in language.parts or (language,)]
    return replace(average(parts), parts=score.parts)


def _lines_in_order(table: Table, order: Sequence[int]) -> Table:
    return replace(table, blocks=[replace(block, lines=[block.lines[i] for i in order]) for block in table.blocks])


def _columns_in_order(table: Table, order: Sequence[int]) -> Table:
    blocks = [
        replace(block, lines=[replace(line, cells=[line.cells[i] for i in order]) for line in block.lines])
        for block in table.blocks
    ]
    return replace(table, columns=[table.columns[i] for i in order], blocks=blocks)


def _intervals(scores: Sequence[SharedScore], labels: Sequence[str]) -> Table:
    """Every score's 95% interval, and the p-value of its difference from the first system."""
    lines = []
    for score in scores:
        cells = [layout.cell(score, i) for i in range(len(labels))]
        texts = [f"{cell.interval}, {cell.p_text}" if cell.p_text else cell.interval for cell in cells]
        lines.append(Line(score.label, [Cell(text) for text in texts], score.direction))
    return Table("95% intervals", [*labels], [Block(f"p: against {labels[0]}", lines)])


def _seeds(table: StudyTable, scores: Sequence[SharedScore], labels: Sequence[str]) -> Table:
    """Every seed's own value."""
    lines = []
    for score in scores:
        cells = [
            Cell(" ".join(show.number(score.metric, part.scores[i]["value"]) for part in score.parts))
            for i in range(len(labels))
        ]
        lines.append(Line(score.label, cells, score.direction))
    return Table(f"Each seed ({', '.join(map(str, table.seeds))})", [*labels], [Block("one training each", lines)])


def _trainings(
    config: StudyConfig, table: StudyTable, cells: Cells, names: Sequence[str], labels: Sequence[str]
) -> Table:
    """What the trainings took: means over seeds and languages."""
    rows: dict[str, list[Cell]] = {"steps": [], "best step": [], "minutes": []}
    for name in names:
        logs = [cells[name, code, seed].training or {} for code in config.languages for seed in table.seeds]
        for what, scale in (("steps", 1.0), ("best_step", 1.0), ("seconds", 1 / 60)):
            values = [log[what] * scale for log in logs if log.get(what) is not None]
            text = f"{sum(values) / len(values):.0f}" if len(values) == len(logs) and values else "–"
            rows["minutes" if what == "seconds" else what.replace("_", " ")].append(Cell(text))
    return Table("Trainings", [*labels], [Block("mean of a training", [Line(name, c) for name, c in rows.items()])])


def _as_run(label: str, number: int, scores: Sequence[SharedScore]) -> Run:
    """A system as `sdrrl compare` reads one of several folders, its scores being those over the seeds."""
    entries = {}
    for score in scores:
        entry = score.scores[number]
        key = (score.task, score.metric, entry["source_lang"], entry["target_lang"], score.taught)
        entries[key] = entry
    return Run(label, [], label, entries)


def _legend(first: str, seeds: int, tests: int) -> str:
    pooled = f" over {seeds} seeds, which the tests pool" if seeds > 1 else ""
    return (
        f"Bold: best; underlined: second best. Means{pooled}. † differs from {first}, ‡ the best from the second best "
        f"(two-sided p < {resampling.LEVEL}: approximate randomisation, {resampling.PERMUTATIONS:,} permutations, "
        f"exact where the swaps can be counted). {tests} tests, not corrected: without any difference, chance alone "
        f"would mark about {tests * resampling.LEVEL:.1f}."
    )


def write(config: StudyConfig, made: Made, command: str) -> Path:
    """The Markdown file, and the pictures beside it; returns its path."""
    from sdrrl_factory.files import atomic_write, refuse_foreign

    path, mark = config.markdown_file, "<!-- written by `sdrrl study`"
    refuse_foreign(path, mark)
    for name, drawn in made.pictures.items():
        refuse_foreign(path.with_name(name), "<svg")
        atomic_write(path.with_name(name), drawn)
    missing = "".join(f"\n{line}\n" for line in made.missing)
    atomic_write(path, f"{mark}: {command} --tables -->\n\n{made.text}{missing}")
    return path
