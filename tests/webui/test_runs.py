"""Runs as child processes: what is read of them comes from files alone."""

import json
import os
import signal
import sys
import time

import psutil
import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.webui import runs
from sdrrl_factory.webui.child import redacted


def python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


def wait(run, *states: str) -> str:
    end = time.monotonic() + 60
    while run.state not in states and time.monotonic() < end:
        time.sleep(0.05)
    return run.state


def test_a_run_is_written_down(folder):
    code = "import os; print('hello'); open(os.environ['SDRRL_PROGRESS'], 'w').write('{\"done\": 3}')"
    run = runs.start("prepare", "a", python(code), recipe="x: 1\n", outputs={"report": ["{run}/report.html"]})
    assert wait(run, "finished") == "finished"
    again = runs.find(run.id)
    assert again == run and again is not run
    assert again.log == "hello\n" and again.recipe == "x: 1\n" and again.progress == {"done": 3}
    assert again.outputs == {"report": [f"runs/webui/{run.id}/report.html"]} and again.seconds < 60


def test_a_failed_run_says_so(folder):
    run = runs.start("eval", "a", python("import sys; print('sdrrl: no', file=sys.stderr); sys.exit(2)"))
    assert wait(run, "failed") == "failed" and run.log == "sdrrl: no\n" and run.ended["code"] == 2


def test_a_second_start_of_the_same_is_refused_and_the_run_is_stopped(folder):
    code = "import time\ntry: print('on'); time.sleep(100)\nexcept KeyboardInterrupt: print('tidied up')"
    run = runs.start("prepare", "a", python(code))
    while "on" not in run.log:
        time.sleep(0.05)
    with pytest.raises(UserError, match=f"a is at work already, as {run.id}; stop it"):
        runs.start("prepare", "a", python("pass"))
    other = runs.start("prepare", "b", python("pass"))
    assert wait(other, "finished") == "finished"
    runs.stop(run)
    assert wait(run, "stopped") == "stopped"
    assert run.log == "on\ntidied up\n"
    assert [r.id for r in runs.all_runs("prepare")] == [other.id, run.id]
    assert wait(runs.start("prepare", "a", python("pass")), "finished") == "finished"


def test_what_nobody_watches_is_lost_and_not_at_work(folder):
    run = runs.start("prepare", "a", python("import time; time.sleep(30)"))
    facts = json.loads((run.folder / "process.json").read_text())
    watcher = psutil.Process(facts["pid"])
    while not watcher.children():
        time.sleep(0.05)
    (child,) = watcher.children()
    os.kill(facts["pid"], signal.SIGKILL)
    assert wait(run, "lost") == "lost"
    child.kill()
    # Another process of the same number is not taken for it.
    facts["pid"] = os.getpid()
    (run.folder / "process.json").write_text(json.dumps(facts))
    assert run.state == "lost"


def test_a_log_has_no_secrets(folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    monkeypatch.setenv("MINE", "my-own-secret")
    monkeypatch.setenv("PLAIN", "nothing-to-hide")
    code = "import os; print(*(os.environ[n] for n in ('HF_TOKEN', 'MINE', 'PLAIN')), 'https://me:pw@host/x')"
    run = runs.start("prepare", "a", python(code), secrets=["MINE"])
    assert wait(run, "finished") == "finished"
    assert run.log == "*** *** nothing-to-hide https://***@host/x\n"


def test_a_bar_that_draws_over_itself_is_one_line():
    assert redacted("  10%\r  50%\r 100% done\n", []) == " 100% done\n"


@pytest.mark.parametrize("run_id", [None, "", "..", "../outside", "prepare-20260101-000000/../x", "/etc", "x" * 5000])
def test_an_id_is_no_path(run_id, folder):
    (folder.parent / "outside/run.json").write_text("{}")
    assert runs.find(run_id) is None
