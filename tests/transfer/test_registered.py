"""`sdrrl sets` and `sdrrl sets rm`, on folders as `sdrrl prepare` leaves them."""

import json
import os
from pathlib import Path

import pytest

from sdrrl_factory import cli
from sdrrl_factory.files import write_jsonl
from sdrrl_factory.transfer.register import DataSets

FOREIGN = {"alpaca": {"file_name": "alpaca.json"}, "mine_ll": {"file_name": "elsewhere/ll.jsonl"}}


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """A folder `data` below the current one, with two targets' sets, a foreign set, and foreign files."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "dataset_info.json").write_text(json.dumps(FOREIGN))
    (folder / "alpaca.json").write_text("[]")
    for target, count in [("spa", 3), ("por", 1)]:
        with DataSets(folder, "demo", target, ["sdrrl", "sft"], False, recipe="prepare/demo_spa") as sets:
            for subset in ("LL", "TL", "sft"):
                for i in range(count):
                    sets.write(subset, {"id": str(i), "subset": subset, "output": "yes"})
            sets.register()
        (folder / f"demo_{target}/README.md").write_text("---\n---\n\nMade by `sdrrl prepare`.\n")
        os.utime(folder / f"demo_{target}/ll.jsonl", (1_700_000_000, 1_700_000_000))
    return folder


def sdrrl(capsys, *arguments: str) -> tuple[int, str, str]:
    status = cli.main([*arguments])
    out, err = capsys.readouterr()
    return status, out, err


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"
    }


def names(data: Path) -> list[str]:
    return list(json.loads((data / "dataset_info.json").read_text()))


def test_sets_are_listed_with_rows_time_and_recipe(data, capsys):
    status, out, _ = sdrrl(capsys, "sets")
    lines = [line.split() for line in out.splitlines()]
    assert status == 0 and [line[0] for line in lines] == [n for n in names(data) if n not in FOREIGN]
    assert [line[1:3] for line in lines] == [["3", "rows"]] * 3 + [["1", "rows"]] * 3
    assert {line[-1] for line in lines} == {"prepare/demo_spa"}
    assert lines[0][3] in ("2023-11-14", "2023-11-15")  # 1,700,000,000 s after 1970, in any time zone
    (data / "demo_spa/tl.jsonl").unlink()
    assert "demo_spa_tl   no file data/demo_spa/tl.jsonl" in sdrrl(capsys, "sets")[1]
    assert sdrrl(capsys, "sets", "--dataset_dir", str(data))[1].count("\n") == 6


def test_where_there_are_none_it_says_where_it_looked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sdrrl(capsys, "sets")[1] == (
        f"no data sets of `sdrrl prepare` in data/dataset_info.json (looked in {tmp_path})\n"
    )
    status, _, err = sdrrl(capsys, "sets", "rm", "demo_spa")
    assert status == 2 and err.count("\n") == 1 and "data: no such folder" in err and not os.listdir(tmp_path)


def test_a_folder_of_sets_goes_whole(data, capsys):
    before = everything(data)
    status, out, _ = sdrrl(capsys, "sets", "rm", "demo_spa")
    assert status == 0 and "removed: demo_spa_ll\n" in out and "removed: data/demo_spa/\n" in out
    kept = {path: raw for path, raw in before.items() if not path.startswith("demo_spa/")}
    assert not (data / "demo_spa").exists() and everything(data).keys() == kept.keys()
    assert names(data) == [*FOREIGN, "demo_por_ll", "demo_por_tl", "demo_por_sft"]
    after = everything(data)
    assert all(after[path] == raw for path, raw in kept.items() if path != "dataset_info.json")


def test_one_set_goes_and_the_others_and_the_card_stay(data, capsys):
    assert sdrrl(capsys, "sets", "--dataset_dir", str(data), "rm", "demo_spa_tl")[0] == 0
    assert sorted(os.listdir(data / "demo_spa")) == ["README.md", "ll.jsonl", "sft.jsonl"]
    assert "demo_spa_tl" not in names(data) and "demo_spa_ll" in names(data)


@pytest.mark.parametrize("name", ["alpaca", "mine_ll", "mine", "demo_sap", "..", "../data/demo_spa", ".", ""])
def test_what_is_not_ours_is_not_removed(data, capsys, name):
    before = everything(data.parent)
    status, _, err = sdrrl(capsys, "sets", "rm", name)
    assert status == 2 and err.count("\n") == 1 and everything(data.parent) == before
    assert "did you mean demo_spa?" in err or name != "demo_sap"


def test_files_of_others_in_the_folder_stay(data, capsys):
    (data / "demo_spa/notes.txt").write_text("mine")
    (data / "demo_spa/tsft.jsonl").write_text('{"instruction": "mine"}\n')
    assert sdrrl(capsys, "sets", "rm", "demo_spa")[0] == 0
    assert sorted(os.listdir(data / "demo_spa")) == ["notes.txt", "tsft.jsonl"]
    (data / "demo_por/ll.jsonl").write_text('{"instruction": "mine"}\n')
    before = everything(data)
    status, _, err = sdrrl(capsys, "sets", "rm", "demo_por")
    assert status == 2 and "ll.jsonl: is there already, written by something else" in err and everything(data) == before


def test_killed_between_the_entries_and_the_files_the_same_command_ends_it(data, capsys, monkeypatch):
    unlink = Path.unlink

    def killed(path, *a, **k):
        if path.name == "tl.jsonl":
            raise KeyboardInterrupt
        unlink(path, *a, **k)

    monkeypatch.setattr(Path, "unlink", killed)
    assert sdrrl(capsys, "sets", "rm", "demo_spa")[0] == 130
    assert not [n for n in names(data) if n.startswith("demo_spa")] and (data / "demo_spa/tl.jsonl").exists()
    monkeypatch.undo()
    monkeypatch.chdir(data.parent)
    assert sdrrl(capsys, "sets", "rm", "demo_spa")[0] == 0
    assert not (data / "demo_spa").exists()


def test_a_linked_dataset_info_stays_a_link(data, capsys):
    (data / "dataset_info.json").rename(data.parent / "info.json")
    (data / "dataset_info.json").symlink_to("../info.json")
    write_jsonl(data / "demo_por/tl.jsonl", [{"id": "0", "subset": "TL"}])
    assert sdrrl(capsys, "sets", "rm", "demo_por")[0] == 0
    assert (data / "dataset_info.json").is_symlink() and "demo_por_ll" not in names(data)
