"""The summary, report.html and the dataset card, against records counted by hand and by brute force."""

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from sdrrl_factory.transfer import card, report
from sdrrl_factory.transfer.recipe import LanguageId, PrepareConfig, Quality, Source, Translator
from sdrrl_factory.transfer.summary import LENGTH_EDGES, Summary, dataset_lines, print_dataset_lines

NASTY = "</p><script>alert('x')</script> & \"q\" | `a` [b](c) \u202e\u05e9 <img src=x onerror=1>\x00"
SIDES = ("question", "answer", "output")
SYSTEMS = ["sdrrl", "sft", "tsft", "cit", "xcot"]
WHYS = ["lost number", "low quality", "off-target", "not translated", "length ratio"]


def config(**keys) -> PrepareConfig:
    keys = {"instructions": "rows.jsonl", "target_lang": "spa", "name": "demo", "systems": SYSTEMS} | keys
    return PrepareConfig(**keys)


def make_record(rid: int | str, random_: random.Random, text: str = "") -> dict:
    words = " ".join(random_.choices(["uno", "dos", "tres", "cuatro", "cinco"], k=random_.randint(1, 40))) + text
    drawn = random_.random() < 0.5
    gen = random_.choice(["", "", "", "cut off", "looping"]) if drawn else ""
    record = {"id": str(rid), "instruction": f"Ask {rid} {text}", "input": random_.choice(["", words]), "system": text}
    record |= {"output": words, "answer": words, "response": words if drawn else None, "reasons": []}
    record |= {"response_finish": ("length" if gen == "cut off" else "stop") if drawn else None}
    record["answer_origin"] = "G" if drawn and not gen else "D"
    if gen:
        record["reasons"].append(f"generation: {gen}")
    record |= {f"{column}_mt": f"es {record[column]}" for column in ("instruction", "input", "answer", "output")}
    for side, column in (("question", "instruction"), ("answer", "answer"), ("output", "output")):
        why = random_.choice(WHYS) if random_.random() < 0.3 else ""
        record |= {f"{side}_ok": not why, f"{side}_qe": None if why == "not translated" else random_.random()}
        if why == "not translated":
            record[f"{column}_mt"] = None
        if why:
            record["reasons"].append(f"{side}: {why}")
    record["switch_counts"] = {s: [random_.randint(5, 9), random_.randint(2, 5), 1] for s in ("LL", "TL", "LT", "TT")}
    return record


def rows_of(record: dict) -> dict[str, list[dict]]:
    def row(subset: str, question: str, answer: str) -> dict:
        asked = {"instruction": record[f"instruction{question}"] or "", "input": record[f"input{question}"] or ""}
        languages = {"source_lang": "eng", "target_lang": "spa", "answer_origin": record["answer_origin"]}
        return {"id": record["id"], "subset": subset, "system": "", **asked, "output": record[answer], **languages}

    question, answer, output = (record[f"{side}_ok"] for side in ("question", "answer", "output"))
    return {
        "LL": [row("LL", "", "answer")],
        "TL": [row("TL", "_mt", "answer")] if question else [],
        "LT": [row("LT", "", "answer_mt")] if answer else [],
        "TT": [row("TT", "_mt", "answer_mt")] if question and answer else [],
        "sft": [row("sft", "", "output")],
        "tsft": [row("tsft", "_mt", "output_mt")] if question and output else [],
        "cit": [row("cit", "", "output_mt")] if output else [],
        "xcot": [row("xcot", "", "output")] + ([row("xcot", "_mt", "output_mt")] if question and output else []),
    }


NATURAL = {"instruction": "Complete.", "input": "El río es", "output": "El río es ancho."}


def make_summary(records: list[dict], **keys) -> Summary:
    summary = Summary(config(**keys), "spa")
    for record in records:
        summary.add(record, rows_of(record))
    for i in range(5):
        for subset in ("mt", "comp"):
            summary.add_natural(subset, {"id": f"p{i}", **NATURAL})
    summary.left_out.update({"duplicate": 2, "held out": 7})
    summary.formats, summary.resources = ["rows.jsonl: alpaca"], {"translator": "apertium 3"}
    summary.names = [f"demo_spa_{s}" for s in ["ll", "tl", "lt", "tt", "mt", "comp", "sft", "tsft", "cit", "xcot"]]
    return summary


@pytest.fixture(scope="module")
def records() -> list[dict]:
    random_ = random.Random(1)
    return [make_record(f"r{i}", random_) for i in range(400)]


@pytest.fixture(scope="module")
def summary(records) -> Summary:
    return make_summary(records)


class Page(HTMLParser):
    """The tags seen, those left open, and the text; fails on a tag closed out of order."""

    VOID = ("meta", "link", "br", "hr", "img", "input", "rect", "path")

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.seen, self.open, self.text = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def written(path: Path, summary: Summary) -> str:
    report.write(path, summary)
    return path.read_text(encoding="utf-8")


def carded(path: Path, summary: Summary) -> str:
    card.write(path, summary)
    return path.read_text(encoding="utf-8")


def test_counts_are_those_of_all_records_at_once(summary, records):
    every = [rows_of(r) for r in records]
    for subset in every[0]:
        rows = [row for rows in every for row in rows[subset]]
        count = summary.sets[subset]
        asked = [len(f"{row['instruction']} {row['input']}".split()) for row in rows]
        answered = [len(row["output"].split()) for row in rows]
        assert (count.rows, count.asked, count.answered) == (len(rows), sum(asked), sum(answered))
        edges = (0, *LENGTH_EDGES, 10**9)
        bins = [sum(low <= n < high for n in asked) for low, high in zip(edges, edges[1:], strict=False)]
        assert count.asked_bins == bins and sum(count.answered_bins) == len(rows)
        assert summary.missing(subset) == len(records) * (2 if subset == "xcot" else 1) - len(rows)
    assert summary.sets["mt"].rows == 5 and summary.missing("mt") == 0
    assert summary.origins == {o: sum(r["answer_origin"] == o for r in records) for o in "DG"}
    assert summary.finishes == {f: sum(r["response_finish"] == f for r in records) for f in ("stop", "length")}
    for side in ("generation", "question", "answer", "output"):
        told = [r for record in records for r in record["reasons"] if r.startswith(f"{side}: ")]
        assert summary.reasons[side] == {why: told.count(f"{side}: {why}") for why in {t.split(": ")[1] for t in told}}
    for side in ("question", "answer", "output"):
        scores = [r[f"{side}_qe"] for r in records if r[f"{side}_qe"] is not None]
        assert summary.scores[side] == [sum(b / 20 <= s < (b + 1) / 20 for s in scores) for b in range(20)]
    for subset in ("LL", "TT"):
        assert summary.switched[subset] == [sum(r["switch_counts"][subset][k] for r in records) for k in range(3)]


@pytest.mark.parametrize("side", ["question", "answer", "output"])
def test_the_funnel_ends_at_what_is_used(summary, records, side):
    funnel = summary.funnel(side)
    stages = {stage: left for stage, left, _ in funnel}
    assert stages["translated"] == sum(f"{side}: not translated" not in r["reasons"] for r in records)
    assert funnel[-1][1] == sum(r[f"{side}_ok"] for r in records)
    before = len(records)
    for _, left, reasons in funnel:
        assert sum(n for _, n in reasons) == before - left
        before = left
    assert {why for stage, _, reasons in funnel for why, _ in reasons if stage == "passed the rules"} == {
        "lost number",
        "length ratio",
    }


def test_a_record_rejected_for_both_sides_counts_once(summary, records):
    """By brute force: of each set's missing rows every one has one reason, the question's before the answer's."""
    both = [r for r in records if not r["question_ok"] and not r["answer_ok"]]
    assert both
    for subset, needs in (("TL", ["question"]), ("LT", ["answer"]), ("TT", ["question", "answer"])):
        firsts = []
        for r in records:
            reasons = [why for side in needs for why in r["reasons"] if why.startswith(f"{side}: ")]
            firsts += [reasons[0].partition(": ")[2]] if reasons else []
        counted = dict(summary.rejections(subset))
        assert counted == {why: firsts.count(why) for why in set(firsts)}
        assert sum(counted.values()) == summary.missing(subset) == len(firsts)
    assert sum(n for _, n in summary.rejections("xcot")) == summary.missing("xcot")


def test_nothing_is_rejected_where_no_translator_was_asked_for(tmp_path, capsys):
    records = [make_record(f"n{i}", random.Random(i)) for i in range(9)]
    for record in records:
        record |= {f"{column}_mt": None for column in ("instruction", "input", "answer", "output")}
        record |= {f"{side}_{key}": value for side in SIDES for key, value in (("ok", False), ("qe", None))}
        record["reasons"] = [f"{side}: not translated (no translator)" for side in SIDES]
    summary = make_summary(records, translator=Translator(backend="none"))
    assert summary.missing("TT") == 0 and summary.rejections("TT") == [] and not summary.translated
    texts = written(tmp_path / "r.html", summary), carded(tmp_path / "c.md", summary)
    summary.print()
    assert not any("not translated" in text for text in (*texts, capsys.readouterr().out))
    assert "TT: no translator asked for" in Page(texts[0]).text
    assert "| LL | English question, English answer | 9 | 0 |" in texts[1]
    assert "| TT | Spanish question, Spanish answer | 0 | - | - |" in texts[1]
    assert "above tau" not in texts[1] and "Apertium" not in texts[1].partition("## Settings")[0]


def test_without_any_score_no_step_above_tau_is_shown(tmp_path):
    records = [make_record(i, random.Random(i)) | {f"{side}_qe": None for side in SIDES} for i in range(5)]
    for record in records:
        record["reasons"] = []
    text = carded(tmp_path / "c.md", make_summary(records))
    assert "| passed the rules | 5 |" in text and "above tau" not in text


def test_names_with_languages_in_them_are_filled_in(tmp_path):
    keys = {"parallel": {"source": "p/{source}-{target}.tsv"}, "code_switch": {"dictionary": "d/{source}-{target}.txt"}}
    summary = make_summary([make_record("a", random.Random(0))], **keys)
    summary.resources = {"dictionary": "d/{source}-{target}.txt, 9 words"}
    text = carded(tmp_path / "c.md", summary).partition("## Settings")[0]
    assert "{source}" not in text and text.count("d/en-es.txt") == 2 and "| p/en-es.tsv |" in text


@pytest.mark.parametrize(("own", "keep", "warned"), [(8, 0.5, False), (7, 0.5, True), (3, 0.8, True), (0, 1.0, False)])
def test_few_own_answers_are_warned_of(tmp_path, capsys, own, keep, warned):
    records = [make_record(i, random.Random(i)) | {"reasons": []} for i in range(20)]
    for i, record in enumerate(records):
        record["answer_origin"] = "G" if i < own else "D"
    summary = make_summary(records, sampling={"keep_ground_truth": keep})
    summary.print()
    texts = capsys.readouterr().out, Page(written(tmp_path / "r.html", summary)).text
    line = f"warning: {own / 20:.0%} own answers, where equation 4 draws {1 - keep:.0%}: "
    assert [line in text for text in texts] == [warned] * 2
    assert f"{own / 20:.0%} are its own, of {1 - keep:.0%} that equation 4 draws" in carded(tmp_path / "c.md", summary)


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("cut off", "raise longest_answer"),
        ("looping", "another model or template"),
        ("error: 400 too long", "see the server, run it again"),
    ],
)
def test_the_warning_says_what_most_own_answers_lack(reason, remedy):
    records = [make_record(i, random.Random(i)) | {"reasons": [], "answer_origin": "D"} for i in range(20)]
    records[0]["answer_origin"] = "G"
    for record in records[1:]:
        record["reasons"] = [f"generation: {reason}"]
    line = make_summary(records).few_own_answers
    assert line == f"warning: 5% own answers, where equation 4 draws 50%: 19 {reason} of 20 asked: {remedy}"


def test_the_lines_of_several_languages_are_one_a_system(capsys):
    names = [f"demo_{code}_{name}" for code in ("spa", "por") for name in ("ll", "mt", "sft", "tsft")]
    print_dataset_lines(dataset_lines(names))
    assert capsys.readouterr().out.splitlines() == [
        "baseline sft -- dataset: demo_spa_sft,demo_por_sft",
        "baseline tsft -- dataset: demo_spa_tsft,demo_por_tsft",
        "dataset: demo_spa_ll,demo_spa_mt,demo_por_ll,demo_por_mt",
    ]


def test_two_reasons_of_one_side_take_a_record_once():
    record = make_record("a", random.Random(0)) | {"question_ok": False, "answer_ok": True, "output_ok": True}
    record["instruction_mt"] = "x"
    record["reasons"] = ["question: off-target", "question: lost number"]
    summary = make_summary([record])
    assert [(s, left) for s, left, _ in summary.funnel("question") if left == 0][0][0] == "passed the rules"
    assert summary.funnel("question")[-1][1] == 0


def test_scores_out_of_bounds_and_at_tau_have_their_bin():
    records = [make_record(i, random.Random(i)) | {"question_qe": s} for i, s in enumerate((-0.1, 0.0, 0.8, 1.0, 1.2))]
    counts = make_summary(records).scores["question"]
    assert {i: n for i, n in enumerate(counts) if n} == {0: 2, 16: 1, 19: 2}


def test_order_changes_no_byte(summary, records, tmp_path):
    shuffled = records[:]
    random.Random(5).shuffle(shuffled)
    other = make_summary(shuffled)
    assert written(tmp_path / "1.html", summary) == written(tmp_path / "2.html", other)
    assert carded(tmp_path / "1.md", summary) == carded(tmp_path / "2.md", other)
    assert [r["id"] for r, _ in other.examples.items] == [r["id"] for r, _ in summary.examples.items]
    assert len(summary.examples.items) == 20 and all(len(k.items) == 3 for k in summary.rejected.values())


def test_another_seed_shows_other_examples(summary, records):
    other = make_summary(records, seed=7)
    assert {r["id"] for r, _ in other.examples.items} != {r["id"] for r, _ in summary.examples.items}


def test_memory_does_not_grow_with_rows_nor_with_messages():
    summary, random_ = Summary(config(), "spa"), random.Random(3)
    for i in range(3000):
        record = make_record(i, random_)
        record["reasons"].append(f"answer: RuntimeError{i}: at {i}")
        record["response_finish"] = f"error: {i}"
        summary.add(record, rows_of(record))
    kept = len(summary.examples.items) + sum(len(k.items) for k in summary.rejected.values())
    assert kept <= 20 + 3 * 4 * 101 and len(summary.finishes) <= 101
    assert len(summary.reasons["answer"]) <= 101
    messages = [n for why, n in summary.reasons["answer"].items() if why.startswith(("RuntimeError", "other"))]
    assert sum(messages) == 3000


def test_the_terminal_ends_with_the_line_to_paste(summary, records, capsys):
    summary.print()
    lines = capsys.readouterr().out.splitlines()
    names = ",".join(f"demo_spa_{s}" for s in ("ll", "tl", "lt", "tt", "mt", "comp"))
    assert lines[-1] == f"dataset: {names}"
    assert lines[-5:-1] == [f"baseline {s} -- dataset: demo_spa_{s}" for s in ("sft", "tsft", "cit", "xcot")]
    assert lines[-6] == "registered in data/dataset_info.json; in a train recipe:"
    assert "left out on reading: 7 held out, 2 duplicate" in lines
    own = sum(r["answer_origin"] == "G" for r in records)
    share = f"({own / 400:.0%} own; equation 4 draws 50%)"
    assert f"answers: {own} the model's own, {400 - own} ground truth {share}" in lines
    tt = next(line for line in lines if line.startswith("│ TT ")).split("│")
    rows = sum(r["question_ok"] and r["answer_ok"] for r in records)
    assert [cell.strip() for cell in tt[2:4]] == [str(rows), str(400 - rows)]
    assert max(map(len, lines)) <= 120


def test_reasons_are_printed_as_they_are(capsys):
    record = make_record("a", random.Random(0)) | {"question_ok": False, "reasons": ["question: [bold]x[/bold]"]}
    make_summary([record]).print()
    assert "1 [bold]x[/bold]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("reason", "counted"),
    [
        ("question: not translated (RuntimeError: out of memory)", "not translated"),
        ("generation: error: HTTP 429 (after 6 tries)", "error: HTTP 429"),
        ("generation: error: timeout: 120 s", "error: timeout"),
    ],
)
def test_reasons_are_counted_without_their_particulars(reason, counted, tmp_path):
    record = make_record("a", random.Random(0)) | {"question_ok": False, "reasons": [reason], "instruction_mt": None}
    summary = make_summary([record])
    assert summary.reasons[reason.partition(": ")[0]] == {counted: 1}
    assert reason in Page(written(tmp_path / "r.html", summary)).text


def test_no_sdrrl_means_no_line_of_it(capsys):
    summary = Summary(config(systems=["sft"]), "spa")
    record = {k: v for k, v in make_record("a", random.Random(0)).items() if "_mt" not in k and "_ok" not in k}
    record |= {"reasons": [], "answer_origin": "D"}
    del record["switch_counts"], record["question_qe"], record["answer_qe"], record["output_qe"]
    summary.add(record, {"sft": [{"id": "a", "instruction": "i", "input": "", "output": "o"}]})
    summary.names = ["demo_spa_sft"]
    summary.print()
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "baseline sft -- dataset: demo_spa_sft" and "own" not in out


def test_lengths_without_spaces_are_in_characters(capsys):
    summary = Summary(config(target_lang="jpn", systems=["sdrrl"]), "jpn")
    record = make_record("a", random.Random(0)) | {"reasons": []}
    row = {"id": "a", "instruction": "これは何ですか", "input": "", "output": "one two"}
    summary.add(record, {"TL": [row], "LL": [row], "TT": [row], "LT": [row]})
    assert summary.means("TL") == ("7.0c", "2.0") and summary.means("LL") == ("1.0", "2.0")
    assert summary.means("TT") == ("7.0c", "7.0c")
    summary.print()
    assert "c: characters, as Japanese has no spaces" in capsys.readouterr().out


def nasty_summary() -> Summary:
    records = [make_record(f"{NASTY}{i}", random.Random(i), NASTY) for i in range(8)]
    for record in records:
        record["reasons"] += [f"question: {NASTY}", f"generation: {NASTY}"]
    summary = make_summary(records, instructions=[NASTY, Source(path=NASTY)], name=NASTY)
    summary.add_natural("mt", {"id": NASTY, "instruction": NASTY, "input": NASTY, "output": NASTY})
    summary.left_out[NASTY] = 3
    summary.formats, summary.resources = [NASTY], {NASTY: NASTY}
    summary.names = [f"{NASTY}_spa_ll", f"{NASTY}_spa_cit"]
    return summary


def test_the_report_is_escaped_whole_and_self_contained(tmp_path):
    text = written(tmp_path / "report.html", nasty_summary())
    page = Page(text)
    assert page.open == []
    names = [tag for tag, _ in page.seen]
    assert not {"script", "img", "link", "iframe", "object"} & set(names)
    assert "<script" not in text and text.count("&lt;script&gt;") > 50
    assert "<script>alert('x')</script> & \"q\"" in page.text
    for _, attrs in page.seen:
        assert not any(key.startswith("on") for key in attrs)
        assert not attrs.get("src") and (attrs.get("href") or "#")[0] == "#"
    assert not re.search(r"url\(|@import|https?://", text)


def test_the_report_shows_what_a_person_looks_for(summary, records, tmp_path):
    text = written(tmp_path / "report.html", summary)
    page = Page(text)
    assert page.open == []
    assert "dataset: demo_spa_ll,demo_spa_tl,demo_spa_lt,demo_spa_tt,demo_spa_mt,demo_spa_comp" in page.text
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles == [
        "Train on it",
        "From record to set",
        "Quality estimates",
        "Lengths",
        "Code-switching",
        "Examples",
        "Natural text",
        "Rejected, by reason",
        "Settings",
    ]
    kinds = sum(len(counts) for counts in summary.reasons.values())
    assert (
        sum(tag == "details" for tag, _ in page.seen) == 20 + kinds + 1 + 2
    )  # the rest of the examples, the switch rates' numbers
    assert text.count("τ = 0.4</text>") == 3
    # Ten sets' lengths and three sides' scores.
    assert text.count("<svg") == 13
    rows = sum(r["question_ok"] and r["answer_ok"] for r in records)
    assert f"TT: needs the question and answer translated{rows:,} {rows / 400:.1%}" in page.text
    for side, counts in summary.reasons.items():
        assert all(f"{side}: {why} {n}" in page.text for why, n in counts.items())
    ends = summary.finishes
    assert f"Generations ended with: {ends['stop']} stop, {ends['length']} length." in page.text
    texts = [attrs for tag, attrs in page.seen if tag == "p" and "dir" in attrs]
    assert {attrs["dir"] for attrs in texts} == {"auto"} and {attrs.get("lang") for attrs in texts} == {
        "en",
        "es",
        None,
    }
    assert any(attrs.get("name") == "viewport" for tag, attrs in page.seen if tag == "meta")


def test_tau_divides_the_histogram(tmp_path):
    records = [make_record(i, random.Random(i)) | {"question_qe": s} for i, s in enumerate((0.1, 0.78, 0.8, 0.95))]
    for record in records:
        record |= {"answer_qe": None, "output_qe": None}
    text = written(tmp_path / "r.html", make_summary(records, quality=Quality(backend="cometkiwi")))
    chart = text[text.index("<svg") : text.index("</svg>")]
    assert "τ = 0.8" in chart
    bars = re.findall(r"<rect x='([\d.]+)'.*?<title>(.*?): (\d+)", chart)
    line = float(re.search(r"<path d='M([\d.]+) 8V", chart).group(1))
    assert [(name, float(x) < line) for x, name, _ in bars] == [("below τ", True)] * 2 + [("at or above τ", False)] * 2


def test_switched_words_and_wishes_are_marked(tmp_path):
    record = make_record("a", random.Random(0)) | {"instruction": "Name the river.", "input": "", "reasons": []}
    row = {"id": "a", "instruction": "Name the río. Answer in Spanish.", "input": "", "output": "x"}
    summary = Summary(config(), "spa")
    summary.add(record, {"LT": [row]})
    text = written(tmp_path / "r.html", summary)
    assert re.findall(r"<mark>(.*?)</mark>", text) == ["río. Answer in Spanish."]
    assert re.sub("</?mark>", "", text).count("Name the río. Answer in Spanish.") == 1


def test_long_texts_are_cut_and_half_characters_do_not_stop_it(tmp_path):
    record = make_record("a", random.Random(0)) | {"output": "x" * 10**6, "response": "\ud83d"}
    summary = make_summary([record])
    assert len(written(tmp_path / "r.html", summary)) < 60_000
    carded(tmp_path / "c.md", summary)


def front(text: str) -> dict:
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_the_card_begins_as_dataset_cards_do(summary, tmp_path):
    head = front(carded(tmp_path / "README.md", summary))
    assert head["language"] == ["en", "es"] and head["license"] == "other"
    assert head["size_categories"] == ["1K<n<10K"] and head["task_categories"] == ["text-generation", "translation"]
    files = {entry["config_name"]: entry["data_files"] for entry in head["configs"]}
    assert files == {s: f"{s}.jsonl" for s in ["ll", "tl", "lt", "tt", "mt", "comp", "sft", "tsft", "cit", "xcot"]}


def test_the_card_tells_counts_rejections_and_settings(summary, records, tmp_path):
    text = carded(tmp_path / "README.md", summary)
    rows = sum(r["question_ok"] for r in records)
    assert re.search(rf"\| TL \| Spanish question, English answer \| {rows} \| {400 - rows} \|", text)
    assert "| translator | apertium 3 |" in text and "7 held out, 2 duplicate" in text
    assert "dataset: demo_spa_ll,demo_spa_tl,demo_spa_lt,demo_spa_tt,demo_spa_mt,demo_spa_comp\n" in text
    lost = summary.reasons["question"]["low quality"]
    assert f"above tau = 0.4 (roundtrip) | {summary.funnel('question')[2][1]} | {lost} low quality |" in text
    recipe = yaml.safe_load(text[text.rindex("```yaml\n") + 8 : text.rindex("```")])
    assert recipe["target_lang"] == "spa" and recipe["sampling"] == {"keep_ground_truth": 0.5}
    example = json.loads(text[text.index("```json\n") + 8 : text.index("```", text.index("```json\n") + 8)])
    assert example["subset"] == "TT" and "system" not in example


def test_how_a_run_is_cut_does_not_reach_the_card(records, tmp_path):
    one = carded(tmp_path / "1.md", make_summary(records[:50]))
    keys = {"shard_size": 7, "work_dir": "/elsewhere", "dataset_dir": "d", "target_lang": ["spa", "ces"]}
    assert carded(tmp_path / "2.md", make_summary(records[:50], **keys)) == one


def test_nothing_breaks_the_cards_tables(tmp_path):
    text = carded(tmp_path / "README.md", nasty_summary())
    front(text)
    # Outside of code blocks.
    prose = re.sub(r"^(`{3,})\w+\n.*?^\1$", "", text.split("---\n", 2)[2], flags=re.DOTALL | re.MULTILINE)
    assert "<script" not in prose and "<img" not in prose and not re.search(r"(?<!\\)\[b", prose)
    tables = re.findall(r"(?:^\|.*\n)+", prose, flags=re.MULTILINE)
    assert len(tables) == 5
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


@pytest.mark.parametrize(
    ("keys", "row"),
    [
        (
            {"instructions": "data/seeds/english_instructions.jsonl"},
            ("instructions", "data/seeds/english_instructions.jsonl", "Apache-2.0 (written for this project)"),
        ),
        (
            {"instructions": ["alpaca_data.json"]},
            ("instructions", "alpaca_data.json", "not stated in the file; check with its owner"),
        ),
        ({"instructions": Source(path="tatsu-lab/alpaca")}, ("instructions", "tatsu-lab/alpaca", "CC BY-NC 4.0")),
        ({}, ("dictionary", "freedict", "GPL (see the dictionary's own header)")),
        ({}, ("parallel corpus", "gettext", "BSD-3-Clause (Django's message catalogues)")),
        (
            {"translator": Translator(backend="nllb", model="m/x")},
            ("translator", "m/x", "as given by its owner; check it there"),
        ),
    ],
)
def test_licences_are_told_as_far_as_they_are_known(keys, row):
    assert row in card.licences(config(**keys))


def test_what_did_not_go_in_has_no_licence():
    assert [part for part, _, _ in card.licences(config(systems=["sft"]))] == ["instructions"]


def test_passwords_in_addresses_are_left_out(tmp_path):
    secret = Translator(backend="chat", model="m", base_url="http://me:hush@host:8000/v1")
    summary = make_summary([make_record("a", random.Random(0))], translator=secret)
    summary.resources = {"translator": "m at http://me:hush@host:8000/v1"}
    texts = written(tmp_path / "r.html", summary), carded(tmp_path / "c.md", summary)
    assert all("hush" not in text and "http://host:8000/v1" in text for text in texts)


def test_without_quality_estimate_there_is_no_tau(tmp_path):
    record = make_record("a", random.Random(0)) | {f"{side}_qe": None for side in ("question", "answer", "output")}
    summary = make_summary([record], quality=Quality(backend="none"), language_id=LanguageId(backend="none"))
    text = written(tmp_path / "r.html", summary)
    assert "τ" not in text and "Quality estimates" not in text
    assert "tau" not in carded(tmp_path / "c.md", summary)


def test_ten_examples_are_shown_and_the_rest_behind_a_button(summary):
    text = report.page(summary)
    section = text[text.index("<h2>Examples</h2>") :]
    before, _, behind = section[: section.index("</section>")].partition("<details class='more'>")
    assert before.count("<summary>") == 10 and "<details open>" in before
    assert behind.startswith("<summary>Show 10 more</summary>") and behind.count("<details>") == 10
    # Where there are no more than ten, there is no button.
    few = make_summary([make_record(f"r{i}", random.Random(i)) for i in range(10)])
    assert "<details class='more'>" not in report.page(few)


def test_a_funnel_step_stands_in_the_middle(summary, records):
    """Half of what is lost on either side; the colours are those of the legend."""
    text = report.page(summary)
    lost = sum(any(why.startswith("question: ") and "not translated" in why for why in r["reasons"]) for r in records)
    half, kept = 50 * lost / len(records), 100 * (len(records) - lost) / len(records)
    span = "<span style='width:{:.2f}%;background:{}'></span>"
    legend = re.findall(r"<span><i style='background:(#\w+)'></i>(kept|lost in this step)</span>", text)
    colours = {what: colour for colour, what in legend}
    assert span.format(half, colours["lost in this step"]) + span.format(kept, colours["kept"]) in text


def test_switch_rates_are_drawn(summary, records):
    text = report.page(summary)
    for subset in ("LL", "TL", "LT", "TT"):
        words, known, switched = (sum(r["switch_counts"][subset][k] for r in records) for k in range(3))
        assert f"{known / words:.1%} <small>of {words:,} words</small>" in text
        assert f"{switched / known:.1%} <small>of {known:,} known</small>" in text
