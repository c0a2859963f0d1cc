"""Three subsets of clearly different sizes, and what a step on them should be, by brute force in float64."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.conftest import write_rows
from tests.training.commands import Commands

LEARNING_RATE = 0.1
SIZES = {"LL": 9, "TT": 2, "mt": 5}
WEIGHTS = {"LL": 1.0, "TT": 1.0, "mt": 0.5}
HELD = {"LL": 3, "mt": 4}


def rows(subset: str, size: int, place: int, said: str = "Pregunta") -> list[dict]:
    """Answers of clearly different lengths."""
    return [
        {"instruction": f"{said} {subset} {i}: " + "uno " * i, "input": "", "output": "el río " * (1 + i + 5 * place)}
        for i in range(size)
    ]


TRAINING = {subset: rows(subset, size, k) for k, (subset, size) in enumerate(SIZES.items())}
EVALUATION = {subset: rows(subset, size, k, "Otra") for k, (subset, size) in enumerate(HELD.items())}
PLAIN = rows("plain", 4, 1)


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """x_LL, x_TT, x_mt; held_LL, held_mt; and `plain`, which has no block."""
    folder = tmp_path_factory.mktemp("data")
    info = {"plain": {"file_name": "plain.jsonl"}}
    write_rows(folder / "plain.jsonl", PLAIN)
    for prefix, sets in {"x": TRAINING, "held": EVALUATION}.items():
        for subset, samples in sets.items():
            write_rows(folder / f"{prefix}_{subset}.jsonl", samples)
            block = {"subset": subset, "weight": WEIGHTS[subset]}
            info[f"{prefix}_{subset}"] = {"file_name": f"{prefix}_{subset}.jsonl", "sdrrl": block}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(scope="session")
def adapter(tiny, tmp_path_factory) -> Path:
    """A LoRA adapter that has learnt something: both of its matrices are away from zero."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def commands():
    program = Commands()
    yield program
    program.close()


@pytest.fixture(scope="session")
def exact(tiny, adapter):
    """Exact(model, tokenizer) in float64; by name: "full", "lora"."""
    from peft import PeftModel

    def load(tuning: str) -> "Exact":
        model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float64)
        if tuning == "lora":
            model = PeftModel.from_pretrained(model, adapter, is_trainable=True).double()
        return Exact(model, AutoTokenizer.from_pretrained(tiny))

    return load


class Exact:
    """A model whose every sample is computed alone."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model.eval(), tokenizer

    def loss(self, row: dict) -> torch.Tensor:
        """The mean cross-entropy of one answer, the prompt written out by hand."""
        system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face."
        prompt = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{row['instruction']}<|im_end|>\n"
        ids = self.tokenizer(prompt + "<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
        answer = self.tokenizer(row["output"] + "<|im_end|>\n", add_special_tokens=False)["input_ids"]
        logits = self.model(input_ids=torch.tensor([ids + answer])).logits[0]
        return torch.nn.functional.cross_entropy(logits[len(ids) - 1 : -1], torch.tensor(answer))

    def losses(self, sets: dict[str, list[dict]]) -> dict[str, float]:
        """The mean l_CE of each subset."""
        with torch.no_grad():
            return {subset: sum(self.loss(r).item() for r in each) / len(each) for subset, each in sets.items()}

    def step(self, batch: list[tuple[float, dict]], rate: float = LEARNING_RATE) -> None:
        """One step of SGD on (1/|B|) sum of w_i l_i; batch: (w_i, row)."""
        self.model.zero_grad()
        (sum(weight * self.loss(row) for weight, row in batch) / len(batch)).backward()
        with torch.no_grad():
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter -= rate * parameter.grad

    def parameters(self) -> dict[str, torch.Tensor]:
        """Under the names they have on disk."""
        if hasattr(self.model, "get_base_model"):
            from peft import get_peft_model_state_dict

            return {n: p.detach().clone() for n, p in get_peft_model_state_dict(self.model).items()}
        return {n: p.detach().clone() for n, p in self.model.named_parameters()}


def weighted(sets: dict[str, list[dict]], weights: dict[str, float] = WEIGHTS) -> list[tuple[float, dict]]:
    """Equation 6: every row with N/(K |D_d|) times its set's weight."""
    total = sum(map(len, sets.values()))
    return [(weights.get(d, 1.0) * total / (len(sets) * len(each)), row) for d, each in sets.items() for row in each]


def distance(before: dict, after: dict, observed: Path) -> float:
    """|observed change - expected change| / |expected change| over all parameters; before, after: the expected ones."""
    files = load_file(observed)
    change = {n: after[n] - before[n] for n in after}
    off = sum(float((files[n].double() - before[n] - change[n]).square().sum()) for n in change)
    return (off / sum(float(c.square().sum()) for c in change.values())) ** 0.5


def log_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "trainer_log.jsonl").read_text().splitlines()]


@pytest.fixture
def recipe(tiny, data, tmp_path):
    """The keys of a run of one epoch of SGD, all 16 samples a step."""
    return {
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
        "num_train_epochs": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "output_dir": str(tmp_path / "out"),
    }
