"""A corpus of malformed inputs through `sdrrl prepare`: each ends in one line with status 2, or in a counted rejection.

The command's own `main` is called in this process; what it prints is what a user sees. Nothing may be half-registered.
"""

import gzip
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sdrrl_factory.cli import main
from sdrrl_factory.models import server
from tests.conftest import write_rows

needs_apertium = pytest.mark.skipif(
    shutil.which("apertium") is None, reason="needs Apertium: apt-get install apertium apertium-eng-spa"
)
GOOD = {"instruction": "Name a small river.", "input": "", "output": "The Test is a small river."}
LINE = json.dumps(GOOD).encode() + b"\n"
PAIRS = [(f"The river number {i} is small and cold.", f"El río número {i} es pequeño y frío.") for i in range(5)]


def prepare(folder: Path, *keys: str, systems: str = "sft") -> int:
    recipe = folder / "r.yaml"
    if not recipe.exists():
        recipe.write_text("instructions: in.jsonl\ntarget_lang: spa\nparallel: {size: 0}\n")
    where = [f"dataset_dir={folder}/data", f"work_dir={folder}/work", f"systems=[{systems}]"]
    return main(["prepare", str(recipe), *where, *keys])


def assert_one_line(folder: Path, capsys, status: int, said: list[str]) -> None:
    err = capsys.readouterr().err.strip()
    assert status == 2 and len(err.splitlines()) == 1 and err.startswith("sdrrl: "), err
    for part in said:
        assert part in err, err
    assert not (folder / "data/dataset_info.json").exists()
    assert not [p for p in folder.rglob("*.part")]
    assert not list(folder.glob("data/*/*.jsonl"))


# File name, its bytes, what the line must say.
FILES = {
    "latin-1": ("a.jsonl", LINE.replace(b"small", b"peque\xf1o"), ["a.jsonl", "UTF-8"]),
    "utf-16": ("a.json", "[{}]".encode("utf-16"), ["a.json", "UTF-8"]),
    "empty": ("a.jsonl", b"", ["a.jsonl", "no rows"]),
    "blank lines only": ("a.jsonl", b"\n \n\n", ["a.jsonl", "no rows"]),
    "empty list": ("a.json", b"[]", ["a.json", "no rows"]),
    "half a list": ("a.json", b"[" + LINE + b",", ["a.json"]),
    "an object": ("a.json", b'{"data": []}', ["a.json"]),
    "a number": ("a.jsonl", b"3\n", ["a.jsonl:1"]),
    "a list of texts": ("a.json", b'["a", "b"]', ["a.json", "row 1"]),
    "no answer column": ("a.jsonl", b'{"instruction": "a"}\n', ["a.jsonl"]),
    "foreign columns": ("a.jsonl", b'{"foo": "a", "bar": "b"}\n', ["a.jsonl", "columns"]),
    "a list for text": ("a.jsonl", b'{"instruction": ["a"], "output": "b"}\n', ["a.jsonl:1"]),
    "half a surrogate": ("a.jsonl", b'{"instruction": "\\ud83d", "output": "b"}\n', ["a.jsonl:1", "surrogate"]),
    "html": ("a.jsonl", b"<!DOCTYPE html><html></html>\n", ["a.jsonl", "web page"]),
    "html for a list": ("a.json", b"<html>Too many requests</html>", ["a.json"]),
    "truncated gzip": ("a.jsonl.gz", gzip.compress(LINE * 500)[:-20], ["a.jsonl.gz"]),
    "parquet that is none": ("a.parquet", b"PAR1 not really", ["a.parquet"]),
    "an empty parquet": ("a.parquet", b"", ["a.parquet"]),
    "csv with one column": ("a.csv", b"instruction\na\n", ["a.csv"]),
    "csv without a head": ("a.csv", b"Say a.,a\n", ["a.csv"]),
    "empty csv": ("a.csv", b"", ["a.csv"]),
    "an unknown suffix": ("a.docx", b"PK", ["a.docx"]),
    "conversations of texts": ("a.jsonl", b'{"conversations": ["hi", "ho"]}\n', ["a.jsonl"]),
    "held out only": ("a.jsonl", b'{"held_out": true, ' + LINE[1:], ["a.jsonl", "held out"]),
    "blank answers only": ("a.jsonl", b'{"instruction": "a", "output": " "}\n', ["a.jsonl", "no answer"]),
    "deeply nested": ("a.jsonl", b'{"instruction": ' + b"[" * 5000 + b"]" * 5000 + b', "output": "b"}\n', ["a.jsonl"]),
}


@pytest.mark.parametrize("case", FILES)
def test_instructions(case, tmp_path, capsys):
    name, data, said = FILES[case]
    (tmp_path / name).write_bytes(data)
    assert_one_line(tmp_path, capsys, prepare(tmp_path, f"instructions={tmp_path}/{name}"), said)


# What is wrong with a row -> the row, and how it is counted.
ROWS = {
    "no instruction": ({**GOOD, "instruction": ""}, "1 no instruction"),
    "null answer": ({**GOOD, "output": None}, "1 no answer"),
    "the same again": (GOOD, "1 duplicate"),
    "nearly the same": ({**GOOD, "instruction": "name a SMALL river"}, "1 near duplicate"),
    "NUL": ({**GOOD, "output": "a\0b"}, "1 NUL character"),
    "held out": ({**GOOD, "held_out": True, "instruction": "Other?"}, "1 held out"),
    "a list for text": ({**GOOD, "output": ["a"]}, "1 'output' is list"),
    "no object": (["a"], "1 list instead of an object"),
    "a picture": ({**GOOD, "images": ["a.png"]}, "1 with images"),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_left_out_are_counted(case, tmp_path, capsys):
    row, counted = ROWS[case]
    write_rows(tmp_path / "a.jsonl", [GOOD, row])
    assert prepare(tmp_path, f"instructions={tmp_path}/a.jsonl") == 0
    assert counted in capsys.readouterr().out
    assert len((tmp_path / "data/sdrrl_spa/sft.jsonl").read_text().splitlines()) == 1


STRANGE = {
    "a byte order mark": b"\xef\xbb\xbf" + LINE,
    "a huge line": LINE.replace(b"river.", b"river. " + b"water " * 400_000),
    "line separators": LINE.replace(b"small", "sm\u2028all\u0085".encode()),
    "windows line ends": LINE.replace(b"\n", b"\r\n") * 1,
    "no line end": LINE.rstrip(),
    "a list in .jsonl": b"[" + LINE.rstrip() + b"]",
}


@pytest.mark.parametrize("case", STRANGE)
def test_strange_but_readable(case, tmp_path, capsys):
    (tmp_path / "a.jsonl").write_bytes(STRANGE[case])
    assert prepare(tmp_path, f"instructions={tmp_path}/a.jsonl") == 0, capsys.readouterr().err
    (line,) = (tmp_path / "data/sdrrl_spa/sft.jsonl").read_bytes().splitlines()
    assert json.loads(line)["output"].startswith("The Test")


KEYS = {
    "unknown language": (["target_lang=xxx"], ["target_lang", "'xxx'"]),
    "two letters": (["target_lang=es"], ["did you mean spa?"]),
    "unknown pivot": (["translator.via=[xx]"], ["translator.via.0", "'xx'"]),
    "unknown key": (["quality.treshold=0.5"], ["quality.treshold", "threshold"]),
    "unknown system": (["systems=[sfd]"], ["systems.0", "sft"]),
    "a number for a name": (["name=3"], ["name", "3"]),
    "a path for a name": (["name=a/b"], ["a/b"]),
    "no such file": (["instructions=none.jsonl"], ["none.jsonl"]),
    "no such hub id": (["instructions=nobody/nothing-here"], ["nobody/nothing-here"]),
    "columns not there": (["instructions={path: in.jsonl, columns: {instruction: prompt}}"], ["prompt"]),
    "negative size": (["shard_size=0"], ["shard_size"]),
    "threshold over one": (["quality.threshold=1.5"], ["quality.threshold"]),
    "a folder": (["instructions=."], ["."]),
}


@pytest.mark.parametrize("case", KEYS)
def test_recipe(case, tmp_path, capsys, monkeypatch):
    keys, said = KEYS[case]
    write_rows(tmp_path / "in.jsonl", [GOOD])
    monkeypatch.chdir(tmp_path)
    assert_one_line(tmp_path, capsys, prepare(tmp_path, *keys), said)


DICTIONARIES = {
    "one column": ("d.txt", b"river\nsmall\n", ["d.txt:1"]),
    "empty": ("d.txt", b"", ["d.txt"]),
    "latin-1": ("d.tsv", b"river\tr\xedo\n", ["d.tsv"]),
    "truncated gzip": ("d.txt.gz", gzip.compress(b"river r\n" * 999)[:-9], ["d.txt.gz"]),
    "not there": (None, b"", ["d.txt"]),
}


@needs_apertium
@pytest.mark.parametrize("case", DICTIONARIES)
def test_dictionary(case, tmp_path, capsys):
    name, data, said = DICTIONARIES[case]
    write_rows(tmp_path / "in.jsonl", [GOOD])
    if name:
        (tmp_path / name).write_bytes(data)
    keys = [f"instructions={tmp_path}/in.jsonl", f"code_switch.dictionary={tmp_path}/{name or 'd.txt'}"]
    assert_one_line(tmp_path, capsys, prepare(tmp_path, *keys, systems="xcot"), said)


MOSES = ["\n".join(side) + "\n" for side in zip(*PAIRS, strict=True)]
TU = '<tmx><body><tu><tuv xml:lang="en"><seg>&a;</seg></tuv></tu></body></tmx>'
ENTITY = '<!DOCTYPE t [<!ENTITY a "b">]>' + TU
CORPORA = {
    "unequal lines": ({"p.en": MOSES[0], "p.es": MOSES[1] + "Una más.\n"}, "p", ["5", "6"]),
    "one side": ({"p.en": MOSES[0]}, "p", ["p."]),
    "an empty side": ({"p.en": "\n" * 5, "p.es": MOSES[1]}, "p", ["p"]),
    "latin-1": ({"p.en": MOSES[0], "p.es": MOSES[1].encode("latin-1")}, "p", ["p.es"]),
    "one column": ({"p.tsv": "The river\n"}, "p.tsv", ["p.tsv:1"]),
    "empty tsv": ({"p.tsv": ""}, "p.tsv", ["p.tsv"]),
    "broken xml": ({"p.tmx": "<tmx><body><tu>"}, "p.tmx", ["p.tmx"]),
    "no such language": (
        {"p.tmx": '<tmx><body><tu><tuv xml:lang="de"><seg>a</seg></tuv></tu></body></tmx>'},
        "p.tmx",
        ["p.tmx"],
    ),
    "entities": ({"p.tmx": ENTITY}, "p.tmx", ["p.tmx"]),
    "a truncated gzip": ({"p.tsv.gz": gzip.compress(b"a b\tc d\n" * 999)[:-9]}, "p.tsv.gz", ["p.tsv.gz"]),
    "not there": ({}, "nothing", ["nothing"]),
    "a template's unknown slot": ({}, "gettext", ["completion_prompt"]),
}


@needs_apertium
@pytest.mark.parametrize("case", CORPORA)
def test_parallel_corpus(case, tmp_path, capsys):
    files, name, said = CORPORA[case]
    write_rows(tmp_path / "in.jsonl", [GOOD])
    for file, data in files.items():
        (tmp_path / file).write_bytes(data if isinstance(data, bytes) else data.encode())
    source = name if name == "gettext" else f"{tmp_path}/{name}"
    keys = [f"instructions={tmp_path}/in.jsonl", f"parallel.source={source}", "parallel.size=5"]
    keys += ["parallel.completion_prompt='Go on in {langue}.'"] if name == "gettext" else []
    status = prepare(tmp_path, *keys, "code_switch.probability=0", systems="sdrrl")
    assert_one_line(tmp_path, capsys, status, said)


def reply(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps(
        {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    ).encode()


@pytest.fixture
def serve():
    """Serve one answer to every request: (status, content type, body, bytes of it to send); returns the base URL."""
    servers = []

    def start(status: int, kind: str, body: bytes, sent: int | None = None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:sent])

            def log_message(self, *a):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/v1"

    yield start
    for s in servers:
        s.shutdown()
        s.server_close()


JSON = "application/json"
# What the server says -> whether the whole run ends; otherwise each answer is rejected and counted.
SERVERS = {
    "429 forever": ((429, JSON, b'{"error": {"message": "slow down"}}'), True),
    "500 forever": ((500, "text/plain", b"oops"), True),
    "401": ((401, JSON, b'{"error": {"message": "bad key"}}'), True),
    "404": ((404, JSON, b'{"error": {"message": "no such model"}}'), True),
    "400": ((400, JSON, b'{"error": {"message": "too long"}}'), False),
    "html": ((200, "text/html", b"<html>Welcome</html>"), False),
    "nonsense": ((200, JSON, b'{"a": 1}'), False),
    "no choices": ((200, JSON, b'{"id": "1", "choices": []}'), False),
    "broken json": ((200, JSON, b'{"choices": [{'), False),
    "an empty answer": ((200, JSON, reply("")), False),
}


@needs_apertium
@pytest.mark.parametrize("case", SERVERS)
def test_server(case, tmp_path, capsys, serve, monkeypatch):
    monkeypatch.setattr(server, "FIRST_WAIT", 0.01)
    (status, kind, body), ends = SERVERS[case]
    write_rows(tmp_path / "in.jsonl", [GOOD])
    url = serve(status, kind, body)
    keys = [f"instructions={tmp_path}/in.jsonl", "sampling.keep_ground_truth=0", "code_switch.probability=0"]
    keys += ["generator.backend=server", f"generator.base_url={url}", "generator.model=m", "generator.retries=2"]
    done = prepare(tmp_path, *keys, "generator.timeout=5", systems="sdrrl")
    if ends:
        assert_one_line(tmp_path, capsys, done, ["generator", "127.0.0.1"])
        return
    printed = capsys.readouterr()
    assert done == 0, printed.err
    assert "given up for the ground truth: 1 " in printed.out
    (line,) = (tmp_path / "data/sdrrl_spa/ll.jsonl").read_text().splitlines()
    assert json.loads(line)["output"] == GOOD["output"]


def test_no_server_at_all(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(server, "FIRST_WAIT", 0.01)
    write_rows(tmp_path / "in.jsonl", [GOOD])
    keys = [f"instructions={tmp_path}/in.jsonl", "sampling.keep_ground_truth=0", "code_switch.probability=0"]
    keys += ["generator.backend=server", "generator.base_url=http://127.0.0.1:9/v1", "generator.model=m"]
    assert_one_line(tmp_path, capsys, prepare(tmp_path, *keys, "generator.retries=1", systems="sdrrl"), ["127.0.0.1:9"])


def test_a_broken_dataset_info_stops_at_once(tmp_path, capsys):
    write_rows(tmp_path / "in.jsonl", [GOOD])
    (tmp_path / "data").mkdir()
    (tmp_path / "data/dataset_info.json").write_text('{"a": ')
    assert prepare(tmp_path, f"instructions={tmp_path}/in.jsonl") == 2
    assert "dataset_info.json:1" in capsys.readouterr().err
    assert (tmp_path / "data/dataset_info.json").read_text() == '{"a": '
    assert not (tmp_path / "work").exists()
