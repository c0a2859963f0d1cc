"""What a killed training leaves, and what of it is taken away before it goes on."""

import json

import pytest
import yaml

from sdrrl_factory.study.folders import make_ready


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"output_dir": str(tmp_path / "train"), "learning_rate": 0.1}))
    make_ready(path)
    return path


def checkpoint(folder, step, counter=0, state=None):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_text("weights")
    stopping = {"args": {"early_stopping_patience": 2}, "attributes": {"early_stopping_patience_counter": counter}}
    whole = json.dumps({"global_step": step, "stateful_callbacks": {"EarlyStoppingCallback": stopping}})
    (path / "trainer_state.json").write_text(whole if state is None else state)
    return path


def test_whole_checkpoints_stay_and_half_written_ones_go(recipe, tmp_path):
    train = tmp_path / "train"
    whole, half = checkpoint(train, 10, counter=1), checkpoint(train, 20, state='{"global_step": 2')
    (checkpoint(train, 30) / "trainer_state.json").unlink()
    (train / "model.safetensors").write_text("half of the weights")
    assert make_ready(recipe) == ""
    assert whole.is_dir() and not half.exists() and not (train / "checkpoint-30").exists()
    assert not (train / "model.safetensors").exists()


def test_a_finished_training_keeps_its_weights(recipe, tmp_path):
    train = tmp_path / "train"
    (train / "model.safetensors").write_text("weights")
    (train / "trainer_state.json").write_text('{"global_step": 20}')
    make_ready(recipe)
    assert (train / "model.safetensors").exists()


def test_what_early_stopping_ended_ends_there(recipe, tmp_path):
    checkpoint(tmp_path / "train", 10, counter=1)
    checkpoint(tmp_path / "train", 20, counter=2)
    assert make_ready(recipe) == "max_steps=20"


def test_another_recipe_begins_anew(recipe, tmp_path):
    old = checkpoint(tmp_path / "train", 10)
    recipe.write_text(recipe.read_text().replace("0.1", "0.2"))
    make_ready(recipe)
    assert not old.exists() and (tmp_path / "train/recipe.yaml").read_text() == recipe.read_text()
