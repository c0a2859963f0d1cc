import random

import pytest

from sdrrl_factory.language_id import Identifier
from sdrrl_factory.transfer.draw import rng
from sdrrl_factory.transfer.recipe import LanguageId
from sdrrl_factory.transfer.sampling import Sample, Settle, next_threshold

IDS = [f"alpaca-{i:05d}" for i in range(20_000)]


def origins(ids, keep=0.5, seed=42) -> dict[str, str]:
    return dict(zip(ids, Sample(keep, seed)({"id": list(ids)})["answer_origin"], strict=True))


@pytest.mark.parametrize("seed", [1, 2, 42])
@pytest.mark.parametrize("keep", [0.5, 0.2])
def test_the_share_of_ground_truth(keep, seed):
    kept = sum(o == "D" for o in origins(IDS, keep, seed).values())
    assert abs(kept / len(IDS) - keep) < 0.01


def test_a_draw_depends_on_nothing_but_seed_and_id():
    all_at_once = origins(IDS)
    shuffled = random.Random(1).sample(IDS, len(IDS))
    one_by_one = {k: v for start in range(0, len(IDS), 37) for k, v in origins(shuffled[start : start + 37]).items()}
    assert one_by_one == all_at_once


def test_another_seed_draws_anew():
    same = sum(a == b for a, b in zip(origins(IDS).values(), origins(IDS, seed=43).values(), strict=True))
    assert abs(same / len(IDS) - 0.5) < 0.01


@pytest.mark.parametrize(("keep", "origin"), [(1.0, "D"), (0.0, "G")])
def test_the_ends_of_the_scale(keep, origin):
    assert set(origins(IDS, keep).values()) == {origin}


def test_more_ground_truth_keeps_what_was_kept():
    less, more = origins(IDS, 0.4), origins(IDS, 0.6)
    assert {i for i in IDS if less[i] == "D"} < {i for i in IDS if more[i] == "D"}


def test_purposes_and_boundaries_do_not_share_draws():
    draws = {rng(*a).random() for a in [(1, "1", "x"), (11, "", "x"), (1, "1x", ""), (1, "1", "y"), (2, "1", "x")]}
    assert len(draws) == 5
    assert rng(1, "a", "b").random() == rng(1, "a", "b").random()


def settled(sample: Sample, ids: list[str], usable: set[str]) -> list[dict]:
    """What `Settle` leaves: an own answer that cannot be used gives way."""
    drawn = sample({"id": ids})["answer_origin"]
    return [
        {"id": i, "answer_origin": "G" if i in usable and origin == "G" else "D"}
        for i, origin in zip(ids, drawn, strict=True)
    ]


def own_answers(ids: list[str], usable: set[str], keep: float, seed: int = 42) -> tuple[set[str], set[str], int]:
    """(the records with own answers at the end, all that were asked, how often the threshold was changed)."""
    sample, asked, rounds = Sample(keep, seed), set(), 0
    while True:
        rows = settled(sample, ids, usable)
        asked |= {i for i in ids if sample.draw(i) >= sample.threshold}
        threshold = next_threshold(sample, rows, keep)
        if threshold == sample.threshold:
            return {row["id"] for row in rows if row["answer_origin"] == "G"}, asked, rounds
        sample, rounds = Sample(threshold, seed), rounds + 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rate", [0.0, 0.03, 0.4, 0.75, 0.99, 1.0])
@pytest.mark.parametrize("keep", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_other_records_stand_in_for_those_with_flawed_answers(keep, rate, seed):
    ids = IDS[:1000]
    usable = {i for i in ids if rng(seed, i, "usable").random() < rate}
    own, asked, rounds = own_answers(ids, usable, keep, seed)
    # By hand: go through the records by their draws, the highest first, until as many as were drawn have their own.
    draws = {i: rng(seed, i, "sample").random() for i in ids}
    wanted = sum(draw >= keep for draw in draws.values())
    assert own == set([i for i in sorted(ids, key=draws.get, reverse=True) if i in usable][:wanted])
    # Where enough can be used, few are asked that need not be; and the model is not started over and over.
    last = min((draws[i] for i in own), default=1.0)
    needed = sum(draw >= last for draw in draws.values()) if len(own) == wanted else len(ids)
    assert needed <= len(asked) <= 1.5 * needed + 20 and rounds <= 5


def test_without_flaws_each_record_is_drawn_for_itself():
    usable = set(IDS)
    own, asked, rounds = own_answers(IDS, usable, 0.5)
    assert own == asked == {i for i, origin in origins(IDS).items() if origin == "G"} and rounds == 0


def test_neither_order_nor_company_changes_who_stands_in():
    ids = IDS[:500]
    usable = {i for i in ids if rng(1, i, "usable").random() < 0.7}
    straight = own_answers(ids, usable, 0.5)
    assert own_answers(random.Random(2).sample(ids, len(ids)), usable, 0.5) == straight


def test_all_usable_answers_are_taken_with_equal_probability():
    """Half of all records are wanted, which is 5 of 7 that can be used, whatever their content (the id's parity)."""
    ids, taken = IDS[:200], {0: 0, 1: 0}
    usable = {i for i in ids if int(i[-2:]) % 10 < 7}
    for seed in range(60):
        for i in own_answers(ids, usable, 0.5, seed)[0]:
            taken[int(i[-1]) % 2] += 1
    of = {parity: sum(int(i[-1]) % 2 == parity for i in usable) * 60 for parity in taken}
    assert all(abs(taken[parity] / of[parity] - 5 / 7) < 0.02 for parity in taken)


LOOP = "so it goes on " * 4


@pytest.mark.parametrize(
    ("origin", "response", "finish", "answer", "origin_after", "reasons"),
    [
        ("G", "Mine.", "stop", "Mine.", "G", []),
        ("D", None, None, "Given.", "D", []),
        ("G", "", "stop", "Given.", "D", ["generation: empty"]),
        ("G", " \n", "stop", "Given.", "D", ["generation: empty"]),
        ("G", "Cut of", "length", "Given.", "D", ["generation: cut off"]),
        ("G", LOOP, "stop", "Given.", "D", ["generation: looping"]),
        ("G", "so it goes on " * 3, "stop", "so it goes on " * 3, "G", []),
        ("G", LOOP, "length", "Given.", "D", ["generation: looping"]),
        ("G", "", "error: 400 too long", "Given.", "D", ["generation: error: 400 too long"]),
        ("G", "El río es pequeño y la casa es grande.", "stop", "Given.", "D", ["generation: off-target"]),
    ],
)
def test_settle(origin, response, finish, answer, origin_after, reasons):
    batch = {
        "id": ["a"],
        "output": ["Given."],
        "answer_origin": [origin],
        "response": [response],
        "response_finish": [finish],
    }
    out = Settle("eng", LanguageId(), "fasttext")(batch, Identifier("fasttext", None, 20, 0.5))
    assert (out["answer"], out["answer_origin"], out["reasons"]) == ([answer], [origin_after], [reasons])
    assert batch["answer_origin"] == [origin] and "answer" not in batch
