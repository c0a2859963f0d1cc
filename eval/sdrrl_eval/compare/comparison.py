"""A comparison as a value: what `compare` returns, and how it is printed and written."""

from dataclasses import dataclass, field
from pathlib import Path

from sdrrl_eval import show
from sdrrl_eval.compare import export, report, terminal
from sdrrl_eval.compare.cases import Case
from sdrrl_eval.compare.curves import Curves
from sdrrl_eval.compare.latex import latex
from sdrrl_eval.compare.markdown import markdown
from sdrrl_eval.compare.runs import Run
from sdrrl_eval.compare.shared import SharedScore
from sdrrl_eval.compare.tables import Table
from sdrrl_factory import pages
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import atomic_write, refuse_foreign


@dataclass(frozen=True)
class Comparison:
    """Two or more systems side by side, the first being the base; or one beside the paper.

    Attributes:
        runs: the systems.
        scores: every score that all have.
        single: those of them that are there in one language only, and so in no average.
        entries: every score of each system, averages over languages included, with its 95% interval, p-value and
            marks: a dict of plain values each, as in the JSON and CSV files.
        tables: in the paper's shape, a language a column. score_table: of `single`, a system a column.
        published: the paper's tables with the runs below.
        differences: in how the answers were made, a line each.
        legend: what the marks mean. remarks: what the raised letters do, a line each, with the counts of each system.
        notes: what each number stands on, and what is missing.
        cases: the case study. samples: the first items of each file.
        curves: the losses of a training, by subset. picture: the SVG that `sdrrl tsne` drew.
        correction: "holm" where the p-values are corrected for the number of tests.
    """

    runs: list[Run]
    scores: list[SharedScore] = field(default_factory=list)
    single: list[SharedScore] = field(default_factory=list)
    entries: list[dict] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    score_table: Table | None = None
    published: list[Table] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    legend: str = ""
    remarks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    samples: list[Case] = field(default_factory=list)
    curves: Curves = field(default_factory=dict)
    picture: str = ""
    correction: str | None = None

    def print(self) -> None:
        """The tables on the terminal, below them what they stand on."""
        from rich.text import Text

        console = show.console()
        for line in self.differences:
            console.print(Text(f"differs: {line}", style="yellow"), soft_wrap=True)
        if self.differences:
            console.print()
        for table in self.tables + self.published:
            terminal.print_table(table, console)
        if self.score_table:
            terminal.print_scores(self.score_table, console)
        for line in [self.legend, *self.remarks, *self.notes]:
            console.print(Text(line, style="dim"), soft_wrap=True)

    def write(
        self,
        output: str | Path | None = None,
        *,
        markdown_file: str | Path | None = None,
        latex_file: str | Path | None = None,
        json_file: str | Path | None = None,
        csv_file: str | Path | None = None,
    ) -> Path:
        """Write the report, and the files that are named; returns the report's path.

        Args:
            output: the report's path; None is report.html in the last folder.
            markdown_file, latex_file: the tables. json_file, csv_file: every score, interval and p-value.

        Raises:
            UserError: a file that cannot be written.
        """
        path = Path(output) if output else self.runs[-1].folders[-1] / "report.html"
        # What tells the files of a comparison from others is near their beginning.
        marks = [
            (path, pages.MARK),
            (markdown_file, '<a id="tab:'),
            (latex_file, r"% needs \usepackage[T1]{fontenc}"),
            (json_file, '"legend": '),
            (csv_file, "system,task,metric,"),
        ]
        for file, mark in marks:
            if file:
                refuse_foreign(file, mark)
        _write(path, report.page(self))
        tables = self.tables + ([self.score_table] if self.score_table else []) + self.published
        if markdown_file:
            _write(markdown_file, markdown(tables, self.legend, self.differences, self.remarks))
        if latex_file:
            _write(latex_file, latex(tables, self.legend, self.differences, self.remarks))
        if json_file:
            _write(json_file, export.as_json(self))
        if csv_file:
            _write(csv_file, export.as_csv(self.entries))
        return path


def _write(path: str | Path, text: str) -> None:
    try:
        atomic_write(path, text)
    except OSError as err:
        raise UserError(f"cannot be written ({err.strerror})", "name another file", at=str(path)) from None
