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
