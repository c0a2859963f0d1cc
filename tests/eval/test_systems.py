"""A recipe of several checkpoints: who is asked what, one table, and what is in memory when."""

import gc
import json
import threading
import weakref

import pytest

from sdrrl_eval import systems
from sdrrl_eval.compare.command import compare
from sdrrl_eval.measure.metrics import comet
from sdrrl_eval.measure.recipe import EvalConfig
from sdrrl_eval.measure.tasks.translation import Translation
from sdrrl_factory.cli import main
from sdrrl_factory.errors import UserError
from sdrrl_factory.models import server as client
from tests.eval.conftest import FakeLM, task_of, without_torch
from tests.eval.test_comet import FakeComet
from tests.eval.test_server_eval import Fake

LANGUAGES = {"spa": "spa_Latn", "por": "por_Latn", "eng": "eng_Latn"}


@pytest.fixture
def data(tmp_path):
    (tmp_path / "flores").mkdir()
    for code, name in LANGUAGES.items():
        lines = "".join(f"{code} sentence {i}.\n" for i in range(8))
        (tmp_path / f"flores/{name}.devtest").write_text(lines)
        rows = "".join(json.dumps({"id": f"q{i}", "instruction": f"{code} question {i}"}) + "\n" for i in range(8))
        (tmp_path / f"q.{code}.jsonl").write_text(rows)
    return tmp_path


def tasks(data) -> list:
    return [
        task_of(task="translation", path=str(data / "flores"), langs=["spa", "por"], metrics=["chrf"]),
        task_of(task="off_target", path=str(data / "q.{lang}.jsonl"), langs=["spa", "por", "eng"]),
    ]


def config(data, models, **keys) -> EvalConfig:
    return EvalConfig(models=models, tasks=tasks(data), output_dir=str(data / "out"), **keys)


def test_which_checkpoints_there_are(data, monkeypatch):
    monkeypatch.chdir(data)
    for name in ("spa_sft", "por_sft", "spa_sdrrl", "por_sdrrl", "other"):
        (data / "export" / name).mkdir(parents=True)
        (data / "export" / name / "config.json").write_text("{}")

    def named(models, **keys) -> list[tuple]:
        ones = systems.checkpoints(config(data, models, **keys))
        return [
            (one.system, one.lang, one.config.model, one.config.output_dir.removeprefix(f"{data}/")) for one in ones
        ]

    pattern = "export/{lang}_{system}"
    sdrrl = [
        ("sdrrl", "spa", "export/spa_sdrrl", "out/sdrrl/spa"),
        ("sdrrl", "por", "export/por_sdrrl", "out/sdrrl/por"),
    ]
    assert named(pattern)[:2] == sdrrl
    assert [one[0] for one in named(pattern)] == ["sdrrl", "sdrrl", "sft", "sft"]
    assert [one[0] for one in named(pattern, systems=["sft", "sdrrl"])] == ["sft", "sft", "sdrrl", "sdrrl"]
    assert named(["hub/base", "export/{lang}_sdrrl"]) == [("base", None, "hub/base", "out/base"), *sdrrl]
    adapter = systems.checkpoints(
        config(data, [{"model": "hub/base", "name": "lora", "adapter": "loras/{lang}", "template": "llama2"}])
    )
    assert [(one.config.model, one.config.adapter, one.config.template) for one in adapter] == [
        ("hub/base", "loras/spa", "llama2"),
        ("hub/base", "loras/por", "llama2"),
    ]
    # All have the memory that one of them would have in the output_dir itself.
    assert {one.config.memory for one in adapter} == {str(data / "memory.sqlite")}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (dict(models="none/{lang}_{system}"), "^models: no checkpoints like none/{lang}_{system}; train and export"),
        (
            dict(models=["./a", "./{lang}_b"]),
            r"^models: no checkpoint at ./a, ./spa_b, ./por_b: config.json not found;",
        ),
        (dict(models=["./a/x", "./b/x"]), "^models: two systems are called x; give each a name"),
        (dict(models=["./a"], systems=["x"]), "^systems: no {system} in models"),
        (dict(models=["./a"], model="./a"), "^models: model and models say the same"),
        (dict(models=None), "^model: no checkpoint; name one as model, or several as models"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_read(data, keys, expected):
    with pytest.raises(UserError, match=expected) as caught:
        systems.run(config(data / "nowhere", **keys), "r.yaml")
    assert "\n" not in str(caught.value)


def test_each_checkpoint_is_asked_its_language_and_the_data_are_read_once(data, monkeypatch, capsys):
    monkeypatch.setattr(client, "FIRST_WAIT", 0.002)
    monkeypatch.setenv("THE_KEY", "x")
    reads, read = [], Translation.read

    def spy(self):
        reads.append(self.path)
        return read(self)

    monkeypatch.setattr(Translation, "read", spy)
    fake = Fake(lambda prompt, limit: (f"Sí, claro que sí, mañana por la tarde {len(prompt)}.", "stop"))
    threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    keys = {"models": ["base", "ck/{lang}_sdrrl"], "output_dir": str(data / "out")}
    keys["server"] = {"base_url": fake.url, "api_key_env": "THE_KEY"}
    keys["tasks"] = [task.model_dump(exclude_none=True, exclude_defaults=True) for task in tasks(data)]
    (data / "r.yaml").write_text(json.dumps(keys))
    assert main(["eval", str(data / "r.yaml")]) == 0
    fake.shutdown(), fake.server_close()
    assert len(reads) == 1
    # 1. Spanish and English of the Spanish checkpoint, no Portuguese; everything of the base.
    asked = {}
    for request in fake.requests:
        asked.setdefault(request["model"], []).append(request["messages"][-1]["content"])
    assert set(asked) == {"base", "ck/spa_sdrrl", "ck/por_sdrrl"}
    assert not any("por " in prompt or "Portuguese" in prompt for prompt in asked["ck/spa_sdrrl"])
    assert len(asked["ck/spa_sdrrl"]) == len(asked["ck/por_sdrrl"]) == 8 * 4 and len(asked["base"]) == 8 * 7
    # 2. The files are those of single evaluations, and the table is `sdrrl compare`'s.
    out = data / "out"
    folders = [str(out / "base"), f"sdrrl={out}/sdrrl/spa,{out}/sdrrl/por"]
    told = capsys.readouterr().out
    comparison = compare(folders)
    capsys.readouterr()
    comparison.print()
    assert capsys.readouterr().out in told and "English, by the language taught" in told
    assert json.loads((out / "scores.json").read_text())["scores"] == json.loads(json.dumps(comparison.entries))
    assert (out / "report.html").is_file() and (out / "scores.csv").is_file()


def test_comet_comes_once_when_no_language_model_is_in_memory(data, monkeypatch):
    """Two checkpoints and a base: three models are loaded in turn, each gone before the next, all before COMET."""
    for name in ("base", "spa_sdrrl", "por_sdrrl"):
        (data / name).mkdir()
        (data / name / "config.json").write_text("{}")
    alive, most, made = [], [], []

    def count() -> int:
        gc.collect()
        return sum(lm() is not None for lm in alive)

    def load(config) -> FakeLM:
        most.append(count())
        lm = FakeLM()
        alive.append(weakref.ref(lm))
        return lm

    class Scorer(FakeComet):
        def score(self, rows):
            most.append(count())
            return super().score(rows)

    def scorer(model):
        if not made:
            made.append(Scorer())
        return made[0]

    without_torch(monkeypatch, load)
    monkeypatch.setattr(comet, "scorer", scorer)
    task = task_of(task="translation", path=str(data / "flores"), langs=["spa", "por"], metrics=["comet"])
    whole = config(data, [str(data / "base"), f"{data}/{{lang}}_sdrrl"], max_new_tokens=4)
    results = systems.run(whole.model_copy(update={"tasks": [task]}), "r.yaml")
    assert len(alive) == 3 == len(results["evaluations"]) and set(most) == {0} and len(made) == 1
    # Its scores are kept: what the base said, the others said too.
    assert len(made[0].asked) == 8 * 4
