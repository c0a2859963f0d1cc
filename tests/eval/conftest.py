"""Tiny files in the official shapes."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdrrl_eval.measure import answers
from sdrrl_eval.measure import checkpoint as checkpoint_module
from sdrrl_eval.measure.recipe import EvalConfig
from sdrrl_eval.measure.task import Task
from sdrrl_factory.models.lm import Generation
from sdrrl_factory.models.remembered import RememberedModel
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


class FakeLM:
    """An LM whose tokens are words, with two more around a prompt; every third answer reaches the limit.

    For what stands around the model: no test of it needs torch.
    """

    def __init__(self, context: int = 10_000):
        self.model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=context))
        self.model.config.get_text_config = lambda: self.model.config

    def encode(self, user: str, system: str = "") -> list[int]:
        return [0, *range(len(user.split()) + len(system.split())), 0]

    def tokenizer(self, texts: list[str]) -> dict[str, list[list[int]]]:
        return {"input_ids": [list(range(len(text.split()))) for text in texts]}

    def generate(self, users, max_new_tokens, *args, **kwargs) -> list[Generation]:
        finishes = ["length" if len(user) % 3 == 0 else "stop" for user in users]
        return [Generation(user.split()[-1], finish) for user, finish in zip(users, finishes, strict=True)]

    def choose(self, questions, batch_size) -> list[list[float]]:
        return [[-float((len(prompt) + i) % 7) for i, _ in enumerate(choices)] for prompt, choices in questions]


def without_torch(monkeypatch: pytest.MonkeyPatch, load: Callable[[EvalConfig], FakeLM]) -> None:
    """Let `load` give the language model of every evaluation, known by its name alone."""
    monkeypatch.setattr(checkpoint_module, "load", load)
    monkeypatch.setattr(RememberedModel, "identity", property(lambda self: {"model": self._checkpoint[0]}))
    monkeypatch.setattr(RememberedModel, "conditions", lambda self: {"format": "words"})
    monkeypatch.setattr(answers, "computed_in", lambda precision: None)


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
