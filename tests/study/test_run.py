"""Snakemake over a study's steps, with stand-ins for the programs: order, what is done again, a cluster."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import BIN, ROOT

pytest.importorskip("snakemake", reason="needs Snakemake: pip install 'sdrrl-factory[study]'")
pytestmark = pytest.mark.slow
SYSTEMS = "[tsft, sdrrl]"
# What the stand-ins leave cannot be checked as the real recipes are.
STUDY = (
    "import sys; from sdrrl_factory.study import run; run.check_recipes = lambda *given: None; "
    "from sdrrl_factory.cli import main; sys.exit(main(sys.argv[1:]))"
)


def programs(folder: Path) -> str:
    """A PATH on which `sdrrl` and `llamafactory-cli` are the stand-ins."""
    folder.mkdir()
    for name in ("sdrrl", "llamafactory-cli"):
        file = folder / name
        file.write_text(f"#!{sys.executable}\n{(ROOT / 'tests/study/stub.py').read_text()}")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return os.pathsep.join([str(folder), str(BIN), os.environ["PATH"]])


def study(folder: Path, *options: str, path: str = "") -> subprocess.CompletedProcess:
    overrides = [
        f"output_dir={folder}/study",
        f"kept={folder}/kept",
        f"tables_file={folder}/study/tables.md",
        f"tables=[{{name: main, budget: epochs, seeds: [1], systems: {SYSTEMS}, against: tsft}}]",
        "eval.tasks=[{task: text_loss, path: x}]",
        "train.learning_rate=auto",
        "resources={train: {gpus: 8, runtime: 90, mem_mb: 5000, environment: {NPROC_PER_NODE: '8'}}}",
    ]
    command = [sys.executable, "-c", STUDY, "study", str(ROOT / "yaml_recipes/study/small.yaml"), *overrides, *options]
    if not path:
        path = os.pathsep.join([str(folder / "bin"), str(BIN), os.environ["PATH"]])
    env = os.environ | {"PATH": path, "STUDY_CALLS": str(folder / "calls"), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500)


def calls(folder: Path) -> list[str]:
    """The programs' calls since the last look."""
    file = folder / "calls"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    programs(folder / "bin")
    done = study(folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def test_each_step_is_done_once_and_in_order(finished):
    said = calls(finished)
    names = [line.split()[-1].partition(".")[0] for line in said]
    assert sorted(names) == sorted(["prepare", *3 * ["eval"], *2 * ["rate"], *2 * ["train"], *2 * ["export"]])
    for system in ("tsft", "sdrrl"):
        own = [line.split()[-1].partition(".")[0] for line in said if f".{system}." in line]
        assert own == ["rate", "train", "export", "eval"]
    first = next(i for i, name in enumerate(names) if name == "rate")
    assert "prepare" in names[:first]
    # What is kept is enough for the tables, and small; the weights are gone.
    kept = {path.name for path in (finished / "kept/small/smollm2.spa.sdrrl.epochs.1").iterdir()}
    assert kept == {"results.json", "recipe.yaml", "items.json.gz", "training.json"}
    assert not list((finished / "study").rglob("*.safetensors"))
    table = (finished / "study/tables.md").read_text()
    # The stand-in's losses: SDRRL's is lower in each of eight sentences, 2 swaps of 256 are as far apart.
    assert "| text loss ↓, spa | 3.375† | <u>3.250</u> | **3.125**†‡ |" in table
    assert "p 0.008" in table


def test_a_finished_study_does_nothing(finished):
    calls(finished)
    done = study(finished)
    assert done.returncode == 0 and calls(finished) == []


@pytest.mark.exhaustive
def test_what_is_kept_is_not_measured_again_elsewhere(finished, tmp_path):
    """As after a clone: the folder of the study is not there, what was committed is."""
    shutil.copytree(finished / "kept", tmp_path / "kept")
    programs(tmp_path / "bin")
    shutil.rmtree(tmp_path / "kept/small/smollm2.spa.tsft.epochs.1")
    done = study(tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(".tsft." in line or " prepare" in line for line in calls(tmp_path))
    again = (tmp_path / "kept/small/smollm2.spa.tsft.epochs.1/items.json.gz").read_bytes()
    assert again == (finished / "kept/small/smollm2.spa.tsft.epochs.1/items.json.gz").read_bytes()


@pytest.mark.exhaustive
def test_another_key_measures_again_only_what_it_reaches(finished):
    calls(finished)
    done = study(finished, "own_systems={mine: {sets: [tt]}}", f"tables.0.systems={SYSTEMS[:-1]}, mine]")
    assert done.returncode == 0, done.stderr[-3000:]
    # SDRRL's data are made with the baselines': the same rows under the same name.
    assert all(".mine." in line or " prepare" in line for line in calls(finished))


SLURM = {
    # Runs what is wrapped at once, and remembers how it was asked for.
    "sbatch": """import os, re, subprocess, sys
args = sys.argv[1:]
wrapped = next(a for a in args if a.startswith("--wrap="))[7:]
log = os.environ["SLURM_STUB"]
number = sum(1 for _ in open(log)) + 1 if os.path.exists(log) else 1
open(log, "a").write(" ".join(a for a in args if not a.startswith("--wrap=")) + "\\n")
status = subprocess.run(["bash", "-c", wrapped], stdout=sys.stderr, env=os.environ | {"SLURM_JOB_ID": str(number)})
open(log + ".states", "a").write(f"{number}|{'FAILED' if status.returncode else 'COMPLETED'}\\n")
print(number)
""",
    "srun": """import os, sys
at = next(i for i, a in enumerate(sys.argv[1:], 1) if not a.startswith("-"))
os.execvp(sys.argv[at], sys.argv[at:])
""",
    "sacct": "import os\nprint(open(os.environ['SLURM_STUB'] + '.states').read())\n",
    "squeue": "import os\nprint(open(os.environ['SLURM_STUB'] + '.states').read())\n",
    "scontrol": "print('MinJobAge = 300 sec')\n",
    "sinfo": "print('test*')\n",
    "scancel": "",
    "sacctmgr": "print('test')\n",
}


@pytest.mark.exhaustive
def test_on_a_simulated_slurm_commands_resources_and_order_are_right(tmp_path, monkeypatch):
    pytest.importorskip("snakemake_executor_plugin_slurm")
    path = programs(tmp_path / "bin")
    for name, code in SLURM.items():
        file = tmp_path / "bin" / name
        file.write_text(f"#!{sys.executable}\n{code}")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("SLURM_STUB", str(tmp_path / "submitted"))
    options = "--executor slurm --jobs 4 --slurm-init-seconds-before-status-checks 1 --seconds-between-status-checks 1"
    options += " --default-resources slurm_account=test slurm_partition=test"
    done = study(tmp_path, "--snakemake", options, path=path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    submitted = (tmp_path / "submitted").read_text().splitlines()
    rules = [line.partition("--comment ")[2].split()[0].removeprefix("rule_") for line in submitted]
    # One job a step, but for what takes no time; each after those that it needs.
    assert len(rules) == len(set(rules)) == 10
    for system in ("tsft", "sdrrl"):
        steps = [f"{kind}_smollm2_spa_{system}_epochs_1" for kind in ("rate", "train", "export", "eval")]
        assert sorted(steps, key=rules.index) == steps
        training = submitted[rules.index(steps[1])]
        assert "-t 90" in training and "--mem 5000" in training and "gpu:8" in training
        assert "gpu" not in submitted[rules.index(steps[3])]
    assert {line.split()[1] for line in calls(tmp_path)} == {"prepare", "lr", "train", "export", "eval"}
