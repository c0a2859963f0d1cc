"""The runs that the page started: child processes of the commands, each with a folder under runs/webui/.

    run.json       what was started: kind, command, what it writes (Run)
    recipe.yaml    the recipe as it stood in the page
    process.json   which process it is
    log.txt        what it printed, without secrets
    progress.json  how far it is (sdrrl_factory/progress.py)
    ended.json     its exit code, once it is over

Everything is read from these files whenever it is asked for; the server keeps nothing in memory.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import atomic_write

ROOT = Path("runs/webui")
_ID = re.compile(r"[a-z-]+\d{8}-\d{6}(?:-\d+)?")
_LOG_BYTES = 20_000


@dataclass(frozen=True)
class Run:
    """One command that was started.

    kind: prepare, dry-run, eval, compare. what: the thing it makes; two runs that make the same thing may not be at
    work at once. outputs: kind of output -> paths. secrets: environment variables whose values the log must not have.
    """

    id: str
    kind: str
    what: str
    command: list[str]
    started: float
    outputs: dict[str, list[str]] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return ROOT / self.id

    @property
    def state(self) -> str:
        """running, finished, failed, stopped, or lost: neither at work nor ended, as after a power cut."""
        ended = self.ended
        if ended:
            return "stopped" if ended["stopped"] else "failed" if ended["code"] else "finished"
        return "running" if self._process() else "lost"

    @property
    def ended(self) -> dict[str, Any]:
        """Exit code, whether it was stopped, and when it ended; {} while it is at work."""
        return _read(self.folder / "ended.json")

    @property
    def seconds(self) -> float:
        """How long it ran, or runs so far."""
        return self.ended.get("time", time.time()) - self.started

    @property
    def log(self) -> str:
        """The end of what it printed."""
        path = self.folder / "log.txt"
        if not path.is_file():
            return ""
        with open(path, "rb") as f:
            f.seek(max(0, path.stat().st_size - _LOG_BYTES))
            return f.read().decode("utf-8", "replace")

    @property
    def progress(self) -> dict[str, Any]:
        """What it is at, as `Progress` writes it; {} before the first step."""
        return _read(self.folder / "progress.json")

    @property
    def recipe(self) -> str:
        """Its recipe's text, "" of a run without one."""
        path = self.folder / "recipe.yaml"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def _process(self) -> psutil.Process | None:
        """The process that watches the command, if it is at work; another of the same number is none."""
        facts = _read(self.folder / "process.json")
        try:
            process = psutil.Process(facts["pid"])
            is_it = abs(process.create_time() - facts["created"]) < 1
            return process if is_it and process.status() != psutil.STATUS_ZOMBIE else None
        except (KeyError, psutil.Error):
            return None


def start(
    kind: str,
    what: str,
    command: list[str],
    *,
    recipe: str = "",
    outputs: dict[str, list[str]] | None = None,
    secrets: list[str] | None = None,
) -> Run:
    """Start a command; `{run}` in its arguments and outputs stands for the run's folder.

    Raises: UserError where a run that makes the same thing is at work.
    """
    ROOT.mkdir(parents=True, exist_ok=True)
    with FileLock(ROOT / ".lock"):
        for other in all_runs():
            if other.what == what and other.state == "running":
                raise UserError(f"{what} is at work already, as {other.id}", "stop it or wait for its end")
        started = time.time()
        folder = _new_folder(kind, started)
        run = Run(
            id=folder.name,
            kind=kind,
            what=what,
            command=[argument.replace("{run}", str(folder)) for argument in command],
            started=started,
            outputs={name: [p.replace("{run}", str(folder)) for p in ps] for name, ps in (outputs or {}).items()},
            secrets=secrets or [],
        )
        if recipe:
            atomic_write(folder / "recipe.yaml", recipe)
        atomic_write(folder / "run.json", json.dumps(asdict(run), indent=1, ensure_ascii=False))
        # A session of its own, so that Ctrl-C in the server's terminal, or its end, does not end the run.
        process = subprocess.Popen(
            [sys.executable, "-m", "sdrrl_factory.webui.child", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        created = psutil.Process(process.pid).create_time()
        atomic_write(folder / "process.json", json.dumps({"pid": process.pid, "created": created}))
    return run


def stop(run: Run) -> None:
    """Ask a run to stop; it is stopped once its state says so."""
    process = run._process()
    if process:
        process.send_signal(signal.SIGTERM)


def all_runs(*kinds: str) -> list[Run]:
    """The runs of these kinds, or all, newest first."""
    if not ROOT.is_dir():
        return []
    runs = [find(path.name) for path in ROOT.iterdir()]
    wanted = [run for run in runs if run and (not kinds or run.kind in kinds)]
    return sorted(wanted, key=lambda run: -run.started)


def find(run_id: str | None) -> Run | None:
    """The run of an id; None where there is none, whatever was asked for."""
    if not run_id or not _ID.fullmatch(run_id):
        return None
    facts = _read(ROOT / run_id / "run.json")
    try:
        return Run(**facts) if facts.get("id") == run_id else None
    except TypeError:  # of another version
        return None


def sdrrl(*arguments: str) -> list[str]:
    """The command line of `sdrrl`, by this interpreter."""
    return [sys.executable, "-m", "sdrrl_factory.cli", *arguments]


def _new_folder(kind: str, started: float) -> Path:
    name = f"{kind}-{datetime.fromtimestamp(started):%Y%m%d-%H%M%S}"
    for number in range(1, 1000):
        folder = ROOT / (name if number == 1 else f"{name}-{number}")
        try:
            os.mkdir(folder)
            return folder
        except FileExistsError:
            continue
    raise UserError("too many runs at once", "wait a second")


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
