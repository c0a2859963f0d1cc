"""COMET's process and environment: how it starts, ends and dies; its scores are tested where they are used."""

import os
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.models import comet, comet_install
from sdrrl_factory.models.comet import Comet, installation
from tests.conftest import ROOT, command

needs_comet = pytest.mark.skipif(installation() is None, reason="needs COMET: sdrrl install comet")
ROWS = [{"src": "The library opens.", "mt": "La biblioteca se abre."}, {"src": "Water.", "mt": "Agua."}]


def one_line(run) -> str:
    with pytest.raises(UserError) as caught:
        run()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """An environment of COMET's, by its metadata, whose Python is the given shell script."""

    def make(script: str) -> Path:
        folder = tmp_path / "comet"
        packages = folder / "lib/python3.11/site-packages/unbabel_comet-2.2.7.dist-info"
        packages.mkdir(parents=True)
        (packages / "METADATA").write_text("Metadata-Version: 2.1\nName: unbabel-comet\nVersion: 2.2.7\n")
        (folder / "bin").mkdir()
        (folder / "bin/python").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "bin/python").chmod(0o755)
        monkeypatch.setenv("SDRRL_COMET_ENV", str(folder))
        return folder

    return make


@pytest.fixture
def checkpoint(tmp_path) -> str:
    """Enough for what is checked before the worker starts."""
    (tmp_path / "model/checkpoints").mkdir(parents=True)
    (tmp_path / "model/checkpoints/model.ckpt").write_bytes(b"x")
    (tmp_path / "model/hparams.yaml").write_text("x: 1")
    return str(tmp_path / "model")


def test_the_named_environment_is_the_only_one_looked_at(tmp_path, monkeypatch, own):
    monkeypatch.setenv("SDRRL_COMET_ENV", str(tmp_path / "nowhere"))
    assert installation() is None
    expected = f"no COMET in {tmp_path}/nowhere, which SDRRL_COMET_ENV names; run `sdrrl inst"
    assert one_line(lambda: Comet("a/b", 4, False)).startswith(expected)
    folder = own("")
    assert installation() == comet.Installation(str(folder / "bin/python"), "2.2.7")


def test_without_any_environment_it_is_not_installed(tmp_path, monkeypatch, own):
    monkeypatch.delenv("SDRRL_COMET_ENV", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])
    expected = "COMET is not installed; run `sdrrl install comet`"
    assert one_line(lambda: Comet("a/b", 4, False)) == expected
    (tmp_path / "sdrrl").mkdir()
    own("").rename(tmp_path / "sdrrl" / "comet")
    monkeypatch.delenv("SDRRL_COMET_ENV")
    assert installation().python == str(tmp_path / "sdrrl/comet/bin/python")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (
            "echo first >&2; echo 'ModuleNotFoundError: No module named torch' >&2; exit 1",
            "ModuleNotFoundError: No mod",
        ),
        ("exit 3", "status 3"),
        ("kill -9 $$", "killed by signal 9"),
        ("read line; printf '{\"refer'; kill -9 $$", "killed by signal 9"),
    ],
)
def test_a_process_that_ends_is_one_line_and_the_next_one_is_new(own, checkpoint, script, why):
    folder = own(script)
    scorer = Comet(checkpoint, 4, False)
    for _ in range(2):
        line = one_line(lambda: scorer.score(ROWS))
        assert line.startswith(f"COMET's process ended ({why}") and line.endswith("run `sdrrl install comet`")
    (folder / "bin/python").write_text(
        "#!/bin/sh\nread line; echo '{\"references\": false}'; read line; echo '{\"scores\": [0.5, 0.25]}'; read line\n"
    )
    assert scorer.score(ROWS) == [0.25, 0.5]  # the shorter row goes first


def test_batches_halve_when_memory_runs_out(own, checkpoint, capsys):
    answers = ['{"references": false}', '{"error": "memory", "why": "x"}', '{"scores": [0.5]}', '{"scores": [0.25]}']
    own("".join(f"read line; echo '{answer}'; " for answer in answers) + "read line")
    assert Comet(checkpoint, 4, False).score(ROWS) == [0.25, 0.5]
    assert capsys.readouterr().out == "out of memory: COMET's batches have 1 rows now\n"


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


@needs_comet
@pytest.mark.slow
def test_the_process_dies_with_its_parent_however_it_dies(comet_models):
    """In the middle of a batch: SIGKILL leaves the parent no time to clean up."""
    code = (
        "import sys, subprocess; from sdrrl_factory.models import comet\n"
        f"scorer = comet.Comet({str(comet_models['kiwi'])!r}, 4096, False)\n"
        f"scorer.score({ROWS!r})\n"
        "print(comet._worker(scorer.installation.python)._process.pid, flush=True)\n"
        f"scorer.score({ROWS!r} * 2000)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        time.sleep(0.3)
        assert alive(worker)
        parent.kill()
    for _ in range(100):
        if not alive(worker):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its parent by ten seconds")


def test_a_folder_of_something_else_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "thesis.tex").write_text("x")
    monkeypatch.setenv("SDRRL_COMET_ENV", str(tmp_path))
    done = command("sdrrl", "install", "comet", check=False)
    assert done.returncode == 2 and list(tmp_path.iterdir()) == [tmp_path / "thesis.tex"]
    [line] = done.stderr.splitlines()
    assert line.startswith(f"sdrrl: {tmp_path} is not an environment of Python's; ")


def test_an_installation_that_fails_is_one_line(tmp_path, monkeypatch):
    """The installer's own last line, without a network."""
    venv.create(tmp_path / "comet")
    monkeypatch.setenv("SDRRL_COMET_ENV", str(tmp_path / "comet"))
    for name in ("UV_OFFLINE", "UV_NO_CACHE", "PIP_NO_INDEX"):
        monkeypatch.setenv(name, "1")
    line = one_line(comet_install.install_comet)
    assert "pip install" in line and line.endswith("; mend that and install again") and installation() is None


def test_an_environment_of_other_packages_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("SDRRL_COMET_ENV", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/pyvenv.cfg").write_text("home = /usr/bin\n")
    package = tmp_path / "mine/lib/python3.11/site-packages/numpy-2.4.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Name: numpy\nVersion: 2.4.0\n")
    line = one_line(comet_install.install_comet)
    assert "mine is an environment of other packages (numpy)" in line and "SDRRL_COMET_ENV" in line
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == ["lib", "pyvenv.cfg"]


def test_the_pins_are_exact_and_name_no_host():
    lines = comet_install._PINS.read_text().splitlines()[1:]
    assert all(line.count("==") == 1 and "/" not in line for line in lines)
    assert f"unbabel-comet=={comet_install.VERSION}" in lines
