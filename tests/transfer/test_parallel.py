import random
import re

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.transfer.parallel import completion_rows, gettext, translation_rows

PAIRS = [("p0", "The quick fox.", "Rubah yang cepat."), ("p1", "Yes.", "Ya.")]


@pytest.fixture(scope="module")
def pairs():
    pytest.importorskip("polib", reason="needs `pip install django polib`")
    pytest.importorskip("django", reason="needs `pip install django polib`")
    return gettext("eng", "spa", 10_000, 42, "r")


def test_pairs_are_sentences_without_holes(pairs):
    assert len(pairs) > 150
    for _, english, spanish in pairs:
        for text in (english, spanish):
            assert not re.search(r"[%{}<>|\\\n]", text) and text == text.strip() and text
        assert len(english.split()) >= 3 and english != spanish
    assert len({pid for pid, _, _ in pairs}) == len({english for _, english, _ in pairs}) == len(pairs)


def test_pairs_are_the_catalogues_own(pairs):
    import django
    import polib

    root = django.__path__[0]
    entries = {e.msgid: e.msgstr for e in polib.pofile(f"{root}/conf/locale/es/LC_MESSAGES/django.po")}
    mine = {english: spanish for _, english, spanish in pairs}
    common = entries.keys() & mine.keys()
    assert len(common) > 50 and all(mine[key] == entries[key] for key in common)


@pytest.mark.parametrize("size", [0, 1, 50])
def test_the_size_is_a_cap_and_the_draw_is_the_seeds(pairs, size):
    assert gettext("eng", "spa", size, 42, "r") == pairs[:size]


def test_another_seed_draws_others(pairs):
    other = gettext("eng", "spa", 50, 43, "r")
    assert len(other) == 50 and {e for _, e, _ in other} != {e for _, e, _ in pairs[:50]}


def test_another_source_language_is_joined_by_message(pairs):
    french = gettext("fra", "spa", 10_000, 42, "r")
    spanish = {s for _, _, s in pairs}
    assert len(french) > 100 and sum(s in spanish for _, _, s in french) > 100


def test_a_language_without_a_catalogue_is_one_line(pairs, monkeypatch):
    with pytest.raises(UserError) as err:
        monkeypatch.setattr("pathlib.Path.glob", lambda self, pattern: iter(()))
        gettext("eng", "spa", 5, 42, "r.yaml:9: parallel.source")
    assert str(err.value).startswith("r.yaml:9: parallel.source: ") and "parallel.size: 0" in str(err.value)


def test_a_missing_django_is_one_line(monkeypatch):
    monkeypatch.setattr("sdrrl_factory.transfer.parallel.find_spec", lambda name: None)
    with pytest.raises(UserError, match="^r: django is not installed; run `pip install django polib`"):
        gettext("eng", "spa", 5, 42, "r")


def test_translation_rows_are_worded_as_in_table_1():
    assert translation_rows(PAIRS[:1], "eng", "ind") == [
        {
            "id": "p0-st",
            "instruction": "Translate the following sentence from English to Indonesian.",
            "input": "The quick fox.",
            "output": "Rubah yang cepat.",
        },
        {
            "id": "p0-ts",
            "instruction": "Translate the following sentence from Indonesian to English.",
            "input": "Rubah yang cepat.",
            "output": "The quick fox.",
        },
    ]


def test_completion_rows_are_worded_as_in_table_1():
    ask = "Complete the following sentence in Indonesian according to its context."
    (row,) = completion_rows(PAIRS, "ind", 42)  # one word cannot be cut
    assert (row["instruction"], row["output"]) == (ask, "Rubah yang cepat.")
    assert row["input"] in ("Rubah", "Rubah yang")


def test_a_cut_is_a_proper_prefix_at_a_word_and_uniform():
    words = [f"w{i}" for i in range(11)]
    many = [(f"s{i}", "x", " ".join(words)) for i in range(5_000)]
    counts = [0] * 11
    for row in completion_rows(many, "spa", 42):
        assert row["output"].startswith(row["input"] + " ") and row["input"]
        counts[len(row["input"].split())] += 1
    assert counts[0] == 0 and sum(counts) == 5_000
    chi2 = sum((n - 500) ** 2 / 500 for n in counts[1:])
    assert chi2 < 27.9  # 9 degrees of freedom, p = 0.001


def test_a_cut_depends_on_seed_and_id_alone():
    many = [(f"s{i}", "x", "a b c d e f g h") for i in range(100)]
    rows = completion_rows(many, "spa", 42)
    shuffled = random.Random(1).sample(many, 60)
    assert all(row in rows for row in completion_rows(shuffled, "spa", 42))
    assert completion_rows(many, "spa", 43) != rows
