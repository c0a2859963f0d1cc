"""The command line's own words: recipes by name, and one line for whatever is no command, option or override."""

import json
import os

import pytest

from sdrrl_factory import cli
from sdrrl_factory.recipe import load, read
from sdrrl_factory.shipped import recipes, shown_name
from sdrrl_factory.transfer.recipe import PrepareConfig
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["prepare", "prepare/demo_spa", "--max_samples", "5"],
            "prepare: no option --max_samples; a recipe's key is set without dashes: max_samples=5",
        ),
        (
            ["prepare", "prepare/demo_spa", "--max_samples=5"],
            "prepare: no option --max_samples; a recipe's key is set without dashes: max_samples=5",
        ),
        (
            ["eval", "eval/demo_spa", "--max_samples", "batch_size=2"],
            "eval: no option --max_samples; a recipe's key is set without dashes: max_samples=VALUE",
        ),
        (["prepare", "prepare/demo_spa", "-x"], "prepare: -x is not understood; see `sdrrl prepare -h`"),
        (["compare", "a", "b", "--nothing"], "compare: --nothing is not understood; see `sdrrl compare -h`"),
        (["compare", "a", "b", "--correct", "x"], "compare: argument --correct: invalid choice: 'x'"),
        (["prepare"], "prepare: the following arguments are required: recipe"),
        (
            ["recipes", "cp", "demo_spa"],
            "recipes cp: the following arguments are required: FILE; see `sdrrl recipes cp",
        ),
        ([], "the following arguments are required: COMMAND; see `sdrrl -h`"),
        (["prepair"], "argument COMMAND: invalid choice: 'prepair'"),
        (["prepare", "prepare/demo_spa", "max_samples", "5"], "command line: 'max_samples' is no override"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_one_line(arguments, message, capsys):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "usage" not in err
    assert err.startswith("sdrrl: ") and message in err


def test_a_recipe_s_name_does_what_its_path_does(tmp_path, monkeypatch):
    for folder in (ROOT, tmp_path):
        monkeypatch.chdir(folder)
        for name, path in recipes().items():
            for spelled in (name, f"yaml_recipes/{name}.yaml", f"{name}.yaml"):
                assert read(spelled).config == read(str(path)).config
    # Places in messages, and what is written of a recipe, are those of its file.
    monkeypatch.chdir(ROOT)
    assert load(PrepareConfig, "prepare/demo_spa").path == "yaml_recipes/prepare/demo_spa.yaml"
    monkeypatch.chdir(tmp_path)
    assert load(PrepareConfig, "prepare/demo_spa").path == str(ROOT / "yaml_recipes/prepare/demo_spa.yaml")


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prepare").mkdir()
    (tmp_path / "prepare/demo_spa").write_text("instructions: mine.jsonl\ntarget_lang: fin\n")
    assert read("prepare/demo_spa").config == {"instructions": "mine.jsonl", "target_lang": "fin"}


def test_recipes_are_called_by_name_or_by_the_path_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown_name(str(ROOT / "yaml_recipes/prepare/demo_spa.yaml")) == "prepare/demo_spa"
    assert shown_name(str(tmp_path / "mine/r.yaml")) == "mine/r.yaml" and shown_name("") == ""
    assert shown_name("../r.yaml") == str(tmp_path.parent / "r.yaml")


@pytest.mark.parametrize("command", ["prepare", "eval", "lr", "doctor"])
def test_a_recipe_that_is_not_there_says_where_it_was_looked_for(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, next_step in [("prepare/demo_sap", "did you mean prepare/demo_spa?"), ("my/own.yaml", "`sdrrl recipes`")]:
        assert cli.main([command, name]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and next_step in err
        assert err.startswith(f"sdrrl: {name}: no such file (looked in {tmp_path}), and no recipe of that name; ")
    # Several recipes of that name: which is meant is not guessed.
    assert cli.main([command, "demo_spa"]) == 2
    assert "prepare/demo_spa" in capsys.readouterr().err and os.listdir(tmp_path) == []


@pytest.mark.parametrize("where", ["there.yaml", "link.yaml"])
def test_recipes_cp_replaces_nothing(where, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.yaml").write_text("mine")
    (tmp_path / "link.yaml").symlink_to("gone.yaml")
    (tmp_path / "data/seeds").mkdir(parents=True)
    seeds = tmp_path / "data/seeds/english_instructions.jsonl"
    seeds.write_text(json.dumps({"instruction": "mine"}))
    assert cli.main(["recipes", "cp", "prepare/demo_spa", where]) == 2
    assert f"{where}: is there already" in capsys.readouterr().err and not os.path.exists("gone.yaml")
    assert cli.main(["recipes", "cp", "prepare/demo_spa", "new.yaml"]) == 0
    assert (tmp_path / "there.yaml").read_text() == "mine" and json.loads(seeds.read_text()) == {"instruction": "mine"}
