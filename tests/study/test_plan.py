"""A study's steps: how many, what is shared, in which order, and what a mistake says; nothing is trained."""

import shlex
from pathlib import Path

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.interface import load_study
from sdrrl_factory.study.plan import plan
from sdrrl_factory.study.run import print_commands
from tests.conftest import ROOT

SMALL = str(ROOT / "yaml_recipes/study/small.yaml")
MAIN = "[{name: main, budget: epochs, seeds: [1, 2], systems: [sft, tsft, sdrrl, sdrrl_none, no_synth]}]"


def planned(tmp_path, *overrides):
    keys = [f"tables={MAIN}", f"output_dir={tmp_path}/study", f"kept={tmp_path}/kept", *overrides]
    return plan(load_study(SMALL, keys).config, "sdrrl study small")


def of_kind(found, kind):
    return {step.name.partition(".")[2]: step for step in found.steps if step.kind == kind}


def test_every_training_is_exported_measured_and_kept_once(tmp_path):
    found = planned(tmp_path)
    assert len(of_kind(found, "train")) == 5 * 2
    assert set(of_kind(found, "export")) == set(of_kind(found, "train"))
    # The untrained backbone is measured beside them.
    assert len(of_kind(found, "eval")) == len(found.measured) == 5 * 2 + 1
    assert len(of_kind(found, "keep")) == 5 * 2 + 1


def test_steps_come_after_what_they_need(tmp_path):
    before = set()
    for step in planned(tmp_path, "languages=[spa, por]").steps:
        assert set(step.after) <= before
        before.add(step.name)


def test_the_model_answers_once_for_all_data(tmp_path):
    """The other data come after those of the recipe as it is, which leave its answers in the memory."""
    found = planned(tmp_path, "languages=[spa, por]")
    steps, recipes = of_kind(found, "prepare"), found.recipes
    names = {name.partition(".")[0] for name in steps}
    assert names == {"small_smollm2", "small_smollm2_sdrrl_none", "small_smollm2_no_synth"}
    assert [name for name, step in steps.items() if not step.after] == ["small_smollm2.spa"]
    plain = recipes[Path(steps["small_smollm2.spa"].recipe)]
    # Baselines and SDRRL are made of one translation.
    assert plain["systems"] == ["sft", "tsft", "sdrrl"]
    for step in steps.values():
        keys = recipes[Path(step.recipe)]
        assert keys["generator"] == plain["generator"] and keys["work_dir"] == plain["work_dir"]
    none = recipes[Path(steps["small_smollm2_sdrrl_none.por"].recipe)]
    assert (none["answer_language"], none["target_lang"]) == ("none", "por")


def test_what_learns_no_other_language_is_trained_once(tmp_path):
    found = planned(tmp_path, "languages=[spa, por]")
    trained = [name for name in of_kind(found, "train") if ".sft." in name]
    assert trained == ["smollm2.eng.sft.epochs.1", "smollm2.eng.sft.epochs.2"]
    measured = [one.id for one in found.measured.values() if one.system == "sft"]
    assert sorted(measured) == [f"smollm2.{code}.sft.epochs.{seed}" for code in ("por", "spa") for seed in (1, 2)]
    models = {found.recipes[Path(of_kind(found, "eval")[id_].recipe)]["model"] for id_ in measured}
    assert models == {f"{tmp_path}/study/smollm2.eng.sft.epochs.{seed}/export" for seed in (1, 2)}


def test_an_ablation_names_its_sets(tmp_path):
    table = "[{name: a, budget: epochs, seeds: [1], systems: [sdrrl, no_tl_lt, no_mt_comp, only_mt_comp, mine]}]"
    own = "own_systems={mine: {sets: [ll, tt], prepare: {answer_language: all}}}"
    found = planned(tmp_path, f"tables={table}", own)
    sets = {
        name.split(".")[2]: [s.rpartition("_")[2] for s in found.recipes[Path(step.recipe)]["dataset"].split(",")]
        for name, step in of_kind(found, "train").items()
    }
    assert sets == {
        "sdrrl": ["ll", "tl", "lt", "tt", "mt", "comp"],
        "no_tl_lt": ["ll", "tt", "mt", "comp"],
        "no_mt_comp": ["ll", "tl", "lt", "tt"],
        "only_mt_comp": ["mt", "comp"],
        "mine": ["ll", "tt"],
    }
    # All but one train on the same rows.
    data = {step.after for step in of_kind(found, "train").values()}
    assert data == {("prepare.small_smollm2.spa",), ("prepare.small_smollm2_mine.spa",)}


def test_a_calculated_rate_is_a_step_before(tmp_path):
    found = planned(tmp_path, "train.learning_rate=auto", "resources={train: {environment: {NPROC_PER_NODE: '8'}}}")
    rate, train = (of_kind(found, kind)["smollm2.spa.tsft.epochs.2"] for kind in ("rate", "train"))
    assert train.after == (rate.name,) and rate.command.endswith(f"--output {train.recipe}")
    # Both are started for the same processes: the rate depends on their number.
    assert rate.command.startswith("NPROC_PER_NODE=8 sdrrl lr ")
    assert train.command == f"NPROC_PER_NODE=8 llamafactory-cli train {train.recipe}"
    assert "learning_rate" not in found.recipes[Path(rate.recipe)] and Path(train.recipe) not in found.recipes


def test_lora_is_merged_into_its_backbone(tmp_path):
    found = planned(tmp_path, "train.finetuning_type=lora")
    keys = found.recipes[Path(of_kind(found, "export")["smollm2.spa.tsft.epochs.1"].recipe)]
    assert keys["model_name_or_path"] == "models/smollm2-135m" and keys["finetuning_type"] == "lora"
    assert keys["adapter_name_or_path"] == f"{tmp_path}/study/smollm2.spa.tsft.epochs.1/train"


def test_what_a_benchmark_has_not_is_left_out_and_said(tmp_path):
    tasks = (
        "[{task: xlsum, path: x}, {task: mkqa, path: m}, {task: flores, path: f}, "
        "{task: off_target, path: 'q/{bactrian}.json'}]"
    )
    found = planned(tmp_path, "languages=[ces, ind]", f"eval.tasks={tasks}")
    assert found.left_out == [
        "XL-SUM has no Czech",
        "MKQA has no Czech",
        "MKQA has no Indonesian",
    ]
    by_language = {
        code: found.recipes[Path(of_kind(found, "eval")[f"smollm2.{code}.base"].recipe)]["tasks"]
        for code in ("ces", "ind")
    }
    assert [task["task"] for task in by_language["ces"]] == ["flores", "off_target"]
    assert by_language["ind"] == [
        {"task": "xlsum", "path": "x", "langs": ["ind", "eng"]},
        {"task": "flores", "path": "f", "langs": ["ind"], "source_lang": "eng"},
        {"task": "off_target", "path": "q/{bactrian}.json", "langs": ["ind"]},
    ]


def test_the_base_is_measured_with_the_format_it_is_trained_in(tmp_path):
    found = planned(tmp_path)
    keys = [found.recipes[Path(step.recipe)] for step in of_kind(found, "eval").values()]
    assert {key["template"] for key in keys} == {"smollm2"}
    assert keys[0]["model"] == "models/smollm2-135m"


def test_a_run_is_known_by_what_made_it_not_by_what_else_is_made(tmp_path):
    """Another system, another folder: what is kept stays kept. Another threshold: it is measured again."""
    one = "smollm2.spa.tsft.epochs.1"
    record = planned(tmp_path).measured[one].record
    assert record["sets"] == ["tsft"] and record["train"]["seed"] == 1 and record["prepare"]["target_lang"] == "spa"
    more = planned(tmp_path, "tables.0.systems=[tsft, cit, xcot]", f"output_dir={tmp_path}/elsewhere")
    assert more.measured[one].record == record
    for key in ("prepare.quality.threshold=0.5", "train.learning_rate=2.0e-4", "eval.max_samples=10"):
        assert planned(tmp_path, key).measured[one].record != record


def test_commands_are_printed_to_copy(tmp_path, capsys):
    keys = [f"output_dir={tmp_path}/study", f"kept={tmp_path}/kept"]
    print_commands(load_study(SMALL, keys), keys)
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    programs = {" ".join(words[:2]) for words in commands}
    assert programs == {
        "sdrrl prepare",
        "llamafactory-cli train",
        "llamafactory-cli export",
        "sdrrl eval",
        "sdrrl study",
    }
    # What they read is there.
    assert all(Path(words[2]).is_file() for words in commands)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("budgets.epochs=3", "budgets.epochs is 3; it must be a group of keys"),
        ("resources={train: {gpu: 8}}", "unknown key resources.train.gpu; did you mean resources.train.gpus?"),
        ("backbones.0.name=a/b", "backbones.0.name is 'a/b'; it must be letters, digits, - and _"),
        ("languages=[spa, eng]", "languages.1: eng is the source language; choose another"),
        ("tables.0.systems=[sft, sdrl]", "tables.0.systems.1: no system sdrl; known: sft, tsft"),
        ("tables.0.budget=long", "tables.0.budget: no budget long; known: epochs"),
        ("tables.0.against=cit", "tables.0.against: no system cit; the table has base, sft, tsft"),
        ("own_systems={sdrrl: {sets: [ll]}}", "own_systems.sdrrl: sdrrl is a built-in system; rename it"),
        ("prepare.recipe=prepare/nowhere", "no such file"),
    ],
)
def test_mistakes_name_their_key(tmp_path, override, said):
    with pytest.raises(UserError) as caught:
        recipe = load_study(SMALL, [f"tables={MAIN}", override])
        with recipe.locating():
            plan(recipe.config, "")
    assert said in str(caught.value)
