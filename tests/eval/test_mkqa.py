import gzip
import json
from pathlib import Path

import pytest

from sdrrl_eval.measure.metrics import mkqa as metric
from sdrrl_factory.errors import UserError
from sdrrl_factory.models.lm import Generation
from tests.eval.conftest import task_of

DATA = Path(__file__).parents[1] / "data/mkqa"
# By the official script (github.com/apple/ml-mkqa, commit 651b8cc8), of answers written for this project.
FIGURES = [json.loads(line) for line in (DATA / "figures.jsonl").read_text(encoding="utf-8").splitlines()]


def test_figures_equal_the_official_scripts():
    assert len({row["lang"] for row in FIGURES}) == 26 and sum(0 < row["f1"] < 1 for row in FIGURES) > 100
    for row in FIGURES:
        assert metric.f1(row["answer"], row["gold"], row["lang"]) == pytest.approx(row["f1"], abs=1e-9), row
        assert metric.em(row["answer"], row["gold"], row["lang"]) == row["em"], row


@pytest.mark.parametrize(
    ("lang", "text", "normal"),
    [
        ("en", "The U.S. of  America!", "us of america"),
        ("fr", "Les citrons de l'été, lemon", "s citrons lété mon"),  # no end of word in the official pattern
        ("es", "«La» casa; unas flores", "« » casa flores"),  # only ASCII punctuation goes
        ("ja", "東京 タワー", "東 京 タ ワ ー"),
        ("ko", "서울 타워", "서울 타워"),
    ],
)
def test_the_official_normalisation_with_its_quirks(lang, text, normal):
    assert metric.normalise(text, lang).replace(" ", "") == normal.replace(" ", "")
    assert metric.normalise(text, lang).split() == normal.split()


def test_no_answer_agrees_only_with_no_answer():
    assert metric.f1("", [""], "en") == metric.em("", [""], "en") == 1.0
    assert metric.f1("", ["x"], "en") == metric.f1("x", [""], "en") == 0.0
    assert metric.f1("the", ["", "x"], "en") == 1.0  # nothing is left of it


def test_parts_and_scores():
    config = task_of(task="mkqa", path=str(DATA / "mkqa.jsonl.gz"), langs=["spa", "jpn", "nob"])
    parts = config.read()
    # Five questions, one without an answer.
    assert [(part.name, len(part.items)) for part in parts] == [("mkqa.spa", 4), ("mkqa.jpn", 4), ("mkqa.nob", 4)]
    spanish = parts[0]
    assert [item.id for item in spanish.items] == ["1000", "1001", "1002", "1004"]
    prompt = "Answer the following question in Spanish with as few words as possible.\n? La casa de las flores"
    assert spanish.items[0].prompt == prompt
    answers = [Generation(text, "stop") for text in ("casa de flores", "un RÍO", "no", "")]
    rows, scores = config.score(spanish, answers, [], 42)
    assert [row["em"] for row in rows] == [1.0, 1.0, 0.0, 1.0]
    assert {s["metric"]: s["value"] for s in scores} == {"f1": 75.0, "em": 75.0}
    assert all(s["n"] == 4 and s["signature"] == "mkqa:answerable|norm:es|prompt:default" for s in scores)


def test_the_file_may_be_unpacked(tmp_path):
    (tmp_path / "mkqa.jsonl").write_bytes(gzip.decompress((DATA / "mkqa.jsonl.gz").read_bytes()))
    [part] = task_of(task="mkqa", path=str(tmp_path / "mkqa.jsonl"), langs=["eng"]).read()
    assert len(part.items) == 4


ROW = {"example_id": 1, "queries": {"es": "¿?"}, "answers": {"es": [{"type": "entity", "text": "x"}]}}
NONE = [{"type": "long_answer", "text": None}]


@pytest.mark.parametrize(
    ("raw", "langs", "expected"),
    [
        (json.dumps(ROW | {"queries": {}}), ["spa"], r"mkqa.jsonl:1: queries: es is missing"),
        (json.dumps(ROW | {"answers": {"en": []}}), ["spa"], r"mkqa.jsonl:1: answers.es is missing or empty"),
        (json.dumps(ROW | {"answers": {"es": [{"text": 3}]}}), ["spa"], r"mkqa.jsonl:1: an answer in answers.es is no"),
        (json.dumps(ROW | {"answers": {"es": NONE}}), ["spa"], "mkqa.jsonl: 0 questions with an answer in Spanish"),
        (json.dumps(ROW) + "\n" + json.dumps(ROW), ["spa"], "mkqa.jsonl:2: example_id '1' stands twice"),
        (json.dumps(ROW), ["ukr"], "^langs: MKQA has no Ukrainian; remove ukr"),
        ("", ["spa"], "mkqa.jsonl: 0 questions"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, raw, langs, expected):
    (tmp_path / "mkqa.jsonl").write_text(raw, encoding="utf-8")
    with pytest.raises(UserError, match=expected) as caught:
        task_of(task="mkqa", path=str(tmp_path / "mkqa.jsonl"), langs=langs).read()
    assert "\n" not in str(caught.value)


def test_half_a_gzip_file_is_one_line(tmp_path):
    (tmp_path / "mkqa.jsonl.gz").write_bytes((DATA / "mkqa.jsonl.gz").read_bytes()[:500])
    with pytest.raises(UserError, match="mkqa.jsonl.gz: broken gzip .*; fetch the file again"):
        task_of(task="mkqa", path=str(tmp_path / "mkqa.jsonl.gz"), langs=["spa"]).read()
