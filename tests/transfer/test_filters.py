import pytest

from sdrrl_factory.transfer.filters import filter_batch, looping, pair_flaw
from sdrrl_factory.transfer.recipe import Filters

TEXT = "Sphinx of black quartz, judge my vow while the quick brown fox jumps over the lazy dog near an old river"
TALK = "I say what I say because you say what you say and we both say it, do we not, my old friend"


@pytest.mark.parametrize(
    ("source", "target", "flaw"),
    [
        ("Hello.", "", "empty"),
        ("Hello.", " \n", "empty"),
        ("", "", "empty"),
        ("Hello.", "Hola.", ""),
        (TEXT[:11], TEXT[:33], ""),
        (TEXT[:11], TEXT[:34], "length ratio"),
        (TEXT[:34], TEXT[:11], "length ratio"),
        (TEXT[:33], TEXT[:11], ""),
        (TEXT[:5], TEXT[:25], ""),
        (TEXT[:5], TEXT[:26], "length ratio"),
        ("", TEXT[:21], "length ratio"),
        ("Say it loudly and clearly to all of us", "x" * 40, ""),
        ("Say it loudly and clearly to all of us", "x" * 41, "long word"),
        ("See this page on the net for more of it", "https://example.org/" + "x" * 60, ""),
        ("I saw you there today", "I saw you there today", "copy of the source"),
        ("I saw you there today", " I saw you there today\n", "copy of the source"),
        ("I saw you there", "I saw you there", ""),
        ("I saw you there today", "I saw You there today", ""),
        (TALK, "no sé qué es " * 4, "repetition"),
        (TALK, "no sé qué es " * 3, ""),
        ("row your boat now " * 4, "no sé qué es " * 4, ""),
        ("It has 3 legs.", "Tiene 3 patas.", ""),
        ("It has 3 legs.", "Tiene tres patas.", "lost number"),
        ("It has three legs.", "Tiene 3 patas.", "lost number"),
        ("2 and 2", "2 y dos", "lost number"),
        ("1 and 2", "2 y 1", ""),
        ("It is 3.5 of 1,000.", "Es 3,5 de 1.000.", ""),
        ("It is 35 of it.", "Es 53 de ello.", "lost number"),
        ("A <b>bold</b> word", "Una palabra <b>en negrita</b>", ""),
        ("A <b>bold</b> word", "Una palabra <b>en negrita", "lost markup"),
        ("A bold word", "Una palabra <b>en negrita</b>", "lost markup"),
        ("Hi {name}!", "¡Hola {nombre}!", "lost markup"),
        ("Hi {name}!", "¡Hola {name}!", ""),
        ("Hi %s!", "¡Hola!", "lost markup"),
        ("Hi %(name)s!", "¡Hola %(name)s!", ""),
        ("Run ```x``` now", "Corre x ahora", "lost markup"),
        ("a < b and c > d", "a es menor que b", ""),
        ("I am 100% sure", "Estoy 100 por ciento seguro", ""),
        (TEXT[:5], "", "empty"),
        (TEXT[:5], "x" * 60, "length ratio"),
        ("Take 3 of <b>them</b>", "Toma tres de ellos", "lost number"),
    ],
)
def test_pair_flaw(source, target, flaw):
    assert pair_flaw(source, target, Filters(max_length_ratio=3.0, max_word_chars=40)) == flaw


def test_bounds_come_from_the_recipe():
    assert pair_flaw(TEXT[:30], TEXT[:61], Filters(max_length_ratio=2.0)) == "length ratio"
    assert pair_flaw(TEXT[:30], TEXT[:60], Filters(max_length_ratio=2.0)) == ""
    assert pair_flaw("Yes, sure.", "Ciertamente", Filters(max_word_chars=10)) == "long word"
    assert pair_flaw("Yes, sure.", "Ciertamente", Filters(max_word_chars=11)) == ""


@pytest.mark.parametrize(
    ("text", "stuck"),
    [
        ("a b c d " * 4, True),
        ("a b c d " * 3, False),
        ("ha " * 7, True),
        ("ha " * 6, False),
        ("a b c d x a b c d y a b c d z a b c d", True),
        ("a b c d a b c e a b c f a b c g", False),
        (TALK, False),
        ("", False),
    ],
)
def test_looping(text, stuck):
    assert looping(text) is stuck


ENGLISH = "The committee decided yesterday that the new library will open in the summer."
SPANISH = "El comité decidió ayer que la nueva biblioteca se abrirá durante el verano."


def batch(**columns) -> dict:
    good = {
        "id": "a",
        "instruction": ENGLISH,
        "input": "",
        "answer": ENGLISH,
        "instruction_mt": SPANISH,
        "input_mt": "",
        "answer_mt": SPANISH,
        "question_qe": 0.9,
        "answer_qe": 0.9,
        "reasons": [],
    }
    return {key: [value] for key, value in (good | columns).items()}


COPY = ENGLISH.replace("yesterday", "last week")


@pytest.mark.parametrize(
    ("columns", "question_ok", "answer_ok", "reasons"),
    [
        ({}, True, True, []),
        ({"question_qe": 0.4, "answer_qe": 0.4}, True, True, []),
        ({"question_qe": 0.3999}, False, True, ["question: low quality"]),
        ({"answer_qe": 0.0}, True, False, ["answer: low quality"]),
        ({"instruction_mt": None}, False, True, ["question: not translated"]),
        ({"input_mt": None}, False, True, ["question: not translated"]),
        ({"answer_mt": None}, True, False, ["answer: not translated"]),
        (
            {"answer_mt": None, "instruction_mt": None},
            False,
            False,
            ["question: not translated", "answer: not translated"],
        ),
        ({"instruction_mt": COPY}, False, True, ["question: off-target"]),
        ({"answer_mt": COPY}, True, False, ["answer: off-target"]),
        ({"answer_mt": ENGLISH}, True, False, ["answer: copy of the source"]),
        ({"answer": "Yes.", "answer_mt": "Yes."}, True, True, []),  # too short to be told a language
        ({"input": "x 7", "input_mt": "x 8"}, False, True, ["question: lost number"]),
        ({"answer_mt": COPY, "answer_qe": 0.1}, True, False, ["answer: low quality"]),
        (
            {"reasons": ["generation: empty"], "answer_mt": None},
            True,
            False,
            ["generation: empty", "answer: not translated"],
        ),
    ],
)
def test_filter_batch(columns, question_ok, answer_ok, reasons):
    given = batch(**columns)
    before = [list(r) for r in given["reasons"]]
    out = filter_batch(given, Filters(), 0.4, "es")
    assert (out["question_ok"], out["answer_ok"], out["reasons"]) == ([question_ok], [answer_ok], [reasons])
    assert given["reasons"] == before and "question_ok" not in given


def test_filters_can_be_left_out():
    assert filter_batch(batch(answer_mt=COPY), Filters(), 0.4, None)["answer_ok"] == [True]
    unscored = batch(question_qe=None, answer_qe=None)
    assert filter_batch(unscored, Filters(), None, "es")["answer_ok"] == [True]


def test_rows_do_not_see_each_other():
    rows = [{}, {"answer_mt": None}, {"instruction_mt": COPY}]
    batches = [batch(**r) for r in rows]
    joined = {key: [b[key][0] for b in batches] for key in batches[0]}
    whole = filter_batch(joined, Filters(), 0.4, "es")
    for i, one in enumerate(batches):
        alone = filter_batch(one, Filters(), 0.4, "es")
        assert {k: v[0] for k, v in alone.items()} == {k: v[i] for k, v in whole.items()}
