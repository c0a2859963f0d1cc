"""Marking on the paper's own Table 13; the choice of cases."""

import json

import pytest

from sdrrl_eval.compare.cases import by_id, most_changed
from sdrrl_eval.compare.foreign import foreign
from sdrrl_eval.compare.runs import predictions, read_run
from sdrrl_eval.compare.shared import shared_scores
from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import LANGUAGES

SLOVENIAN = (
    "Kralj Karel II. je bil tudi pomorski kralj, ki si je meril svet. Under his rule, the French navy became one of "
    "the most powerful in the world. Karel II. je bil tudi velik pokrovitelj umetnosti in književnosti."
)


@pytest.mark.parametrize(
    ("text", "lang", "marked"),
    [
        (SLOVENIAN, "slv", ["Under his rule, the French navy became one of the most powerful in the world."]),
        (SLOVENIAN.split(" Under")[0], "slv", []),
        ("лед vglobus и vanother ice age.", "bul", ["vglobus", "vanother ice age."]),
        ("Земята е bила покрита, DNA", "bul", ["bила"]),
        ("東京はmy homeです。DNAとは", "jpn", ["my", "home"]),
        ("", "spa", []),
        ("Hola <b>", "spa", []),
    ],
)
def test_words_of_another_language_are_marked(text, lang, marked):
    pieces = foreign(text, LANGUAGES[lang])
    assert "".join(piece for piece, _ in pieces) == text
    assert [piece for piece, flag in pieces if flag] == marked


@pytest.fixture
def systems(tmp_path):
    """The item's own chrF: 10 everywhere, after training +5 on item 3 and -7 on item 8."""
    score = {"task": "translation", "metric": "chrf", "source_lang": "eng", "target_lang": "spa"}
    score |= {"value": 20.0, "n": 12, "ci95": [19.0, 21.0], "signature": "s:1"}
    for name, change in (("base", {}), ("trained", {3: 5, 8: -7})):
        folder = tmp_path / name / "predictions"
        folder.mkdir(parents=True)
        (tmp_path / name / "results.json").write_text(json.dumps({"model": "m", "scores": [score]}))
        lines = [
            {"id": str(i), "prompt": f"q{i}", "output": "a", "reference": "b", "chrf": 10 + change.get(i, 0)}
            for i in range(12)
        ]
        (folder / "translation.eng-spa.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    predictions.cache_clear()
    return [read_run(str(tmp_path / name)) for name in ("base", "trained")]


def test_the_most_changed_items_are_the_cases(systems):
    cases = most_changed(systems, shared_scores(systems)[0])
    assert [(case.id, case.change) for case in cases] == [("3", 5), ("8", -7)]


def test_cases_by_id(systems):
    scores = shared_scores(systems)[0]
    assert [case.id for case in by_id(systems, scores, ["5", "translation.eng-spa:1"])] == ["5", "1"]
    with pytest.raises(UserError, match="--cases 99: no such item"):
        by_id(systems, scores, ["5", "99"])
