"""Mistakes as a user makes them: one line on stderr, status 2, the place, the next step; nothing left half-done."""

import shutil

import pytest

from tests.conftest import ROOT, command

needs_apertium = pytest.mark.skipif(
    shutil.which("apertium") is None, reason="needs Apertium: apt-get install apertium apertium-eng-spa"
)
RECIPE = ROOT / "yaml_recipes/prepare/demo_spa.yaml"

PREPARE = [
    (["max_sampels=3"], ["max_sampels", "max_samples"]),
    (["generator.template=smol"], ["generator.model", "no checkpoint"]),
    (["instructions=none.jsonl"], ["none.jsonl", "no such file"]),
    (["target_lang=fin", "answer_language=none"], ["eng-fin", "apertium-"]),
    (["target_lang=xxx"], ["'xxx'", "known:"]),
    (["instructions={tmp}/broken.jsonl"], ["broken.jsonl:2", "not JSON"]),
    (["instructions={tmp}/empty.jsonl"], ["empty.jsonl", "no rows"]),
    (["instructions={tmp}/columns.jsonl"], ["columns.jsonl", "no known format", "columns:"]),
    (["instructions={tmp}/data.docx"], ["data.docx", ".jsonl"]),
]


@needs_apertium
@pytest.mark.parametrize("overrides, said", PREPARE, ids=lambda value: value[0] if isinstance(value, list) else None)
def test_prepare(overrides, said, tmp_path):
    # One bad row among good ones is left out and counted; a file with nothing usable stops.
    (tmp_path / "broken.jsonl").write_text('\n{"instruction": "Say no."\n')
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "columns.jsonl").write_text('{"instruction": "a", "remark": "b"}\n')
    (tmp_path / "data.docx").write_text("a")
    (tmp_path / "data").mkdir()
    keys = [f"generator.model={tmp_path}/none", f"dataset_dir={tmp_path}/data", f"work_dir={tmp_path}/work"]
    done = command("sdrrl", "prepare", RECIPE, *keys, *(o.format(tmp=tmp_path) for o in overrides), check=False)
    assert_one_line(done, said)
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["prepare", "none.yaml"], ["none.yaml", "no such file"]),
        (["eval", "none.yaml"], ["none.yaml", "no such file"]),
        (["eval", ROOT / "yaml_recipes/eval/demo_spa.yaml", "model=models/none"], ["models/none", "config.json"]),
        (["eval", ROOT / "yaml_recipes/eval/demo_spa.yaml", "tasks.0.langs=[xyz]"], ["xyz"]),
        (["compare", "none-a", "none-b"], ["none-a", "sdrrl eval"]),
    ],
    ids=str,
)
def test_other_commands(arguments, said):
    assert_one_line(command("sdrrl", *arguments, check=False), said)


def test_all_mistakes_of_a_recipe_are_told_at_once(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.read_text().replace("seed: 42", "sede: 42").replace("threshold: 0.4", "threshold: 4"))
    done = command("sdrrl", "prepare", path, "systems=[sdrl]", check=False)
    lines = {number: line for number, line in enumerate(path.read_text().splitlines(), 1)}
    at = {
        key: number for number, line in lines.items() for key in ("threshold", "sede") if line.strip().startswith(key)
    }
    assert done.returncode == 2 and done.stderr.splitlines() == [
        f"sdrrl: {path}:{at['threshold']}: quality.threshold is 4; it must be at least 0.0 and at most 1.0",
        f"sdrrl: {path}:{at['sede']}: unknown key sede; did you mean seed?",
        "sdrrl: command line: systems=[sdrl]: systems.0 is 'sdrl'; it must be sdrrl | sft | tsft | cit | xcot "
        "(did you mean sdrrl?)",
    ]


def test_a_mistake_that_is_found_later_has_its_line_too(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.read_text().replace("target_lang: spa", "target_lang: xxx"))
    done = command("sdrrl", "prepare", path, check=False)
    number = path.read_text().splitlines().index("target_lang: xxx") + 1
    assert_one_line(done, [f"sdrrl: {path}:{number}: target_lang: unknown language 'xxx'; known: "])


def assert_one_line(done, said):
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1 and lines[0].startswith("sdrrl: "), done.stderr
    for part in said:
        assert part in lines[0]
