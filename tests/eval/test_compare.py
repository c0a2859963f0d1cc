import csv
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics import CHRF

from sdrrl_eval.compare import command
from sdrrl_factory.errors import UserError

SCRIPT = "<script>alert('x')</script> & [bold]"
LOSSES = ("LL", "TL", "LT", "TT", "mt", "comp")


def compare(runs, train_log=None, output=None, markdown=None, latex=None, json=None, csv=None, **options) -> str:
    """As `sdrrl compare`; the path of the report."""
    comparison = command.compare(runs, train_log=train_log, **options)
    files = {"markdown_file": markdown, "latex_file": latex, "json_file": json, "csv_file": csv}
    path = comparison.write(output, **files)
    comparison.print()
    print(f"report: {path}")
    return str(path)


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
    with pytest.raises(UserError, match="--correct none: unknown; known: holm"):
        compare(runs, correct="none")


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
    assert r"\textbf{80.00}\rlap{$^\dagger$$^\ddagger$}" in latex.read_text(encoding="utf-8")
    page = Tags(Path(report).read_text(encoding="utf-8"))
    assert page.open == [] and page.text.count("80.00†‡") == 3 + 2  # the table, and the list of intervals


def test_only_the_common_items_are_compared(tmp_path, capsys):
    """By hand: of 20 items each, 15 are in both; scores, n, intervals and p-values are those of the 15."""
    key = ("mkqa", "f1", "spa")
    values = [[float(i % 7) * 10 for i in range(20)], [float(i % 5) * 10 + 30 for i in range(5, 25)]]
    runs = [item_run(tmp_path / name, {key: v}) for name, v in zip("ab", values, strict=True)]
    rows = [
        {"id": str(i), "prompt": f"q{i}", "output": "x", "f1": v} for i, v in zip(range(5, 25), values[1], strict=True)
    ]
    put_items(runs[1], "mkqa.spa", rows[::-1])
    data = tmp_path / "c.json"
    compare(runs, json=str(data))
    said = capsys.readouterr().out
    assert "MKQA F1 spa: n 15, s:1 (the 15 items that all have, of 20, 20)" in said
    found = json.loads(data.read_text(encoding="utf-8"))["scores"]
    one, other = values[0][5:], values[1][:15]
    assert [s["value"] for s in found] == pytest.approx([sum(one) / 15, sum(other) / 15], abs=1e-4)
    assert [s["n"] for s in found] == [15, 15] and all("15 items that all have" in s["note"] for s in found)
    gaps = np.array(other) - one
    swapped = gaps @ np.random.default_rng(0).choice([-1, 1], (15, 20_000))
    p = np.mean(np.abs(swapped) >= abs(gaps.sum()) - 1e-9)
    assert found[1]["p"] == pytest.approx(p, abs=4 * (p / 10_000) ** 0.5 + 2e-4)
    assert found[1]["test"] == "approximate randomisation" and found[0]["p"] is None


def test_what_is_to_be_known_of_the_answers_is_counted_on_the_compared_items(tmp_path):
    """Ten items of which two are common: what is cut off is counted on these, from predictions of any version."""
    runs = []
    for name, first in (("base", 0), ("trained", 8)):
        runs.append(item_run(tmp_path / name, {("mkqa", "f1", "spa"): [10.0] * 10}))
        rows = [
            {"id": str(i), "prompt": f"q{i}", "output": "x", "f1": 10.0, "finish": "length" if i in (3, 8) else "stop"}
            for i in range(first, first + 10)
        ]
        put_items(runs[-1], "mkqa.spa", rows)
    settle(runs[1], scores=[json.loads(Path(runs[1], "results.json").read_text())["scores"][0] | {
        "remarks": {"cut_off": 1, "left_out": 5}
    }])  # fmt: skip
    comparison = command.compare(runs)
    [score] = comparison.scores
    assert [entry["remarks"] for entry in score.scores] == [{"cut_off": 1}, {"cut_off": 1, "left_out": 5}]
    assert [cell.remarks for cell in comparison.score_table.blocks[0].lines[0].cells] == ["ᶜ", "ᶜˡ"]
    cut_off, left_out = comparison.remarks
    assert cut_off.endswith("limit of new tokens: base MKQA spa 1 of 2; trained MKQA spa 1 of 2")
    assert left_out.endswith("left out of the score: trained MKQA spa 5 of 7")


def test_a_loss_has_no_answers_to_be_cut_off(tmp_path):
    run = losses(tmp_path / "base", [5, 7, 9], 2.0)
    path = Path(run) / "predictions/text_loss.spa.jsonl"
    rows = [json.loads(line) | {"finish": "length"} for line in path.read_text().splitlines()]
    put_items(run, "text_loss.spa", rows)
    assert command.compare([run, losses(tmp_path / "other", [5, 7, 9], 2.5)]).remarks == []


def test_questions_on_one_passage_are_swapped_together(tmp_path):
    """By hand: 20 questions on 10 passages, of which all swaps of whole passages are tried."""
    flags = np.random.default_rng(1).random((2, 20)) < [[0.3], [0.8]]
    runs = []
    for name, own in zip(("base", "trained"), flags, strict=True):
        runs.append(item_run(tmp_path / name, {("belebele", "accuracy", "spa"): (100.0 * own).tolist()}))
        rows = [
            {"id": f"q{i}", "group": f"{name} passage {i // 2}", "reference": "A", "accuracy": bool(flag)}
            for i, flag in enumerate(own)
        ]
        put_items(runs[-1], "belebele.spa", rows)
    [score] = command.compare(runs).scores
    gaps = (flags[1].astype(int) - flags[0]).reshape(10, 2).sum(1)
    signs = 1 - 2 * (np.arange(2**10)[:, None] >> np.arange(10) & 1)
    assert score.p(1) == pytest.approx(np.mean(np.abs(signs @ gaps) >= abs(gaps.sum())))
    assert score.test == "approximate randomisation" and score.scores[0]["n"] == 20
    assert score.statistics[0].items == tuple(f"q{2 * i}" for i in range(10))


def test_nothing_in_common_is_not_compared(tmp_path, capsys):
    key = ("mkqa", "f1", "spa")
    runs = [item_run(tmp_path / name, {key: [1.0] * 20}) for name in ("a", "b")]
    rows = [{"id": str(i), "prompt": f"q{i}", "output": "x", "f1": 1.0} for i in range(20, 40)]
    put_items(runs[1], "mkqa.spa", rows)
    compare(runs)
    assert "MKQA F1 spa: n 20, s:1 (items differ, 0 in common: not comparable)" in capsys.readouterr().out


def test_another_prompt_asks_the_same_items(tmp_path):
    key = ("mkqa", "f1", "spa")
    runs = [item_run(tmp_path / name, {key: [float(i) for i in range(20)]}) for name in ("a", "b")]
    for run, prompt in zip(runs, ("short: ", "at length: "), strict=True):
        rows = [
            {"id": str(i), "prompt": prompt + str(i), "reference": f"r{i}", "output": "x", "f1": float(i)}
            for i in range(20)
        ]
        put_items(run, "mkqa.spa", rows)
    compare(runs, json=str(tmp_path / "c.json"))
    base, other = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))["scores"]
    assert (other["p"], other["n"], other["note"]) == (1.0, 20, None)


def losses(folder, tokens: list[int], nats: float) -> str:
    rows = [{"id": str(i), "prompt": None, "output": None, "nats": nats * n, "tokens": n} for i, n in enumerate(tokens)]
    score = entry(
        "text_loss", "text_loss", "spa", nats, n=len(rows), signature=f"unit:nats|tokens:{sum(tokens)}|bos:no"
    )
    run = make_run(folder, [score])
    put_items(run, "text_loss.spa", rows)
    return run


def test_losses_need_the_same_tokens(tmp_path, capsys):
    long = losses(tmp_path / "long", [5, 7, 9, 11, 3, 4, 6, 8], 2.0)
    first = losses(tmp_path / "first", [5, 7, 9, 11, 3, 4, 6], 2.5)
    compare([long, first])
    assert "(the 7 items that all have, of 8, 7)" in capsys.readouterr().out
    compare([long, losses(tmp_path / "other", [5, 7, 9, 11, 3, 4, 6, 9], 2.5)])
    assert "(tokens differ: not comparable)" in capsys.readouterr().out


def settle(run: str, **more) -> None:
    path = Path(run) / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more), encoding="utf-8")


def test_how_the_answers_were_made_is_said_above_the_tables(tmp_path, capsys):
    signature = "nrefs:1|case:mixed|eff:no|tok:{}|smooth:exp|version:2.5.1"
    runs = []
    for name, tok, limit, template in (("base", "13a", 64, None), ("trained", "flores200", 128, "llama3")):
        bleu = entry("flores", "bleu", "spa", 10.0, "eng", signature=signature.format(tok))
        runs.append(make_run(tmp_path / name, [bleu, *scores(0)]))
        about = {"prompt": "p", "max_new_tokens": limit, "finish": {"length": limit}}
        decoding = {"strategy": "greedy", "template": template, "batch_size": limit, "max_samples": None, "seed": limit}
        decoding |= {"precision": "float32" if template else "bfloat16", "device": "cpu"}
        parts = {"translation.eng-spa": about, "flores.eng-spa": about}
        settle(runs[-1], decoding=decoding, parts=parts, versions={"torch": f"2.{limit}", "numpy": "1"})
    report = compare(
        runs, markdown=str(tmp_path / "t.md"), latex=str(tmp_path / "t.tex"), json=str(tmp_path / "t.json")
    )
    said = capsys.readouterr().out
    expected = [
        'template: base none; trained "llama3"',
        'precision: base "bfloat16"; trained "float32"',
        'version of torch: base "2.64"; trained "2.128"',
        "limit of new tokens of translation.eng-spa, flores.eng-spa: base 64; trained 128",
        'BLEU tokenizer of FLORES-200 eng → spa: base "13a"; trained "flores200"',
    ]
    above = said[: said.index("score  ")]
    assert above.split("\n")[:-2] == [f"differs: {line}" for line in expected]
    # A system prompt, stop strings and thoughts are in results.json only where they are set.
    settle(runs[1], decoding={"enable_thinking": False}, parts={"flores.eng-spa": {"n": 2, "stop": ["\n"]}})
    settle(runs[0], parts={"flores.eng-spa": {"n": 2, "system_prompt": "Be brief."}})
    told = command.compare(runs).differences
    assert 'system prompt of flores.eng-spa: base "Be brief."; trained none' in told
    assert 'stop strings of flores.eng-spa: base none; trained ["\\n"]' in told
    assert "thinking: base none; trained false" in told
    assert json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["differences"] == expected
    page = Tags(Path(report).read_text(encoding="utf-8"))
    for text in (page.text, (tmp_path / "t.md").read_text(encoding="utf-8")):
        assert all(f"Differs: {line}".replace("_", "") in text.replace("_", "") for line in expected)
    assert r"limit of new tokens of translation.eng-spa" in (tmp_path / "t.tex").read_text(encoding="utf-8")
    capsys.readouterr()
    compare([runs[0], runs[0].replace("base", "./base")])
    assert "differs:" not in capsys.readouterr().out


def noisy(seed: int, shift: float) -> list[float]:
    return (np.random.default_rng(seed).normal(50 + shift, 10, 40)).round(2).tolist()


def test_only_what_is_significant_has_a_colour(tmp_path):
    runs = [
        item_run(tmp_path / name, {("mkqa", "f1", "spa"): noisy(i, 0), ("xlsum", "rougeL", "spa"): noisy(i, 30 * i)})
        for i, name in enumerate(("base", "trained"))
    ]
    text = Path(compare(runs)).read_text(encoding="utf-8")
    cells = re.findall(r"<td class='(\w+)'>([^<]*)<sup>([^<]*)</sup>", text)
    assert [(look, "better" in words or "worse" in words, mark) for look, words, mark in cells] == [
        ("same", True, ""), ("better", True, "†"),
    ]  # fmt: skip
    tiles = re.findall(r"<span class='(better|worse|same)'>", text[text.index("class='tiles'") :])[:2]
    assert sorted(tiles) == ["better", "same"]


def test_holm_corrects_all_marks_of_a_comparison_and_the_legend_says_how_many_are_chance(tmp_path, capsys):
    shifts = {"f1": 0.0, "em": 4.5, "rougeL": 5.0, "accuracy": 30.0}
    runs = [
        item_run(
            tmp_path / name,
            {("mkqa", metric, "spa"): noisy(7 * k + i, i * shift) for k, (metric, shift) in enumerate(shifts.items())},
        )
        for i, name in enumerate(("base", "trained"))
    ]
    for run in runs:  # one predictions file has all four metrics
        rows = [
            {"id": str(n), "prompt": f"q{n}", "output": "x"}
            | {m: noisy(7 * k + (run == runs[1]), (run == runs[1]) * s)[n] for k, (m, s) in enumerate(shifts.items())}
            for n in range(40)
        ]
        put_items(run, "mkqa.spa", rows)
    paths = {name: tmp_path / f"{name}.json" for name in ("plain", "holm")}
    compare(runs, json=str(paths["plain"]), csv=str(tmp_path / "c.csv"))
    assert "4 tests, not corrected: without any difference, chance alone would mark about 0.2." in (
        " ".join(capsys.readouterr().out.split())
    )
    compare(runs, json=str(paths["holm"]), latex=str(tmp_path / "t.tex"), correct="holm")
    assert "4 tests, p corrected by Holm" in " ".join(capsys.readouterr().out.split())
    assert "p corrected by Holm" in (tmp_path / "t.tex").read_text(encoding="utf-8")
    plain, holm = ([s for s in json.loads(p.read_text())["scores"] if s["p"] is not None] for p in paths.values())
    assert [s["p"] for s in plain] == [s["p"] for s in holm] and len(plain) == 4
    expected, highest = {}, 0.0
    for rank, p in enumerate(sorted(s["p"] for s in plain)):
        highest = max(highest, min(1, (4 - rank) * p))
        expected[p] = highest
    assert [s["p_corrected"] for s in holm] == pytest.approx([expected[s["p"]] for s in holm])
    assert [s["marks"] for s in holm] == ["†" * (expected[s["p"]] < 0.05) for s in holm]
    assert sum(bool(s["marks"]) for s in holm) < sum(bool(s["marks"]) for s in plain)
    lines = list(csv.DictReader((tmp_path / "c.csv").open(encoding="utf-8")))
    everything = json.loads(paths["plain"].read_text())["scores"]
    assert [{k: "" if v is None else str(v) for k, v in s.items()} for s in everything] == lines


def test_ten_systems_take_seconds(tmp_path):
    """1,012 items, corpus chrF: every p-value against the base and between the best, averages too."""
    pick = np.random.default_rng(0)
    words = [f"w{i}" for i in range(400)]
    reference = [" ".join(pick.choice(words, 20)) for _ in range(1012)]
    outputs = [[" ".join(pick.permutation(r.split())[:15]) for r in reference] for _ in range(10)]
    metric = CHRF()
    langs = ["ces", "dan"]
    runs = []
    for k, answers in enumerate(outputs):
        value = metric.corpus_score(answers, [reference]).score
        found = [entry("flores", "chrf", lang, value, "eng", 1012, str(metric.get_signature())) for lang in langs]
        run = make_run(tmp_path / f"s{k}", found)
        rows = [
            {"id": str(i), "prompt": "", "output": a, "reference": r}
            for i, (a, r) in enumerate(zip(answers, reference, strict=True))
        ]
        for lang in langs:
            put_items(run, f"flores.eng-{lang}", rows)
        runs.append(run)
    start = time.process_time()
    compare(runs)
    assert time.process_time() - start < 30  # sacrebleu's counting of n-grams is most of it


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
    assert "SDRRL (paper) 49.44 39.81 44.63 mine 45.00ⁿ 45.00ⁿ 45.00ⁿ" in said
    assert "ⁿ another number of items" in said
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
    assert text.count("<div class='rate'>") == 2 and text.count("width:50.00%") == 2
    assert text.count("width:10.00%") == 2 and "10.0%†" in text


def test_a_picture_with_a_script_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match="no tsne.svg in it; write it with `sdrrl tsne"):
        compare(runs, tsne=str(tmp_path))
    (tmp_path / "tsne.svg").write_text("<svg onload='x()'></svg>")
    with pytest.raises(UserError, match="was not written by `sdrrl tsne`"):
        compare(runs, tsne=str(tmp_path))
    (tmp_path / "tsne.svg").write_text("<?xml?><svg><use xlink:href='#a'/></svg>")
    assert "<use xlink:href='#a'/>" in Path(compare(runs, tsne=str(tmp_path))).read_text(encoding="utf-8")


def test_files_of_others_are_not_replaced_and_those_of_a_comparison_are(runs, tmp_path):
    names = {"output": "r.html", "markdown": "t.md", "latex": "t.tex", "json": "t.json", "csv": "t.csv"}
    files = {kind: tmp_path / name for kind, name in names.items()}
    for _ in range(2):
        compare(runs, **files)
    before = {kind: path.read_bytes() for kind, path in files.items()}
    assert all(before.values())
    for kind, path in files.items():
        path.write_text("mine")
        with pytest.raises(UserError, match=f"{path}: is there already.* another name") as err:
            compare(runs, **files)
        assert "\n" not in str(err.value) and path.read_text() == "mine"
        assert all(other.read_bytes() == before[k] for k, other in files.items() if k != kind)
        path.write_bytes(before[kind])
    # One named like an evaluation's own file is not replaced either.
    with pytest.raises(UserError, match="results.json: is there already"):
        compare(runs, json=f"{runs[-1]}/results.json")
