"""The samples of a global batch: whatever deals them out, and whatever else counts them."""

import pytest

from tests.training.commands import write_recipe
from tests.training.conftest import TRAINING, WEIGHTS, distance, log_of, weighted

pytestmark = pytest.mark.slow


def epoch(exact, samples: int):
    """The losses of an epoch's steps of so many samples, and the parameters before and after, in float64."""
    model, rows, losses = exact("full"), weighted(TRAINING), []
    before = model.parameters()
    for start in range(0, len(rows), samples):
        batch = rows[start : start + samples]
        losses.append(sum(weight * model.loss(row).item() for weight, row in batch) / len(batch))
        model.step(batch)
    return losses, before, model.parameters()


def check(exact, out, samples: int):
    losses, before, after = epoch(exact, samples)
    log = [line for line in log_of(out) if "loss" in line]
    assert [line["loss"] for line in log] == pytest.approx(losses, rel=1e-4)
    assert distance(before, after, out / "model.safetensors") < 1e-4
    counted = {d: sum(line.get(f"samples_{d}", 0) for line in log) for d in WEIGHTS}
    assert counted == {d: len(rows) for d, rows in TRAINING.items()}


# (the recipe's keys, processes, samples of a step). 16 rows: no step size divides them, the last round is filled up.
DEALT = {
    "a batch for each rank": ({"per_device_train_batch_size": 5}, 2, 10),
    "a batch split over the ranks": (
        {"per_device_train_batch_size": 10, "accelerator_config": {"split_batches": True}},
        2,
        10,
    ),
    "split, accumulated": (
        {
            "per_device_train_batch_size": 6,
            "gradient_accumulation_steps": 2,
            "accelerator_config": {"split_batches": True},
        },
        2,
        12,
    ),
    "accumulated, a rank without a row of its own": (
        {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2},
        3,
        18,
    ),
    "a last batch left uneven": (
        {"per_device_train_batch_size": 6, "accelerator_config": {"even_batches": False}},
        1,
        6,
    ),
    "more places than rows": ({"per_device_train_batch_size": 20}, 2, 40),
}


@pytest.mark.parametrize("dealt", DEALT)
def test_each_sample_counts_once(dealt, recipe, exact, commands, tmp_path):
    keys, processes, samples = DEALT[dealt]
    commands.train(write_recipe(tmp_path / "r.yaml", recipe | {"disable_shuffling": True} | keys), processes=processes)
    check(exact, tmp_path / "out", samples)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_count_put_into_transformers_changes_nothing(processes, recipe, exact, commands, tmp_path):
    keys = recipe | {"disable_shuffling": True, "per_device_train_batch_size": 6 // processes}
    commands.train(write_recipe(tmp_path / "r.yaml", keys), processes=processes, patch="count_tokens")
    check(exact, tmp_path / "out", 6)


@pytest.mark.parametrize(
    "patch, said",
    [
        ("count_tokens_in_ours", "the samples of a step are not counted"),
        ("divide_the_loss", "the loss of a step is divided once more"),
        ("lose_a_sample", "15 of the 16 samples of a step are computed"),
    ],
)
def test_what_cannot_be_counted_stops(patch, said, recipe, commands, tmp_path):
    keys = recipe | {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    printed = commands.train(write_recipe(tmp_path / "r.yaml", keys), status=2, patch=patch)
    line = [line for line in printed.splitlines() if said in line]
    assert len(line) == 1 and f"sdrrl: {said}" in line[0] and "use_unsloth: false" in line[0]
    assert "Traceback" not in printed and not (tmp_path / "out/model.safetensors").exists()


def test_batches_handed_out_by_one_rank_stop(recipe, commands, tmp_path):
    keys = recipe | {"accelerator_config": {"dispatch_batches": True}}
    printed = commands.train(write_recipe(tmp_path / "r.yaml", keys), status=2)
    assert "dispatch_batches: true cannot be weighted by subset" in printed and "Traceback" not in printed
