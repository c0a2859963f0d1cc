"""Rules that reject a bad translation (section 4.1, after the filters of WMT news systems) or a degenerate text."""

import re
from collections import Counter

from sdrrl_factory.language_id import off_target
from sdrrl_factory.transfer.generate import question
from sdrrl_factory.transfer.recipe import Filters
from sdrrl_factory.transfer.store import Batch

_NUMBER = re.compile(r"\d+")
_MARKUP = re.compile(r"</?[A-Za-z][^<>]*>|```|\{[^{}\s]*\}|%\(?\w*\)?[sd]")


def looping(text: str) -> bool:
    """Whether some run of four words stands four times or more: a generation that got stuck."""
    words = text.split()
    grams = Counter(tuple(words[i : i + 4]) for i in range(len(words) - 3))
    return any(n >= 4 for n in grams.values())


def pair_flaw(source: str, target: str, config: Filters) -> str:
    """The first rule the pair breaks, or "". Lengths are in characters; a copy is a copy only if it is long."""
    if not target.strip():
        return "empty"
    ratio = max(len(source), 1) / max(len(target), 1)
    if max(ratio, 1 / ratio) > config.max_length_ratio and abs(len(source) - len(target)) > 20:
        return "length ratio"
    if max(map(len, target.split())) > config.max_word_chars > 0 and "://" not in target:
        return "long word"
    if source.strip() == target.strip() and len(source.split()) >= 5:
        return "copy of the source"
    if looping(target) and not looping(source):
        return "repetition"
    if Counter(_NUMBER.findall(source)) != Counter(_NUMBER.findall(target)):
        return "lost number"
    if Counter(_MARKUP.findall(source)) != Counter(_MARKUP.findall(target)):
        return "lost markup"
    return ""


def filter_batch(batch: Batch, config: Filters, threshold: float | None, iso1: str | None) -> Batch:
    """+ question_ok, answer_ok; the reason of each rejection is added to `reasons`.

    threshold: tau on question_qe and answer_qe (None: no quality estimate). iso1: the target language (None: no
    language identification).
    """
    rows = len(batch["id"])
    out = {**batch, "reasons": [list(r) for r in batch["reasons"]]}
    sides = {
        "question": (
            [question(batch["instruction"][i], batch["input"][i]) for i in range(rows)],
            [_joined(batch["instruction_mt"][i], batch["input_mt"][i]) for i in range(rows)],
        ),
        "answer": (batch["answer"], batch["answer_mt"]),
    }
    for side, (sources, targets) in sides.items():
        ok = []
        for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
            if target is None:
                why = "not translated"
            else:
                why = pair_flaw(source, target, config)
                if not why and threshold is not None and batch[f"{side}_qe"][i] < threshold:
                    why = "low quality"
                if not why and iso1 and off_target(target, iso1):
                    why = "off-target"
            ok.append(not why)
            if why:
                out["reasons"][i].append(f"{side}: {why}")
        out[f"{side}_ok"] = ok
    return out


def _joined(instruction: str | None, given: str | None) -> str | None:
    return None if instruction is None or given is None else question(instruction, given)
