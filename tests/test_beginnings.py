"""What prompts have in common is read once, and nothing comes out otherwise: against float64, one text at a time."""

import random

import pytest
import torch

from sdrrl_factory.errors import UserError
from sdrrl_factory.models.beginnings import Beginnings, groups
from sdrrl_factory.models.likelihoods import encode_choices
from sdrrl_factory.models.lm import LM
from tests.conftest import ROOT

CHOICES = [" A", " B", " C", " D"]


def loss_of(exact, context: list[int], ids: list[int]) -> float:
    """Of ids behind the context: one sequence, no padding, no cache."""
    with torch.no_grad():
        logprobs = exact(torch.tensor([context + ids])).logits[0].log_softmax(-1)
    return -sum(float(logprobs[len(context) + k - 1, token]) for k, token in enumerate(ids))


def one_by_one(exact, tokenizer, prompt: str, choices: list[str]) -> list[float]:
    head = tokenizer(prompt)["input_ids"]
    return [-loss_of(exact, head, tokenizer(prompt + choice)["input_ids"][len(head) :]) for choice in choices]


def among(prompts: list[str], choices: list[str]) -> list[tuple[str, list[str]]]:
    return [(prompt, choices) for prompt in prompts]


def random_prompts(seed: int, start: str = "") -> list[str]:
    """Passages of one, two or three questions, in no order."""
    rng = random.Random(seed)
    words = (ROOT / "data/heldout/sentences/spa_Latn.devtest").read_text(encoding="utf-8").split()
    prompts = []
    for _ in range(6):
        passage = " ".join(rng.choices(words, k=rng.randint(8, 40)))
        prompts += [
            f"{start}P: {passage}\nQ: {' '.join(rng.choices(words, k=rng.randint(1, 12)))}\nAnswer:"
            for _ in range(rng.choice((1, 2, 2, 3)))
        ]
    rng.shuffle(prompts)
    return prompts


@pytest.mark.parametrize("batch_size", [1, 3, 4, 50])
@pytest.mark.parametrize("start", ["", "P: Un ejemplo que todos comparten.\nAnswer: A\n\n"])
def test_choices_equal_a_float64_brute_force(lm, exact, batch_size, start):
    prompts = random_prompts(batch_size, start)
    expected = [one_by_one(exact, lm.tokenizer, prompt, ["A", "B"]) for prompt in prompts]
    # "A" is one token of the tiny tokenizer, " A" is two: both ways of scoring.
    assert [len(ids) for ids in encode_choices(lm.tokenizer, among(prompts[:1], ["A", "B"]))[1][0]] == [1, 1]
    for values, row in zip(lm.choose(among(prompts, ["A", "B"]), batch_size), expected, strict=True):
        assert values == pytest.approx(row, abs=1e-4)
    if not start and batch_size == 4:
        expected = [one_by_one(exact, lm.tokenizer, prompt, CHOICES) for prompt in prompts]
        assert {len(ids) for ids in encode_choices(lm.tokenizer, among(prompts[:1], CHOICES))[1][0]} == {2}
        for values, row in zip(lm.choose(among(prompts, CHOICES), batch_size), expected, strict=True):
            assert values == pytest.approx(row, abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_losses_equal_a_float64_brute_force(lm, exact, batch_size):
    pairs = [(prompt, " ".join(prompt.split()[-3 - i % 4 :])) for i, prompt in enumerate(random_prompts(7, "Lee. "))]
    pairs += [pairs[0], (pairs[1][0], "Otra respuesta.")]
    for (user, answer), (nats, n) in zip(pairs, lm.answer_loss(pairs, batch_size), strict=True):
        ids = lm.tokenizer(answer, add_special_tokens=False)["input_ids"]
        assert n == len(ids) and nats == pytest.approx(loss_of(exact, lm.encode(user), ids), abs=1e-3)
    texts = ["Uno dos tres.", "", "Uno dos tres cuatro."]
    for text, (nats, n) in zip(texts, lm.text_loss(texts, batch_size), strict=True):
        ids = lm.tokenizer(text)["input_ids"]
        assert n == len(ids) and nats == pytest.approx(loss_of(exact, [1], ids), abs=1e-3)


@pytest.mark.parametrize("batch_size", [2, 4, 5])
def test_a_passage_asked_about_twice_is_read_once(lm, batch_size):
    prompts = random_prompts(3, "Un comienzo que todos comparten, con unas cuantas palabras.\n")
    rows, _ = encode_choices(lm.tokenizer, among(prompts, ["A", "B"]))
    everywhere, together = groups(rows)
    once = everywhere + sum(
        (shared - everywhere) + sum(len(rows[i]) - shared for i in some) for shared, some in together
    )
    assert everywhere > 5 and max(len(some) for _, some in together) >= 3
    read: list[int] = []
    watch = lm.model.register_forward_pre_hook(
        lambda _, args, named: read.append(int(named["attention_mask"][:, -named["input_ids"].shape[1] :].sum())),
        with_kwargs=True,
    )
    with torch.inference_mode():
        beginnings = Beginnings(lm.model, rows)
        # A batch may end within a group: its beginning is kept for the next one.
        for start in range(0, len(rows), batch_size):
            beginnings(beginnings.order[start : start + batch_size])
    watch.remove()
    assert sum(read) == once < sum(map(len, rows))


def test_groups_are_neighbours_with_a_long_common_beginning():
    a, b = list(range(100)), list(range(60)) + [7] * 20
    rows = [[*a, 1], [*b, 2], [*a, 3], [9, 9]]
    everywhere, together = groups(rows)
    assert everywhere == 0
    # b leaves the passage of a after 60 tokens: they still have those in common.
    assert sorted((shared, sorted(some)) for shared, some in together) == [(0, [3]), (60, [0, 1, 2])]
    assert groups([[1, 2, 3]]) == (0, [(0, [0])])
    assert groups([[1, 2, 3], [1, 2, 3]]) == (2, [(2, [0]), (2, [1])])  # one token is always left
    # Two rows keep ten tokens for themselves, whose logits are asked for.
    assert groups([a, a], own=[10, 1]) == (90, [(90, [0]), (90, [1])])
    assert groups([a, a, [9, 9]], own=[10, 1, 1]) == (0, [(90, [0, 1]), (0, [2])])


def test_memory_that_runs_out_halves_the_batch(lm, monkeypatch, capsys):
    prompts = random_prompts(5)
    expected = lm.choose(among(prompts, ["A", "B"]), 8)
    call = Beginnings.__call__

    def small(self, batch, last=1):
        if len(batch) > 1:
            raise RuntimeError("out of memory")
        return call(self, batch, last)

    monkeypatch.setattr(Beginnings, "__call__", small)
    try:
        for values, row in zip(lm.choose(among(prompts, ["A", "B"]), 8), expected, strict=True):
            assert values == pytest.approx(row, abs=1e-4)
    finally:
        lm._largest = None
    assert "batch_size is now 1" in capsys.readouterr().out


def test_nan_weights_are_one_line(tiny):
    broken = LM(str(tiny))
    broken.model.get_input_embeddings().weight.data[:] = float("nan")
    with pytest.raises(UserError, match="model: the model answers NaN: its weights are damaged; export it again"):
        broken.choose(among(["P: x\nAnswer:"], ["A", "B"]), 2)
