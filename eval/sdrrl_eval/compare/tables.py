"""A table as plain data, whatever writes it: terminal.py, markdown.py, latex.py, and report.py for HTML.

It has one of two shapes. As the paper prints it: a block a metric, a line a system, a column a language, the average
last. Or, for what is there in one language only: a block a language, a line a score, a column a system.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """One number of one system.

    rank: 1 the best of its column, 2 the second best, else 0.
    marks: † and ‡, or those of published.py. remarks: raised letters for what is to be known of the answers, directly
    behind the text; in words, remarks_text.
    interval: its 95% interval. change: against the base, in words. p: of that change, as it decides the marks.
    better: whether it is significantly better than the base, or worse; None where it is neither, and of the base.
    """

    text: str
    rank: int = 0
    marks: str = ""
    remarks: str = ""
    remarks_text: str = ""
    interval: str = ""
    change: str = ""
    p: float | None = None
    better: bool | None = None

    @property
    def p_text(self) -> str:
        if self.p is None:
            return ""
        return "p < 0.001" if self.p < 0.001 else f"p {self.p:.3f}"

    @property
    def more(self) -> str:
        """ "95% 33.1 to 35.0; against the base ↑ 1.2 better, p 0.001; 26 of 100 cut off"."""
        words = [f"95% {self.interval}"] if self.interval else []
        if self.change:
            p = "" if self.p is None else f", p {self.p:.3f}"
            words.append(f"against the base {self.change}{p}")
        if self.remarks_text:
            words.append(self.remarks_text)
        return "; ".join(words)


@dataclass(frozen=True)
class Line:
    """A line of a table, a cell a column. `detail` goes with its name: the languages of a score."""

    name: str
    cells: list[Cell]
    detail: str = ""

    @property
    def full_name(self) -> str:
        return f"{self.name}, {self.detail}" if self.detail else self.name


@dataclass(frozen=True)
class Block:
    """Lines below a heading. `published`: the paper's, which stand above."""

    name: str
    lines: list[Line]
    published: list[Line] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """`notes` stand below it everywhere; `basis` (n and signature of its scores) where a table stands alone."""

    title: str
    columns: list[str]
    blocks: list[Block]
    notes: list[str] = field(default_factory=list)
    basis: list[str] = field(default_factory=list)

    def has_marks(self, marks: str) -> bool:
        return any(set(marks) & set(cell.marks) for block in self.blocks for line in block.lines for cell in line.cells)

    def remarks(self, notes: Sequence[str]) -> list[str]:
        """Those of `notes`, each of which begins with its raised letter, whose letter stands in the table."""
        letters = {
            letter for block in self.blocks for line in block.lines for cell in line.cells for letter in cell.remarks
        }
        return [note for note in notes if note[:1] in letters]


def ranks(values: Sequence[float | None], shown: Sequence[str], lower_is_better: bool) -> list[int]:
    """1 for the best, 2 for the second best (of three or more), else 0; equal as shown is equal.

    Nothing is best where all are equal.
    """
    present = sorted((value, text) for value, text in zip(values, shown, strict=True) if value is not None)
    if not lower_is_better:
        present.reverse()
    distinct = list(dict.fromkeys(text for _, text in present))
    if len(distinct) < 2:
        return [0] * len(values)
    rank_of = {distinct[0]: 1}
    if len(present) > 2:
        rank_of[distinct[1]] = 2
    return [0 if value is None else rank_of.get(text, 0) for value, text in zip(values, shown, strict=True)]


def ranked(rows: Sequence[Sequence[float | None]], decimals: int) -> list[list[Cell]]:
    """Cells of numbers, more being better, each column ranked for itself; None is a dash."""
    shown = [["–" if value is None else f"{value:.{decimals}f}" for value in row] for row in rows]
    columns = [
        ranks(values, texts, lower_is_better=False)
        for values, texts in zip(zip(*rows, strict=True), zip(*shown, strict=True), strict=True)
    ]
    return [[Cell(text, columns[c][r]) for c, text in enumerate(texts)] for r, texts in enumerate(shown)]


def labels(tables: Sequence[Table]) -> list[str]:
    """A distinct label for each, to link or refer to: tab:mkqa, tab:scores, tab:scores-2."""
    counts: dict[str, int] = {}
    found = []
    for table in tables:
        name = "tab:" + (re.sub(r"[^a-z0-9]+", "-", table.title.lower()).strip("-") or "scores")
        counts[name] = counts.get(name, 0) + 1
        found.append(name if counts[name] == 1 else f"{name}-{counts[name]}")
    return found
