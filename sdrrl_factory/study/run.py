"""`sdrrl study`: plans a study, writes its recipes, and has Snakemake do its steps.

Snakemake's folder is the study's own: beside `.snakemake` it holds steps.json, recipes/, data/, prepare/, a folder a
training, and of every step a log, its seconds, and a stamp in done/ when it has ended well.
"""

import json
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sdrrl_eval import show
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import atomic_write
from sdrrl_factory.recipe import Recipe
from sdrrl_factory.study.checks import check_recipes, snakemake_version
from sdrrl_factory.study.kept import keep, seconds
from sdrrl_factory.study.plan import Plan, Step, plan
from sdrrl_factory.study.recipe import StudyConfig


def study(recipe: Recipe[StudyConfig], overrides: Sequence[str], cores: int | None = None, options: str = "") -> int:
    """Do all steps of a study that are not done yet; returns Snakemake's exit code.

    Args:
        cores: threads of all steps that run at a time.
        options: Snakemake's own, as on its command line: "--executor slurm --jobs 16".

    Raises: UserError before any work, as far as it can be told.
    """
    config = recipe.config
    planned = planned_study(recipe, overrides)
    for line in planned.left_out:
        print(f"left out  {line}")
    lock = _locked(config.folder)
    with lock:
        snakemake_version()
        check_recipes(recipe, planned)
        _write(config, planned)
        arguments = shlex.split(options)
        if "--executor" not in arguments:
            arguments += ["--cores", str(cores or 1)]
        return _snakemake(config.folder, arguments)


def planned_study(recipe: Recipe[StudyConfig], overrides: Sequence[str]) -> Plan:
    """The plan of a study, its commands as they are typed here."""
    return plan(recipe.config, command(recipe, overrides))


def command(recipe: Recipe[StudyConfig], overrides: Sequence[str]) -> str:
    return " ".join(["sdrrl study", *map(shlex.quote, [recipe.path, *overrides])])


def print_commands(recipe: Recipe[StudyConfig], overrides: Sequence[str]) -> None:
    """`--commands`: every step that is left as a command to copy, in an order in which they can be run."""
    planned = planned_study(recipe, overrides)
    _write_recipes(planned)
    for step in planned.steps:
        print(step.command)


def dry_run(recipe: Recipe[StudyConfig], overrides: Sequence[str]) -> dict[str, int]:
    """`--dry-run`: the steps that are left, by kind, and their hours by what such steps took; nothing is run."""
    config = recipe.config
    planned = planned_study(recipe, overrides)
    for line in planned.left_out:
        print(f"left out  {line}")
    left = [step for step in planned.steps if not _is_done(config, step)]
    counts = Counter(step.kind for step in left)
    print(f"kept      {len(planned.kept)} of {len(planned.measured)} checkpoints are measured already")
    total, unknown = 0.0, 0
    for kind, count in counts.items():
        estimates = [_estimate(config, planned, step) for step in left if step.kind == kind]
        known = [estimate for estimate in estimates if estimate is not None]
        total, unknown = total + sum(known), unknown + len(estimates) - len(known)
        took = f", about {sum(known) / 3600:.1f} hours" if known else ""
        print(f"{kind:9} {count} steps{took}")
    print(f"together  {len(left)} steps, about {total / 3600:.1f} hours one after the other")
    if unknown:
        print(f"          {unknown} of them of a kind of which none has been done here yet, so without an estimate")
    return dict(counts)


def keep_training(recipe: Recipe[StudyConfig], overrides: Sequence[str], training: str) -> None:
    """`--keep ID`: the results of a training to where they are kept, its weights away."""
    for folder in keep(recipe.config, planned_study(recipe, overrides), training):
        print(f"kept: {folder}")


def print_tables(recipe: Recipe[StudyConfig], overrides: Sequence[str]) -> None:
    """`--tables`: the tables of what is kept, on the terminal and in Markdown."""
    from sdrrl_eval.compare import terminal
    from sdrrl_factory.study.tables import tables, write

    planned = planned_study(recipe, overrides)
    made = tables(recipe.config, planned)
    console = show.console()
    for table in made.shown:
        terminal.print_table(table, console)
    for line in made.missing:
        print(line)
    print(f"tables: {write(recipe.config, made, command(recipe, overrides))}")


def _is_done(config: StudyConfig, step: Step) -> bool:
    """Whether a step has ended well, and what it made is still there."""
    stamp = config.folder / "done" / step.name
    return stamp.is_file() and (not step.made or bool(glob(step.made)))


def _estimate(config: StudyConfig, planned: Plan, step: Step) -> float | None:
    """Seconds, from finished steps that are like it: with other seeds first, then of its kind; None where none is."""

    def mean(pattern: str) -> float | None:
        names = [path.stem for path in (config.folder / "seconds").glob(pattern)]
        took = [value for value in (seconds(config.folder, name) for name in names) if value is not None]
        return sum(took) / len(took) if took else None

    alike = step.name.rpartition(".")[0] + ".*" if step.kind in ("train", "rate", "export", "eval") else step.name
    return mean(f"{alike}.tsv") or mean(f"{step.kind}.*.tsv")


# --- Snakemake


def _locked(folder: Path) -> FileLock:
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError("another `sdrrl study` is at work here", "wait, or set output_dir", at=str(folder)) from None
    return lock


def _snakemake(folder: Path, arguments: Sequence[str]) -> int:
    """Snakemake in this process, so that what ends the one ends the other."""
    from snakemake.cli import main

    # The commands are those of this environment, wherever Snakemake starts them.
    programs, path = str(Path(sys.executable).parent), os.environ["PATH"]
    if programs not in path.split(os.pathsep):
        os.environ["PATH"] = f"{programs}{os.pathsep}{path}"
    ours = ["--snakefile", str(Path(__file__).with_name("Snakefile")), "--directory", str(folder)]
    # The study has a lock of its own, which a kill does not leave behind; what was half done is done again. Recipes are
    # written only where they change: their time is what tells that a step is out of date.
    ours += [
        "--nolock",
        "--rerun-incomplete",
        "--rerun-triggers",
        "mtime",
        "--keep-going",
    ]
    try:
        main([*ours, *arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _write(config: StudyConfig, planned: Plan) -> None:
    """Everything that Snakemake and the commands read."""
    _write_recipes(planned)
    here, folder = Path.cwd(), config.folder.absolute()
    for name in ("done", "logs", "seconds", "locks"):
        (folder / name).mkdir(exist_ok=True)
    for step in planned.steps:
        if not _is_done(config, step):
            (folder / "done" / step.name).unlink(missing_ok=True)
    steps = [_as_rule(config, step, here, folder) for step in planned.steps]
    # In the plan's order: a training is measured before the next one begins.
    steps = [step | {"priority": len(steps) - i} for i, step in enumerate(steps)]
    atomic_write(folder / "steps.json", json.dumps({"steps": steps}, indent=1) + "\n")


def _as_rule(config: StudyConfig, step: Step, here: Path, folder: Path) -> dict[str, Any]:
    needs = config.needs(step.kind)
    run = step.command
    if step.kind == "train":
        run = f"more=$(python -m sdrrl_factory.study.folders {shlex.quote(step.recipe)}) && {run} $more"
    # A command that outlived a killed study is waited for: two at once would write the same files.
    lock = shlex.quote(str(folder / "locks" / step.name))
    resources: dict[str, Any] = {"gpus": needs.gpus} if needs.gpus else {}
    resources |= {"gres": f"gpu:{needs.gpus}"} if needs.gpus else {}
    resources |= {name: getattr(needs, name) for name in ("mem_mb", "runtime") if getattr(needs, name)}
    return {
        "name": step.name,
        "rule": re.sub(r"\W", "_", step.name),
        "kind": step.kind,
        "command": step.command,
        "run": f"cd {shlex.quote(str(here))} && flock {lock} bash -c {shlex.quote(run)}",
        "after": list(step.after),
        "inputs": [str(here / step.recipe)] if step.recipe and not _is_made(step) else [],
        "threads": needs.threads,
        "resources": resources,
    }


def _is_made(step: Step) -> bool:
    """Whether the step before it writes its recipe, with the calculated learning rate."""
    return step.kind == "train" and any(name.startswith("rate.") for name in step.after)


def _write_recipes(planned: Plan) -> None:
    """Where the keys are the same the file keeps its time, and the steps that read it their stamps."""
    import yaml

    for path, keys in planned.recipes.items():
        text = yaml.safe_dump(keys, sort_keys=False, allow_unicode=True)
        if not (path.is_file() and path.read_text(encoding="utf-8") == text):
            atomic_write(path, text)
