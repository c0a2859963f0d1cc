"""The order of an epoch's rows: each once, each subset spread over the steps, whatever deals the rows out."""

import json

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from safetensors.torch import load_file
from scipy.stats import chisquare
from torch.utils.data import BatchSampler

from sdrrl_factory.training.order import StratifiedSampler, stratum_of_rows
from tests.training.commands import write_recipe
from tests.training.conftest import SIZES, WEIGHTS, log_of

SETS = {
    "the paper's sizes": [52002, 48000, 49000, 46500, 2000, 1000],
    "this folder's": list(SIZES.values()),
    "one row, two, many": [1, 2, 997],
    "alike": [40, 40, 40],
    "one": [7],
}


def sampler(sizes, seed=42, subsets=None) -> StratifiedSampler:
    subsets = range(len(sizes)) if subsets is None else subsets
    return StratifiedSampler(np.repeat(np.arange(len(sizes)), sizes), np.array(subsets), seed)


def order_of(sizes, epoch=0, **kwargs) -> np.ndarray:
    rows = sampler(sizes, **kwargs)
    rows.set_epoch(epoch)
    return np.array(list(rows))


def off_share(strata: np.ndarray, window: int) -> dict[int, float]:
    """By stratum: how far the rows of it, in any so many consecutive ones, are from its share at the most."""
    worst = {}
    for stratum in np.unique(strata):
        counts = np.convolve(strata == stratum, np.ones(window, dtype=int), mode="valid")
        worst[stratum] = abs(counts - window * (strata == stratum).mean()).max()
    return worst


@pytest.mark.parametrize("name", SETS)
def test_each_row_once_and_each_subset_at_even_distances(name):
    sizes = SETS[name]
    of_row = np.repeat(np.arange(len(sizes)), sizes)
    for seed in range(5):
        order = order_of(sizes, seed=seed)
        assert sorted(order) == list(range(sum(sizes)))
        for window in (1, 3, 8, 128, 1000):
            if window > sum(sizes):
                continue
            for d, off in off_share(of_row[order], window).items():
                assert off <= 1 + (len(sizes) - 2) * sizes[d] / sum(sizes) + 1e-9 or len(sizes) == 1


def test_a_shuffled_order_is_not_so():
    """The bound says something: rows of D_comp come in threes and fours, where they come alone."""
    sizes = SETS["the paper's sizes"]
    of_row = np.repeat(np.arange(6), sizes)
    shuffled = np.random.default_rng(0).permutation(of_row)
    assert off_share(shuffled, 128)[5] > 3
    steps = of_row[order_of(sizes)][: 128 * 1550].reshape(-1, 128)
    assert set((steps == 5).sum(1)) == {0, 1}
    assert set((steps == 4).sum(1)) == {1, 2}


def test_the_languages_of_a_subset_are_spread_within_it():
    """Three sets of LL, of clearly different sizes, and two of mt."""
    sizes, subsets = [600, 300, 30, 40, 20], [0, 0, 0, 1, 1]
    entries = np.repeat(np.arange(5), sizes)[order_of(sizes, subsets=subsets)]
    assert off_share(np.array(subsets)[entries], 99)[1] <= 1
    assert all(off <= 1 + 3 * sizes[e] / 990 + 1 for e, off in off_share(entries, 99).items())
    alone = entries[np.isin(entries, (3, 4))]
    assert all(off <= 1 + 1e-9 for off in off_share(alone, 6).values())


def test_the_order_is_drawn_from_seed_and_epoch_alone():
    sizes = [50, 5, 20]
    rows = sampler(sizes)
    first, again = list(rows), list(rows)
    assert first == again == list(order_of(sizes))
    others = [list(order_of(sizes, epoch=1)), list(order_of(sizes, seed=43))]
    assert all(first != other for other in others) and others[0] != others[1]
    # Not the seed's own successor: epoch 1 of seed 42 is not epoch 0 of seed 43, in whatever part.
    assert np.mean(np.array(others[0]) == np.array(others[1])) < 0.2
    assert len(order_of(sizes, seed=-1)) == 75


@pytest.mark.parametrize("row", [0, 37, 51, 58])
def test_a_row_comes_anywhere_in_the_epoch(row):
    """Over 2,000 seeds, the tenth of the epoch that a row of a large or a small subset comes in is uniform."""
    sizes = [50, 10]
    places = [int(np.flatnonzero(order_of(sizes, seed=seed) == row)[0]) for seed in range(2000)]
    assert chisquare(np.bincount(np.array(places) // 6, minlength=10)).pvalue > 1e-4


def test_any_two_rows_of_a_subset_follow_each_other():
    """Over 3,000 seeds, each of the 20 ordered pairs of five rows is as often the first two."""
    pairs = np.zeros((5, 5), dtype=int)
    for seed in range(3000):
        order = order_of([15, 5], seed=seed)
        first, second = order[order >= 15][:2] - 15
        pairs[first, second] += 1
    assert not pairs.diagonal().any()
    assert chisquare(pairs[~np.eye(5, dtype=bool)]).pvalue > 1e-4


@pytest.mark.parametrize("split", [False, True])
def test_each_step_of_several_ranks_has_its_share(split):
    """Accelerate's own dealing: batches of 4 over 4 ranks, 2 accumulations; no rank's order differs."""
    sizes, ranks, accumulations, rows = [900, 700, 50, 20], 4, 2, 4
    of_row = np.repeat(np.arange(4), sizes)
    dealt = []
    for rank in range(ranks):
        batches = BatchSampler(sampler(sizes), rows * ranks if split else rows, drop_last=False)
        dealt.append(list(BatchSamplerShard(batches, ranks, rank, split_batches=split)))
    micro = [[row for rank in range(ranks) for row in dealt[rank][i]] for i in range(len(dealt[0]))]
    assert sorted(set(row for batch in micro for row in batch)) == list(range(sum(sizes)))
    for start in range(0, len(micro) - accumulations, accumulations):
        step = of_row[np.concatenate(micro[start : start + accumulations])]
        for d, size in enumerate(sizes):
            share = size / sum(sizes)
            assert abs((step == d).sum() - len(step) * share) <= 1 + 2 * share


def test_a_pack_is_spread_as_its_heaviest_sample():
    weights = [0.7, 0.8, 16.0, 33.0]
    assert list(stratum_of_rows([[0, 1, 1], [0, 3, 2], [2, 0], [1]], weights)) == [1, 3, 2, 1]
    assert list(stratum_of_rows([3, 0, 1], weights)) == [3, 0, 1]
    assert len(stratum_of_rows([], weights)) == 0


EPOCHS = {"num_train_epochs": 3, "learning_rate": 0.01, "save_strategy": "steps", "save_steps": 1}
# torch does not load an optimizer's state to "cpu:0", the device of a rank among several on a CPU: SGD needs none.
WAYS = {
    "one process": (1, {"per_device_train_batch_size": 8, "optim": "adamw_torch", "learning_rate": 1e-3}),
    "two, accumulated": (
        2,
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "save_only_model": True},
    ),
    "one, packs": (1, {"per_device_train_batch_size": 3, "packing": True, "cutoff_len": 256, "save_only_model": True}),
}


def samples_of(out) -> np.ndarray:
    """(steps, subsets) the samples of each logged step."""
    return np.array([[line.get(f"samples_{d}", 0) for d in SIZES] for line in log_of(out) if "loss" in line])


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_run_goes_on_in_its_order(way, recipe, commands, tmp_path):
    """Three epochs; taken up from the middle of the second one, a run ends with the same parameters."""
    processes, more = WAYS[way]
    keys = recipe | EPOCHS | more | {"output_dir": str(tmp_path / "whole")}
    commands.train(write_recipe(tmp_path / "whole.yaml", keys), processes)
    steps = samples_of(tmp_path / "whole")
    epochs = steps.reshape(3, -1, 3)
    assert (epochs.sum(1) == list(SIZES.values())).all()
    if way != "one, packs":  # eight rows a step
        for d, size in enumerate(SIZES.values()):
            assert (abs(steps[:, d] - size / 2) <= 1 + size / 16).all()
    middle = len(steps) // 3 + 1
    resumed = {"resume_from_checkpoint": str(tmp_path / f"whole/checkpoint-{middle}"), "save_strategy": "no"}
    resumed |= {"output_dir": str(tmp_path / "resumed")}
    commands.train(write_recipe(tmp_path / "resumed.yaml", keys | resumed), processes)
    assert (samples_of(tmp_path / "resumed")[middle - len(steps) :] == steps[middle:]).all()
    whole, found = (load_file(tmp_path / out / "model.safetensors") for out in ("whole", "resumed"))
    for name, parameter in whole.items():
        assert (found[name] - parameter).norm() <= 1e-5 * parameter.norm()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_each_epoch_has_an_order_of_its_own(processes, recipe, commands, tmp_path):
    """At learning rate 0, where the same rows would have the same losses."""
    keys = recipe | {"num_train_epochs": 4, "learning_rate": 0.0, "per_device_train_batch_size": 8 // processes}
    commands.train(write_recipe(tmp_path / "r.yaml", keys), processes)
    losses = [line["loss_LL"] for line in log_of(tmp_path / "out") if "loss" in line]
    assert len(losses) == 8 and len({round(loss, 4) for loss in losses[::2]}) == 4


@pytest.mark.slow
def test_rows_that_are_not_to_be_shuffled_come_in_the_order_of_the_files(recipe, commands, tmp_path):
    keys = recipe | {"per_device_train_batch_size": 8, "disable_shuffling": True}
    printed = commands.train(write_recipe(tmp_path / "r.yaml", keys))
    steps = samples_of(tmp_path / "out")
    assert steps.tolist() == [[8, 0, 0], [1, 2, 5]]
    # The first line says what the log's numbers are, and so they are.
    assert "loss is the weighted mean that is trained on, loss_<subset> the plain mean" in printed
    weights = [WEIGHTS[d] * sum(SIZES.values()) / len(SIZES) / size for d, size in SIZES.items()]
    for line, samples in zip([line for line in log_of(tmp_path / "out") if "loss" in line], steps, strict=True):
        plain = [line.get(f"loss_{d}", 0.0) for d in SIZES]
        assert line["loss"] == pytest.approx(np.average(np.multiply(weights, plain), weights=samples), rel=1e-4)


@pytest.mark.slow
def test_rows_grouped_by_length_stay_so(recipe, commands, tmp_path):
    """transformers sorts four rows at a time here, the longest first, and then swaps first ones alone."""
    keys = recipe | {"per_device_train_batch_size": 1, "group_by_length": True, "include_num_input_tokens_seen": "all"}
    commands.train(write_recipe(tmp_path / "r.yaml", keys))
    state = json.loads((tmp_path / "out/trainer_state.json").read_text())
    tokens = [line["num_input_tokens_seen"] for line in state["log_history"] if "loss" in line]
    lengths = np.diff([0, *tokens]).reshape(4, 4)
    assert (np.diff(lengths[:, 1:]) <= 0).all() and lengths[0, 0] == lengths.max()
