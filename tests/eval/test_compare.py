import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sdrrl_eval.compare import compare
from sdrrl_factory.errors import UserError

SCRIPT = "<script>alert('x')</script> & [bold]"
LOSSES = ("LL", "TL", "LT", "TT", "mt", "comp")


def entry(task, metric, target, value, source=None, n=2, signature="s:1"):
    return {
        "task": task, "metric": metric, "source_lang": source, "target_lang": target, "value": value, "n": n,
        "ci95": [value - 1, value + 1], "signature": signature,
    }  # fmt: skip


def scores(better: int) -> list[dict]:
    return [
        entry("text_loss", "text_loss", "eng", 2.0),
        entry("text_loss", "text_loss", "spa", 3.5 - better),
        entry("translation", "chrf", "spa", 20.0 + 5 * better, "eng"),
        entry("translation", "bleu", "eng", 10.0 - better, "spa", signature="s:2"),
        entry("off_target", "off_target", "spa", 30.0 + 10 * better),
    ]


def make_run(folder, found, answer="Hola"):
    (folder / "predictions").mkdir(parents=True)
    results = {"model": f"models/{SCRIPT}", "model_hash": None, "recipe": "r", "versions": {}, "scores": found}
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    rows = [
        {
            "id": str(i),
            "prompt": f"question {i} {SCRIPT}",
            "output": f"{answer} {i}",
            "reference": f"ref {SCRIPT}",
            "finish": "length",
        }
        for i in range(12)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "predictions" / "translation.eng-spa.jsonl").write_text(text, encoding="utf-8")
    return str(folder)


@pytest.fixture
def runs(tmp_path) -> list[str]:
    return [make_run(tmp_path / "base", scores(0)), make_run(tmp_path / "trained[x]<b>", scores(1), SCRIPT)]


@pytest.fixture
def log(tmp_path) -> str:
    path = tmp_path / "trainer_log.jsonl"
    lines = [
        {"current_steps": step, "loss": 2.0, **{f"loss_{name}": 3 / step + i for i, name in enumerate(LOSSES)}}
        for step in range(1, 60)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"current_steps": 60}]), encoding="utf-8")
    return str(path)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_table(runs, capsys):
    path = compare(runs)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    body = lines[1:8]
    assert lines[0] == "score language base trained[x]<b> change"
    assert body == [
        "Spanish",
        "text loss ↓ spa 3.500 2.500 ↓ 1.000 better",
        "translation chrF ↑ eng → spa 20.0 25.0 ↑ 5.0 better",
        "translation BLEU ↑ spa → eng 10.0 9.0 ↓ 1.0 worse",
        "off-target ↓ spa 30.0% 40.0% ↑ 10.0 points worse",
        "English",
        "text loss ↓ eng 2.000 2.000 no change",
    ]
    assert "translation BLEU spa → eng: n 2, s:2" in lines
    assert lines[-1] == f"report: {path}" and path.endswith("trained[x]<b>/report.html")


def test_the_report_is_escaped_whole_and_self_contained(runs, log):
    text = Path(compare(runs, log)).read_text(encoding="utf-8")
    page = Tags(text)
    assert page.open == []
    names = [tag for tag, _ in page.seen]
    assert "script" not in names and "<script" not in text
    assert text.count("&lt;script&gt;") >= 10 * 3
    assert SCRIPT in page.text and "trained[x]<b>" in page.text
    assert not any(attrs.get("src") or (attrs.get("href") or "#")[0] != "#" for _, attrs in page.seen)
    assert names.count("svg") == 1
    assert sum(attrs.get("class") == "sample" for _, attrs in page.seen) == 10
    bold = text.split("class='best'>")[1:]
    assert [b[: b.index("<")] for b in bold] == ["2.500", "25.0", "10.0", "30.0%"]
    assert page.text.count("cut off") == 20


def test_the_chart_has_a_colour_a_subset_and_the_report_is_deterministic(runs, log, tmp_path):
    first, second = str(tmp_path / "1.html"), str(tmp_path / "2.html")
    compare(runs, log, first)
    compare(runs, log, second)
    text = Path(first).read_text(encoding="utf-8")
    assert text == Path(second).read_text(encoding="utf-8")
    chart = text[text.index("<svg") : text.index("</svg>")]
    assert all(f">{name}</text>" in chart for name in LOSSES) and ">all</text>" not in chart
    colours = ("#2563eb", "#0891b2", "#7c3aed", "#db2777", "#ea580c", "#16a34a")
    # raw, running mean and legend
    assert all(chart.count(f"stroke: {colour}") == 3 for colour in colours)
    assert "optimizer step" in chart and "loss (nats a token)" in chart


def test_numbers_of_other_data_are_not_compared(tmp_path, capsys):
    other = [
        entry("text_loss", "text_loss", "spa", 1.0, signature="tokens:9"),
        entry("off_target", "off_target", "spa", 1.0),
    ]
    compare([make_run(tmp_path / "a", scores(0)), make_run(tmp_path / "b", other)])
    said = capsys.readouterr().out
    assert "not comparable" in said and "n 2, s:1 against n 2, tokens:9 (signature differ: not comparable)" in said
    assert "↓ 29.0 points better" in said


def test_three_runs_mark_the_best(tmp_path):
    folders = [make_run(tmp_path / name, scores(i)) for i, name in enumerate("abc")]
    text = Path(compare(folders)).read_text(encoding="utf-8")
    assert "<span class='best'>1.500</span>" in text and text.count("<th>change</th>") == 2


def write(text):
    return lambda folder: (folder / "results.json").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda folder: (folder / "results.json").unlink(), "b/results.json: no such file; .*sdrrl eval RECIPE"),
        (write("{"), "b/results.json: not JSON .*sdrrl eval RECIPE"),
        (write("[]"), "b/results.json: no list of scores; .*sdrrl eval RECIPE"),
        (write('{"scores": [3]}'), r"b/results.json: scores\[0\]: the entry is .*sdrrl eval RECIPE"),
        (write('{"scores": [{"task": "t"}]}'), r"b/results.json: scores\[0\]: metric is missing .*sdrrl eval RECIPE"),
        (write(json.dumps({"scores": [entry("a", "b", "spa", float("nan"))]})), r"scores\[0\]: value is .*sdrrl eval"),
        (
            write(json.dumps({"scores": [entry("x", "chrf", "spa", 1)]})),
            "b/results.json: no score in common; .*sdrrl eval",
        ),
        (write('{"scores": []}'), "b/results.json: no score in common; .*sdrrl eval RECIPE"),
    ],
)
def test_bad_results_are_one_line(tmp_path, spoil, expected):
    folders = [make_run(tmp_path / name, scores(0)) for name in "ab"]
    spoil(tmp_path / "b")
    with pytest.raises(UserError, match=expected) as caught:
        compare(folders)
    assert "\n" not in str(caught.value)


def test_a_source_lang_left_out_is_named(tmp_path):
    found = [{k: v for k, v in entry("x", "chrf", "spa", 1.0).items() if k != "source_lang"}]
    folders = [make_run(tmp_path / name, found) for name in "ab"]
    with pytest.raises(UserError, match="source_lang is missing"):
        compare(folders)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"current_steps": 1}\n', "log.jsonl: no line with a loss;"),
        ('{"current_steps": 1, "loss": "a"}\n', "log.jsonl:1: current_steps or a loss is no number;"),
        ('{"loss": 1.0}\n', "log.jsonl:1: current_steps"),
        ("x\n", "log.jsonl:1: not JSON"),
    ],
)
def test_a_bad_train_log_is_one_line(runs, tmp_path, text, expected):
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(UserError, match=expected):
        compare(runs, str(tmp_path / "log.jsonl"))


def test_one_run_is_too_few_and_a_bad_output_is_named(runs, tmp_path):
    with pytest.raises(UserError, match="fewer than two"):
        compare(runs[:1])
    with pytest.raises(UserError, match="base: cannot be written"):
        compare(runs, None, runs[0])


def put_items(folder, stem, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (Path(folder) / "predictions" / f"{stem}.jsonl").write_text(text, encoding="utf-8")


def item_run(folder, values: dict[tuple[str, str, str], list[float]], n=None) -> str:
    """An evaluation whose scores are means of items' own scores: {(task, metric, lang): values}."""
    found = [
        entry(task, metric, lang, sum(v) / len(v), n=n or len(v), signature="s:1")
        for (task, metric, lang), v in values.items()
    ]
    path = make_run(folder, found)
    for (task, metric, lang), v in values.items():
        rows = [{"id": str(i), "prompt": f"q{i}", "output": "x", metric: x} for i, x in enumerate(v)]
        put_items(path, f"{task}.{lang}", rows)
    return path


def test_languages_stand_in_columns_with_their_average_and_marks(tmp_path, capsys):
    ok = [100.0 * (i % 5 < 2) for i in range(60)]
    better = [100.0 * (i % 5 < 4) for i in range(60)]
    slightly = [100.0, 100.0, 100.0, *ok[3:]]
    runs = [
        item_run(tmp_path / name, {("belebele", "accuracy", lang): v for lang in ("spa", "por")})
        for name, v in (("base", ok), ("same", slightly), ("trained", better))
    ]
    markdown, latex = tmp_path / "t.md", tmp_path / "t.tex"
    report = compare(runs, markdown=str(markdown), latex=str(latex))
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["SPA", "POR", "AVG."] in printed
    assert printed[printed.index(["SPA", "POR", "AVG."]) + 1 :][:4] == [
        ["accuracy", "↑,", "target", "languages"],
        ["base", "40.00", "40.00", "40.00"],
        ["same", "41.67", "41.67", "41.67"],
        ["trained", "80.00†‡", "80.00†‡", "80.00†‡"],
    ]
    assert "| trained | **80.00**†‡ | **80.00**†‡ | **80.00**†‡ |" in markdown.read_text(encoding="utf-8")
    assert "| same | <u>41.67</u> |" in markdown.read_text(encoding="utf-8")
    assert r"\textbf{80.00}$^\dagger$$^\ddagger$" in latex.read_text(encoding="utf-8")
    page = Tags(Path(report).read_text(encoding="utf-8"))
    assert page.open == [] and page.text.count("80.00†‡") == 3 + 2  # the table, and the list of intervals


def test_other_items_are_not_compared(tmp_path, capsys):
    key = ("mkqa", "f1", "spa")
    runs = [item_run(tmp_path / name, {key: [1.0] * 20}) for name in ("a", "b")]
    rows = [{"id": str(i), "prompt": f"q{i}", "output": "x", "f1": 1.0} for i in range(5, 25)]
    put_items(runs[1], "mkqa.spa", rows)
    compare(runs)
    said = capsys.readouterr().out
    assert "MKQA F1 spa: n 20, s:1 (items differ, 15 in common: not comparable)" in said


def test_predictions_that_do_not_give_the_score_are_named(tmp_path, capsys):
    runs = [item_run(tmp_path / name, {("mkqa", "f1", "spa"): [1.0, 3.0] * 3}) for name in ("a", "b")]
    put_items(runs[1], "mkqa.spa", [{"id": str(i), "prompt": f"q{i}", "output": "x", "f1": 9.0} for i in range(6)])
    compare(runs)
    assert "no p-value, as predictions/ is not there or does not give the score: MKQA F1 spa" in capsys.readouterr().out


def test_a_system_of_one_checkpoint_a_language(tmp_path, capsys):
    def value(x):
        return [x] * 6

    base = item_run(tmp_path / "base", {("mkqa", "f1", lang): value(10.0) for lang in ("dan", "fin", "eng")})
    dan = item_run(tmp_path / "dan", {("mkqa", "f1", "dan"): value(20.0), ("mkqa", "f1", "eng"): value(30.0)})
    fin = item_run(tmp_path / "fin", {("mkqa", "f1", "fin"): value(21.0), ("mkqa", "f1", "eng"): value(31.0)})
    compare([base, f"ours={dan},{fin}"], output=str(tmp_path / "r.html"))
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    at = printed.index(["DAN", "FIN", "AVG."])
    assert printed[at + 2] == ["base", "10.00", "10.00", "10.00"]
    assert printed[at + 3] == ["ours", "20.00†", "21.00†", "20.50†"]
    assert printed[at + 5 :][:2] == [
        ["base", "10.00", "10.00", "10.00"],
        ["ours", "30.00†", "31.00†", "30.50†"],
    ]
    with pytest.raises(UserError, match="MKQA F1 ↑ dan stands in .*dan too; one folder a language"):
        compare([base, f"ours={dan},{item_run(tmp_path / 'two', {('mkqa', 'f1', 'dan'): value(1.0)})}"])


def test_a_run_alone_beside_the_paper(tmp_path, capsys):
    folder = item_run(tmp_path / "mine", {("mkqa", "f1", lang): [50.0, 40.0] for lang in ("tha", "khm", "eng")})
    report = compare([folder], paper="table11")
    said = " ".join(capsys.readouterr().out.split())
    assert "SDRRL (paper) 49.44 39.81 44.63 mine 45.00 45.00 45.00" in said
    assert "Published figures of the SDRRL paper's Table 11 (SeaLLM-7B)" in said
    assert "SDRRL (paper)" in Path(report).read_text(encoding="utf-8")


def test_off_target_bars(tmp_path):
    def flags(n):
        return [i < n for i in range(20)]

    runs = [
        item_run(tmp_path / name, {("off_target", "off_target", lang): flags(n) for lang in ("spa", "por")})
        for name, n in (("base", 10), ("trained", 2))
    ]
    for folder in runs:  # the score is in percent
        path = Path(folder) / "results.json"
        results = json.loads(path.read_text())
        for score in results["scores"]:
            score["value"] *= 100
        path.write_text(json.dumps(results))
    text = Path(compare(runs)).read_text(encoding="utf-8")
    assert text.count("<div class='rate'>") == 2 and text.count("width:100.00%") == 2
    assert text.count("width:20.00%") == 2 and "10.0%†" in text


def test_a_picture_with_a_script_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match="no tsne.svg in it; write it with `sdrrl tsne"):
        compare(runs, tsne=str(tmp_path))
    (tmp_path / "tsne.svg").write_text("<svg onload='x()'></svg>")
    with pytest.raises(UserError, match="was not written by `sdrrl tsne`"):
        compare(runs, tsne=str(tmp_path))
    (tmp_path / "tsne.svg").write_text("<?xml?><svg><use xlink:href='#a'/></svg>")
    assert "<use xlink:href='#a'/>" in Path(compare(runs, tsne=str(tmp_path))).read_text(encoding="utf-8")
