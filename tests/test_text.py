import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdrrl_factory.text import pieces, replace_words, sentences, words

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
]
lines = st.tuples(st.one_of(st.sampled_from(BODIES), st.text(max_size=20)), st.sampled_from(ENDS)).map("".join)
texts = st.one_of(st.text(max_size=80), st.lists(lines, max_size=8).map("".join))


@settings(max_examples=400, deadline=None)
@given(texts)
def test_pieces_join_to_the_text(text):
    assert "".join(piece for piece, _ in pieces(text)) == text


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


def test_replace_words_keeps_what_stands_between():
    assert replace_words("¡Hola, it's 3 o'clock!\n", lambda w: f"<{w}>") == "¡<Hola>, <it's> 3 <o'clock>!\n"
