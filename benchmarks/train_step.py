"""A training step with the subset-weighted loss beside stock LLaMA-Factory's, on the same batches: time and memory.

    python benchmarks/train_step.py [RECIPE] [KEY=VALUE ...]

RECIPE is the demo's unless another is named; keys go over it. Both trainings are real ones of LLaMA-Factory, each in a
process of its own, one with SDRRL_FACTORY_DISABLE=1. They take their steps in turn (A B A B): while one computes, the
other waits. On a GPU both must fit in its memory together.

Step time is the median of the ratios of neighbouring steps. Peak memory is the most that a step needed after the
first one, which makes the optimizer's state: resident memory on a CPU, allocated memory on a GPU.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO

import torch
from transformers import TrainerCallback

ROOT = Path(__file__).parent.parent
RECIPE, STEPS, WARM = "yaml_recipes/train/demo_spa_sdrrl.yaml", 24, 2
SUBSETS = [f"data/demo_spa/{name}.jsonl" for name in ("ll", "tl", "lt", "tt", "mt", "comp")]
# The demo as it is in float32, larger batches, LLaMA-Factory's default of saving memory, and LoRA.
VARIANTS = [
    [],
    ["per_device_train_batch_size=8"],
    ["per_device_train_batch_size=8", "disable_gradient_checkpointing=false"],
    ["per_device_train_batch_size=8", "finetuning_type=lora"],
]


def main() -> None:
    keys = sys.argv[1:]
    recipe = keys.pop(0) if keys and "=" not in keys[0] else RECIPE
    missing = [path for path in SUBSETS if not Path(path).exists()] if recipe == RECIPE else []
    if missing:
        sys.exit(f"{missing[0]} is not there; run: sdrrl prepare yaml_recipes/prepare/demo_spa.yaml")
    for more in [keys] if keys else VARIANTS:
        compare(recipe, more)


def compare(recipe: str, keys: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours, stock = (Training(recipe, keys, Path(folder) / name, off) for name, off in (("ours", ""), ("stock", "1")))
        ratios, rates = [], []
        for step in range(STEPS):
            # A B B A: neither is always the one after the other.
            pair = {side: side.step() for side in ((ours, stock) if step % 2 else (stock, ours))}
            if pair[ours]["tokens"] != pair[stock]["tokens"]:
                sys.exit(f"step {step}: not the same batch: {pair[ours]['tokens']} and {pair[stock]['tokens']} tokens")
            if step >= WARM:
                ratios.append(pair[ours]["seconds"] / pair[stock]["seconds"])
                rates.append([pair[side]["new"] / pair[side]["seconds"] for side in (ours, stock)])
        memory = [side.end() for side in (ours, stock)]
    a, b = (statistics.median(rate) for rate in zip(*rates, strict=True))
    print(f"{recipe} {' '.join(keys)}\n  {pair[ours]['device']}, {len(ratios)} steps")
    print(f"  step time {statistics.median(ratios):.2f} of stock's (at most 1.00), {a:.0f} and {b:.0f} tokens/s")
    print(
        f"  peak memory {memory[0] / memory[1]:.2f} of stock's (at most 1.00), {memory[0]:.0f} and {memory[1]:.0f} MB"
    )


class Training:
    """A training in a process of its own that waits before each step."""

    def __init__(self, recipe: str, keys: list[str], folder: Path, off: str):
        folder.mkdir()
        environment = os.environ | {"SDRRL_FACTORY_DISABLE": off, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "0"}
        run = [sys.executable, __file__, "--train", recipe, f"output_dir={folder / 'out'}", *keys]
        self._log = folder / "log"
        with open(self._log, "w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                run, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        self._seen = 0
        self._read()

    def step(self) -> dict:
        """Lets it take one step; returns its seconds, the tokens of its batch and of all so far, the device."""
        self._say("go")
        answer = self._read()
        answer["new"], self._seen = answer["tokens"] - self._seen, answer["tokens"]
        return answer

    def end(self) -> float:
        """The most megabytes a step needed; ends the process."""
        self._say("end")
        answer = self._read()
        self._process.wait()
        return answer["megabytes"]

    def _say(self, word: str) -> None:
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def _read(self) -> dict:
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        sys.exit(f"the training ended:\n{self._log.read_text(encoding='utf-8')[-3000:]}")


def train(recipe: str, keys: list[str]) -> None:
    """The child: LLaMA-Factory's own training, held at each step."""
    from llamafactory.train.tuner import run_exp
    from omegaconf import OmegaConf

    # The plugin deals out the rows in an order of its own: both must take the same batches.
    from sdrrl_factory.training.trainer import WeightedTrainerMixin

    del WeightedTrainerMixin._get_train_sampler

    # Answers go out where stdout was; what libraries print there goes to the log.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    config = OmegaConf.merge(OmegaConf.load(recipe), OmegaConf.from_dotlist(keys))
    config |= {"max_steps": STEPS + 1, "save_strategy": "no", "report_to": "none", "overwrite_output_dir": True}
    config |= {"include_num_input_tokens_seen": "all"}
    run_exp(OmegaConf.to_container(config), callbacks=[InTurn(answers)])


class InTurn(TrainerCallback):
    """Waits where a step is about to be computed; its time goes on to there, with the next batch's making."""

    def __init__(self, answers: TextIO):
        self.answers, self.begun, self.gpu = answers, None, torch.cuda.is_available()

    def on_step_begin(self, args, state, control, **kwargs):
        if self.gpu:
            torch.cuda.synchronize()
        if self.begun is None:
            self.answer(ready=True)
        else:
            device = torch.cuda.get_device_name() if self.gpu else f"CPU, {torch.get_num_threads()} threads"
            seconds = time.perf_counter() - self.begun
            self.answer(seconds=seconds, tokens=int(state.num_input_tokens_seen), device=device)
        # The first step makes the optimizer's state; memory is measured from the second on.
        if state.global_step == 1:
            forget_peak(self.gpu)
        if sys.stdin.readline() != "go\n":
            self.answer(megabytes=peak(self.gpu))
            os._exit(0)
        self.begun = time.perf_counter()

    def answer(self, **values) -> None:
        print(json.dumps(values), file=self.answers, flush=True)


def forget_peak(gpu: bool) -> None:
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak(gpu: bool) -> float:
    """Megabytes since `forget_peak`."""
    if gpu:
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    os.chdir(ROOT)
    if sys.argv[1:2] == ["--train"]:
        train(sys.argv[2], sys.argv[3:])
    else:
        main()
