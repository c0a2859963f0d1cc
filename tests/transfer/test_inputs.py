"""The checks before any work: a run, a dry run and the doctor say the same of a mistake, and nothing is begun."""

import shutil

import pytest

from sdrrl_factory.cli import main
from sdrrl_factory.memory import Memory, beside, kind_of
from sdrrl_factory.transfer import generate, inputs
from sdrrl_factory.transfer.recipe import CodeSwitch, Generator, Parallel, PrepareConfig, Sampling, Translator
from tests.conftest import write_rows

needs_apertium = pytest.mark.skipif(
    shutil.which("apertium") is None, reason="needs Apertium: apt-get install apertium apertium-eng-spa"
)
ROW = {"instruction": "Name a small river.", "input": "", "output": "The Test is a small river."}
SERVER = "generator.backend=server generator.model=m"
MISTAKES = {
    "a model that is not there": ("generator.model=models/none", "no checkpoint at models/none"),
    "a model of a hub": ("generator.model=org/model", "org/model cannot be reached"),
    "a misspelt template": ("generator.template=smolm2", "did you mean smollm2?"),
    "a template of other tokens": ("generator.template=gemma", "has no token <end_of_turn>"),
    "no address": (SERVER, "backend server needs an address"),
    "no server": (f"{SERVER} generator.base_url=http://127.0.0.1:9/v1", "nobody answers"),
    "NLLB": ("translator.backend=nllb", "facebook/nllb-200-3.3B cannot be reached"),
    "no NLLB": ("translator.backend=nllb translator.model=models/none", "no checkpoint at models/none"),
    "no chat model": ("translator.backend=chat translator.model=models/none", "no checkpoint at models/none"),
    "no COMETKiwi": ("quality.backend=cometkiwi quality.model=models/none.ckpt", "models/none.ckpt"),
    "no language of that identifier": ("language_id.model=none.bin", "none.bin"),
}


@pytest.fixture
def keys(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "in.jsonl", [ROW])
    (tmp_path / "words.tsv").write_text("river\trío\n")
    (tmp_path / "r.yaml").write_text("instructions: in.jsonl\ntarget_lang: spa\nparallel: {size: 0}\n")
    return [f"generator.model={tiny}", "code_switch.dictionary=words.tsv", "work_dir=work", "dataset_dir=data"]


@needs_apertium
@pytest.mark.parametrize(("overrides", "said"), MISTAKES.values(), ids=MISTAKES)
def test_run_dry_run_and_doctor_say_the_same(keys, overrides, said, tmp_path, capsys):
    keys = [*keys, *overrides.split()]
    lines = []
    for options in ([], ["--dry-run"]):
        assert main(["prepare", "r.yaml", *options, *keys]) == 2
        lines.append(capsys.readouterr().err)
    assert lines[0] == lines[1] and lines[0].count("\n") == 1 and said in lines[0]
    assert main(["doctor", "r.yaml", *keys]) == 1
    detail = lines[0].removeprefix("sdrrl: ").rstrip().rpartition("; ")[0]
    assert detail in capsys.readouterr().out
    assert not (tmp_path / "work").exists() and not (tmp_path / "data").exists()


def config(**keys) -> PrepareConfig:
    defaults = {"parallel": Parallel(size=0), "code_switch": CodeSwitch(probability=0.0)}
    return PrepareConfig(instructions="in.jsonl", target_lang="spa", work_dir="work/a", **(defaults | keys))


def test_what_no_set_needs_is_not_asked_for(keys):
    nothing = Generator(model="models/none")
    only_ground_truth = config(generator=nothing, sampling=Sampling(keep_ground_truth=1.0))
    assert "generator" not in [check.what for check in inputs.checks(only_ground_truth)]
    baseline = config(generator=nothing, systems=["sft"], translator=Translator(backend="nllb"))
    assert [check.what for check in inputs.checks(baseline)] == ["keys", "folders", "instructions"]
    inputs.check(baseline)


def test_a_server_that_has_answered_before_may_be_gone(keys, tmp_path):
    generator = Generator(backend="server", model="m", base_url="http://127.0.0.1:9/v1")
    asked = config(generator=generator, translator=Translator(backend="none"))
    check = next(check for check in inputs.checks(asked) if check.what == "generator server")
    with pytest.raises(Exception, match="nobody answers"):
        check.look()
    with Memory(beside("work/a")) as memory:
        identity = generate.make(generator, memory).identity
        memory.put(kind_of("generate", **identity, max_new_tokens=256, temperature=0.0), {"Hi": ["Ho", "stop"]})
    assert check.look() == "http://127.0.0.1:9/v1 does not answer now; what it has answered is kept"
    # Another limit is another question.
    other = config(generator=generator.model_copy(update={"max_new_tokens": 9}), translator=Translator(backend="none"))
    with pytest.raises(Exception, match="nobody answers"):
        next(check for check in inputs.checks(other) if check.what == "generator server").look()
