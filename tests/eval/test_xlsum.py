import json
from pathlib import Path

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.models.lm import Generation
from tests.eval.conftest import task_of

pytest.importorskip("rouge_score", reason="rouge-score is missing: pip install 'sdrrl-factory[rouge]'")
DATA = str(Path(__file__).parents[1] / "data/xlsum")
ROW = {"id": "1", "url": "", "title": "t", "summary": "Un resumen.", "text": "Un texto {largo}."}


def test_parts_and_scores():
    config = task_of(task="xlsum", path=DATA, langs=["spa", "eng"])
    spanish, english = config.read()
    assert (spanish.name, english.name, len(spanish.items)) == ("xlsum.spa", "xlsum.eng", 2)
    item = spanish.items[0]
    assert item.prompt.startswith("Summarize the following text in one sentence in Spanish.\nEl viejo faro")
    assert item.reference.startswith("El faro, cerrado") and item.texts == {"text": item.prompt.split("\n", 1)[1]}
    answers = [Generation(spanish.items[0].reference, "stop"), Generation("", "length")]
    rows, scores = config.score(spanish, answers, [], 42)
    assert [(s["metric"], s["value"], s["n"]) for s in scores] == [("rouge1", 50.0, 2), ("rougeL", 50.0, 2)]
    assert [row["rougeL"] for row in rows] == [100.0, 0.0] and rows[1]["finish"] == "length"
    assert "tok:xlsum-words|stem:snowball" in scores[0]["signature"]


def test_a_prompt_of_ones_own(tmp_path):
    (tmp_path / "spanish_test.jsonl").write_text(json.dumps(ROW), encoding="utf-8")
    path = str(tmp_path / "{xlsum}_test.jsonl")
    [part] = task_of(task="xlsum", path=path, langs=["spa"], prompt="{title}: {text}\nTL;DR in {language}:").read()
    assert part.items[0].prompt == "t: Un texto {largo}.\nTL;DR in Spanish:"


@pytest.mark.parametrize(
    ("raw", "keys", "expected"),
    [
        (json.dumps({k: v for k, v in ROW.items() if k != "summary"}), {}, r"spanish_test.jsonl:1: summary is missing"),
        (json.dumps(ROW) + "\n" + json.dumps(ROW), {}, r"spanish_test.jsonl:2: id '1' stands twice"),
        ("", {}, "spanish_test.jsonl: 0 rows"),
        (None, {}, "spanish_test.jsonl: no such file"),
        (json.dumps(ROW), {"langs": ["ces"]}, "^langs: the data behind {xlsum} have no Czech; remove ces"),
        (json.dumps(ROW), {"prompt": "Summarize."}, r"^prompt: 'Summarize.' lacks \{text\}"),
        (json.dumps(ROW), {"tokenizer": "mecab"}, r"tokenizer is 'mecab'; it must be rouge-score \| xlsum"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, raw, keys, expected):
    if raw is not None:
        (tmp_path / "spanish_test.jsonl").write_text(raw, encoding="utf-8")
    with pytest.raises(UserError, match=expected) as caught:
        config = task_of(**{"task": "xlsum", "path": str(tmp_path), "langs": ["spa"]} | keys)
        config.read()
        config.check()
    assert "\n" not in str(caught.value)
