"""`llamafactory-cli train` for many recipes from one start: its imports take longer than its step.

Run as a program it imports LLaMA-Factory once and forks for each line of JSON on its input: one child that runs the
very entry point of `llamafactory-cli`, or several that run what its launcher hands to torchrun, with what torchrun
tells each of them. On its output: one line for each, the worst exit status of its children.
"""

import importlib
import json
import os
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import yaml

from tests.conftest import BIN, ROOT, command


class Commands:
    """Starts the program at the first use."""

    def __init__(self):
        self._program = None

    def train(self, path: Path, processes: int = 1, status: int = 0, patch: str = "") -> str:
        """Train one recipe on a CPU; returns what was printed. AssertionError: it ended with another status.

        patch: the name of a function of tests/training/patches.py that each process calls first.
        """
        if self._program is None:
            # Not what a launcher sets, nor what `sdrrl_factory.cli.main` did when a test called it in this process.
            unset = ("SDRRL_FACTORY_DISABLE", "LOCAL_RANK", "RANK", "WORLD_SIZE")
            environment = {k: v for k, v in os.environ.items() if k not in unset and not k.endswith("_VERBOSITY")}
            environment |= {"HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}
            environment["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
            start = [sys.executable, "-m", "tests.training.commands"]
            self._program = subprocess.Popen(
                start, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        log = path.with_suffix(".printed")
        job = {"recipe": str(path), "log": str(log), "processes": processes, "patch": patch}
        self._program.stdin.write(json.dumps(job) + "\n")
        self._program.stdin.flush()
        ended = self._program.stdout.readline().strip()
        assert ended == str(status), f"{path} ended with {ended}:\n{log.read_text()[-4000:]}"
        return log.read_text()

    def close(self) -> None:
        if self._program is not None:
            self._program.stdin.close()
            self._program.wait()


def write_recipe(path: Path, keys: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(keys))
    return path


def train_from_start(path: Path, check: bool = True, **environment):
    """The command as a user types it; returns the finished process."""
    return command("llamafactory-cli", "train", path, cwd=path.parent, check=check, **environment)


def main() -> None:
    # Answers go out alone: what the imports print goes to stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Imports only: a thread pool that is started before the fork would be missing in the child.
    import deepspeed  # noqa: F401
    import llamafactory.train.tuner  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    for line in sys.stdin:
        job = json.loads(line)
        Path(job["log"]).write_text("")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        ranks = [run(job, rank, port) for rank in range(job["processes"])]
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in ranks]
        print(max(statuses, key=abs), file=answers, flush=True)


def run(job: dict, rank: int, port: int) -> int:
    """Fork one rank of a job; returns its process id."""
    from llamafactory.cli import main as cli
    from llamafactory.train.tuner import run_exp

    child = os.fork()
    if child:
        return child
    log = os.open(job["log"], os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(Path(job["recipe"]).parent)
    sys.argv = ["llamafactory-cli", "train", job["recipe"]]
    if job["processes"] > 1:
        size = str(job["processes"])
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        sys.argv = ["launcher.py", job["recipe"]]
    status = 1
    try:
        if job["patch"]:
            getattr(importlib.import_module("tests.training.patches"), job["patch"])()
        run_exp() if job["processes"] > 1 else cli()
        status = 0
    except SystemExit as stop:
        status = stop.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
