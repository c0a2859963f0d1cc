"""report.html: tables, off-target rates, loss curves, t-SNE and answers side by side, in one file that needs no other.

Here is what the page shows, as plain values; how it shows them is sdrrl_factory/pages/compare.html.
"""

import re
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from sdrrl_eval import remarks, show
from sdrrl_eval.compare import curves
from sdrrl_eval.compare.cases import Case
from sdrrl_eval.compare.foreign import foreign
from sdrrl_eval.compare.layout import by_language, cell, language_name
from sdrrl_eval.compare.shared import SharedScore
from sdrrl_eval.compare.tables import Cell, Line
from sdrrl_eval.compare.terminal import MAX_CHANGES
from sdrrl_factory import pages
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import read_text
from sdrrl_factory.languages import LANGUAGES

if TYPE_CHECKING:
    from sdrrl_eval.compare.comparison import Comparison

# Of systems: told apart by those who see no red or green, and by lightness in print (after Okabe and Ito).
_COLOURS = ["#94a3b8", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"]
_MAX_TILES, _MAX_NOTES = 6, 12
# What matplotlib never writes, and what could run or load something.
_UNSAFE = r"<script|<foreignObject|\son\w+\s*=|(?:href|src)\s*=\s*[\"'](?!#)|url\((?!#)"


@dataclass(frozen=True)
class Tile:
    """One number at the top: the last run's against the base's."""

    name: str
    base: Cell
    last: Cell
    change: str


@dataclass(frozen=True)
class AnswerBox:
    """An answer as pieces that join to it, each with whether it is marked; `tags` are (text, kind)."""

    name: str
    pieces: list[tuple[str, bool]]
    tags: list[tuple[str, str]]
    kind: str = ""


@dataclass(frozen=True)
class CaseView:
    """A question with its reference and every run's answer; `language` is the ISO 639-1 code of these."""

    heading: str
    question: str
    language: str
    boxes: list[AnswerBox]
    verdict: str = ""


def page(comparison: "Comparison") -> str:
    """The whole page."""
    systems = [run.name for run in comparison.runs]
    notes, folded_notes = _notes(comparison)
    return pages.html(
        "compare.html",
        title=" vs ".join(systems),
        models=" · ".join(f"{run.name}: {run.model}" for run in comparison.runs),
        systems=systems,
        colours=list(islice(cycle(_COLOURS), len(systems))),
        tiles=_tiles(comparison),
        differences=[f"Differs: {line}" for line in comparison.differences],
        tables=comparison.tables + comparison.published,
        score_table=comparison.score_table,
        has_changes=len(systems) <= MAX_CHANGES,
        raised=remarks.RAISED,
        notes=notes,
        folded_notes=folded_notes,
        details=_details(comparison),
        off_target=_off_target(comparison),
        # Both are SVG: our own, and one that read_picture looked through.
        curves=Markup(curves.svg(comparison.curves)) if comparison.curves else "",
        picture=Markup(comparison.picture),
        cases=[_case(comparison, case, is_chosen=True) for case in comparison.cases],
        samples=[_case(comparison, case, is_chosen=False) for case in comparison.samples],
    )


def read_picture(folder: str) -> str:
    """The drawing in a folder `sdrrl tsne` wrote."""
    path = Path(folder) / "tsne.svg"
    if not path.is_file():
        raise UserError(f"--tsne {folder}: no tsne.svg in it", f"write it with `sdrrl tsne --output {folder} ...`")
    _, tag, rest = read_text(path).partition("<svg")
    if not tag or re.search(_UNSAFE, rest, re.I):
        raise UserError(f"--tsne {folder}: its tsne.svg was not written by `sdrrl tsne`", "write it anew")
    return tag + rest


def _tiles(comparison: "Comparison") -> list[Tile]:
    """The last run against the base at a glance: averages, else the first language's. BLEU leaves its place to chrF."""
    if len(comparison.runs) < 2:
        return []
    tiles = []
    tables = [table for table in comparison.tables + comparison.published if table.blocks]
    # The first block of every table before any second one.
    for depth in range(max((len(table.blocks) for table in tables), default=0)):
        for table in tables:
            if depth < len(table.blocks) and not table.blocks[depth].published:
                block = table.blocks[depth]
                base, last = block.lines[0].cells[-1], block.lines[-1].cells[-1]
                words = {True: "better", False: "worse", None: "no significant change"}[last.better]
                tiles.append(Tile(f"{table.title} {block.name}, average", base, last, words))
    if not tiles and comparison.single:
        _, scores = by_language(comparison.single)[0]
        first_of_task: dict[str, SharedScore] = {}
        for score in scores:
            if score.metric != "bleu":
                first_of_task.setdefault(score.task, score)
        for score in first_of_task.values():
            last = cell(score, len(comparison.runs) - 1)
            tiles.append(Tile(f"{score.label}, {score.direction}", cell(score, 0), last, last.change))
        return tiles
    return tiles[:_MAX_TILES]


def _notes(comparison: "Comparison") -> tuple[list[str], list[str]]:
    """(lines that are shown, lines that are folded away where they are many)."""
    arrows = "↑ higher is better, ↓ lower is better"
    if (comparison.tables or comparison.published) and not comparison.score_table:
        shown = [f"{arrows}; a cell's 95% interval shows where the pointer rests on it"]
    else:
        shown = [f"{arrows}; below each value its 95% interval over the items"]
    shown += [comparison.legend, *comparison.remarks]
    if len(comparison.notes) <= _MAX_NOTES:
        return shown + comparison.notes, []
    return shown, comparison.notes


def _details(comparison: "Comparison") -> list[tuple[Line, int]]:
    """(its line, n) of each score whose interval the tables do not show."""
    details = []
    for score in comparison.scores:
        if score not in comparison.single:
            taught = f" ({score.taught})" if score.taught else ""
            cells = [cell(score, run) for run in range(len(comparison.runs))]
            details.append((Line(score.label, cells, score.direction + taught), score.scores[0]["n"]))
    return details


def _off_target(comparison: "Comparison") -> list[tuple[str, list[tuple[str, str, str, float]]]]:
    """(language, of each run (name, rate, marks, percent)) of the off-target rates."""
    if len(comparison.runs) < 2:
        return []
    groups = []
    for score in comparison.scores:
        if score.metric == "off_target":
            rates = [
                (run.name, score.value(i), score.marks(i), score.scores[i]["value"])
                for i, run in enumerate(comparison.runs)
            ]
            groups.append((language_name(score.language), rates))
    return groups


def _case(comparison: "Comparison", case: Case, is_chosen: bool) -> CaseView:
    """is_chosen: of the case study, in which foreign words are marked and the change is told."""
    language = LANGUAGES.get(case.lang)
    boxes = [AnswerBox("reference", [(piece, False) for piece in _texts(case.reference)], [], "reference")]
    for run, row in zip(comparison.runs, case.answers, strict=True):
        pieces = [(piece, False) for piece in _texts(row.get("output"))]
        if is_chosen and language:
            pieces = [marked for piece, _ in pieces for marked in foreign(piece, language)]
        boxes.append(AnswerBox(run.name, pieces, _tags(row, case.metric)))
    verdict = ""
    if is_chosen and case.change:
        # One item is never significant, hence the word has no colour.
        verdict = "↑ better" if case.change > 0 else "↓ worse"
    heading = f"{case.task} · {case.id}"
    return CaseView(heading, str(case.question), language.iso1 if language else "", boxes, verdict)


def _texts(value: Any) -> list[str]:
    """An answer or a reference as a text, [] where it is empty; several references stand on one line."""
    if not value:
        return []
    return [" / ".join(map(str, value)) if isinstance(value, list) else str(value)]


def _tags(row: dict, metric: str) -> list[tuple[str, str]]:
    tags = []
    if row.get("off_target"):
        tags.append((f"off target: {row.get('language') or 'empty'}", "tag"))
    if row.get("finish") == "length":
        tags.append(("cut off", "tag cut"))
    value = row.get(metric)
    if isinstance(value, int | float):
        tags.append((f"{show.metric(metric).rpartition(' ')[0]} {value:.1f}", "score"))
    return tags
