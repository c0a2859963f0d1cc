"""Tables on the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from sdrrl_eval.compare.tables import Cell, Line, Table

# Up to so many systems, each has its change against the base beside it.
MAX_CHANGES = 3
_RANKS = {0: "", 1: "bold", 2: "underline"}
_VERDICTS = {True: "green", False: "red", None: "dim"}


def print_table(table: Table, console: Console) -> None:
    """A table of the paper's shape; where the terminal is narrow, its columns go on in a further table below."""
    lines = [line for block in table.blocks for line in block.published + block.lines]
    name_width = max(len(line.name) for line in lines) + 1
    mark_width = max(len(cell.remarks + cell.marks) for line in lines for cell in line.cells)
    widths = [
        max(len(column), *(len(line.cells[c].text) for line in lines)) + mark_width + 1
        for c, column in enumerate(table.columns)
    ]
    console.print(Text(table.title, style="bold"), soft_wrap=True)
    for start, end in _chunks(widths, console.width - name_width):
        head = [Text(column + " " * mark_width, style="bold") for column in table.columns[start:end]]
        console.print(_grid([("", head)], name_width, widths[start:end]))
        for block in table.blocks:
            console.print(Text(block.name, style="italic"), soft_wrap=True)
            rows = [_row(line, start, end, mark_width, "dim") for line in block.published]
            rows += [_row(line, start, end, mark_width) for line in block.lines]
            console.print(_grid(rows, name_width, widths[start:end]))
        console.print()
    for note in table.notes:
        console.print(Text(note, style="dim"), soft_wrap=True)


def print_scores(table: Table, console: Console) -> None:
    """A table of a line a score, a column a system; of few systems, with what changed against the first."""
    has_changes = len(table.columns) <= MAX_CHANGES
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    grid.add_column("score", no_wrap=True)
    grid.add_column("language", no_wrap=True)
    for i, system in enumerate(table.columns):
        grid.add_column(Text(system), justify="right")
        if i and has_changes:
            grid.add_column("change")
    for block in table.blocks:
        grid.add_row(Text(block.name, style="bold"))
        for line in block.lines:
            row = [Text(f"  {line.name}"), Text(line.detail)]
            for i, cell in enumerate(line.cells):
                # The marks stand behind the change where there is one, else behind the value.
                behind = cell.remarks + ("" if has_changes else cell.marks)
                row.append(Text(cell.text, style=_RANKS[cell.rank]) + Text(behind))
                if i and has_changes:
                    row.append(Text(f"{cell.change} {cell.marks}".rstrip(), style=_VERDICTS[cell.better]))
            grid.add_row(*row)
    console.print(grid)
    console.print()


def _chunks(widths: Sequence[int], room: int) -> list[tuple[int, int]]:
    """(first, last + 1) column of each table that fits; at least one column a table."""
    chunks, start, used = [], 0, 0
    for i, width in enumerate(widths):
        if used + width > room and i > start:
            chunks.append((start, i))
            start, used = i, 0
        used += width
    return [*chunks, (start, len(widths))]


def _row(line: Line, start: int, end: int, mark_width: int, style: str = "") -> tuple[str, list[Text]]:
    return line.name, [_cell(cell, mark_width, style) for cell in line.cells[start:end]]


def _cell(cell: Cell, mark_width: int, style: str) -> Text:
    look = f"{style} {_RANKS[cell.rank]}".strip()
    return Text(cell.text, style=look) + Text((cell.remarks + cell.marks).ljust(mark_width), style=style)


def _grid(rows: Sequence[tuple[str, list[Text]]], name_width: int, widths: Sequence[int]) -> Grid:
    grid = Grid.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True, width=name_width - 1)
    for width in widths:
        grid.add_column(justify="right", no_wrap=True, width=width - 1)
    for name, cells in rows:
        grid.add_row(Text(name), *cells)
    return grid
