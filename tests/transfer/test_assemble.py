import re

import pytest

from sdrrl_factory.transfer.assemble import Assemble, natural_row
from sdrrl_factory.transfer.sets import BASELINES, sets_of, sides
from sdrrl_factory.transfer.store import columns

COLUMNS = ["id", "subset", "system", "instruction", "input", "output", "source_lang", "target_lang", "answer_origin"]


def config(answer_language="cross", systems=("sdrrl",)) -> Assemble:
    return Assemble(tuple(systems), "eng", "spa", answer_language, 42)


def rows_of_record(record: dict, assemble: Assemble, target: str = "spa") -> dict[str, list[dict]]:
    out = assemble(columns([record]))
    assert {key: out[key][0] for key in record} == record
    return {name: rows for name, rows in out["rows"][0].items() if name not in ("mt", "comp")}


def record(**ok) -> dict:
    cs = {f"{part}_{d}_cs": f"{part} {d}" for part in ("instruction", "input") for d in ("ll", "tl", "lt", "tt")}
    texts = {"instruction": "q", "input": "i", "answer": "yés \u2028\n", "output": "given"}
    texts |= {"instruction_mt": "q2", "input_mt": "i2", "answer_mt": " sí ", "output_mt": "dado", "system": "s"}
    fine = {"question_ok": True, "answer_ok": True, "output_ok": True} | ok
    return {"id": "r", "answer_origin": "G", **fine, **texts, **cs}


def made(record, config) -> dict[str, dict]:
    return {name: rows[0] for name, rows in rows_of_record(record, config, "spa").items() if rows}


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
    rows = rows_of_record(record(question_ok=question_ok, answer_ok=answer_ok), config(), "spa")
    assert list(rows) == ["LL", "TL", "LT", "TT"] and [name for name, lines in rows.items() if lines] == subsets


def test_answers_are_untouched_and_shared():
    outputs = {subset: r["output"] for subset, r in made(record(), config("all")).items()}
    assert outputs == {"LL": "yés \u2028\n", "TL": "yés \u2028\n", "LT": " sí ", "TT": " sí "}


@pytest.mark.parametrize(
    ("answer_language", "wished"), [("none", set()), ("cross", {"TL", "LT"}), ("all", {"LL", "TL", "LT", "TT"})]
)
def test_wishes_are_in_the_questions_language(answer_language, wished):
    words = {"LL": "English", "TL": "(?i)inglés", "LT": "Spanish", "TT": "(?i)español"}
    rows = made(record(), config(answer_language))
    for subset, row in rows.items():
        form = f"instruction {subset.lower()}"
        assert row["instruction"].startswith(form) and row["input"] == f"input {subset.lower()}"
        said = row["instruction"].removeprefix(form)
        assert bool(re.search(words[subset], said)) == (subset in wished) == bool(said)


def test_columns_are_the_contracts():
    for subset, r in made(record(), config()).items():
        assert list(r) == COLUMNS
        assert (r["id"], r["subset"], r["source_lang"], r["target_lang"]) == ("r", subset, "eng", "spa")
        assert r["answer_origin"] == "G" and r["system"] == "s"
    natural = {"id": "p", "instruction": "a", "input": "b", "output": "c"}
    assert list(natural_row("mt", natural, "eng", "spa")) == COLUMNS
    assert [row.name for row in sets_of(["sdrrl"])] == ["LL", "TL", "LT", "TT", "mt", "comp"]
    assert BASELINES == ("sft", "tsft", "cit", "xcot")


def test_the_baselines():
    rows = rows_of_record(record(), config("none", BASELINES), "spa")
    forms = {name: [(r["instruction"], r["input"], r["output"]) for r in lines] for name, lines in rows.items()}
    assert forms["sft"] == [("q", "i", "given")]
    assert forms["tsft"] == [("q2", "i2", "dado")]
    ((asked, given, answer),) = forms["cit"]
    assert asked.startswith("q ") and "Spanish" in asked and (given, answer) == ("i", "dado")
    assert forms["xcot"] == [("instruction ll", "input ll", "given"), ("instruction tt", "input tt", "dado")]
    assert {r["answer_origin"] for lines in rows.values() for r in lines} == {"D"}


@pytest.mark.parametrize(
    ("bad", "left"),
    [
        ({"question_ok": False}, {"sft": 1, "tsft": 0, "cit": 1, "xcot": 1}),
        ({"output_ok": False}, {"sft": 1, "tsft": 0, "cit": 0, "xcot": 1}),
        ({"answer_ok": False}, {"sft": 1, "tsft": 1, "cit": 1, "xcot": 2}),
    ],
)
def test_baselines_leave_out_what_was_rejected(bad, left):
    rows = rows_of_record(record(**bad), config(systems=BASELINES), "spa")
    assert {name: len(lines) for name, lines in rows.items()} == left


@pytest.mark.parametrize(
    ("systems", "needed"),
    [
        (["sdrrl"], ("question", "answer")),
        (["sft"], ()),
        (["cit"], ("output",)),
        (["tsft"], ("question", "output")),
        (["sdrrl", "xcot"], ("question", "answer", "output")),
    ],
)
def test_only_what_is_needed_is_translated(systems, needed):
    assert sides(systems) == needed
