import math
from collections import Counter

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.models.lm import LM

USERS = ["Hola.", "¿Qué hora es en Madrid?", "x" * 60, "Uno dos tres", "Hola.", "Hola."]
SEEDS = [11, 12, 13, 14, 15, 15]


@pytest.fixture(scope="module")
def lm(tiny):
    return LM(str(tiny), template="smollm2")


@pytest.fixture
def own(tiny):
    """A model of the test's own, to spoil."""
    return LM(str(tiny))


def test_a_system_prompt_goes_through_both_formats(tiny, lm):
    def text(model, *prompt):
        return model.tokenizer.decode(model.encode(*prompt))

    turns = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    by_chat = LM(str(tiny))
    assert text(lm, "Hi", "Be brief.") == text(by_chat, "Hi", "Be brief.") == turns
    # None given: LLaMA-Factory's template has its own, as in training; the chat template of the checkpoint has none.
    assert "You are a helpful AI assistant" in text(lm, "Hi")
    assert text(by_chat, "Hi") == turns[turns.index("<|im_start|>user") :]
    assert lm.encode("Hi", "") == lm.encode("Hi")


def test_each_prompt_has_its_system_prompt(lm):
    both = lm.generate(["Hola.", "Hola."], 8, 2, systems=["Uno.", "Dos."])
    assert both == [lm.generate(["Hola."], 8, 1, systems=[s])[0] for s in ("Uno.", "Dos.")]
    assert both[0] != both[1]


def test_a_chat_template_that_takes_no_system_prompt(own):
    own.tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(UserError, match="^model: the chat template of .* fails .System role not supported.; set"):
        own.encode("Hi", "Be brief.")


def test_greedy_answers_are_the_argmax_of_the_plain_model(tiny, lm):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny).double()
    for user, answer in zip(USERS, lm.generate(USERS, 6, 4), strict=True):
        ids = lm.encode(user)
        start = len(ids)
        for _ in range(6):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == 2:
                break
        ended = ids[-1] == 2
        text = lm.tokenizer.decode(ids[start : len(ids) - ended], skip_special_tokens=True).strip()
        assert (answer.text, answer.finish) == (text, "stop" if ended else "length")


def test_settings_in_the_checkpoint_do_not_sample_or_penalise(tiny, lm, tmp_path):
    lm.tokenizer.save_pretrained(tmp_path)
    lm.model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(
        '{"do_sample": true, "temperature": 5.0, "repetition_penalty": 3.0, "eos_token_id": 2,'
        ' "transformers_version": "4.57.0"}'
    )
    other = LM(str(tmp_path), template="smollm2")
    assert other.model.generation_config.do_sample
    assert other.generate(USERS, 8, 3) == lm.generate(USERS, 8, 3)


def test_a_draw_does_not_depend_on_the_batch(lm):
    first = lm.generate(USERS, 12, 6, temperature=1.0, seeds=SEEDS)
    for size in (1, 2, 4):
        assert lm.generate(USERS, 12, size, temperature=1.0, seeds=SEEDS) == first
    order = [3, 5, 0, 4, 1, 2]
    again = lm.generate([USERS[i] for i in order], 12, 4, temperature=1.0, seeds=[SEEDS[i] for i in order])
    assert again == [first[i] for i in order]
    assert first[4] == first[5] != first[0]  # one prompt: the same seed, another seed
    assert first != lm.generate(USERS, 12, 6)


def test_draws_follow_the_softmax_at_the_temperature(lm):
    """The first token of 2,000 draws against the probabilities of one plain forward pass, by chi-square."""
    import torch

    n, temperature = 2000, 0.7
    with torch.no_grad():
        logits = lm.model(torch.tensor([lm.encode("Hola.")])).logits[0, -1].double()
    expected = Counter()
    for token, p in enumerate((logits / temperature).softmax(-1).tolist()):
        end = token in lm.stops
        text = "" if end else lm.tokenizer.decode([token], skip_special_tokens=True).strip()
        expected[text, "stop" if end else "length"] += n * p
    draws = lm.generate(["Hola."] * n, 1, 500, temperature=temperature, seeds=range(n))
    seen = Counter((d.text, d.finish) for d in draws)
    assert set(seen) <= set(expected)
    frequent = [k for k, e in expected.items() if e >= 10]
    rest = (n - sum(seen[k] for k in frequent), n - sum(expected[k] for k in frequent))
    cells = [(seen[k], expected[k]) for k in frequent] + [rest]
    chi2, freedom = sum((o - e) ** 2 / e for o, e in cells), len(cells) - 1
    assert freedom >= 20
    assert abs(chi2 - freedom) < 4 * math.sqrt(2 * freedom)


def fails_once(own, error):
    """`own` runs out of memory after three answers; the sizes of all batches come back."""
    sizes, go_on = [], own._continue

    def spoilt(heads, limits, batch_size, done, *rest):
        sizes.append(batch_size)
        if len(sizes) > 1:
            return go_on(heads, limits, batch_size, done, *rest)
        go_on(heads[:3], limits[:3], batch_size, done, *rest)
        raise error

    own._continue = spoilt
    return sizes


def errors():
    import torch

    cpu = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
    return [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(cpu), MemoryError()]


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_out_of_memory_halves_the_batch_for_good(own, lm, capsys, kind):
    expected = own.generate(USERS, 5, 6)
    sizes, done = fails_once(own, errors()[kind]), []
    assert own.generate(USERS, 5, 6, progress=done.append) == expected
    assert own.generate(USERS, 5, 6) == expected
    assert sizes == [6, 3, 3] and done == [1] * 6  # none twice
    assert capsys.readouterr().out == "out of memory: batch_size is now 3\n"


def test_losses_halve_the_batch_too(own, capsys):
    pairs = [(user, user[::-1]) for user in USERS]
    expected = own.answer_loss(pairs, 6), own.text_loss(USERS, 6)
    sizes, forward = [], own.model.forward

    def small(input_ids, **inputs):
        sizes.append(len(input_ids))
        if len(input_ids) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")
        return forward(input_ids=input_ids, **inputs)

    own.model.forward = small
    for losses, whole in zip((own.answer_loss(pairs, 6), own.text_loss(USERS, 6)), expected, strict=True):
        assert [n for _, n in losses] == [n for _, n in whole]
        assert [x for x, _ in losses] == pytest.approx([x for x, _ in whole], rel=1e-5)
    assert max(sizes) == 6 and sizes[-1] == 1 and capsys.readouterr().out.count("out of memory") == 2


def test_out_of_memory_with_one_prompt_is_one_line(own):
    fails_once(own, errors()[0])
    own._largest = 1
    with pytest.raises(UserError, match="^model: out of memory with one prompt; use a smaller model"):
        own.generate(USERS, 5, 8)


def test_another_error_is_not_taken_for_lack_of_memory(own):
    fails_once(own, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        own.generate(USERS, 5, 6)


@pytest.mark.parametrize(("saved", "loaded"), [("float16", "float32"), ("bfloat16", "bfloat16")])
def test_the_precision_on_a_cpu(tiny, lm, tmp_path, saved, loaded):
    import torch
    from transformers import AutoModelForCausalLM

    if torch.cuda.is_available():
        pytest.skip("a GPU is there: every precision is kept")
    AutoModelForCausalLM.from_pretrained(tiny, dtype=getattr(torch, saved)).save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    assert LM(str(tmp_path)).model.dtype == getattr(torch, loaded)


def test_bfloat16_where_the_cpu_multiplies_in_it(tiny, lm, tmp_path, monkeypatch):
    import torch

    from sdrrl_factory.models import lm as module

    if torch.cuda.is_available():
        pytest.skip("a GPU is there: auto is the checkpoint's own precision")
    for flags, expected in [("sse avx512_bf16 amx_tile", "bfloat16"), ("fp asimd bf16", "bfloat16"), ("avx512f", None)]:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags} fma\n")
        monkeypatch.setattr(module, "CPUINFO", tmp_path / "cpuinfo")
        assert module.computed_in("auto") == expected
    assert module.computed_in(None) is None and module.computed_in("float32") == "float32"
    half = LM(str(tiny), template="smollm2", precision="bfloat16")
    assert half.model.dtype == torch.bfloat16 and len(half.generate(USERS, 4, 3)) == len(USERS)
    # Within its precision the losses are the same.
    for (a, n), (b, m) in zip(half.text_loss(USERS, 4), lm.text_loss(USERS, 4), strict=True):
        assert n == m and a == pytest.approx(b, rel=0.05)
