import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.transfer import wishes
from sdrrl_factory.transfer.subsets import SUBSETS, row, rows_of_record

COLUMNS = ["id", "subset", "instruction", "input", "output", "source_lang", "target_lang", "answer_origin"]


def record(question_ok=True, answer_ok=True) -> dict:
    cs = {f"{part}_{d}_cs": f"{part} {d}" for part in ("instruction", "input") for d in ("ll", "tl", "lt", "tt")}
    texts = {"instruction": "q", "input": "i", "answer": "yés \u2028\n", "instruction_mt": "q2", "answer_mt": " sí "}
    return {"id": "r", "answer_origin": "G", "question_ok": question_ok, "answer_ok": answer_ok, **texts, **cs}


@pytest.mark.parametrize(
    ("question_ok", "answer_ok", "subsets"),
    [
        (True, True, ["LL", "TL", "LT", "TT"]),
        (True, False, ["LL", "TL"]),
        (False, True, ["LL", "LT"]),
        (False, False, ["LL"]),
    ],
)
def test_a_bad_translation_leaves_out_what_needs_it(question_ok, answer_ok, subsets):
    assert list(rows_of_record(record(question_ok, answer_ok), "eng", "spa", "cross")) == subsets


def test_answers_are_untouched_and_shared():
    rows = rows_of_record(record(), "eng", "spa", "all")
    outputs = {subset: r["output"] for subset, r in rows.items()}
    assert outputs == {"LL": "yés \u2028\n", "TL": "yés \u2028\n", "LT": " sí ", "TT": " sí "}


@pytest.mark.parametrize(
    ("answer_language", "wished"),
    [
        ("none", {"LL": "", "TL": "", "LT": "", "TT": ""}),
        ("cross", {"LL": "", "TL": " Responde en inglés.", "LT": " Answer in Spanish.", "TT": ""}),
        (
            "all",
            {
                "LL": " Answer in English.",
                "TL": " Responde en inglés.",
                "LT": " Answer in Spanish.",
                "TT": " Responde en español.",
            },
        ),
    ],
)
def test_wishes_are_in_the_questions_language(answer_language, wished):
    rows = rows_of_record(record(), "eng", "spa", answer_language)
    assert {s: r["instruction"] for s, r in rows.items()} == {
        s: f"instruction {s.lower()}{w}" for s, w in wished.items()
    }
    assert {s: r["input"] for s, r in rows.items()} == {s: f"input {s.lower()}" for s in rows}


def test_columns_are_the_contracts():
    for subset, r in rows_of_record(record(), "eng", "spa", "cross").items():
        assert list(r) == COLUMNS
        assert (r["id"], r["subset"], r["source_lang"], r["target_lang"]) == ("r", subset, "eng", "spa")
        assert r["answer_origin"] == "G"
    assert list(row("mt", "p", "a", "b", "c", "eng", "spa", "P")) == COLUMNS
    assert SUBSETS == ("LL", "TL", "LT", "TT", "mt", "comp")


def test_a_language_without_wishes_says_so():
    wishes.check("eng", "spa", "r")
    with pytest.raises(UserError, match="^r.yaml:4: answer_language: .* set answer_language: none$"):
        wishes.check("eng", "jpn", "r.yaml:4: answer_language")
    assert rows_of_record(record(), "eng", "jpn", "none").keys() == {"LL", "TL", "LT", "TT"}
