import json
from pathlib import Path

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.transfer.sources import read


def row(instruction="Why?", output="Because.", **more) -> dict:
    return {"instruction": instruction, "output": output, **more}


def write(path, rows) -> str:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_both_formats_give_the_same_records(tmp_path, name):
    path = write(
        tmp_path / name, [row(input="Sky", id="x", extra=[1]), row("Who\u2028he?", input=None), row("How?", id=7)]
    )
    records, left_out = read([path], None)
    assert records == [
        {"id": "x", "instruction": "Why?", "input": "Sky", "output": "Because."},
        {"id": "a-000001", "instruction": "Who\u2028he?", "input": "", "output": "Because."},
        {"id": "7", "instruction": "How?", "input": "", "output": "Because."},
    ]
    assert not left_out


def test_what_is_left_out_is_counted(tmp_path):
    rows = [row("A"), row("B", held_out=True), row("A"), row(" \n"), row("C", ""), row("D", None), row("A", input="x")]
    records, left_out = read([write(tmp_path / "a.jsonl", rows + [row("A", "Another.")])], None)
    assert [(r["instruction"], r["input"], r["output"]) for r in records] == [
        ("A", "", "Because."),
        ("A", "x", "Because."),
        ("A", "", "Another."),
    ]
    assert left_out == {"held out": 1, "duplicate": 1, "no instruction": 1, "no answer": 2}


def test_a_held_out_row_does_not_make_its_twin_a_duplicate(tmp_path):
    records, left_out = read([write(tmp_path / "a.jsonl", [row(held_out=True), row(held_out=False)])], None)
    assert len(records) == 1 and left_out == {"held out": 1}


@pytest.mark.parametrize("cap", [1, 2, 3, 4, 100])
def test_max_samples_counts_usable_records(tmp_path, cap):
    first = write(tmp_path / "a.jsonl", [row("A"), row("B", ""), row("C")])
    second = write(tmp_path / "b.json", [row("C"), row("D"), row("E")])
    everything = read([first, second], None)[0]
    assert [r["instruction"] for r in everything] == ["A", "C", "D", "E"]
    assert read([first, second], cap)[0] == everything[:cap]


def test_ids_are_distinct_over_files_of_one_name(tmp_path):
    (tmp_path / "x").mkdir()
    paths = [write(tmp_path / "a.jsonl", [row("A"), row("B")]), write(tmp_path / "x" / "a.jsonl", [row("C")])]
    ids = [r["id"] for r in read(paths, None)[0]]
    assert len(set(ids)) == 3 and ids == [r["id"] for r in read(paths, None)[0]]


def test_the_id_zero_is_an_id(tmp_path):
    assert [r["id"] for r in read([write(tmp_path / "a.json", [row(id=0), row("B", id=1)])], None)[0]] == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "text", "place", "said"),
    [
        ("a.csv", "x", "", ".csv suffix"),
        ("a", "x", "", "no suffix"),
        ("a.jsonl", "", "", "no rows"),
        ("a.json", "", "", "no rows"),
        ("a.json", "[]", "", "no rows"),
        ("a.json", '{"instruction": "x"}', "", "a JSON dict instead of a list"),
        ("a.json", "[\n{},\n", ":3", "not JSON"),
        ("a.json", "[3]", ": row 1", "int instead of an object"),
        ("a.jsonl", '{"instruction": "a", "output": "b"}\n{oops}\n', ":2", "not JSON"),
        ("a.jsonl", "[1]\n", ":1", "list"),
        ("a.jsonl", '{"prompt": "a", "output": "b"}\n', ":1", "no 'instruction' (keys: prompt, output)"),
        ("a.jsonl", '\n{"instruction": "a"}\n', ":2", "no 'output'"),
        ("a.json", '[{"instruction": "a", "output": ["b"]}]', ": row 1", "'output' is list"),
        ("a.jsonl", '{"instruction": 5, "output": "b"}\n', ":1", "'instruction' is int"),
        ("a.jsonl", '{"instruction": "a", "input": {}, "output": "b"}\n', ":1", "'input' is dict"),
        ("a.jsonl", '{"id": 1, "instruction": "a", "output": "b"}\n' * 2, ":2", "id '1' stands twice"),
        ("a.jsonl", '{"instruction": "a", "output": "b", "held_out": true}\n', "", "no usable row (1 held out)"),
        ("a.jsonl", '{"instruction": "a \\ud83d", "output": "b"}\n', ":1", "instruction"),
        ("a.json", '[{"instruction": "a", "output": "\\ude00"}]', ": row 1", "output"),
    ],
)
def test_malformed_input_is_one_line_with_its_place(tmp_path, name, text, place, said):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as err:
        read([str(path)], None)
    message = str(err.value)
    assert message.startswith((f"{path}{place}: ", f"{path}{place} is ")) and said in message and "\n" not in message


def test_an_empty_second_file_is_named(tmp_path):
    good, empty = write(tmp_path / "a.jsonl", [row()]), write(tmp_path / "b.jsonl", [])
    with pytest.raises(UserError, match="b.jsonl: no rows"):
        read([good, empty], None)


def test_the_seed_instructions_read():
    path = Path(__file__).parents[2] / "data" / "seeds" / "english_instructions.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    records, left_out = read([str(path)], None)
    held_out = sum(bool(r.get("held_out")) for r in rows)
    assert held_out and left_out == {"held out": held_out} and len(records) == len(rows) - held_out
