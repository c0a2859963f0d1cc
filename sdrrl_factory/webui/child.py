"""Runs one command of the page and writes down what becomes of it; the page itself may be reloaded or restarted.

    python -m sdrrl_factory.webui.child runs/webui/RUN

Reads RUN/run.json; writes RUN/log.txt as the command speaks, and RUN/ended.json when it is over. SIGTERM stops the
command as Ctrl-C would, and ends it after a while if it goes on.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from sdrrl_factory.files import atomic_write
from sdrrl_factory.progress import VARIABLE

_SECONDS_TO_STOP = 20
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@]+@")


def main(folder: Path) -> int:
    """Run the command of a run's folder; returns its exit code."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    environment = os.environ | {VARIABLE: str((folder / "progress.json").resolve()), "PYTHONUNBUFFERED": "1"}
    # A server that was started in the background ignores Ctrl-C, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # In a session of its own: what the command starts is ended with it.
    process = subprocess.Popen(
        run["command"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    stopped = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        if not stopped.is_set():
            stopped.set()
            threading.Thread(target=_stop, args=(process,), daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    hidden = secrets(run.get("secrets", []))
    assert process.stdout is not None
    with open(folder / "log.txt", "w", encoding="utf-8") as log:
        # A line that never ends is written in parts.
        for raw in iter(lambda: process.stdout.readline(1 << 16), b""):  # type: ignore[union-attr]
            log.write(redacted(raw.decode("utf-8", "replace"), hidden))
            log.flush()
    code = process.wait()
    ended = {"code": code, "stopped": stopped.is_set(), "time": time.time()}
    atomic_write(folder / "ended.json", json.dumps(ended))
    return code


def _stop(process: subprocess.Popen) -> None:
    """Ctrl-C, and after a while the end."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(timeout=_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def secrets(named: list[str]) -> list[str]:
    """The values of the environment that nobody may read: of the variables named so, and of those a recipe names."""
    values = {
        value
        for name, value in os.environ.items()
        if len(value) >= 6 and (name in named or _SECRET_NAME.search(name)) and not os.path.exists(value)
    }
    # Of two that begin alike, the longer first.
    return sorted(values, key=len, reverse=True)


def redacted(line: str, hidden: list[str]) -> str:
    """A line of the log without secrets; of a bar that draws over itself only what is seen at last."""
    end = "\n" if line.endswith("\n") else ""
    text = line.rstrip("\r\n").rpartition("\r")[2]
    for secret in hidden:
        text = text.replace(secret, "***")
    return _IN_ADDRESS.sub("***@", text) + end


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
