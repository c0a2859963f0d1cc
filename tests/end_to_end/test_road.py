"""The whole road as a user walks it, on a tiny model: prepare, llamafactory-cli train and export, eval, compare."""

import json
import random
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, command
from tests.end_to_end.conftest import SUBSETS, files, needs_programs, prepare_command, sets

pytestmark = [pytest.mark.slow, needs_programs]


def shards(folder: Path) -> dict[str, int]:
    """Every finished shard with the time it was written."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.glob("work/*/*/0*.jsonl")}


def test_prepare_registers_six_subsets(undisturbed):
    info = json.loads((undisturbed / "data/dataset_info.json").read_text())
    assert list(info) == [f"demo_spa_{s}" for s in SUBSETS]
    for subset in SUBSETS:
        entry = info[f"demo_spa_{subset}"]
        rows = [json.loads(line) for line in (undisturbed / "data" / entry["file_name"]).read_text().splitlines()]
        assert rows and all(row["subset"].lower() == subset and row["instruction"] and row["output"] for row in rows)
        assert entry["sdrrl"]["subset"].lower() == subset
    printed = (undisturbed / "printed").read_text()
    assert f"dataset: {','.join(info)}" in printed
    assert "30 held out" not in printed  # max_samples stops before them


def test_a_second_run_does_nothing_again_and_changes_nothing(tiny, undisturbed):
    before, written = files(undisturbed), shards(undisturbed)
    printed = command(*prepare_command(tiny, undisturbed)).stdout
    assert files(undisturbed) == before and shards(undisturbed) == written
    assert "generate  40 records" in printed and "4 of 4 shards reused" in printed


@pytest.mark.parametrize("moment", ["generate", "translate", "switch"])
def test_killed_at(moment, tiny, undisturbed, tmp_path):
    """SIGKILL right after the stage's first shard is there; the next run ends with the same bytes."""
    (tmp_path / "data").mkdir()
    process = subprocess.Popen(
        prepare_command(tiny, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob(f"work/*/{moment}/0*.jsonl")):
        assert process.poll() is None and time.monotonic() < deadline, "ended before the moment came"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = shards(tmp_path)
    assert not (tmp_path / "data/dataset_info.json").exists()
    forbid_answering_again(tmp_path / "memory.sqlite")
    command(*prepare_command(tiny, tmp_path))
    assert files(tmp_path) == files(undisturbed)
    again = shards(tmp_path)
    assert {path: again[path] for path in done} == done, "a finished shard was made again"


def test_neither_shard_size_nor_order_matter(tiny, undisturbed, tmp_path):
    """Shards of 7 and of 500, rows shuffled: sorted, the same lines; the model answers in other batches each time."""
    rows = (ROOT / "data/seeds/english_instructions.jsonl").read_text(encoding="utf-8").splitlines()[:40]
    for size in (7, 500):
        folder = tmp_path / str(size)
        (folder / "data").mkdir(parents=True)
        random.Random(size).shuffle(rows)
        (folder / "in.jsonl").write_text("\n".join(rows), encoding="utf-8")
        command(*prepare_command(tiny, folder, f"shard_size={size}", f"instructions={folder}/in.jsonl"))
        for name, data in sets(undisturbed).items():
            assert sorted(sets(folder)[name].splitlines()) == sorted(data.splitlines()), (size, name)


def test_two_languages_at_once_lose_no_entry(tiny, tmp_path):
    """Two processes on one data folder, one work folder: the second waits for the first one's answers and uses them."""
    (tmp_path / "data").mkdir()
    codes = ("spa", "por")
    runs = []
    for code in codes:
        keys = [f"target_lang={code}", "translator.via=[spa]", "code_switch.probability=0", "max_samples=10"]
        runs.append(subprocess.Popen(prepare_command(tiny, tmp_path, *keys), stdout=subprocess.DEVNULL, cwd=ROOT))
    assert [run.wait(300) for run in runs] == [0, 0]
    info = json.loads((tmp_path / "data/dataset_info.json").read_text())
    assert sorted(info) == sorted(f"demo_{code}_{s}" for code in codes for s in SUBSETS)
    # One shard a round of draws, whichever language asked for it: equal rounds have equal names.
    made = {stage: len(list(tmp_path.glob(f"work/demo/{stage}/*.jsonl"))) for stage in ("sample", "generate", "settle")}
    assert made["sample"] == made["generate"] == made["settle"] > 0


def forbid_answering_again(memory: Path) -> None:
    """From here on, an answer or a translation that is there already may not be stored a second time."""
    with sqlite3.connect(memory) as db:
        db.execute(
            "CREATE TRIGGER once BEFORE INSERT ON memory WHEN EXISTS (SELECT 1 FROM memory m WHERE"
            " m.kind = NEW.kind AND m.key = NEW.key) BEGIN SELECT RAISE(ABORT, 'answered again'); END"
        )


def test_the_road(tiny, undisturbed, tmp_path):
    """Training, export and evaluation with the demo's own recipes and nothing but keys on the command line."""
    train, exported = tmp_path / "train", tmp_path / "export"
    keys = [f"dataset_dir={undisturbed}/data", f"output_dir={train}", f"model_name_or_path={tiny}", "max_steps=8"]
    recipe = ROOT / "yaml_recipes/train/demo_spa_sdrrl.yaml"
    printed = command("llamafactory-cli", "train", recipe, *keys, "logging_steps=4").stdout
    line = next(line for line in printed.splitlines() if line.startswith("sdrrl:"))
    assert all(f"{subset} " in line for subset in ("LL", "TL", "LT", "TT", "mt", "comp"))
    assert "loss_mt" in (train / "trainer_log.jsonl").read_text()

    recipe = ROOT / "yaml_recipes/export/demo_spa.yaml"
    command("llamafactory-cli", "export", recipe, f"model_name_or_path={train}", f"export_dir={exported}")
    for name, model in (("base", tiny), ("trained", exported)):
        command(
            "sdrrl",
            "eval",
            ROOT / "yaml_recipes/eval/demo_spa.yaml",
            f"model={model}",
            f"output_dir={tmp_path / name}",
            "max_samples=4",
            "max_new_tokens=8",
        )
    scores = json.loads((tmp_path / "trained/results.json").read_text())["scores"]
    assert {s["metric"] for s in scores} == {"text_loss", "bleu", "chrf", "answer_loss", "off_target"}
    done = command(
        "sdrrl", "compare", tmp_path / "base", tmp_path / "trained", "--train-log", train / "trainer_log.jsonl"
    )
    assert "Spanish" in done.stdout and "English" in done.stdout
    page = (tmp_path / "trained/report.html").read_text()
    assert "<svg" in page and "TL" in page


def test_zero2_over_two_processes_prints_one_line_and_trains(tiny, undisturbed, tmp_path):
    keys = [
        f"dataset_dir={undisturbed}/data",
        f"output_dir={tmp_path}/out",
        f"model_name_or_path={tiny}",
        "max_steps=2",
    ]
    done = command(
        "llamafactory-cli",
        "train",
        ROOT / "yaml_recipes/train/demo_spa_sdrrl_zero2.yaml",
        *keys,
        FORCE_TORCHRUN="1",
        NPROC_PER_NODE="2",
        DS_ACCELERATOR="cpu",
        OMP_NUM_THREADS="1",
    )
    assert done.stdout.count("sdrrl: subset-weighted loss") == 1
    assert (tmp_path / "out/model.safetensors").is_file()
