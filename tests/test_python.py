"""The Python interface, as a notebook uses it, on the tiny model."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sdrrl_factory
from sdrrl_factory import dry_run, evaluate, load_recipe, prepare
from sdrrl_factory.cli import main
from sdrrl_factory.errors import Mistakes, UserError
from sdrrl_factory.transfer.recipe import PrepareConfig
from tests.conftest import ROOT, write_rows

# No translator is needed: LL, mt, comp and the ground truth's set.
PREPARE = """\
instructions: in.jsonl
target_lang: spa
systems: [sdrrl, sft]
generator: {model: TINY, max_new_tokens: 8}
translator:
  backend: none
quality: {backend: none}
code_switch: {probability: 0}
parallel: {size: 12}
dataset_dir: data
work_dir: work
"""
EVAL = """\
model: TINY
output_dir: eval
tasks:
  - task: text_loss
    path: sentences
    langs: [spa, eng]
"""


SENTENCE = "El tren de la mañana llega a la estación del norte a las siete y media, cuando todavía hace frío."


@pytest.fixture
def folder(tiny, tmp_path, monkeypatch):
    """The current folder, with instructions, sentences and two recipes."""
    monkeypatch.chdir(tmp_path)
    rows = [{"instruction": f"Say {n}.", "input": "", "output": f"It is {n}."} for n in ("one", "two", "three")]
    write_rows(tmp_path / "in.jsonl", rows)
    (tmp_path / "sentences").mkdir()
    for code, text in {"spa_Latn": f"{SENTENCE}\nAdiós.\n", "eng_Latn": "Hello, friend.\nGoodbye.\n"}.items():
        (tmp_path / f"sentences/{code}.devtest").write_text(text, encoding="utf-8")
    (tmp_path / "prepare.yaml").write_text(PREPARE.replace("TINY", str(tiny)))
    (tmp_path / "eval.yaml").write_text(EVAL.replace("TINY", str(tiny)))
    return tmp_path


def test_prepare_writes_what_the_command_writes(folder):
    names = prepare("prepare.yaml", ["dataset_dir=data_of_python"])
    assert names == [f"sdrrl_spa_{subset}" for subset in ("ll", "mt", "comp", "sft")]
    assert main(["prepare", "prepare.yaml"]) == 0
    files = sorted(p.relative_to(folder / "data") for p in (folder / "data").rglob("*.json*"))
    assert len(files) > 4
    for file in files:
        assert (folder / "data" / file).read_bytes() == (folder / "data_of_python" / file).read_bytes(), file


def test_a_recipe_is_read_once_looked_at_and_used(folder):
    recipe = load_recipe("prepare.yaml", ["max_samples=2", "parallel.size=0"])
    assert isinstance(recipe.config, PrepareConfig) and recipe.config.max_samples == 2
    assert recipe.locate("translator.backend") == "prepare.yaml:6: translator.backend"
    assert recipe.locate("parallel.size") == "command line: parallel.size=0: parallel.size"
    assert dry_run(recipe)
    assert not (folder / "data").exists()
    prepare(recipe)
    assert len((folder / "data/sdrrl_spa/ll.jsonl").read_text().splitlines()) == 2
    with pytest.raises(UserError, match="give them to load_recipe"):
        prepare(recipe, ["max_samples=1"])


def test_evaluate_returns_the_results(folder):
    results = evaluate("eval.yaml", ["max_samples=2"])
    assert results == json.loads((folder / "eval/results.json").read_text())
    assert {score["target_lang"] for score in results["scores"]} == {"spa", "eng"}
    assert load_recipe("eval.yaml").config.tasks[0].langs == ["spa", "eng"]


def test_compare_is_the_commands(folder):
    for name in ("a", "b"):
        evaluate("eval.yaml", [f"output_dir={name}"])
    comparison = sdrrl_factory.compare(["a", "b"])
    assert {entry["system"] for entry in comparison.entries} == {"a", "b"}
    report = comparison.write()
    assert report == Path("b/report.html") and "<html" in (folder / report).read_text()


def test_check_overlap_returns_whether_there_is_any(folder):
    write_rows(folder / "train.jsonl", [{"instruction": "a", "input": "", "output": SENTENCE}])
    assert sdrrl_factory.check_overlap("eval.yaml", ["in.jsonl"]) == 0
    assert sdrrl_factory.check_overlap("eval.yaml", ["train.jsonl"]) == 1
    results = evaluate("eval.yaml", training_files=["train.jsonl"])
    assert results["parts"]["text_loss.spa"]["overlap"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["generator.model=./none"], "command line: generator.model=./none: generator.model: no checkpoint at ./none"),
        (["target_lang=xxx"], "command line: target_lang=xxx: target_lang: unknown language 'xxx'"),
        (["translator.via=[spa, xx]"], "command line: translator.via=[spa, xx]: translator.via.1: unknown language"),
    ],
)
def test_a_mistake_is_an_exception_with_its_place(folder, overrides, message):
    with pytest.raises(UserError) as err:
        prepare("prepare.yaml", overrides)
    assert str(err.value).startswith(message)
    assert err.value.fix


def test_a_mistake_in_the_file_has_its_line(folder):
    path = folder / "eval.yaml"
    path.write_text(path.read_text().replace("eng]", "xyz]"))
    with pytest.raises(UserError, match=r"^eval\.yaml:6: tasks\.0\.langs: unknown language 'xyz'"):
        evaluate("eval.yaml")


def test_all_mistakes_of_a_recipe_are_one_exception(folder):
    with pytest.raises(Mistakes) as err:
        load_recipe("prepare.yaml", ["sede=1", "shard_size=0"])
    assert [mistake.what for mistake in err.value.mistakes] == ["unknown key sede", "shard_size is 0"]


def test_another_kind_of_recipe_is_said_to_be_one(folder):
    for call, file, kind in ((prepare, "eval.yaml", "prepare"), (evaluate, "prepare.yaml", "eval")):
        for recipe in (file, load_recipe(file)):
            with pytest.raises(UserError, match=f"^{file}: no recipe for {kind}; "):
                call(recipe)
    assert main(["prepare", "eval.yaml"]) == 2
    train = load_recipe(str(ROOT / "yaml_recipes/train/demo_spa_sdrrl.yaml"), ["seed=7"])
    assert train.config["seed"] == 7 and train.config["stage"] == "sft"


def test_importing_the_package_imports_nothing_else():
    """The .pth imports it in every Python process."""
    code = "import sys; a = set(sys.modules); import sdrrl_factory; print(*(sys.modules.keys() - a))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"sdrrl_factory", "importlib", "importlib._abc", "typing", "warnings"}
    with pytest.raises(AttributeError, match="no attribute 'prepaer'"):
        sdrrl_factory.prepaer  # noqa: B018


def test_the_documentation_runs(folder, capsys):
    """Block after block, as one reads."""
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.DOTALL)
    for block in blocks:
        exec(block, names)
    printed = capsys.readouterr().out
    for comment in re.findall(r"^# (command line: .*)$", blocks[-1], re.MULTILINE):
        assert comment in printed.splitlines()
    assert "dataset: sdrrl_spa_ll," in printed and "generator.model | no checkpoint at models/none" in printed
    assert names["recipe"].locate("translator.backend") in blocks[1]
    assert {row[0] for row in names["rows"]} == {"base", "trained"}


def test_types_are_given_with_the_packages():
    assert (ROOT / "sdrrl_factory/py.typed").is_file() and (ROOT / "eval/sdrrl_eval/py.typed").is_file()
