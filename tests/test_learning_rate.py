"""`sdrrl lr` against counts by hand."""

import json
import math
import re

import pytest

from sdrrl_factory.cli import main
from sdrrl_factory.learning_rate import Batch
from tests.conftest import write_rows

ROWS = [("Say a.", "a"), ("Say bb.", "bb bb bb"), ("Say more.", "the rain in Spain falls mainly " * 4)]


@pytest.fixture
def recipe(tiny, tmp_path):
    """A train recipe on two sets; returns its path."""
    write_rows(tmp_path / "one.jsonl", [{"instruction": q, "input": "", "output": a} for q, a in ROWS])
    write_rows(tmp_path / "two.jsonl", [{"instruction": "Say c.", "input": "", "output": "c c"}])
    info = {"one": {"file_name": "one.jsonl", "sdrrl": {"subset": "LL"}}, "two": {"file_name": "two.jsonl"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    keys = {
        "model_name_or_path": str(tiny),
        "template": "smollm2",
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "deepspeed": "none.json",
        "bf16": True,
        "dataset_dir": str(tmp_path),
        "dataset": "one,two",
        "cutoff_len": 512,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 3,
        "learning_rate": 1e-5,
        "output_dir": str(tmp_path / "out"),
    }
    path = tmp_path / "train.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))
    return path


def answer_tokens(tiny, *answers: str) -> int:
    """The template ends an answer with its end mark and a line break, and both are trained on."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    return sum(len(tokenizer.encode(f"{a}<|im_end|>\n", add_special_tokens=False)) for a in answers)


def told(capsys) -> tuple[int, int, float]:
    """(rows, trained tokens, learning rate) as they were printed."""
    out = capsys.readouterr().out
    rows, tokens = re.search(r"data +([\d,]+) rows in \d sets?, ([\d,]+) trained tokens", out).groups()
    return (
        int(rows.replace(",", "")),
        int(tokens.replace(",", "")),
        float(re.search(r"^learning_rate: (\S+)$", out, re.M)[1]),
    )


def test_the_formula():
    # A step as large as LLaMA-2's own has its rate; a quarter of it, half.
    assert Batch(1, 1, 1000, 4, 125, 8).learning_rate == pytest.approx(3e-4)
    assert Batch(1, 10, 10_000, 1, 125, 8).learning_rate == pytest.approx(1.5e-4)


def test_the_counts_are_those_of_training(recipe, tiny, capsys, monkeypatch):
    monkeypatch.setenv("NPROC_PER_NODE", "4")
    monkeypatch.setenv("NNODES", "2")
    assert main(["lr", str(recipe)]) == 0
    rows, tokens, rate = told(capsys)
    want = answer_tokens(tiny, *(a for _, a in ROWS), "c c")
    assert (rows, tokens) == (4, want)
    assert rate == pytest.approx(3e-4 * math.sqrt(want / 4 * (2 * 3 * 8) / 4e6), rel=1e-3)


def test_overrides_processes_and_caps_count(recipe, tiny, capsys):
    assert main(["lr", str(recipe), "--processes", "2", "max_samples=2", "per_device_train_batch_size=1"]) == 0
    rows, tokens, rate = told(capsys)
    want = answer_tokens(tiny, ROWS[0][1], ROWS[1][1], "c c")
    assert (rows, tokens) == (3, want)
    assert rate == pytest.approx(3e-4 * math.sqrt(want / 3 * 6 / 4e6), rel=1e-3)
    # What is cut off is not trained on.
    assert main(["lr", str(recipe), "dataset=one", "cutoff_len=24"]) == 0
    assert told(capsys)[1] < answer_tokens(tiny, *(a for _, a in ROWS))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["learning_rat=1"], "learning_rat"),
        (["dataset=three"], "three"),
        (["streaming=true", "max_steps=1"], "command line: streaming=true: streaming: the data have no known size"),
        (["model_name_or_path=models/none"], "command line: model_name_or_path=models/none: model_name_or_path: no "),
        (["template=smol"], "smol"),
    ],
)
def test_mistakes_are_one_line(recipe, overrides, said, capsys):
    assert main(["lr", str(recipe), *overrides]) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in err if line.startswith("sdrrl: ")]) == 1 and said in err[-1]
    assert "command line: " in said or str(recipe) in err[-1]


def test_a_count_of_processes_that_is_none_is_one_line(recipe, capsys, monkeypatch):
    monkeypatch.setenv("NPROC_PER_NODE", "gpu")
    assert main(["lr", str(recipe)]) == 2
    assert "NPROC_PER_NODE is 'gpu'" in capsys.readouterr().err
