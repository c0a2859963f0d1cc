"""What the plugin puts into LLaMA-Factory's workflows, and when it leaves them alone, without starting a training."""

import ast
import inspect
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from sdrrl_factory.training import autoload, guard, hook
from tests.conftest import ROOT
from tests.training.workflow import BLOCK, MODEL, arguments, workflow

PLAIN = {"plain": {"file_name": "x.jsonl"}}


def stopped(capsys, run, *args) -> str:
    """The one line with which a run stops, at status 2."""
    with pytest.raises(SystemExit) as stop:
        run(*args)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith("sdrrl: ") and err.count("\n") == 1
    return err


def installed(calls: list):
    module = workflow(calls)
    hook.install(module)
    return module


def test_inert_without_a_block_and_restored_after_one(tmp_path):
    calls = []
    module = installed(calls)
    assert module.run_sft(MODEL, *arguments(tmp_path, PLAIN)) == "done"
    assert calls[-1] is object
    module.run_sft(MODEL, *arguments(tmp_path, BLOCK))
    assert calls[-1] is not object
    assert module.CustomSeq2SeqTrainer is object


def test_a_mistake_is_one_line(tmp_path, capsys):
    info = {"a": {"file_name": "x", "sdrrl": {"subset": "LL", "wieght": 2}}}
    assert "dataset_info.json: a" in stopped(capsys, installed([]).run_sft, MODEL, *arguments(tmp_path, info))
    args = arguments(tmp_path, BLOCK, streaming=True)
    assert "streaming: true" in stopped(capsys, installed([]).run_sft, MODEL, *args)


# (keys; what the run is: LLaMA-Factory's own, weighted, or stopped)
GENERATING = {
    "no training": ({"do_train": False}, "own"),
    "LlamaBoard's Evaluate tab": ({"do_train": False, "dataset": None, "eval_dataset": ["a"]}, "own"),
    "a training that is weighted": ({}, "stopped"),
    "a training that is not": ({"dataset": ["plain"], "eval_dataset": ["a"]}, "own"),
}


@pytest.mark.parametrize("case", GENERATING)
def test_generated_answers_have_no_loss_to_weight(case, tmp_path, capsys):
    keys, what = GENERATING[case]
    calls = []
    args = arguments(tmp_path, BLOCK | PLAIN, predict_with_generate=True, **keys)
    if what == "stopped":
        assert "predict_with_generate" in stopped(capsys, installed(calls).run_sft, MODEL, *args)
        return
    assert installed(calls).run_sft(MODEL, *args) == "done" and calls == [object]
    assert capsys.readouterr().out.count("the sdrrl blocks of eval_dataset are not used") == (case[:10] == "a training")


@pytest.mark.parametrize("name", ["get_dataset", "SFTDataCollatorWith4DAttentionMask", "CustomSeq2SeqTrainer"])
def test_unknown_names_stop_only_where_they_are_needed(name, tmp_path, capsys):
    module = workflow([])
    module.run_sft = lambda *args, **kwargs: "done"
    module.run_sft.__signature__ = inspect.signature(workflow([]).run_sft)
    delattr(module, name)
    hook.install(module)
    assert module.run_sft(MODEL, *arguments(tmp_path, PLAIN)) == "done"
    line = stopped(capsys, module.run_sft, MODEL, *arguments(tmp_path, BLOCK))
    assert name in line and f"llamafactory {', '.join(hook.TESTED_WITH)}" in line


def test_a_workflow_without_run_sft_stops_when_it_is_called(capsys):
    module = SimpleNamespace()
    hook.install(module)
    assert "has no run_sft" in stopped(capsys, module.run_sft, None)


def test_an_untested_version_with_all_names_is_said_and_used(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hook, "version", lambda name: "0.9.9")
    calls = []
    module = installed(calls)
    module.run_sft(MODEL, *arguments(tmp_path, PLAIN))
    assert not capsys.readouterr().out
    monkeypatch.setenv("RANK", "1")
    module.run_sft(MODEL, *arguments(tmp_path, BLOCK))
    assert not capsys.readouterr().out
    monkeypatch.setenv("RANK", "0")
    module.run_sft(MODEL, *arguments(tmp_path, BLOCK))
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "LLaMA-Factory 0.9.9 is none of the versions" in said
    assert ", ".join(hook.TESTED_WITH) in said and calls[-1] is not object


# --- other ways to train


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("llamafactory.train.sft.workflow", "install"),
        *((f"llamafactory.train.{way}.workflow", "guard") for way in ("hyper_parallel", "mca", "megatron_bridge")),
        *((f"llamafactory.train.{way}.workflow", "guard") for way in ("pt", "dpo", "kto", "rm", "ppo", "tomorrow")),
        ("llamafactory.v1.trainers.sft_trainer", "guard"),
        ("llamafactory.v1.trainers.rm_trainer", "guard"),
        ("llamafactory.train.tuner", None),
        ("llamafactory.train.sft.trainer", None),
        ("llamafactory.v1.trainers", None),
        ("torch", None),
    ],
)
def test_every_way_to_train_has_its_part_of_the_plugin(name, part):
    assert autoload.part_for(name) == part


@pytest.mark.parametrize("name", ["a", "plain"])
def test_another_way_to_fine_tune_stops_where_there_is_a_block(name, tmp_path, capsys):
    """LLaMA-Factory's own module, imported with the .pth live; with no block its own complaint comes through."""
    from llamafactory.train.hyper_parallel import workflow as hyper_parallel

    args = arguments(tmp_path, BLOCK | PLAIN, dataset=[name])
    if name == "a":
        line = stopped(capsys, hyper_parallel.run_sft, MODEL, *args, None)
        assert "train.hyper_parallel cannot weight by subset" in line
    else:
        with pytest.raises(ImportError):
            hyper_parallel.run_sft(MODEL, *args, None)


def test_megatron_bridge_of_the_development_head_stops(tmp_path, capsys):
    """0.9.6.dev0: run_sft takes mb_args behind finetuning_args; run_pt is another stage."""
    code = "def run_sft(model_args, data_args, training_args, finetuning_args, mb_args, callbacks=None): return 'sft'\n"
    code += "def run_pt(model_args, data_args, training_args, finetuning_args, mb_args, callbacks=None): return 'pt'\n"
    module = type(sys)("llamafactory.train.megatron_bridge.workflow")
    exec(code, vars(module))
    guard.guard(module)
    line = stopped(capsys, module.run_sft, MODEL, *arguments(tmp_path, BLOCK), None, None)
    assert "train.megatron_bridge cannot weight by subset" in line and "USE_MEGATRON_BRIDGE" in line
    assert module.run_sft(MODEL, *arguments(tmp_path, PLAIN), None, None) == "sft"
    assert module.run_pt(MODEL, *arguments(tmp_path, BLOCK), None, None) == "pt"
    assert "stage: pt is not weighted" in capsys.readouterr().out


@pytest.mark.parametrize("stage", ["pt", "dpo", "kto", "rm", "ppo"])
def test_another_stage_goes_on_and_says_once_that_it_is_not_weighted(stage, tmp_path, monkeypatch, capsys):
    import importlib

    module = importlib.import_module(f"llamafactory.train.{stage}.workflow")
    run = getattr(module, f"run_{stage}")
    monkeypatch.setattr(module, "load_tokenizer", NotImplementedError("LLaMA-Factory's own"))
    for rank, blocks, lines in [("0", BLOCK, 1), ("1", BLOCK, 0), ("0", PLAIN, 0)]:
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(TypeError):  # LLaMA-Factory goes on to its first call
            run(MODEL, *arguments(tmp_path, blocks), *[None] * (stage == "ppo"))
        said = capsys.readouterr().out
        assert said.count(f"sdrrl: stage: {stage} is not weighted by subset") == said.count("\n") == lines
        assert not lines or "the sdrrl blocks of a are not used" in said


def test_a_mistake_in_a_block_is_no_matter_for_another_stage(tmp_path, capsys):
    module = type(sys)("llamafactory.train.dpo.workflow")
    exec("def run_dpo(*args): return 'done'", vars(module))
    guard.guard(module)
    info = {"a": {"file_name": "x", "sdrrl": {"wieght": 1}}, "b": None, "c": "x"}
    assert module.run_dpo(MODEL, *arguments(tmp_path, info)) == "done"
    assert "the sdrrl blocks of a are not used" in capsys.readouterr().out


@pytest.mark.parametrize("trainer", ["sft_trainer", "rm_trainer"])
def test_version_1_stops_or_says_it(trainer, tmp_path, capsys):
    import importlib

    module = importlib.import_module(f"llamafactory.v1.trainers.{trainer}")
    rows = tmp_path / "rows.json"
    rows.write_text('[{"messages": []}]')
    listed = tmp_path / "sets.yaml"
    listed.write_text(f"a:\n  path: {rows}\n  source: local\n")
    assert len(module.DataEngine(str(listed))) == 1 and not capsys.readouterr().out
    listed.write_text(listed.read_text() + "  sdrrl: {subset: LL}\n")
    if trainer == "sft_trainer":
        assert "cannot weight by subset" in stopped(capsys, module.DataEngine, str(listed))
    else:
        assert len(module.DataEngine(str(listed))) == 1
        assert "is not weighted by subset" in capsys.readouterr().out


# --- where LLaMA-Factory is touched


def imports_of(node: ast.AST, library: str) -> list[str]:
    """The modules of a library that code imports when it runs: not those for the type checker alone."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return [name for child in node.orelse for name in imports_of(child, library)]
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        return [name for name in names if name.split(".")[0] == library]
    return [name for child in ast.iter_child_nodes(node) for name in imports_of(child, library)]


def test_only_reading_calls_llamafactory():
    """The others get what is LLaMA-Factory's from its own call of run_sft."""
    files = (ROOT / "sdrrl_factory/training").glob("*.py")
    calling = [file.name for file in files if imports_of(ast.parse(file.read_text()), "llamafactory")]
    assert calling == ["reading.py"]


# --- the .pth


def autoloaded(**environment) -> bool:
    code = "import sys; print(any(type(f).__module__ == 'sdrrl_factory.training.autoload' for f in sys.meta_path))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip() == "True"


def test_the_pth_is_live_in_every_process_unless_switched_off():
    assert autoloaded()
    assert not autoloaded(SDRRL_FACTORY_DISABLE="1")


def test_the_pth_imports_nothing_heavy():
    code = (
        "import sys, json; print(json.dumps([m for m in ('torch', 'json', 'sdrrl_factory.training.hook') if m in b]))"
    )
    code = "import sys; b = set(sys.modules); " + code
    done = subprocess.run([sys.executable, "-c", code], env={}, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
