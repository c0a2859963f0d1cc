"""`sdrrl lr`: the paper's automatically calculated learning rate (section 4.1), after Wang et al. (2023a, OpenChat).

    3e-4 * sqrt(valid tokens per step / 4M)

LLaMA-2's own rate and batch, scaled with the square root of the batch; valid are the tokens that are trained on: those
of the answers. They are counted by LLaMA-Factory's own code on the recipe's own data.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.factory import parse, training_set
from sdrrl_factory.files import atomic_write, refuse_foreign
from sdrrl_factory.models.checkpoint import check_checkpoint
from sdrrl_factory.recipe import kind_of, read

_RATE, _TOKENS = 3e-4, 4_000_000
_WRITTEN = "# with the learning rate that `sdrrl lr` calculated"


@dataclass(frozen=True)
class Batch:
    """What a training step is made of.

    sets: named training sets. rows: of all of them (a pack is one row). tokens: of all rows, those that are trained on.
    per_device, accumulation, processes: their product is the rows of a step.
    """

    sets: int
    rows: int
    tokens: int
    per_device: int
    accumulation: int
    processes: int

    @property
    def rows_per_step(self) -> int:
        return self.per_device * self.accumulation * self.processes

    @property
    def tokens_per_step(self) -> float:
        return self.tokens / self.rows * self.rows_per_step

    @property
    def learning_rate(self) -> float:
        return _RATE * (self.tokens_per_step / _TOKENS) ** 0.5


def print_rate(path: str, overrides: list[str], processes: int | None, output: str | None = None) -> None:
    """Print the counts, the formula, and the line for the train recipe at `path`.

    processes: in all; None reads ray_num_workers, or NPROC_PER_NODE and NNODES, which the training is started with.
    output: where the recipe is written with the rate in it.
    """
    recipe = read(path, overrides)
    if kind_of(recipe, "train") != "train":
        raise UserError("no recipe for train", "`sdrrl recipes` lists those for train", at=path)
    processes = processes or _processes(recipe.config)
    try:
        with recipe.locating():
            batch = count(recipe.config, processes)
    except UserError as err:
        # What LLaMA-Factory says names no key, and no next step.
        err.at, err.fix = err.at or path, err.fix or f"see `sdrrl doctor {path}`"
        raise
    each = f"{batch.tokens / batch.rows:.1f}"
    print(f"data     {batch.rows:,} rows in {batch.sets} sets, {batch.tokens:,} trained tokens: {each} a row")
    factors = {"row": batch.per_device, "accumulation": batch.accumulation, "process": batch.processes}
    plurals = {"row": "rows", "accumulation": "accumulations", "process": "processes"}
    product = " x ".join(f"{number} {name if number == 1 else plurals[name]}" for name, number in factors.items())
    print(f"step     {product} = {batch.rows_per_step} rows, {batch.tokens_per_step:,.0f} trained tokens")
    print(f"formula  {_RATE:.0e} * sqrt({batch.tokens_per_step:,.0f} / {_TOKENS:,})")
    if recipe.config.get("finetuning_type", "lora") != "full":
        print("note     the formula is for full-parameter training; others take more, LoRA often ten times as much")
    print(f"learning_rate: {batch.learning_rate:.3e}")
    if output:
        _write(output, recipe.config | {"learning_rate": float(f"{batch.learning_rate:.3e}")})


def _write(path: str, keys: dict[str, Any]) -> None:
    """The recipe, as `sdrrl lr` writes it; another file of that name is not replaced."""
    import yaml

    refuse_foreign(path, _WRITTEN)
    atomic_write(path, f"{_WRITTEN}\n{yaml.safe_dump(keys, sort_keys=False, allow_unicode=True)}")


def count(keys: Mapping[str, Any], processes: int) -> Batch:
    """Read, format and cut the data of a train recipe as training does, and count.

    Raises: UserError about a key of the recipe, or, where LLaMA-Factory says what is wrong, about none.
    """
    import datasets

    datasets.disable_progress_bars()
    model, data, training, finetuning = parse(dict(keys))
    if data.streaming:
        raise UserError("the data have no known size", "run `sdrrl lr RECIPE streaming=false`", key="streaming")
    if not data.dataset:
        raise UserError("dataset is missing", "name the training sets")
    with under("model_name_or_path"):
        check_checkpoint(model.model_name_or_path)
    rows = tokens = 0
    for batch in training_set(model, data, training, finetuning.stage).iter(1000):
        rows += len(batch["labels"])
        # The first position is never predicted.
        tokens += sum(label != -100 for labels in batch["labels"] for label in labels[1:])
    if not tokens:
        raise UserError(f"no token to train on in {', '.join(data.dataset)}", "raise cutoff_len or mend the data")
    sizes = training.per_device_train_batch_size, training.gradient_accumulation_steps
    return Batch(len(data.dataset), rows, tokens, *sizes, processes)


def _processes(keys: Mapping[str, Any]) -> int:
    variables = {name: os.environ.get(name, "1") for name in ("NPROC_PER_NODE", "NNODES")}
    for name, value in variables.items():
        if not value.isdigit() or not int(value):
            raise UserError(f"{name} is {value!r}", "set it to a number, or give --processes")
    workers = int(keys.get("ray_num_workers") or 0)
    return workers or int(variables["NPROC_PER_NODE"]) * int(variables["NNODES"])
