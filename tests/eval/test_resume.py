"""A killed evaluation goes on where it stopped, and ends as one that was left alone."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sdrrl_eval.measure.answers import Answers
from sdrrl_factory.cli import main
from sdrrl_factory.errors import UserError
from sdrrl_factory.models.lm import LM, Generation
from tests.conftest import BIN, ROOT

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


def written(out: Path) -> dict[str, bytes]:
    files = [out / "results.json", *sorted((out / "predictions").iterdir())]
    return {str(p.relative_to(out)): p.read_bytes() for p in files}


def done(out: Path) -> int:
    """Bytes of answers on disk."""
    return sum(p.stat().st_size for p in (out / "answers").glob("*")) if (out / "answers").is_dir() else 0


def kill_at(out: Path, size: int, wait: float) -> bool:
    """Start `sdrrl eval`, and kill it `wait` seconds after there are `size` bytes of answers; whether it was killed."""
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

    def generate(self, users, *rest):
        self.batches.append(list(users))
        return self.lm.generate(users, *rest)

    def text_loss(self, texts, batch_size):
        self.batches.append(list(texts))
        return self.lm.text_loss(texts, batch_size)

    def answer_loss(self, pairs, batch_size):
        self.batches.append(list(pairs))
        return self.lm.answer_loss(pairs, batch_size)


@pytest.fixture
def spy(lm):
    return Spy(lm)


def asked(spy, folder, identity="a") -> tuple:
    answers = Answers(folder, identity, spy)
    pairs = [(user, user[::-1]) for user in USERS]
    return (
        answers.generate(USERS, 12, BATCH),
        answers.text_loss(USERS, BATCH),
        answers.answer_loss(pairs, BATCH),
        answers.facts(),
    )


def test_answers_are_the_models(spy, lm, tmp_path):
    answers, texts, losses, facts = asked(spy, tmp_path)
    assert answers == lm.generate(USERS, 12, 1)
    for got, expected in [(texts, lm.text_loss(USERS, 1)), (losses, lm.answer_loss([(u, u[::-1]) for u in USERS], 1))]:
        assert [n for _, n in got] == [n for _, n in expected]
        assert [x for x, _ in got] == pytest.approx([x for x, _ in expected], rel=1e-5)
    assert facts == {
        "format": "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n",
        "precision": "float32",
        "device": lm.model.device.type,
    }


def test_nothing_is_asked_twice_and_the_model_not_loaded(spy, tmp_path):
    first = asked(spy, tmp_path)
    assert [len(b) for b in spy.batches] == [2, 2, 2] * 3  # 6 distinct inputs, thrice
    again = Spy(spy.lm)
    assert asked(again, tmp_path) == first
    assert again.batches == [] and again.loaded == 0


def test_another_model_or_limit_is_asked_anew(spy, tmp_path):
    asked(spy, tmp_path)
    before = len(spy.batches)
    asked(spy, tmp_path, "b")
    assert len(spy.batches) == 2 * before
    Answers(tmp_path, "a", spy).generate(USERS, 13, BATCH)
    assert len(spy.batches) == 2 * before + 3


def test_cut_off_anywhere_it_goes_on_with_the_same_batches(spy, tmp_path):
    (tmp_path / "whole").mkdir()
    first = asked(spy, tmp_path / "whole")
    [whole] = (tmp_path / "whole").iterdir()
    raw, batches = whole.read_bytes(), spy.batches
    assert raw.count(b"\n") == len(batches)  # and the facts
    cuts = random.Random(1).sample(range(len(raw)), 12) + [raw.index(b"\n"), raw.index(b"\n") + 1, len(raw)]
    for k, cut in enumerate(cuts):
        path = tmp_path / str(k) / whole.name
        path.parent.mkdir()
        path.write_bytes(raw[:cut])
        rest = Spy(spy.lm)
        assert asked(rest, path.parent) == first
        kept = len(raw[:cut].split(b"\n")) - (cut < len(raw) and raw[cut : cut + 1] != b"\n")
        assert rest.batches == batches[kept:]
        assert asked(Spy(spy.lm), path.parent) == first


def test_spoilt_lines_are_passed_over(spy, tmp_path):
    first = asked(spy, tmp_path)
    [path] = tmp_path.iterdir()
    path.write_bytes(b"\xff\xfe\n3\n[1]\n\n" + path.read_bytes() + b"\nnull")
    again = Spy(spy.lm)
    assert asked(again, tmp_path) == first and again.batches == []


class FakeServer:
    """Answers in another order than asked; at the prompt "end" it breaks down."""

    def __init__(self, failing=()):
        self.failing, self.asked = failing, []

    def stream(self, conversations, max_tokens, temperature):
        for i, [turn] in sorted(enumerate(conversations), key=lambda pair: pair[0] % 2):
            user = turn["content"]
            if user == "end":
                raise UserError("the server is gone")
            self.asked.append(user)
            yield i, Generation("", "error: 500") if user in self.failing else Generation(f"<{user}>", "stop")


def test_what_a_server_failed_at_is_asked_again(tmp_path):
    first, then = FakeServer(failing=["b"]), FakeServer()
    users = ["a", "b", "c", "a"]
    a, b, c, _ = Answers(tmp_path, "x", None, first).generate(users, 4, 2)
    assert [a.text, b, c.text] == ["<a>", Generation("", "error: 500"), "<c>"] and sorted(first.asked) == [
        "a",
        "b",
        "c",
    ]
    assert [g.text for g in Answers(tmp_path, "x", None, then).generate(users, 4, 2)] == ["<a>", "<b>", "<c>", "<a>"]
    assert then.asked == ["b"]


def test_each_answer_of_a_server_is_kept_as_it_comes(tmp_path):
    with pytest.raises(UserError, match="the server is gone"):
        Answers(tmp_path, "x", None, FakeServer()).generate(["a", "end", "c", "d", "e"], 4, 2)
    later = FakeServer()
    found = Answers(tmp_path, "x", None, later).generate(["a", "c", "d", "e"], 4, 2)
    assert [g.text for g in found] == ["<a>", "<c>", "<d>", "<e>"]
    # The places 0, 2 and 4 came before it broke down.
    assert later.asked == ["d"]


def test_answers_that_cannot_be_written_are_one_line(spy, tmp_path):
    answers = Answers(tmp_path / "no" / "folder", "a", spy)
    with pytest.raises(UserError, match="cannot be written .No such file or directory.; make room"):
        answers.generate(USERS, 4, BATCH)
