import ast
import csv
import gzip
import inspect
import json
import re
import shutil
import tracemalloc

import pytest

from sdrrl_eval.measure import overlap, runner
from sdrrl_eval.measure.recipe import EvalConfig
from sdrrl_eval.measure.task import Item, Part, Task
from sdrrl_factory.cli import main
from sdrrl_factory.errors import UserError
from tests.conftest import ROOT, write_rows
from tests.eval.conftest import task_of

QUESTION = "Why does the ice on a lake float?"
PASSAGE = (
    "The old harbour was closed for three years while its walls were rebuilt, and the fishing boats went to the next"
    " town, where there was hardly room for them."
)
ANSWER = "Because frozen water is lighter than the liquid."
JAPANESE = "図書館は夏のあいだ毎日、朝の九時から夕方の六時まで開いています。"
CHOICES = {"A": "The United States of America", "B": "B " * 9, "C": "None of the other answers", "D": "x"}


def task(name: str) -> Task:
    return Task(task=name, path="p", langs=["eng"])


SOME = task("some")
PART = Part(
    SOME,
    None,
    "eng",
    [
        Item("1", f"Answer.\n{QUESTION}", ANSWER, {"question": QUESTION} | CHOICES),
        Item("2", f"Read.\n{PASSAGE}", "Yes", {"passage": PASSAGE}),
        Item("3", JAPANESE, None),
        Item("4", "Why?", None, {"question": "Why?"}),
    ],
)
HALF = PASSAGE.split(" ")
NEARLY = QUESTION.replace("lake", "pond")


def row(instruction="Some other thing.", given="", output="Nothing of the kind."):
    return {"instruction": instruction, "input": given, "output": output}


def found(path, *parts: Part) -> dict[str, tuple[str, str]]:
    """id: (which text, kind)."""
    findings = overlap.find_overlap(parts or [PART], [str(path)]).findings
    return {item: (finding.text, finding.kind) for (_, item), finding in findings.items()}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row(), row("Yes", "", "Yes")], {}),
        ([row("Why?")], {}),  # too short to tell
        ([row(QUESTION)], {"1": ("question", "exact")}),
        ([row(f"{QUESTION} And who says so?")], {"1": ("question", "exact")}),
        ([row(), row(NEARLY), row(QUESTION.upper())], {"1": ("question", "exact")}),
        ([row(QUESTION), row(NEARLY)], {"1": ("question", "exact")}),
        ([row(NEARLY)], {"1": ("question", "near")}),
        ([row(output=f"Hm. {ANSWER}")], {"1": ("reference", "exact")}),
        ([row(output="He lives in the United States of America.")], {}),  # an answer stands in other texts too
        ([row(output=f"He wrote: {' '.join(HALF[3:16])} then.")], {"2": ("passage", "ngram")}),
        ([row(output=f"He wrote: {' '.join(HALF[3:15])} then.")], {}),
        # The halves of a completion, whatever stands between them in the row.
        ([{"output": " ".join(HALF[9:]), "id": "7", "instruction": f"Continue: {' '.join(HALF[:9])}"}],
         {"2": ("passage", "exact")}),
        ([{"conversations": [{"from": "human", "value": QUESTION}]}], {"1": ("question", "exact")}),
        ([{"messages": [{"content": [{"text": PASSAGE}]}]}], {"2": ("passage", "exact")}),
        ([row(output=f"また、{JAPANESE}")], {"3": ("prompt", "exact")}),
        ([row(QUESTION) | {"held_out": True}], {}),
        ([{"instruction": 5, "output": None, "more": [None, {"x": QUESTION}]}], {"1": ("question", "exact")}),
        ([row(QUESTION, PASSAGE)], {"1": ("question", "exact"), "2": ("passage", "exact")}),
    ],
)  # fmt: skip
def test_what_is_found(tmp_path, rows, expected):
    assert found(write_rows(tmp_path / "train.jsonl", rows)) == expected


def test_one_text_of_several_items_is_found_in_all_and_an_item_counts_once(tmp_path, capsys):
    there = Part(task("flores"), "eng", "spa", [Item("1", "x", "Hola a todos ustedes.", {"source": QUESTION})])
    back = Part(task("flores"), "spa", "eng", [Item("1", "x", QUESTION, {"source": "Hola a todos ustedes."})])
    asked = [Item(str(i), None, "A", {"passage": PASSAGE, "question": f"Number {i}, what is it?"}) for i in range(3)]
    belebele = Part(task("belebele"), None, "eng", asked)
    path = write_rows(tmp_path / "train.jsonl", [row(QUESTION), row(PASSAGE), row("Hola a todos ustedes")])
    result = overlap.find_overlap([there, back, belebele], [str(path)])
    assert len(result.findings) == 5
    assert [result.counts(part)["exact"] for part in (there, back, belebele)] == [1, 1, 3]
    overlap.print_overlap(result)
    assert capsys.readouterr().out.endswith("4 of 4 items (4 exact) in 3 rows of 1 file\n")


def as_csv(path, rows, delimiter=","):
    with path.open("w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def as_parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


ROWS = [row(), row(f"Please tell me:\n{QUESTION}"), row() | {"held_out": "true"}, row(PASSAGE) | {"held_out": "true"}]
ROWS = [{"held_out": "", **one} for one in ROWS]
WRITERS = {
    "a.jsonl": lambda path: write_rows(path, ROWS),
    "a.json": lambda path: path.write_text(json.dumps(ROWS, indent=2)),
    "b.json": lambda path: path.write_text(json.dumps(ROWS)),
    "a.csv": lambda path: as_csv(path, ROWS),
    "a.tsv": lambda path: as_csv(path, ROWS, "\t"),
    "a.parquet": lambda path: as_parquet(path, ROWS),
    "a.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(ROWS, indent=1).encode())),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress("\n".join(map(json.dumps, ROWS)).encode())),
}
PLACES = {"a.jsonl": ":2", "a.jsonl.gz": ":2", "a.csv": ":3", "a.tsv": ":3"}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file(tmp_path, name):
    """The same rows, of which two are held out, are found at the same row of each."""
    WRITERS[name](tmp_path / name)
    result = overlap.find_overlap([PART], [str(tmp_path / name)])
    assert (result.rows, result.held_out) == (2, 2)
    [finding] = result.findings.values()
    place = f"{tmp_path / name}{PLACES.get(name, ': row 2')}"
    assert (finding.item, finding.kind, finding.place, finding.found) == ("1", "exact", place, QUESTION[:-1])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lines.txt", f"One.\nTwo. {QUESTION}\n"),
        ("corpus.en", f'He said "yes\n{QUESTION}\n'),
        ("pairs.tsv", f'A "quote that never ends\tUna\n{QUESTION}\t¿Por qué?\tmore\n'),
        ("pairs.tsv", f"{PASSAGE[:20]}\tUna\n{QUESTION}\t¿Por qué?\n"),
        ("memory.tmx", f'<?xml version="1.0"?>\n<tuv><seg>{QUESTION}</seg></tuv>\n'),
    ],
)
def test_plain_text_and_pairs(tmp_path, name, text):
    for path, raw in ((tmp_path / name, text.encode()), (tmp_path / f"z.{name}.gz", gzip.compress(text.encode()))):
        path.write_bytes(raw)
        [finding] = overlap.find_overlap([PART], [str(path)]).findings.values()
        assert (finding.kind, finding.place) == ("exact", f"{path}:2")


def test_the_first_line_of_pairs_counts(tmp_path):
    (tmp_path / "pairs.tsv").write_text(f"{QUESTION}\t¿Por qué?\nYes.\tSí.\n", encoding="utf-8")
    assert found(tmp_path / "pairs.tsv") == {"1": ("question", "exact")}


def test_data_sets_by_name(tmp_path, monkeypatch):
    """Of a dataset_info.json here or elsewhere, one, several or all; a set may be a folder. Each file is read once."""
    write_rows(tmp_path / "data/one.jsonl", [row(QUESTION)])
    write_rows(tmp_path / "data/two/a.jsonl", [row(PASSAGE)])
    write_rows(tmp_path / "data/two/b.jsonl", [row(f"x {JAPANESE}")])
    info = {"one": {"file_name": "one.jsonl"}, "two.v1": {"file_name": "two"}, "far": {"script_url": "x"}}
    path = tmp_path / "data/dataset_info.json"
    path.write_text(json.dumps(info))
    monkeypatch.chdir(tmp_path)

    def items(*names: str) -> list[str]:
        return [item for _, item in overlap.find_overlap([PART], names).findings]

    assert items("one") == items(f"{path}:one") == items("data/one.jsonl") == ["1"]
    assert items("two.v1") == items("data/two") == ["2", "3"]
    assert items("one,two.v1") == items("one", "two.v1") == items(f"{path}: one, two.v1") == ["1", "2", "3"]
    assert len(overlap.find_overlap([PART], ["data/one.jsonl", "one", "data/dataset_info.json:one"]).files) == 1
    for name, said in [
        ("two", "two: no such file, nor a data set in data/dataset_info.json; did you mean two.v1?"),
        ("nothing.jsonl", "nothing.jsonl: no such file, nor a data set in data/dataset_info.json; name a file"),
        (f"{path}:on", f"on: no such file, nor a data set in {path}; did you mean one?"),
        ("far", "data/dataset_info.json: far: its rows are at its script_url, not in a file; fetch them"),
        ("data/dataset_info.json", "data/dataset_info.json: far: its rows are at its script_url"),
    ]:
        with pytest.raises(UserError, match=f"^{re.escape(said)}"):
            items(name)
    del info["far"]
    path.write_text(json.dumps(info | {"gone": {"file_name": "gone.jsonl"}, "odd": {}}))
    with pytest.raises(UserError, match=r"gone: data/gone.jsonl: no such file; mend its file_name"):
        items("gone")
    with pytest.raises(UserError, match="odd: no file_name"):
        items("odd")
    path.write_text(json.dumps(info))
    assert items("data/dataset_info.json") == ["1", "2", "3"]
    path.write_text("[]")
    with pytest.raises(UserError, match="data/dataset_info.json: a list instead of an object"):
        items("one")


def test_the_list_and_the_last_line(tmp_path, capsys):
    """An item a line: its best match, and the first place in each other file."""
    one = write_rows(tmp_path / "one.jsonl", [row(), row(NEARLY), row(NEARLY), row() | {"held_out": True}])
    two = write_rows(tmp_path / "two.jsonl", [row(), row(), row(QUESTION), row(QUESTION)])
    assert overlap.check_overlap([PART], [str(one), str(two)], str(tmp_path / "l.jsonl")) == 1
    said = capsys.readouterr().out
    assert f"some.eng 1 (question, exact) in {two}:3: {QUESTION[:-1]}\n" in said
    assert "1 of 4 items (1 exact) in 7 rows of 2 files (1 more are held out); 1 items too short to tell\n" in said
    [line] = (tmp_path / "l.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {
        "part": "some.eng", "item": "1", "text": "question", "kind": "exact", "similarity": 1.0, "place": f"{two}:3",
        "also": [f"{one}:2"], "item_text": QUESTION, "found": QUESTION[:-1],
    }  # fmt: skip
    assert overlap.check_overlap([PART], [str(one), str(two)], str(tmp_path / "l.csv")) == 1
    with (tmp_path / "l.csv").open(encoding="utf-8", newline="") as f:
        assert list(csv.DictReader(f)) == [json.loads(line) | {"similarity": "1.0", "also": f"{one}:2"}]
    capsys.readouterr()
    assert overlap.check_overlap([PART], [str(one)]) == 1
    distance = sum(a != b for a, b in zip("lake", "pond", strict=True))
    similarity = 1 - distance / len("Whydoestheiceonalakefloat")
    assert f"(question, near {similarity:.2f}) in {one}:2: {NEARLY[:-1]}" in capsys.readouterr().out


def test_a_large_file_is_streamed(tmp_path):
    """Ten times the rows take no more memory."""

    def peak(rows: int) -> int:
        path = write_rows(tmp_path / "train.jsonl", [row(output=f"{i} " + "x" * 5000) for i in range(rows)])
        tracemalloc.start()
        overlap.find_overlap([PART], [str(path)])
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(200)  # tables that are made once
    assert peak(2000) < 1.1 * peak(200)


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("t.jsonl", b'{"a": 1}\n{', ":2: not JSON"),
        ("t.jsonl", b'\n{"a": "\xff"}', ":2: not UTF-8"),
        ("t.json", b'[{"a": 1},\n{"a"]', ":2: not JSON"),
        ("t.csv", b"a,b\n1\n", ":2: 1 cells under 2 columns"),
        ("t.parquet", b"PAR1", ": not Parquet"),
        ("t.txt", b"ok\n\xff\n", ":2: not UTF-8"),
        ("t.txt", b"a\x00b\x00", ": UTF-16 or binary"),
        ("t.jsonl.gz", b"\x1f\x8b\x08", ": broken gzip"),
        (None, b"", ": no such file, "),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, monkeypatch, name, raw, expected):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / (name or "gone.jsonl")
    if name:
        path.write_bytes(raw)
    with pytest.raises(UserError, match=f"^{re.escape(str(path) + expected)}") as caught:
        overlap.check_overlap([PART], [str(path)])
    assert "\n" not in str(caught.value)


def docstrings() -> list[str]:
    """Sentences of the standard library's documentation, which no instruction data were made from."""
    import argparse
    import logging
    import statistics
    import subprocess
    import tarfile
    import threading
    import typing
    import zipfile

    sentences = []
    for module in (argparse, logging, statistics, subprocess, tarfile, threading, typing, zipfile):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
                sentences += re.split(r"(?<=[.:])\s+", " ".join(text.split()))
    return [sentence for sentence in dict.fromkeys(sentences) if len(sentence.split()) >= 4]


def test_no_false_alarm(tmp_path):
    """1,000 held-out items, those of the demo among them, against the demo's instructions and parallel sentences."""
    pytest.importorskip("django")
    from sdrrl_factory.transfer import parallel
    from sdrrl_factory.transfer.recipe import Filters, Parallel

    pairs = [list(row[:2]) for row in parallel.load(Parallel(), "eng", "spa", 42, Filters(), None).rows]
    assert len(pairs) > 200
    heldout = [line for path in (ROOT / "data/heldout/sentences").iterdir() for line in path.read_text().splitlines()]
    for path in sorted((ROOT / "data/heldout").glob("*.jsonl")):
        heldout += [json.loads(line)["instruction"] for line in path.read_text(encoding="utf-8").splitlines()]
    sentences = list(dict.fromkeys(heldout + docstrings()))[:1000]
    assert len(sentences) == 1000
    items = [Item(str(i), None, sentence, {"sentence": sentence}) for i, sentence in enumerate(sentences)]
    part = Part(task("text_loss"), None, "eng", items)
    training = [str(ROOT / "data/seeds/english_instructions.jsonl"), str(tmp_path / "p.jsonl")]
    write_rows(tmp_path / "p.jsonl", [{"source": one, "target": two} for one, two in pairs])
    result = overlap.find_overlap([part], training)
    assert result.rows > 197 + 200 and result.findings == {}
    # It would have been found.
    write_rows(tmp_path / "p.jsonl", [{"text": f"Translate: {sentences[500]}"}])
    assert list(overlap.find_overlap([part], training).findings) == [("text_loss.eng", "500")]


def test_the_command(tmp_path, capsys):
    """The demo's evaluation against its own seeds; and against a training set that has one of its sentences."""
    recipe = str(ROOT / "yaml_recipes/eval/demo_spa.yaml")
    paths = [f"tasks.{i}.path={ROOT}/data/heldout/{p}" for i, p in enumerate(
        ["sentences", "sentences", "instructions.{lang}.jsonl", "questions.{lang}.jsonl"]
    )]  # fmt: skip
    seeds = str(ROOT / "data/seeds/english_instructions.jsonl")
    assert main(["eval", recipe, *paths, "--check-overlap", seeds]) == 0
    assert "no of 300 items in 197 rows of 1 file (30 more are held out)" in capsys.readouterr().out
    sentence = (ROOT / "data/heldout/sentences/spa_Latn.devtest").read_text(encoding="utf-8").splitlines()[4]
    spoilt = write_rows(
        tmp_path / "mt.jsonl", [row("Translate the following sentence from Spanish to English.", sentence)]
    )
    listed = tmp_path / "list.jsonl"
    assert main(["eval", recipe, *paths, "--check-overlap", seeds, str(spoilt), "--overlap-list", str(listed)]) == 1
    said = capsys.readouterr().out
    assert f"in {spoilt}:1: {sentence[:50]}" in said
    assert "2 of 300 items (2 exact) in 198 rows" in said  # its loss, and its translation in both directions
    assert [json.loads(line)["part"] for line in listed.open(encoding="utf-8")] == [
        "text_loss.spa", "translation.eng-spa", "translation.spa-eng",
    ]  # fmt: skip


def config(files, checkpoint="./no/model", **keys) -> EvalConfig:
    tasks = [
        task_of(task="translation", path=str(files / "flores"), langs=["spa"], metrics=["chrf"]),
        task_of(task="text_loss", path=str(files / "flores"), langs=["spa"]),
        task_of(task="instructions", path=str(files / "instructions.{lang}.jsonl"), langs=["eng"]),
        task_of(task="off_target", path=str(files / "instructions.{lang}.jsonl"), langs=["spa"]),
    ]
    base = dict(model=checkpoint, tasks=tasks, output_dir=str(files / "out"), max_new_tokens=6, batch_size=2)
    return EvalConfig(**base | keys)


def test_nothing_is_evaluated_and_no_tokenizer_is_needed(tmp_path, files, monkeypatch):
    """FLORES with its own tokenizer and COMET, which are not here, is checked all the same."""
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", str(tmp_path / "nothing"))
    path = files / "r.yaml"
    task = {"task": "flores", "path": str(files / "flores"), "langs": ["spa"], "metrics": ["bleu", "comet"]}
    path.write_text(json.dumps({"model": "./no/model", "output_dir": str(files / "out"), "tasks": [task]}))
    write_rows(tmp_path / "d/t.jsonl", [row()])
    (tmp_path / "d/dataset_info.json").write_text(json.dumps({"mine": {"file_name": "t.jsonl"}}))
    assert main(["eval", str(path), "--check-overlap", str(tmp_path / "d/dataset_info.json:mine")]) == 0
    assert not (files / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--drop-overlap"], "no training files to look in; name them behind --check-overlap or --drop-overlap"),
        (["--overlap-list", "x.csv"], "no training files to look in"),
        (["--check-overlap", "t.jsonl", "--overlap-list", "x.txt"], "--overlap-list x.txt: neither .jsonl nor .csv"),
        (["--drop-overlap", "t.jsonl", "--overlap-list", "x.txt"], "--overlap-list x.txt: neither .jsonl nor .csv"),
        (["--check-overlap", "gone.jsonl"], "gone.jsonl: no such file, "),
        (["--drop-overlap", "gone.jsonl"], "gone.jsonl: no such file, "),
    ],
)
def test_a_wrong_flag_is_one_line_and_status_2(files, checkpoint, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(files)
    write_rows(files / "t.jsonl", [row()])
    task = {"task": "text_loss", "path": str(files / "flores"), "langs": ["spa"]}
    recipe = {"model": checkpoint, "output_dir": str(files / "out"), "tasks": [task]}
    (files / "r.yaml").write_text(json.dumps(recipe))
    assert main(["eval", "r.yaml", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_scores_without_the_overlap_beside_those_with_it(files, checkpoint, capsys):
    """Dropped: the second of three sentences. Each second score is the one of an evaluation that never had the item."""
    sentence = (files / "flores/spa_Latn.devtest").read_text(encoding="utf-8").splitlines()[1]
    training = write_rows(files / "t.jsonl", [row(), row(output=f"Bien: {sentence}")])
    plain = runner.run(config(files, checkpoint), "r.yaml")
    results = runner.run(config(files, checkpoint), "r.yaml", [str(training)])
    said = capsys.readouterr().out

    first = [s for s in results["scores"] if "overlap:dropped" not in s["signature"]]
    second = [s for s in results["scores"] if s["signature"].endswith("|overlap:dropped")]
    assert first == plain["scores"] and len(second) == len(first)
    # instructions.eng is English; off_target.spa asks the sentence with more words around it, which are not there.
    assert [(s["task"], s["n"]) for s in second] == [
        ("translation", 2), ("translation", 2), ("text_loss", 2), ("instructions", 3), ("instructions", 3),
        ("off_target", 3),
    ]  # fmt: skip
    assert results["overlap"] == {"files": [str(training)], "list": str(files / "out/overlap.jsonl")}
    assert results["parts"]["text_loss.spa"]["overlap"] == {"exact": 1, "near": 0, "ngram": 0}
    assert results["parts"]["instructions.eng"]["overlap"] == {"exact": 0, "near": 0, "ngram": 0}
    rows = [json.loads(line) for line in (files / "out/predictions/text_loss.spa.jsonl").open(encoding="utf-8")]
    assert [r["overlap"] for r in rows] == [None, "exact", None]
    assert "without overlap" in said
    listed = [json.loads(line) for line in (files / "out/overlap.jsonl").open(encoding="utf-8")]
    assert {r["place"] for r in listed} == {f"{training}:2"} and len(listed) == 3

    other = files / "other"
    shutil.copytree(files / "flores", other / "flores")
    for path in (other / "flores").iterdir():
        lines = path.read_text(encoding="utf-8").splitlines()
        path.write_text("\n".join([lines[0], lines[2]]) + "\n", encoding="utf-8")
    alone = config(files, checkpoint, output_dir=str(files / "alone"))
    tasks = [task.model_copy(update={"path": str(other / "flores")}) for task in alone.tasks[:2]]
    alone = alone.model_copy(update={"tasks": tasks})
    never = runner.run(alone, "r.yaml")["scores"]
    for got, expected in zip(second, never, strict=False):
        assert got["signature"] == f"{expected['signature']}|overlap:dropped"
        assert {k: v for k, v in got.items() if k != "signature"} == {
            k: v for k, v in expected.items() if k != "signature"
        }


def test_where_all_items_overlap_there_is_no_second_score(files, checkpoint, capsys):
    for lang in ("eng_Latn", "spa_Latn"):
        shutil.copy(files / f"flores/{lang}.devtest", files / f"{lang}.txt")
    one = config(files, checkpoint)
    one = one.model_copy(update={"tasks": one.tasks[:2]})
    results = runner.run(one, "r.yaml", [str(files / "spa_Latn.txt")])
    assert not [s for s in results["scores"] if "overlap" in s["signature"]]
    assert results["parts"]["text_loss.spa"]["overlap"]["exact"] == 3
    assert "text_loss.spa: all 3 items overlap, no score without them" in capsys.readouterr().out


def test_compare_takes_the_scores_of_all_items(files, checkpoint, capsys):
    from sdrrl_eval.compare import runs

    sentence = (files / "flores/spa_Latn.devtest").read_text(encoding="utf-8").splitlines()[1]
    training = write_rows(files / "t.jsonl", [row(sentence)])
    one = config(files, checkpoint)
    one = one.model_copy(update={"tasks": one.tasks[:2]})
    results = runner.run(one, "r.yaml", [str(training)])
    read = runs.read_run(str(files / "out"))
    assert {s["n"] for s in results["scores"]} == {2, 3} and {s["n"] for s in read.scores.values()} == {3}
