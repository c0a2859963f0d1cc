"""Tiny files in the official shapes."""

import json
import tempfile
from pathlib import Path

import pytest

from sdrrl_eval.measure.recipe import EvalConfig
from sdrrl_eval.measure.task import Task
from sdrrl_factory.recipe import load

ENGLISH = ["The river is wide and deep near the old town.", "She bought three red apples.", "Nobody knew the answer."]
SPANISH = [
    "El río es ancho y profundo cerca del casco antiguo.",
    "Ella compró tres manzanas rojas.",
    "Nadie sabía la respuesta.",
]


def task_of(**keys) -> Task:
    """The task that these keys of an entry under `tasks` make, read as `sdrrl eval` reads a recipe."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as f:
        json.dump({"model": "m", "output_dir": "o", "tasks": [keys]}, f)
        f.flush()
        return load(EvalConfig, f.name).config.tasks[0]


def without_times(results: str) -> str:
    """The text of a results.json but for what differs from one run to the next."""
    values = json.loads(results)
    assert values.pop("times")
    return json.dumps(values)


@pytest.fixture(scope="session")
def checkpoint(tiny) -> str:
    return str(tiny)


@pytest.fixture
def files(tmp_path) -> Path:
    return _write_files(tmp_path)


@pytest.fixture(scope="session")
def shared_files(tmp_path_factory) -> Path:
    return _write_files(tmp_path_factory.mktemp("shared"))


def _write_files(tmp_path: Path) -> Path:
    """Fill the folder with flores/ (3 sentences) and instructions.{eng,spa}.jsonl (3 rows, one with an input)."""
    (tmp_path / "flores").mkdir()
    for code, lines in {"eng_Latn": ENGLISH, "spa_Latn": SPANISH}.items():
        (tmp_path / "flores" / f"{code}.devtest").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for lang, lines in {"eng": ENGLISH, "spa": SPANISH}.items():
        rows = [
            {"id": f"q{i}", "instruction": f"{i}? {line}", "input": "x <script>" if i == 1 else "", "output": line}
            for i, line in enumerate(lines)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"instructions.{lang}.jsonl").write_text(text, encoding="utf-8")
    return tmp_path
