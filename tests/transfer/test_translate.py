import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdrrl_factory.errors import UserError
from sdrrl_factory.memory import Memory
from sdrrl_factory.transfer.translate import Engine, route


def translate_texts(texts, translator, memory, source, target) -> list[str | None]:
    return [text for text, _ in Engine(translator, memory).texts(texts, source, target)]


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
    assert translate_texts(["no cat"], other, memory, "eng", "spa") == ["no Cat"]
    assert [(s, t) for _, s, t in one.asked] == [("eng", "spa"), ("spa", "eng"), ("eng", "ces")]


def test_parts_around_a_kept_piece_and_small_beginnings_stay_small(fake_translator, memory):
    """As the translators do it: each segment comes back with a capital, and what it must keep is lost."""
    dictionary = {"the": "el", "wrote": "escribió", "oak, dolphin": "roble, delfín"}

    def translate(segment):
        return dictionary.get(segment.lower(), "algo").capitalize()

    texts = ["The @user wrote", "oak, dolphin", "Oak, dolphin"]
    out = translate_texts(texts, fake_translator(translate), memory, "eng", "spa")
    assert out == ["El @user escribió", "roble, delfín", "Roble, delfín"]


def test_decomposed_letters_are_composed_both_ways(fake_translator, memory):
    asked = []

    def translate(segment):
        asked.append(segment)
        return "an\u0303o"

    assert translate_texts(["anne\u0301e"], fake_translator(translate), memory, "fra", "spa") == ["a\u00f1o"]
    assert asked == ["ann\u00e9e"]


def test_the_memory_lasts_over_connections_and_processes(fake_translator, tmp_path):
    path = tmp_path / "memory.sqlite"
    code = (
        "import sys; from pathlib import Path; from types import SimpleNamespace as N\n"
        "from sdrrl_factory.transfer.translate import Engine\n"
        "from sdrrl_factory.memory import Memory\n"
        "upper = lambda segments, a, b: [s.upper() for s in segments]\n"
        "t = N(name='fake', signature=lambda a, b: 'fake', translate=upper)\n"
        "Engine(t, Memory(Path(sys.argv[1]))).texts(['Uno é\u2028two.'], 'eng', 'spa')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    first, second = Memory(path), Memory(path)
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


class Awkward:
    """Upper case, but it loses one segment of a batch, leaves one empty, and raises at one."""

    name = "awkward"

    def signature(self, source, target):
        return self.name

    def __init__(self):
        self.asked = []

    def translate(self, segments, source, target):
        self.asked.append(list(segments))
        if any("raise" in s for s in segments):
            raise RuntimeError("no\nway")
        if any("lose" in s for s in segments):
            return [s.upper() for s in segments if "lose" not in s]
        late = ["once"] * (len(segments) > 1)  # empty in company, fine alone
        return [None if "null" in s else "" if any(w in s for w in ["empty", *late]) else s.upper() for s in segments]


def test_what_goes_wrong_is_caught_at_its_segment(memory):
    bad = {
        "raise it": "RuntimeError: no way",
        "lose it": "0 translations of 1 segments",
        "empty": "empty",
        "null": "empty",
    }
    texts = [f"good {i}" for i in range(9)] + list(bad) + ["once alone"]
    translator = Awkward()
    made = Engine(translator, memory).texts(texts, "eng", "spa")
    assert made == [(t.upper(), "") for t in texts[:9]] + [(None, why) for why in bad.values()] + [("ONCE ALONE", "")]
    assert all([segment] in translator.asked for segment in [*bad, "once alone"])
    assert len(memory) == 10


def test_a_users_error_is_not_swallowed(memory):
    def gone(*a):
        raise UserError("no server")

    translator = Awkward()
    translator.translate = gone
    with pytest.raises(UserError, match="no server"):
        Engine(translator, memory).texts(["a", "b"], "eng", "spa")


def test_placeholders_and_numbers_that_got_lost_are_translated_around(fake_translator, memory):
    table = {"Send {name} 3 apples": "ENVÍA nombre tres MANZANAS", "Send": "Envía", "apples": "manzanas"}
    translator = fake_translator(lambda s: table.get(s, s.upper()))
    assert translate_texts(["Send {name} 3 apples", "the 3 cats"], translator, memory, "eng", "spa") == [
        "Envía {name} 3 manzanas",
        "THE 3 CATS",
    ]


def test_a_pivot_goes_hop_by_hop_and_the_hops_are_shared(memory):
    asked = []

    class Hops:
        name = "hops"

        def signature(self, source, target):
            return self.name

        def translate(self, segments, source, target):
            asked.append((source, target))
            return ["" if s == "bad>spa" else f"{s}>{target}" for s in segments]

    engine = Engine(Hops(), memory, ["spa"])
    assert engine.texts(["a", "bad"], "eng", "por") == [("a>spa>por", ""), (None, "empty")]
    assert set(asked) == {("eng", "spa"), ("spa", "por")}
    asked.clear()
    assert Engine(Hops(), memory).texts(["a"], "eng", "spa") == [("a>spa", "")] and asked == []
    assert engine.texts(["x"], "por", "eng", back=True) == [("x>spa>eng", "")]
    assert asked == [("por", "spa"), ("spa", "eng")]
    assert engine.name == "hops via spa"
    assert route("eng", "spa", ["spa", "fra"]) == [("eng", "fra"), ("fra", "spa")]


blocks = st.sampled_from(
    ["- a. B", "```\nCode. Here\n```", "\r\n", "\u2028", "  1) Uno. Dos", "😀 ", "שלום. ", "\x85", "\0x"]
)
texts = st.lists(st.one_of(blocks, st.text(max_size=12)), max_size=6).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, max_size=3))
def test_an_identity_translator_changes_no_byte(rows):
    class Identity:
        name = "identity"

        def signature(self, source, target):
            return self.name

        def translate(self, segments, source, target):
            assert len(set(segments)) == len(segments)
            return list(segments)

    memory = Memory(Path(":memory:"))
    for _ in range(2):
        composed = [unicodedata.normalize("NFC", row) for row in rows]
        assert translate_texts(rows, Identity(), memory, "eng", "spa") == composed
    memory.close()
