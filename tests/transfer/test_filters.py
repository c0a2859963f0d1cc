from functools import partial

import pytest

from sdrrl_factory.language_id import Identifier
from sdrrl_factory.transfer.filters import Filter, looping, not_in_language, pair_flaw
from sdrrl_factory.transfer.recipe import Filters, LanguageId

TEXT = "Sphinx of black quartz, judge my vow while the quick brown fox jumps over the lazy dog near an old river"
to_spanish = partial(pair_flaw, source_lang="eng", target_lang="spa")
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
        ("Hi {name}!", "¡Hola {nombre}!", "lost placeholder"),
        ("Hi {name}!", "¡Hola {name}!", ""),
        ("Hi %s!", "¡Hola!", "lost placeholder"),
        ("It costs 1,000 dollars.", "Cuesta 1000 dólares.", ""),
        ("It costs 1,000,000 dollars.", "Cuesta 1 000\u00a0000 dólares.", ""),
        ("It costs 1,000 dollars.", "Cuesta 100 dólares.", "lost number"),
        ("In 2020 300 of them", "En 2020 eran 300", ""),
        ("In 20 300 of them", "En 20 eran 300", ""),
        ("At 5:30 on 3/4/2020", "El 3-4-2020 a las 5.30", ""),
        ("Hi %(name)s!", "¡Hola %(name)s!", ""),
        ("Run ```x``` now", "Corre x ahora", "lost markup"),
        ("Hi {name}!", "¡Hola!", "lost placeholder"),
        ("Run `x y` now", "Corre x y ahora", "lost markup"),
        ("A **bold** word", "Una palabra ** en negrita", "lost markup"),
        ("Two (or three) of them", "Dos (o tres de ellos", "unbalanced markup"),
        ("Two [or three] of them", "Dos o tres] de ellos", "unbalanced markup"),
        ("1) Go", "1) Ve", ""),
        ("1) Go (now)", "1) Ve (ya)", ""),
        ("a) First b) second", "a) Primero b segundo", ""),
        ("a < b and c > d", "a es menor que b", ""),
        ("I am 100% sure", "Estoy 100 por ciento seguro", ""),
        (TEXT[:5], "", "empty"),
        (TEXT[:5], "x" * 60, "length ratio"),
        ("Take 3 of <b>them</b>", "Toma tres de ellos", "lost number"),
    ],
)
def test_pair_flaw(source, target, flaw):
    assert to_spanish(source, target, Filters(max_length_ratio=3.0, max_word_chars=40)) == flaw


@pytest.mark.parametrize(
    ("source", "target", "config", "flaw"),
    [
        (TEXT[:30], TEXT[:61], Filters(max_length_ratio=2.0), "length ratio"),
        (TEXT[:30], TEXT[:60], Filters(max_length_ratio=2.0), ""),
        (TEXT[:11], TEXT[:100], Filters(max_length_ratio=None), ""),
        ("Yes, sure.", "Ciertamente", Filters(max_word_chars=10), "long word"),
        ("Yes, sure.", "Ciertamente", Filters(max_word_chars=11), ""),
        ("Yes, sure.", "x" * 30, Filters(max_word_chars=None), ""),
        ("Yes, sure.", "Claro", Filters(min_chars=6), "too short"),
        ("Yes, sure.", "Claro", Filters(min_chars=5), ""),
        ("Yes, sure.", "Claro", Filters(max_chars=4), "too long"),
        ("Yes, sure.", "Claro", Filters(max_chars=5), ""),
        ("A B", "A B", Filters(max_copied_words=1), "copy of the source"),
        ("A B", "A B", Filters(max_copied_words=2), ""),
        (TEXT, TEXT, Filters(max_copied_words=None), ""),
        (TALK, "no sé qué es " * 4, Filters(repeats=False), ""),
        ("It has 3 legs.", "Tiene tres patas.", Filters(numbers=False), ""),
        ("Hi {name}!", "¡Hola!", Filters(markup=False), ""),
        ("The library is closed", "Библиотека закрыта", Filters(), "script mismatch"),
        ("The library is closed", "Библиотека закрыта", Filters(script=False), ""),
    ],
)
def test_each_rule_has_its_key(source, target, config, flaw):
    assert to_spanish(source, target, config) == flaw


KANA = "図書館は夏に開館しますので、どうぞお越しください。"


@pytest.mark.parametrize(
    ("target", "lang", "flaw"),
    [
        ("図書館は夏に開館します。", "jpn", ""),
        ("The 図書館 is open", "jpn", ""),  # English words of the source may stay
        ("La biblioteca abre en verano", "jpn", "script mismatch"),
        ("ห้องสมุดจะเปิดในฤดูร้อน", "tha", ""),
        ("ห้องสมุดจะเปิดในฤดูร้อน", "khm", "script mismatch"),
        ("បណ្ណាល័យនឹងបើកនៅរដូវក្តៅ", "khm", ""),
        ("도서관은 여름에 문을 엽니다", "kor", ""),
        ("Библиотеката се отваря през лятото", "bul", ""),
        ("Bibliotekata se otvarya prez lyatoto", "bul", "script mismatch"),
        ("Thư viện mở cửa vào mùa hè này", "vie", ""),
        ("The library", "tha", ""),
        ("```\nprint(lots_of_code, more_of_it)\n``` เปิด", "tha", "lost markup"),
    ],
)
def test_scripts(target, lang, flaw):
    source = "The library is open in the summer"
    assert pair_flaw(source, target, Filters(), "eng", lang) == flaw


def test_what_is_copied_is_in_no_script():
    code = "Write `numpy.asarray(values)` here"
    assert pair_flaw(code, "`numpy.asarray(values)` 書く", Filters(), "eng", "jpn") == ""
    assert pair_flaw("NASA", "NASA", Filters(), "eng", "jpn") == ""
    assert pair_flaw("`a b c d e f g`", "`a b c d e f g`", Filters(), "eng", "jpn") == ""


def test_lengths_know_the_script():
    english = "x" * 100
    thirty, all_ = "あ" * 30, "あ" * 100
    bound = Filters(max_length_ratio=2.0, repeats=False)
    assert pair_flaw(english, thirty, bound, "eng", "jpn") == ""  # 30 / 0.6 = 50
    assert pair_flaw(english, thirty[1:], bound, "eng", "jpn") == "length ratio"
    assert pair_flaw(thirty, "xx " * 33, bound, "jpn", "eng") == ""
    assert pair_flaw(english, all_ + "あ" * 20, bound, "eng", "jpn") == ""
    assert pair_flaw(english, all_ + "あ" * 21, bound, "eng", "jpn") == "length ratio"


def test_words_without_spaces_are_not_long():
    assert pair_flaw("a " * 50, KANA * 2, Filters(), "eng", "jpn") == ""


def test_words_without_spaces_repeat():
    assert pair_flaw(TALK, "私はあなたに話をします。" * 5, Filters(), "eng", "jpn") == "repetition"
    assert pair_flaw(TALK, KANA, Filters(), "eng", "jpn") == ""


@pytest.mark.parametrize(("digits", "lang"), [("๑,๒๓๔", "tha"), ("១.២៣៤", "khm"), ("１２３４", "jpn")])
def test_digits_of_other_scripts(digits, lang):
    config = Filters(script=False)
    assert pair_flaw("1,234", digits, config, "eng", lang) == ""
    assert pair_flaw("1,235", digits, config, "eng", lang) == "lost number"


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
        "question_why": "",
        "answer_why": "",
        "reasons": [],
    }
    return {key: [value] for key, value in (good | columns).items()}


IDENTIFIER = Identifier()
BOTH = ("question", "answer")


def filtered(given, threshold=0.4, identifier=IDENTIFIER, sides=BOTH, rules=None, target="spa"):
    return Filter(sides, "eng", target, rules or Filters(), threshold, LanguageId(), "fasttext")(given, identifier)


COPY = ENGLISH.replace("yesterday", "last week")


@pytest.mark.parametrize(
    ("columns", "question_ok", "answer_ok", "reasons"),
    [
        ({}, True, True, []),
        ({"question_qe": 0.4, "answer_qe": 0.4}, True, True, []),
        ({"question_qe": 0.3999}, False, True, ["question: low quality"]),
        ({"answer_qe": 0.0}, True, False, ["answer: low quality"]),
        ({"instruction_mt": None, "question_why": "empty"}, False, True, ["question: not translated (empty)"]),
        ({"input_mt": None, "question_why": "3 of 2"}, False, True, ["question: not translated (3 of 2)"]),
        ({"answer_mt": None, "answer_why": "empty"}, True, False, ["answer: not translated (empty)"]),
        (
            {"answer_mt": None, "instruction_mt": None, "answer_why": "a", "question_why": "q"},
            False,
            False,
            ["question: not translated (q)", "answer: not translated (a)"],
        ),
        ({"instruction_mt": COPY}, False, True, ["question: off-target"]),
        ({"answer_mt": COPY}, True, False, ["answer: off-target"]),
        ({"answer_mt": ENGLISH}, True, False, ["answer: copy of the source"]),
        ({"answer": "Yes.", "answer_mt": "Yes."}, True, True, []),  # too short to be told a language
        ({"input": "x 7", "input_mt": "x 8"}, False, True, ["question: lost number"]),
        ({"answer_mt": SPANISH + f" `{COPY}`", "answer": ENGLISH + f" `{COPY}`"}, True, True, []),  # code
        ({"answer_qe": None}, True, True, []),
        ({"answer_mt": COPY, "answer_qe": 0.1}, True, False, ["answer: low quality"]),
        (
            {"reasons": ["generation: empty"], "answer_mt": None, "answer_why": "a"},
            True,
            False,
            ["generation: empty", "answer: not translated (a)"],
        ),
    ],
)
def test_filter_batch(columns, question_ok, answer_ok, reasons):
    given = batch(**columns)
    before = [list(r) for r in given["reasons"]]
    out = filtered(given)
    assert (out["question_ok"], out["answer_ok"], out["reasons"]) == ([question_ok], [answer_ok], [reasons])
    assert given["reasons"] == before and "question_ok" not in given


def test_filters_can_be_left_out():
    lax = Filters(max_source_words=None)
    assert filtered(batch(answer_mt=COPY), identifier=None, rules=lax)["answer_ok"] == [True]
    unscored = batch(question_qe=None, answer_qe=None)
    assert filtered(unscored, threshold=None)["answer_ok"] == [True]


@pytest.mark.parametrize(
    ("answer", "answer_mt", "reason"),
    [
        # What a round trip through a pivot rewards.
        ("2 tablespoons butter", "2 tablespoons mantequilla", "untranslated words"),
        ("Mix the flour and whisk the eggs.", "Mezclar la flour y whisk los eggs.", "untranslated words"),
        # Names, small words, code, few among many.
        ("Barack Obama met Angela Merkel.", "Barack Obama y Angela Merkel.", ""),
        ("The 2 new eggs are in it.", "Los 2 new son in it.", ""),
        ("Run `apply filter`.", "Ejecuta `apply filter`.", ""),
        ("She ate the smoothie at home today.", "Comió el smoothie en casa hoy por la tarde.", ""),
        # Words that both languages have.
        ("animal general", "animal general dos", ""),
    ],
)
def test_words_of_the_source_language_left_in_the_translation(answer, answer_mt, reason):
    out = filtered(batch(answer=answer, answer_mt=answer_mt))
    assert out["reasons"] == [[f"answer: {reason}"] if reason else []]


def test_the_language_of_the_first_instructions_is_looked_at():
    spanish = ["El comité se reúne el jueves por la mañana.", "La casa está cerca del río grande."]
    english = ["The committee meets on Thursday morning.", "The house is close to the big river."] * 10
    warning = not_in_language([*spanish, *english], "eng", LanguageId())
    assert warning == "2 of the first 22 instructions are not in English, most of them in Spanish: see source_lang"
    assert not not_in_language([*spanish[:1], *english, *english], "eng", LanguageId())
    assert not not_in_language(spanish, "eng", LanguageId(backend="none"))
    assert not not_in_language([], "eng", LanguageId())


def test_rows_do_not_see_each_other():
    rows = [{}, {"answer_mt": None}, {"instruction_mt": COPY}]
    batches = [batch(**r) for r in rows]
    joined = {key: [b[key][0] for b in batches] for key in batches[0]}
    whole = filtered(joined)
    for i, one in enumerate(batches):
        alone = filtered(one)
        assert {k: v[0] for k, v in alone.items()} == {k: v[i] for k, v in whole.items()}


def test_sides_are_what_is_asked_for():
    one = batch(output=ENGLISH, output_mt=COPY, output_qe=0.9, output_why="", answer_mt=None, question_qe=0.0)
    out = filtered(one, sides=("output",))
    assert out["output_ok"] == [False] and out["reasons"] == [["output: off-target"]]
    assert "answer_ok" not in out and "question_ok" not in out
