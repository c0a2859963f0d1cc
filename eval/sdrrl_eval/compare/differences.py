"""What differs between the systems of a comparison in how their answers were made, beside the systems themselves."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sdrrl_eval import show
from sdrrl_eval.compare.rescoring import signature_parts
from sdrrl_eval.compare.runs import Run

# Keys of results.json, "decoding" and each of "parts", that shape an answer, and what they are called. Batch size,
# device and seed are left out: they are the machine's, or of the intervals.
_DECODING = {
    "strategy": "decoding",
    "template": "template",
    "format": "prompt format",
    "precision": "precision",
    "enable_thinking": "thinking",
    "max_samples": "samples",
    "draw": "draw of the samples",
}
_PARTS = {
    "prompt": "prompt",
    "max_new_tokens": "limit of new tokens",
    "shots": "shots",
    "system_prompt": "system prompt",
    "stop": "stop strings",
}
# Keys that are only there where they are set: without them it is none.
_IF_SET = ("enable_thinking", "shots", "system_prompt", "stop")
_WIDTH = 60


def differences(runs: Sequence[Run]) -> list[str]:
    """A line for each setting in which the runs differ: "template: base none; trained llama3"."""
    # 1. How the answers were decoded. A system of several folders may have several values.
    decodings = [_dicts(run, "decoding") for run in runs]
    lines = []
    for key, name in _DECODING.items():
        values = [_distinct(d.get(key) for d in found if key in d or key in _IF_SET) for found in decodings]
        lines += _line(name, runs, values)
    origins = [_distinct(d.get("server", "the checkpoint in process") for d in found) for found in decodings]
    lines += _line("answers from", runs, origins)

    # 2. With which libraries.
    versions = [_dicts(run, "versions") for run in runs]
    for library in dict.fromkeys(name for found in versions for one in found for name in one):
        values = [_distinct(one[library] for one in found if one.get(library) is not None) for found in versions]
        lines += _line(f"version of {library}", runs, values)

    # 3. Of each task and language; those that differ alike share a line.
    alike: dict[tuple[str, str], list[str]] = {}
    for name, part, values in [*_of_parts(runs), *_tokenizers(runs)]:
        alike.setdefault((name, json.dumps(values)), []).append(part)
    for (name, written), parts in alike.items():
        lines += _line(f"{name} of {', '.join(parts)}", runs, json.loads(written))
    return lines


def _dicts(run: Run, key: str) -> list[dict]:
    """What each folder's results.json has there; a file of an older version has nothing."""
    return [results[key] for results in run.results if isinstance(results.get(key), dict)]


def _of_parts(runs: Sequence[Run]) -> list[tuple[str, str, list[list]]]:
    """(setting, part of the evaluation, the values in each run) of the settings of a task in a language."""
    parts_of = [
        {part: about for found in _dicts(run, "parts") for part, about in found.items() if isinstance(about, dict)}
        for run in runs
    ]
    settings = []
    for part in dict.fromkeys(part for parts in parts_of for part in parts):
        abouts = [parts.get(part, {}) for parts in parts_of]
        for key, name in _PARTS.items():
            is_said = [key in about or (key in _IF_SET and bool(about)) for about in abouts]
            values = [[about.get(key)] if said else [] for about, said in zip(abouts, is_said, strict=True)]
            settings.append((name, part, values))
    return settings


def _tokenizers(runs: Sequence[Run]) -> list[tuple[str, str, list[list]]]:
    """The same of BLEU's tokenizer, which stands in a score's signature."""
    settings = []
    for key in dict.fromkeys(key for run in runs for key in run.scores if key[1] == "bleu"):
        scores = [run.scores.get(key) for run in runs]
        part = f"{show.task(key[0])} {next(show.direction(score) for score in scores if score)}"
        tokenizers = [[signature_parts(score["signature"]).get("tok")] if score else [] for score in scores]
        settings.append(("BLEU tokenizer", part, tokenizers))
    return settings


def _line(name: str, runs: Sequence[Run], values: Sequence[list]) -> list[str]:
    """One line, or none where all have the same, or where a run does not say."""
    if not all(values) or len({json.dumps(one, sort_keys=True) for one in values}) < 2:
        return []
    return [f"{name}: " + "; ".join(f"{run.name} {_text(one)}" for run, one in zip(runs, values, strict=True))]


def _text(values: list) -> str:
    words = []
    for value in values:
        word = "none" if value is None else json.dumps(value, ensure_ascii=False)
        words.append(word if len(word) <= _WIDTH else f'{word[: _WIDTH - 2]}…"')
    return " or ".join(words)


def _distinct(values: Iterable[Any]) -> list:
    """Each value once; lists and dicts are values too."""
    return list({json.dumps(value, sort_keys=True): value for value in values}.values())
