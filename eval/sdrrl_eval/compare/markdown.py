"""Tables in Markdown."""

import re
from collections.abc import Sequence

from sdrrl_eval.compare.tables import Cell, Table, labels


def markdown(
    tables: Sequence[Table], legend: str, differences: Sequence[str] = (), remark_notes: Sequence[str] = ()
) -> str:
    """One Markdown table each, below an anchor to link to; underlining is HTML's <u>, as Markdown has no sign for it.

    differences: what differs between the systems in how their answers were made; they stand first.
    remark_notes: what the raised letters mean; each stands below the tables that have its letter.
    """
    parts = [f"Differs: {_escape(line)}\n" for line in differences]
    for label, table in zip(labels(tables), tables, strict=True):
        head = _row(["", *map(_escape, table.columns)])
        lines = [f'<a id="{label}"></a>', "", f"**{_escape(table.title)}**", "", head]
        lines.append("| --- |" + " ---: |" * len(table.columns))
        for block in table.blocks:
            # Markdown has no cell over several columns: a block's name stands in the first, the others are empty.
            lines.append(_row([f"*{_escape(block.name)}*", *[""] * len(table.columns)]))
            for line in block.published + block.lines:
                lines.append(_row([_escape(line.full_name), *map(_cell, line.cells)]))
        parts.append("\n".join(lines) + "\n")
        parts += [f"{_escape(note)}\n" for note in table.notes + table.remarks(remark_notes) + table.basis]
    return "\n".join([*parts, f"{_escape(legend)}\n"])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", " ".join(text.split()))


def _cell(cell: Cell) -> str:
    text = _escape(cell.text)
    if cell.rank == 1:
        text = f"**{text}**"
    elif cell.rank == 2:
        text = f"<u>{text}</u>"
    return text + cell.remarks + cell.marks
