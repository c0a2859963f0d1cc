"""The one table of sets: what it says of those there are, and that a row is all another baseline needs."""

import os
import shutil
import sys

import pytest

from sdrrl_factory.files import dump_line
from sdrrl_factory.rows import read_rows
from sdrrl_factory.transfer.sets import (
    SETS,
    SWITCHED,
    SYSTEMS,
    Form,
    has_natural,
    has_own_answers,
    has_switched,
    sets_of,
    sides,
)
from tests.conftest import ROOT, command


@pytest.mark.parametrize(
    ("form", "languages", "needs", "columns"),
    [
        (Form("x", "a"), ("source", "source"), (), (("instruction", "input"), "answer")),
        (Form("x", "y"), ("source", "source"), (), (("instruction", "input"), "output")),
        (Form("T(x)", "a"), ("target", "source"), ("question",), (("instruction_mt", "input_mt"), "answer")),
        (Form("x", "T(a)"), ("source", "target"), ("answer",), (("instruction", "input"), "answer_mt")),
        (Form("x", "T(y)"), ("source", "target"), ("output",), (("instruction", "input"), "output_mt")),
        (
            Form("T(x)", "T(a)", switched="TT"),
            ("target", "target"),
            ("question", "answer"),
            (("instruction_tt_cs", "input_tt_cs"), "answer_mt"),
        ),
    ],
)
def test_a_form(form, languages, needs, columns):
    assert (form.languages, form.needs) == (languages, needs)
    assert (form.question_columns, form.answer_column) == columns


def test_the_four_sets_of_section_3_2_2():
    asked = {"L": "x", "T": "T(x)"}
    answered = {"L": "a", "T": "T(a)"}
    for name in ("LL", "TL", "LT", "TT"):
        (form,) = SETS[name].forms
        assert (form.question, form.answer, form.switched) == (asked[name[0]], answered[name[1]], name)
        assert SWITCHED[name] == form.question
    assert [row.name for row in sets_of(SYSTEMS)] == list(SETS)


@pytest.mark.parametrize(
    ("systems", "answers"),
    [
        (["sdrrl"], (("question", "answer"), True, True, True)),
        (["sft"], ((), False, False, False)),
        (["tsft"], (("question", "output"), False, False, False)),
        (["cit"], (("output",), False, False, False)),
        (["xcot"], (("question", "output"), False, True, False)),
        (["sdrrl", "cit"], (("question", "answer", "output"), True, True, True)),
    ],
)
def test_what_is_asked_of_the_table(systems, answers):
    assert (sides(systems), has_own_answers(systems), has_switched(systems), has_natural(systems)) == answers


REVERSED = '    Set("rev", "rev", (Form("T(x)", "y"),), "{target} question, {source} ground truth", wish="all"),\n'


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("apertium") is None, reason="needs `apt-get install apertium-eng-spa`")
def test_a_baseline_is_one_row(tmp_path):
    """It is in the schema, prepared, described, registered and ready for a train recipe, with nothing else added."""
    package = tmp_path / "package" / "sdrrl_factory"
    shutil.copytree(ROOT / "sdrrl_factory", package, ignore=shutil.ignore_patterns("__pycache__"))
    table = package / "transfer" / "sets.py"
    code = table.read_text(encoding="utf-8")
    end = code.index(")\n# fmt: on")
    table.write_text(code[:end] + REVERSED + code[end:], encoding="utf-8")
    rows = [{"id": f"r{i}", "instruction": f"What is house {i}?", "output": f"It is red, {i}."} for i in range(5)]
    (tmp_path / "in.jsonl").write_text("".join(map(dump_line, rows)), encoding="utf-8")
    (tmp_path / "r.yaml").write_text(
        "instructions: in.jsonl\ntarget_lang: spa\nsystems: [rev]\ndataset_dir: data\nwork_dir: work\n",
        encoding="utf-8",
    )
    done = command(
        sys.executable, "-m", "sdrrl_factory.cli", "prepare", "r.yaml", cwd=tmp_path,
        PYTHONPATH=os.pathsep.join([str(package.parent), str(ROOT / "eval")]),
    )  # fmt: skip
    assert "baseline rev -- dataset: sdrrl_spa_rev" in done.stdout
    written = [row.values for row in read_rows(tmp_path / "data/sdrrl_spa/rev.jsonl")]
    assert [row["output"] for row in written] == [row["output"] for row in rows]
    assert all("casa" in row["instruction"] and "ingl" in row["instruction"] for row in written)
    card = (tmp_path / "data/sdrrl_spa/README.md").read_text(encoding="utf-8")
    assert "baseline: Spanish question, English ground truth" in card
    assert "rev" in (tmp_path / "work/sdrrl_spa/report.html").read_text(encoding="utf-8")
