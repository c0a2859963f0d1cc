"""The same question, the answers of several systems beside it: samples, and the case study (the paper's Table 13)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrrl_eval import show
from sdrrl_eval.compare.runs import Run, predictions, stem
from sdrrl_eval.compare.shared import SharedScore
from sdrrl_factory.errors import UserError

_SAMPLES, _CASES = 10, 6
# Tasks whose answers are worth reading, and the item's own score that tells better from worse.
_METRICS = {"instructions": "chrf", "translation": "chrf", "flores": "chrf", "xlsum": "rougeL", "mkqa": "f1"}


@dataclass(frozen=True)
class Case:
    """One item that every run answered.

    Attributes:
        id: the item's, in its predictions file. name: "FILE:id", which no other item has.
        task: the task with its languages. lang: the code of the answer's language.
        metric: the item's own score that is shown.
        question: the prompt. reference: a text, or a list of texts.
        answers: each run's row of the predictions file.
        change: of the item's own score, from the base to the last run; 0 where it has none.
    """

    id: str
    name: str
    task: str
    lang: str
    metric: str
    question: Any
    reference: Any
    answers: list[dict]
    change: float


def first_items(runs: Sequence[Run], scores: Sequence[SharedScore]) -> list[Case]:
    """The first items that every run answered, taken in turn from each file: nobody picks the pretty ones."""
    files = [_items(runs, entry)[:_SAMPLES] for entry in _files(scores)]
    longest = max(map(len, files), default=0)
    return [items[i] for i in range(longest) for items in files if i < len(items)][:_SAMPLES]


def most_changed(runs: Sequence[Run], scores: Sequence[SharedScore]) -> list[Case]:
    """The items whose own score changed most from the base to the last run: at most one better and one worse a file.

    Six of each in all; the better ones come first.
    """
    if len(runs) < 2:
        return []
    better, worse = [], []
    for entry in _files(scores):
        items = _items(runs, entry)
        # Of items that changed alike, the first of the better and the last of the worse are taken.
        ordered = sorted(items, key=lambda case: -case.change)
        if ordered and ordered[0].change > 0:
            better.append(ordered[0])
        if ordered and ordered[-1].change < 0:
            worse.append(ordered[-1])
    better.sort(key=lambda case: -case.change)
    worse.sort(key=lambda case: case.change)
    return better[:_CASES] + worse[:_CASES]


def by_id(runs: Sequence[Run], scores: Sequence[SharedScore], ids: Sequence[str]) -> list[Case]:
    """The items of these ids, or of "FILE:id" where several files have an id."""
    items = [case for entry in _files(scores) for case in _items(runs, entry)]
    missing = [id_ for id_ in ids if not any(id_ in (case.id, case.name) for case in items)]
    if missing:
        raise UserError(f"--cases {missing[0]}: no such item in every run's predictions", "name an id, or FILE:id")
    return [case for id_ in ids for case in items if id_ in (case.id, case.name)]


def _files(scores: Sequence[SharedScore]) -> list[dict]:
    """The base's entry for the first score of each predictions file worth reading."""
    files: dict[str, dict] = {}
    for score in scores:
        if score.task in _METRICS:
            files.setdefault(stem(score.scores[0]), score.scores[0])
    return list(files.values())


def _items(runs: Sequence[Run], entry: dict) -> list[Case]:
    """The items that every run answered, of the file that the score `entry` comes from."""
    folders = [_folder(run, entry) for run in runs]
    answers_of = [predictions(folder, stem(entry)) if folder else {} for folder in folders]
    # Whether an answer to an instruction is off target stands in a file of its own.
    flags_of: list[dict] = [{} for _ in runs]
    if entry["task"] == "instructions":
        name = f"off_target.{entry['target_lang']}"
        flags_of = [predictions(folder, name) if folder else {} for folder in folders]
    cases = []
    for item in answers_of[0]:
        if not all(item in answers for answers in answers_of):
            continue
        rows = []
        for answers, flags in zip(answers_of, flags_of, strict=True):
            flag = flags.get(item, {})
            rows.append(answers[item] | {key: flag.get(key) for key in ("off_target", "language")})
        cases.append(_case(entry, item[0], rows))
    return cases


def _case(entry: dict, id_: str, answers: list[dict]) -> Case:
    metric = _METRICS[entry["task"]]
    base, last = answers[0].get(metric), answers[-1].get(metric)
    change = 0.0
    if isinstance(base, int | float) and isinstance(last, int | float):
        change = last - base
    return Case(
        id=id_,
        name=f"{stem(entry)}:{id_}",
        task=f"{show.task(entry['task'])}, {show.direction(entry)}",
        lang=entry["target_lang"],
        metric=metric,
        question=answers[0].get("prompt"),
        reference=answers[0].get("reference"),
        answers=answers,
        change=change,
    )


def _folder(run: Run, entry: dict) -> Path | None:
    """Where the run's predictions for the file of `entry` lie."""
    return next((score["folder"] for score in run.scores.values() if stem(score) == stem(entry)), None)
