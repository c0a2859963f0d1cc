"""`sdrrl doctor`: what is found is what is there, and each failure has its fix."""

import json
import os
import shutil
import socket
import sys
import time
from importlib.metadata import version

import pytest

from sdrrl_factory.cli import main
from sdrrl_factory.doctor import installed
from sdrrl_factory.doctor.command import show
from sdrrl_factory.doctor.finding import Finding
from sdrrl_factory.doctor.needs import needs
from sdrrl_factory.recipe import kind_of, read
from sdrrl_factory.shipped import recipes
from tests.conftest import ROOT, command, write_rows

needs_apertium = pytest.mark.skipif(
    shutil.which("apertium") is None, reason="needs Apertium: apt-get install apertium apertium-eng-spa"
)
RECIPES = recipes()


@pytest.mark.slow
def test_a_sound_installation_has_status_0():
    done = command("sdrrl", "doctor")
    assert done.stdout.endswith("all there\n") and not done.stderr
    for said in ("live in a fresh interpreter", f"LLaMA-Factory      {version('llamafactory')}", version("torch")):
        assert said in done.stdout


@pytest.mark.slow
def test_a_plugin_that_is_off_fails_with_its_fix(tmp_path):
    done = command("sdrrl", "doctor", SDRRL_FACTORY_DISABLE="1", check=False)
    assert done.returncode == 1 and done.stdout.endswith("1 to mend\n")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("no ")]
    assert line.startswith("no  plugin") and line.endswith("fix: unset SDRRL_FACTORY_DISABLE")


def said(live: bool, unknown: list[str]) -> str:
    return "a library's chatter\n" + json.dumps([live, unknown, ["0.9.4", "0.9.5"]]) + "\n"


def test_names_that_are_not_known_are_told_with_the_version_that_has_them():
    known, plugin = installed.llamafactory(said(True, ["get_dataset"]), "", plugin_needed=True)
    assert known.state == "no" and "get_dataset" in known.detail and known.fix == "pip install llamafactory==0.9.5"
    assert plugin.state == "ok"


def test_a_version_that_was_not_tested_is_no_failure(monkeypatch):
    monkeypatch.setattr(installed, "_version", lambda name: "0.9.6")
    known, _ = installed.llamafactory(said(True, []), "", plugin_needed=True)
    assert known.state == "-" and "only 0.9.4, 0.9.5 were tested" in known.detail


@pytest.mark.slow
def test_without_the_pth_the_commands_say_that_the_plugin_is_not_live():
    """-S: Python with this environment's packages, which runs no .pth."""
    run = f"import sys; sys.path[:0] = {sys.path!r}; from sdrrl_factory import cli; sys.exit(cli.main())"
    done = command(sys.executable, "-S", "-c", run, "recipes")
    assert "the plugin is not live here" in done.stderr and done.stderr.count("\n") == 1
    assert "the plugin is not live here" not in command("sdrrl", "recipes").stderr


def test_pythonpath_is_named_with_what_to_copy(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"/nowhere:{ROOT}")
    plugin = installed.llamafactory(said(False, []), "", plugin_needed=True)[1]
    assert plugin.state == "no" and f"{ROOT} is on PYTHONPATH" in plugin.detail
    assert plugin.fix.startswith(f"cp {ROOT / installed.PTH} ") and (ROOT / installed.PTH).is_file()


def test_a_missing_pth_is_told_with_the_folders(monkeypatch, tmp_path):
    monkeypatch.setattr(installed.site, "getsitepackages", lambda: [str(tmp_path)])
    monkeypatch.setattr(installed.site, "ENABLE_USER_SITE", False)
    for needed, state in ((True, "no"), (False, "-")):
        plugin = installed.llamafactory(said(False, []), "", needed)[1]
        assert plugin.state == state and str(tmp_path) in plugin.detail and "pip install" in plugin.fix
    (tmp_path / "sdrrl_factory_autoload.pth").touch()
    assert "it is not run" in installed.llamafactory(said(False, []), "", True)[1].detail


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """The lock of a compilation of DeepSpeed's, in torch's extension folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    path = tmp_path / "torch_extensions/py311_cpu/deepspeed_shm_comm/lock"
    path.parent.mkdir(parents=True)
    return path


def test_a_lock_that_a_killed_compilation_left_is_told_with_its_age(lock):
    assert installed.stale_locks() == []
    lock.touch()
    os.utime(lock, (time.time() - 3600,) * 2)
    (finding,) = installed.stale_locks()
    assert finding.state == "no" and "deepspeed_shm_comm" in finding.detail and "60 minutes ago" in finding.detail
    assert finding.fix.startswith(f"rm {lock} ")


def test_the_lock_of_a_compilation_that_goes_on_is_none(lock, monkeypatch):
    """torch holds the file open as long as it compiles."""
    from torch.utils.file_baton import FileBaton

    baton = FileBaton(str(lock))
    assert baton.try_acquire() and lock.exists()
    assert installed.stale_locks() == []
    baton.release()
    assert installed.stale_locks() == []
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(lock.parent.parent))
    lock.touch()
    assert len(installed.stale_locks()) == 1


def test_a_killed_compilation_leaves_a_lock(lock):
    code = f"import os, sys; sys.path[:0] = {sys.path!r}\nfrom torch.utils.file_baton import FileBaton\n"
    code += f"FileBaton({str(lock)!r}).try_acquire(); os.kill(os.getpid(), 9)"
    assert command(sys.executable, "-c", code, check=False).returncode == -9
    assert len(installed.stale_locks()) == 1


def test_a_llamafactory_that_cannot_be_imported_says_why():
    (finding,) = installed.llamafactory("", "Traceback:\n  ...\nImportError: no torchaudio\n", True)
    assert finding.state == "no" and "ImportError: no torchaudio" in finding.detail and finding.fix


def findings(path, *overrides) -> dict[str, Finding]:
    recipe = read(str(path), overrides)
    return {finding.what: finding for finding in needs(kind_of(recipe), recipe, overrides)}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_examined_and_each_failure_has_a_fix(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = findings(RECIPES[name])
    assert found
    for finding in found.values():
        assert finding.state in ("ok", "no", "-") and finding.detail and "\n" not in finding.detail
        assert finding.fix or finding.state == "ok", finding


@pytest.fixture
def prepare(tiny, tmp_path, monkeypatch):
    """Overrides with which the demo's prepare recipe has all it needs."""
    monkeypatch.chdir(ROOT)
    (tmp_path / "en-es.txt").write_text("house casa\n")
    return [f"generator.model={tiny}", f"code_switch.dictionary={tmp_path}/en-es.txt", f"dataset_dir={tmp_path}/data"]


@needs_apertium
def test_a_prepare_recipe_that_has_all_it_needs(prepare):
    found = findings(RECIPES["prepare/demo_spa"], *prepare)
    assert {f.state for f in found.values()} == {"ok"}, found
    assert "eng-spa 1 words, back 1" in found["dictionary"].detail
    assert "pairs of eng and spa" in found["parallel"].detail


@needs_apertium
@pytest.mark.parametrize(
    ("override", "row", "said"),
    [
        ("max_sampels=1", "keys", "max_samples"),
        ("target_lang=xxx", "keys", "known:"),
        ("instructions=none.jsonl", "instructions", "check the path"),
        ("instructions=some/dataset", "instructions", "HF_HUB_OFFLINE"),
        ("generator.model=models/none", "generator model", "mend the path"),
        ("generator.model=some/model", "generator model", "HF_HUB_OFFLINE"),
        ("generator.backend=server", "generator", "http://localhost:8000/v1"),
        ("generator.template=smolm2", "generator model", "did you mean smollm2?"),
        ("generator.template=gemma", "generator model", "has no token <end_of_turn>"),
        ("translator.backend=nllb", "translator model", "HF_HUB_OFFLINE"),
        ("target_lang=fin", "translator", "apt-cache search apertium-"),
        ("translator.backend=ctranslate2", "translator", "sdrrl convert-model"),
        ("translator.backend=chat", "translator", "name one"),
        ("quality={backend: cometkiwi, model: none.ckpt}", "quality", "none.ckpt"),
        ("language_id.model=none.bin", "language id", "lid.176"),
        ("code_switch.dictionary=none.txt", "dictionary", "freedict or induced"),
        ("parallel.source=none.tsv", "parallel", "mend the path"),
        ("dataset_dir=README.md", "folders", "choose another"),
    ],
)
def test_what_a_prepare_recipe_lacks(prepare, override, row, said):
    found = findings(RECIPES["prepare/demo_spa"], *prepare, override)
    assert found[row].state == "no", found
    assert said in found[row].detail + found[row].fix


def test_a_server_is_asked_whether_it_is_there(prepare):
    keys = [*prepare, "generator.backend=server"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        found = findings(RECIPES["prepare/demo_spa"], *keys, f"generator.base_url={address}")
    assert found["generator server"] == Finding("ok", "generator server", f"{address} answers")
    found = findings(RECIPES["prepare/demo_spa"], *keys, f"generator.base_url={address}")["generator server"]
    assert found.state == "no" and "start the server" in found.fix
    assert f"generator.base_url: {address}: nobody answers" in found.detail


def test_what_no_set_needs_is_not_asked_for(prepare):
    found = findings(RECIPES["prepare/demo_spa"], *prepare, "sampling.keep_ground_truth=1.0", "generator.model=none")
    assert not [name for name in found if name.startswith("generator")]
    keys = ["systems=[sft]", "translator.backend=nllb", "language_id.model=none.bin", "code_switch.dictionary=none"]
    found = findings(RECIPES["prepare/demo_spa"], *prepare, *keys)
    assert set(found) == {"keys", "folders", "instructions"} and {f.state for f in found.values()} == {"ok"}


@pytest.fixture
def train(tiny, tmp_path, monkeypatch):
    """Overrides with which the demo's train recipe has all it needs; `gone` is an entry without its file."""
    monkeypatch.chdir(ROOT)
    write_rows(tmp_path / "a.jsonl", [{"instruction": "a", "input": "", "output": "b"}])
    info = {"a": {"file_name": "a.jsonl", "sdrrl": {"subset": "LL"}}, "gone": {"file_name": "gone.jsonl"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    return [f"model_name_or_path={tiny}", f"dataset_dir={tmp_path}", "dataset=a"]


def test_a_train_recipe_that_has_all_it_needs(train):
    found = findings(RECIPES["train/demo_spa_sdrrl"], *train, "deepspeed=yaml_recipes/deepspeed/zero3.json")
    assert {f.state for f in found.values() if f.what != "DeepSpeed"} == {"ok"}, found
    assert found["data a"].detail == "a.jsonl; subset LL" and found["ZeRO"].detail.endswith("stage 3")


@pytest.mark.parametrize(
    ("override", "row", "said"),
    [
        ("learning_rat=1", "keys", "learning_rat"),
        ("model_name_or_path=models/smollm2-135n", "model", "mend the path"),
        ("adapter_name_or_path=runs/none", "adapter", "adapter_config.json"),
        ("template=smollm", "template", ""),
        ("template=smolm2", "template", "did you mean smollm2?"),
        ("dataset='a,b'", "data b", "sdrrl prepare"),
        ("dataset=gone", "data gone", "gone.jsonl: no such file"),
        ("dataset_dir=none", "data a", "sdrrl prepare"),
        ("deepspeed=none.json", "ZeRO", "sdrrl recipes cp"),
        ("deepspeed=pyproject.toml", "ZeRO", "mend the file"),
    ],
)
def test_what_a_train_recipe_lacks(train, override, row, said):
    found = findings(RECIPES["train/demo_spa_sdrrl"], *train, override)
    # smollm is a template too.
    assert found[row].state == ("ok" if override == "template=smollm" else "no"), found
    assert said in found[row].detail + found[row].fix


def test_offload_that_loses_gradients_is_told(train):
    def zero(name, accumulations):
        keys = [f"deepspeed=yaml_recipes/deepspeed/{name}.json", f"gradient_accumulation_steps={accumulations}"]
        return findings(RECIPES["train/demo_spa_sdrrl"], *train, *keys)["ZeRO"]

    found = zero("zero2_offload", 4)
    assert (found.state, found.fix[:50]) == ("no", "set gradient_accumulation_steps to 1 or 2, or use ")
    assert zero("zero2_offload", 2).state == zero("zero3_offload", 4).state == zero("zero2", 4).state == "ok"


def test_bf16_without_a_gpu_is_told(train):
    torch = pytest.importorskip("torch")
    found = findings(RECIPES["train/demo_spa_sdrrl"], *train, "bf16=true", "use_cpu=false")
    assert (found["bf16"].state == "no") == (not torch.cuda.is_available())


def test_an_eval_recipe(tiny, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = findings(RECIPES["eval/demo_spa"], f"model={tiny}")
    assert {f.state for f in found.values()} == {"ok"}, found
    assert found["task instructions"].detail.startswith("data/heldout/instructions.{lang}.jsonl: ")
    lacks = findings(RECIPES["eval/demo_spa"], "tasks.0.path=none", "model=runs/none")
    assert lacks["task text_loss"].state == lacks["model"].state == "no"


@pytest.mark.parametrize("text", ["", "model: x\n"])
def test_what_is_no_recipe_is_one_line(text, tmp_path, capsys):
    (tmp_path / "a.yaml").write_text(text)
    assert main(["doctor", str(tmp_path / "a.yaml")]) == 2
    err = capsys.readouterr().err
    assert "no recipe" in err and err.count("\n") == 1


def test_a_terminal_gets_colours(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert show([Finding("no", "plugin", "off [x]", "do this"), Finding("ok", "Python", "3")], "here") == 1
    out = capsys.readouterr().out
    assert "fix: do this" in out and "off [x]" in out and "\x1b[" in out


def test_lines_are_told_as_they_are_found(capsys):
    told = []

    def findings_so_far():
        for what in ("one", "two"):
            yield Finding("ok", what, "there")
            told.append(capsys.readouterr().out)

    show(findings_so_far(), "here")
    assert told == ["here:\nok  one                there\n", "ok  two                there\n"]


@pytest.mark.parametrize("name", ["prepare/demo_spa", "eval/demo_spa"])
def test_neither_torch_nor_llamafactory_is_imported_for_these_recipes(name):
    code = "import sys\nfrom sdrrl_factory.cli import main\n"
    code += f"main(['doctor', '{name}'])\nprint(*{{'torch', 'transformers', 'llamafactory'}} & sys.modules.keys())"
    lines = command(sys.executable, "-c", code).stdout.splitlines()
    assert lines[-1] == "" and lines[-2].endswith(("all there", "to mend"))
    assert not any(line.startswith("no") for line in lines[: lines.index(f"{name.split('/')[0]} recipe {name}:")])


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"a": {"file_name": ["a.jsonl", "b.jsonl"]}}, "file_name of a is"),
        ({"a": {"file_name": 3}}, "file_name of a is 3"),
        ({"a": ["a.jsonl"]}, "no entry a"),
        ([{"a": {}}], "no JSON object"),
    ],
)
def test_entries_of_another_shape_are_a_line(train, tmp_path, entries, said):
    (tmp_path / "dataset_info.json").write_text(json.dumps(entries))
    found = findings(RECIPES["train/demo_spa_sdrrl"], *train)["data a"]
    assert found.state == "no" and said in found.detail and found.fix
