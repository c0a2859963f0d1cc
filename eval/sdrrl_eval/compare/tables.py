"""Tables as the paper prints them: a block a metric, a row a system, a column a language, the average last.

Plain data first (`Table`), then written for the terminal, in Markdown and in LaTeX; report.html writes its own.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """`rank`: 1 the best of its column, 2 the second best. `marks`: † and ‡. `better`: against the base; None: same."""

    text: str
    rank: int = 0
    marks: str = ""
    more: str = ""  # interval and p-value, in words
    better: bool | None = None


@dataclass(frozen=True)
class Block:
    """`rows`: (system, a cell per column). `published`: the paper's rows, which stand above."""

    name: str
    rows: list[tuple[str, list[Cell]]]
    published: list[tuple[str, list[Cell]]] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """`notes` stand below it everywhere; `basis` (n and signature of its scores) where a table stands alone."""

    title: str
    columns: list[str]
    blocks: list[Block]
    notes: list[str] = field(default_factory=list)
    basis: list[str] = field(default_factory=list)


def ranks(values: Sequence[float | None], shown: Sequence[str], lower_is_better: bool) -> list[int]:
    """1 for the best, 2 for the second best (of three or more), else 0; equal as shown is equal.

    Nothing is best where all are equal.
    """
    order = [i for i in range(len(values)) if values[i] is not None]
    order.sort(key=lambda i: values[i], reverse=not lower_is_better)
    distinct = list(dict.fromkeys(shown[i] for i in order))
    places = {text: place for place, text in enumerate(distinct, 1)} if len(distinct) > 1 else {}
    last = 2 if len(order) > 2 else 1
    return [
        place if value is not None and (place := places.get(text, 0)) <= last else 0
        for value, text in zip(values, shown, strict=True)
    ]


def ranked(rows: Sequence[Sequence[float | None]], decimals: int) -> list[list[Cell]]:
    """Cells of numbers, more being better, each column ranked for itself; None is a dash."""
    shown = [["–" if value is None else f"{value:.{decimals}f}" for value in row] for row in rows]
    columns = range(len(rows[0]))
    places = [ranks([row[c] for row in rows], [row[c] for row in shown], lower_is_better=False) for c in columns]
    return [[Cell(row[c], places[c][r]) for c in columns] for r, row in enumerate(shown)]


def markdown(tables: Sequence[Table], legend: str, differences: Sequence[str] = ()) -> str:
    """One Markdown table each, below an anchor to link to; underlining is HTML's <u>, as Markdown has no sign for it.

    differences: what differs between the systems in how their answers were made; they stand first.
    """
    parts = [f"Differs: {_md(line)}\n" for line in differences]
    for label, table in zip(labels(tables), tables, strict=True):
        lines = [f'<a id="{label}"></a>', "", f"**{_md(table.title)}**", "", _md_row(["", *map(_md, table.columns)])]
        lines.append("| --- |" + " ---: |" * len(table.columns))
        for block in table.blocks:
            lines.append(_md_row([f"*{_md(block.name)}*", *[""] * len(table.columns)]))
            for name, cells in block.published + block.rows:
                lines.append(_md_row([_md(name), *map(_md_cell, cells)]))
        parts.append("\n".join(lines) + "\n")
        parts += [f"{_md(note)}\n" for note in table.notes + table.basis]
    return "\n".join([*parts, f"{_md(legend)}\n"])


def _md_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _md(text: str) -> str:
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", " ".join(text.split()))


def _md_cell(cell: Cell) -> str:
    text = _md(cell.text)
    text = f"**{text}**" if cell.rank == 1 else f"<u>{text}</u>" if cell.rank == 2 else text
    return text + cell.marks


def latex(tables: Sequence[Table], legend: str, differences: Sequence[str] = ()) -> str:
    """A file to \\input: booktabs and graphicx are needed. A wide table is scaled to the width of the text.

    Each has a caption, a \\label and, below the table, what its numbers stand on. differences: as in `markdown`.
    """
    parts = ["% needs \\usepackage[T1]{fontenc} and \\usepackage{booktabs,graphicx}"]
    for label, table in zip(labels(tables), tables, strict=True):
        width = len(table.columns) + 1
        caption = _tex(f"{table.title.rstrip('.')}. {legend}")
        lines = [r"\begin{table*}", r"\centering", rf"\caption{{{caption}}}", rf"\label{{{label}}}", r"\par\medskip"]
        lines += [r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%"]
        lines += [rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule"]
        lines.append(_tex_row(["", *(rf"\textbf{{{_tex(column)}}}" for column in table.columns)]))
        for block in table.blocks:
            lines += [r"\midrule", rf"\multicolumn{{{width}}}{{c}}{{\textit{{{_tex(block.name)}}}}} \\", r"\midrule"]
            lines += [_tex_row([_tex(name), *map(_tex_cell, cells)]) for name, cells in block.published]
            lines += [rf"\cmidrule{{1-{width}}}"] if block.published and block.rows else []
            lines += [_tex_row([_tex(name), *map(_tex_cell, cells)]) for name, cells in block.rows]
        lines += [r"\bottomrule", r"\end{tabular}}"]
        notes = [*table.notes, *table.basis, *(f"Differs: {line}" for line in differences)]
        if notes:
            below = r" \par ".join(map(_tex, notes))
            lines += [r"\par\smallskip", rf"\parbox{{\textwidth}}{{\footnotesize\raggedright {below}}}"]
        parts.append("\n".join([*lines, r"\end{table*}"]))
    text = "\n\n".join(parts) + "\n"
    # T1 has Latin letters; others need a Unicode engine and a font that has them.
    foreign = sorted({char for char in text if ord(char) > 0x17F})
    return f"% for lualatex or xelatex: it has {' '.join(foreign)}\n{text}" if foreign else text


def labels(tables: Sequence[Table]) -> list[str]:
    """A distinct label for each: tab:mkqa, tab:scores, tab:scores-2."""
    names, found = {}, []
    for table in tables:
        name = "tab:" + (re.sub(r"[^a-z0-9]+", "-", table.title.lower()).strip("-") or "scores")
        names[name] = names.get(name, 0) + 1
        found.append(name if names[name] == 1 else f"{name}-{names[name]}")
    return found


def _tex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


_TEX = {c: "\\" + c for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "→": r"$\rightarrow$",
    "ⁿ": r"$^{\mathrm{n}}$",
    "ᵗ": r"$^{\mathrm{t}}$",
    "ˢ": r"$^{\mathrm{s}}$",
    "…": r"\dots{}",
    "|": r"\textbar{}\allowbreak{}",  # a signature is one long word
    '"': r"\textquotedbl{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(char, char) for char in " ".join(text.split()))


def _tex_cell(cell: Cell) -> str:
    text = _tex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.rank == 1 else rf"\underline{{{text}}}" if cell.rank == 2 else text
    return text + _tex(cell.marks)


def terminal(tables: Sequence[Table], console) -> None:
    """Print them; where the terminal is narrow, the columns go on in a further table below."""
    from rich.text import Text

    for table in tables:
        rows = [row for block in table.blocks for row in block.published + block.rows]
        first = max(len(name) for name, _ in rows) + 1
        marks = max(len(cell.marks) for _, cells in rows for cell in cells)
        widths = [
            max(len(column), *(len(cells[c].text) for _, cells in rows)) + marks + 1
            for c, column in enumerate(table.columns)
        ]
        console.print(Text(table.title, style="bold"), soft_wrap=True)
        for start, end in _chunks(widths, console.width - first):
            head = [Text(column + " " * marks, style="bold") for column in table.columns[start:end]]
            console.print(_grid([("", head)], first, widths[start:end]))
            for block in table.blocks:
                console.print(Text(block.name, style="italic"), soft_wrap=True)
                lines = [
                    (name, [_rich_cell(c, marks, "dim") for c in cells[start:end]]) for name, cells in block.published
                ]
                lines += [(name, [_rich_cell(c, marks) for c in cells[start:end]]) for name, cells in block.rows]
                console.print(_grid(lines, first, widths[start:end]))
            console.print()
        for note in table.notes:
            console.print(Text(note, style="dim"), soft_wrap=True)


def _grid(lines: Sequence[tuple[str, list]], first: int, widths: Sequence[int]):
    from rich.table import Table as Rich
    from rich.text import Text

    grid = Rich.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True, width=first - 1)
    for width in widths:
        grid.add_column(justify="right", no_wrap=True, width=width - 1)
    for name, cells in lines:
        grid.add_row(Text(name), *cells)
    return grid


def _rich_cell(cell: Cell, marks: int, style: str = ""):
    from rich.text import Text

    look = {1: "bold", 2: "underline"}.get(cell.rank, "")
    return Text(cell.text, style=f"{style} {look}".strip()) + Text(cell.marks.ljust(marks), style=style)


def _chunks(widths: Sequence[int], room: int) -> list[tuple[int, int]]:
    """(first, last + 1) column of each table that fits; at least one column a table."""
    out, start, used = [], 0, 0
    for i, width in enumerate(widths):
        if used + width > room and i > start:
            out.append((start, i))
            start, used = i, 0
        used += width
    return [*out, (start, len(widths))]
