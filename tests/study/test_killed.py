"""A study of a tiny model, whole: prepared, trained, exported, measured; killed, it ends as if nothing had been."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import BIN, ROOT

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(
        shutil.which("apertium") is None or not Path("/usr/share/dictd/freedict-eng-spa.index").exists(),
        reason="needs Apertium and FreeDict: apt-get install apertium apertium-eng-spa dict-freedict-eng-spa",
    ),
]


def command(tiny: Path, folder: Path) -> list[str]:
    """The small study in minutes: a tiny model, few rows, a checkpoint every three steps."""
    return [
        str(BIN / "sdrrl"),
        "study",
        str(ROOT / "yaml_recipes/study/small.yaml"),
        f"output_dir={folder}/study",
        f"kept={folder}/kept",
        f"tables_file={folder}/tables.md",
        f"backbones.0.model={tiny}",
        "tables=[{name: main, budget: epochs, seeds: [1], systems: [tsft, sdrrl, no_code_switch], against: tsft}]",
        "budgets={epochs: {max_steps: 30, eval_strategy: steps, eval_steps: 3, save_strategy: steps, save_steps: 3}}",
        f"prepare.instructions={ROOT}/data/seeds/english_instructions.jsonl",
        "prepare.max_samples=30",
        "prepare.shard_size=10",
        "prepare.generator.max_new_tokens=8",
        "prepare.parallel.size=20",
        "train.early_stopping_steps=2",
        "train.learning_rate=1.0e-2",
        "train.val_size=0.2",
        f"eval.tasks=[{{task: translation, path: {ROOT}/data/heldout/sentences}}, "
        f"{{task: text_loss, path: {ROOT}/data/heldout/sentences}}]",
        "eval.max_samples=8",
        "eval.max_new_tokens=8",
        "--cores",
        "2",
    ]


def start(arguments: list[str], folder: Path) -> subprocess.Popen:
    env = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    with open(folder / "said", "a") as said:
        return subprocess.Popen(arguments, cwd=ROOT, env=env, stdout=said, stderr=said, start_new_session=True)


def kept(folder: Path) -> dict[str, tuple]:
    """Of each run the checksum of its weights, its scores, and the losses of its training."""
    runs = {}
    for run in sorted((folder / "kept/small").iterdir()):
        results = json.loads((run / "results.json").read_text())
        file = run / "training.json"
        training = json.loads(file.read_text()) if file.exists() else {}
        losses = {(line["step"], "loss" in line): line for line in training.get("log", []) if "step" in line}
        runs[run.name] = (results["model_hash"], results["scores"], training.get("best_step"), losses)
    return runs


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory) -> tuple[Path, float]:
    """The folder of a study that nobody killed, and the seconds it took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    begun = time.monotonic()
    status = start(command(tiny, folder), folder).wait(1500)
    assert status == 0, (folder / "said").read_text()[-5000:]
    return folder, time.monotonic() - begun


def test_the_table_has_every_system(undisturbed):
    folder, _ = undisturbed
    table = (folder / "tables.md").read_text()
    assert "| smollm2 | T-SFT | SDRRL | - Code Switching |" in table and "not measured yet" not in table
    assert len(kept(folder)) == 4
    # The weights went with their training's end.
    assert not list((folder / "study").rglob("*.safetensors"))


def test_a_second_run_does_nothing(tiny, undisturbed):
    folder, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != "said"}
    assert start(command(tiny, folder), folder).wait(300) == 0
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != "said"}
    own = {path for path in after if ".snakemake" in path.parts or path.name in ("steps.json", ".lock")}
    assert {path for path in after if before.get(path) != after[path]} <= own


def test_killed_at_ten_random_moments_it_ends_as_if_undisturbed(tiny, undisturbed, tmp_path):
    reference, seconds = undisturbed
    moments = random.Random(14)
    for kill in range(10):
        running = start(command(tiny, tmp_path), tmp_path)
        time.sleep(moments.uniform(0.03, 0.25) * seconds)
        if running.poll() is None:
            # All of it, as when a machine goes down, or the study alone, whose command in work goes on.
            end = os.killpg if kill % 2 else os.kill
            end(running.pid, signal.SIGKILL)
        running.wait()
    assert start(command(tiny, tmp_path), tmp_path).wait(1500) == 0, (tmp_path / "said").read_text()[-5000:]
    assert kept(tmp_path) == kept(reference)
    for file in (reference / "study/data").rglob("*.jsonl"):
        assert (tmp_path / "study/data" / file.relative_to(reference / "study/data")).read_bytes() == file.read_bytes()
