import json
import multiprocessing
import os
from pathlib import Path

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.rows import read_rows
from sdrrl_factory.transfer.register import DataSets

ROWS = [{"id": "a", "instruction": "¿Qué?", "input": "", "output": "x\u2028y"}]
FOREIGN = {
    "alpaca": {"file_name": "alpaca.json", "file_sha1": "abc"},
    "demo_spa_sft2": {"hf_hub_url": "x/y", "columns": {"prompt": "p"}},
    "日本": {"file_name": "ñ.json", "num_samples": 1e5, "ranking": True, "tags": [1, None]},
    "demo_spanish_ll": {"file_name": "z"},
}


def register(
    folder: Path, name: str, target: str, subsets: dict[str, list[dict]], systems=("sdrrl",), system=False, **keys
):
    with DataSets(folder, name, target, list(systems), system, **keys) as sets:
        for subset, rows in subsets.items():
            for row in rows:
                sets.write(subset, row)
        return sets.register()


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"
    }


def test_subsets_are_written_and_named(tmp_path):
    names = register(tmp_path, "demo", "spa", {"LL": ROWS, "mt": ROWS * 2})
    assert names == ["demo_spa_ll", "demo_spa_mt"]
    columns = {"prompt": "instruction", "query": "input", "response": "output"}
    assert json.loads((tmp_path / "dataset_info.json").read_text(encoding="utf-8")) == {
        "demo_spa_ll": {"file_name": "demo_spa/ll.jsonl", "columns": columns, "sdrrl": {"subset": "LL", "weight": 1.0}},
        "demo_spa_mt": {"file_name": "demo_spa/mt.jsonl", "columns": columns, "sdrrl": {"subset": "mt", "weight": 1.0}},
    }
    assert [r.values for r in read_rows(tmp_path / "demo_spa" / "mt.jsonl")] == ROWS * 2


def test_foreign_entries_stay_as_they_were(tmp_path):
    info = tmp_path / "dataset_info.json"
    info.write_text(json.dumps(FOREIGN, ensure_ascii=False), encoding="utf-8")
    for _ in range(2):
        register(tmp_path, "demo", "spa", {"LL": ROWS, "TL": ROWS})
    after = json.loads(info.read_text(encoding="utf-8"))
    assert {k: v for k, v in after.items() if k in FOREIGN} == FOREIGN
    assert [k for k in after if k in FOREIGN] == list(FOREIGN)
    assert after.keys() - FOREIGN.keys() == {"demo_spa_ll", "demo_spa_tl"}
    assert "日本" in info.read_text(encoding="utf-8")


def test_registering_again_changes_no_byte(tmp_path):
    subsets = {"LL": ROWS, "TT": ROWS}
    register(tmp_path, "demo", "spa", subsets)
    before = files(tmp_path)
    register(tmp_path, "demo", "spa", subsets)
    assert files(tmp_path) == before


def test_an_empty_subset_has_no_entry_and_no_file(tmp_path):
    register(tmp_path, "demo", "spa", {"LL": ROWS, "TL": ROWS})
    subsets = {"LL": ROWS, "TL": [], "TT": []}
    assert register(tmp_path, "demo", "spa", subsets, overwrite=True) == ["demo_spa_ll"]
    assert files(tmp_path).keys() == {"dataset_info.json", "demo_spa/ll.jsonl"}
    assert json.loads((tmp_path / "dataset_info.json").read_text()).keys() == {"demo_spa_ll"}


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [('{"a": {},\n}', ":2", "not JSON"), ("[]", "", "a list instead of an object"), ('{"a"', ":1", "not JSON")],
)
def test_a_malformed_dataset_info_changes_nothing(tmp_path, text, place, said):
    register(tmp_path, "demo", "spa", {"LL": ROWS, "TL": ROWS})
    info = tmp_path / "dataset_info.json"
    info.write_text(text)
    before = files(tmp_path)
    with pytest.raises(UserError) as err:
        register(tmp_path, "demo", "spa", {"LL": ROWS * 2, "TL": [], "TT": ROWS})
    message = str(err.value)
    assert message.startswith(f"{info}{place}: ") and said in message and "\n" not in message
    assert files(tmp_path) == before


def test_a_failed_update_leaves_the_old_file(tmp_path, monkeypatch):
    register(tmp_path, "demo", "spa", {"LL": ROWS})
    info = tmp_path / "dataset_info.json"
    before, replace = info.read_bytes(), os.replace

    def fail(source, target):
        if Path(target) == info:
            raise OSError("No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError):
        register(tmp_path, "demo", "spa", {"LL": ROWS, "TL": ROWS})
    assert info.read_bytes() == before
    assert not list(tmp_path.rglob("*.part"))


def register_many(folder: str, start, who: str) -> None:
    start.wait(20)
    for i in range(20):
        register(Path(folder), f"{who}{i}", "spa", {"LL": ROWS})


def test_two_processes_lose_no_entry(tmp_path):
    (tmp_path / "dataset_info.json").write_text(json.dumps(FOREIGN))
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    workers = [context.Process(target=register_many, args=(str(tmp_path), start, who)) for who in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0]
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert info.keys() == FOREIGN.keys() | {f"{who}{i}_spa_ll" for who in "ab" for i in range(20)}


def test_baselines_have_no_weights_and_leave_the_six_alone(tmp_path):
    register(tmp_path, "demo", "spa", {"LL": ROWS})
    assert register(tmp_path, "demo", "spa", {"cit": ROWS}, systems=["cit", "sft"]) == ["demo_spa_cit"]
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert list(info) == ["demo_spa_ll", "demo_spa_cit"]
    assert "sdrrl" in info["demo_spa_ll"] and "sdrrl" not in info["demo_spa_cit"]


def test_system_prompts_are_a_column_only_where_there_are_some(tmp_path):
    rows = [{**ROWS[0], "system": "Be brief."}]
    register(tmp_path, "a", "spa", {"LL": rows}, system=True)
    register(tmp_path, "b", "spa", {"LL": rows})
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert info["a_spa_ll"]["columns"]["system"] == "system" and "system" not in info["b_spa_ll"]["columns"]
    assert [r.values for r in read_rows(tmp_path / "a_spa/ll.jsonl")] == rows
    assert [r.values for r in read_rows(tmp_path / "b_spa/ll.jsonl")] == ROWS


def test_left_early_nothing_has_changed(tmp_path):
    register(tmp_path, "demo", "spa", {"LL": ROWS, "TL": ROWS})
    before = files(tmp_path)
    with pytest.raises(KeyboardInterrupt), DataSets(tmp_path, "demo", "spa", ["sdrrl"], False) as sets:
        sets.write("LL", {"id": "new"})
        raise KeyboardInterrupt
    assert files(tmp_path) == before


@pytest.mark.parametrize("moment", [0, 1])
def test_interrupted_while_files_are_replaced_no_entry_names_a_mixture(tmp_path, monkeypatch, moment):
    first = {subset: [ROWS[0] | {"subset": subset}] for subset in ("LL", "TL")}
    second = {subset: rows * 2 for subset, rows in first.items()}
    register(tmp_path, "demo", "spa", first)
    (tmp_path / "dataset_info.json").write_text(
        json.dumps(json.loads((tmp_path / "dataset_info.json").read_text()) | FOREIGN)
    )
    replace, moved = os.replace, []

    def killed(source, target):
        if str(target).endswith(".jsonl"):
            if len(moved) == moment:
                raise KeyboardInterrupt
            moved.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        register(tmp_path, "demo", "spa", second)
    assert json.loads((tmp_path / "dataset_info.json").read_text()) == FOREIGN
    monkeypatch.setattr(os, "replace", replace)
    assert register(tmp_path, "demo", "spa", second) == ["demo_spa_ll", "demo_spa_tl"]


def test_a_smaller_set_asks_before_it_takes_the_place_of_a_larger_one(tmp_path, capsys):
    register(tmp_path, "demo", "spa", {"LL": ROWS * 700, "TL": ROWS * 650})
    before = files(tmp_path)
    with pytest.raises(UserError) as err:
        register(tmp_path, "demo", "spa", {"LL": ROWS * 700, "TL": ROWS * 40})
    assert str(err.value) == (
        "overwrite: demo_spa is registered with more rows (tl 650 -> 40); set another name, or overwrite: true"
    )
    assert files(tmp_path) == before and "replaced" not in capsys.readouterr().out
    # Asked to, or with more rows, it does, and says both counts.
    register(tmp_path, "demo", "spa", {"LL": ROWS * 700, "TL": ROWS * 40}, overwrite=True)
    assert capsys.readouterr().out == "replaced  demo_spa: tl 650 -> 40 rows\n"
    register(tmp_path, "demo", "spa", {"LL": ROWS * 701, "TL": ROWS * 40})
    assert capsys.readouterr().out == "replaced  demo_spa: ll 700 -> 701 rows\n"
    register(tmp_path, "demo", "spa", {"LL": ROWS * 701, "TL": ROWS * 40})
    assert capsys.readouterr().out == ""
    # Another name, and other systems of the same, have nothing to replace.
    register(tmp_path, "trial", "spa", {"LL": ROWS})
    register(tmp_path, "demo", "spa", {"sft": ROWS}, systems=["sft"])
    assert len((tmp_path / "demo_spa/ll.jsonl").read_text(encoding="utf-8").split("\n")) == 702


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("demo_spa/ll.jsonl", '{"instruction": "mine"}\n', "is there already"),
        ("demo_spa/README.md", "# My notes\n", "is there already"),
        ("dataset_info.json", '{"demo_spa_tl": {"file_name": "mine.json"}}', "name: demo_spa_tl stands for another"),
        ("dataset_info.json", '{"demo_spa_tl": {"hf_hub_url": "org/mine"}}', "name: demo_spa_tl stands for another"),
    ],
)
def test_files_and_entries_of_others_stay(tmp_path, file, text, said):
    (tmp_path / "demo_spa").mkdir()
    (tmp_path / file).write_text(text)
    before = files(tmp_path)
    with pytest.raises(UserError, match=said) as err:
        register(tmp_path, "demo", "spa", {"LL": ROWS, "TL": ROWS})
    assert "another name" in str(err.value) and files(tmp_path) == before


def test_links_are_followed_and_modes_kept(tmp_path):
    data, disk = tmp_path / "data", tmp_path / "disk"
    (data / "demo_spa").mkdir(parents=True)
    disk.mkdir()
    (disk / "info.json").write_text(json.dumps(FOREIGN))
    (disk / "info.json").chmod(0o664)
    (data / "dataset_info.json").symlink_to("../disk/info.json")
    (data / "demo_spa/ll.jsonl").symlink_to("../../disk/large.jsonl")
    for count in (1, 2):
        register(data, "demo", "spa", {"LL": ROWS * count})
        assert (data / "dataset_info.json").is_symlink() and (data / "demo_spa/ll.jsonl").is_symlink()
        assert json.loads((disk / "info.json").read_text()).keys() == {*FOREIGN, "demo_spa_ll"}
        assert (disk / "info.json").stat().st_mode & 0o777 == 0o664
        assert [r.values for r in read_rows(disk / "large.jsonl")] == ROWS * count
        (disk / "large.jsonl").chmod(0o640)
    assert (disk / "large.jsonl").stat().st_mode & 0o777 == 0o640
    register(data, "demo", "spa", {"LL": ROWS * 3})
    assert (disk / "large.jsonl").stat().st_mode & 0o777 == 0o640


def test_entries_say_the_recipe(tmp_path):
    register(tmp_path, "demo", "spa", {"LL": ROWS, "sft": ROWS}, systems=["sdrrl", "sft"], recipe="prepare/demo_spa")
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert {name: entry["recipe"] for name, entry in info.items()} == {
        "demo_spa_ll": "prepare/demo_spa",
        "demo_spa_sft": "prepare/demo_spa",
    }
