"""Runs an evaluation recipe: checks, generates, scores, writes predictions/ and results.json."""

import hashlib
import json
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sdrrl_eval.recipe import EvalConfig
from sdrrl_eval.tasks import instructions, off_target, text_loss, translation
from sdrrl_eval.tasks.part import Part
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import atomic_write, write_jsonl
from sdrrl_factory.lm import LM, Generation, check_checkpoint

TASKS = {"translation": translation, "instructions": instructions, "off_target": off_target, "text_loss": text_loss}


def run(config: EvalConfig, recipe_path: str) -> dict:
    """Evaluate `config.model`; returns what output_dir/results.json holds.

    Everything that can be checked without the model is checked before it is loaded. The same inputs write the
    same bytes.
    """
    parts = plan(config, recipe_path)
    check_checkpoint(config.model, f"{recipe_path}: model")
    out = _writable(config.output_dir)
    lm = LM(config.model, config.template, config.adapter)
    answers = _generate(lm, parts, config)
    scores = []
    for part in parts:
        given = [answers[item.prompt, part.max_new_tokens] for item in part.items if item.prompt is not None]
        rows, found = TASKS[part.task].score(part, given, lm, config.batch_size, config.seed)
        write_jsonl(out / "predictions" / f"{part.name}.jsonl", rows)
        scores += found
        empty = sum(not answer.text for answer in given)
        print(f"{part.name}: {len(rows)} items" + f", {empty} answers empty" * bool(empty), flush=True)
    results = {
        "model": f"{config.model} + {config.adapter}" if config.adapter else config.model,
        "model_hash": model_hash(config.model, config.adapter),
        "recipe": recipe_path,
        "versions": _versions(),
        "scores": scores,
    }
    path = out / "results.json"
    atomic_write(path, json.dumps(results, ensure_ascii=False, indent=2) + "\n")
    _print_scores(scores)
    print(f"scores: {path}")
    return results


def plan(config: EvalConfig, recipe_path: str) -> list[Part]:
    """Every part of the recipe, read and checked; no model is touched."""
    parts: list[Part] = []
    for i, task in enumerate(config.tasks):
        place = f"{recipe_path}: tasks.{i}"
        for part in TASKS[task.task].read(task, place):
            if part.name in {other.name for other in parts}:
                raise UserError(f"{place}: {part.name} is asked twice; remove one")
            limit = task.max_new_tokens or config.max_new_tokens
            parts.append(replace(part, items=part.items[: config.max_samples], max_new_tokens=limit))
    return parts


def model_hash(model: str, adapter: str | None = None) -> str | None:
    """What `cat config.json *.safetensors | sha256sum` says in the checkpoint, an adapter's files after it.

    None where the weights do not lie in a local folder.
    """
    files = []
    for folder, config in [(model, "config.json"), (adapter, "adapter_config.json")]:
        if folder:
            weights = sorted(Path(folder).glob("*.safetensors"))
            if not weights or not (Path(folder) / config).is_file():
                return None
            files += [Path(folder) / config, *weights]
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as f:
            while block := f.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _writable(folder: str) -> Path:
    out = Path(folder)
    try:
        (out / "predictions").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out / "predictions"):
            pass
    except OSError as err:
        raise UserError(f"output_dir: {folder} cannot be written ({err.strerror}); name another folder") from None
    return out


def _generate(lm: LM, parts: list[Part], config: EvalConfig) -> dict[tuple[str, int], Generation]:
    """Every distinct (prompt, max_new_tokens) answered once: off_target and instructions share their answers."""
    wanted: dict[int, dict[str, None]] = {}
    for part in parts:
        for item in part.items:
            if item.prompt is not None:
                wanted.setdefault(part.max_new_tokens, {})[item.prompt] = None
    answers = {}
    for limit, prompts in wanted.items():
        with _progress(f"answers of at most {limit} tokens", len(prompts)) as advance:
            done = lm.generate(list(prompts), limit, config.batch_size, seed=config.seed, progress=advance)
        answers.update({(prompt, limit): answer for prompt, answer in zip(prompts, done, strict=True)})
    return answers


@contextmanager
def _progress(what: str, total: int):
    """A bar on a terminal, one plain line elsewhere."""
    if not sys.stdout.isatty():
        print(f"{total} {what}", flush=True)
        yield lambda n: None
        return
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress(*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n: bar.advance(task, n)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    import sdrrl_factory

    return {name: version(name) for name in ("torch", "transformers", "sacrebleu")} | {
        "sdrrl_factory": sdrrl_factory.__version__
    }


def _print_scores(scores: list[dict]) -> None:
    from rich.table import Table

    from sdrrl_eval.show import console, direction, label, number

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("score", "language"):
        table.add_column(name)
    for name in ("value", "95% interval", "n"):
        table.add_column(name, justify="right")
    for s in scores:
        low, high = (number(s["metric"], bound) for bound in s["ci95"])
        value = number(s["metric"], s["value"])
        table.add_row(label(s["task"], s["metric"]), direction(s), value, f"{low} to {high}", str(s["n"]))
    console().print(table)
