import random

import pytest

from sdrrl_factory.language_id import Identifier
from sdrrl_factory.transfer.draw import rng
from sdrrl_factory.transfer.recipe import LanguageId
from sdrrl_factory.transfer.sampling import Sample, Settle

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
