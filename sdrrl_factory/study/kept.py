"""What is kept of a finished training: a folder small enough for git, from which the tables are made.

results.json    as `sdrrl eval` wrote it
recipe.yaml     the keys of all recipes that made it
items.json.gz   of each score the numbers of each item that it is computed from: what tests and intervals need,
                without a benchmark's texts
training.json   the losses of its training as they were logged, its steps, its seconds
"""

import gzip
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrrl_eval.compare.rescoring import signature_parts, statistics
from sdrrl_eval.compare.runs import predictions, read_run, stem
from sdrrl_eval.resampling import Statistics
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import atomic_write, read_text
from sdrrl_factory.study.plan import Measured, Plan
from sdrrl_factory.study.recipe import StudyConfig

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")


def is_kept(folder: Path, record: dict[str, Any]) -> bool:
    """Whether the folder holds the results of just these recipes."""
    import yaml

    path = folder / "recipe.yaml"
    return (folder / "results.json").is_file() and path.is_file() and yaml.safe_load(read_text(path)) == record


def keep(config: StudyConfig, plan: Plan, training: str) -> list[Path]:
    """Keep the results of all evaluations of a training, then take its weights away; returns the folders written.

    Raises: UserError where the study has no such training.
    """
    evaluated = [one for one in plan.measured.values() if training in (one.id, one.training)]
    if not evaluated:
        raise UserError(
            f"--keep {training}: the study trains nothing of that name", "see `sdrrl study RECIPE --commands`"
        )
    log = _training_log(config.folder, training)
    written = []
    for one in evaluated:
        source, target = config.folder / one.id / "eval", config.kept_folder / one.id
        if (source / "results.json").is_file():
            _write(target, source, one, log)
            written.append(target)
    if not config.keep_models:
        folder = config.folder / training
        shutil.rmtree(folder / "export", ignore_errors=True)
        for checkpoint in folder.glob("train/checkpoint-*"):
            shutil.rmtree(checkpoint)
        for pattern in _WEIGHTS:
            for file in folder.glob(f"train/{pattern}"):
                file.unlink()
    return written


def _write(target: Path, source: Path, one: Measured, log: dict[str, Any] | None) -> None:
    import yaml

    run = read_run(str(source))
    items: dict[str, Any] = {}
    for entry in run.scores.values():
        rows = predictions(entry["folder"], stem(entry))
        of_items = statistics(entry, list(rows.values()))
        if of_items is not None:
            ids = [id_ for id_, _ in rows]
            # Items that share a passage are no independent draws.
            groups = [row.get("group") or id_ for id_, row in zip(ids, rows.values(), strict=True)]
            numbers = [[_short(number) for number in row] for row in of_items.table.tolist()]
            items[_name(entry)] = {"items": ids, "groups": groups if groups != ids else None, "numbers": numbers}
    # The same bytes whenever it is written: gzip would put the time in.
    packed = gzip.compress(json.dumps(items, separators=(",", ":")).encode(), mtime=0)
    atomic_write(target / "items.json.gz", packed)
    if log is not None:
        atomic_write(target / "training.json", json.dumps(log, indent=1) + "\n")
    atomic_write(target / "results.json", read_text(source / "results.json"))
    # Last: with it the run counts as kept.
    atomic_write(target / "recipe.yaml", yaml.safe_dump(one.record, sort_keys=False, allow_unicode=True))


def _short(number: float) -> float | int:
    return int(number) if number == int(number) else round(number, 4)


def _name(entry: dict[str, Any]) -> str:
    return f"{stem(entry)} {entry['metric']}"


def _training_log(folder: Path, training: str) -> dict[str, Any] | None:
    """The losses by step, and what the training took; None of the untrained backbone."""
    state = folder / training / "train" / "trainer_state.json"
    if not state.is_file():
        return None
    content = json.loads(read_text(state))
    lines = [
        {k: v for k, v in line.items() if "loss" in k or k in ("step", "epoch")} for line in content["log_history"]
    ]
    log: dict[str, Any] = {"steps": content["global_step"], "best_step": content.get("best_global_step")}
    return log | {"seconds": seconds(folder, f"train.{training}"), "log": lines}


def seconds(folder: Path, step: str) -> float | None:
    """What a finished step took, by Snakemake's benchmark; None of one that is not finished."""
    path = folder / "seconds" / f"{step}.tsv"
    if not path.is_file():
        return None
    heads, values = (line.split("\t") for line in path.read_text().splitlines()[:2])
    return float(dict(zip(heads, values, strict=False))["s"])


@dataclass(frozen=True)
class Kept:
    """A kept run.

    scores: its entries of results.json, each with what it is computed from, None where that is not known.
    training: what training.json holds; None of the untrained backbone.
    """

    one: Measured
    scores: dict[str, tuple[dict[str, Any], Statistics | None]]
    results: dict[str, Any]
    training: dict[str, Any] | None


def read_kept(config: StudyConfig, plan: Plan) -> Iterator[Kept]:
    """The runs of the study that are kept."""
    for one in plan.measured.values():
        folder = config.kept_folder / one.id
        if one.id in plan.kept:
            yield _read(folder, one)


def _read(folder: Path, one: Measured) -> Kept:
    run = read_run(str(folder))
    items = json.loads(gzip.decompress((folder / "items.json.gz").read_bytes()))
    training = folder / "training.json"
    scores = {}
    for entry in run.scores.values():
        numbers = items.get(_name(entry))
        scores[_name(entry)] = (entry, _statistics(entry, numbers) if numbers else None)
    log = json.loads(read_text(training)) if training.is_file() else None
    return Kept(one, scores, run.results[0], log)


def _statistics(entry: dict[str, Any], kept: dict[str, Any]) -> Statistics | None:
    """The table of items with the function that makes a score of their sums."""
    import math

    import numpy as np

    from sdrrl_eval.compare.rescoring import scorer
    from sdrrl_eval.measure.metrics import mt
    from sdrrl_eval.resampling import ratio

    table, metric, names = np.asarray(kept["numbers"], dtype=np.float64), entry["metric"], tuple(kept["items"])
    if metric == "bleu" or metric.startswith("chrf"):
        # The function is that of any corpus with these settings; the numbers of this one take its place.
        settings = signature_parts(entry["signature"]) | {"tok": "none"}
        empty = mt.statistics(scorer(metric, settings, references=[["x"]]), ["x"], None)
        found = [Statistics(table, empty.value, names, empty.bounds)]
    elif metric.endswith("loss"):
        found = [ratio([tuple(row) for row in kept["numbers"]], names, bounds=(0.0, math.inf))]
    else:
        found = [ratio([tuple(row) for row in kept["numbers"]], names, scale, (0.0, 100.0)) for scale in (1.0, 100.0)]
    right = next((one for one in found if abs(one.total() - entry["value"]) < 0.006), None)
    return right.grouped(kept["groups"]) if right and kept["groups"] else right
