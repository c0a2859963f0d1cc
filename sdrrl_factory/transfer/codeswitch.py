"""Code-switching the question of each of the four sets (equation 5); answers are never touched."""

from random import Random

from sdrrl_factory.text import replace_words
from sdrrl_factory.transfer.dictionaries import Dictionary
from sdrrl_factory.transfer.draw import rng
from sdrrl_factory.transfer.store import Batch

# Subset -> (the question's columns, whether they are in the source language).
QUESTIONS = {
    "LL": ("instruction", "input", True),
    "TL": ("instruction_mt", "input_mt", False),
    "LT": ("instruction", "input", True),
    "TT": ("instruction_mt", "input_mt", False),
}


def switch(text: str, dictionary: Dictionary, probability: float, random: Random) -> tuple[str, int, int, int]:
    """Replace each word `dictionary` knows with probability p, by one of its translations, keeping case.

    Returns (text, words, words known, words switched).
    """
    counts = [0, 0, 0]

    def replace(word: str) -> str:
        counts[0] += 1
        choices = dictionary.get(word.lower())
        if not choices:
            return word
        counts[1] += 1
        if random.random() >= probability:
            return word
        counts[2] += 1
        return _cased(random.choice(choices), word)

    return replace_words(text, replace), *counts


def _cased(word: str, like: str) -> str:
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


def switch_batch(batch: Batch, forward: Dictionary, backward: Dictionary, probability: float, seed: int) -> Batch:
    """+ instruction_ll_cs, input_ll_cs, ... for the four sets, and switch_counts [words, known, switched].

    Source-language questions get target words, translated questions source words; each set draws for itself.
    """
    out = {**batch, "switch_counts": []}
    for subset in QUESTIONS:
        out[f"instruction_{subset.lower()}_cs"] = []
        out[f"input_{subset.lower()}_cs"] = []
    for i, rid in enumerate(batch["id"]):
        total = [0, 0, 0]
        for subset, (instruction, given, is_source) in QUESTIONS.items():
            random = rng(seed, rid, f"switch {subset}")
            for column, name in ((instruction, "instruction"), (given, "input")):
                text = batch[column][i]
                counts = (0, 0, 0)
                if text is not None:
                    text, *counts = switch(text, forward if is_source else backward, probability, random)
                out[f"{name}_{subset.lower()}_cs"].append(text)
                total = [a + b for a, b in zip(total, counts, strict=True)]
        out["switch_counts"].append(total)
    return out
