"""Strings that end an answer and are no part of it: where a model would go on with a question of its own."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sdrrl_factory.models.lm import Generation
from sdrrl_factory.models.scaffolding import has_thought

# More tokens than the bytes of a stop string are looked at: a tokenizer may take off a blank at the beginning.
_MARGIN = 4


def cut(generation: Generation, stop: Sequence[str]) -> Generation:
    """The answer up to the first of the stop strings; one that has none is as it was."""
    end = end_of_answer(generation.text, stop)
    if end is None or generation.finish.startswith("error: "):
        return generation
    return replace(generation, text=generation.text[:end].strip(), finish="stop", tokens=())


def end_of_answer(text: str, stop: Sequence[str]) -> int | None:
    """Where the first stop string begins; white space before the answer is no end of it."""
    begin = len(text) - len(text.lstrip())
    ends = [end for end in (text.find(string, begin) for string in stop) if end >= 0]
    return min(ends, default=None)


def stopper(tokenizer: Any, stop: Sequence[str]) -> Callable[[Sequence[int]], bool]:
    """Tells of an answer's tokens, at each one, whether they have come to a stop string. One that thinks goes on."""
    width = max(len(string.encode()) for string in stop) + _MARGIN

    def is_over(tokens: Sequence[int]) -> bool:
        # The last few tokens tell nearly always that it goes on.
        tail = tokenizer.decode(tokens[-width:])
        if not any(string in tail for string in stop):
            return False
        text = tokenizer.decode(tokens)
        return not has_thought(text) and end_of_answer(text, stop) is not None

    return is_over
