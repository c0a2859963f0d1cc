"""A batch that shrinks against one prompt at a time, token by token, without a cache, in float64."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, MistralConfig, MistralForCausalLM

from sdrrl_factory.models.decoding import continuations
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


def test_the_batch_shrinks_and_the_answers_are_those_of_each_prompt_alone(model):
    stops, sizes = stops_of(model), []
    expected = [one_by_one(model, prompt, stops) for prompt in PROMPTS]
    assert len(set(map(len, expected))) >= 4  # they do end at different steps
    watch = model.register_forward_pre_hook(
        lambda _, args, named: sizes.append(len(named["input_ids"])), with_kwargs=True
    )
    assert continuations(model, PROMPTS, LIMIT, stops, PAD) == expected
    watch.remove()
    # Eight rows are let go one by one: each costs its own steps and no more.
    assert len(sizes) == max(map(len, expected)) and sum(sizes) == sum(map(len, expected)) < len(sizes) * sizes[0]


def test_rows_are_let_go_in_eighths(model):
    stops = stops_of(model)
    many = PROMPTS * 3
    expected = [one_by_one(model, prompt, stops) for prompt in PROMPTS] * 3
    assert continuations(model, many, LIMIT, stops, PAD) == expected


def test_a_model_with_another_cache_goes_through_transformers(windowed):
    assert not keeps_all_keys(windowed)
    stops = stops_of(windowed)
    expected = [one_by_one(windowed, prompt, stops) for prompt in PROMPTS]
    assert continuations(windowed, PROMPTS, LIMIT, stops, PAD) == expected


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
    assert continuations(model, PROMPTS, LIMIT, stops, PAD) == expected
    assert model.generation_config is own


@pytest.mark.parametrize("which", ["model", "windowed"])
def test_noise_knows_the_prompt_it_is_for(which, request):
    model = request.getfixturevalue(which)

    def noise(rows, scores):
        assert len(rows) == len(scores)
        forced = torch.full_like(scores, -1.0)
        # Row r ends with its own token at its step r.
        for row, values in zip(rows, forced, strict=True):
            values[100 + row if counts[row] == row else 3] = 1.0
            counts[row] += 1
        return forced

    counts = [0] * len(PROMPTS)
    found = continuations(model, PROMPTS, LIMIT, range(100, 108), PAD, noise)
    assert found == [[3] * row + [100 + row] for row in range(len(PROMPTS))]
