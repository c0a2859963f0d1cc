"""A recipe of several checkpoints, as the paper's tables have them: five systems, each trained once a language.

The data are read once. Every checkpoint is asked before any score is computed, so that COMET is loaded once, when no
language model is in memory any more; the answers lie in the memory of the run, and nothing is lost by a kill. At the
end the systems stand in one table, the first being the base.

    output_dir/base/                  results.json, predictions/ of a checkpoint for all languages
    output_dir/sdrrl/ces/, dan/ ...   of one for each language
    output_dir/report.html, scores.json, scores.csv
"""

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sdrrl_factory
from sdrrl_eval.compare.command import compare
from sdrrl_eval.compare.runs import ENGLISH
from sdrrl_eval.measure import checkpoint, runner
from sdrrl_eval.measure.recipe import CheckpointKeys, EvalConfig, check
from sdrrl_eval.measure.task import Part
from sdrrl_factory.errors import UserError
from sdrrl_factory.log import log_file, say
from sdrrl_factory.models.hub import is_hub_id

_LANG, _SYSTEM = "{lang}", "{system}"
_SHOWN = 3  # missing checkpoints that are named


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of a system, and the recipe of its evaluation alone; lang: that it was taught, None of all."""

    system: str
    lang: str | None
    config: EvalConfig

    def parts(self, parts: Sequence[Part]) -> list[Part]:
        """What it is measured on: what concerns its language, and English where the task has both, or English alone."""
        return [part for part in parts if self.lang is None or self._is_asked(part)]

    def _is_asked(self, part: Part) -> bool:
        languages = {part.source_lang, part.target_lang} - {ENGLISH, None}
        if languages:
            return languages == {self.lang}
        others = {lang.code for lang in part.config.languages()} - {ENGLISH}
        return not others or self.lang in others


def run(
    config: EvalConfig, recipe_path: str, training_files: Sequence[str] = (), overlap_list: str | None = None
) -> dict[str, Any]:
    """Evaluate every checkpoint of `config.models`, and set the systems side by side.

    Args: as of `runner.run`.

    Returns: {"evaluations": what each results.json holds, "report": the path of the comparison, None of one system}.

    Raises: UserError about a key of the recipe, or at a line of a file.
    """
    # 1. What can be wrong without a model, of all checkpoints before any is asked.
    check(config)
    ones = checkpoints(config)
    _check(ones)
    whole = runner.read_plan(config)
    for one in ones:
        runner.writable(one.config.output_dir, one.parts(whole.parts))
    out = Path(config.output_dir)
    with log_file(out / "eval.log", f"sdrrl {sdrrl_factory.__version__} eval {recipe_path}"):
        overlap = runner.overlap_of(whole.parts, training_files, overlap_list or str(out / "overlap.jsonl"))
        # 2. All that the checkpoints are asked, one in memory at a time.
        asked = []
        for number, one in enumerate(ones, 1):
            say(f"{number} of {len(ones)}: {_title(one)}, {one.config.model}")
            asked.append(runner.ask(one.config, one.parts(whole.parts)))
        # 3. The scores.
        evaluations = []
        for one, answered in zip(ones, asked, strict=True):
            say(f"{_title(one)}:")
            evaluations.append(runner.write_scores(answered, whole, recipe_path, overlap))
        # 4. One table.
        report = _compare(config, ones)
        runner.print_missing(evaluations)
    return {"evaluations": evaluations, "report": report}


def checkpoints(config: EvalConfig) -> list[Checkpoint]:
    """Those of `models`, system by system, whether they are there or not.

    Raises: UserError about "models" or "systems".
    """
    entries = config.models if isinstance(config.models, list) else [config.models or ""]
    keys = [entry if isinstance(entry, CheckpointKeys) else CheckpointKeys(model=entry) for entry in entries]
    languages = _taught(config)
    if any(_SYSTEM in one.model for one in keys):
        keys = [named for one in keys for named in _systems(one, config.systems, languages)]
    elif config.systems:
        raise UserError(
            f"no {_SYSTEM} in models that they could stand for", "write it, or remove systems", key="systems"
        )
    ones: list[Checkpoint] = []
    for one in keys:
        name = one.name or _name(one.model)
        if name in {other.system for other in ones}:
            raise UserError(f"two systems are called {name}", "give each a name", key="models")
        # One for each language, or one for all.
        codes: Sequence[str | None] = languages if _LANG in f"{one.model} {one.adapter}" else [None]
        for lang in codes:
            ones.append(Checkpoint(name, lang, _alone(config, one, name, lang)))
    return ones


def _taught(config: EvalConfig) -> list[str]:
    """The languages of the tasks, in their order, but English."""
    codes = [lang.code for task in config.tasks for lang in task.languages()]
    return [code for code in dict.fromkeys(codes) if code != ENGLISH]


def _systems(keys: CheckpointKeys, names: Sequence[str], languages: Sequence[str]) -> list[CheckpointKeys]:
    """A system for each that {system} stands for: those that are named, or all whose checkpoints are there."""
    if not names:
        pattern = keys.model
        there: set[str] = set()
        for lang in languages or [""]:
            head, _, tail = pattern.replace(_LANG, lang).partition(_SYSTEM)
            for path in glob.glob(f"{glob.escape(head)}*{glob.escape(tail)}/config.json"):
                there.add(path.removesuffix("/config.json")[len(head) : len(path) - len("/config.json") - len(tail)])
        names = sorted(there)
        if not names:
            raise UserError(f"no checkpoints like {pattern}", "train and export them first or mend it", key="models")
    return [
        keys.model_copy(
            update={
                "model": keys.model.replace(_SYSTEM, name),
                "adapter": keys.adapter and keys.adapter.replace(_SYSTEM, name),
                "name": name,
            }
        )
        for name in names
    ]


def _name(model: str) -> str:
    """The folder's name without the language: "sdrrl" of runs/export/{lang}_sdrrl, and of runs/{lang}/sdrrl."""
    bare = re.sub(r"[-_.]{2,}", "_", Path(model).name.replace(_LANG, "")).strip("-_.")
    return re.sub(r"[^\w.+-]", "_", bare) or "model"


def _alone(config: EvalConfig, keys: CheckpointKeys, name: str, lang: str | None) -> EvalConfig:
    """The recipe of one checkpoint."""
    adapter = keys.adapter or config.adapter
    return config.model_copy(
        update={
            "models": None,
            "systems": [],
            "model": keys.model.replace(_LANG, lang or ""),
            "adapter": adapter and adapter.replace(_LANG, lang or ""),
            "template": keys.template or config.template,
            "output_dir": str(Path(config.output_dir, name, lang or "")),
            # Each folder of its own would have a memory beside it.
            "memory": str(config.memory_path()),
        }
    )


def _check(ones: Sequence[Checkpoint]) -> None:
    """Say at once which checkpoints are missing."""
    missing = []
    for one in ones:
        check(one.config)
        if one.config.server:
            continue
        is_local = not is_hub_id(one.config.model, short=True)
        if is_local and not Path(one.config.model, "config.json").is_file():
            missing.append(one.config.model)
        else:
            checkpoint.check(one.config)
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        what = f"no checkpoint at {', '.join(missing[:_SHOWN])}{more}: config.json not found"
        raise UserError(what, "train and export them first, or remove the language from the tasks", key="models")


def _title(one: Checkpoint) -> str:
    return f"{one.system} {one.lang}" if one.lang else one.system


def _compare(config: EvalConfig, ones: Sequence[Checkpoint]) -> str | None:
    folders: dict[str, list[str]] = {}
    for one in ones:
        folders.setdefault(one.system, []).append(one.config.output_dir)
    if len(ones) == 1:
        return None
    comparison = compare([f"{system}={','.join(paths)}" for system, paths in folders.items()])
    out = Path(config.output_dir)
    report = comparison.write(out / "report.html", json_file=out / "scores.json", csv_file=out / "scores.csv")
    comparison.print()
    say(f"report: {report}")
    return str(report)
