import json
import re
import shutil
import subprocess
from io import StringIO

import pytest
from rich.console import Console

from sdrrl_eval.compare import published
from sdrrl_eval.compare.latex import latex
from sdrrl_eval.compare.markdown import markdown
from sdrrl_eval.compare.runs import Run
from sdrrl_eval.compare.tables import Block, Cell, Line, Table, ranked, ranks
from sdrrl_eval.compare.terminal import print_table
from sdrrl_factory.errors import UserError

ALL = {d["table"]: d for name in [f"table{n}" for n in range(2, 13)] for d in published.tables(name)}
# Where the paper's printed AVG. is not the mean of its columns: (table, metric, side, system).
MISPRINTS = {(8, "accuracy", "target", "T-SFT"), (9, "rouge1", "english", "SDRRL")}


@pytest.mark.parametrize("number", [2, 3, 4, 5, 8, 9, 10, 11])
def test_the_papers_averages_are_those_of_its_columns(number):
    data, wrong = ALL[number], set()
    for block in data["blocks"]:
        assert list(block["rows"]) == ["SFT", "T-SFT", "CIT", "XCOT", "SDRRL"]
        for system, values in block["rows"].items():
            assert len(values) == len(data["columns"])
            counted = [values[0], values[2]] if number == 10 else values[:-1]  # Table 10 leaves THA out
            if abs(sum(counted) / len(counted) - values[-1]) > 0.00501:
                wrong.add((number, block["metric"], block["side"], system))
    assert wrong == {entry for entry in MISPRINTS if entry[0] == number}
    assert data["columns"][-1] == "AVG." and bool(data["notes"]) == (number in (8, 9, 10))


def mean(column: list, model: str, system: str, langs: list[str] | None = None) -> float:
    """Of a summary's column, from the full tables."""
    parts = []
    for task, metric, side in column:
        data = next(d for d in ALL.values() if d.get("task") == task and d["model"] == model)
        block = next(b for b in data["blocks"] if (b["metric"], b["side"]) == (metric, side))
        at = [i for i, c in enumerate(data["columns"]) if c in langs] if langs else [-1]
        parts.append(sum(block["rows"][system][i] for i in at) / len(at))
    return sum(parts) / len(parts)


def test_the_papers_summaries_are_those_of_its_tables():
    block = ALL[6]["blocks"][0]
    for column, printed in zip(block["of"], block["rows"]["SDRRL"], strict=True):
        assert mean(column, "LLaMA-2-7B", "SDRRL") == pytest.approx(printed, abs=0.0101)
    for block in ALL[7]["blocks"]:
        for system, (*values, average) in block["rows"].items():
            found = [mean(column, "SeaLLM-7B", system) for column in block["of"]]
            assert found == pytest.approx(values, abs=0.0101)
            assert sum(found) / 4 == pytest.approx(average, abs=0.0101)
    block, langs = ALL[12]["blocks"][0], ["ind", "jpn", "kor"]
    for column, printed in zip(block["of"], block["rows"]["English"], strict=True):
        gain = mean(column, "LLaMA-2-7B", "SDRRL", langs) - mean(column, "LLaMA-2-7B", "SFT", langs)
        assert gain == pytest.approx(printed, abs=0.0101)


def run(name: str, values: dict) -> Run:
    scores = {(*key, None): {"value": v, "n": 9, "signature": "s:1"} for key, v in values.items()}
    return Run(name, [], "m", scores)


def test_a_run_beside_the_paper():
    values = {("mkqa", "f1", None, lang, ): v for lang, v in (("tha", 50.0), ("khm", 40.0))} | {
        ("mkqa", "f1", None, "eng"): 42.0
    }  # fmt: skip
    (table,) = published.beside([run("ours", values), run("half", {("mkqa", "f1", None, "tha"): 51.0})], "table11")
    target, english = table.blocks
    assert table.columns == ["THA", "KHM", "AVG."] and "Published figures" in table.notes[0]
    assert [line.name for line in target.published] == [
        f"{n} (paper)" for n in ("SFT", "T-SFT", "CIT", "XCOT", "SDRRL")
    ]
    assert [c.text for c in target.published[-1].cells] == ["49.44", "39.81", "44.63"]
    assert [c.rank for c in target.published[-1].cells] == [1, 1, 1]
    assert [line.cells[1].rank for line in target.published] == [0, 0, 2, 0, 1]
    assert [(line.name, [c.text for c in line.cells]) for line in target.lines] == [
        ("ours", ["50.00", "40.00", "45.00"]),
        ("half", ["51.00", "–", "–"]),
    ]
    assert [c.text for c in english.lines[0].cells] == ["42.00"] * 3  # one checkpoint, one English
    assert "F1 here: n 9, s:1" in table.notes


def test_summaries_and_gains_of_a_run():
    keys = [("belebele", "accuracy", None), ("xlsum", "rougeL", None), ("flores", "bleu", "eng"), ("mkqa", "f1", None)]
    base = run("base", {(*key, lang): 10.0 * i for i, key in enumerate(keys) for lang in ("ind", "jpn")})
    more = run("more", {(*key, lang): 10.0 * i + 6 for i, key in enumerate(keys) for lang in ("ind", "jpn")})
    (seven,) = published.beside([base], "table7")
    assert [c.text for c in seven.blocks[0].lines[0].cells] == ["0.00", "10.00", "20.00", "30.00", "15.00"]
    (twelve,) = published.beside([base, more], "table12")
    assert [[c.text for c in line.cells] for line in twelve.blocks[0].lines] == [["0.00", "0.00"], ["6.00", "6.00"]]


def test_an_unknown_table_is_one_line():
    with pytest.raises(UserError, match="--paper table1: unknown; known: table2, .*llama2, seallm"):
        published.tables("table1")
    assert [d["table"] for d in published.tables("seallm")] == [8, 9, 10, 11]


@pytest.mark.parametrize(
    ("values", "lower", "expected"),
    [
        ([1.0, 2.0, 3.0], False, [0, 2, 1]),
        ([1.0, 2.0, 3.0], True, [1, 2, 0]),
        ([3.0, 3.01, 1.0], False, [1, 1, 2]),  # equal as shown
        ([2.0, 2.0, 2.0], False, [0, 0, 0]),
        ([1.0, 2.0], False, [0, 1]),  # of two there is no second best
        ([None, 2.0, 1.0], False, [0, 1, 0]),
    ],
)
def test_ranks(values, lower, expected):
    assert ranks(values, ["–" if v is None else f"{v:.1f}" for v in values], lower) == expected


TABLE = Table(
    "T_1 | 50%",
    ["CES", "AVG."],
    [
        Block(
            "F1 ↑, X → English",
            [Line("a&b", [Cell("1.0"), Cell("–")]), Line("<x>", [Cell("2.0", 1, "†‡"), Cell("3.0", 2)])],
            [Line("SFT (paper)", [Cell("9.0"), Cell("8.0")])],
        )
    ],
    ["note #1"],
    ["n 9, a|b"],
)


def test_markdown():
    assert markdown([TABLE], "p < 0.05").split("\n") == [
        '<a id="tab:t-1-50"></a>',
        "",
        r"**T\_1 \| 50%**",
        "",
        "|  | CES | AVG. |",
        "| --- | ---: | ---: |",
        "| *F1 ↑, X → English* |  |  |",
        "| SFT (paper) | 9.0 | 8.0 |",
        "| a&b | 1.0 | – |",
        r"| \<x\> | **2.0**†‡ | <u>3.0</u> |",
        "",
        "note #1",
        "",
        r"n 9, a\|b",
        "",
        r"p \< 0.05",
        "",
    ]


def test_latex_is_balanced_and_escaped():
    text = latex([TABLE], "p < 0.05")
    body = [line for line in text.split("\n") if line.endswith(r"\\") and "multicolumn" not in line]
    assert all(len(re.findall(r"(?<!\\)&", line)) == 2 for line in body) and len(body) == 4
    assert r"a\&b & 1.0 & -- \\" in body
    assert r"\textless{}x\textgreater{} & \textbf{2.0}\rlap{$^\dagger$$^\ddagger$} & \underline{3.0} \\" in body
    assert r"\caption{T\_1 \textbar{}\allowbreak{} 50\%. p \textless{} 0.05}" in text  # in OT1 a bare | is a dash
    assert r"\label{tab:t-1-50}" in text and r"note \#1 \par n 9, a\textbar{}\allowbreak{}b" in text
    for name in ("table*", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
    assert len(re.findall(r"(?<!\\){", text)) == len(re.findall(r"(?<!\\)}", text))


def test_a_narrow_terminal_goes_on_below():
    cells = ranked([[float(i) for i in range(30)], [float(30 - i) for i in range(30)]], 2)
    table = Table("wide", [f"L{i:02}" for i in range(30)], [Block("b", [Line("one", cells[0]), Line("two", cells[1])])])
    out = StringIO()
    print_table(table, Console(file=out, width=60))
    lines = out.getvalue().split("\n")
    assert max(map(len, lines)) <= 60
    assert [w for line in lines for w in line.split() if w.startswith("L")] == table.columns
    assert [float(x) for line in lines if line.startswith("one") for x in line.split()[1:]] == list(range(30))


def test_the_data_are_plain(tmp_path):
    assert (
        json.dumps(ALL[3])[:12]
        and sum(len(v) for d in ALL.values() for b in d["blocks"] for v in b["rows"].values()) == 978
    )


def test_what_the_run_has_nothing_of_is_left_out_and_what_stands_on_something_else_is_marked():
    def scored(value, n, signature):
        return {"value": value, "n": n, "signature": signature}

    official = "nrefs:1|case:mixed|eff:no|tok:flores200|smooth:exp|version:2.5.1"
    scores = {
        ("flores", "bleu", "eng", "ind", None): scored(30.0, 1012, official),
        ("flores", "bleu", "eng", "jpn", None): scored(31.0, 1012, official.replace("flores200", "char")),
        ("flores", "bleu", "eng", "kor", None): scored(32.0, 100, official.replace("flores200", "13a")),
    }
    (table,) = published.beside([Run("ours", [], "m", scores)], "table3")
    (block,) = table.blocks  # no COMET, nothing into English
    assert table.columns == ["IND", "JPN", "KOR"] and "English → X" in block.name and "BLEU" in block.name
    assert [(c.text, c.marks) for c in block.lines[0].cells] == [("30.00", ""), ("31.00", "ᵗ"), ("32.00", "ᵗⁿ")]
    assert all(len(line.cells) == 3 and not any(c.marks for c in line.cells) for line in block.published)
    assert any("left out: " in note and "POR" in note and "AVG." in note for note in table.notes)
    assert any("ᵗ another BLEU tokenizer" in note for note in table.notes)
    assert not any(note.startswith("ˢ") for note in table.notes)
    shots = {("belebele", "accuracy", None, "ind", None): scored(40.0, 900, "mode:likelihood|shots:5|prompt:official")}
    (table,) = published.beside([Run("ours", [], "m", shots)], "table2")
    assert [c.marks for c in table.blocks[0].lines[0].cells] == ["ˢ"]
    assert r"40.00\rlap{$^{\mathrm{s}}$}" in latex([table], "")
    with pytest.raises(UserError, match="--paper table11: the runs have no score of it; evaluate"):
        published.beside([Run("ours", [], "m", shots)], "table11")
    data, ours = ALL[3], Run("ours", [], "m", scores)
    assert len(data["columns"]) > 3 and len(published.beside([ours, run("none", {})], "table3")[0].blocks[0].lines) == 1


@pytest.mark.slow
def test_latex_compiles(tmp_path):
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex is missing: apt-get install texlive-latex-base texlive-latex-recommended")
    awkward = Table(
        "100% of a_b & c # $ ~ ^ \\ {x}",
        ["É|", "AVG."],
        [Block("chrF ↑, English → X", [Line("<a>", [Cell("1.0", 1, "†‡"), Cell("2.0", 2, "ᵗⁿˢ")])])],
        ["a note: “…” -- <>"],
        ["n 1012, nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.5.1"] * 3,
    )
    wide = Table("wide", [f"L{i:02}" for i in range(30)], [Block("b", [Line("one", [Cell("12.34")] * 30)])])
    text = latex([TABLE, awkward, wide, wide], "† two-sided p < 0.05", ['template: a none; b "x\\n{prompt}"'])
    assert len(set(re.findall(r"\\label\{(.*?)\}", text))) == 4
    (tmp_path / "t.tex").write_text(text, encoding="utf-8")
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs,graphicx}\begin{document}"
    (tmp_path / "d.tex").write_text(head + "\n\\input{t}\n\\ref{tab:wide}\\end{document}\n", encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "d.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout and (tmp_path / "d.pdf").stat().st_size > 5000
