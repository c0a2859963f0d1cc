import random
import unicodedata

import numpy as np
import pytest
import regex

from sdrrl_eval.measure import matching
from sdrrl_eval.measure.matching import EXACT, NEAR, NGRAM, Index
from tests.conftest import ROOT

QUESTION = "Why does the ice on a lake float?"
JAPANESE = "図書館は夏のあいだ毎日、朝の九時から夕方の六時まで開いています。"
THAI = "ห้องสมุดเปิดทุกวันตั้งแต่เก้าโมงเช้าจนถึงหกโมงเย็น"
KOREAN = "도서관은 여름 동안 매일 아침 아홉 시부터 저녁 여섯 시까지 문을 엽니다."


def kinds(text: str, *rows: str) -> list[str]:
    return [match.kind for match in Index([text]).matches(list(rows))]


def heldout(code: str) -> list[str]:
    return (ROOT / f"data/heldout/sentences/{code}.devtest").read_text(encoding="utf-8").splitlines()


def without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def other_word(text: str) -> str:
    words = text.split(" ")
    words[len(words) // 2] = "kitchen"
    return " ".join(words)


LEAKS = {
    "exact": (EXACT, str),
    "upper case": (EXACT, str.upper),
    "no punctuation": (EXACT, lambda text: regex.sub(r"[^\p{L}\p{N} ]", "", text)),
    "other punctuation": (EXACT, lambda text: "«" + regex.sub(r"[.,;:]", " – ", text) + "»!"),
    "no accents": (EXACT, without_accents),
    "NFD": (EXACT, lambda text: unicodedata.normalize("NFD", text)),
    "full width": (EXACT, lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)),
    "lines": (EXACT, lambda text: text.replace(" ", "\n  ")),
    "one word": (NEAR, other_word),
    "a word more": (NEAR, lambda text: text.replace(" ", " just ", 1)),
    "a word less": (NEAR, lambda text: text.split(" ", 1)[1]),
}


@pytest.mark.parametrize("code", ["eng_Latn", "spa_Latn"])
@pytest.mark.parametrize("leak", LEAKS)
def test_every_planted_leak_is_found_behind_a_prompt(code, leak):
    """60 sentences each: all of them and none but them, where they stand."""
    texts = heldout(code)
    kind, change = LEAKS[leak]
    rows = [f"Translate the following sentence.\n{change(text)} And so on" for text in texts]
    rows[7] = "Nothing of the kind."
    found = list(Index(texts).matches(rows))
    assert [(m.text, m.row, m.kind) for m in sorted(found, key=lambda m: m.text)] == [
        (i, i, kind) for i in range(len(texts)) if i != 7
    ]
    for match in found:
        assert match.found in rows[match.row]  # as it is written there
        assert (match.similarity == 1) == (kind == EXACT)


@pytest.mark.parametrize(
    ("text", "row", "expected"),
    [
        (QUESTION, "Ｗｈｙ does the ice, on a lake, float…", [EXACT]),
        (QUESTION, "Tell me: why does the ice on a pond float? And how?", [NEAR]),
        (QUESTION, "why does the ice on a lake floats", [NEAR]),  # the last word is another
        (QUESTION, "Why do the leaves on a tree fall?", []),
        ("a b c", "a b c", []),  # too short to tell
        ("Nobody knew her", "Nobody knew her", []),
        ("Nobody knew her name", "x nobody knew her name x", [EXACT]),
        ("Don't go there today", "dont go there today", [EXACT]),
        ("Ice on a lake will float", "nice on a lake will float", [NEAR]),  # it begins inside a word
        ("t go there today now", "Don't go there today now", [NEAR]),
        ("We saw him at an old inn", "We saw him at an grim inn", [NEAR]),  # one word of seven, 4 letters of 18
        ("We saw him at an old inn", "We saw her at an grim inn", []),
        ("We met him at the inn", "We met Johnson at the inn", []),  # one word of six
        ("Łódź und Straße, öd İ", "lodz und strasse od i", [EXACT]),
        (JAPANESE, JAPANESE, [EXACT]),
        (JAPANESE, f"Translate{JAPANESE[:-1]}now", [EXACT]),  # between letters of another script too
        (JAPANESE, f"次の文を訳してください。{JAPANESE[:-1]}と思う", [EXACT]),
        (JAPANESE, unicodedata.normalize("NFD", " ".join(JAPANESE)), [EXACT]),
        (JAPANESE, JAPANESE.replace("夕方", "午後"), [NEAR]),
        (JAPANESE, f"また、{JAPANESE[2:29]}のです", [NEAR]),
        (JAPANESE[:14], f"また、{JAPANESE}", [EXACT]),  # twelve letters and two marks
        (JAPANESE[:11], f"また、{JAPANESE}", []),
        (JAPANESE, "図書館は冬のあいだ閉まっていて、朝の九時に開くことはありません。", []),
        (THAI, f"แปลประโยคนี้ {THAI} ครับ", [EXACT]),
        (THAI, THAI.replace("ทุกวัน", "วันนี้"), [NEAR]),
        (KOREAN, f"번역하세요: {unicodedata.normalize('NFD', KOREAN)}", [EXACT]),
        (KOREAN, KOREAN.replace("저녁", "오후"), [NEAR]),
    ],
)
def test_what_is_found(text, row, expected):
    assert kinds(text, "Some other row.", row) == expected


def test_a_hyphen_less_is_exact_wherever_it_stood():
    """Also where the window that the text is looked for by starts behind the hyphen: another text has the first."""
    index = Index(["Non-operational units stood idle.", "Non-operative parts were sold."])
    assert [(m.text, m.kind) for m in index.matches(["The nonoperational units stood idle."])] == [(0, EXACT)]


def test_a_copy_that_begins_inside_a_word_is_near():
    """Also where it is looked for by a later window, since another text has the first."""
    index = Index(["Ice on a lake will float", "Ice on a lamp"])
    assert [(m.text, m.kind) for m in index.matches(["nice on a lake will float"])] == [(0, NEAR)]


def test_a_copy_over_two_rows_is_none():
    first, second = QUESTION[:18], QUESTION[18:]
    assert kinds(QUESTION, first, second) == [] and kinds(QUESTION, first + second) == [EXACT]


def test_long_texts_are_found_by_thirteen_words():
    words = [f"w{i}ord{i * 7}" for i in range(60)]
    text = " ".join(words)
    assert kinds(text, "He wrote: " + " ".join(words[20:33]) + " then.") == [NGRAM]
    assert kinds(text, "He wrote: " + " ".join(words[20:32]) + " then.") == []
    assert [m.kind for m in Index([text]).matches([" ".join(words[20:27]), " ".join(words[27:33])])] == []
    letters = "".join(chr(0x4E00 + 11 * i) for i in range(120))
    assert kinds(letters, f"また、{letters[30:56]}のです") == [NGRAM]
    assert kinds(letters, f"また、{letters[30:55]}のです") == []


def test_runs_against_brute_force():
    """Random texts of few words: a run is found where, and only where, 13 words in a row are the same."""
    draw = random.Random(3)
    words = ["uno", "dos", "tres", "Año"]
    base = [draw.choice(words) for _ in range(400)]
    runs = {tuple(base[i : i + 13]) for i in range(len(base) - 12)}
    seen = set()
    for _ in range(60):
        row = base[(start := draw.randrange(300)) : start + draw.randrange(8, 40)]
        row = [draw.choice(words) for _ in range(draw.randrange(9))] + row + [draw.choice(words)] * draw.randrange(9)
        expected = any(tuple(row[i : i + 13]) in runs for i in range(len(row) - 12))
        assert kinds(" ".join(base), ", ".join(row)) == [NGRAM] * expected
        seen.add(expected)
    assert seen == {False, True}


def test_exact_copies_against_brute_force():
    """Random words, many of them alike: exact where, and only where, the words of the text stand in a row."""
    draw = random.Random(5)
    words = ["la", "las", "casa", "casas", "ola", "el", "sol", "cas"]
    counted = {True: 0, False: 0}
    for _ in range(300):
        row = [draw.choice(words) for _ in range(30)]
        start = draw.randrange(20)
        text = row[start : start + 6] if draw.random() < 0.5 else [draw.choice(words) for _ in range(4)]
        expected = any(row[i : i + len(text)] == text for i in range(len(row)))
        if len("".join(text)) >= matching.FEWEST_LETTERS:
            assert (EXACT in kinds(" ".join(text), " ".join(row))) == expected
            counted[expected] += 1
    assert min(counted.values()) > 50


def levenshtein(pattern: str, text: str) -> tuple[int, set[tuple[int, int]]]:
    """(least distance, the stretches that have it) by the whole table, for every start."""
    found: dict[tuple[int, int], int] = {}
    for start in range(len(text) + 1):
        row = list(range(len(pattern) + 1))
        found[start, start] = row[-1]
        for end in range(start + 1, len(text) + 1):
            new = [row[0] + 1]
            for i, letter in enumerate(pattern, 1):
                new.append(min(row[i] + 1, new[-1] + 1, row[i - 1] + (letter != text[end - 1])))
            row = new
            found[start, end] = row[-1]
    least = min(found.values())
    return least, {stretch for stretch, distance in found.items() if distance == least}


def test_the_nearest_stretch_against_the_whole_table():
    draw = random.Random(1)
    for _ in range(200):
        pattern = "".join(draw.choice("abc") for _ in range(draw.randrange(1, 75)))
        text = "".join(draw.choice("abc") for _ in range(draw.randrange(12)))
        distance, start, end = matching.closest(pattern, text)
        least, stretches = levenshtein(pattern, text)
        assert distance == least and (start, end) in stretches
        assert end == max(end for _, end in stretches)


def test_hashes_of_any_stretch():
    """Equal for equal letters wherever they stand, and for no others."""
    draw = np.random.default_rng(2)
    codes = draw.integers(97, 100, 500).astype(np.uint32)
    starts = draw.integers(0, 480, 4000)
    ends = starts + draw.integers(1, 12, 4000)
    texts = [codes[a:b].tobytes() for a, b in zip(starts, ends, strict=True)]
    values = matching._Hashes(codes).of(starts, ends).tolist()
    assert len(set(texts)) == len(set(values)) == len(set(zip(texts, values, strict=True)))


def test_known_texts_are_looked_for_as_exact_copies_only():
    near = QUESTION.replace("lake", "pond")
    index = Index([QUESTION])
    assert [m.kind for m in index.matches([near], {0})] == []
    long = " ".join(f"word{i}" for i in range(60))
    part = [" ".join(f"word{i}" for i in range(20))]
    assert [m.kind for m in Index([long]).matches(part)] == [NGRAM] and not list(Index([long]).matches(part, {0}))
    assert [m.kind for m in index.matches([near, QUESTION], {0})] == [EXACT]


def test_a_text_whose_words_are_common_in_training_is_not_compared_without_end(monkeypatch):
    """Where the rest is common to many texts, "Mississippi" alone makes a row worth a comparison: a hundred suffice."""
    texts = [f"Who invented the {name}?" for name in ["Mississippi", *(f"machine{i}" for i in range(40))]]
    compared = []
    closest = matching.closest
    monkeypatch.setattr(matching, "closest", lambda *pair: compared.append(pair) or closest(*pair))
    index = Index(texts)
    for _ in range(5):
        assert list(index.matches(["Every Mississippi is a long river, and this one is no exception."] * 1000)) == []
    assert len(compared) == 100
    assert [(match.text, match.kind) for match in index.matches(texts[:1])] == [(0, EXACT)]


def test_no_texts_or_no_letters():
    assert kinds(QUESTION) == kinds(QUESTION, "", "…") == []
    assert list(Index([]).matches([QUESTION])) == []
    assert list(Index(["", "…"]).matches([QUESTION])) == []


def test_half_a_surrogate_pair_is_no_traceback():
    assert kinds(QUESTION, f"\ud800 {QUESTION}") == [EXACT]


def test_what_stands_there_is_shown_as_written():
    [match] = Index([QUESTION]).matches(["x\u0301 — “WHY does\nthé ice, on a lake float”? x"])
    assert match.found == "WHY does\nthé ice, on a lake float"
