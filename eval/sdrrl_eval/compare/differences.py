"""What differs between the systems of a comparison in how their answers were made, beside the systems themselves."""

import json
from collections.abc import Sequence

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
    "system_prompt": "system prompt",
    "enable_thinking": "thinking",
    "stop": "stop strings",
    "max_samples": "samples",
}
_PARTS = {"prompt": "prompt", "max_new_tokens": "limit of new tokens", "shots": "shots", "cut": "cut prompts"}
_WIDTH = 60


def differences(runs: Sequence[Run]) -> list[str]:
    """A line for each setting in which the runs differ: "template: base none; trained llama3"."""
    lines = []
    for key, name in _DECODING.items():
        lines += _line(name, runs, [_values(run, lambda results, key=key: _decoding(results, key)) for run in runs])
    lines += _line("answers from", runs, [_values(run, _origin) for run in runs])
    for library in dict.fromkeys(name for run in runs for results in run.results for name in _versions(results)):
        found = [_values(run, lambda results, name=library: [_versions(results).get(name)]) for run in runs]
        lines += _line(f"version of {library}", runs, [[v for v in values if v is not None] for values in found])
    return lines + _of_parts(runs)


def _of_parts(runs: Sequence[Run]) -> list[str]:
    """The settings of each task and language; parts that differ alike share a line."""
    alike: dict[tuple, list[str]] = {}
    for part in dict.fromkeys(part for run in runs for part in _parts(run)):
        for key, name in _PARTS.items():
            values = [[entry[key]] if key in (entry := _parts(run).get(part, {})) else [] for run in runs]
            alike.setdefault((name, json.dumps(values)), []).append(part)
    for key in dict.fromkeys(key for run in runs for key in run.scores if key[1] == "bleu"):
        values = [[_tokenizer(run.scores[key])] if key in run.scores else [] for run in runs]
        where = f"{show.task(key[0])} {show.direction(next(run.scores[key] for run in runs if key in run.scores))}"
        alike.setdefault(("BLEU tokenizer", json.dumps(values)), []).append(where)
    return [
        line
        for (name, values), parts in alike.items()
        for line in _line(f"{name} of {', '.join(parts)}", runs, json.loads(values))
    ]


def _line(name: str, runs: Sequence[Run], values: Sequence[list]) -> list[str]:
    """None where all have the same, or where a run does not say."""
    if not all(values) or len({json.dumps(one, sort_keys=True) for one in values}) < 2:
        return []
    return [f"{name}: " + "; ".join(f"{run.name} {_text(one)}" for run, one in zip(runs, values, strict=True))]


def _text(values: list) -> str:
    words = [
        "none" if value is None else json.dumps(value, ensure_ascii=False) if not isinstance(value, int) else str(value)
        for value in values
    ]
    return " or ".join(word if len(word) <= _WIDTH else f'{word[: _WIDTH - 2]}…"' for word in words)


def _values(run: Run, of) -> list:
    """The distinct values in the run's folders."""
    found = [value for results in run.results for value in of(results)]
    return list({json.dumps(value, sort_keys=True): value for value in found}.values())


def _decoding(results: dict, key: str) -> list:
    decoding = results.get("decoding")
    return [decoding[key]] if isinstance(decoding, dict) and key in decoding else []


def _origin(results: dict) -> list:
    decoding = results.get("decoding")
    return [decoding.get("server", "the checkpoint in process")] if isinstance(decoding, dict) else []


def _versions(results: dict) -> dict:
    found = results.get("versions")
    return found if isinstance(found, dict) else {}


def _parts(run: Run) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for results in run.results:
        parts = results.get("parts")
        found |= {k: v for k, v in parts.items() if isinstance(v, dict)} if isinstance(parts, dict) else {}
    return found


def _tokenizer(score: dict) -> str | None:
    return signature_parts(score["signature"]).get("tok")
