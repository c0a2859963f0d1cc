"""Weights, layouts of the loss, and what the plugin does and refuses, without starting LLaMA-Factory."""

import inspect
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from llamafactory.data.processor.processor_utils import greedy_knapsack
from transformers import AutoModelForCausalLM

from sdrrl_factory.errors import UserError
from sdrrl_factory.training import hook
from sdrrl_factory.training.collator import ENTRY, LENGTHS, _samples, describe
from sdrrl_factory.training.data import pack
from sdrrl_factory.training.layout import layout_for, may_join
from sdrrl_factory.training.plot import plot_subset_losses
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


def test_samples_are_joined_only_where_they_stay_apart(tiny, batch):
    inputs, labels = batch
    facts = describe(labels, inputs["attention_mask"])
    model = AutoModelForCausalLM.from_pretrained(tiny).train()
    assert may_join(model) and model.training
    assert layout_for(model, inputs, facts, True) == "flat"
    assert layout_for(model, inputs, facts, False) == "tail"
    assert layout_for(model, inputs | {"position_ids": None}, facts, True) == "tail"
    assert (facts["tokens"], facts["first"]) == (38, 1)
    leaky = AutoModelForCausalLM.from_pretrained(tiny)
    stock = leaky.model.forward
    leaky.model.forward = lambda *args, position_ids=None, **kwargs: stock(*args, **kwargs)
    assert not may_join(leaky)


def test_a_pack_is_taken_apart_again():
    long, *others = ({"input_ids": [n] * n, "attention_mask": [1] * n, "labels": [n] * n} for n in (9, 5, 3, 4, 2))
    rows = Dataset.from_list([row | {ENTRY: i, "images": None} for i, row in enumerate([long, *others])])
    packs = pack(rows, 8, greedy_knapsack, seed=1)
    assert all(len(p["input_ids"]) == sum(p[LENGTHS]) <= 8 for p in packs) and len(packs) == 2
    found = [sample for p in packs for sample in _samples(p)]
    assert sorted(found, key=lambda s: s[ENTRY]) == [row | {ENTRY: i} for i, row in enumerate(others, 1)]


def test_packing_refuses_images():
    rows = Dataset.from_list([{"input_ids": [1], "attention_mask": [1], "labels": [1], ENTRY: 0, "images": ["a.png"]}])
    with pytest.raises(UserError, match="packing cannot be weighted where a set has images"):
        pack(rows, 8, greedy_knapsack, seed=None)


def test_the_plot_draws_every_subset(tmp_path):
    history = [{"step": 1, "loss": 2.0, "loss_LL": 2.0}, {"step": 2, "loss_LL": 1.0, "loss_mt": 3.0}, {"eval_loss": 1}]
    assert plot_subset_losses(history, tmp_path / "a.png") and (tmp_path / "a.png").stat().st_size > 1000
    assert not plot_subset_losses([{"step": 1, "loss": 2.0}], tmp_path / "b.png")


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
    training = {"predict_with_generate": False, "label_smoothing_factor": 0.0, "process_index": 0, "seed": 1}
    training |= {"gradient_accumulation_steps": 1, "hf_deepspeed_config": None}
    training = {key: data.pop(key, value) for key, value in training.items()}
    finetuning = {"plot_loss": False, "use_dft_loss": data.pop("use_dft_loss", False)}
    return SimpleNamespace(**(defaults | data)), SimpleNamespace(**training), SimpleNamespace(**finetuning)


MODEL = SimpleNamespace(block_diag_attn=False)


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
    hook.install(module)
    data, training, finetuning = arguments(tmp_path, {"plain": {"file_name": "x.jsonl"}})
    assert module.run_sft(MODEL, data, training, finetuning) == "done"
    assert calls[-1] is object
    data, training, finetuning = arguments(tmp_path, {"a": {"file_name": "x", "sdrrl": {"subset": "LL"}}})
    module.run_sft(MODEL, data, training, finetuning)
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
    hook.install(module)
    with pytest.raises(SystemExit) as stop:
        module.run_sft(MODEL, *arguments(tmp_path, {"a": {"file_name": "x", "sdrrl": block}}))
    err = capsys.readouterr().err
    assert stop.value.code == 2 and said in err and "dataset_info.json: a" in err and err.count("\n") == 1


@pytest.mark.parametrize("key", ["streaming", "predict_with_generate", "label_smoothing_factor", "use_dft_loss"])
def test_what_cannot_be_exact_stops(key, tmp_path, capsys):
    module = workflow([])
    hook.install(module)
    with pytest.raises(SystemExit) as stop:
        module.run_sft(MODEL, *arguments(tmp_path, {"a": {"file_name": "x", "sdrrl": {"subset": "LL"}}}, **{key: "x"}))
    err = capsys.readouterr().err
    assert stop.value.code == 2 and key in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("stage", "device", "steps", "stops"),
    [(2, "cpu", 3, True), (1, "nvme", 8, True), (2, "cpu", 2, False), (2, "none", 8, False), (3, "cpu", 8, False)],
)
def test_offload_that_loses_gradients_stops(stage, device, steps, stops, tmp_path, capsys):
    calls = []
    module = workflow(calls)
    hook.install(module)
    zero = {"zero_optimization": {"stage": stage, "offload_optimizer": {"device": device}}}
    keys = {"hf_deepspeed_config": SimpleNamespace(config=zero), "gradient_accumulation_steps": steps}
    run = arguments(tmp_path, {"a": {"file_name": "x", "sdrrl": {"subset": "LL"}}}, **keys)
    if not stops:
        module.run_sft(MODEL, *run)
        assert calls
        return
    with pytest.raises(SystemExit) as stop:
        module.run_sft(MODEL, *run)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and f"ZeRO-{stage} offloads its optimizer" in err and err.count("\n") == 1


@pytest.mark.parametrize("name", ["get_dataset", "SFTDataCollatorWith4DAttentionMask", "CustomSeq2SeqTrainer"])
def test_unknown_names_stop_only_where_they_are_needed(name, tmp_path, capsys):
    module = workflow([])
    module.run_sft = lambda *args, **kwargs: "done"
    module.run_sft.__signature__ = inspect.signature(workflow([]).run_sft)
    delattr(module, name)
    hook.install(module)
    assert module.run_sft(MODEL, *arguments(tmp_path, {"plain": {"file_name": "x.jsonl"}})) == "done"
    with pytest.raises(SystemExit) as stop:
        module.run_sft(MODEL, *arguments(tmp_path, {"a": {"file_name": "x", "sdrrl": {"subset": "LL"}}}))
    assert_names_the_version(stop, capsys.readouterr().err, name)


def test_a_workflow_without_run_sft_stops_when_it_is_called(capsys):
    module = SimpleNamespace()
    hook.install(module)
    with pytest.raises(SystemExit) as stop:
        module.run_sft(None)
    assert_names_the_version(stop, capsys.readouterr().err, "run_sft")


def assert_names_the_version(stop, err: str, name: str):
    assert stop.value.code == 2 and name in err and f"llamafactory {hook.WORKS_WITH}" in err and err.count("\n") == 1


@pytest.mark.parametrize("name", ["a", "plain"])
def test_other_ways_to_train_stop_where_there_is_a_block(name, tmp_path, capsys):
    """LLaMA-Factory's own module, imported with the .pth live; with no block its own complaint comes through."""
    from llamafactory.train.hyper_parallel import workflow

    data, *others = arguments(
        tmp_path, {"a": {"file_name": "x", "sdrrl": {"subset": "LL"}}, "plain": {}}, dataset=[name]
    )
    with pytest.raises(SystemExit if name == "a" else ImportError) as stop:
        workflow.run_sft(MODEL, data, *others, None)
    if name == "a":
        err = capsys.readouterr().err
        assert stop.value.code == 2 and "train.hyper_parallel cannot weight by subset" in err and err.count("\n") == 1


def test_version_1_stops_where_there_is_a_block(tmp_path, capsys):
    from llamafactory.v1.trainers import sft_trainer

    rows = tmp_path / "rows.json"
    rows.write_text('[{"messages": []}]')
    listed = tmp_path / "sets.yaml"
    listed.write_text(f"a:\n  path: {rows}\n  source: local\n")
    assert len(sft_trainer.DataEngine(str(listed))) == 1
    listed.write_text(listed.read_text() + "  sdrrl: {subset: LL}\n")
    with pytest.raises(SystemExit) as stop:
        sft_trainer.DataEngine(str(listed))
    assert stop.value.code == 2 and "cannot weight by subset" in capsys.readouterr().err


def autoloaded(**environment) -> bool:
    code = "import sys; print(any(type(f).__module__ == 'sdrrl_factory.training.autoload' for f in sys.meta_path))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip() == "True"


def test_the_pth_is_live_in_every_process_unless_switched_off():
    assert autoloaded()
    assert not autoloaded(SDRRL_FACTORY_DISABLE="1")
