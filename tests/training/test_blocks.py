"""The sdrrl blocks of dataset_info.json: what is read out of them, and every mistake is one line with its place."""

import json
from types import SimpleNamespace

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.training.blocks import Block, read_blocks


def read(folder, info, dataset=None, eval_dataset=None):
    (folder / "dataset_info.json").write_text(json.dumps(info))
    names = list(info) if dataset is None and isinstance(info, dict) else dataset
    return read_blocks(SimpleNamespace(dataset=names, eval_dataset=eval_dataset, dataset_dir=str(folder)))


def entry(block) -> dict:
    return {"file_name": "x.jsonl", "sdrrl": block}


def test_names_are_stripped_and_a_set_named_twice_counts_once(tmp_path):
    info = {"a": entry({"subset": " TL\t"}), "b": entry({"subset": "TL", "weight": 2}), "c": {"file_name": "y"}}
    training, evaluation = read(tmp_path, info, ["a", "b", "a", "c"], ["b"])
    assert training == {"a": Block("TL", 1.0), "b": Block("TL", 2.0), "c": None}
    assert list(training) == ["a", "b", "c"] and evaluation == {"b": Block("TL", 2.0)}


@pytest.mark.parametrize("weight", [0, 1e-6, 0.5, 1, 1e6])
def test_weights_that_float32_can_hold(weight, tmp_path):
    assert read(tmp_path, {"a": entry({"subset": "TL", "weight": weight})})[0]["a"] == Block("TL", float(weight))


WRONG = [
    ({"subset": "T", "wieght": 3.0}, 'unknown key "wieght" in "sdrrl"; did you mean "weight"?'),
    ({"Subset": "T"}, 'unknown key "Subset" in "sdrrl"; did you mean "subset"?'),
    ({"subset": "T", "note": "x"}, 'unknown key "note" in "sdrrl"; take it out'),
    ({"subset": "T", "": 1}, 'unknown key "" in "sdrrl"'),
    ("LL", "\"sdrrl\" is 'LL'; give it a subset"),
    (["LL", 1.0], "\"sdrrl\" is ['LL', 1.0]"),
    (True, '"sdrrl" is True'),
    (0, '"sdrrl" is 0'),
    ({}, "sdrrl.subset is None"),
    ({"weight": 1.0}, "sdrrl.subset is None"),
    ({"subset": ""}, "sdrrl.subset is ''"),
    ({"subset": "  "}, "sdrrl.subset is '  '"),
    ({"subset": "a\nb"}, "sdrrl.subset is 'a\\nb'"),
    ({"subset": 3}, "sdrrl.subset is 3"),
    ({"subset": ["TL"]}, "sdrrl.subset is ['TL']"),
    ({"subset": "T", "weight": "two"}, "sdrrl.weight is 'two'"),
    ({"subset": "T", "weight": None}, "sdrrl.weight is None"),
    ({"subset": "T", "weight": True}, "sdrrl.weight is True"),
    ({"subset": "T", "weight": -1}, "sdrrl.weight is -1"),
    ({"subset": "T", "weight": float("nan")}, "sdrrl.weight is nan"),
    ({"subset": "T", "weight": float("inf")}, "sdrrl.weight is inf"),
    ({"subset": "T", "weight": 1e39}, "sdrrl.weight is 1e+39"),
    ({"subset": "T", "weight": 10**400}, "sdrrl.weight is 1000"),
    ({"subset": "T", "weight": 1e-46}, "sdrrl.weight is 1e-46; use 0, or a number from 1e-06 to 1e+06"),
    ({"subset": "Other"}, 'sdrrl.subset is "Other", which is the subset of all sets without a block'),
]


@pytest.mark.parametrize(("block", "said"), WRONG, ids=[str(said) for _, said in WRONG])
@pytest.mark.parametrize("key", ["dataset", "eval_dataset"])
def test_a_mistake_in_a_block_stops_with_its_place(key, block, said, tmp_path):
    info = {"good": entry({"subset": "LL"}), "a": entry(block)}
    names = {"dataset": ["good"], "eval_dataset": ["good"]} | {key: ["good", "a"]}
    with pytest.raises(UserError) as stop:
        read(tmp_path, info, **names)
    line = str(stop.value)
    assert line.startswith(f"{tmp_path}/dataset_info.json: a: ") and said in line and "\n" not in line


@pytest.mark.parametrize(("one", "two"), [("TL", "tl"), ("Straße", "STRASSE"), ("TL", "ＴＬ")])
@pytest.mark.parametrize("where", ["training", "training and evaluation"])
def test_names_that_differ_only_in_case_stop(where, one, two, tmp_path):
    info = {"a": entry({"subset": one}), "b": entry({"subset": two})}
    names = (["a", "b"], None) if where == "training" else (["a"], ["b"])
    with pytest.raises(UserError, match=f'b: sdrrl.subset is "{two}", and that of a is "{one}": they differ only'):
        read(tmp_path, info, *names)


@pytest.mark.parametrize("key", ["sdrll", "SDRRL", "sddrl", " sdrrl"])
def test_a_block_under_a_misspelt_key_stops(key, tmp_path):
    with pytest.raises(UserError, match=f'a: unknown key "{key}"; did you mean "sdrrl"?'):
        read(tmp_path, {"a": {"file_name": "x", key: {"subset": "LL"}}})


def test_only_the_named_sets_are_looked_at(tmp_path):
    info = {"a": {"file_name": "x"}, "wrong": entry({"wieght": 1})}
    assert read(tmp_path, info, ["a"]) == ({"a": None}, {})


@pytest.mark.parametrize("info", [[], "x", {"a": None}, {"a": "x"}, {"a": entry(None)}, {"a": {"columns": {}}}])
def test_what_has_no_block_is_left_to_llamafactory(info, tmp_path):
    assert read(tmp_path, info, ["a"]) == ({"a": None}, {})
    (tmp_path / "dataset_info.json").write_text("{")
    there = SimpleNamespace(dataset=["a"], eval_dataset=None, dataset_dir=str(tmp_path))
    assert read_blocks(there) == ({"a": None}, {})
