import importlib.util
import random
import re

import pytest

from sdrrl_factory.text import pieces, spans, words
from sdrrl_factory.transfer.codeswitch import Switch
from sdrrl_factory.transfer.sets import SWITCHED

LETTERS = r"[^\W\d_]+"
# Set -> (the question's columns, whether they are in the source language).
QUESTIONS = {
    "LL": ("instruction", "input", True),
    "TL": ("instruction_mt", "input_mt", False),
    "LT": ("instruction", "input", True),
    "TT": ("instruction_mt", "input_mt", False),
}


def switch_batch(batch, forward, backward, probability, seed, source, target):
    return Switch(SWITCHED, forward, backward, probability, seed, source, target)(batch)


def questions(texts: list[str | None], translated: list[str | None] | None = None) -> dict:
    """A batch of records whose instruction and its translation are these, without input."""
    return {
        "id": [f"r{i}" for i in range(len(texts))],
        "instruction": texts,
        "input": [""] * len(texts),
        "instruction_mt": translated or texts,
        "input_mt": [""] * len(texts),
    }


def switched(text: str, dictionary: dict, probability: float = 1.0, source: str = "eng", seed: int = 0) -> str:
    out = switch_batch(questions([text]), dictionary, {}, probability, seed, source, "spa")
    return out["instruction_ll_cs"][0]


@pytest.fixture
def dictionary(vocabulary):
    return {word: [f"{word}uno", f"{word}dos", f"{word}tres"] for word in vocabulary}


def text_of(vocabulary, known: int, seed: int = 3) -> str:
    """`known` words of the vocabulary in mixed case, with unknown words, digits and punctuation between."""
    draw = random.Random(seed)
    out = []
    for _ in range(known):
        word = draw.choice(vocabulary)
        out.append(draw.choice([word, word, word.capitalize(), word.upper()]))
        out.append(draw.choice([" ", ", ", ". ", " — ", " 42 ", " zzyzx ", " (Zzyzx) ", "\n- "]))
    return "".join(out)


def test_the_rate_is_per_known_word_over_20_000_records(vocabulary, dictionary):
    draw = random.Random(1)
    texts = [" ".join(draw.choices([*vocabulary, "zzyzx"], k=6)) for _ in range(20_000)]
    backward = {word: [f"{word}back"] for word in vocabulary[:100]}
    out = switch_batch(questions(texts), dictionary, backward, 0.15, 42, "eng", "spa")
    for subset, (*_, is_source) in QUESTIONS.items():
        after = out[f"instruction_{subset.lower()}_cs"]
        known = sum(w in (dictionary if is_source else backward) for t in texts for w in t.split())
        changed = sum(
            a != b for t, u in zip(texts, after, strict=True) for a, b in zip(t.split(), u.split(), strict=True)
        )
        totals = [sum(counts[subset][k] for counts in out["switch_counts"]) for k in range(3)]
        assert totals == [120_000, known, changed]
        assert abs(changed / known - 0.15) < 0.005
    shares = [sum(len(re.findall(f"{end}\\b", t)) for t in out["instruction_ll_cs"]) for end in ("uno", "dos", "tres")]
    assert all(abs(share / sum(shares) - 1 / 3) < 0.02 for share in shares)


def test_unknown_words_punctuation_and_case_are_kept(vocabulary, dictionary):
    text = text_of(vocabulary, 2_000)
    after = switched(text, dictionary, 0.5)
    assert re.split(LETTERS, after) == re.split(LETTERS, text)
    assert re.findall("zzyzx", after) == re.findall("zzyzx", text)
    for a, b in zip(re.findall(LETTERS, text), re.findall(LETTERS, after), strict=True):
        if a != b:
            assert b.lower().removeprefix(a.lower()) in {"uno", "dos", "tres"}
            assert (b.isupper(), b.istitle(), b.islower()) == (a.isupper(), a.istitle(), a.islower())


def test_probability_zero_and_one(vocabulary, dictionary):
    text = text_of(vocabulary, 500)
    assert switched(text, dictionary, 0.0) == text
    assert len(re.findall(r"(?i)\w+(?:uno|dos|tres)\b", switched(text, dictionary))) == 500


BY_HAND = {
    "house": ["casa"],
    "i": ["yo"],
    "é": ["e"],
    "don't": ["no"],
    "spain": ["España"],
    "water": ["水"],
    "x": ["y"],
}


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("The House, the house; HOUSE!", "The Casa, the casa; CASA!"),
        ("house's house-boat", "house's casa-boat"),
        ("I don't, Don't", "Yo no, No"),
        ("É é", "E e"),
        ("spain Spain SPAIN", "España España ESPAÑA"),
        ("Water WATER water", "水 水 水"),
        ("", ""),
        ("123 ... \n\n", "123 ... \n\n"),
        # What the translator may not touch is not switched.
        ("house\n```py\nhouse = 'house'\n```\nhouse", "casa\n```py\nhouse = 'house'\n```\ncasa"),
        ("Use `house` in house: https://a.org/house {house} house_x %(house)s", None),
        ("- house\n1. house\r\n| house | x |", "- casa\n1. casa\r\n| casa | y |"),
        ("See <b>house</b>, house.txt, house@house.org.", "See <b>casa</b>, house.txt, house@house.org."),
    ],
)
def test_switch_by_hand(text, after):
    after = after or text.replace("in house", "in casa")
    assert switched(text, BY_HAND) == after


def test_plain_prose_is_switched_as_the_long_way_does():
    """Where nothing is to be kept, pieces and spans are not asked; they would say the same."""
    draw = random.Random(2)
    parts = [*'  1_-(/.`$\né?x"', "house", "House", ". ", ", ", ": ", "20 °C", "a) ", "’s"]
    for _ in range(3_000):
        text = "".join(draw.choices(parts, k=draw.randrange(1, 9)))
        total = 0
        for piece, is_text in pieces(text):
            kept = spans(piece)
            at = 0
            for word in words(piece) if is_text else []:
                at = piece.index(word, at)
                total += not any(a < at + len(word) and at < b for a, b, _ in kept)
                at += len(word)
        out = switch_batch(questions([text]), BY_HAND, {}, 1.0, 0, "eng", "spa")
        assert out["switch_counts"][0]["LL"][0] == total, text


@pytest.fixture
def batch(vocabulary):
    rows = 40
    return {
        "id": [f"r{i}" for i in range(rows)],
        "instruction": [text_of(vocabulary, 10, i) for i in range(rows)],
        "input": ["" if i % 2 else text_of(vocabulary, 5, 100 + i) for i in range(rows)],
        "instruction_mt": [None if i % 7 == 0 else text_of(vocabulary, 10, 200 + i) for i in range(rows)],
        "input_mt": ["" if i % 2 else text_of(vocabulary, 5, 300 + i) for i in range(rows)],
        "answer": [text_of(vocabulary, 8, 400 + i) for i in range(rows)],
        "answer_mt": [text_of(vocabulary, 8, 500 + i) for i in range(rows)],
    }


def part(batch, index):
    return {key: [values[i] for i in index] for key, values in batch.items()}


def test_a_batch_is_switched_by_seed_and_id_alone(batch, dictionary, vocabulary):
    rest = ("eng", "spa")
    backward = {word: [f"{word}back"] for word in vocabulary}
    whole = switch_batch(batch, dictionary, backward, 0.3, 42, *rest)
    assert switch_batch(batch, dictionary, backward, 0.3, 42, *rest) == whole
    order = random.Random(1).sample(range(40), 40)
    for start in range(0, 40, 7):
        index = order[start : start + 7]
        assert switch_batch(part(batch, index), dictionary, backward, 0.3, 42, *rest) == part(whole, index)
    assert switch_batch(batch, dictionary, backward, 0.3, 43, *rest) != whole


def test_only_questions_are_switched_each_with_its_dictionary(batch, dictionary, vocabulary):
    backward = {word: [f"{word}back"] for word in vocabulary}
    out = switch_batch(batch, dictionary, backward, 1.0, 42, "eng", "spa")
    assert {k: out[k] for k in batch} == batch
    for subset, (instruction, given, is_source) in QUESTIONS.items():
        assert (is_source, instruction, given) == (
            (True, "instruction", "input") if subset[0] == "L" else (False, "instruction_mt", "input_mt")
        )
        ending, other = ("uno|dos|tres", "back") if is_source else ("back", "uno|dos|tres")
        for column, name in ((instruction, "instruction"), (given, "input")):
            for before, after in zip(batch[column], out[f"{name}_{subset.lower()}_cs"], strict=True):
                if before is None:
                    assert after is None
                    continue
                known = sum(w.lower() in dictionary for w in re.findall(LETTERS, before))
                assert len(re.findall(rf"(?i)\w(?:{ending})\b", after)) == known
                assert not re.search(rf"(?i)\w(?:{other})\b", after)


def test_the_sets_draw_for_themselves(batch, dictionary):
    out = switch_batch(batch, dictionary, dictionary, 0.5, 42, "eng", "spa")
    assert out["instruction_ll_cs"] != out["instruction_lt_cs"]
    assert out["instruction_tl_cs"] != out["instruction_tt_cs"]


def test_counts_of_each_set(batch, dictionary):
    out = switch_batch(batch, dictionary, {}, 1.0, 42, "eng", "spa")
    assert batch["instruction_mt"][0] is None and batch["input_mt"][0]
    for i, counts in enumerate(out["switch_counts"]):
        for subset, (*columns, is_source) in QUESTIONS.items():
            total = sum(len(re.findall(LETTERS, batch[c][i] or "")) for c in columns)
            known = sum(w.lower() in dictionary for c in columns for w in re.findall(LETTERS, batch[c][i] or ""))
            assert counts[subset] == [total, known if is_source else 0, known if is_source else 0]


UNSPACED = {
    "jpn": ("janome", "日本の首都、PythonとAI", {"日本": ["Japan"], "首都": ["capital"], "の": ["of"], "と": ["and"]},
            "Japan of capital、Python and AI"),
    "tha": ("pythainlp", "ประเทศไทยมีเมืองหลวง Python", {"ประเทศ": ["country"], "ไทย": ["Thai"], "เมืองหลวง": ["capital"]},
            "country Thaiมีcapital Python"),
    "khm": ("khmernltk", "ប្រទេសកម្ពុជាមានរាជធានី ok", {"ប្រទេស": ["country"], "កម្ពុជា": ["Cambodia"], "មាន": ["has"]},
            "country Cambodia hasរាជធានី ok"),
}  # fmt: skip


@pytest.mark.parametrize("code", UNSPACED)
def test_languages_without_blanks_both_ways(code):
    package, text, backward, after = UNSPACED[code]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}: pip install 'sdrrl-factory[{code}]'")
    word = next(iter(backward))
    forward = {"house": [word]}
    out = switch_batch(questions(["My house!"], [text]), forward, backward, 1.0, 0, "eng", code)
    assert out["instruction_tt_cs"] == [after] == out["instruction_tl_cs"]
    assert out["instruction_ll_cs"] == [f"My {word}!"]
    turned = switch_batch(questions([text], ["My house!"]), backward, forward, 1.0, 0, code, "eng")
    assert turned["instruction_ll_cs"] == [after] and turned["instruction_tl_cs"] == [f"My {word}!"]
