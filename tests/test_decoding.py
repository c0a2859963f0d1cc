"""A batch that is refilled against one prompt at a time, token by token, without a cache, in float64."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, MistralConfig, MistralForCausalLM

from sdrrl_factory.models.decoding import continue_prompts
from sdrrl_factory.models.forward import keeps_all_keys

LIMIT, PAD = 24, 0
PROMPTS = [[5, 9, 40], [7], [300, 20, 21, 22, 23, 24, 25], [9, 9], [5, 9, 40], [17, 200, 3, 3], [61, 62], [90, 14, 8]]


def one_by_one(model, prompt, stops) -> list[int]:
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(LIMIT):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in stops:
                break
    return ids[len(prompt) :]


@pytest.fixture(scope="module")
def model(tiny):
    return AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float64).eval()


@pytest.fixture(scope="module")
def windowed():
    """Its cache holds the keys of the last tokens only."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MistralConfig(vocab_size=320, num_key_value_heads=2, sliding_window=6, initializer_range=0.3, **sizes)
    return MistralForCausalLM(config).double().eval()


def stops_of(model) -> list[int]:
    """Tokens that end the answers at different steps."""
    endless = [one_by_one(model, prompt, ()) for prompt in PROMPTS]
    return [endless[0][3], endless[1][9], endless[2][0], endless[5][15]]


def continuations(model, prompts, stops, batch_size, limits=None, noise=None) -> list[list[int]]:
    answers: dict[int, list[int]] = {}

    def done(i, tokens):
        assert i not in answers  # told once
        answers[i] = list(tokens)

    limits = limits or [LIMIT] * len(prompts)
    continue_prompts(model, prompts, limits, stops, PAD, batch_size, done, noise)
    return [answers[i] for i in range(len(prompts))]


def test_a_row_costs_its_own_steps_and_no_more(model):
    stops, sizes = stops_of(model), []
    expected = [one_by_one(model, prompt, stops) for prompt in PROMPTS]
    assert len(set(map(len, expected))) >= 4  # they do end at different steps
    watch = model.register_forward_pre_hook(
        lambda _, args, named: sizes.append(named["input_ids"].shape), with_kwargs=True
    )
    assert continuations(model, PROMPTS, stops, len(PROMPTS)) == expected
    watch.remove()
    # The first token comes of the pass over the prompts. Eight rows are let go one by one.
    steps = [rows for rows, length in sizes if length == 1]
    assert len(steps) == max(map(len, expected)) - 1 and sum(steps) == sum(len(row) - 1 for row in expected)


MANY = [PROMPTS[i % 8] + [30 + i] * (i % 5) for i in range(24)]
LIMITS = [LIMIT - i % 3 for i in range(24)]


@pytest.fixture(scope="module")
def alone(model):
    stops = stops_of(model)
    return [one_by_one(model, prompt, stops)[:limit] for prompt, limit in zip(MANY, LIMITS, strict=True)]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 16, 40])
def test_a_refilled_batch_gives_the_answers_of_each_prompt_alone(model, alone, batch_size):
    stops, sizes = stops_of(model), []
    watch = model.register_forward_pre_hook(
        lambda _, args, named: sizes.append(named["input_ids"].shape), with_kwargs=True
    )
    assert continuations(model, MANY, stops, batch_size, LIMITS) == alone
    watch.remove()
    steps = [rows for rows, length in sizes if length == 1]
    assert max(steps, default=0) <= batch_size
    if batch_size in (2, 5):
        # Nobody waits for the longest answer of a batch: all but the last few steps are full.
        full = sum(len(row) - 1 for row in alone) / batch_size
        assert len(steps) < full + LIMIT


def test_prompts_that_begin_alike_are_read_once(model):
    """Examples before all, passages with two and three questions, a batch that ends within a passage."""
    stops, read = stops_of(model), []
    examples, passages = list(range(3, 63)), [list(range(100, 140)), list(range(200, 230))]
    prompts = [examples + passages[i % 2] + [40 + i, 41] for i in range(5)] + [[*examples, 9]]
    expected = [one_by_one(model, prompt, stops) for prompt in prompts]
    watch = model.register_forward_pre_hook(
        lambda _, args, named: read.append(int(named["attention_mask"][:, -named["input_ids"].shape[1] :].sum())),
        with_kwargs=True,
    )
    for batch_size in (2, 4, 6):
        read.clear()
        assert continuations(model, prompts, stops, batch_size) == expected
        generated = sum(len(row) - 1 for row in expected)
        # A row that has ended and not left yet is computed as well.
        assert sum(read) - generated <= 60 + 40 + 30 + 5 * 2 + 1 + batch_size * 2
    watch.remove()


def test_a_model_with_another_cache_goes_through_transformers(windowed):
    assert not keeps_all_keys(windowed)
    stops = stops_of(windowed)
    expected = [one_by_one(windowed, prompt, stops) for prompt in PROMPTS]
    assert continuations(windowed, PROMPTS, stops, 3) == expected


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_settings_in_the_checkpoint_stay_out_of_transformers_loop(windowed, tuning):
    from peft import LoraConfig, get_peft_model

    stops = stops_of(windowed)
    expected = [one_by_one(windowed, prompt, stops) for prompt in PROMPTS]
    model = copy.deepcopy(windowed)
    own = GenerationConfig(do_sample=True, temperature=9.0, repetition_penalty=5.0, max_length=9)
    model.generation_config = own
    if tuning == "lora":  # its second matrix is zero: the answers are the model's
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")).eval()
    assert continuations(model, PROMPTS, stops, 3) == expected
    assert model.generation_config is own


@pytest.mark.parametrize("which", ["model", "windowed"])
def test_noise_knows_the_prompt_it_is_for(which, request):
    model = request.getfixturevalue(which)

    def noise(rows, scores):
        assert len(rows) == len(scores) <= 3
        forced = torch.full_like(scores, -1.0)
        # Row r ends with its own token at its step r.
        for row, values in zip(rows, forced, strict=True):
            values[100 + row if counts[row] == row else 3] = 1.0
            counts[row] += 1
        return forced

    counts = [0] * len(PROMPTS)
    found = continuations(model, PROMPTS, range(100, 108), 3, noise=noise)
    assert found == [[3] * row + [100 + row] for row in range(len(PROMPTS))]
