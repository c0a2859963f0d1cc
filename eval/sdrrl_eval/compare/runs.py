"""Finished evaluations as `sdrrl compare` reads them."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

from sdrrl_eval import show
from sdrrl_eval.measure.overlap import DROPPED
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import read_text
from sdrrl_factory.rows import read_rows

ENGLISH = "eng"
# What every entry of results.json must have, beside its value and its interval.
_SCORE_TYPES = {"task": str, "metric": str, "target_lang": str, "n": int, "signature": str}

# Which score: (task, metric, source_lang, target_lang, taught). `taught` is None but for what a system of several
# folders scores in English alone: there it is the language that folder's checkpoint was taught.
Key = tuple[str, str, str | None, str, str | None]


@dataclass(frozen=True)
class Run:
    """A system: one evaluation folder or, of one checkpoint a language as in the paper, several.

    scores: the entries of results.json, each with its "folder" added.
    results: what each folder's results.json holds.
    """

    name: str
    folders: list[Path]
    model: str
    scores: dict[Key, dict]
    results: list[dict] = field(default_factory=list)

    def score(self, key: Key) -> dict | None:
        """A system of one folder says one thing of English, whatever was taught, as SFT in the paper's tables."""
        return self.scores.get(key) or self.scores.get((*key[:4], None))


def read_runs(texts: Sequence[str]) -> list[Run]:
    """The systems as they are named on the command line; where names clash, they are called what was typed."""
    systems = [read_run(text) for text in texts]
    if len({run.name for run in systems}) == len(systems):
        return systems
    return [replace(run, name=text) for run, text in zip(systems, texts, strict=True)]


def read_run(text: str) -> Run:
    """A system: FOLDER, or NAME=FOLDER, or NAME=FOLDER,FOLDER,... Raises UserError where a folder has no results."""
    name, folders = "", text
    # A folder's own name may hold "=" and ",".
    if not Path(text).exists() and "=" in text:
        name, folders = text.split("=", 1)
    paths = [Path(folder) for folder in ([folders] if Path(folders).exists() else folders.split(","))]
    results = [_read_results(path) for path in paths]
    scores: dict[Key, dict] = {}
    for path, result in zip(paths, results, strict=True):
        languages = {score["target_lang"] for score in result["scores"]} - {ENGLISH}
        for score in result["scores"]:
            if DROPPED in score["signature"]:  # beside the score of all items, which is the one to compare
                continue
            taught = None
            if len(paths) > 1 and len(languages) == 1 and score["target_lang"] == ENGLISH and not score["source_lang"]:
                (taught,) = languages
            key = (score["task"], score["metric"], score["source_lang"], score["target_lang"], taught)
            if key in scores and scores[key]["folder"] != path:
                what = f"{show.label(score['task'], score['metric'])} {show.direction(score)}"
                raise UserError(
                    f"{what} stands in {scores[key]['folder']} too", "one folder a language in a system", at=str(path)
                )
            scores[key] = score | {"folder": path}
    models = ", ".join(dict.fromkeys(str(result.get("model")) for result in results))
    return Run(name or paths[0].resolve().name, paths, models, scores, results)


def _read_results(folder: Path) -> dict:
    path = folder / "results.json"
    if not path.is_file():
        raise UserError("no such file", f"write it with `sdrrl eval RECIPE output_dir={folder}`", at=str(path))
    fix = f"write it anew with `sdrrl eval RECIPE output_dir={folder}`"
    try:
        results = json.loads(read_text(path))
    except ValueError as err:
        raise UserError(f"not JSON ({err})", fix, at=str(path)) from None
    if not isinstance(results, dict) or not isinstance(results.get("scores"), list):
        raise UserError("no list of scores", fix, at=str(path))
    for i, score in enumerate(results["scores"]):
        wrong = _wrong_key(score)
        if wrong:
            raise UserError(f"scores[{i}]: {wrong} is missing or malformed", fix, at=str(path))
    return results


def _wrong_key(score: Any) -> str:
    """The first key that a score lacks or that is of another type; "" where all are right."""
    if not isinstance(score, dict):
        return "the entry"
    for key, type_ in _SCORE_TYPES.items():
        if not isinstance(score.get(key), type_):
            return key
    # None is a value here: the score of a single language. 0 stands for a key that is not there.
    if not isinstance(score.get("source_lang", 0), str | None):
        return "source_lang"
    if not is_number(score.get("value")):
        return "value"
    ci95 = score.get("ci95")
    if not (isinstance(ci95, list) and len(ci95) == 2 and all(map(is_number, ci95))):
        return "ci95"
    return ""


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def stem(score: dict) -> str:
    """The file in predictions/ that a score comes from."""
    source, target = score["source_lang"], score["target_lang"]
    return f"{score['task']}.{source}-{target}" if source else f"{score['task']}.{target}"


@lru_cache(maxsize=1024)
def predictions(folder: Path, name: str) -> dict[tuple[str, str], dict]:
    """Rows by their item: its id and what makes it the same in every run; none where the file was not kept.

    That is its reference, as the prompt around it may differ, or the prompt of an item without a reference.
    """
    path = folder / "predictions" / f"{name}.jsonl"
    if not path.is_file():
        return {}
    rows = [row.values for row in read_rows(path)]
    return {(str(row.get("id")), str(row.get("reference") or row.get("prompt"))): row for row in rows}
