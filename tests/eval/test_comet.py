"""COMET by unbabel-comet's own classes, on a small checkpoint built here."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdrrl_eval.measure import runner
from sdrrl_eval.measure.metrics import comet
from sdrrl_eval.measure.recipe import EvalConfig
from sdrrl_factory.errors import UserError
from sdrrl_factory.models.comet import installation
from tests.conftest import command
from tests.eval.conftest import task_of
from tests.kiwi import predict

needs_comet = pytest.mark.skipif(installation() is None, reason="needs COMET: sdrrl install comet")


@pytest.fixture
def model(comet_models) -> Path:
    return comet_models["comet"]


def recipe(files: Path, checkpoint: str, **keys) -> EvalConfig:
    task = task_of(task="translation", path=str(files / "flores"), langs=["spa"], max_new_tokens=12, **keys)
    return EvalConfig(model=checkpoint, tasks=[task], output_dir=str(files / "out"), batch_size=2)


@needs_comet
def test_scores_are_those_of_comets_own_predict(files, checkpoint, model):
    results = runner.run(recipe(files, checkpoint, metrics=["comet", "bleu", "chrf"], comet_model=str(model)), "r.yaml")
    assert results["versions"]["unbabel-comet"] == installation().version
    assert [s["metric"] for s in results["scores"]] == ["bleu", "chrf", "comet"] * 2
    scores, rows, samples = results["scores"][2::3], [], []
    sources = {"eng-spa": "eng_Latn", "spa-eng": "spa_Latn"}
    for pair, code in sources.items():
        found = [json.loads(line) for line in (files / f"out/predictions/translation.{pair}.jsonl").open()]
        lines = (files / f"flores/{code}.devtest").read_text(encoding="utf-8").splitlines()
        rows.append([row["comet"] for row in found])
        samples += [{"src": src, "mt": r["output"], "ref": r["reference"]} for src, r in zip(lines, found, strict=True)]
    expected = [100 * value for value in predict(model, samples)]
    for score, pair, each, own in zip(scores, sources, rows, (expected[:3], expected[3:]), strict=True):
        assert f"{score['source_lang']}-{score['target_lang']}" == pair
        assert each == pytest.approx(own, abs=0.006) and len(set(each)) == 3
        assert score["value"] == pytest.approx(sum(own) / 3, abs=1e-3)
        assert score["ci95"][0] <= score["value"] <= score["ci95"][1]
        assert score["signature"] == f"comet:{comet.scorer(str(model)).name}|scale:100"


class FakeComet:
    """Scores a row by its lengths; counts the rows it is asked, and fails once as many as `most` were scored."""

    name, installation = "fake", SimpleNamespace(version="1")

    def __init__(self, most: int = 10**9):
        self.asked, self.most = [], most

    def score(self, rows):
        if len(self.asked) + len(rows) > self.most:
            raise KeyboardInterrupt
        self.asked += rows
        return [len(row["mt"]) / (1 + len(row["ref"])) for row in rows]


def test_scores_are_kept_in_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(comet, "_KEPT", 4)
    outputs = ["a" * (i % 7) for i in range(30)]
    texts = ["s"] * 30, outputs, ["r" * (i % 5) for i in range(30)]
    plain, each = comet.comet(FakeComet(), *texts, seed=1)
    # 1. Killed after eight rows, which are kept: the next run asks only for the others.
    killed, rest = FakeComet(most=8), FakeComet()
    with comet.remembering(tmp_path / "memory.sqlite"), pytest.raises(KeyboardInterrupt):
        comet.comet(killed, *texts, seed=1)
    with comet.remembering(tmp_path / "memory.sqlite"):
        assert comet.comet(rest, *texts, seed=1) == (plain, each)
    rows = [str(row) for row in killed.asked + rest.asked]
    assert len(killed.asked) == 8 and not {str(r) for r in killed.asked} & {str(r) for r in rest.asked}
    assert len(rows) == 30  # of two that are alike, both are scored in the first run, as without a memory
    # 2. Another system that says the same is asked nothing, another model everything.
    again, other = FakeComet(), FakeComet()
    other.name = "other"
    with comet.remembering(tmp_path / "memory.sqlite"):
        assert comet.comet(again, *texts, seed=1) == (plain, each) and again.asked == []
        comet.comet(other, *texts, seed=1)
    assert len(other.asked) == 30


@needs_comet
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/nowhere/at/all", "no checkpoint at /nowhere/at/all; mend the path"),
        ("./nowhere/model.ckpt", "no checkpoint at ./nowhere/model.ckpt"),
        ("{files}", "model.ckpt not found; a checkpoint folder holds hparams.yaml"),
    ],
)
def test_a_missing_model_is_one_line_before_anything_runs(files, name, expected):
    name = name.format(files=files)
    with pytest.raises(UserError, match=f"^tasks.0.comet_model: .*{expected}") as caught:
        runner.run(recipe(files, "./no/model", metrics=["comet"], comet_model=name), "r.yaml")
    assert "\n" not in str(caught.value)


@needs_comet
def test_a_model_without_references_is_refused(files, checkpoint, comet_models):
    expected = "^tasks.0.comet_model: .* scores without references; name a COMET model that takes them"
    with pytest.raises(UserError, match=expected):
        runner.run(recipe(files, checkpoint, metrics=["comet"], comet_model=str(comet_models["kiwi"])), "r.yaml")


@needs_comet
def test_the_default_model_without_a_network_is_one_line(files, tmp_path):
    path = files / "r.yaml"
    task = {"task": "translation", "path": str(files / "flores"), "langs": ["spa"], "metrics": ["comet"]}
    path.write_text(json.dumps({"model": "./no/model", "output_dir": str(files / "out"), "tasks": [task]}))
    done = command("sdrrl", "eval", path, check=False, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hub"))
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"sdrrl: {path}:1: tasks.0.comet_model: Unbabel/wmt22-comet-da cannot be reached")
    assert line.endswith("or name the path of a local checkpoint")
