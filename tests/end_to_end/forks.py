"""A process that has everything imported and forks a run of `sdrrl` for each line it reads: a kill costs no start.

python forks.py
> {"arguments": ["prepare", ...], "operation": 17}      the child kills itself at its 17th operation on a file
> {"arguments": ["prepare", ...], "seconds": 0.4}       it is killed after so long
< {"status": -9, "seconds": 0.4, "operations": 0}       negative: by that signal; operations: of one that ended
"""

import contextlib
import json
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from sdrrl_factory import cli, interface  # noqa: F401  # imported here, once
from sdrrl_factory.models import lm  # noqa: F401
from sdrrl_factory.transfer import run  # noqa: F401

# What changes files: between any two of these the disk looks the same.
OPERATIONS = ("open", "replace", "rename", "unlink", "mkdir", "rmdir", "fsync", "chmod")


class Operations:
    """Counts the process's operations on files, and kills it before the one it is told."""

    def __init__(self, last: int | None):
        self.last, self.count = last, 0
        for name in OPERATIONS:
            setattr(os, name, partial(self._counted, getattr(os, name)))
        # A transaction of the memory's.
        sqlite3.connect = partial(sqlite3.connect, factory=type("Connection", (Counting,), {"operations": self}))

    def step(self) -> None:
        self.count += 1
        if self.last is not None and self.count >= self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def _counted(self, function: Callable[..., Any], *args: Any, **keys: Any) -> Any:
        self.step()
        return function(*args, **keys)


class Counting(sqlite3.Connection):
    operations: Operations

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        self.operations.step()
        cursor = super().executemany(*args)
        self.operations.step()
        return cursor


def child(request: dict[str, Any], result: int) -> None:
    """Run the command, and leave the count of operations in the pipe, if it comes to that."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        operations = Operations(request.get("operation"))
        if request.get("seconds") is not None:
            timer = threading.Timer(request["seconds"], os.kill, (os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()
        status = cli.main(request["arguments"])
    os.write(result, str(operations.count).encode())
    os._exit(status)


def main() -> None:
    # What takes seconds to import, and each child would import for itself; the answers alone go to stdout.
    with contextlib.redirect_stdout(sys.stderr):
        import llamafactory.data.template
        import llamafactory.hparams  # noqa: F401
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    # Threads do not survive a fork.
    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        read, write = os.pipe()
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            try:
                child(request, write)
            finally:
                os._exit(99)
        os.close(write)
        _, status = os.waitpid(pid, 0)
        with os.fdopen(read, "rb") as pipe:
            operations = int(pipe.read() or 0)
        answer = {
            "status": os.waitstatus_to_exitcode(status),
            "seconds": time.monotonic() - began,
            "operations": operations,
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
