"""One optimizer step of `llamafactory-cli train` against equation 6 computed by brute force in float64."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.conftest import command, write_rows

pytestmark = pytest.mark.slow

LEARNING_RATE = 0.1
SIZES = {"LL": 9, "TT": 2, "mt": 5}
WEIGHTS = {"LL": 1.0, "TT": 1.0, "mt": 0.5}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Three subsets of clearly different sizes, answers of clearly different lengths."""
    folder = tmp_path_factory.mktemp("data")
    info = {}
    for k, (subset, size) in enumerate(SIZES.items()):
        rows = [
            {"instruction": f"Pregunta {subset} {i}: " + "uno " * i, "input": "", "output": "el río " * (1 + i + 5 * k)}
            for i in range(size)
        ]
        write_rows(folder / f"{subset}.jsonl", rows)
        info[f"x_{subset}"] = {"file_name": f"{subset}.jsonl", "sdrrl": {"subset": subset, "weight": WEIGHTS[subset]}}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def train(tiny: Path, data: Path, out: Path, keys: dict, **environment):
    """One step of SGD over all 16 samples; returns (parameters after, what was printed)."""
    recipe = {
        "model_name_or_path": str(tiny),
        "template": "smollm2",
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "dataset_dir": str(data),
        "dataset": ",".join(f"x_{s}" for s in SIZES),
        "overwrite_cache": True,
        "per_device_train_batch_size": 16,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "weight_decay": 0.0,
        "max_steps": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "output_dir": str(out),
    } | keys
    path = out.parent / f"{out.name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    done = command("llamafactory-cli", "train", path, cwd=out.parent, **environment)
    return load_file(out / "model.safetensors"), done.stdout + done.stderr


def rows(data: Path, subset: str) -> list[dict]:
    return [json.loads(line) for line in (data / f"{subset}.jsonl").read_text().splitlines()]


def sample_loss(model, tokenizer, row: dict) -> torch.Tensor:
    """The mean cross-entropy of one answer, the prompt written out by hand."""
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face."
    prompt = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{row['instruction']}<|im_end|>\n"
    ids = tokenizer(prompt + "<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    answer = tokenizer(row["output"] + "<|im_end|>\n", add_special_tokens=False)["input_ids"]
    logits = model(input_ids=torch.tensor([ids + answer])).logits[0]
    return torch.nn.functional.cross_entropy(logits[len(ids) - 1 : -1], torch.tensor(answer))


@pytest.fixture(scope="module")
def truth(tiny, data) -> dict:
    """The change of the parameters: -lr times the gradient of N/K times equation 6, over N, sample by sample."""
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float64)
    objective, losses = 0.0, {}
    for subset, size in SIZES.items():
        losses[subset] = []
        for row in rows(data, subset):
            nats = sample_loss(model, AutoTokenizer.from_pretrained(tiny), row)
            objective = objective + WEIGHTS[subset] * nats / size
            losses[subset].append(nats.item())
    (objective / len(SIZES)).backward()
    return {
        "change": {name: -LEARNING_RATE * p.grad for name, p in model.named_parameters()},
        "losses": {subset: sum(nats) / len(nats) for subset, nats in losses.items()},
    }


def distance(tiny: Path, after: dict, change: dict) -> float:
    """|observed change - expected change| / |expected change| over all parameters."""
    before = load_file(tiny / "model.safetensors")
    off = sum(float(((after[n].double() - before[n].double()) - change[n]).square().sum()) for n in change)
    return (off / sum(float(c.square().sum()) for c in change.values())) ** 0.5


MODES = {
    "one batch": ({}, {}),
    "accumulation with a remainder": ({"per_device_train_batch_size": 3, "gradient_accumulation_steps": 6}, {}),
    "two processes, ZeRO-2": (
        {"per_device_train_batch_size": 8, "deepspeed": "zero2.json"},
        {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_one_step_is_equation_6(mode, tiny, data, truth, tmp_path):
    keys, environment = MODES[mode]
    if "deepspeed" in keys:
        recipes = Path(__file__).parents[2] / "yaml_recipes/deepspeed"
        keys = keys | {"deepspeed": str(recipes / "zero2.json")}
    after, printed = train(tiny, data, tmp_path / "out", keys, **environment)
    assert distance(tiny, after, truth["change"]) < 1e-4
    # N/(K |D_d|) times the entry's weight: 16/27, 16/6, 8/15
    assert printed.count("sdrrl: subset-weighted loss") == 1
    assert "LL 9 rows x 0.5926, TT 2 rows x 2.667, mt 5 rows x 0.5333" in printed
    log = [json.loads(line) for line in (tmp_path / "out/trainer_log.jsonl").read_text().splitlines()]
    for subset, nats in truth["losses"].items():
        assert log[0][f"loss_{subset}"] == pytest.approx(nats, abs=1e-4)


def test_validation_is_split_from_each_subset_and_weighted_alike(tiny, data, tmp_path):
    keys = {"val_size": 0.5, "eval_strategy": "steps", "eval_steps": 1, "learning_rate": 0.0, "seed": 7}
    _, printed = train(tiny, data, tmp_path / "out", keys)
    # 4, 1 and 2 rows stay in training: 7/(3*4), 7/(3*1), half of 7/(3*2)
    weights = {"LL": 7 / 12, "TT": 7 / 3, "mt": 7 / 12}
    assert "LL 4 rows x 0.5833, TT 1 rows x 2.333, mt 2 rows x 0.5833" in printed
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    losses = [
        weights[subset] * sample_loss(model, tokenizer, row).item()
        for subset in SIZES
        for row in Dataset.from_list(rows(data, subset)).train_test_split(test_size=0.5, seed=7)["test"]
    ]
    log = [json.loads(line) for line in (tmp_path / "out/trainer_log.jsonl").read_text().splitlines()]
    found = next(line["eval_loss"] for line in log if "eval_loss" in line)
    assert found == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_without_the_weights_it_is_not(tiny, data, truth, tmp_path):
    after, printed = train(tiny, data, tmp_path / "out", {}, SDRRL_FACTORY_DISABLE="1")
    assert distance(tiny, after, truth["change"]) > 0.05
    assert "sdrrl" not in printed.replace("sdrrl-factory", "")
    assert "loss_LL" not in (tmp_path / "out/trainer_log.jsonl").read_text()
