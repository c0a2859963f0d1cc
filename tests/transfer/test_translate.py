import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdrrl_factory.transfer.translate import translate_texts
from sdrrl_factory.transfer.translate.memory import TranslationMemory

TEXT = "# Title\n\n- One cat. Two cats!\n  1. One cat.\r\n```py\nOne cat.\n```\n\u2028Bye.\n"
UPPER = "# TITLE\n\n- ONE CAT. TWO CATS!\n  1. ONE CAT.\r\n```py\nOne cat.\n```\n\u2028BYE.\n"


def test_the_structure_is_put_back(fake_translator, memory):
    assert translate_texts([TEXT], fake_translator(str.upper), memory, "eng", "spa") == [UPPER]


def test_each_distinct_segment_is_translated_once(fake_translator, memory):
    translator = fake_translator(str.upper)
    translate_texts([TEXT, TEXT, "Two cats! New."], translator, memory, "eng", "spa")
    assert translator.segments == ["Title", "One cat.", "Two cats!", "Bye.", "New."]
    translate_texts(["New. Newer.", TEXT], translator, memory, "eng", "spa")
    assert translator.segments[5:] == ["Newer."]
    assert len(memory) == 6


def test_nothing_to_translate_asks_nobody(fake_translator, memory):
    translator = fake_translator(str.upper)
    assert translate_texts(["", " \n", "12 + 3"], translator, memory, "eng", "spa") == ["", " \n", "12 + 3"]
    assert translate_texts([], translator, memory, "eng", "spa") == []
    assert translator.asked == []


def test_the_memory_tells_directions_and_translators_apart(fake_translator, memory):
    one, other = fake_translator(str.upper), fake_translator(str.title)
    other.name = "other"
    for source, target in [("eng", "spa"), ("spa", "eng"), ("eng", "ces")]:
        assert translate_texts(["no cat"], one, memory, source, target) == ["NO CAT"]
    assert translate_texts(["no cat"], other, memory, "eng", "spa") == ["No Cat"]
    assert [(s, t) for _, s, t in one.asked] == [("eng", "spa"), ("spa", "eng"), ("eng", "ces")]


def test_the_memory_lasts_over_connections_and_processes(fake_translator, tmp_path):
    path = tmp_path / "memory.sqlite"
    code = (
        "import sys; from pathlib import Path; from types import SimpleNamespace as N\n"
        "from sdrrl_factory.transfer.translate import translate_texts\n"
        "from sdrrl_factory.transfer.translate.memory import TranslationMemory\n"
        "t = N(name='fake', translate=lambda segments, a, b: [s.upper() for s in segments])\n"
        "translate_texts(['Uno é\u2028two.'], t, TranslationMemory(Path(sys.argv[1])), 'eng', 'spa')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    first, second = TranslationMemory(path), TranslationMemory(path)
    translator = fake_translator(str.upper)
    try:
        translate_texts(["Three."], translator, first, "eng", "spa")
        assert translate_texts(["Uno é\u2028two.", "Three."], translator, second, "eng", "spa") == [
            "UNO É\u2028TWO.",
            "THREE.",
        ]
    finally:
        first.close()
        second.close()
    assert translator.segments == ["Three."]


@pytest.mark.parametrize("blank", ["", "  "])
def test_an_empty_result_fails_its_text_and_no_other(fake_translator, memory, blank):
    translator = fake_translator(lambda s: blank if "bad" in s else s.upper())
    texts = ["Good.", "Good. So bad. Fine.", "Fine.", "", "Only bad."]
    for _ in range(2):  # the second time out of the memory
        assert translate_texts(texts, translator, memory, "eng", "spa") == ["GOOD.", None, "FINE.", "", None]


def test_a_translator_that_loses_a_segment_is_caught(fake_translator, memory):
    translator = fake_translator(str.upper)
    translator.translate = lambda segments, source, target: [s.upper() for s in segments][1:]
    with pytest.raises(ValueError):
        translate_texts(["One. Two."], translator, memory, "eng", "spa")
    assert len(memory) == 0


blocks = st.sampled_from(
    ["- a. B", "```\nCode. Here\n```", "\r\n", "\u2028", "  1) Uno. Dos", "😀 ", "שלום. ", "\x85", "\0x"]
)
texts = st.lists(st.one_of(blocks, st.text(max_size=12)), max_size=6).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, max_size=3))
def test_an_identity_translator_changes_no_byte(rows):
    class Identity:
        name = "identity"

        def translate(self, segments, source, target):
            assert len(set(segments)) == len(segments)
            return list(segments)

    memory = TranslationMemory(Path(":memory:"))
    for _ in range(2):
        assert translate_texts(rows, Identity(), memory, "eng", "spa") == rows
    memory.close()
