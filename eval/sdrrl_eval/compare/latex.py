"""Tables in LaTeX."""

from collections.abc import Sequence

from sdrrl_eval import remarks
from sdrrl_eval.compare.tables import Cell, Line, Table, labels

_CHARACTERS = {c: "\\" + c for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "→": r"$\rightarrow$",
    "ⁿ": r"$^{\mathrm{n}}$",
    "ᵗ": r"$^{\mathrm{t}}$",
    "ˢ": r"$^{\mathrm{s}}$",
    **{mark: rf"$^{{\mathrm{{{letter}}}}}$" for mark, letter in remarks.RAISED.items()},
    "…": r"\dots{}",
    "|": r"\textbar{}\allowbreak{}",  # a signature is one long word
    '"': r"\textquotedbl{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
_LAST_LATIN = 0x17F  # what the T1 encoding has letters up to


def latex(
    tables: Sequence[Table], legend: str, differences: Sequence[str] = (), remark_notes: Sequence[str] = ()
) -> str:
    """A file to \\input: booktabs and graphicx are needed. A wide table is scaled to the width of the text.

    Each has a caption, a \\label and, below the table, what its numbers stand on.
    differences: what differs between the systems in how their answers were made; they stand below each.
    remark_notes: what the raised letters mean; each stands below the tables that have its letter.
    """
    parts = ["% needs \\usepackage[T1]{fontenc} and \\usepackage{booktabs,graphicx}"]
    for label, table in zip(labels(tables), tables, strict=True):
        width = len(table.columns) + 1
        # What a mark means goes without saying where there is none.
        explained = legend if table.has_marks("†‡") else legend.partition("†")[0].strip()
        caption = _escape(f"{table.title.rstrip('.')}. {explained}")
        lines = [r"\begin{table*}", r"\centering", rf"\caption{{{caption}}}", rf"\label{{{label}}}", r"\par\medskip"]
        lines += [r"\setlength{\tabcolsep}{8pt}"]
        lines += [r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%"]
        # The marks of the last column stand in the space behind it.
        lines += [rf"\begin{{tabular}}{{l{'r' * len(table.columns)}@{{\qquad}}}}", r"\toprule"]
        lines.append(_row(["", *(rf"\textbf{{{_escape(column)}}}" for column in table.columns)]))
        for block in table.blocks:
            heading = rf"\multicolumn{{{width}}}{{c}}{{\textit{{{_escape(block.name)}}}}} \\"
            lines += [r"\midrule", heading, r"\midrule", *map(_line, block.published)]
            if block.published and block.lines:
                lines.append(rf"\cmidrule{{1-{width}}}")
            lines += map(_line, block.lines)
        lines += [r"\bottomrule", r"\end{tabular}}"]
        notes = [
            *table.notes,
            *table.remarks(remark_notes),
            *table.basis,
            *(f"Differs: {line}" for line in differences),
        ]
        if notes:
            below = r" \par ".join(map(_escape, notes))
            lines += [r"\par\smallskip", rf"\parbox{{\textwidth}}{{\footnotesize\raggedright {below}}}"]
        parts.append("\n".join([*lines, r"\end{table*}"]))
    text = "\n\n".join(parts) + "\n"
    # T1 has Latin letters; others need a Unicode engine and a font that has them.
    foreign = sorted({char for char in text if ord(char) > _LAST_LATIN})
    return f"% for lualatex or xelatex: it has {' '.join(foreign)}\n{text}" if foreign else text


def _line(line: Line) -> str:
    return _row([_escape(line.full_name), *map(_cell, line.cells)])


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escape(text: str) -> str:
    return "".join(_CHARACTERS.get(char, char) for char in " ".join(text.split()))


def _cell(cell: Cell) -> str:
    text = _escape(cell.text)
    if cell.rank == 1:
        text = rf"\textbf{{{text}}}"
    elif cell.rank == 2:
        text = rf"\underline{{{text}}}"
    marks = _escape(cell.remarks + cell.marks)
    # Without width, so that the digits of a column stand below each other.
    return text + (rf"\rlap{{{marks}}}" if marks else "")
