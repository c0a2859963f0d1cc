import shutil

import pytest

from tests.conftest import ROOT


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder of a server, with the demo's instructions in it, and another one beside it."""
    work = tmp_path / "work"
    (work / "data/seeds").mkdir(parents=True)
    shutil.copy(ROOT / "data/seeds/english_instructions.jsonl", work / "data/seeds")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.yaml").write_text("name: secret\n")
    monkeypatch.chdir(work)
    monkeypatch.delenv("SDRRL_WEBUI_FOLDERS", raising=False)
    return work
