import random
import re
from random import Random

import pytest

from sdrrl_factory.transfer.codeswitch import QUESTIONS, switch, switch_batch


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


@pytest.mark.parametrize("seed", [0, 1, 42])
def test_the_rate_is_per_known_word(vocabulary, dictionary, seed):
    text = text_of(vocabulary, 20_000)
    switched, words, known, replaced = switch(text, dictionary, 0.15, Random(seed))
    before, after = (re.findall(r"[^\W\d_]+", t) for t in (text, switched))
    changed = sum(a != b for a, b in zip(before, after, strict=True))
    assert (words, known, replaced) == (len(before), 20_000, changed)
    assert len(before) > 22_000
    assert abs(changed / 20_000 - 0.15) < 0.005


def test_unknown_words_punctuation_and_case_are_kept(vocabulary, dictionary):
    text = text_of(vocabulary, 2_000)
    switched = switch(text, dictionary, 0.5, Random(0))[0]
    assert re.split(r"[^\W\d_]+", switched) == re.split(r"[^\W\d_]+", text)
    assert re.findall("zzyzx", switched) == re.findall("zzyzx", text)
    endings = set()
    for a, b in zip(re.findall(r"[^\W\d_]+", text), re.findall(r"[^\W\d_]+", switched), strict=True):
        if a == b:
            continue
        assert b.lower().startswith(a.lower())
        assert (b.isupper(), b.istitle(), b.islower()) == (a.isupper(), a.istitle(), a.islower())
        endings.add(b.lower().removeprefix(a.lower()))
    assert endings == {"uno", "dos", "tres"}


def test_probability_zero_and_one(vocabulary, dictionary):
    text = text_of(vocabulary, 500)
    assert switch(text, dictionary, 0.0, Random(0))[0] == text
    switched, _, known, replaced = switch(text, dictionary, 1.0, Random(0))
    assert known == replaced == 500
    assert len(re.findall(r"(?i)\w+(?:uno|dos|tres)\b", switched)) == 500


@pytest.mark.parametrize(
    ("text", "switched"),
    [
        ("The House, the house; HOUSE!", "The Casa, the casa; CASA!"),
        ("house's house-boat", "house's casa-boat"),
        ("I am", "Yo am"),
        ("É é", "E e"),
        ("", ""),
        ("123 ...", "123 ..."),
    ],
)
def test_switch_by_hand(text, switched):
    assert switch(text, {"house": ["casa"], "i": ["yo"], "é": ["e"]}, 1.0, Random(0))[0] == switched


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
    backward = {word: [f"{word}back"] for word in vocabulary}
    whole = switch_batch(batch, dictionary, backward, 0.3, 42)
    assert switch_batch(batch, dictionary, backward, 0.3, 42) == whole
    order = random.Random(1).sample(range(40), 40)
    for start in range(0, 40, 7):
        index = order[start : start + 7]
        assert switch_batch(part(batch, index), dictionary, backward, 0.3, 42) == part(whole, index)
    assert switch_batch(batch, dictionary, backward, 0.3, 43) != whole


def test_only_questions_are_switched_each_with_its_dictionary(batch, dictionary, vocabulary):
    backward = {word: [f"{word}back"] for word in vocabulary}
    out = switch_batch(batch, dictionary, backward, 1.0, 42)
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
                known = sum(w.lower() in dictionary for w in re.findall(r"[^\W\d_]+", before))
                assert len(re.findall(rf"(?i)\w(?:{ending})\b", after)) == known
                assert not re.search(rf"(?i)\w(?:{other})\b", after)


def test_the_sets_draw_for_themselves(batch, dictionary):
    out = switch_batch(batch, dictionary, dictionary, 0.5, 42)
    assert out["instruction_ll_cs"] != out["instruction_lt_cs"]
    assert out["instruction_tl_cs"] != out["instruction_tt_cs"]


def test_counts_are_sums_over_the_four_sets(batch, dictionary):
    out = switch_batch(batch, dictionary, {}, 1.0, 42)
    row = part(batch, [1])  # instruction and its translation, no input
    words = [len(re.findall(r"[^\W\d_]+", row[c][0])) for c in ("instruction", "instruction_mt")]
    assert out["switch_counts"][1] == [2 * sum(words), 20, 20]
    assert batch["instruction_mt"][0] is None
    assert out["switch_counts"][0][1:] == [30, 30]
