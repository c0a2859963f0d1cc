"""What a model writes around its answer, and what is left of it."""

from pathlib import Path

import pytest

from sdrrl_factory.memory import Memory
from sdrrl_factory.models.lm import LM, Generation
from sdrrl_factory.models.remembered import RememberedModel
from sdrrl_factory.models.scaffolding import THOUGHTS, has_thought, opened_thought, without_scaffolding


def test_the_words_of_all_templates_of_llamafactory_are_known():
    template = pytest.importorskip("llamafactory.data.template")
    words = {tuple(word.strip() for word in t.thought_words) for t in template.TEMPLATES.values()}
    assert words <= set(THOUGHTS) and len(words) >= 3


@pytest.mark.parametrize(("opening", "closing"), THOUGHTS)
def test_a_thought_goes_whole_and_one_that_never_ends_is_cut_off(opening, closing):
    def left(text, finish="stop"):
        answer = without_scaffolding(Generation(text, finish))
        return answer.text, answer.finish

    assert left(f"{opening}\nHm.\n\nWell.\n{closing}\n\nHola.\n\nAdiós.") == ("Hola.\n\nAdiós.", "stop")
    assert left(f"{opening}{closing}Hola.") == ("Hola.", "stop")
    # The prompt has opened it.
    assert left(f"Hm.\n{closing}\n\nHola.") == ("Hola.", "stop")
    assert left(f"{opening}a{closing}\n{opening}b{closing}\nHola.", "length") == ("Hola.", "length")
    assert left(f"{opening}Hm. Hola.") == ("", "length")
    assert left(f"{opening}a{closing}\nHola.\n{opening}b") == ("Hola.", "length")
    for text in (f"{opening}Hm.{closing}Hola.", f"{opening}Hm."):
        once = without_scaffolding(Generation(text, "stop"))
        assert without_scaffolding(once) == once
    assert has_thought(f"a {closing} b") and opened_thought(f"<|im_start|>assistant\n{opening}\n") == opening


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Hola.<|im_end|>", "Hola."),
        ("Hola.<|im_end|>\n<|im_start|>user\nAnd now?<|im_end|>", "Hola."),
        ("Hola.</s>", "Hola."),
        ("Hola.<｜end▁of▁sentence｜>", "Hola."),
        ("Hola.<end_of_turn>\n<eos>", "Hola."),
        ("<|im_start|>assistant\nHola.", "Hola."),
        ("<|channel|>final<|message|>Hola.<|return|>", "Hola."),
        ("<think>Hm.</think>\n<answer>Hola.</answer>", "Hola."),
    ],
)
def test_control_tokens_go(text, left):
    assert without_scaffolding(Generation(text, "stop")) == Generation(left, "stop")


@pytest.mark.parametrize(
    "text",
    [
        "Hola.",
        "  Hola.\n",
        "It writes <think> and </think> around them.",
        "The token <|im_end|> ends a turn.",
        "<s>struck out</s>",
        "a < b [c]",
        "<answer>x</answer>",
        "I think </b> ends it.",
    ],
)
def test_what_is_no_scaffolding_stays_to_the_byte(text):
    assert without_scaffolding(Generation(text, "length")) == Generation(text, "length")


def test_a_failure_stays_a_failure():
    assert without_scaffolding(Generation("", "error: 400: <think>")) == Generation("", "error: 400: <think>")


@pytest.fixture
def thinking(tiny):
    """A model with a chat template that begins a thought unless it is told not to, and what it continues with."""
    lm = LM(str(tiny), enable_thinking=None)
    lm.tokenizer.chat_template = (
        "{{ messages[-1]['content'] }}{% if enable_thinking is defined and not enable_thinking %}"
        "<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{{ word }}"
    )
    return lm


def test_a_thought_that_the_prompt_begins_and_nothing_ends_is_cut_off(thinking, tmp_path, monkeypatch):
    from sdrrl_factory.models import decoding

    replies = {True: "Hm.\n</think>\n\nHola.", False: "Hm. Hola."}

    def continue_prompts(model, prompts, limits, stops, pad, batch_size, done, *rest):
        for i, prompt in enumerate(prompts):
            reply = replies["closed" in thinking.tokenizer.decode(prompt)]
            done(i, [*thinking.tokenizer(reply)["input_ids"], stops[0]])

    monkeypatch.setattr(decoding, "continue_prompts", continue_prompts)
    model = RememberedModel(Memory(tmp_path / "memory.sqlite"), str(tmp_path), load=lambda: thinking)
    expected = [Generation("Hola.", "stop"), Generation("", "length")]
    assert model.generate(["closed", "open"], 30, 2) == expected
    # The memory has what the model wrote; the answers come from it the same way.
    again = RememberedModel(Memory(tmp_path / "memory.sqlite"), str(tmp_path), load=lambda: pytest.fail("asked again"))
    assert again.generate(["closed", "open"], 30, 2) == expected
    raw = thinking.generate(["closed", "open"], 30, 2)
    assert [answer.text for answer in raw] == ["<think>Hm.\n</think>\n\nHola.", "<think>Hm. Hola."]


def test_keys_of_the_chat_template_reach_it(thinking):
    def prompt(**keys):
        thinking.prompt_format._chat_template_kwargs = keys
        return thinking.tokenizer.decode(thinking.encode("Hi"))

    assert prompt().endswith("<think>\n") and prompt(word="x").endswith("<think>\nx")
    assert prompt(enable_thinking=False).endswith("</think>\n\n")


def test_a_template_of_llamafactory_thinks_or_not_each_model_for_itself(tiny):
    pytest.importorskip("llamafactory")

    def prompt(lm):
        return lm.tokenizer.decode(lm.encode("Hi"))

    quick, slow = (LM(str(tiny), template="qwen3", enable_thinking=thinks) for thinks in (False, None))
    assert prompt(quick).endswith("<think>\n\n</think>\n\n") and not prompt(slow).endswith("</think>\n\n")
    assert slow.tokenizer.convert_tokens_to_ids("<|im_end|>") in slow.stops


def test_what_shapes_the_answers_is_part_of_what_they_are_kept_under(tmp_path):
    memory = Memory(Path(":memory:"))
    identities = [
        RememberedModel(memory, str(tmp_path), settings=settings).identity
        for settings in ({}, {"enable_thinking": False}, {"chat_template_kwargs": {"a": 1}})
    ]
    assert len({str(identity) for identity in identities}) == 3 and "enable_thinking" not in identities[0]
