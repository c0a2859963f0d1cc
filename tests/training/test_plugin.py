"""Weights, layouts of the loss, and what the plugin does and refuses, without starting LLaMA-Factory."""

import inspect
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from sdrrl_factory.training import plugin
from sdrrl_factory.training.trainer import layout_for, sample_losses
from sdrrl_factory.training.weights import Entry, sample_weights


def test_weights_give_every_subset_the_same_share_and_a_mean_of_one():
    entries = [Entry("a", "LL", 1.0, 30), Entry("b", "TL", 1.0, 5), Entry("c", "LL", 1.0, 10), Entry("d", "mt", 1.0, 0)]
    weights = sample_weights(entries)
    assert sum(w * e.size for w, e in zip(weights, entries, strict=True)) == pytest.approx(45)
    assert weights[1] * 5 == pytest.approx(weights[0] * 30 + weights[2] * 10)
    assert weights[3] == 0


def test_entry_weight_multiplies():
    assert sample_weights([Entry("a", "LL", 2.0, 4), Entry("b", "TT", 0.0, 4)]) == [2.0, 0.0]


@pytest.fixture(scope="module")
def batch():
    torch.manual_seed(1)
    ids = torch.randint(3, 300, (4, 12))
    mask, labels = torch.ones_like(ids), ids.clone()
    for row, (prompt, end) in enumerate([(3, 12), (6, 9), (2, 5), (8, 12)]):
        mask[row, end:] = 0
        labels[row, :prompt] = -100
        labels[row, end:] = -100
    return {"input_ids": ids, "attention_mask": mask}, labels


@pytest.mark.parametrize("layout", ["full", "tail", "flat"])
def test_layouts_agree_with_one_sample_at_a_time(layout, tiny, batch):
    inputs, labels = batch
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    exact = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float64)
    got = sample_losses(model, dict(inputs), labels, layout)
    for row in range(4):
        n = int(inputs["attention_mask"][row].sum())
        logits = exact(input_ids=inputs["input_ids"][row : row + 1, :n]).logits[0]
        want = torch.nn.functional.cross_entropy(logits[:-1], labels[row, 1:n], ignore_index=-100)
        assert got[row].item() == pytest.approx(want.item(), rel=1e-5)


def test_a_sample_without_a_trained_token_counts_zero(tiny, batch):
    inputs, labels = batch
    model = AutoModelForCausalLM.from_pretrained(tiny)
    labels = labels.clone()
    labels[1] = -100
    for layout in ("full", "tail", "flat"):
        got = sample_losses(model, dict(inputs), labels, layout)
        assert got[1] == 0 and torch.isfinite(got).all()


def test_layout_is_flat_for_padding_and_full_for_models_that_cannot(tiny, batch):
    inputs, _ = batch
    model = AutoModelForCausalLM.from_pretrained(tiny)
    assert layout_for(model, inputs) == "flat"
    assert layout_for(model, inputs | {"position_ids": None}) == "tail"
    bare = SimpleNamespace(forward=lambda input_ids: None, config=model.config)
    assert layout_for(bare, inputs) == "full"


def arguments(tmp_path, info, **data):
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    defaults = {
        "dataset": list(info),
        "dataset_dir": str(tmp_path),
        "streaming": False,
        "packing": False,
        "neat_packing": False,
        "tokenized_path": None,
        "eval_dataset": None,
        "val_size": 0.0,
    }
    training = SimpleNamespace(predict_with_generate=False, label_smoothing_factor=0.0, process_index=0, seed=1)
    return SimpleNamespace(**(defaults | data)), training, SimpleNamespace()


def workflow(calls):
    def run_sft(model_args, data_args, training_args, finetuning_args, generating_args=None, callbacks=None):
        calls.append(module.CustomSeq2SeqTrainer)
        return "done"

    def get_dataset(template, model_args, data_args, training_args, stage, tokenizer, processor=None): ...

    module = SimpleNamespace(
        run_sft=run_sft,
        get_dataset=get_dataset,
        SFTDataCollatorWith4DAttentionMask=object,
        CustomSeq2SeqTrainer=object,
    )
    return module


def test_inert_without_a_block_and_restored_after_one(tmp_path):
    calls = []
    module = workflow(calls)
    plugin.install(module)
    data, training, finetuning = arguments(tmp_path, {"plain": {"file_name": "x.jsonl"}})
    assert module.run_sft(None, data, training, finetuning) == "done"
    assert calls[-1] is object
    data, training, finetuning = arguments(tmp_path, {"a": {"file_name": "x", "sdrrl": {"subset": "LL"}}})
    module.run_sft(None, data, training, finetuning)
    assert calls[-1] is not object
    assert module.CustomSeq2SeqTrainer is object


@pytest.mark.parametrize(
    "block, said",
    [
        ({"weight": 1.0}, "subset"),
        ("LL", "subset"),
        ({"subset": "LL", "weight": "two"}, "sdrrl.weight is 'two'"),
        ({"subset": "LL", "weight": -1}, "sdrrl.weight is -1"),
    ],
)
def test_a_malformed_block_is_one_line(block, said, tmp_path, capsys):
    module = workflow([])
    plugin.install(module)
    with pytest.raises(SystemExit) as stop:
        module.run_sft(None, *arguments(tmp_path, {"a": {"file_name": "x", "sdrrl": block}}))
    err = capsys.readouterr().err
    assert stop.value.code == 2 and said in err and "dataset_info.json: a" in err and err.count("\n") == 1


@pytest.mark.parametrize("key", ["streaming", "packing", "neat_packing", "tokenized_path", "eval_dataset"])
def test_what_cannot_be_exact_stops(key, tmp_path, capsys):
    module = workflow([])
    plugin.install(module)
    with pytest.raises(SystemExit) as stop:
        module.run_sft(None, *arguments(tmp_path, {"a": {"file_name": "x", "sdrrl": {"subset": "LL"}}}, **{key: "x"}))
    err = capsys.readouterr().err
    assert stop.value.code == 2 and key in err and err.count("\n") == 1


@pytest.mark.parametrize("name", ["get_dataset", "SFTDataCollatorWith4DAttentionMask", "CustomSeq2SeqTrainer"])
def test_unknown_names_stop_only_where_they_are_needed(name, tmp_path, capsys):
    module = workflow([])
    module.run_sft = lambda *args, **kwargs: "done"
    module.run_sft.__signature__ = inspect.signature(workflow([]).run_sft)
    delattr(module, name)
    plugin.install(module)
    assert module.run_sft(None, *arguments(tmp_path, {"plain": {"file_name": "x.jsonl"}})) == "done"
    with pytest.raises(SystemExit) as stop:
        module.run_sft(None, *arguments(tmp_path, {"a": {"file_name": "x", "sdrrl": {"subset": "LL"}}}))
    assert_names_the_version(stop, capsys.readouterr().err, name)


def test_a_workflow_without_run_sft_stops_when_it_is_called(capsys):
    module = SimpleNamespace()
    plugin.install(module)
    with pytest.raises(SystemExit) as stop:
        module.run_sft(None)
    assert_names_the_version(stop, capsys.readouterr().err, "run_sft")


def assert_names_the_version(stop, err: str, name: str):
    assert stop.value.code == 2 and name in err and f"llamafactory {plugin.WORKS_WITH}" in err and err.count("\n") == 1


def autoloaded(**environment) -> bool:
    code = "import sys; print(any(type(f).__module__ == 'sdrrl_factory.training.autoload' for f in sys.meta_path))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip() == "True"


def test_the_pth_is_live_in_every_process_unless_switched_off():
    assert autoloaded()
    assert not autoloaded(SDRRL_FACTORY_DISABLE="1")
