"""How far a long step is, on a terminal and elsewhere; what is said there, and what stands in the log file."""

import re
import time

import pytest

from sdrrl_factory import cli, log, progress
from sdrrl_factory.errors import UserError
from sdrrl_factory.progress import Meter


@pytest.fixture(autouse=True)
def as_it_was():
    yield
    log.set_verbosity()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_line_has_done_total_rate_time_left_retries_and_failures():
    clock = Clock()
    meter = Meter("generate", 4000, clock=clock)
    meter.know(1000)  # of an earlier run: they say nothing of the speed
    clock.now = 50.0
    meter.advance(500)
    log.count("retries", 2)
    assert meter.line() == "generate  1,500 of 4,000 records, 10.0/s, 4:10 left, 2 retries, 0 failures"
    clock.now = 100.0
    assert "1,500 of 4,000 records, 5.0/s, 8:20 left" in meter.line()
    meter.advance(-100)
    assert "1,400 of 4,000 records, 4.0/s, 10:50 left" in meter.line()


def test_before_anything_is_done_the_line_says_how_long_it_has_been():
    clock = Clock()
    meter = Meter("checks", 0, clock=clock)
    clock.now = 3723.0
    assert meter.line() == "checks    1:02:03 so far, 0 retries, 0 failures"
    meter.advance(10)
    assert meter.line().startswith("checks    10 records, 0.0/s, ")


def test_what_was_counted_before_a_step_is_not_its():
    log.count("failures", 7)
    meter = Meter("translate", 10)
    log.count("sentences", 3)
    assert meter.line().endswith("0 retries, 0 failures, 3 sentences")


def test_without_a_terminal_a_line_comes_though_nothing_does(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 0.02)
    with progress.progress("generate", 5) as meter:
        time.sleep(0.1)
        meter.advance(5)
        meter.note = ", 1 of 2 shards reused"
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 3 and all(line.startswith("generate  0 of 5 records, 0.0/s, 0 re") for line in lines[:2])
    assert re.fullmatch(r"generate  5 records in \d\.\d s, 1 of 2 shards reused", lines[-1])
    time.sleep(0.1)
    assert capsys.readouterr().out == ""


def test_quiet_says_warnings_alone_and_the_file_has_it_all(capsys, tmp_path):
    file = tmp_path / "prepare.log"
    log.set_verbosity(quiet=True)
    with log.log_file(file, "title"):
        log.say("told")
        log.warn("warned")
        log.detail("explained")
        with progress.progress("generate", 1):
            pass
    assert capsys.readouterr().out == "warned\n"
    lines = file.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", line) for line in lines)
    texts = [line[24:] for line in lines]
    assert texts[:4] == ["title", "told", "warned", "explained"] and texts[-1] == "done"
    assert texts[4].startswith("generate  0 records in")


def test_verbose_says_details_too(capsys):
    log.detail("one")
    log.set_verbosity(verbose=True)
    log.detail("two")
    assert capsys.readouterr().out == "two\n"


def test_a_second_run_adds_to_the_file_and_what_ended_it_stands_there(tmp_path):
    file = tmp_path / "prepare.log"
    with pytest.raises(UserError), log.log_file(file, "first"):
        raise UserError("no answer", "start it", key="generator.base_url")
    with pytest.raises(ZeroDivisionError), log.log_file(file, "second"):
        1 / 0  # noqa: B018
    text = file.read_text()
    assert "generator.base_url: no answer; start it" in text and text.index("first") < text.index("second")
    # A fault of ours has its traceback, a mistake of the user's has none.
    assert text.count("Traceback") == 1 and "ZeroDivisionError" in text
    log.say("after it")
    assert "after it" not in file.read_text()


@pytest.mark.parametrize("option", ["-q", "--quiet", "-v", "--verbose"])
def test_the_options_may_stand_behind_the_recipe_or_before(option, monkeypatch):
    levels = []
    monkeypatch.setattr(cli, "set_verbosity", lambda quiet, verbose: levels.append((quiet, verbose)))
    monkeypatch.setattr(cli, "_prepare", lambda args: None)
    for arguments in ([option, "r.yaml", "a=b"], ["r.yaml", option, "a=b"], ["r.yaml", "a=b", option]):
        assert cli.main(["prepare", *arguments]) == 0
    assert levels == [("q" in option, "v" in option)] * 3


def test_quiet_and_verbose_at_once_is_one_line(capsys):
    assert cli.main(["prepare", "-q", "-v", "r.yaml"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
