"""Steps with evaluations between them, over two processes: equation 6 by brute force in float64, step by step."""

import json

import pytest

from tests.training.commands import write_recipe
from tests.training.conftest import TRAINING, WEIGHTS, distance, log_of, weighted
from tests.training.test_equation6 import zero

pytestmark = pytest.mark.slow

WAYS = {"DDP": None, "ZeRO-2": 2, "ZeRO-3": 3}
# Two ranks x three rows: rounds of 6, 6 and 4 rows; the last one is filled up by two of the first.
SIZE, RANKS = 3, 2
EVALUATING = {
    "eval_dataset": "held_LL,held_mt",
    "eval_strategy": "steps",
    "eval_steps": 1,
    "per_device_eval_batch_size": 4,
}
BEST = {
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_loss",
    "greater_is_better": False,
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": 1,
}
BETWEEN = {
    "nothing": {},
    "each step": EVALUATING,
    "on start": EVALUATING | {"eval_on_start": True, "eval_strategy": "epoch"},
    "each epoch, the best loaded": EVALUATING | BEST | {"eval_strategy": "epoch", "save_strategy": "epoch"},
    # Nothing gets worse at this rate: the run goes to its end.
    "early stopping": EVALUATING | BEST | {"early_stopping_steps": 2},
}


def of_way(recipe: dict, way: str, path) -> dict:
    keys = recipe | {"per_device_train_batch_size": SIZE, "disable_shuffling": True, "num_train_epochs": 2}
    keys |= {"learning_rate": 0.01}
    if WAYS[way]:
        keys["deepspeed"] = zero(WAYS[way], path)
    if WAYS[way] == 3:
        del keys["use_cpu"]
    return keys


@pytest.fixture(scope="module")
def steps(exact):
    """The logged loss of every step, and the parameters before and after all of them."""
    model, samples, losses = exact("full"), weighted(TRAINING), []
    before = model.parameters()
    for _ in range(2):
        for start in range(0, len(samples), SIZE * RANKS):
            batch = samples[start : start + SIZE * RANKS]
            losses.append(sum(weight * model.loss(row).item() for weight, row in batch) / len(batch))
            model.step(batch, rate=0.01)
    return losses, before, model.parameters()


@pytest.mark.parametrize("between", [*BETWEEN, "a callback that generates"])
@pytest.mark.parametrize("way", WAYS)
def test_evaluation_between_the_steps_changes_none(way, between, recipe, steps, commands, tmp_path):
    keys = of_way(recipe, way, tmp_path / "zero.json") | BETWEEN.get(between, {})
    patch = "" if between in BETWEEN else "generate_between"
    commands.train(write_recipe(tmp_path / "r.yaml", keys), processes=RANKS, patch=patch)
    losses, before, after = steps
    log = [line for line in log_of(tmp_path / "out") if "loss" in line]
    assert [line["loss"] for line in log] == pytest.approx(losses, rel=1e-5)
    # Every row of every subset once in each of the two epochs.
    samples = {d: sum(line.get(f"samples_{d}", 0) for line in log) for d in WEIGHTS}
    assert samples == {d: 2 * len(rows) for d, rows in TRAINING.items()}
    assert distance(before, after, tmp_path / "out/model.safetensors") < 1e-4
    state = json.loads((tmp_path / "out/trainer_state.json").read_text())
    assert state["global_step"] == len(losses)
    assert sum("eval_loss" in line for line in state["log_history"]) >= 2 * bool(BETWEEN.get(between))
