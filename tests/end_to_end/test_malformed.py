"""Malformed inputs through `sdrrl prepare`: each ends in one line with status 2, or in a counted rejection.

The command's own `main` is called in this process; what it prints is what a user sees. Nothing may be half-registered.
"""

import json
import random
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sdrrl_factory.cli import main
from sdrrl_factory.models import server
from sdrrl_factory.transfer.recipe import PrepareConfig
from tests.conftest import write_rows
from tests.end_to_end import malformed
from tests.end_to_end.malformed import GOOD, LINE

needs_apertium = pytest.mark.skipif(
    shutil.which("apertium") is None, reason="needs Apertium: apt-get install apertium apertium-eng-spa"
)


def prepare(folder: Path, *keys: str, systems: str = "sft") -> int:
    recipe = folder / "r.yaml"
    if not recipe.exists():
        recipe.write_text("instructions: in.jsonl\ntarget_lang: spa\nparallel: {size: 0}\n")
    return run(recipe, f"systems=[{systems}]", *keys)


def run(recipe: Path, *keys: str) -> int:
    folder = recipe.parent
    return main(["prepare", str(recipe), f"dataset_dir={folder}/data", f"work_dir={folder}/work", *keys])


def assert_one_line(folder: Path, capsys, status: int, said: list[str], lines: int = 1) -> None:
    err = capsys.readouterr().err.strip()
    assert status == 2 and len(err.splitlines()) == lines and err.startswith("sdrrl: "), err
    assert len(err) < 1000 and err.isprintable() or lines > 1, err
    for part in said:
        assert part in err, err
    assert_nothing_is_registered(folder)


def assert_nothing_is_registered(folder: Path) -> None:
    assert not (folder / "data/dataset_info.json").exists()
    assert not [p for p in folder.rglob("*.part")]
    assert not list(folder.glob("data/*/*.jsonl"))


def assert_counted(folder: Path, capsys, status: int, counted: str, kept: int = 1) -> None:
    printed = capsys.readouterr()
    assert status == 0, printed.err
    (line,) = [line for line in printed.out.splitlines() if line.startswith("left out on reading: ")]
    assert counted in line
    assert len((folder / "data/sdrrl_spa/sft.jsonl").read_text().splitlines()) == kept


def by_id(cases: Iterator[tuple] | list[tuple]) -> list:
    return [pytest.param(*rest, id=name) for name, *rest in cases]


# --- Bytes


@pytest.mark.parametrize(("name", "data", "said"), by_id(malformed.files()))
def test_a_file_with_nothing_usable_is_one_line(name, data, said, tmp_path, capsys):
    (tmp_path / name).write_bytes(data)
    assert_one_line(tmp_path, capsys, prepare(tmp_path, f"instructions={tmp_path}/{name}"), said)


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_lose_no_row_in_silence(seed, tmp_path, capsys):
    """Of twenty lines some have a byte of another value: each row is there, or counted, or the file is refused."""
    random_ = random.Random(seed)
    rows = [{"instruction": f"What is {i} plus {seed}?", "output": f"It is {i + seed}."} for i in range(20)]
    data = bytearray("".join(json.dumps(row) + "\n" for row in rows).encode())
    for _ in range(random_.randint(1, 6)):
        data[random_.randrange(len(data))] = random_.randrange(256)
    (tmp_path / "a.jsonl").write_bytes(data)
    status = prepare(tmp_path, f"instructions={tmp_path}/a.jsonl")
    printed = capsys.readouterr()
    if status == 2:
        assert printed.err.count("\n") == 1 and "a.jsonl" in printed.err
        assert_nothing_is_registered(tmp_path)
        return
    assert status == 0
    (line,) = [line for line in printed.out.splitlines() if line.startswith("left out on reading: ")]
    left_out = sum(map(int, re.findall(r"(?:: |, )(\d+) ", line)))
    lines = [line for line in bytes(data).split(b"\n") if line.strip()]
    assert len((tmp_path / "data/sdrrl_spa/sft.jsonl").read_text().splitlines()) + left_out == len(lines)


# --- Structures


@pytest.mark.parametrize(("line", "counted"), by_id(malformed.rows()))
def test_a_row_among_good_ones_is_counted(line, counted, tmp_path, capsys):
    (tmp_path / "a.jsonl").write_bytes(LINE + line + b"\n")
    assert_counted(tmp_path, capsys, prepare(tmp_path, f"instructions={tmp_path}/a.jsonl"), counted)


@pytest.mark.parametrize(("line", "counted"), malformed.TALKS.values(), ids=malformed.TALKS)
def test_a_conversation_among_good_ones_is_counted(line, counted, tmp_path, capsys):
    good = {"conversations": [{"from": "human", "value": "Say a."}, {"from": "gpt", "value": "a"}]}
    (tmp_path / "a.jsonl").write_bytes(json.dumps(good).encode() + b"\n" + line + b"\n")
    assert_counted(tmp_path, capsys, prepare(tmp_path, f"instructions={tmp_path}/a.jsonl"), counted)


@pytest.mark.parametrize(("line", "counted"), malformed.CELLS.values(), ids=malformed.CELLS)
def test_a_line_of_a_table_among_good_ones_is_counted(line, counted, tmp_path, capsys):
    (tmp_path / "a.csv").write_bytes(b"instruction,output\nSay a.,a\n" + line + b"\n")
    assert_counted(tmp_path, capsys, prepare(tmp_path, f"instructions={tmp_path}/a.csv"), counted)


# --- Sizes and spellings that are right


@pytest.mark.parametrize("data", malformed.STRANGE.values(), ids=malformed.STRANGE)
def test_strange_but_readable(data, tmp_path, capsys):
    (tmp_path / "a.jsonl").write_bytes(data)
    assert prepare(tmp_path, f"instructions={tmp_path}/a.jsonl") == 0, capsys.readouterr().err
    (line,) = (tmp_path / "data/sdrrl_spa/sft.jsonl").read_bytes().splitlines()
    assert json.loads(line)["output"].startswith("The Test")


# --- Recipes


@pytest.mark.parametrize(("text", "said"), malformed.YAML.values(), ids=malformed.YAML)
def test_a_recipe_that_is_none(text, said, tmp_path, capsys, monkeypatch):
    write_rows(tmp_path / "in.jsonl", [GOOD])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_bytes(text)
    status = run(tmp_path / "r.yaml", "systems=[sft]")
    err = capsys.readouterr().err
    # A line a mistake.
    assert status == 2 and err and all(line.startswith("sdrrl: ") for line in err.splitlines()), err
    assert all(part in err for part in said) and "Traceback" not in err
    assert_nothing_is_registered(tmp_path)


@pytest.mark.parametrize(("keys", "said"), malformed.OVERRIDES.values(), ids=malformed.OVERRIDES)
def test_a_key_that_is_wrong(keys, said, tmp_path, capsys, monkeypatch):
    write_rows(tmp_path / "in.jsonl", [GOOD])
    monkeypatch.chdir(tmp_path)
    assert_one_line(tmp_path, capsys, prepare(tmp_path, *keys), said)


def leaves(schema: dict[str, Any], node: dict[str, Any], key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(dotted key, its schema) of every key of the recipe that is no group."""
    for name, value in node["properties"].items():
        reference = value.get("$ref") or next((x["$ref"] for x in value.get("allOf", []) if "$ref" in x), None)
        if reference:
            yield from leaves(schema, schema["$defs"][reference.rpartition("/")[2]], f"{key}{name}.")
        else:
            yield f"{key}{name}", value


def wrong_values() -> Iterator[tuple[str, str]]:
    """For every key a value of another type, and where it has a bound, one beyond it."""
    schema = PrepareConfig.model_json_schema()
    for key, value in leaves(schema, schema):
        branches = value.get("anyOf", [value])
        types = {branch.get("type", "object" if "$ref" in branch else "string") for branch in branches}
        # A number is no text, and a list is neither.
        no_text = types <= {"integer", "number", "boolean", "array", "object", "null"}
        yield key, "nonsense" if no_text else "[1]" if "integer" in types else "3"
        for branch in branches:
            if "minimum" in branch:
                yield key, str(branch["minimum"] - 1)
            if "maximum" in branch:
                yield key, str(branch["maximum"] + 1)


@pytest.mark.parametrize(("key", "value"), wrong_values(), ids=str)
def test_a_value_of_another_type_or_beyond_its_bound(key, value, tmp_path, capsys, monkeypatch):
    write_rows(tmp_path / "in.jsonl", [GOOD])
    monkeypatch.chdir(tmp_path)
    assert_one_line(tmp_path, capsys, prepare(tmp_path, f"{key}={value}"), [f"command line: {key}={value}", key])


# --- Encodings


@needs_apertium
@pytest.mark.parametrize(("name", "data", "said"), malformed.DICTIONARIES.values(), ids=malformed.DICTIONARIES)
def test_dictionary(name, data, said, tmp_path, capsys):
    write_rows(tmp_path / "in.jsonl", [GOOD])
    if name:
        (tmp_path / name).write_bytes(data)
    keys = [f"instructions={tmp_path}/in.jsonl", f"code_switch.dictionary={tmp_path}/{name or 'd.txt'}"]
    assert_one_line(tmp_path, capsys, prepare(tmp_path, *keys, systems="xcot"), said)


@pytest.mark.parametrize(("files", "name", "said"), malformed.CORPORA.values(), ids=malformed.CORPORA)
def test_parallel_corpus(files, name, said, tmp_path, capsys):
    write_rows(tmp_path / "in.jsonl", [GOOD])
    for file, data in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(data if isinstance(data, bytes) else data.encode())
    keys = [f"instructions={tmp_path}/in.jsonl", f"parallel.source={tmp_path}/{name}", "parallel.size=5"]
    keys += ["translator.backend=none", "sampling.keep_ground_truth=1", "code_switch.probability=0"]
    assert_one_line(tmp_path, capsys, prepare(tmp_path, *keys, systems="sdrrl"), said)


# --- Servers


class Handler(BaseHTTPRequestHandler):
    """Gives the same answer to every request; `sent` of its bytes, and then the connection ends."""

    answer: tuple[int, str, bytes]
    sent: int | None

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, kind, body = self.answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.sent])

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def serve(monkeypatch):
    """Starts a server; returns its address."""
    monkeypatch.setattr(server, "FIRST_WAIT", 0.01)
    servers = []

    def start(status: int, kind: str, body: bytes, sent: int | None = None) -> str:
        handler = type("Answering", (Handler,), {"answer": (status, kind, body), "sent": sent})
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/v1"

    yield start
    for one in servers:
        one.shutdown()
        one.server_close()


def ask(folder: Path, url: str, *keys: str) -> int:
    write_rows(folder / "in.jsonl", [GOOD])
    source = [f"instructions={folder}/in.jsonl", "sampling.keep_ground_truth=0", "code_switch.probability=0"]
    source += ["generator.backend=server", f"generator.base_url={url}", "generator.model=m", "generator.retries=1"]
    return prepare(folder, *source, "translator.backend=none", "generator.timeout=2", *keys, systems="sdrrl")


def assert_given_up(folder: Path, capsys, status: int) -> None:
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert "given up for the ground truth: 1 " in printed.out
    (line,) = (folder / "data/sdrrl_spa/ll.jsonl").read_text().splitlines()
    assert json.loads(line)["output"] == GOOD["output"]


@pytest.mark.parametrize(("answer", "ends"), malformed.SERVERS.values(), ids=malformed.SERVERS)
def test_server(answer, ends, tmp_path, capsys, serve):
    status = ask(tmp_path, serve(*answer))
    if ends:
        assert_one_line(tmp_path, capsys, status, ["generator", "127.0.0.1"])
    else:
        assert_given_up(tmp_path, capsys, status)


@pytest.mark.parametrize("sent", [0, 1, 50])
def test_a_connection_that_breaks_off(sent, tmp_path, capsys, serve):
    status = ask(tmp_path, serve(200, malformed.JSON, malformed.reply("The Danube."), sent))
    assert_one_line(tmp_path, capsys, status, ["generator", "127.0.0.1", "connection broken"])


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:9",
        "ftp://127.0.0.1/v1",
        "http://",
        "http://127.0.0.1:99999/v1",
        "http://127.0.0.1:0/v1",
        "http://a b/v1",
    ]
    + ["http://me:secret@127.0.0.1:9/v1", "http://127.0.0.1:9/v1", "http://nothing.invalid/v1", "localhost", "''"],
)
def test_an_address_that_is_none_or_has_no_server(url, tmp_path, capsys, serve):
    assert_one_line(tmp_path, capsys, ask(tmp_path, url), ["generator.base_url"])


# --- What is there already


@pytest.mark.parametrize("data", malformed.REGISTERS.values(), ids=malformed.REGISTERS)
def test_a_broken_dataset_info_stops_at_once_and_stays_as_it_is(data, tmp_path, capsys):
    write_rows(tmp_path / "in.jsonl", [GOOD])
    (tmp_path / "data").mkdir()
    path = tmp_path / "data/dataset_info.json"
    path.write_bytes(data)
    assert prepare(tmp_path, f"instructions={tmp_path}/in.jsonl") == 2
    err = capsys.readouterr().err
    assert "dataset_info.json" in err and err.count("\n") == 1
    assert path.read_bytes() == data and not (tmp_path / "work").exists()


@pytest.mark.parametrize("data", [b"", b"mine", b"SQLite format 3\0" + b"\0" * 500, b"\0" * 4096], ids=str)
def test_a_memory_that_is_none(data, tmp_path, capsys):
    write_rows(tmp_path / "in.jsonl", [GOOD])
    (tmp_path / "memory.sqlite").write_bytes(data)
    status = prepare(tmp_path, f"instructions={tmp_path}/in.jsonl")
    if not data:  # SQLite takes an empty file for a new one
        assert status == 0
        return
    assert_one_line(tmp_path, capsys, status, ["memory.sqlite"])
    assert (tmp_path / "memory.sqlite").read_bytes() == data


def test_there_are_five_hundred_of_them(request):
    own = [item for item in request.session.items if item.path == Path(__file__)]
    assert len(own) > 500 or len(request.config.args) > 1 or "::" in "".join(request.config.args)
