"""`sdrrl install comet`: makes the environment that unbabel-comet runs in."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

from sdrrl_factory.errors import UserError
from sdrrl_factory.models.comet import environment, installation

VERSION = "2.2.7"
# Without setuptools COMET cannot look up its own version, and takes another layer transformation without a word.
_PACKAGES = [f"unbabel-comet=={VERSION}", "setuptools"]
_PINS = Path(__file__).with_name("comet_constraints.txt")
# In an environment that `sdrrl install` made.
_MARK = ".sdrrl-install"
_NEWEST = (3, 12)  # of which numpy 1.26 has wheels


def install_comet(python: str | None = None) -> Path:
    """Make or complete COMET's environment, by uv where there is one, else by venv and pip; returns its folder.

    python: the interpreter it is made from; by default this one.
    """
    folder = environment()
    made = (folder / "pyvenv.cfg").is_file()
    if not made and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an environment of Python's", "empty it, or name another in SDRRL_COMET_ENV")
    mark = folder / _MARK
    # The pins would replace packages of an environment that is used for something else. Where none is named it is ours
    # by its place, and may be older than the mark.
    others = made and os.environ.get("SDRRL_COMET_ENV") and not mark.exists() and _packages(folder)
    if others and installation() is None:
        what = f"{folder} is an environment of other packages ({', '.join(others[:3])}), some would be replaced"
        raise UserError(what, "name a folder that is not there in SDRRL_COMET_ENV")
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if python is None:
        fits = sys.version_info[:2] <= _NEWEST
        if not fits and not uv and not made:
            raise UserError(
                "COMET needs a Python up to 3.12", "install uv, or name one: `sdrrl install comet --python`"
            )
        python = sys.executable if fits else ".".join(map(str, _NEWEST))
    print(f"installing unbabel-comet {VERSION} into {folder}; with torch that is some gigabytes", flush=True)
    # An environment that uv made has no pip; venv completes it where uv is no longer at hand.
    if not made or not (uv or any(folder.glob("lib/python*/site-packages/pip"))):
        _run([uv, "venv", "-q", "-p", python, str(folder)] if uv else [python, "-m", "venv", str(folder)])
        mark.touch()
    inside = str(folder / "bin" / "python")
    pip = [uv, "pip", "install", "-q", "-p", inside] if uv else [inside, "-m", "pip", "install", "-q"]
    _run([*pip, "-c", str(_PINS), *_PACKAGES])
    _run([inside, "-I", "-c", "import comet"])
    if installation() is None:
        raise UserError(f"{folder} has no unbabel-comet after its installation", "remove the folder and install again")
    return folder


def _packages(folder: Path) -> list[str]:
    """What is installed in an environment beside what every new one has."""
    paths = [str(path) for path in folder.glob("lib/python*/site-packages")]
    names = {package.name for package in distributions(path=paths)}
    return sorted(names - {"pip", "setuptools", "wheel"})


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    except OSError as err:
        what = f"{command[0]}: cannot be run ({err.strerror})"
        raise UserError(what, "name another Python with --python") from None
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        what = f"`{' '.join(command[:4])} ...` failed ({why.strip()})"
        raise UserError(what, "mend that and install again")
