"""`sdrrl lr`: the paper's automatically calculated learning rate (section 4.1), after Wang et al. (2023a, OpenChat).

    3e-4 * sqrt(valid tokens per step / 4M)

LLaMA-2's own rate and batch, scaled with the square root of the batch; valid are the tokens that are trained on: those
of the answers. They are counted by LLaMA-Factory's own code on the recipe's own data.
"""

import os
from dataclasses import dataclass

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.factory import parse, training_set
from sdrrl_factory.models.checkpoint import check_checkpoint
from sdrrl_factory.recipe import read

_RATE, _TOKENS = 3e-4, 4_000_000


@dataclass(frozen=True)
class Batch:
    """sets: named training sets; rows: of all (a pack is one row); tokens: of all that are trained.

    per_device, accumulation, processes: what a step is made of.
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


def tell(path: str, overrides: list[str], processes: int | None) -> None:
    """Print the counts, the formula, and the line for the recipe at `path`.

    processes: in all; None reads ray_num_workers, or NPROC_PER_NODE and NNODES, which the training is started with.
    """
    recipe = read(path, overrides).config
    batch = count(path, recipe, processes or _processes(recipe))
    each = f"{batch.tokens / batch.rows:.1f}"
    print(f"data     {batch.rows:,} rows in {batch.sets} sets, {batch.tokens:,} trained tokens: {each} a row")
    parts = [(batch.per_device, "rows"), (batch.accumulation, "accumulations"), (batch.processes, "processes")]
    made_of = " x ".join(f"{n} {what[:-1] if n == 1 else what}" for n, what in parts)
    print(f"step     {made_of} = {batch.rows_per_step} rows, {batch.tokens_per_step:,.0f} trained tokens")
    print(f"formula  {_RATE:.0e} * sqrt({batch.tokens_per_step:,.0f} / {_TOKENS:,})")
    if recipe.get("finetuning_type", "lora") != "full":
        print("note     the formula is for full-parameter training; others take more, LoRA often ten times as much")
    print(f"learning_rate: {batch.learning_rate:.3e}")


def count(path: str, recipe: dict, processes: int) -> Batch:
    """Read, format and cut the recipe's data as training does, and count."""
    import datasets

    datasets.disable_progress_bars()
    try:
        model, data, training, finetuning = parse(recipe)
    except UserError as err:
        raise UserError(err.what, err.fix, at=path) from None
    if data.streaming:
        raise UserError(f"{path}: streaming: the data have no known size; run `sdrrl lr {path} streaming=false`")
    if not data.dataset:
        raise UserError(f"{path}: dataset is missing; name the training sets")
    rows = tokens = 0
    with under("model_name_or_path"):
        check_checkpoint(model.model_name_or_path)
    try:
        rows_of_all = training_set(model, data, training, finetuning.stage)
    except UserError as err:
        raise UserError(err.what, f"see `sdrrl doctor {path}`", at=path) from None
    for batch in rows_of_all.iter(1000):
        rows += len(batch["labels"])
        # The first position is never predicted.
        tokens += sum(label != -100 for labels in batch["labels"] for label in labels[1:])
    if not tokens:
        raise UserError(f"{path}: no token to train on in {', '.join(data.dataset)}; raise cutoff_len or mend the data")
    sizes = training.per_device_train_batch_size, training.gradient_accumulation_steps
    return Batch(len(data.dataset), rows, tokens, *sizes, processes)


def _processes(recipe: dict) -> int:
    named = {key: os.environ.get(key, "1") for key in ("NPROC_PER_NODE", "NNODES")}
    for key, value in named.items():
        if not value.isdigit() or not int(value):
            raise UserError(f"{key} is {value!r}; set it to a number, or give --processes")
    return int(recipe.get("ray_num_workers") or 0) or int(named["NPROC_PER_NODE"]) * int(named["NNODES"])
