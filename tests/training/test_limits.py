"""What cannot be weighted exactly stops with one line."""

from types import SimpleNamespace

import pytest
from llamafactory.data.data_utils import merge_dataset

from sdrrl_factory.errors import UserError
from sdrrl_factory.training.limits import check_mix, refuse
from tests.training.workflow import BLOCK, MODEL, arguments

OF_TRAINING = ["label_smoothing_factor", "use_dft_loss", "use_eaft_loss", "use_asft_loss"]


@pytest.mark.parametrize("key", ["streaming", "predict_with_generate", *OF_TRAINING])
def test_what_cannot_be_exact_stops(key, tmp_path):
    with pytest.raises(UserError, match=f"^{key}.* cannot be weighted by subset"):
        refuse(MODEL, *arguments(tmp_path, BLOCK, **{key: 1}))


@pytest.mark.parametrize("key", ["use_kt"])
def test_models_that_cannot_be_exact_stop(key, tmp_path):
    model = SimpleNamespace(**vars(MODEL) | {key: True})
    with pytest.raises(UserError, match=f"{key}: true cannot be weighted"):
        refuse(model, *arguments(tmp_path, BLOCK))
    refuse(model, *arguments(tmp_path, BLOCK), trains=False)


@pytest.mark.parametrize("keys", [{"use_reentrant_gc": False}, {"disable_gradient_checkpointing": True}, {}])
def test_a_router_loss_without_a_gradient_stops(keys, tmp_path):
    """What it comes to in a step is compared with LLaMA-Factory's own in test_router.py."""
    model = SimpleNamespace(**vars(MODEL) | {"moe_aux_loss_coef": 0.1} | keys)
    if keys:
        refuse(model, *arguments(tmp_path, BLOCK))
        return
    with pytest.raises(UserError, match="moe_aux_loss_coef: 0.1 trains nothing under reentrant gradient checkpointing"):
        refuse(model, *arguments(tmp_path, BLOCK))


@pytest.mark.parametrize("key", OF_TRAINING)
def test_what_changes_the_training_alone_does_not_stop_a_weighted_evaluation(key, tmp_path):
    refuse(MODEL, *arguments(tmp_path, BLOCK, **{key: 1}), trains=False)


@pytest.mark.parametrize(
    ("stage", "device", "steps", "stops"),
    [(2, "cpu", 3, True), (1, "nvme", 8, True), (2, "cpu", 2, False), (2, "none", 8, False), (3, "cpu", 8, False)],
)
def test_offload_that_loses_gradients_stops(stage, device, steps, stops, tmp_path, monkeypatch):
    zero = {"zero_optimization": {"stage": stage, "offload_optimizer": {"device": device}}}
    keys = {"hf_deepspeed_config": SimpleNamespace(config=zero), "gradient_accumulation_steps": steps}
    run = arguments(tmp_path, BLOCK, **keys)
    refuse(MODEL, *run, trains=False)
    monkeypatch.setattr("sdrrl_factory.training.limits.version", lambda name: "0.18.4")
    if stops:
        with pytest.raises(UserError, match=f"ZeRO-{stage} offloads its optimizer"):
            refuse(MODEL, *run)
    else:
        refuse(MODEL, *run)
    monkeypatch.setattr("sdrrl_factory.training.limits.version", lambda name: "0.19.0")
    refuse(MODEL, *run)


def mix(strategy: str, probabilities=None, sets: int = 3) -> None:
    check_mix(
        SimpleNamespace(mix_strategy=strategy, interleave_probs=probabilities, streaming=False), sets, merge_dataset
    )


@pytest.mark.parametrize(
    ("strategy", "probabilities"),
    [
        ("concat", None),
        ("interleave_under", None),
        ("interleave_over", [0.5, 0.3, 0.2]),
        ("interleave_under", [1, 0, 0]),
    ],
)
def test_mixes_that_datasets_knows(strategy, probabilities):
    mix(strategy, probabilities)


@pytest.mark.parametrize(
    ("strategy", "probabilities", "said"),
    [
        ("interleave_twice", None, "'interleave_twice'"),
        ("mixed", None, "Unknown mixing strategy: mixed."),
        ("interleave_over", [0.5, 0.5], "same size"),
        ("interleave_over", [0.5, 0.9, 0.1], "sum to 1"),
        ("interleave_over", [0.5, 0.5, 0.0], "never ends"),
        ("interleave_under", [1.5, -0.5, 0.0], "probabilities are not non-negative|non-negative"),
    ],
)
def test_mixes_that_datasets_does_not_know_stop_before_anything_is_read(strategy, probabilities, said):
    with pytest.raises(UserError, match=f"^mix_strategy: {strategy}.*{said}") as stop:
        mix(strategy, probabilities)
    assert "\n" not in str(stop.value)
    mix(strategy, probabilities, sets=1)  # one set alone is never mixed


def test_a_strategy_newer_than_datasets_stops():
    """interleave_once came to LLaMA-Factory 0.9.4 before datasets had it for map-style sets (4.0 has it not)."""
    from datasets import Dataset

    rows = [Dataset.from_dict({"row": [0]})] * 2
    keys = SimpleNamespace(mix_strategy="interleave_once", interleave_probs=None, streaming=False)
    try:
        merge_dataset(rows, data_args=keys, seed=0)
    except ValueError:
        with pytest.raises(UserError, match="mix_strategy: interleave_once cannot mix these 3 sets"):
            mix("interleave_once")
    else:
        mix("interleave_once")
