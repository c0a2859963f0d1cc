"""What a run leaves and takes up again: tokenized sets, a killed run, early stopping; and stock runs, untouched."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from safetensors.torch import load_file

from tests.conftest import BIN
from tests.training.commands import train_from_start, write_recipe
from tests.training.conftest import TRAINING, WEIGHTS, distance, log_of, weighted

pytestmark = pytest.mark.slow


def subsets_line(printed: str) -> str:
    return next(line for line in printed.splitlines() if line.startswith("sdrrl: subset-weighted"))


def again(recipe: dict, commands, tmp_path, name: str, **keys):
    """Train into a folder of that name; returns what was printed."""
    return commands.train(write_recipe(tmp_path / f"{name}.yaml", recipe | {"output_dir": str(tmp_path / name)} | keys))


@pytest.mark.parametrize("packing", [{}, {"neat_packing": True, "cutoff_len": 256}], ids=["plain", "neat packing"])
def test_tokenized_sets_are_used_again(packing, recipe, data, exact, commands, tmp_path):
    shutil.copytree(data, tmp_path / "sets")
    keys = recipe | packing | {"tokenized_path": str(tmp_path / "kept"), "eval_dataset": "held_LL"}
    keys["dataset_dir"] = str(tmp_path / "sets")
    first = again(keys, commands, tmp_path, "first")
    # The names of the recipe are ignored then, by LLaMA-Factory too.
    second = again(keys, commands, tmp_path, "second", dataset="plain", eval_dataset=None)
    assert "LL 9 rows x 0.5926, TT 2 rows x 2.667, mt 5 rows x 0.5333" in subsets_line(first)
    assert subsets_line(first) == subsets_line(second)
    assert "is used again, with x_LL, x_TT, x_mt, held_LL; the data keys of the recipe" in second
    assert "has changed since" not in second and "is used again" not in first

    # A weight edited since counts: no row has to be tokenized again for it.
    info = json.loads((tmp_path / "sets/dataset_info.json").read_text())
    info["x_mt"]["sdrrl"]["weight"] = 2.0
    (tmp_path / "sets/dataset_info.json").write_text(json.dumps(info))
    third = again(keys, commands, tmp_path, "third")
    assert "has changed since, and counts: x_mt is now mt x 2, was mt x 0.5" in third
    assert "LL 9 rows x 0.5926, TT 2 rows x 2.667, mt 5 rows x 2.133" in subsets_line(third)
    for out, weights in {"first": WEIGHTS, "second": WEIGHTS, "third": WEIGHTS | {"mt": 2.0}}.items():
        model = exact("full")
        before = model.parameters()
        model.step(weighted(TRAINING, weights))
        assert distance(before, model.parameters(), tmp_path / out / "model.safetensors") < 1e-4


def test_tokenized_sets_train_unweighted_with_the_plugin_off(recipe, exact, commands, tmp_path):
    """LLaMA-Factory's own loss, the mean over all trained tokens, on the rows of the kept sets."""
    keys = recipe | {"tokenized_path": str(tmp_path / "kept"), "neat_packing": True, "cutoff_len": 256}
    again(keys, commands, tmp_path, "first")
    path = write_recipe(tmp_path / "off.yaml", keys | {"output_dir": str(tmp_path / "off")})
    train_from_start(path, SDRRL_FACTORY_DISABLE="1")
    model = exact("full")
    before = model.parameters()
    samples = [row for part in TRAINING.values() for row in part]
    tokens = [
        len(model.tokenizer(row["output"] + "<|im_end|>\n", add_special_tokens=False)["input_ids"]) for row in samples
    ]
    model.step([(n * len(samples) / sum(tokens), row) for n, row in zip(tokens, samples, strict=True)])
    assert distance(before, model.parameters(), tmp_path / "off/model.safetensors") < 1e-4


def test_tokenized_sets_that_cannot_be_read_stop(recipe, commands, tmp_path):
    keys = recipe | {"tokenized_path": str(tmp_path / "kept")}
    again(keys, commands, tmp_path, "first")
    next((tmp_path / "kept/train").glob("*.arrow")).unlink()
    printed = commands.train(write_recipe(tmp_path / "r.yaml", keys), status=2)
    assert "kept cannot be read, or an older sdrrl-factory wrote it; remove it" in printed
    assert "Traceback" not in printed


def test_tokenized_sets_of_stock_stop(recipe, tmp_path):
    keys = recipe | {"tokenized_path": str(tmp_path / "kept")}
    (tmp_path / "kept/train").mkdir(parents=True)
    done = train_from_start(write_recipe(tmp_path / "r.yaml", keys), check=False)
    assert done.returncode == 2 and "was written without this plugin and tells no subsets" in done.stderr


LONG = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "optim": "adamw_torch",
    "learning_rate": 1e-3,
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": 2,
}


@pytest.mark.exhaustive
def test_a_killed_run_goes_on(recipe, commands, tmp_path):
    """SIGKILL in the second of three epochs of four steps."""
    keys = recipe | LONG
    commands.train(write_recipe(tmp_path / "whole.yaml", keys | {"output_dir": str(tmp_path / "whole")}))
    path = write_recipe(tmp_path / "r.yaml", keys)
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    with open(tmp_path / "printed", "w") as printed:
        run = subprocess.Popen(
            ["llamafactory-cli", "train", str(path)], env=environment, stdout=printed, stderr=printed, cwd=tmp_path
        )
        while not (tmp_path / "out/checkpoint-5/trainer_state.json").exists():
            assert run.poll() is None, (tmp_path / "printed").read_text()[-3000:]
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert not (tmp_path / "out/model.safetensors").exists()
    last = max((tmp_path / "out").glob("checkpoint-*/trainer_state.json"), key=lambda f: f.stat().st_mtime).parent
    commands.train(write_recipe(tmp_path / "r.yaml", keys | {"resume_from_checkpoint": str(last)}))
    whole, found = (load_file(tmp_path / out / "model.safetensors") for out in ("whole", "out"))
    for name, parameter in whole.items():
        assert (found[name] - parameter).norm() <= 1e-5 * parameter.norm()


def test_early_stopping_looks_at_the_weighted_loss(recipe, commands, tmp_path):
    """At learning rate 0 nothing improves: the second evaluation that is no better ends the run."""
    keys = recipe | LONG | {"learning_rate": 0.0, "eval_dataset": "held_LL,held_mt", "optim": "sgd"}
    keys |= {"eval_strategy": "steps", "eval_steps": 1, "early_stopping_steps": 2, "load_best_model_at_end": True}
    printed = commands.train(write_recipe(tmp_path / "r.yaml", keys | {"metric_for_best_model": "eval_loss"}))
    state = json.loads((tmp_path / "out/trainer_state.json").read_text())
    assert state["global_step"] == 3 and state["max_steps"] == 12
    losses = [line["eval_loss"] for line in state["log_history"] if "eval_loss" in line]
    assert len(losses) == 3 and state["best_metric"] == losses[0] == losses[2]
    assert "; evaluation: LL 3 rows x 1.167, mt 4 rows x 0.4375" in printed


def test_without_a_block_stock_is_untouched(recipe, data, commands, tmp_path):
    """The same losses and the same parameters, to the last bit, with the plugin live and switched off."""
    info = json.loads((data / "dataset_info.json").read_text())
    for entry in info.values():
        entry.pop("sdrrl", None)
        entry["file_name"] = str(data / entry["file_name"])
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/dataset_info.json").write_text(json.dumps(info))
    keys = recipe | LONG | {"dataset_dir": str(tmp_path / "plain"), "save_strategy": "no", "num_train_epochs": 1}
    live, off = ({"output_dir": str(tmp_path / name)} for name in ("live", "off"))
    commands.train(write_recipe(tmp_path / "live.yaml", keys | live))
    train_from_start(write_recipe(tmp_path / "off.yaml", keys | off), SDRRL_FACTORY_DISABLE="1")
    losses = [[line["loss"] for line in log_of(tmp_path / name) if "loss" in line] for name in ("live", "off")]
    assert len(losses[0]) == 4 and losses[0] == losses[1]
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("live", "off")]
    assert files[0] == files[1]
