import random
import shutil
import subprocess
from pathlib import Path

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.transfer.translate import apertium
from sdrrl_factory.transfer.translate.apertium import Apertium

SEGMENTS = [
    "The red house is big.",
    "I saw her duck.",
    "He can can a can.",
    "Books about flying planes can be dangerous",
    "She bought 3,5 kilos of apples; they were cheap!",
    "Is the answer (perhaps) no?",
    "Zzyzx.",
]


@pytest.fixture(scope="module")
def eng_spa() -> Apertium:
    program = shutil.which("apertium")
    if program is None or not (Path(program).parent.parent / "share/apertium/modes/eng-spa.mode").is_file():
        pytest.skip("needs `apt-get install apertium apertium-eng-spa`")
    return Apertium([("eng", "spa"), ("spa", "eng")])


def one(translator, segment, source="eng", target="spa") -> str:
    return translator.translate([segment], source, target)[0]


def test_a_translation_is_apertiums_own(eng_spa):
    ours = eng_spa.translate(SEGMENTS[:4], "eng", "spa")
    for segment, translation in zip(SEGMENTS, ours, strict=False):
        done = subprocess.run(["apertium", "-u", "eng-spa"], input=segment, capture_output=True, text=True, check=True)
        assert translation == done.stdout.strip()
    assert ours[0] == "La casa roja es grande."


def test_both_directions(eng_spa):
    assert one(eng_spa, "La casa roja es grande.", "spa", "eng") == "The red house is big."


def test_a_translation_does_not_depend_on_its_neighbours(eng_spa):
    together = dict(zip(SEGMENTS, eng_spa.translate(SEGMENTS, "eng", "spa"), strict=True))
    shuffled = random.Random(3).sample(SEGMENTS, len(SEGMENTS))
    assert dict(zip(shuffled, eng_spa.translate(shuffled, "eng", "spa"), strict=True)) == together
    assert {s: one(eng_spa, s) for s in SEGMENTS} == together
    assert eng_spa.translate([], "eng", "spa") == []


SPECIAL = "[]{}^$/\\@<>~"


def test_special_characters_survive(eng_spa):
    segments = [f"The dog {c} eats {c}{c} bread." for c in SPECIAL]
    wanted = [f"El perro {c} come {c}{c} pan." for c in SPECIAL]
    assert eng_spa.translate(segments, "eng", "spa") == wanted


def test_special_characters_at_words_survive(eng_spa):
    segment = "See [the house] in {the garden}, <b>now</b>: C:\\dog a/b $5 x^2 me@you.org *bold* ~5 #1 | &amp; +x"
    kept = "[]{}<>/\\$^@*~#|&;+"
    translation = one(eng_spa, segment)
    assert {c: translation.count(c) for c in kept} == {c: segment.count(c) for c in kept}
    assert "<b>" in translation and "</b>" in translation


@pytest.mark.parametrize(
    "odd", ["Hello\0world.", "\0", "Bell \x07 and \x1b[0m", "line\nend \r\n here", "\u2028", "[][\n]", ".[]", "\\"]
)
def test_an_odd_segment_does_not_reach_its_neighbours(eng_spa, odd):
    before, after = "The red house is big.", "The dog eats."
    got = eng_spa.translate([before, odd, after], "eng", "spa")
    assert (got[0], got[2]) == ("La casa roja es grande.", "El perro come.")
    assert len(got) == 3 and "\0" not in got[1]


def test_unknown_words_are_left_unmarked(eng_spa):
    assert one(eng_spa, "The blorfing house.").count("blorfing") == 1
    assert "*" not in one(eng_spa, "The blorfing house.")


def test_a_missing_pair_is_one_line(eng_spa):
    with pytest.raises(UserError) as err:
        Apertium([("eng", "spa"), ("eng", "jpn")])
    message = str(err.value)
    assert message.startswith("Apertium has no pair eng-jpn") and "\n" not in message
    assert "eng-spa" in message and "apt-cache search apertium-" in message


def test_a_missing_apertium_is_one_line(monkeypatch):
    monkeypatch.setattr(apertium.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="^apertium is not installed; run `apt-get install "):
        Apertium([("eng", "spa")])


def test_another_version_of_the_pair_is_another_translator(tmp_path, monkeypatch):
    data = tmp_path / "data.bin"
    modes = tmp_path / "share/apertium/modes"
    modes.mkdir(parents=True)
    monkeypatch.setattr(apertium.shutil, "which", lambda name: str(tmp_path / "bin/apertium"))

    def signature(entries: str, options: str = "") -> str:
        data.write_text(entries)
        for way in ("eng-spa", "spa-eng"):
            (modes / f"{way}.mode").write_text(f"lt-proc {options} '{data}' | lt-proc $1 '{tmp_path}/{way}.bin'")
        translator = Apertium([("eng", "spa"), ("spa", "eng")])
        assert translator.signature("eng", "spa") != translator.signature("spa", "eng")
        assert translator.name == "apertium 3"
        return translator.signature("eng", "spa")

    first = signature("one")
    assert signature("one") == first
    assert len({first, signature("two"), signature("one", "-b")}) == 3


@pytest.mark.parametrize(
    ("pairs", "next_step"),
    [
        (["eng-spa", "spa-por", "por-spa"], "set translator.via: [spa], as eng-spa and spa-por are installed"),
        (["en-es", "es-pt"], "set translator.via: [spa], as en-es and es-pt are installed"),
        (["eng-spa", "por-spa"], "see `apt-cache search apertium-`"),
        (["eng-spa", "spa-cat"], "see `apt-cache search apertium-`"),
        ([], "see `apt-cache search apertium-`"),
    ],
    ids=str,
)
def test_where_both_halves_are_there_a_pivot_is_suggested(pairs, next_step, tmp_path, monkeypatch):
    modes = tmp_path / "share/apertium/modes"
    modes.mkdir(parents=True)
    for pair in pairs:
        (modes / f"{pair}.mode").write_text("cat")
    monkeypatch.setattr(shutil, "which", lambda program: str(tmp_path / "bin/apertium"))
    with pytest.raises(UserError) as err:
        Apertium([("eng", "por")])
    assert str(err.value).startswith("Apertium has no pair eng-por here") and next_step in str(err.value)
