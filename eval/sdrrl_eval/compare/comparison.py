"""A comparison as a value: what `compare` returns, and what is printed and written of it."""

from dataclasses import dataclass, field

from sdrrl_eval.compare.cases import Case
from sdrrl_eval.compare.curves import Curves
from sdrrl_eval.compare.runs import Run
from sdrrl_eval.compare.shared import SharedScore
from sdrrl_eval.compare.tables import Table


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
        legend: what the marks mean. notes: what each number stands on, and what is missing.
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
    notes: list[str] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    samples: list[Case] = field(default_factory=list)
    curves: Curves = field(default_factory=dict)
    picture: str = ""
    correction: str | None = None
