import csv
import gzip
import json
import random
import tracemalloc
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.transfer.recipe import Columns, Source
from sdrrl_factory.transfer.sources import Reading, check, normalise


def read(instructions, cap=None) -> tuple[list[dict], Reading]:
    with under("instructions"):
        check(instructions)
        reading = Reading(instructions, cap)
        return list(reading), reading


def said(instructions) -> str:
    """The one line a broken source ends in, the same with and without the check."""
    with pytest.raises(UserError) as err, under("instructions"):
        list(Reading(instructions, None))
    with pytest.raises(UserError) as again:
        read(instructions)
    assert str(again.value) == str(err.value)
    assert "\n" not in str(err.value)
    return str(err.value)


def row(instruction="Why?", output="Because.", **more) -> dict:
    return {"instruction": instruction, "output": output, **more}


def dump(rows) -> str:
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)


def write(path: Path, rows: list[dict]) -> str:
    opener = gzip.open if path.suffix == ".gz" else open
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return str(path)
    with opener(path, "wt", encoding="utf-8", newline="") as f:
        if kind == "json":
            json.dump(rows, f, indent=1)
        elif kind == "jsonl":
            f.write(dump(rows))
        else:
            table = csv.DictWriter(f, rows[0], delimiter="," if kind == "csv" else "\t")
            table.writeheader()
            table.writerows(rows)
    return str(path)


TEXTS = ['He said "no",\nthen\tleft.\r\n', "Who\u2028he?\u0085", "naïve 😀 שלום", " indented  ", "a,b;c", "ends in \\"]


@pytest.mark.parametrize(
    "name", ["a.json", "a.jsonl", "a.csv", "a.tsv", "a.parquet", "a.json.gz", "a.jsonl.gz", "a.csv.gz", "a.tsv.gz"]
)
def test_every_file_type_gives_the_same_records(tmp_path, name):
    rows = [{"instruction": f"{i} {t}", "input": t[::-1], "output": t * 3} for i, t in enumerate(TEXTS)]
    records, reading = read(write(tmp_path / name, rows))
    assert records == [{"id": f"a-{i:06d}", **r, "system": ""} for i, r in enumerate(rows)]
    kind = {"json": "JSON", "jsonl": "JSONL", "csv": "CSV", "tsv": "TSV", "parquet": "Parquet"}[name.split(".")[1]]
    assert reading.formats == [f"{name}: Alpaca ({kind}), {len(rows)} rows"] and not reading.left_out


@pytest.mark.parametrize("indent", [None, 0, 3])
@pytest.mark.parametrize("mark", ["", "\ufeff", "\n \t"])
def test_json_is_read_across_any_window(tmp_path, indent, mark):
    """Rows of all sizes around the reader's window of 64 KiB; the oracle is json.load."""
    draw = random.Random(1)
    sizes = [draw.choice([1, 10, 3000, 65_530, 65_540, 140_000]) for _ in range(15)]
    rows = [
        row(f'{i} \\"é😀[]{{}},', "ž\n" * size, deep={"a": [1.5, None, {"b": "]"}]}) for i, size in enumerate(sizes)
    ]
    path = tmp_path / "a.json"
    path.write_text(mark + json.dumps(rows, indent=indent, ensure_ascii=bool(indent)) + "\n ", encoding="utf-8")
    expected = json.loads(path.read_text(encoding="utf-8-sig"))
    assert [(r["instruction"], r["output"]) for r in read(str(path))[0]] == [
        (r["instruction"], r["output"]) for r in expected
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.jsonl", json.dumps([row("A"), row("B")], indent=2)),
        ("lines.json", dump([row("A"), row("B")])),
        ("bom.jsonl", "\ufeff" + dump([row("A"), row("B")])),
        ("crlf.jsonl", dump([row("A"), row("B")]).replace("\n", "\r\n")),
        ("blank.jsonl", "\n\n" + dump([row("A")]) + " \n" + dump([row("B")]).rstrip()),
        ("bom.csv", "\ufeffinstruction,output\nA,Because.\n\nB,Because.\n"),
    ],
)
def test_what_only_looks_wrong_is_read(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert [r["instruction"] for r in read(str(tmp_path / name))[0]] == ["A", "B"]


def test_gzip_is_known_by_its_bytes(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(dump([row("A")]).encode()))
    (tmp_path / "b.jsonl.gz").write_text(dump([row("B")]))
    paths = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl.gz")]
    assert [(r["id"], r["instruction"]) for r in read(paths)[0]] == [("a-000000", "A"), ("b-000000", "B")]


def turns(*pairs, keys=("from", "value")) -> list[dict]:
    return [dict(zip(keys, pair, strict=True)) for pair in pairs]


OPENAI = ("role", "content")
PARTS = [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]
FORMATS = {
    "Alpaca": [row("Why?", "So.", input="Sky", id="x1")],
    "Alpaca with response": [{"instruction": "Why?", "input": "Sky", "response": "So.", "id": "x1"}],
    "Alpaca with NaN": [row("Why?", "So.", input=float("nan"))],
    "Dolly": [{"instruction": "Why?", "context": "Sky", "response": "So.", "category": "open_qa"}],
    "prompt and completion": [{"prompt": "Why?", "completion": "So."}],
    "question and answer": [{"question": "Why?", "answer": "So."}],
    "question and response": [{"id": "x1", "system_prompt": "Be kind.", "question": "Why?", "response": "So."}],
    "ShareGPT": [{"conversations": turns(("human", "Why?"), ("gpt", "So."), ("human", "And?"), ("gpt", "No."))}],
    "ShareGPT with system": [
        {"system": "Be kind.", "conversations": turns(("gpt", "Hi!"), ("human", "Why?"), ("gpt", "So."))}
    ],
    "OpenAI messages": [
        {"messages": turns(("system", "Be kind."), ("user", "Why?"), ("assistant", "So."), keys=OPENAI)}
    ],
    "OpenAI messages in parts": [{"messages": turns(("user", PARTS), ("assistant", "So."), keys=OPENAI)}],
}


@pytest.mark.parametrize("form", FORMATS)
def test_formats_are_recognised_and_said(tmp_path, form):
    records, reading = read(write(tmp_path / "a.jsonl", FORMATS[form]))
    given = FORMATS[form][0]
    kind_words = "Be kind." in json.dumps(given)
    context = "Sky" if "Sky" in json.dumps(given) else ""
    assert records == [
        {
            "id": given.get("id", "a-000000"),
            "instruction": "Why?",
            "input": context,
            "output": "So.",
            "system": "Be kind." * kind_words,
        }
    ]
    assert reading.formats == [f"a.jsonl: {form.split(' with')[0].split(' in ')[0]} (JSONL), 1 rows"]


def test_a_conversations_own_system_prompt_wins(tmp_path):
    own = turns(("system", "Mine."), ("human", "A"), ("gpt", "B"))
    assert read(write(tmp_path / "a.jsonl", [{"system": "Theirs.", "conversations": own}]))[0][0]["system"] == "Mine."


def test_conversations_without_a_first_answer_are_counted(tmp_path):
    chats = [
        turns(("human", "A"), ("gpt", "B")),
        turns(("gpt", "A")),
        turns(("human", "A")),
        turns(("human", "A"), ("human", "B"), ("gpt", "C")),
        turns(("human", "A"), ("gpt", "")),
        turns(("human", " "), ("gpt", "B")),
        [],
        None,
    ]
    records, reading = read(write(tmp_path / "a.jsonl", [{"conversations": c} for c in chats]))
    assert len(records) == 1 and reading.left_out == {
        "no user turn": 3,
        "no answer to the first user turn": 2,
        "no answer": 1,
        "no instruction": 1,
        "later turns": 1,
    }


def test_columns_and_format_override_recognition(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        [{"instruction": "I", "output": "O", "q": "Q", "a": "A", "c": "C", "s": "S", "key": 5, "id": "no"}],
    )
    both = Source(path=path, columns=Columns(instruction="q", output="a", input="c", system="s", id="key"))
    records, reading = read(both)
    assert records == [{"id": "5", "instruction": "Q", "input": "C", "output": "A", "system": "S"}]
    assert reading.formats == ["a.jsonl: q and a (JSONL), 1 rows"]
    assert read(Source(path=path, columns=Columns(output="a")))[0][0]["output"] == "A"
    talk = [{"talk": turns(("human", "A"), ("gpt", "B")), "instruction": "I", "output": "O"}]
    path = write(tmp_path / "b.jsonl", talk)
    assert read(Source(path=path, format="sharegpt", columns=Columns(instruction="talk")))[0][0]["instruction"] == "A"
    assert read(path)[0][0]["instruction"] == "I"
    swapped = write(tmp_path / "c.jsonl", [{"input": "Q", "output": "A"}])
    assert read(Source(path=swapped, columns=Columns(instruction="input")))[0] == [
        {"id": "c-000000", "instruction": "Q", "input": "", "output": "A", "system": ""}
    ]


def test_parquet_with_conversations_over_row_groups(tmp_path):
    rows = [{"conversations": turns(("human", f"Why {i}?"), ("gpt", f"So {i}."))} for i in range(1000)]
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=300)
    records, reading = read(str(path))
    assert [r["output"] for r in records] == [f"So {i}." for i in range(1000)]
    assert reading.formats == ["a.parquet: ShareGPT (Parquet), 1000 rows"]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_folder_is_loaded_as_a_hub_data_set_is(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "mine"
    folder.mkdir()
    write(folder / f"train-00000.{kind}", [row("A"), row("B")])
    write(folder / f"test-00000.{kind}", [row("C")])
    records, reading = read(str(folder))
    assert [(r["id"], r["instruction"]) for r in records] == [("mine-000000", "A"), ("mine-000001", "B")]
    assert reading.formats == ["mine: Alpaca (folder), 2 rows"]
    assert [r["instruction"] for r in read(Source(path=str(folder), split="test"))[0]] == ["C"]
    message = said(Source(path=str(folder), split="dev"))
    assert message.startswith(f"instructions: {folder} cannot be loaded") and "dev" in message


def test_a_hub_id_that_is_not_there_is_one_line(monkeypatch):
    for module in ("datasets.config", "huggingface_hub.constants"):
        monkeypatch.setattr(f"{module}.HF_HUB_OFFLINE", True)
    message = said(["nobody-here/no-such-set"])
    assert message.startswith("instructions.0: nobody-here/no-such-set cannot be loaded (HF_HUB_OFFLINE")


def test_what_is_left_out_is_counted(tmp_path):
    rows = [
        row("A"),
        row("B", held_out=True),
        row("A"),
        row(" \n"),
        row("C", ""),
        row("D", None),
        row("A", input="x"),
        row(" a?!", "BECAUSE"),
        row("A", "Another."),
        row("N\0", "Nul."),
    ]
    records, reading = read(write(tmp_path / "a.jsonl", rows))
    assert [(r["instruction"], r["input"], r["output"]) for r in records] == [
        ("A", "", "Because."),
        ("A", "x", "Because."),
        ("A", "", "Another."),
    ]
    assert reading.left_out == {
        "held out": 1,
        "duplicate": 1,
        "near duplicate": 1,
        "no instruction": 1,
        "no answer": 2,
        "NUL character": 1,
    }
    assert [r["id"] for r in records] == ["a-000000", "a-000006", "a-000008"]


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("Hello, world!", "hello world", True),
        ("ﬁne Ａ", "FINE a", True),
        ("Straße", "STRASSE", True),
        ("a\u00a0\t\nb", "a b", True),
        ("¿Qué…?", "qué", True),
        ("Qué", "Que", False),
        ("a > b", "a < b", False),
        ("ab", "a b", False),
        ("ก่า", "ก้า", False),
        ("?", "!", False),
    ],
)
def test_normalised_twins(one, other, alike):
    assert (normalise(one) == normalise(other)) is alike


def test_a_held_out_row_does_not_make_its_twin_a_duplicate(tmp_path):
    records, reading = read(write(tmp_path / "a.jsonl", [row(held_out=True), row(held_out=False)]))
    assert len(records) == 1 and reading.left_out == {"held out": 1}


def test_held_out_in_a_table_is_a_word(tmp_path):
    rows = [row(w or "empty", held_out=w) for w in ("true", "1", "False", "0", "", "no", "yes")]
    assert [r["instruction"] for r in read(write(tmp_path / "a.csv", rows))[0]] == ["False", "0", "empty", "no"]


@pytest.mark.parametrize("cap", [1, 2, 3, 4, 100])
def test_max_samples_counts_kept_records(tmp_path, cap):
    first = write(tmp_path / "a.jsonl", [row("A"), row("B", ""), row("C")])
    second = write(tmp_path / "b.json", [row("C"), row("D"), row("E")])
    everything = read([first, second])[0]
    assert [r["instruction"] for r in everything] == ["A", "C", "D", "E"]
    assert read([first, second], cap)[0] == everything[:cap]


def test_a_source_has_a_cap_of_its_own(tmp_path):
    first = write(tmp_path / "a.jsonl", [row("A", ""), row("B"), row("C"), row("D")])
    second = write(tmp_path / "b.jsonl", [row("D"), row("E"), row("F"), row("G")])
    records, reading = read([Source(path=first, max_samples=2), Source(path=second, max_samples=3)])
    assert [r["instruction"] for r in records] == ["B", "C", "D", "E", "F"]
    assert reading.formats == ["a.jsonl: Alpaca (JSONL), 3 rows", "b.jsonl: Alpaca (JSONL), 3 rows"]
    assert [r["instruction"] for r in read([Source(path=first, max_samples=2), second], 3)[0]] == ["B", "C", "D"]
    records, reading = read([first, second], 2)
    assert len(records) == 2 and len(reading.formats) == 1


def test_a_reading_may_be_repeated(tmp_path):
    reading = Reading(write(tmp_path / "a.jsonl", [row("A"), row("A"), row("B", id="x")]), None)
    assert list(reading) == list(reading) and reading.left_out == {"duplicate": 1} and len(reading.formats) == 1


def test_ids_are_distinct_over_files_of_one_name(tmp_path):
    (tmp_path / "x").mkdir()
    paths = [write(tmp_path / "a.jsonl", [row("A"), row("B")]), write(tmp_path / "x" / "a.jsonl.gz", [row("C")])]
    ids = [r["id"] for r in read(paths)[0]]
    assert ids == ["a-000000", "a-000001", "a-2-000000"] and ids[2:] == [r["id"] for r in read(paths)[0]][2:]


def test_given_ids_are_kept_and_never_given_again(tmp_path):
    rows = [row("A", id=0), row("B", id="a-000002"), row("C"), row("D", id=""), row("E", id=None), row("F", id=1)]
    ids = [r["id"] for r in read(write(tmp_path / "a.json", rows))[0]]
    assert ids == ["0", "a-000002", "a-000002-2", "a-000003", "a-000004", "1"]


GOOD = dump([row()])
CSV = "instruction,output\n"
CHAT = '{"conversations": %s}\n'
# (file, its bytes or text, what follows the file's name, what is said)
MALFORMED = [
    # encodings and containers
    ("a.jsonl", GOOD.encode("utf-16"), ": ", "UTF-16"),
    ("a.json", json.dumps([row()]).encode("utf-16-le"), ": ", "UTF-16"),
    ("a.csv", (CSV + "a,b\n").encode("utf-16"), ": ", "UTF-16"),
    ("a.jsonl", GOOD.encode() + b'{"instruction": "\xff", "output": "b"}\n', ":2: ", "not UTF-8 (byte 17"),
    ("a.json", b'[\n{"instruction": "\xe9t\xe9", "output": "b"}]', ": ", "not UTF-8 (byte 19)"),
    ("a.csv", CSV.encode() + b"a,b\nc,\xe9\n", ":3: ", "not UTF-8"),
    ("a.json", '[{"instruction": "é'.encode()[:-1], ": ", "not UTF-8"),
    ("a.jsonl.gz", gzip.compress(random.Random(0).randbytes(500).hex().encode())[:200], ": ", "broken gzip"),
    ("a.json.gz", gzip.compress(json.dumps([row(str(i)) for i in range(9999)]).encode())[:-9], ": ", "broken gzip"),
    ("a.csv.gz", gzip.compress((CSV + "a,b\n" * 999).encode())[:-4], ": ", "broken gzip"),
    ("a.jsonl.gz", b"\x1f\x8b" + b"x" * 50, ": ", "broken gzip"),
    ("a.jsonl", "<!DOCTYPE html>\n<html>404</html>", ": ", "a web page"),
    ("a.csv", "\n <html><body>Sign in</body></html>", ": ", "a web page"),
    ("a.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ": ", "git lfs pull"),
    ("a.parquet", "<!DOCTYPE html>", ": ", "Parquet"),
    ("a.parquet", b"", ": ", "Parquet"),
    ("a.parquet", b"PAR1" + b"\0" * 100 + b"PAR1", ": ", "Parquet"),
    # nothing in it
    ("a.jsonl", "", ": ", "no rows"),
    ("a.jsonl", "\n \n", ": ", "no rows"),
    ("a.json", "", ": ", "no rows"),
    ("a.json", " [ ] ", ": ", "no rows"),
    ("a.csv", "", ": ", "no rows"),
    ("a.csv", CSV, ": ", "no rows"),
    ("a.json.gz", gzip.compress(b""), ": ", "no rows"),
    # syntax
    ("a.json", "{\n}", ": ", "a JSON object instead of a list"),
    ("a.json", '{"data": [1]}', ": ", "no known format (columns: data)"),
    ("a.json", "[\n{},\n", ":3: ", "not JSON"),
    ("a.json", '[{"instruction": "a", "output": "b"}\n {}]', ":2: ", "not JSON (',' expected)"),
    ("a.json", '[{"instruction": "a", "output": "b"},\n]', ":2: ", "not JSON"),
    ("a.json", '[{"instruction": "a"\n', ":2: ", "not JSON"),
    ("a.json", '[\n{"instruction": "a', ":2: ", "not JSON (Unterminated string"),
    ("a.json", '[{"instruction": "a", "output": "b"}]\n[]', ":2: ", "not JSON (more text"),
    ("a.json", '[\n\n{"instruction": a, "output": "' + "b" * 200_000 + '"}]', ":3: ", "not JSON (Expecting value"),
    ("a.json", "[" * 100_000, "", "recursion"),
    ("a.json", "[3]", ": row 1: ", "int instead of an object"),
    ("a.json", '"text"', ":1: ", "str instead of an object"),
    ("a.jsonl", "[[1]]\n", ": row 1: ", "list instead of an object"),
    ("a.jsonl", '{"instruction": "a\0b", "output": "b"}\n', ":1: ", "not JSON (Invalid control character"),
    ("a.jsonl", '{"instruction": "a", "output": "b", "n": ' + "1" * 5000 + "}\n", ":1: ", "not JSON"),
    ("a.csv", CSV + 'a,"b\nc\n', ":2: ", "unexpected end of data"),
    ("a.csv", CSV + 'a,b\n"c"d,e\n', ":3: ", "not CSV"),
    ("a.csv", CSV + "a,b,c\n", ":2: ", "3 cells under 2 columns"),
    ("a.csv", "instruction,output,output\na,b,c\n", ":1: ", "2 columns are called 'output'"),
    ("a.tsv", CSV + "a,b\n", ": ", "no known format (columns: instruction,output)"),
    # columns and types
    ("a.jsonl", '{"x": "a", "y\\n": "b"}\n', ": ", "no known format (columns: x, y\\n)"),
    ("a.jsonl", '{"prompt": "a", "response": "b", "answer": "c"}\n', ": ", "no known format"),
    ("a.jsonl", '{"instruction": "a"}\n' * 2, ": ", "no known format (columns: instruction)"),
    ("a.json", '[{"instruction": "a", "output": ["b"]}]', ": row 1: ", "'output' is list"),
    ("a.jsonl", '{"instruction": "a", "input": {}, "output": "b"}\n', ":1: ", "'input' is dict"),
    ("a.jsonl", '{"instruction": "a", "output": "b", "id": ["c"]}\n', ":1: ", "'id' is list"),
    ("a.jsonl", '{"instruction": "a \\ud83d", "output": "b"}\n', ":1: ", "'instruction' has half a surrogate"),
    ("a.json", '[{"instruction": "a", "output": "\\ude00"}]', ": row 1: ", "'output' has half a surrogate"),
    ("a.jsonl", CHAT % '"text"', ":1: ", "'conversations' is str instead of a list"),
    ("a.jsonl", CHAT % '["text"]', ":1: turn 1: ", "str instead of an object in 'conversations'"),
    ("a.jsonl", CHAT % '[{"value": "a"}]', ":1: turn 1: ", "'from' is null"),
    ("a.jsonl", CHAT % '[{"from": "human", "value": {"a": 1}}]', ":1: ", "'value' is dict"),
    ("a.jsonl", '{"messages": [{"role": "user", "content": [[1]]}]}\n', ":1: ", "'content' is list"),
    # rows alone at fault: counted
    ("a.jsonl", '{"instruction": "a", "output": "b", "held_out": true}\n', ": ", "no usable row (1 held out)"),
    ("a.jsonl", '{"instruction": "a\\u0000b", "output": "b"}\n', ": ", "no usable row (1 NUL character)"),
    ("a.csv", CSV + "a,b\0\n", ": ", "no usable row (1 NUL character)"),
    ("a.csv", CSV + ",b\n", ": ", "no usable row (1 no instruction)"),
    ("a.jsonl", CHAT % '[{"from": "bot", "value": "a"}]' * 2, ": ", "no usable row (2 no user turn)"),
]


@pytest.mark.parametrize(("name", "raw", "where", "why"), MALFORMED)
def test_malformed_input_is_one_line_with_its_place(tmp_path, name, raw, where, why):
    path = tmp_path / name
    path.write_bytes(raw.encode("utf-8") if isinstance(raw, str) else raw)
    with pytest.raises(UserError) as err:
        read([str(path)])
    message = str(err.value)
    assert message.startswith(f"{path}{where}") and why in message and "\n" not in message
    assert len(message) < len(str(path)) + 500


def test_a_huge_line_is_read(tmp_path):
    path = write(tmp_path / "a.jsonl", [row("A"), row("B", "b" * 5_000_000)])
    assert len(read(path)[0][1]["output"]) == 5_000_000


@pytest.mark.parametrize(
    ("name", "start"), [("a.jsonl", '{"instruction": "'), ("a.json", '[{"instruction": "'), ("a.csv", CSV + '"')]
)
def test_a_boundless_line_is_not(tmp_path, monkeypatch, name, start):
    monkeypatch.setattr("sdrrl_factory.rows.ROW_LIMIT", 1 << 20)  # 64 MiB would take seconds
    (tmp_path / name).write_text(start + "b" * 3_000_000)
    message = said(str(tmp_path / name))
    assert message.startswith(f"{tmp_path / name}:") and "of more than 1 MiB" in message and len(message) < 500


def test_parquet_of_wrong_types_names_the_row(tmp_path):
    path = write(tmp_path / "a.parquet", [row("A", [1]), row("B", [2])])
    assert said(path) == f"{path}: row 1: 'output' is list instead of text; mend the row"


# What is wrong with one row beside a good one -> how it is counted.
UNUSABLE = {
    "{oops}": "not JSON",
    dump([row("A")]).rstrip() + ",": "not JSON",
    '{"instruction": "a", "out': "not JSON",
    '{"a":' * 100_000: "not JSON",
    "[1]": "list instead of an object {...}",
    "null": "null instead of an object {...}",
    '{"instruction": "a"}': "no 'output'",
    '{"instruction": "a", "output": ["b"]}': "'output' is list instead of text",
    '{"instruction": {"a": 1}, "output": "b"}': "'instruction' is dict instead of text",
    '{"instruction": "a", "output": "b", "id": ["c"]}': "'id' is list instead of text",
    '{"instruction": "a \\ud83d", "output": "b"}': "'instruction' has half a surrogate pair",
    '{"instruction": "a", "output": "b", "history": [["q"]]}': "'history' is no list of [question, answer]",
}


@pytest.mark.parametrize("line", UNUSABLE)
def test_one_unusable_row_is_left_out_and_counted(tmp_path, line):
    (tmp_path / "a.jsonl").write_text(GOOD + line + "\n" + dump([row("Next?")]), encoding="utf-8")
    records, reading = read(str(tmp_path / "a.jsonl"))
    # The row behind it keeps its number.
    assert [r["id"] for r in records] == ["a-000000", "a-000002"]
    assert reading.left_out == {UNUSABLE[line]: 1}
    assert reading.formats == ["a.jsonl: Alpaca (JSONL), 3 rows"]


def test_an_unusable_row_of_a_table_or_a_list_is_left_out(tmp_path):
    (tmp_path / "a.csv").write_text(CSV + 'a,b\n"c\nc",d,e\nf,g\n')
    records, reading = read(str(tmp_path / "a.csv"))
    assert [r["instruction"] for r in records] == ["a", "f"] and reading.left_out == {"3 cells under 2 columns": 1}
    (tmp_path / "a.json").write_text(json.dumps([3, row("A"), None]))
    records, reading = read(str(tmp_path / "a.json"))
    assert [r["id"] for r in records] == ["a-000001"] and sum(reading.left_out.values()) == 2


def test_a_file_with_nothing_usable_stops_beside_a_good_one(tmp_path):
    (tmp_path / "b.jsonl").write_text("{oops}\n[1]\n")
    message = said([write(tmp_path / "a.jsonl", [row("A")]), str(tmp_path / "b.jsonl")])
    assert message.startswith(f"{tmp_path / 'b.jsonl'}:1: not JSON")


@pytest.mark.parametrize(("value", "text"), [(5, "5"), (2.5, "2.5"), (True, "true"), (False, "false"), (0, "0")])
def test_plain_numbers_and_booleans_are_text(tmp_path, value, text):
    (record,), _ = read(write(tmp_path / "a.jsonl", [row(value, value, input=value, system=value)]))
    assert {record[column] for column in ("instruction", "input", "output", "system")} == {text}


@pytest.mark.parametrize("nothing", ["<noinput>", "<No input>", "nan", "NaN", " N/A ", "None", "no input.", "null"])
def test_no_input_in_words_is_none(tmp_path, nothing):
    assert read(write(tmp_path / "a.jsonl", [row(input=nothing, system=nothing)]))[0] == [
        {"id": "a-000000", "instruction": "Why?", "input": "", "output": "Because.", "system": ""}
    ]


def test_no_answer_in_words_is_none_but_none_may_be_one(tmp_path):
    rows = [row("A", "<nooutput>"), row("B", "nan"), row("C", "None"), row("<noinput>", "D"), row("E", "N/A")]
    records, reading = read(write(tmp_path / "a.jsonl", rows))
    assert [r["output"] for r in records] == ["None", "N/A"]
    assert reading.left_out == {"no answer": 2, "no instruction": 1}


def test_an_id_that_stands_twice_gets_a_suffix_and_is_counted(tmp_path):
    rows = [row("A", id=1), row("B", id=1), row("C", id="1-2"), row("D", id="1"), row("E", id="x")]
    records, reading = read(write(tmp_path / "a.jsonl", rows))
    ids = [r["id"] for r in records]
    assert len(set(ids)) == 5 and ids[:2] == ["1", "1-2"] and ids[3:] == ["1-4", "x"]
    assert reading.formats == ["a.jsonl: Alpaca (JSONL), 5 rows, 2 ids stood twice and have a suffix"]


CHAT_ROWS = {
    "ShareGPT": {
        "conversations": turns(("human", "A"), ("gpt", "1"), ("human", "B"), ("gpt", "2"), ("human", "C"), ("gpt", "3"))
    },
    "Alpaca": row("C", "3", history=[["A", "1"], ["B", "2"]]),
    "Alpaca in a table": row("C", "3", history='[["A", "1"], ["B", "2"]]'),
}


@pytest.mark.parametrize("form", CHAT_ROWS)
@pytest.mark.parametrize(
    ("which", "expected", "left_out"),
    [
        ("first", ["A1"], {"later turns": 2}),
        ("last", ["C3"], {"earlier turns": 2}),
        ("all", ["A1", "B2", "C3"], {}),
    ],
)
def test_turns_of_a_conversation(tmp_path, form, which, expected, left_out):
    path = write(tmp_path / "a.jsonl", [CHAT_ROWS[form], {**CHAT_ROWS[form], "held_out": True}])
    records, reading = read(Source(path=path, turns=which))
    assert [r["instruction"] + r["output"] for r in records] == expected
    assert reading.left_out == {"held out": 1, **left_out}
    assert [r["id"] for r in records] == ["a-000000", "a-000000-2", "a-000000-3"][: len(expected)]


def test_empty_history_is_none(tmp_path):
    rows = [row("A", history=[]), row("B", history=None), row("C", history="")]
    records, reading = read(write(tmp_path / "a.jsonl", rows))
    assert len(records) == 3 and not reading.left_out


IMAGE = {"type": "image_url", "image_url": {"url": "a.png"}}
CALL = {"id": "1", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (row(images=["a.png"]), "with images"),
        (row(image="a.png"), "with images"),
        (row(videos=["a.mp4"]), "with videos"),
        (row(audios=["a.wav"]), "with audios"),
        (row(tools='[{"name": "f"}]'), "with tools"),
        (row(kto_tag=False), "marked as rejected"),
        (row(label=False), "marked as rejected"),
        ({"messages": turns(("user", [IMAGE, *PARTS]), ("assistant", "So."), keys=OPENAI)}, "with images"),
        ({"messages": turns(("user", [{"image": "a.png"}, {"text": "?"}]), ("assistant", "So."), keys=OPENAI)},
         "with images"),
        ({"conversations": turns(("human", "A"), ("function_call", "{}"), ("observation", "1"), ("gpt", "B"))},
         "calls a tool"),
        ({"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
         "calls a tool"),
        ({"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B", "loss_weight": 0.0}]},
         "an answer of weight 0"),
    ],
)  # fmt: skip
def test_columns_of_llama_factory_that_leave_a_row_out(tmp_path, line, reason):
    good = row("Good.") if "instruction" in line else {next(iter(line)): turns(("user", "Good."), ("assistant", "B"))}
    records, reading = read(write(tmp_path / "a.jsonl", [good, line]))
    assert [r["instruction"] for r in records] == ["Good."] and reading.left_out == {reason: 1}


@pytest.mark.parametrize(
    "more", [{"images": []}, {"images": None}, {"tools": "[]"}, {"tools": ""}, {"kto_tag": True}, {"label": 0}]
)
def test_columns_of_llama_factory_with_nothing_in_them(tmp_path, more):
    records, reading = read(write(tmp_path / "a.jsonl", [row(**more)]))
    assert len(records) == 1 and not reading.left_out


NEWER = [
    {"role": "system", "content": [{"type": "text", "value": "Be kind."}], "loss_weight": 0.0},
    {"role": "user", "content": [{"type": "text", "value": "Wh"}, {"type": "text", "value": "y?"}], "loss_weight": 0.0},
    {
        "role": "assistant",
        "content": [{"type": "reasoning", "value": "Hm."}, {"type": "text", "value": "So."}],
        "loss_weight": 1.0,
    },
]


@pytest.mark.parametrize(
    "line",
    [
        {"messages": NEWER},
        {"chosen_messages": NEWER, "rejected_messages": NEWER[:2]},
        {"instruction": "Why?", "chosen": "So.", "rejected": "No.", "system": "Be kind."},
        {"system": "Be kind.", "conversations": turns(("human", "Why?")),
         "chosen": {"from": "gpt", "value": "So."}, "rejected": {"from": "gpt", "value": "No."}},
        {"prompt": "Why?", "system": "Be kind.", "chosen": turns(("user", "Why?"), ("assistant", "So."), keys=OPENAI),
         "rejected": []},
    ],
)  # fmt: skip
def test_newer_files_and_preferences_of_llama_factory(tmp_path, line):
    records, reading = read(write(tmp_path / "a.jsonl", [line]))
    assert not reading.left_out and records == [
        {"id": "a-000000", "instruction": "Why?", "input": "", "output": "So.", "system": "Be kind."}
    ]


def test_decomposed_letters_are_composed(tmp_path):
    (record,), _ = read(write(tmp_path / "a.jsonl", [row("Cafe\u0301?", "Si\u0301.")]))
    assert (record["instruction"], record["output"]) == ("Café?", "Sí.")


def test_an_empty_second_file_is_named_before_the_first_is_read(tmp_path):
    good, empty = write(tmp_path / "a.jsonl", [row()]), write(tmp_path / "b.jsonl", [])
    with pytest.raises(UserError, match="b.jsonl: no rows"):
        check([good, empty])


@pytest.mark.parametrize(
    ("source", "key", "why"),
    [
        (Source(path="missing.jsonl"), "instructions.0", "missing.jsonl: no such file"),
        (Source(path="data/missing.parquet"), "instructions.0", "no such file"),
        (Source(path="nowhere"), "instructions.0", "no such file"),
        (Source(path="/dev/null"), "instructions.0", "neither a file nor a folder"),
        (Source(path="a.txt"), "instructions.0", "its suffix is none of"),
        (Source(path="empty"), "instructions.0", "cannot be loaded"),
        (Source(path="a.jsonl", columns=Columns(output="gold")), "instructions.0.columns.output", "no column 'gold'"),
        (
            Source(path="a.jsonl", columns=Columns(id="key")),
            "instructions.0.columns.id",
            "(it has: instruction, output)",
        ),
        (Source(path="a.jsonl", format="messages"), "instructions.0.format", "a.jsonl is not messages"),
        (Source(path="a.jsonl", format="sharegpt"), "instructions.0.format", "(columns: instruction, output)"),
        (Source(path="chat.jsonl", format="alpaca"), "instructions.0.format", "chat.jsonl is not alpaca"),
    ],
)
def test_mistakes_of_the_recipe_name_their_key(tmp_path, monkeypatch, source, key, why):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", [row()])
    write(tmp_path / "chat.jsonl", [{"conversations": turns(("human", "A"), ("gpt", "B"))}])
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    message = said([source])
    assert message.startswith(f"{key}: ") and why in message


@pytest.mark.parametrize("name", ["a.json", "a.csv"])
def test_memory_does_not_grow_with_rows(tmp_path, name):
    def peak(n: int) -> int:
        rows = [{"instruction": f"Question {i}?", "input": "", "output": f"{i} " + "word " * 9} for i in range(n)]
        path = write(tmp_path / name, rows)
        del rows
        tracemalloc.start()
        try:
            assert sum(1 for _ in Reading(path, None)) == n
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # imports and caches
    small = peak(2_000)
    assert peak(20_000) <= 1.2 * small + 100_000


def test_the_seed_instructions_read():
    path = Path(__file__).parents[2] / "data" / "seeds" / "english_instructions.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    records, reading = read(str(path))
    held_out = sum(bool(r.get("held_out")) for r in rows)
    assert held_out and reading.left_out == {"held out": held_out} and len(records) == len(rows) - held_out


def test_an_id_may_stand_in_two_sources(tmp_path):
    for name, answer in (("a", "b"), ("c", "d")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": 1, "instruction": "q", "output": answer}))
    paths = [f"{tmp_path}/a.jsonl", f"{tmp_path}/c.jsonl"]
    assert [r["id"] for r in Reading(paths, None)] == ["1", "c-1"]
