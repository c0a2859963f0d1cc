"""A killed evaluation goes on where it stopped, and ends as one that was left alone."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from sdrrl_factory.cli import main
from sdrrl_factory.errors import UserError
from sdrrl_factory.memory import Memory
from sdrrl_factory.models import remembered as remembered_model
from sdrrl_factory.models.lm import LM, Generation
from sdrrl_factory.models.remembered import RememberedModel
from tests.conftest import BIN, ROOT
from tests.eval.conftest import without_times

BATCH = 2


def write_recipe(folder: Path, checkpoint: str, questions: int) -> Path:
    """An evaluation of many small batches."""
    (folder / "flores").mkdir(parents=True)
    for code in ("eng_Latn", "spa_Latn"):
        lines = (ROOT / f"data/heldout/sentences/{code}.devtest").read_text(encoding="utf-8").splitlines()
        (folder / f"flores/{code}.devtest").write_text("\n".join(lines[:12]) + "\n", encoding="utf-8")
    for lang in ("eng", "spa"):
        lines = (ROOT / f"data/heldout/instructions.{lang}.jsonl").read_text(encoding="utf-8").splitlines()
        (folder / f"q.{lang}.jsonl").write_text("\n".join(lines[:questions]), encoding="utf-8")
    tasks = [
        {"task": "text_loss", "path": "flores", "langs": ["spa"]},
        {"task": "translation", "path": "flores", "langs": ["spa"], "max_new_tokens": 40},
        {"task": "instructions", "path": "q.{lang}.jsonl", "langs": ["spa", "eng"]},
        {"task": "off_target", "path": "q.{lang}.jsonl", "langs": ["spa"]},
    ]
    recipe = {"model": checkpoint, "output_dir": "out", "max_new_tokens": 60, "batch_size": BATCH, "tasks": tasks}
    (folder / "r.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    return folder / "out"


def written(out: Path) -> dict[str, bytes | str]:
    files = sorted((out / "predictions").iterdir())
    results = without_times((out / "results.json").read_text(encoding="utf-8"))
    return {"results.json": results, **{str(p.relative_to(out)): p.read_bytes() for p in files}}


def done(out: Path) -> int:
    """How many answers and losses the memory beside the output has."""
    path = out.parent / "memory.sqlite"
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(path)) as db:
            return db.execute("SELECT count(*) FROM memory").fetchone()[0]
    except sqlite3.Error:  # not a table yet
        return 0


def kill_at(out: Path, size: int, wait: float) -> bool:
    """Start `sdrrl eval`, and kill it `wait` seconds after there are `size` answers; whether it was killed."""
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        ["sdrrl", "eval", "r.yaml"], cwd=out.parent, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None and done(out) < size:
        time.sleep(0.002)
    time.sleep(wait)
    if process.poll() is not None:
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def run_killed(folder: Path, checkpoint: str, kills: int, questions: int, monkeypatch) -> None:
    def evaluate(out):
        monkeypatch.chdir(out.parent)
        assert main(["eval", "r.yaml"]) == 0

    undisturbed = write_recipe(folder / "undisturbed", checkpoint, questions)
    evaluate(undisturbed)
    whole = done(undisturbed)
    out = write_recipe(folder / "killed", checkpoint, questions)
    draw, killed, sizes = random.Random(7), 0, []
    for i in range(kills):
        killed += kill_at(out, draw.randrange(whole * i // kills, whole * (i + 1) // kills), draw.random() * 0.05)
        sizes.append(done(out))
    assert killed >= kills - 1 and sizes == sorted(sizes) and len(set(sizes)) > kills / 2
    evaluate(out)
    assert written(out) == written(undisturbed)


@pytest.mark.slow
def test_killed_twice(checkpoint, tmp_path, monkeypatch):
    run_killed(tmp_path, checkpoint, 2, 8, monkeypatch)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_killed_ten_times(checkpoint, tmp_path, monkeypatch):
    run_killed(tmp_path, checkpoint, 10, 30, monkeypatch)


USERS = ["Hola.", "¿Qué hora es en Madrid?", "x" * 60, "Uno dos tres", "Hola.", "Adiós, hasta mañana.", "Sí"]


@pytest.fixture(scope="module")
def lm(checkpoint):
    return LM(checkpoint)


class Spy:
    """The model, and the batches it was asked."""

    def __init__(self, lm: LM):
        self.lm, self.batches, self.loaded = lm, [], 0
        self.encode, self.tokenizer, self.model = lm.encode, lm.tokenizer, lm.model

    def __call__(self) -> "Spy":
        self.loaded += 1
        return self

    def generate(self, users, *rest, **settings):
        self.batches.append(list(users))
        return self.lm.generate(users, *rest, **settings)

    def text_loss(self, texts, batch_size):
        self.batches.append(list(texts))
        return self.lm.text_loss(texts, batch_size)

    def answer_loss(self, pairs, batch_size, system=""):
        self.batches.append(list(pairs))
        return self.lm.answer_loss(pairs, batch_size, system)


@pytest.fixture
def spy(lm, monkeypatch):
    # Each batch is kept by itself.
    monkeypatch.setattr(remembered_model, "_KEPT", 1)
    return Spy(lm)


@pytest.fixture
def remembered(checkpoint, tmp_path):
    """(the model that is asked, the memory's file, its template) -> the model behind its memory."""
    memories = []

    def make(load, file="memory.sqlite", template=None, **keys) -> RememberedModel:
        memories.append(Memory(tmp_path / file))
        return RememberedModel(memories[-1], checkpoint, template, load=load, **keys)

    yield make
    for memory in memories:
        memory.close()


def asked(model: RememberedModel) -> tuple:
    pairs = [(user, user[::-1]) for user in USERS]
    return (
        model.generate(USERS, 12, BATCH),
        model.text_loss(USERS, BATCH),
        model.answer_loss(pairs, BATCH),
        model.conditions(),
    )


def test_answers_are_the_models(spy, lm, remembered):
    answers, texts, losses, conditions = asked(remembered(spy))
    assert answers == lm.generate(USERS, 12, 1)
    for got, expected in [(texts, lm.text_loss(USERS, 1)), (losses, lm.answer_loss([(u, u[::-1]) for u in USERS], 1))]:
        assert [n for _, n in got] == [n for _, n in expected]
        assert [x for x, _ in got] == pytest.approx([x for x, _ in expected], rel=1e-5)
    assert conditions == {
        "format": "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n",
        "precision": "float32",
        "device": lm.model.device.type,
    }


def test_nothing_is_asked_twice_and_the_model_not_loaded(spy, remembered):
    first = asked(remembered(spy))
    assert [len(b) for b in spy.batches] == [2, 2, 2] * 3  # 6 distinct inputs, thrice
    again = Spy(spy.lm)
    assert asked(remembered(again)) == first
    assert again.batches == [] and again.loaded == 0


def test_another_model_or_limit_is_asked_anew(spy, remembered):
    asked(remembered(spy))
    before = len(spy.batches)
    asked(remembered(spy, template="smollm2"))
    assert len(spy.batches) == 2 * before
    remembered(spy).generate(USERS, 13, BATCH)
    assert len(spy.batches) == 2 * before + 3


def test_a_draw_is_another_answer_than_the_greedy_one(spy, lm, remembered):
    """Each seed and temperature is an answer of its own; at temperature 0 seeds are of no account."""
    seeds = list(range(len(USERS)))
    drawn = remembered(spy).generate(USERS, 12, BATCH, 1.0, seeds)
    assert drawn == lm.generate(USERS, 12, 4, 1.0, seeds=seeds)
    assert remembered(spy).generate(USERS, 12, BATCH, 1.0, seeds[::-1]) != drawn
    greedy = remembered(spy).generate(USERS, 12, BATCH, 0.0, seeds)
    before = len(spy.batches)
    assert remembered(spy).generate(USERS, 12, BATCH, 0.0, seeds[::-1]) == greedy
    assert remembered(spy).generate(USERS, 12, BATCH, 1.0, seeds) == drawn and len(spy.batches) == before


def test_a_system_prompt_is_part_of_the_question(spy, lm, remembered):
    assert remembered(spy).generate(["Hola."], 8, 1, systems=["Uno."]) == lm.generate(["Hola."], 8, 1, systems=["Uno."])
    assert remembered(spy).generate(["Hola."], 8, 1) == lm.generate(["Hola."], 8, 1)
    assert len(spy.batches) == 2


def test_the_same_files_under_another_path_are_the_same_model(spy, remembered, checkpoint, tmp_path):
    remembered(spy).generate(USERS, 12, BATCH)
    shutil.copytree(checkpoint, tmp_path / "copy")
    moved = RememberedModel(Memory(tmp_path / "memory.sqlite"), str(tmp_path / "copy"), load=spy)
    before = len(spy.batches)
    moved.generate(USERS, 12, BATCH)
    assert len(spy.batches) == before
    with (tmp_path / "copy/model.safetensors").open("r+b") as f:  # a weight in the middle of the file
        f.seek(f.seek(0, 2) // 2)
        f.write(b"\1")
    changed = RememberedModel(Memory(tmp_path / "memory.sqlite"), str(tmp_path / "copy"), load=spy)
    changed.generate(USERS, 12, BATCH)
    assert len(spy.batches) > before


class Killed(Memory):
    """A memory whose process ends after so many batches are kept."""

    def __init__(self, path: Path, batches: int):
        super().__init__(path)
        self.left = batches

    def put(self, kind, answers):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        super().put(kind, answers)


def test_killed_anywhere_it_goes_on_with_the_same_batches(spy, checkpoint, tmp_path, remembered):
    first, batches = asked(remembered(spy, "whole.sqlite")), spy.batches
    for kept in (0, 1, 4, 8, len(batches)):  # the last one is that of the conditions
        memory = Killed(tmp_path / f"{kept}.sqlite", kept)
        with pytest.raises(KeyboardInterrupt):
            asked(RememberedModel(memory, checkpoint, load=Spy(spy.lm)))
        memory.close()
        rest = Spy(spy.lm)
        assert asked(remembered(rest, f"{kept}.sqlite")) == first
        assert rest.batches == batches[kept:]


def test_a_file_that_is_no_memory_is_one_line(spy, tmp_path, remembered):
    (tmp_path / "memory.sqlite").write_bytes(b"\xff\xfe\n3\n[1]" * 99)
    with pytest.raises(UserError, match="memory.sqlite: no memory of answers .file is not a database.; move the file"):
        remembered(spy).generate(USERS, 4, BATCH)


class FakeServer:
    """Answers in another order than asked; at the prompt "end" it breaks down."""

    base_url = "http://localhost/v1"

    def __init__(self, failing=()):
        self.failing, self.asked = failing, []

    def left_out(self) -> set[str]:
        return set()

    def leave_out(self, keys) -> None:
        assert not keys

    def stream(self, conversations, max_tokens, temperature, seeds):
        for i, [turn] in sorted(enumerate(conversations), key=lambda pair: pair[0] % 2):
            user = turn["content"]
            if user == "end":
                raise UserError("the server is gone")
            self.asked.append(user)
            yield i, Generation("", "error: 500") if user in self.failing else Generation(f"<{user}>", "stop")


def served(folder: Path, server: FakeServer) -> RememberedModel:
    return RememberedModel(Memory(folder / "memory.sqlite"), "x", server=server)


def test_what_a_server_failed_at_is_asked_again(tmp_path):
    first, then = FakeServer(failing=["b"]), FakeServer()
    users = ["a", "b", "c", "a"]
    a, b, c, _ = served(tmp_path, first).generate(users, 4, 2)
    assert [a.text, b, c.text] == ["<a>", Generation("", "error: 500"), "<c>"] and sorted(first.asked) == [
        "a",
        "b",
        "c",
    ]
    assert [g.text for g in served(tmp_path, then).generate(users, 4, 2)] == ["<a>", "<b>", "<c>", "<a>"]
    assert then.asked == ["b"]


def test_each_answer_of_a_server_is_kept_as_it_comes(tmp_path):
    with pytest.raises(UserError, match="the server is gone"):
        served(tmp_path, FakeServer()).generate(["a", "end", "c", "d", "e"], 4, 2)
    later = FakeServer()
    found = served(tmp_path, later).generate(["a", "c", "d", "e"], 4, 2)
    assert [g.text for g in found] == ["<a>", "<c>", "<d>", "<e>"]
    # The places 0, 2 and 4 came before it broke down.
    assert later.asked == ["d"]


def test_answers_that_cannot_be_written_are_one_line(spy, remembered):
    model = remembered(spy)
    model.memory._db.execute("PRAGMA max_page_count=2")  # a full disk
    with pytest.raises(UserError, match="cannot be written .database or disk is full.; make room"):
        model.text_loss([f"{user} {n}" * 20 for user in USERS for n in range(5)], BATCH)


class Chooser:
    """Gives every choice the length of its prompt, and is killed before its call number `calls`."""

    def __init__(self, calls: int):
        self.calls, self.asked = calls, []

    def choose(self, questions, batch_size):
        if len(self.asked) == self.calls:
            raise KeyboardInterrupt
        self.asked.append([prompt for prompt, _ in questions])
        return [[-float(len(prompt))] for prompt, _ in questions]


def test_questions_on_one_passage_are_asked_together_also_after_a_kill(remembered, monkeypatch):
    monkeypatch.setattr(remembered_model, "_KEPT", 1)
    draw = random.Random(3)
    passages = [f"{i} {'x' * 90} " for i in range(4)]
    questions = [(passages[i % 4] + "?" * draw.randint(1, 200), [" A"]) for i in range(14)]
    draw.shuffle(questions)
    whole = Chooser(99)
    expected = remembered(lambda: whole, "whole.sqlite").choose(questions, 3)
    assert expected == [[-float(len(prompt))] for prompt, _ in questions]
    order = [prompt[0] for portion in whole.asked for prompt in portion]
    assert all(len(portion) == 3 for portion in whole.asked[:-1])
    assert sum(a != b for a, b in zip(order, order[1:], strict=False)) == 3  # each passage in one piece
    for kept in range(1, len(whole.asked)):
        killed, rest = Chooser(kept), Chooser(99)
        with pytest.raises(KeyboardInterrupt):
            remembered(lambda killed=killed: killed, f"{kept}.sqlite").choose(questions, 3)
        assert remembered(lambda rest=rest: rest, f"{kept}.sqlite").choose(questions, 3) == expected
        assert killed.asked + rest.asked == whole.asked
