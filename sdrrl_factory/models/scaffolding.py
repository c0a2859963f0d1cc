"""What a model writes around its answer: thoughts before it, control tokens behind it. Here both are taken off.

The generator, the chat translator and the evaluator get their answers through `without_scaffolding`, in process and
from a server alike: a thought is no training answer, no translation, and no letter.
"""

import re

from sdrrl_factory.models.lm import Generation

# What opens and closes a thought: the words of LLaMA-Factory's templates (a test holds them all to be here), then those
# of Magistral, Command A, OpenThinker and others.
THOUGHTS = (
    ("<think>", "</think>"),
    ("<|channel>thought", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("◁think▷", "◁/think▷"),
    ("<seed:think>", "</seed:think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
)
# Around the answer of some models that have thought.
_FRAMES = (
    ("<answer>", "</answer>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
)
_START = re.compile(
    r"\s*(<\|im_start\|>assistant\n|<\|start_header_id\|>assistant<\|end_header_id\|>\n|<start_of_turn>model\n"
    r"|(<\|start\|>assistant)?<\|channel\|>final<\|message\|>)"
)
# Tokens that end a turn, and the next turn behind them where a server went on.
_END = re.compile(
    r"(\s*(<\|(im_end|eot_id|eom_id|end|return|endoftext|end_of_text|end_of_turn|EOT|END_OF_TURN_TOKEN)\|>"
    r"|<(end_of_turn|eos)>|<｜end▁of▁sentence｜>|</s>))+"
    r"\s*((<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|<\|start\|>|<\|user\|>|<\|assistant\|>|<｜User｜>).*)?$",
    re.DOTALL,
)


def without_scaffolding(generation: Generation) -> Generation:
    """The answer alone; one whose thought never ended is cut off (finish "length"), with what stands before it."""
    # Nearly all answers have none of it.
    if generation.finish.startswith("error: ") or not re.search(r"[<\[◁]", generation.text):
        return generation
    text, is_cut = generation.text, False
    for opening, closing in THOUGHTS:
        text, has_open_thought = _without_thoughts(text, opening, closing)
        is_cut |= has_open_thought
    if text != generation.text:
        for opening, closing in _FRAMES:
            if text.startswith(opening):
                text = text.removeprefix(opening).split(closing)[0]
    if start := _START.match(text):
        text = text[start.end() :]
    end = _END.search(text)
    # </s> also ends what is struck out in HTML.
    if end and not ("</s>" in end[0] and "<s>" in text):
        text = text[: end.start()]
    if text == generation.text and not is_cut:
        return generation
    finish = "length" if is_cut and generation.finish == "stop" else generation.finish
    return Generation(text.strip(), finish)


def has_thought(text: str) -> bool:
    """Whether there is a word of `THOUGHTS` in it."""
    return any(word in text for words in THOUGHTS for word in words)


def opened_thought(prompt: str) -> str:
    """The word that a prompt ends with which opens a thought: what is generated then begins inside; "" otherwise."""
    return next((opening for opening, _ in THOUGHTS if prompt.rstrip().endswith(opening)), "")


def _without_thoughts(text: str, opening: str, closing: str) -> tuple[str, bool]:
    """(the text without them, whether one never ended)."""
    if opening not in text and closing not in text:
        return text, False
    # 1. The prompt opened the thought, so only its end is in the text.
    begin, end = text.find(opening), text.find(closing)
    if 0 <= end < begin or begin < 0:
        text = text[end + len(closing) :]
    # 2. Whole ones, each at the beginning of a line: a word within a sentence is spoken of, not used.
    begin_of_thought = r"(?:^|(?<=\n))[ \t]*" + re.escape(opening)
    text = re.sub(rf"{begin_of_thought}.*?{re.escape(closing)}\s*", "", text.lstrip(), flags=re.DOTALL)
    # 3. One that never ended: nothing behind it is the answer.
    unclosed = re.search(begin_of_thought, text)
    return (text[: unclosed.start()] if unclosed else text).strip(), unclosed is not None
