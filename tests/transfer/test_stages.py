"""A stage is its settings: it travels to another process and gives the same shard there."""

import dataclasses
import multiprocessing
import pickle
import shutil
from pathlib import Path

import pytest

from sdrrl_factory.transfer import inputs, pipeline
from sdrrl_factory.transfer.recipe import CodeSwitch, Filters, Generator, Parallel, PrepareConfig, Quality
from sdrrl_factory.transfer.sets import SYSTEMS
from sdrrl_factory.transfer.stage import Stage
from sdrrl_factory.transfer.store import columns

needs_apertium = pytest.mark.skipif(shutil.which("apertium") is None, reason="needs `apt-get install apertium-eng-spa`")
RECORDS = [
    {"id": f"r{i}", "instruction": f"What is the house of {i} cats?", "input": "", "output": answer, "system": ""}
    for i, answer in enumerate(["The house is red.", "It has 3 doors.", "The house is red.", "See https://a.org now."])
]


def shard(pickled: bytes, batch: dict) -> dict:
    stage = pickle.loads(pickled)
    with stage.open() as tool:
        return stage(batch, tool)


@pytest.fixture
def config(tiny, tmp_path):
    (tmp_path / "words.tsv").write_text("house\tcasa\nred\trojo\n", encoding="utf-8")
    return PrepareConfig(
        instructions="in.jsonl",
        target_lang="spa",
        systems=list(SYSTEMS),
        generator=Generator(model=str(tiny), max_new_tokens=6),
        code_switch=CodeSwitch(dictionary=str(tmp_path / "words.tsv")),
        parallel=Parallel(size=0),
        dataset_dir=str(tmp_path / "data"),
        work_dir=str(tmp_path / "work"),
    )


def stages_of(config: PrepareConfig) -> list[Stage]:
    models, target = inputs.models(config), inputs.target(config, "spa")
    synthesis, translation = (
        pipeline.synthesis(config, models, pipeline.sampling(config)),
        pipeline.translation(config, models, target),
    )
    return [*synthesis, *translation, pipeline.assembly(config, target)]


@needs_apertium
def test_every_stage_gives_the_same_shard_in_a_fresh_process(config, tmp_path):
    stages = stages_of(config)
    assert [stage.name for stage in stages] == [
        "sample", "generate", "settle", "translate", "score", "filter", "switch", "assemble",
    ]  # fmt: skip
    every = {stage for stage in Stage.__subclasses__() if stage.__module__.startswith("sdrrl_factory.")}
    assert {type(stage) for stage in stages} == every
    batch = columns(RECORDS)
    with multiprocessing.get_context("spawn").Pool(1) as fresh:
        for stage in stages:
            here = shard(pickle.dumps(stage), batch)
            # A memory of its own: there the models answer, not what they said here.
            keys = {field.name for field in dataclasses.fields(stage)}
            travelling = dataclasses.replace(stage, memory=tmp_path / "there.sqlite") if "memory" in keys else stage
            assert fresh.apply(shard, (pickle.dumps(travelling), batch)) == here, stage.name
            assert pickle.loads(pickle.dumps(stage)) == stage and travelling.fingerprint() == stage.fingerprint()
            assert here.keys() > batch.keys()
            batch = here
    assert {row["subset"] for rows in batch["rows"] for lines in rows.values() for row in lines} >= {"LL", "TT", "xcot"}


CHANGES = [
    ({"seed": 1}, "sample generate switch assemble"),
    ({"generator": {"max_new_tokens": 7}}, "generate"),
    ({"generator": {"batch_size": 1, "retries": 0}}, ""),
    ({"quality": Quality(threshold=0.5)}, "filter"),
    ({"quality": Quality(batch_size=1)}, ""),
    ({"quality": Quality(backend="none")}, "score filter"),
    ({"filters": Filters(max_chars=9)}, "filter"),
    ({"code_switch": {"probability": 0.3}}, "switch"),
    ({"answer_language": "all"}, "assemble"),
    ({"work_dir": "elsewhere", "shard_size": 3}, ""),
]


@needs_apertium
@pytest.mark.parametrize(("keys", "changed"), CHANGES, ids=str)
def test_a_changed_key_is_seen_by_the_stages_that_depend_on_it(config, keys, changed):
    changes = {
        key: getattr(config, key).model_copy(update=value) if isinstance(value, dict) else value
        for key, value in keys.items()
    }
    before, after = stages_of(config), stages_of(config.model_copy(update=changes))
    names = {a.name for a, b in zip(before, after, strict=True) if a.fingerprint() != b.fingerprint()}
    assert names == set(changed.split())


@needs_apertium
def test_another_version_of_the_way_back_scores_anew(config, monkeypatch):
    from sdrrl_factory.transfer.translate import apertium

    before = stages_of(config)
    real = apertium._version
    monkeypatch.setattr(apertium, "_version", lambda mode: real(mode) + ("!" if mode.stem == "spa-eng" else ""))
    after = stages_of(config)
    assert {a.name for a, b in zip(before, after, strict=True) if a.fingerprint() != b.fingerprint()} == {"score"}


def test_a_tool_does_not_travel_with_its_stage(config):
    models = inputs.Models("checkpoint", "", {"spa": ""}, {"spa": ""})
    for stage in pipeline.synthesis(config, models, pipeline.sampling(config)):
        with stage.open():
            assert pickle.loads(pickle.dumps(stage)) == stage
    assert not Path(config.work_dir).exists()
