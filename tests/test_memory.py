"""The one memory: what goes in comes out, under its kind and its key, in any process."""

import multiprocessing
import pickle
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sdrrl_eval.measure.answers import Answers
from sdrrl_eval.measure.recipe import EvalConfig
from sdrrl_factory.errors import UserError
from sdrrl_factory.memory import Memory, beside, key_of, kind_of, translation_kind
from sdrrl_factory.transfer.generate import make
from sdrrl_factory.transfer.recipe import Generator


def test_kinds_and_keys_are_told_apart(tmp_path):
    with Memory(tmp_path / "m.sqlite") as memory:
        memory.put("a", {"x": ["text", "stop"], "y": {"z": 1.5, "a": None}})
        memory.put("b", {"x": "other"})
        assert memory.get("a", ["x", "y", "nobody"]) == {"x": ["text", "stop"], "y": {"z": 1.5, "a": None}}
        assert list(memory.get("a", ["y"])["y"]) == ["z", "a"]  # the order is kept
        assert memory.get("b", ["x", "y"]) == {"x": "other"} and len(memory) == 3
        memory.put("b", {"x": "later"})
        assert memory.get("b", ["x"]) == {"x": "later"} and len(memory) == 3


@pytest.mark.parametrize("value", ["", "a\nb\0c\u2028", "half a pair \ud800", 'ñ "日本" \\', [1, None, "x"], 0.1 + 0.2])
def test_any_value_comes_back(tmp_path, value):
    with Memory(tmp_path / "m.sqlite") as memory:
        memory.put("kind", {key_of(value): value})
        assert memory.get("kind", [key_of(value)]) == {key_of(value): value}


def test_a_kind_does_not_depend_on_the_order_of_its_settings():
    assert kind_of("generate", a=1, b=None) == kind_of("generate", b=None, a=1) == 'generate {"a": 1, "b": null}'
    assert kind_of("generate", a=1) != kind_of("generate", a="1") != kind_of("text_loss", a="1")


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("runs/prepare", "runs/memory.sqlite"),
        ("runs/eval/base", "runs/memory.sqlite"),
        ("/data/runs/spa/seed-1/eval", "/data/runs/memory.sqlite"),
        ("/scratch/work", "/scratch/memory.sqlite"),
        ("out", "memory.sqlite"),
    ],
)
def test_where_it_lies(folder, expected):
    assert beside(folder) == Path(expected)


def write(memory: Memory, n: int) -> None:
    for i in range(50):
        memory.put("kind", {f"{n} {i}": [n, i]})


def test_several_processes_write_at_once(tmp_path):
    memory = Memory(tmp_path / "m.sqlite")
    memory.put("kind", {"first": 1})
    context = multiprocessing.get_context("spawn")  # each opens the file anew
    writers = [context.Process(target=write, args=(memory, n)) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0] and len(memory) == 101
    assert memory.get("kind", ["1 49"]) == {"1 49": [1, 49]}
    copy = pickle.loads(pickle.dumps(memory))
    assert len(copy) == 101
    copy.close()
    memory.close()


def old_memory(path: Path, rows: list[tuple]) -> None:
    """As it was written before there was one memory for all."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "CREATE TABLE memory (translator TEXT, source TEXT, target TEXT, segment TEXT, translation TEXT,"
            " PRIMARY KEY (translator, source, target, segment)) WITHOUT ROWID"
        )
        db.executemany("INSERT INTO memory VALUES (?, ?, ?, ?, ?)", rows)


def test_translations_of_an_earlier_version_are_taken_over_once(tmp_path):
    old = tmp_path / "translations.sqlite"
    old_memory(old, [("apertium", "eng", "spa", "Hi.", "Hola."), ("apertium", "spa", "eng", "Sí.", "Yes.")])
    with Memory(tmp_path / "m.sqlite") as memory:
        memory.take_translations(old)
        assert memory.get(translation_kind("apertium", "eng", "spa"), ["Hi.", "Sí."]) == {"Hi.": "Hola."}
        assert memory.get(translation_kind("apertium", "spa", "eng"), ["Sí."]) == {"Sí.": "Yes."}
        memory.put(translation_kind("apertium", "eng", "spa"), {"Hi.": "Buenas."})
        memory.take_translations(old)
        assert memory.get(translation_kind("apertium", "eng", "spa"), ["Hi."]) == {"Hi.": "Buenas."}
        memory.take_translations(tmp_path / "nowhere.sqlite")
        (tmp_path / "broken.sqlite").write_bytes(b"x" * 5000)
        memory.take_translations(tmp_path / "broken.sqlite")


def test_prepare_and_eval_share_the_answers_of_one_checkpoint(tiny, tmp_path):
    path = tmp_path / "m.sqlite"
    task = {"task": "instructions", "path": "q.{lang}.jsonl", "langs": ["eng"]}
    evaluation = {"model": str(tiny), "template": "smollm2", "output_dir": str(tmp_path / "out"), "memory": str(path)}
    answers = Answers(EvalConfig.model_validate(evaluation | {"tasks": [task]}))
    with Memory(path) as memory:
        generator = make(Generator(model=str(tiny), template="smollm2"), memory)
        first = generator.generate(["Hola.", "Sol"], 9, 2, seeds=[5, 6])
    assert answers.generate(["Sol", "Hola."], 9, 16) == first[::-1] and "model" not in vars(answers)
    answers.memory.close()


def test_a_file_that_is_none_and_a_folder_that_cannot_be_are_one_line(tmp_path):
    (tmp_path / "m.sqlite").write_text("a text\n" * 400)
    for path, why in [(tmp_path / "m.sqlite", "file is not a database"), (tmp_path / "m.sqlite" / "m", "exists|Not a")]:
        with pytest.raises(UserError, match=f"^{path}: no memory of answers .*{why}.*; move the file away") as caught:
            Memory(path).open()
        assert "\n" not in str(caught.value)
