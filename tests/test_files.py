import errno
import json
import os
import re

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import atomic_write, read_text, refuse_foreign, sha256, sha256_file, write_jsonl
from sdrrl_factory.rows import read_rows


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupted(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("raised", [full, interrupted])
@pytest.mark.parametrize("call", ["replace", "fsync", "chmod"])
def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path, monkeypatch, call, raised):
    path = tmp_path / "a.jsonl"
    path.write_text("old")
    monkeypatch.setattr(os, call, raised)
    with pytest.raises((OSError, KeyboardInterrupt)):
        atomic_write(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_a_row_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("old")

    def rows():
        yield {"id": 1}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_jsonl(path, rows())
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.jsonl"]


def test_atomic_write_makes_folders_and_is_readable_by_others(tmp_path):
    path = tmp_path / "x" / "y" / "a.txt"
    atomic_write(path, "é\n")
    atomic_write(path, b"\xff")
    assert path.read_bytes() == b"\xff"
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == ["a.txt"]


def test_jsonl_round_trip_keeps_every_character(tmp_path):
    rows = [{"z": "a\u2028b\u2029c\x85d", "a": "\r\n\t\0😀"}, {"שלום": None}]
    path = tmp_path / "a.jsonl"
    write_jsonl(path, rows)
    assert [row.values for row in read_rows(path)] == rows
    raw = path.read_bytes()
    assert raw.count(b"\n") == 2 and "\u2028".encode() in raw and "שלום".encode() in raw
    assert list(json.loads(raw.split(b"\n")[0])) == ["z", "a"]


def test_rows_number_lines_and_passes_over_blank_ones(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": 2}')
    assert list(read_rows(path)) == [(f"{path}:1", 1, {"a": 1}), (f"{path}:4", 4, {"a": 2})]


@pytest.mark.parametrize(
    ("line", "said"),
    [("{'a': 1}", "not JSON"), ("[1]", "list"), ('"text"', "str"), ("null", "null"), ('{"a": 1} x', "not JSON")],
)
def test_a_broken_row_names_file_and_line(tmp_path, line, said):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"a": "x\u2028y"}}\n\n{line}\n', encoding="utf-8")
    with pytest.raises(UserError, match=said) as err:
        list(read_rows(path))
    assert str(err.value).startswith(f"{path}:3: ") and "\n" not in str(err.value)


def test_read_text_says_what_is_wrong_with_the_file(tmp_path):
    (tmp_path / "latin").write_bytes("año".encode("latin-1"))
    for path, said in [(tmp_path / "none", "no such file"), (tmp_path, "folder"), (tmp_path / "latin", "byte 1")]:
        with pytest.raises(UserError, match=said) as err:
            read_text(path)
        assert str(err.value).startswith(f"{path}: ")


def test_sha256_of_file_and_text(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert sha256("abc") == sha256(b"abc") == sha256_file(tmp_path / "a") == known


def test_a_link_stays_a_link_and_a_replaced_file_keeps_its_mode(tmp_path):
    (tmp_path / "disk").mkdir()
    real, link = tmp_path / "disk" / "info.json", tmp_path / "info.json"
    real.write_text("old")
    real.chmod(0o660)
    link.symlink_to("disk/info.json")
    atomic_write(link, "new")
    assert link.is_symlink() and not real.is_symlink() and real.read_text() == "new"
    assert real.stat().st_mode & 0o7777 == 0o660
    # A link to a file that is not there yet makes it where the link leads.
    (tmp_path / "later").symlink_to("disk/later/a.json")
    atomic_write(tmp_path / "later", "x")
    assert (tmp_path / "later").is_symlink() and (tmp_path / "disk/later/a.json").read_text() == "x"
    assert sorted(os.listdir(tmp_path / "disk")) == ["info.json", "later"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        atomic_write(pipe, "text")
        assert os.read(reader, 10) == b"text" and pipe.is_fifo()
    finally:
        os.close(reader)


def test_what_another_program_wrote_stands_in_the_way(tmp_path):
    path = tmp_path / "README.md"
    refuse_foreign(path, "ours")
    path.write_text("")
    refuse_foreign(path, "ours")
    path.write_text("by ours\n")
    refuse_foreign(path, "theirs", "ours")
    path.write_text("my notes" + " " * 4096 + "ours")
    with pytest.raises(UserError) as err:
        refuse_foreign(path, "ours")
    assert str(err.value).startswith(f"{path}: is there already") and "another name" in str(err.value)
    with pytest.raises(UserError, match="it is a folder"):
        refuse_foreign(tmp_path, "ours")


def test_a_relative_path_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(f"data/a.jsonl: no such file (looked in {tmp_path}); check")):
        read_text("data/a.jsonl")
    with pytest.raises(UserError, match="no such file; check"):
        read_text(tmp_path / "a.jsonl")
