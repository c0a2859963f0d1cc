import pytest

from sdrrl_eval.tasks import off_target
from sdrrl_eval.tasks.part import Item, Part
from sdrrl_factory.lm import Generation

SPANISH = "El agua se expande al congelarse, por lo que el hielo flota."
ENGLISH = "Water expands when it freezes, and so the ice floats on it."


@pytest.mark.parametrize(
    ("text", "language", "off"),
    [
        (SPANISH, "es", False),
        (ENGLISH, "en", True),
        ("", "", True),
        (" \n", "", True),
        ("Yes, of course.", "en", False),
        ("1 + 1 = 2", "", False),
    ],
)
def test_flag(text, language, off):
    found = off_target.flag(text, "es")
    assert (found["language"], found["off_target"]) == (language, off)


def test_the_rate_counts_wrong_and_empty_answers():
    answers = [Generation(text, "stop") for text in (SPANISH, ENGLISH, "", SPANISH)]
    part = Part("off_target", None, "spa", [Item(str(i), "q", None) for i in range(4)])
    rows, [score] = off_target.score(part, answers, None, 1, seed=1)
    assert score["value"] == 50.0 and score["n"] == 4
    assert score["signature"] == "fasttext:lid.176|minletters:20|minprob:0.5"
    assert [row["off_target"] for row in rows] == [False, True, True, False]
    assert rows[1]["language"] == "en" and rows[1]["probability"] > 0.5
