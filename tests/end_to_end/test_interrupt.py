"""Ctrl-C at any moment of any command: one line, status 130, and what it says about going on is true."""

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sdrrl_factory import cli
from sdrrl_factory.errors import UserError
from tests.conftest import BIN, ROOT, command
from tests.end_to_end.conftest import needs_programs, prepare_command, sets

GOES_ON = "sdrrl: interrupted; what is done is kept, the same command goes on from there\n"
ANEW = "sdrrl: interrupted; the same command begins anew\n"


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def swallow() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        press()


def disguise() -> None:
    try:
        press()
    except KeyboardInterrupt:
        raise UserError("apertium ended with status -2", "reinstall its pair") from None


@pytest.mark.parametrize("ends", [press, swallow, disguise])
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["prepare", "r.yaml"], GOES_ON),
        (["prepare", "r.yaml", "--dry-run"], ANEW),
        (["eval", "r.yaml"], GOES_ON),
        (["eval", "r.yaml", "--check-overlap", "a.jsonl"], ANEW),
        (["doctor"], ANEW),
        (["sets", "rm", "a"], "sdrrl: interrupted; what is left of it, the same command removes\n"),
        (["install", "comet"], "sdrrl: interrupted; the same command completes it\n"),
    ],
    ids=str,
)
def test_one_line_whatever_a_library_makes_of_it(arguments, line, ends, monkeypatch, capsys):
    for name in ("_prepare", "_eval", "_doctor", "_remove_sets", "_install"):
        monkeypatch.setattr(cli, name, lambda args: ends())
    before = signal.getsignal(signal.SIGINT)
    assert cli.main(arguments) == 130
    assert capsys.readouterr().err == line
    assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread_there_is_no_handler_and_no_harm(monkeypatch):
    monkeypatch.setattr(cli, "_doctor", lambda args: 0)
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(cli.main(["doctor"])))
    thread.start()
    thread.join()
    assert statuses == [0]


# What a program does when it is pressed; the second time where the first was not enough.
PROGRAMS = {
    "in a destructor": """
class Thing:
    def __del__(self):
        press()
def work(args):
    Thing()
    time.sleep(60)
""",
    "while it is tidied up": """
def work(args):
    try:
        press()
    finally:
        press()
        time.sleep(60)
""",
    "with a thread that goes on": """
def work(args):
    threading.Thread(target=time.sleep, args=(60,)).start()
    press()
""",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_program_ends_at_once(program):
    code = f"""
import signal, sys, threading, time
from sdrrl_factory import cli
def press():
    signal.raise_signal(signal.SIGINT)
{PROGRAMS[program]}
cli._doctor = work
sys.argv = ["sdrrl", "doctor"]
cli.main()
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (130, ANEW) and time.monotonic() - began < 15


def interrupted(arguments: list[str], seconds: float) -> subprocess.CompletedProcess | None:
    """A command in a session of its own, whose processes all get Ctrl-C, as in a terminal; None if it ended before."""
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    )
    try:
        process.wait(seconds)
        process.communicate()
        return None
    except subprocess.TimeoutExpired:
        pass
    subprocess.run(["kill", "-INT", "--", f"-{process.pid}"], check=True)
    out, err = process.communicate(timeout=30)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.fixture(scope="module")
def started() -> float:
    """Seconds until a command is surely at work: before, Python starts, and says so itself."""
    began = time.monotonic()
    command("sdrrl", "--version")
    return 2 * (time.monotonic() - began) + 0.2


@needs_programs
@pytest.mark.slow
@pytest.mark.parametrize("times", [3, pytest.param(60, marks=pytest.mark.exhaustive)])
def test_prepare_goes_on_from_where_it_was_interrupted(times, started, tiny, undisturbed, tmp_path):
    (tmp_path / "data").mkdir()
    moments = random.Random(times)
    for _ in range(times):
        done = interrupted(prepare_command(tiny, tmp_path), started + moments.uniform(0, 8))
        if done is None:
            break
        assert (done.returncode, done.stderr) == (130, GOES_ON)
        assert not [path for path in tmp_path.rglob("*.part")]
    command(*prepare_command(tiny, tmp_path))
    assert sets(tmp_path) == sets(undisturbed)


OTHERS = {
    "dry-run": (["prepare", "prepare/demo_spa", "--dry-run"], ANEW),
    "doctor": (["doctor"], ANEW),
    "doctor of a recipe": (["doctor", "train/demo_spa_sdrrl"], ANEW),
    "eval": (["eval", "eval/demo_spa", "model={tiny}", "output_dir={tmp}/eval"], GOES_ON),
    "lr": (["lr", "train/demo_spa_sdrrl", "model_name_or_path={tiny}", "dataset_dir={data}"], ANEW),
    "recipes": (["recipes"], ANEW),
}


@needs_programs
@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("case", OTHERS)
def test_other_commands(case, started, tiny, undisturbed, tmp_path: Path):
    arguments, line = OTHERS[case]
    names = {"tiny": tiny, "tmp": tmp_path, "data": undisturbed / "data"}
    moments = random.Random(case)
    for _ in range(10):
        done = interrupted(
            [str(BIN / "sdrrl"), *(a.format(**names) for a in arguments)], started + moments.uniform(0, 6)
        )
        assert done is None or (done.returncode, done.stderr) == (130, line)
