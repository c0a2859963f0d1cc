"""The corpus of malformed inputs, by kind; test_malformed.py puts each through the command."""

import bz2
import gzip
import json
import lzma
import random
from collections.abc import Iterator
from typing import Any

GOOD = {"instruction": "Name a small river.", "input": "", "output": "The Test is a small river."}
LINE = json.dumps(GOOD).encode() + b"\n"
LINES = b"".join(
    json.dumps({"instruction": f"What is {i} and {i}?", "output": f"It is {2 * i}."}).encode() + b"\n" for i in range(9)
)


# --- Bytes: what a download, a converter or a mistaken name leaves. (content, what the line says beside the file)

CONTENTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "no"),
    "blank lines": (b"\n \n\r\n\n", "no"),
    "a NUL": (b"\0", ""),
    "a page of NULs": (b"\0" * 4096, ""),
    "UTF-16": (LINES.decode().encode("utf-16"), ""),
    "UTF-16 without its mark": (LINES.decode().encode("utf-16-le"), ""),
    "UTF-16, the other end first": (LINES.decode().encode("utf-16-be"), ""),
    "UTF-32": (LINES.decode().encode("utf-32"), ""),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4, ""),
    "a PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<</Type/Catalog>>\nendobj\n", ""),
    "a zip": (b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(range(256)), ""),
    "a program": (b"\x7fELF\x02\x01\x01" + b"\0" * 64, ""),
    "a pickle": (b"\x80\x04\x95\x1a\0\0\0\0\0\0\0}\x94\x8c\x01a\x94K\x01s.", ""),
    "a database": (b"SQLite format 3\0" + b"\0" * 100, ""),
    "a web page": (b"<!DOCTYPE html>\n<html><body>Too many requests</body></html>\n", "web page"),
    "a feed": (b'<?xml version="1.0"?>\n<rss><channel/></rss>\n', "web page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
    "noise": (random.Random(0).randbytes(3000), ""),
    "half a gzip": (gzip.compress(LINES * 99)[:-20], ""),
    "a gzip's head": (gzip.compress(LINES)[:9], ""),
    "a damaged gzip": (bytes(b ^ (i > 40) for i, b in enumerate(gzip.compress(LINES * 99))), ""),
    "an empty gzip": (gzip.compress(b""), ""),
    "bzip2": (bz2.compress(LINES), ""),
    "xz": (lzma.compress(LINES), ""),
    "YAML": (b"- instruction: a\n  output: b\n- instruction: c\n  output: d\n", ""),
    "Python": (repr([GOOD]).encode(), ""),
    "prose": (b"Once upon a time there was a river.\nIt was small.\n", ""),
    "Latin-1": (LINES.replace(b"What", "Qué".encode("latin-1")), ""),
    "an error of a server": (b'{"error": {"code": 404, "message": "not found"}}', ""),
}
SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".csv.gz")


def files() -> Iterator[tuple[str, str, bytes, list[str]]]:
    """(id, file name, its bytes, what the line says)."""
    for what, (content, said) in CONTENTS.items():
        for suffix in SUFFIXES:
            yield f"{what} as {suffix}", f"a{suffix}", content, [f"a{suffix}", said if suffix != ".parquet" else ""]
    yield from JSON_FILES


JSON_FILES = [
    ("half a list", "a.json", b"[" + LINE + b",", ["a.json"]),
    ("a list without its end", "a.json", b"[" + LINE, ["a.json"]),
    ("two lists", "a.json", b"[" + LINE + b"][" + LINE + b"]", ["a.json", "more text"]),
    ("no comma", "a.json", b"[" + LINE + LINE + b"]", ["a.json"]),
    ("two commas", "a.json", b"[" + LINE + b",," + LINE + b"]", ["a.json"]),
    ("a comma too many", "a.json", b"[" + LINE + b",]", ["a.json"]),
    ("a list of lists", "a.json", b"[[1, 2], [3]]", ["a.json", "row 1"]),
    ("a list of texts", "a.json", b'["a", "b"]', ["a.json", "row 1"]),
    ("a list of nulls", "a.json", b"[null, null]", ["a.json", "row 1"]),
    ("an object", "a.json", b'{"data": []}', ["a.json"]),
    ("an object over lines", "a.json", b'{\n"data": []\n}', ["a.json", "JSON object instead of a list"]),
    ("a number", "a.jsonl", b"3\n", ["a.jsonl:1"]),
    ("a text", "a.jsonl", b'"a"\n', ["a.jsonl:1"]),
    ("null", "a.jsonl", b"null\n", ["a.jsonl:1"]),
    ("deeply nested", "a.jsonl", b'{"instruction": ' + b"[" * 5000 + b"]" * 5000 + b', "output": "b"}\n', ["a.jsonl"]),
    ("deeply nested list", "a.json", b"[" * 100_000, ["a.json"]),
    ("no answer column", "a.jsonl", b'{"instruction": "a"}\n', ["a.jsonl"]),
    ("no columns", "a.jsonl", b"{}\n{}\n", ["a.jsonl"]),
    ("foreign columns", "a.jsonl", b'{"foo": "a", "bar": "b"}\n', ["a.jsonl", "columns"]),
    ("two questions", "a.jsonl", b'{"question": "a", "prompt": "b", "answer": "c"}\n', ["a.jsonl", "columns"]),
    ("a list for text", "a.jsonl", b'{"instruction": ["a"], "output": "b"}\n', ["a.jsonl:1"]),
    ("half a surrogate", "a.jsonl", b'{"instruction": "\\ud83d", "output": "b"}\n', ["a.jsonl:1", "surrogate"]),
    ("conversations of texts", "a.jsonl", b'{"conversations": ["hi", "ho"]}\n', ["a.jsonl"]),
    ("conversations of lists", "a.jsonl", b'{"conversations": [["hi", "ho"]]}\n', ["a.jsonl"]),
    ("a conversation of text", "a.jsonl", b'{"messages": "hi"}\n', ["a.jsonl", "list of turns"]),
    ("a role of 3", "a.jsonl", b'{"messages": [{"role": 3, "content": "a"}]}\n', ["a.jsonl", "role"]),
    ("held out only", "a.jsonl", b'{"held_out": true, ' + LINE[1:], ["a.jsonl", "held out"]),
    ("blank answers only", "a.jsonl", b'{"instruction": "a", "output": " "}\n', ["a.jsonl", "no answer"]),
    ("a line of a gigabyte's kind", "a.jsonl", b'{"instruction": "' + b"a" * (65 << 20), ["a.jsonl:1", "64 MiB"]),
    ("one column", "a.csv", b"instruction\na\n", ["a.csv"]),
    ("no head", "a.csv", b"Say a.,a\n", ["a.csv"]),
    ("a head alone", "a.csv", b"instruction,output\n", ["a.csv", "no rows"]),
    ("one name twice", "a.csv", b"instruction,output,output\na,b,c\n", ["a.csv:1", "2 columns"]),
    ("an open quote", "a.csv", b'instruction,output\n"a,b\n', ["a.csv:2"]),
    ("a quote within", "a.csv", b'instruction,output\n"a"b,c\n', ["a.csv:2"]),
    ("semicolons", "a.csv", b"instruction;output\na;b\n", ["a.csv", "instruction;output"]),
    ("an unknown suffix", "a.docx", b"PK", ["a.docx"]),
    ("no suffix", "rows", LINE, ["rows"]),
    ("half a Parquet file", "a.parquet", b"PAR1" + b"\0" * 50 + b"PAR1", ["a.parquet"]),
]


# --- Structures: a row among good ones is left out, and counted. (the row's line, the reason)


def _line(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes).encode()


_TALK = {"from": "human", "value": "Name a large river, please."}, {"from": "gpt", "value": "The Danube."}


def _talk(*turns: Any, **more: Any) -> bytes:
    return json.dumps({"conversations": list(turns), **more}).encode()


SYNTAX = {
    "half an object": b'{"instruction": "a", "output": ',
    "half a text": b'{"instruction": "a',
    "no end": b'{"instruction": "a", "output": "b"',
    "a comma too many": b'{"instruction": "a", "output": "b",}',
    "no comma": b'{"instruction": "a" "output": "b"}',
    "no colon": b'{"instruction" "a", "output": "b"}',
    "single quotes": b"{'instruction': 'a', 'output': 'b'}",
    "no quotes": b'{instruction: "a", output: "b"}',
    "curly quotes": "{“instruction”: “a”, “output”: “b”}".encode(),
    "a remark": b'{"instruction": "a", "output": "b"} // mine',
    "two objects": b'{"instruction": "a", "output": "b"} {"instruction": "c", "output": "d"}',
    "a tab in a text": b'{"instruction": "a\tb", "output": "c"}',
    "an escape that is none": b'{"instruction": "a\\x41", "output": "c"}',
    "half an escape": b'{"instruction": "a\\u12", "output": "c"}',
    "Python's None": b'{"instruction": "a", "output": None}',
    "Python's True": b'{"instruction": "a", "output": True}',
    "a number with a comma": b'{"instruction": "a", "output": 1,5}',
    "a leading zero": b'{"instruction": "a", "output": 007}',
    "prose": b"Name a small river.",
    "a bracket": b"]",
    "very deep": b"[" * 100_000,
}
OBJECTS = {"a list": (b"[1]", "list"), "a number": (b"3", "int"), "a text": (b'"a"', "str"), "null": (b"null", "null")}
OBJECTS |= {
    "true": (b"true", "bool"),
    "a float": (b"1.5", "float"),
    "a list of rows": (b"[" + LINE.strip() + b"]", "list"),
}
TYPES = {"a list": ["a"], "an empty list": [], "an object": {"a": "b"}, "an empty object": {}, "lists": [[["a"]]]}
NOTHING = {"null": None, "blank": " \n\t", "empty": "", "nan": "nan", "NaN": float("nan"), "<noinput>": "<noinput>"}


def rows() -> Iterator[tuple[str, bytes, str]]:
    """(id, the line of a row, the reason it is counted under)."""
    for what, line in SYNTAX.items():
        yield f"syntax: {what}", line, "1 not JSON"
    for what, (line, kind) in OBJECTS.items():
        yield f"no object: {what}", line, f"1 {kind} instead of an object"
    for column in ("instruction", "input", "output"):
        for what, value in TYPES.items():
            yield f"{column}: {what}", _line(**{column: value}), f"1 '{column}' is {type(value).__name__}"
    for what, value in NOTHING.items():
        yield f"no instruction: {what}", _line(instruction=value), "1 no instruction"
        yield f"no answer: {what}", _line(output=value), "1 no answer"
    for column in ("instruction", "input", "output"):
        yield f"{column}: NUL", _line(**{column: "a\0b"}), "1 NUL character"
        yield f"{column}: half a surrogate", _line(**{column: "a \ud83d b"}), f"1 '{column}' has half a surrogate pair"
    for column, value in (
        ("images", ["a.png"]),
        ("image", "a.png"),
        ("videos", ["a.mp4"]),
        ("audio", {"path": "a.wav"}),
    ):
        yield f"media: {column}", _line(**{column: value}), "1 with "
    yield "the same again", _line(), "1 duplicate"
    yield "the same but for case", _line(instruction="name a SMALL river"), "1 near duplicate"
    yield "the same but for width", _line(instruction="Ｎame a small river."), "1 near duplicate"
    yield "held out", _line(held_out=True, instruction="Other?"), "1 held out"
    yield "held out, as text", _line(held_out="yes", instruction="Other?"), "1 held out"
    yield "rejected", _line(rejected=True, instruction="Other?"), "1 marked as rejected"
    yield "not liked", _line(kto_tag=False, instruction="Other?"), "1 marked as rejected"
    yield "tools", _line(tools='[{"name": "search"}]', instruction="Other?"), "1 with tools"
    yield "a history of text", _line(history="before", instruction="Other?"), "1 'history' is text"
    yield "a history of numbers", _line(history=[1, 2], instruction="Other?"), "1 'history' is no list"
    yield "a history of triples", _line(history=[["a", "b", "c"]], instruction="Other?"), "1 'history' is no list"
    yield "an id that is a list", _line(id=["a"], instruction="Other?"), "1 'id' is list"
    yield "no column", b'{"instruction": "Other?"}', "1 no 'output'"
    yield "other columns", b'{"foo": "a"}', "1 no 'instruction'"


TALKS = {
    "no turns": (_talk(), "1 no user turn"),
    "null": (json.dumps({"conversations": None}).encode(), "1 no user turn"),
    "text": (json.dumps({"conversations": "hi"}).encode(), "1 'conversations' is str"),
    "an object": (json.dumps({"conversations": {"a": 1}}).encode(), "1 'conversations' is dict"),
    "turns that are text": (_talk("hi", "ho"), "1 str instead of an object"),
    "a turn that is null": (_talk(None), "1 null instead of an object"),
    "a turn without a role": (_talk({"value": "hi"}), "1 'from' is null"),
    "a role that is a number": (_talk({"from": 3, "value": "hi"}), "1 'from' is int"),
    "a value that is an object": (_talk({"from": "human", "value": {"a": 1}}, _TALK[1]), "1 'value' is dict"),
    "no answer": (_talk(_TALK[0]), "1 no answer to the first user turn"),
    "two questions": (_talk(_TALK[0], _TALK[0]), "no answer to the first user turn"),
    "an answer alone": (_talk(_TALK[1]), "1 no user turn"),
    "an unknown role": (_talk({"from": "narrator", "value": "hi"}, _TALK[1]), "1 no user turn"),
    "a blank question": (_talk({"from": "human", "value": " "}, _TALK[1]), "1 no instruction"),
    "a blank answer": (_talk(_TALK[0], {"from": "gpt", "value": ""}), "1 no answer"),
    "no value": (_talk(_TALK[0], {"from": "gpt"}), "1 no answer"),
    "a call": (_talk(_TALK[0], {"from": "function_call", "value": "{}"}), "1 calls a tool"),
    "weight 0": (_talk(_TALK[0], {**_TALK[1], "weight": 0}), "1 an answer of weight 0"),
    "a picture": (_talk({"from": "human", "value": [{"type": "image_url"}]}, _TALK[1]), "1 with images"),
    "parts that are no text": (_talk({"from": "human", "value": [{"type": "map"}]}, _TALK[1]), "1 with parts"),
    "parts of lists": (_talk({"from": "human", "value": [["a"]]}, _TALK[1]), "1 'value' is list"),
    "half a surrogate": (_talk({"from": "human", "value": "\ud83d"}, _TALK[1]), "1 'value' has half a surrogate"),
    "NUL": (_talk({"from": "human", "value": "a\0"}, _TALK[1]), "1 NUL character"),
    "held out": (_talk(*_TALK, held_out=True), "1 held out"),
}

CELLS = {
    "a cell too few": (b"Say c.", "1 1 cells under 2 columns"),
    "a cell too many": (b"Say c.,c,d", "1 3 cells under 2 columns"),
    "nothing said": (b",c", "1 no instruction"),
    "no answer": (b"Say c.,", "1 no answer"),
    "the same": (b"Say a.,a", "1 duplicate"),
    "NUL": (b"Say c.,c\0d", "1 NUL character"),
}


# --- Sizes and spellings that are right.

STRANGE = {
    "a byte order mark": b"\xef\xbb\xbf" + LINE,
    "a huge line": LINE.replace(b"river.", b"river. " + b"water " * 400_000),
    "line separators": LINE.replace(b"small", "sm\u2028all\u0085".encode()),
    "windows line ends": LINE.replace(b"\n", b"\r\n"),
    "no line end": LINE.rstrip(),
    "a list in .jsonl": b"[" + LINE.rstrip() + b"]",
    "blanks around": b"\n\n  " + LINE.rstrip() + b"  \n\n\n",
    "gzip without its suffix": gzip.compress(LINE),
    "two gzips in one": gzip.compress(b"") + gzip.compress(LINE),
    "keys twice": LINE.replace(b'"input": ""', b'"input": "", "input": ""'),
    "a column of a thousand": LINE.replace(b'"input": ""', b'"x": [' + b"1," * 1000 + b"1]"),
    "a thousand columns": LINE.replace(b'"input": ""', b",".join(b'"c%d": 1' % i for i in range(1000))),
}


# --- Encodings: parallel corpora and dictionaries.

_PAIRS = [(f"The river number {i} is small and cold.", f"El río número {i} es pequeño y frío.") for i in range(5)]
_MOSES = ["\n".join(side) + "\n" for side in zip(*_PAIRS, strict=True)]
_TSV = "".join(f"{one}\t{two}\n" for one, two in _PAIRS)
_TU = '<tmx><body><tu><tuv xml:lang="en"><seg>&a;</seg></tuv></tu></body></tmx>'
_TMX = '<tmx><body><tu><tuv xml:lang="{}"><seg>The river.</seg></tuv><tuv xml:lang="{}"><seg>El río.</seg></tuv></tu>'

# id -> (files, the source's name, what the line says)
CORPORA: dict[str, tuple[dict[str, str | bytes], str, list[str]]] = {
    "unequal lines": ({"p.en": _MOSES[0], "p.es": _MOSES[1] + "Una más.\n"}, "p", ["5", "6"]),
    "one side": ({"p.en": _MOSES[0]}, "p", ["p."]),
    "the other side": ({"p.es": _MOSES[1]}, "p", ["p."]),
    "an empty side": ({"p.en": "\n" * 5, "p.es": _MOSES[1]}, "p", ["p"]),
    "empty sides": ({"p.en": "", "p.es": ""}, "p", ["p"]),
    "sides of another language": ({"p.en": _MOSES[1], "p.es": _MOSES[0]}, "p", ["p"]),
    "Latin-1": ({"p.en": _MOSES[0], "p.es": _MOSES[1].encode("latin-1")}, "p", ["p.es"]),
    "UTF-16": ({"p.en": _MOSES[0], "p.es": _MOSES[1].encode("utf-16")}, "p", ["p.es"]),
    "half a gzip": ({"p.en.gz": gzip.compress(_MOSES[0].encode() * 99)[:-9], "p.es": _MOSES[1]}, "p", ["p.en.gz"]),
    "one column": ({"p.tsv": "The river\n"}, "p.tsv", ["p.tsv:1"]),
    "empty TSV": ({"p.tsv": ""}, "p.tsv", ["p.tsv"]),
    "a head alone": ({"p.tsv": "en\tes\n"}, "p.tsv", ["p.tsv"]),
    "numbers": ({"p.tsv": "1\t2\n3\t4\n"}, "p.tsv", ["p.tsv"]),
    "the same twice": ({"p.tsv": "The river is here.\tThe river is here.\n" * 5}, "p.tsv", ["p.tsv"]),
    "other languages": (
        {"p.tsv": "Der Fluss ist klein und sehr kalt.\tLa rivière est petite et froide.\n" * 5},
        "p.tsv",
        ["p.tsv"],
    ),
    "Latin-1 TSV": ({"p.tsv": _TSV.encode("latin-1")}, "p.tsv", ["p.tsv"]),
    "UTF-16 TSV": ({"p.tsv": _TSV.encode("utf-16")}, "p.tsv", ["p.tsv"]),
    "half a gzip of TSV": ({"p.tsv.gz": gzip.compress(_TSV.encode() * 99)[:-9]}, "p.tsv.gz", ["p.tsv.gz"]),
    "broken XML": ({"p.tmx": "<tmx><body><tu>"}, "p.tmx", ["p.tmx"]),
    "no XML": ({"p.tmx": "The river"}, "p.tmx", ["p.tmx"]),
    "empty XML": ({"p.tmx": ""}, "p.tmx", ["p.tmx"]),
    "no such language": ({"p.tmx": _TMX.format("de", "fr") + "</body></tmx>"}, "p.tmx", ["p.tmx"]),
    "one language": ({"p.tmx": _TMX.format("en", "en") + "</body></tmx>"}, "p.tmx", ["p.tmx"]),
    "an end too early": ({"p.tmx": _TMX.format("en", "es")}, "p.tmx", ["p.tmx"]),
    "no pairs": ({"p.tmx": "<tmx><body></body></tmx>"}, "p.tmx", ["p.tmx"]),
    "entities": ({"p.tmx": '<!DOCTYPE t [<!ENTITY a "b">]>' + _TU}, "p.tmx", ["p.tmx"]),
    "entities of entities": (
        {"p.tmx": "<!DOCTYPE t [" + "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 9}">' for i in range(1, 9)) + "]>" + _TU},
        "p.tmx",
        ["p.tmx"],
    ),
    "a file from outside": (
        {"p.tmx": '<!DOCTYPE t [<!ENTITY a SYSTEM "file:///etc/hostname">]>' + _TU},
        "p.tmx",
        ["p.tmx"],
    ),
    "an unknown encoding": ({"p.tmx": '<?xml version="1.0" encoding="klingon"?>' + _TU}, "p.tmx", ["p.tmx"]),
    "broken JSON": ({"p.jsonl": '{"en": "a", '}, "p.jsonl", ["p.jsonl:1"]),
    "JSON of lists": ({"p.jsonl": '["a", "b"]\n'}, "p.jsonl", ["p.jsonl"]),
    "no such columns": (
        {"p.jsonl": '{"de": "Der Fluss ist klein und kalt.", "fr": "La rivière est petite."}\n'},
        "p.jsonl",
        ["p.jsonl"],
    ),
    "columns of numbers": ({"p.jsonl": '{"en": 1, "es": 2}\n'}, "p.jsonl", ["p.jsonl"]),
    "null columns": ({"p.jsonl": '{"en": null, "es": null}\n'}, "p.jsonl", ["p.jsonl"]),
    "empty JSON": ({"p.jsonl": ""}, "p.jsonl", ["p.jsonl"]),
    "a CSV with an open quote": ({"p.csv": 'en,es\n"a,b\n'}, "p.csv", ["p.csv:2"]),
    "a CSV of one column": ({"p.csv": "en\na\n"}, "p.csv", ["p.csv"]),
    "no Parquet": ({"p.parquet": "PAR1 not really"}, "p.parquet", ["p.parquet"]),
    "an empty folder": ({"p/nothing.txt": ""}, "p", ["p"]),
    "not there": ({}, "nothing", ["nothing"]),
    "not there TSV": ({}, "nothing.tsv", ["nothing.tsv"]),
}

DICTIONARIES: dict[str, tuple[str | None, bytes, list[str]]] = {
    "one column": ("d.txt", b"river\nsmall\n", ["d.txt:1"]),
    "empty": ("d.txt", b"", ["d.txt"]),
    "blank lines": ("d.txt", b"\n\n \n", ["d.txt"]),
    "Latin-1": ("d.tsv", b"river\tr\xedo\n", ["d.tsv"]),
    "UTF-16": ("d.tsv", "river\trío\n".encode("utf-16"), ["d.tsv"]),
    "noise": ("d.txt", random.Random(1).randbytes(500), ["d.txt"]),
    "half a gzip": ("d.txt.gz", gzip.compress(b"river r\n" * 999)[:-9], ["d.txt.gz"]),
    "a web page": ("d.tsv", b"<html>\n<body>\n</html>\n", ["d.tsv"]),
    "empty columns": ("d.tsv", b"\t\n\t\n", ["d.tsv"]),
    "sentences": ("d.tsv", b"the river is small and very cold\tel r\xc3\xado es\n" * 3, ["d.tsv"]),
    "the same words": ("d.tsv", b"river\triver\nsmall\tsmall\n", ["d.tsv"]),
    "not there": (None, b"", ["d.txt"]),
}


# --- Recipes

YAML: dict[str, tuple[bytes, list[str]]] = {
    "nothing": (b"", ["instructions is missing"]),
    "a remark": (b"# nothing\n", ["instructions is missing"]),
    "a list": (b"- a\n- b\n", ["key: value"]),
    "a text": (b"instructions\n", ["key: value"]),
    "a number": (b"3\n", ["key: value"]),
    "an open quote": (b'instructions: "in.jsonl\ntarget_lang: spa\n', ["not YAML"]),
    "an open bracket": (b"instructions: [in.jsonl\ntarget_lang: spa\n", ["not YAML"]),
    "a tab": (b"instructions: in.jsonl\n\ttarget_lang: spa\n", ["not YAML"]),
    "an indent too many": (b"instructions: in.jsonl\n  target_lang: spa\n", ["not YAML"]),
    "no blank": (b"instructions:in.jsonl\ntarget_lang:spa\n", []),
    "two documents": (b"instructions: in.jsonl\n---\ntarget_lang: spa\n", ["not YAML"]),
    "a key twice": (b"instructions: in.jsonl\ntarget_lang: spa\ntarget_lang: por\n", ["target_lang"]),
    "an anchor that is not there": (b"instructions: *a\n", ["not YAML"]),
    "an anchor within itself": (b"instructions: &a [*a]\ntarget_lang: spa\n", []),
    "a tag of Python": (b"instructions: !!python/object/apply:os.getcwd []\ntarget_lang: spa\n", ["not YAML"]),
    "Latin-1": ("name: año\n".encode("latin-1"), ["not UTF-8"]),
    "UTF-16": ("name: a\n".encode("utf-16"), ["not UTF-8"]),
    "NULs": (b"name: a\0b\n", ["not YAML"]),
    "noise": (random.Random(2).randbytes(300), []),
    "a reference to nothing": (b"instructions: ${nothing}\ntarget_lang: spa\n", ["instructions", "mend the ${...}"]),
    "a reference to itself": (b"instructions: ${instructions}\ntarget_lang: spa\n", []),
    "an open reference": (b"instructions: ${name\ntarget_lang: spa\n", []),
    "an unknown resolver": (b"instructions: ${oops:1}\ntarget_lang: spa\n", []),
    "an environment that is not there": (b"instructions: ${oc.env:NO_SUCH_VARIABLE}\ntarget_lang: spa\n", []),
    "a number for a key": (b"3: in.jsonl\ntarget_lang: spa\n", []),
    "null for a key": (b"null: in.jsonl\ntarget_lang: spa\n", []),
    "a list for a key": (b"? [a]\n: in.jsonl\ntarget_lang: spa\n", []),
    "a date": (b"instructions: 2024-01-01\ntarget_lang: spa\n", ["instructions"]),
    "NaN": (b"instructions: in.jsonl\ntarget_lang: spa\nquality: {threshold: .nan}\n", ["quality.threshold"]),
    "infinity": (
        b"instructions: in.jsonl\ntarget_lang: spa\nfilters: {max_length_ratio: -.inf}\n",
        ["max_length_ratio"],
    ),
    "no: Norwegian": (b"instructions: in.jsonl\ntarget_lang: no\n", ["target_lang"]),
    "a web page": (b"<!DOCTYPE html><html></html>", []),
}
OVERRIDES = {
    "no value": (["max_samples"], ["max_samples"]),
    "no key": (["=3"], ["=3"]),
    "an open bracket": (["systems=[sft"], ["systems=[sft"]),
    "an open brace": (["generator={model: a"], ["generator={model: a"]),
    "below a text": (["target_lang.a=3"], ["target_lang"]),
    "below a list": (["systems.a.b=3"], ["systems"]),
    "a dot too many": (["generator..model=a"], ["generator"]),
    "a reference to nothing": (["name=${nothing}"], ["name"]),
    "unknown language": (["target_lang=xxx"], ["target_lang", "'xxx'"]),
    "two letters": (["target_lang=es"], ["did you mean spa?"]),
    "the source": (["target_lang=eng"], ["target_lang", "source language"]),
    "a language twice": (["target_lang=[spa,spa]"], ["target_lang.1", "twice"]),
    "no language": (["target_lang=[]"], ["target_lang"]),
    "unknown pivot": (["translator.via=[xx]"], ["translator.via.0", "'xx'"]),
    "unknown key": (["quality.treshold=0.5"], ["quality.treshold", "threshold"]),
    "unknown system": (["systems=[sfd]"], ["systems.0", "sft"]),
    "a system twice": (["systems=[sft,sft]"], ["systems", "twice"]),
    "no system": (["systems=[]"], ["systems"]),
    "no source": (["instructions=[]"], ["instructions"]),
    "a number for a name": (["name=3"], ["name", "3"]),
    "a path for a name": (["name=a/b"], ["a/b"]),
    "the folder above": (["name=.."], ["name", ".."]),
    "a hidden name": (["name=.a"], ["name", ".a"]),
    "an option for a name": (["name=-a"], ["name", "-a"]),
    "a name of a page": ([f"name={'a' * 300}"], ["name"]),
    "no name": (["name=''"], ["name"]),
    "no such file": (["instructions=none.jsonl"], ["none.jsonl"]),
    "no such hub id": (["instructions=nobody/nothing-here"], ["nobody/nothing-here"]),
    "a folder": (["instructions=."], ["."]),
    "a device": (["instructions=/dev/null"], ["/dev/null"]),
    "columns not there": (["instructions={path: in.jsonl, columns: {instruction: prompt}}"], ["prompt"]),
    "another format": (["instructions={path: in.jsonl, format: sharegpt}"], ["sharegpt"]),
    "a file for a folder": (["dataset_dir=in.jsonl"], ["dataset_dir"]),
    "a file for a work folder": (["work_dir=in.jsonl/a"], ["work_dir"]),
    "a folder that may not be written": (["dataset_dir=/proc/none"], ["dataset_dir"]),
    "a folder with a NUL": (["dataset_dir='a\0b'"], ["dataset_dir"]),
    "a template's unknown slot": (["parallel.completion_prompt='Go on in {langue}.'"], ["completion_prompt"]),
    "a model that is not there": (["systems=[sdrrl]", "generator.model=models/none"], ["generator.model"]),
    "a server without an address": (["systems=[sdrrl]", "generator.backend=server"], ["generator.base_url"]),
}


# --- Servers: (status, content type, body), and whether the run ends with a line; otherwise each answer is counted.


def reply(text: Any, finish: Any = "stop", **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return json.dumps(
        {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    ).encode()


JSON, HTML = "application/json", "text/html"
SERVERS: dict[str, tuple[tuple[int, str, bytes], bool]] = {
    "429 forever": ((429, JSON, b'{"error": {"message": "slow down"}}'), True),
    "500 forever": ((500, "text/plain", b"oops"), True),
    "500 with a page": ((500, HTML, b"<html>Internal Server Error</html>"), True),
    "502": ((502, HTML, b"<html>Bad Gateway</html>"), True),
    "503": ((503, JSON, b'{"detail": "loading"}'), True),
    "504": ((504, "text/plain", b""), True),
    "408": ((408, "text/plain", b"timeout"), True),
    "401": ((401, JSON, b'{"error": {"message": "bad key"}}'), True),
    "403": ((403, JSON, b'{"error": {"message": "not yours"}}'), True),
    "404": ((404, JSON, b'{"error": {"message": "no such model"}}'), True),
    "404 with a page": ((404, HTML, b"<html>Not Found</html>"), True),
    "400": ((400, JSON, b'{"error": {"message": "too long"}}'), False),
    "400 without words": ((400, JSON, b""), False),
    "400 of a list": ((400, JSON, b'[{"error": {"message": "too long"}}]'), False),
    "400 that is a page": ((400, HTML, b"<html>Bad Request</html>"), False),
    "413": ((413, "text/plain", b"too large"), False),
    "422": ((422, JSON, b'{"detail": [{"loc": ["body", "messages"], "msg": "too long"}]}'), False),
    "a page": ((200, HTML, b"<html>Welcome</html>"), False),
    "nothing": ((200, JSON, b""), False),
    "nonsense": ((200, JSON, b'{"a": 1}'), False),
    "null": ((200, JSON, b"null"), False),
    "a list": ((200, JSON, b"[1, 2]"), False),
    "a text": ((200, JSON, b'"hello"'), False),
    "no choices": ((200, JSON, b'{"id": "1", "choices": []}'), False),
    "choices of null": ((200, JSON, b'{"id": "1", "choices": null}'), False),
    "choices of text": ((200, JSON, b'{"id": "1", "choices": "a"}'), False),
    "choices of numbers": ((200, JSON, b'{"id": "1", "choices": [1]}'), False),
    "a choice without a message": ((200, JSON, b'{"id": "1", "choices": [{"index": 0}]}'), False),
    "a message of text": ((200, JSON, b'{"id": "1", "choices": [{"message": "a"}]}'), False),
    "a message of null": ((200, JSON, b'{"id": "1", "choices": [{"message": null}]}'), False),
    "broken JSON": ((200, JSON, b'{"choices": [{'), False),
    "deep JSON": ((200, JSON, b"[" * 100_000), False),
    "noise": ((200, JSON, random.Random(3).randbytes(200)), False),
    "an empty answer": ((200, JSON, reply("")), False),
    "a blank answer": ((200, JSON, reply(" \n")), False),
    "an answer of null": ((200, JSON, reply(None)), False),
    "an answer of numbers": ((200, JSON, reply(3)), False),
    "an answer of an object": ((200, JSON, reply({"a": 1})), False),
    "half a surrogate": ((200, JSON, reply("a \ud83d b")), False),
    "cut off": ((200, JSON, reply("The Danube is", "length")), False),
    "withheld": ((200, JSON, reply("", "content_filter")), False),
    "refused": ((200, JSON, reply(None, "stop", refusal="I cannot do that.")), False),
    "a call": ((200, JSON, reply(None, "tool_calls", tool_calls=[])), False),
    "a thought alone": ((200, JSON, reply("<think>a river, hm")), False),
    "thoughts in their own field": ((200, JSON, reply("", "stop", reasoning_content="hm")), False),
    "a loop": ((200, JSON, reply("so it goes on " * 30)), False),
    "another language": ((200, JSON, reply("El río es pequeño y la casa es grande, como todos saben.")), False),
    "an error under 200": ((200, JSON, b'{"error": {"code": 400, "message": "too long"}}'), False),
    "429 under 200": ((200, JSON, b'{"error": {"code": 429, "message": "slow down"}}'), True),
    "an error of a choice": ((200, JSON, b'{"choices": [{"error": {"code": 502, "message": "gone"}}]}'), True),
    "a stream": ((200, "text/event-stream", b'data: {"choices": []}\n\ndata: [DONE]\n\n'), False),
}


# --- What is there already

REGISTERS = {
    "half an object": b'{"a": ',
    "a list": b"[]",
    "a text": b'"a"',
    "null": b"null",
    "a number": b"3",
    "prose": b"mine",
    "a remark": b"{} // mine",
    "a comma too many": b'{"a": {"file_name": "a.jsonl"},}',
    "Latin-1": b'{"a\xf1o": {}}',
    "UTF-16": "{}".encode("utf-16"),
    "noise": random.Random(4).randbytes(100),
    "a web page": b"<html></html>",
    "very deep": b"[" * 100_000,
}
