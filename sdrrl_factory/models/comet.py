"""COMET models (Rei et al. 2020, 2022) by unbabel-comet; shared by the quality estimation and the evaluator.

unbabel-comet 2.2.7 holds transformers below 5 and numpy below 2. So it runs in a process of its own, comet_worker.py,
by the Python of an environment that has it: the one of `sdrrl install comet`, or this one.
"""

import json
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import distributions
from pathlib import Path
from typing import IO

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import sha256
from sdrrl_factory.models.hub import check_access, is_hub_id

_FETCH = (
    "accept the licence on the model's page while logged in and set HF_TOKEN, or name the path of a local checkpoint"
)
_PACKAGE = "unbabel-comet"
_WORKER = Path(__file__).with_name("comet_worker.py")


@dataclass(frozen=True)
class Installation:
    """An environment that has unbabel-comet, of that version."""

    python: str
    version: str


def environment() -> Path:
    """COMET's own environment: $SDRRL_COMET_ENV, else sdrrl/comet in the user's data folder; it need not exist."""
    if folder := os.environ.get("SDRRL_COMET_ENV"):
        return Path(folder).expanduser().absolute()
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "sdrrl" / "comet"


def installation() -> Installation | None:
    """COMET's own environment before this one; only that where $SDRRL_COMET_ENV names it. Nothing is imported."""
    folder = environment()
    python = folder / "bin" / "python"
    packages = [str(path) for path in folder.glob("lib/python*/site-packages")]
    if python.exists() and (version := _version(packages)):
        return Installation(str(python), version)
    if not os.environ.get("SDRRL_COMET_ENV") and (version := _version(sys.path)):
        return Installation(sys.executable, version)
    return None


def _version(packages: list[str]) -> str | None:
    return next((package.version for package in distributions(name=_PACKAGE, path=packages)), None)


class Comet:
    """A COMET model, loaded at the first row, in a process that is shared by all of them and ends with this one.

    A checkpoint is a pickle: one that holds more than tensors and plain values is refused, and nothing of it is run.

    Args:
        model: a .ckpt file, a folder with hparams.yaml and checkpoints/model.ckpt, or a hub id.
        batch_size: rows at a time.
        references: whether it is to score against references (wmt22-comet-da) or without (wmt22-cometkiwi-da).

    Raises: UserError, here and at each `score`, without a key: recipes name the model in different ones.
    """

    def __init__(self, model: str, batch_size: int, references: bool):
        there = installation()
        if there is None:
            what = "COMET is not installed"
            if os.environ.get("SDRRL_COMET_ENV"):
                what = f"no COMET in {environment()}, which SDRRL_COMET_ENV names"
            raise UserError(what, "run `sdrrl install comet`")
        self.installation = there
        self.model, self.batch_size, self.references = model, batch_size, references
        self.path = _local_checkpoint(model)
        if self.path is None:
            _check_access(model)
        self.name = _identity(self.path) if self.path else model

    def score(self, rows: Sequence[dict[str, str]]) -> list[float]:
        """What `comet-score` gives for each {"src", "mt"[, "ref"]}; batches are sorted by length.

        When a GPU's memory runs out, batches halve themselves, for good.
        """
        out = [0.0] * len(rows)
        order = sorted(range(len(rows)), key=lambda i: (sum(map(len, rows[i].values())), i))
        start = 0
        while start < len(order):
            chosen = order[start : start + self.batch_size]
            answer = self._ask({"model": self._checkpoint, "rows": [rows[i] for i in chosen]})
            if answer.get("error") == "memory" and len(chosen) > 1:
                self.batch_size = len(chosen) // 2
                print(f"out of memory: COMET's batches have {self.batch_size} rows now", flush=True)
                continue
            if "error" in answer:
                fix = "free memory for it" if answer["error"] == "memory" else "name another COMET checkpoint"
                raise UserError(f"{self.model} cannot score ({answer['why']})", fix)
            for i, value in zip(chosen, answer["scores"], strict=True):
                out[i] = value
            start += len(chosen)
        return out

    @cached_property
    def _checkpoint(self) -> str:
        """The path of the .ckpt, once the worker has loaded it."""
        path = self.path or _downloaded(self.model)
        answer = self._ask({"model": str(path)})
        if answer.get("error") == "pickle":
            what = f"{path} is broken or holds pickled code"
            raise UserError(
                what, "fetch it again, or, if you trust who made it, set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1"
            )
        if "error" in answer:
            fixes = {"file": "run once with a network", "memory": "free memory for it"}
            what = f"{path} or its encoder cannot be loaded ({answer['why']})"
            raise UserError(what, fixes.get(answer["error"], "name a COMET checkpoint"))
        if answer["references"] != self.references:
            other = "a COMET model that takes them (wmt22-comet-da)" if self.references else "a COMETKiwi model"
            how = "against" if answer["references"] else "without"
            raise UserError(f"{self.model} scores {how} references", f"name {other}")
        return str(path)

    def _ask(self, request: dict) -> dict:
        try:
            return _worker(self.installation.python).ask(request)
        except _Ended as end:
            raise UserError(f"COMET's process ended ({end})", "run `sdrrl install comet`") from None


class _Ended(Exception):
    """The worker is gone; why, in a line."""


class _Worker:
    """A running comet_worker.py: killed with this object, and it ends by itself when this process dies."""

    def __init__(self, python: str):
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process
        # Neither may import what lies beside the worker: comet.py would be taken for unbabel-comet's `comet`. The
        # other environment's Python takes no packages from PYTHONPATH either.
        isolated = "-P" if python == sys.executable else "-I"
        self._process = subprocess.Popen(
            [python, isolated, str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
        )
        assert self._process.stdin and self._process.stdout
        self._requests, self._answers = self._process.stdin, self._process.stdout
        weakref.finalize(self, _kill, self._process, self._requests, self._answers)

    def ask(self, request: dict) -> dict:
        line = ""
        try:
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
            line = self._answers.readline()
        except BrokenPipeError:
            pass
        finally:
            if not line.endswith("\n"):  # Ctrl-C too: the late answer would be taken for that to the next request
                _worker.cache_clear()
        if not line.endswith("\n"):
            raise _Ended(self._last_words())
        return json.loads(line)

    def _last_words(self) -> str:
        status = self._process.wait()
        if status < 0:  # stderr tells nothing of it
            return f"killed by signal {-status}"
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"status {status}"


@cache
def _worker(python: str) -> _Worker:
    return _Worker(python)


def _kill(process: subprocess.Popen, requests: IO[str], answers: IO[str]) -> None:
    process.kill()
    process.wait()
    answers.close()
    with suppress(BrokenPipeError):  # a request that was never read
        requests.close()


def _local_checkpoint(model: str) -> Path | None:
    """The .ckpt file that `model` names; None: it is a hub id."""
    path = Path(model)
    if not path.exists():
        if is_hub_id(model) and path.suffix != ".ckpt":
            return None
        raise UserError(f"no checkpoint at {model}", f"mend the path, or {_FETCH}")
    path = path / "checkpoints" / "model.ckpt" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path} not found", "a checkpoint folder holds hparams.yaml and checkpoints/model.ckpt")
    if not (path.parents[1] / "hparams.yaml").is_file():
        raise UserError(f"{path} has no hparams.yaml in the folder above it", "copy it from where it came from")
    return path.resolve()


def _identity(path: Path) -> str:
    # Ends and size tell one checkpoint from another without reading gigabytes.
    with path.open("rb") as f:
        head = f.read(1 << 20)
        f.seek(max(0, path.stat().st_size - (1 << 20)))
        return sha256(head + f.read() + str(path.stat().st_size).encode())[:16]


def _check_access(model: str) -> None:
    try:
        check_access(model, "checkpoints/model.ckpt")
    except UserError as err:
        raise UserError(err.what, _FETCH) from None


def _downloaded(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    try:
        return Path(snapshot_download(model)) / "checkpoints" / "model.ckpt"
    except Exception as err:  # the hub's, httpx's or requests'
        raise UserError(f"{model} not downloaded ({type(err).__name__})", _FETCH) from None
