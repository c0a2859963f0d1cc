import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdrrl_factory.text import around, kept, pieces, sentences, spans, with_case, words

ALPACA = Path(__file__).parents[2] / "shared" / "data" / "alpaca_en_demo.json"

ENDS = ["\n", "\r\n", "\r", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\n\n", " \n", ""]
BODIES = [
    "- a list item. Another one!",
    "  12) numbered? Yes.",
    "## heading",
    "```python",
    "```",
    "~~~",
    "x = 1  # Not. Translated.",
    "😀 Hi there! 👩‍👩‍👧 Bye.",
    "שלום עולם. מה שלומך?",
    "مرحبا، كيف حالك؟ بخير.",
    "\u202eReversed. Text\u202c",
    "3.14 and 1,000.",
    "\x1f odd blank.\x1f Next",
    "…",
    "   ",
    "> - [ ] **Do** it. 1.2. Then `a. B` | that",
    "| a cell | `x | y` | 3.5% |",
    "````md",
    "$$",
    "<p class='x'>Said <b>so</b>. Twice.</p>",
    "<style>",
    "See https://x.org/a_b(c)?q=1, a.b@c.org, {name} %s ${x} C:\\d\\f.txt on 2020-01-31 at 10:30: -5 °C!",
    "វា​ជា​សៀវភៅ។ ចុះ​នោះ? ราคา ๑,๐๐๐ บาท",
    "and so on, " * 60,
]
lines = st.tuples(st.one_of(st.sampled_from(BODIES), st.text(max_size=20)), st.sampled_from(ENDS)).map("".join)
texts = st.one_of(st.text(max_size=80), st.lists(lines, max_size=8).map("".join))


@settings(max_examples=400, deadline=None)
@given(texts)
def test_pieces_join_to_the_text(text):
    assert "".join(piece for piece, _ in pieces(text)) == text


@settings(max_examples=300, deadline=None)
@given(texts)
def test_the_parts_around_spans_join_to_the_segment_and_nothing_is_lost_by_itself(text):
    assert "".join(part for part, _ in around(text)) == text
    assert kept(text, text)
    parts = [part for part, translate in around(text) if not translate]
    assert all(text[a:b] in parts for a, b, _ in spans(text))
    for part, translate in around(text):
        assert part and (not translate or part == part.strip())


@pytest.mark.skipif(not ALPACA.is_file(), reason=f"needs the 700 Alpaca rows at {ALPACA.parts[-3:]} beside the project")
def test_alpaca_comes_back_byte_for_byte():
    rows = json.loads(ALPACA.read_text(encoding="utf-8"))
    assert len(rows) == 700
    for text in (row[key] for row in rows for key in ("instruction", "input", "output")):
        cut = list(pieces(text))
        assert "".join(piece for piece, _ in cut) == text
        for piece, _ in cut:
            assert "".join(part for part, _ in around(piece)) == piece and kept(piece, piece)


@settings(max_examples=200, deadline=None)
@given(texts)
def test_what_goes_to_the_translator_is_a_trimmed_line_with_letters(text):
    for piece, translate in pieces(text):
        if translate:
            assert piece == piece.strip() and len(piece.splitlines()) == 1 and any(c.isalnum() for c in piece)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_sentences_join_to_the_line(line):
    assert "".join(sentences(line)) == line


@pytest.mark.parametrize(
    ("line", "cut"),
    [
        ("One. Two! Three? Four", ["One. ", "Two! ", "Three? ", "Four"]),
        ("Mr. Smith met Dr. Jones. They spoke.", ["Mr. Smith met Dr. Jones. ", "They spoke."]),
        ("The U.S. Army left. It was late.", ["The U.S. Army left. ", "It was late."]),
        ("J. R. Tolkien wrote it. Read on.", ["J. R. Tolkien wrote it. ", "Read on."]),
        ("Fruit, e.g. Apples, are good. Eat them.", ["Fruit, e.g. Apples, are good. ", "Eat them."]),
        ("Pi is 3.14 or so. Nice.", ["Pi is 3.14 or so. ", "Nice."]),
        ("It costs $1,000.50 today.", ["It costs $1,000.50 today."]),
        ("Visit example.com. Then go.", ["Visit example.com. ", "Then go."]),
        ('He said "Stop." Then he left.', ['He said "Stop." ', "Then he left."]),
        ("“Go!” “Why?” She sat.", ["“Go!” ", "“Why?” ", "She sat."]),
        ("(It rained.) We stayed.", ["(It rained.) ", "We stayed."]),
        ("Wait... what? Yes.", ["Wait... what? ", "Yes."]),
        ("Wait…  Two blanks.", ["Wait…  ", "Two blanks."]),
        ("¿Qué tal? ¡Bien! Él vino. Ángel no.", ["¿Qué tal? ", "¡Bien! ", "Él vino. ", "Ángel no."]),
        ("Він прийшов. Її нема. Ґанок тут.", ["Він прийшов. ", "Її нема. ", "Ґанок тут."]),
        ("Přišel domů. Šel spát. Čte.", ["Přišel domů. ", "Šel spát. ", "Čte."]),
        ("To jest dom. Łąka jest zielona.", ["To jest dom. ", "Łąka jest zielona."]),
        ("Nem jött. Ő alszik.", ["Nem jött. ", "Ő alszik."]),
        ("Tôi đi. Ấy là nhà.", ["Tôi đi. ", "Ấy là nhà."]),
        ("これは本です。あれは？はい。", ["これは本です。", "あれは？", "はい。"]),
        ("저는 갑니다. 그는 옵니다.", ["저는 갑니다. ", "그는 옵니다."]),
        ("It was in 1999. 2000 came next.", ["It was in 1999. ", "2000 came next."]),
        ("مرحبا كيف حالك؟ أنا بخير.", ["مرحبا كيف حالك؟ ", "أنا بخير."]),
        ("សួស្តី។ ជំរាបសួរ។", ["សួស្តី។ ", "ជំរាបសួរ។"]),
        (
            "สวัสดีครับผมชื่อสมชายยินดีที่ได้รู้จัก วันนี้อากาศดีมากเลยนะครับทุกคน",
            ["สวัสดีครับผมชื่อสมชายยินดีที่ได้รู้จัก ", "วันนี้อากาศดีมากเลยนะครับทุกคน"],
        ),
        ("ราคา 20 บาท นะครับ", ["ราคา 20 บาท นะครับ"]),
        ("Run `a. B c` now. Go.", ["Run `a. B c` now. ", "Go."]),
        ("Fui con la Sra. Ruiz. Bien.", ["Fui con la Sra. Ruiz. ", "Bien."]),
        # Where nobody writes capitals.
        ("hello. how are you.", ["hello. ", "how are you."]),
        ("what? no! i mean it. ok", ["what? ", "no! ", "i mean it. ", "ok"]),
        ("¿qué tal? bien. él vino.", ["¿qué tal? ", "bien. ", "él vino."]),
        ("i met mr. smith and j. jones, e.g. here.", ["i met mr. smith and j. jones, e.g. here."]),
        ("well... maybe. it was in 1999. a year", ["well... maybe. ", "it was in 1999. a year"]),
        ("Hello. how are you.", ["Hello. how are you."]),
        ("", []),
    ],
)
def test_sentence_cuts(line, cut):
    assert sentences(line) == cut


@pytest.mark.parametrize(
    ("text", "translated"),
    [
        ("- One. Two.\n* Three", ["One.", "Two.", "Three"]),
        ("1. First.\n2) Second.\n(3) Third.\n10. Tenth.", ["First.", "Second.", "Third.", "Tenth."]),
        ("# Title\n\n## Part", ["Title", "Part"]),
        ("Look:\n```python\nprint('No.')\n```\nDone.", ["Look:", "Done."]),
        ("Look:\n~~~\nNot this.\n~~~\nDone.", ["Look:", "Done."]),
        ("Look:\n```\nNot this.\n~~~\nNor this.\n```\nDone.", ["Look:", "Done."]),
        ("Look:\n```\nNot this.", ["Look:"]),
        ("12 + 3 = 15\n---\nYes.", ["Yes."]),
        ("\u2022 Point\r\n\r\n  Indented.\u2028Next", ["Point", "Indented.", "Next"]),
        ("-5 degrees", ["-5 degrees"]),
        ("> - [x] Done.\n> 1. Two\n    a) Three", ["Done.", "Two", "Three"]),
        ("1.2. Part\n1.2.3 Piece\n3.14 is pi", ["Part", "Piece", "3.14 is pi"]),
        ("````\n```\nNot this.\n```\nNor this.\n`````\nDone.", ["Done."]),
        ("- ```py\n  Not this.\n  ```\nDone.", ["Done."]),
        ("```inline``` is told. Yes.", ["```inline``` is told.", "Yes."]),
        ("| Name | Age |\n|---|:-:|\n| Jane Doe | 4 |", ["Name", "Age", "Jane Doe"]),
        ("Title | Artist\nOne song | `a | b`", ["Title", "Artist", "One song"]),
        ("Let P(A | B) be it.", ["Let P(A | B) be it."]),
        ("<div>\n<h1>My title</h1>\nThe <b>big</b> one.\n</div>", ["My title", "The <b>big</b> one."]),
        ("<style>\nNot this.\n</style>\nThis.", ["This."]),
        ("$$\nNot this\n$$\nThis.\n$$ x $$\n$$", ["This."]),
        ("x = 3*y\ncos(a) = -0.5\nWe have x = 3.\nCity = London", ["We have x = 3.", "City = London"]),
        ("from a import b\nmy_list = [1]\nfoo(x);\nif (a) {\nHe left (early);", ["He left (early);"]),
        ("https://x.org/some/where\nme@x.org\n`code here`\n[NAME]\nGo", ["Go"]),
        ("Name: John\n\tAge: 20", ["Name: John", "Age: 20"]),
        ("1999. was a year", ["1999. was a year"]),
    ],
)
def test_structure_stays_away_from_the_translator(text, translated):
    assert [piece for piece, translate in pieces(text) if translate] == translated


def test_words_keep_inner_apostrophes_and_leave_digits():
    assert words("Don't stop, it’s 'fine' 3rd_year naïve—yes") == ["Don't", "stop", "it’s", "fine", "rd", "year"] + [
        "naïve",
        "yes",
    ]


def test_a_very_long_sentence_is_cut_at_clause_marks():
    clause = "This clause goes on, with a comma, and some more words in it; "
    parts = sentences(clause * 20 + "end.")
    assert len(parts) > 2 and all(100 <= len(part) <= 400 and part.endswith("; ") for part in parts[:-1])
    assert sentences("word " * 200) == ["word " * 200]
    assert all(len(part) <= 400 for part in sentences("and so, " * 200))
    assert sentences("short; " * 50) == ["short; " * 50]


@pytest.mark.parametrize(
    ("segment", "texts", "numbers"),
    [
        ("Use `a b` or ``c ` d``.", ["`a b`", "``c ` d``"], []),
        ("At https://x.org/a(b)?q=1, or www.y.org.", ["https://x.org/a(b)?q=1", "www.y.org"], []),
        ("https://x.orgを見る", ["https://x.org"], []),
        ("Mail a.b@c.org.", ["a.b@c.org"], []),
        ("{name} %s %(x)d %1$s ${x}", ["{name}", "%s", "%(x)d", "%1$s", "${x}"], []),
        ("{{ y }} __NAME__ [INPUT]", ["{{ y }}", "__NAME__", "[INPUT]"], []),
        ("<b>bold</b> <a href='x y'> &nbsp; 2 < 3 > 1", ["<b>", "</b>", "<a href='x y'>", "&nbsp;"], ["2", "3", "1"]),
        ("In /etc/hosts, C:\\d\\f.txt, ~/a/b or main.py", ["/etc/hosts", "C:\\d\\f.txt", "~/a/b", "main.py"], []),
        ("snake_case and call() but _this one_ and and/or", ["snake_case", "call()"], []),
        ("$x^2$ costs $5 and $10", ["$x^2$"], ["$5", "$10"]),
        ("1,234.56 3.5% 2020-01-31 10:30 -5 °C 1-2", [], ["1,234.56", "3.5%", "2020-01-31", "10:30", "-5 °C", "1-2"]),
        ("The 3rd H2O, 5km", [], []),
        ("<insert name here> {a, b} [a b] 100 so", [], ["100"]),
    ],
)  # fmt: skip
def test_spans(segment, texts, numbers):
    found = spans(segment)
    assert [segment[a:b] for a, b, is_number in found if not is_number] == texts
    assert [segment[a:b] for a, b, is_number in found if is_number] == numbers


def test_around_keeps_blanks_outside():
    assert around("Use `x` and 3 cups.") == [
        ("Use", True), (" ", False), ("`x`", False), (" ", False), ("and", True), (" ", False), ("3", False),
        (" ", False), ("cups.", True),
    ]  # fmt: skip
    assert around("3, 4") == [("3", False), (", ", False), ("4", False)]


@pytest.mark.parametrize(
    ("segment", "translation", "expected"),
    [
        ("It has 1,000 of 2.5.", "Tiene 1.000 de 2,5.", True),
        ("It has 1,000.", "Il y en a 1\u202f000.", True),
        ("It has 1,000.", "មាន ១០០០", True),
        ("It has 25.", "มี ๒๕", True),
        ("It has 25.", "لديه ٢٥", True),
        ("On 2020-01-31.", "El 31/01/2020.", True),
        ("It has 25.", "Tiene 24.", False),
        ("3 of 3", "3 de todos", False),
        ("I have two.", "Tengo 2.", True),
        ("The 3rd one.", "El tercero.", True),
        ("Use `x`.", "Usa `x`.", True),
        ("Use `x`.", "Usa x.", False),
        ("Use `x`.", "Usa `x` y `x`.", False),
        ("Dear {name},", "Estimado {nombre},", False),
    ],
)
def test_kept(segment, translation, expected):
    assert kept(segment, translation) is expected


@pytest.mark.parametrize(
    ("translation", "source", "wanted"),
    [
        ("Escribió", "wrote", "escribió"),
        ("Roble, delfín", "oak, dolphin", "roble, delfín"),
        ("¿Qué es?", "what is it?", "¿qué es?"),
        ("3 Manzanas", "3 apples", "3 manzanas"),
        ("soy", "I am", "Soy"),
        ("Él vino", "He came", "Él vino"),
        # These are capital wherever they stand.
        ("I am", "soy", "I am"),
        ("NASA dice", "the NASA says", "NASA dice"),
        ("María dice", "as María says", "María dice"),
        ("家です", "it is a house", "家です"),
        ("42", "forty-two", "42"),
    ],
)
def test_the_case_of_the_first_letter_goes_back(translation, source, wanted):
    assert with_case(translation, source, keeps_capitals=False) == wanted


def test_german_nouns_keep_their_capital_and_a_part_grows_none():
    assert with_case("Eiche", "oak", keeps_capitals=True) == "Eiche"
    assert with_case("soy", "I am", keeps_capitals=False, may_grow=False) == "soy"


def test_words_keep_their_marks():
    assert words("cafe\u0301 ที่นี่ ខ្មែរ") == ["cafe\u0301", "ที่นี่", "ខ្មែរ"]


@pytest.mark.parametrize("text", ["A0.0", "A1 000", "1 000 000", "v1.2-3 4", "٣,٥ and 3,5"])
def test_a_text_keeps_its_own_numbers(text):
    assert kept(text, text)
