"""Runs an evaluation recipe: checks, generates, scores, writes predictions/ and results.json."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

from sdrrl_eval import checkpoint
from sdrrl_eval.answers import Answers
from sdrrl_eval.recipe import EvalConfig, TaskConfig, check
from sdrrl_eval.tasks.part import Part
from sdrrl_factory import comet
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import atomic_write, write_jsonl
from sdrrl_factory.lm import Generation
from sdrrl_factory.server import Server

Place = Callable[[str], str]


def run(config: EvalConfig, recipe_path: str, place: Place | None = None) -> dict:
    """Evaluate `config.model`; returns what output_dir/results.json holds.

    place: where a key of the recipe stands, for errors. Everything that can be checked without the model is checked
    before it is loaded. The same inputs write the same bytes, however often the run was killed on the way.
    """
    place = place or (lambda key: f"{recipe_path}: {key}")
    parts = plan(config, place)
    out = _writable(config.output_dir, place)
    lm = _model(config, place, out)
    answers = _generate(lm, parts, config.batch_size)
    scores, about = [], {}
    for part in parts:
        given = [answers[item.prompt, part.max_new_tokens] for item in part.items if item.prompt is not None]
        rows, found = _task(part.task).score(part, given, lm, config.batch_size, config.seed)
        write_jsonl(out / "predictions" / f"{part.name}.jsonl", rows)
        scores += found
        about[part.name] = _about(part, given)
        print(f"{part.name}: {len(rows)} items{_troubles(given)}", flush=True)
    results = {
        "model": f"{config.model} + {config.adapter}" if config.adapter else config.model,
        "model_hash": None if config.server else checkpoint.model_hash(config.model, config.adapter),
        "recipe": recipe_path,
        "versions": _versions(config),
        "decoding": _decoding(config, lm),
        "scores": scores,
        "parts": about,
    }
    path = out / "results.json"
    atomic_write(path, json.dumps(results, ensure_ascii=False, indent=2) + "\n")
    _print_scores(scores)
    print(f"scores: {path}")
    return results


def plan(config: EvalConfig, place: Place) -> list[Part]:
    """Every part of the recipe, read and checked; no model is touched."""
    check(config, place)
    parts: list[Part] = []
    for i, task in enumerate(config.tasks):
        where = place(f"tasks.{i}")
        if config.server and (step := _without_likelihoods(task)):
            raise UserError(f"{where}: {task.task} needs likelihoods, which a server does not give; {step}")
        for part in _task(task.task).read(task, where):
            if part.name in {other.name for other in parts}:
                raise UserError(f"{where}: {part.name} is asked twice; remove one")
            limit = task.max_new_tokens or config.max_new_tokens
            items = part.items[: config.max_samples]
            parts.append(replace(part, items=items, max_new_tokens=limit, config=task, place=where))
    return parts


def _task(name: str):
    """The task's module: `read(task, place) -> [Part]`, `score(part, answers, lm, batch_size, seed)`."""
    return import_module(f"sdrrl_eval.tasks.{name}")


def _without_likelihoods(task: TaskConfig) -> str:
    """What to do about a task that a server cannot answer; "" where it can."""
    if task.task == "text_loss":
        return "remove the task, or evaluate the checkpoint itself"
    if task.task == "instructions" and task.metrics != ["chrf"]:
        return "set metrics: [chrf]"
    if task.task == "belebele" and task.mode != "generate":
        return "set mode: generate"
    return ""


def _model(config: EvalConfig, place: Place, out: Path) -> Answers:
    """The model, or the server in its place, with its memory."""
    if config.server:
        s = config.server
        where = place("server.base_url")
        server = Server(
            s.base_url,
            config.model,
            api_key_env=s.api_key_env,
            concurrency=s.concurrency,
            timeout=s.timeout,
            retries=s.retries,
            place=where,
        )
        identity = f"{config.model} at {s.base_url}"
        return Answers(out / "answers", identity, None, server)
    checkpoint.check(config, place)
    load = partial(checkpoint.load, config, place)
    if checkpoint.folder(config.model) is None:
        loaded = load()  # only now is it known what stands behind a hub id
        load = lambda: loaded  # noqa: E731
    which = checkpoint.model_hash(config.model, config.adapter)
    identity = f"{which} {checkpoint.format_hash(config.model, config.adapter)} {config.template}"
    return Answers(out / "answers", identity, load)


def _writable(folder: str, place: Place) -> Path:
    out = Path(folder)
    try:
        for name in ("predictions", "answers"):
            (out / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=out / name):
                pass
    except OSError as err:
        why = f"{folder} cannot be written ({err.strerror})"
        raise UserError(f"{place('output_dir')}: {why}; name another folder") from None
    return out


def _generate(lm: Answers, parts: list[Part], batch_size: int) -> dict[tuple[str, int], Generation]:
    """Every distinct (prompt, max_new_tokens) answered once: off_target and instructions share their answers."""
    wanted: dict[int, dict[str, None]] = {}
    for part in parts:
        for item in part.items:
            if item.prompt is not None:
                wanted.setdefault(part.max_new_tokens, {})[item.prompt] = None
    answers = {}
    for limit, prompts in wanted.items():
        done = lm.generate(list(prompts), limit, batch_size)
        answers.update({(prompt, limit): answer for prompt, answer in zip(prompts, done, strict=True)})
    return answers


def _about(part: Part, answers: list[Generation]) -> dict:
    """What a reader needs to ask the same again: the prompt, the limit, why the answers ended."""
    about = {"path": part.config.path, "n": len(part.items)}
    if part.prompt:
        about["prompt"] = part.prompt
    if answers:
        finish = Counter(a.finish for a in answers)
        empty = sum(not a.text for a in answers)
        about |= {"max_new_tokens": part.max_new_tokens, "finish": dict(sorted(finish.items())), "empty": empty}
    return about


def _troubles(answers: list[Generation]) -> str:
    failed = Counter(a.finish for a in answers if a.finish.startswith("error: "))
    empty = sum(not a.text for a in answers) - failed.total()
    told = [f"{n} without an answer ({why.removeprefix('error: ')})" for why, n in failed.items()]
    return "".join(f", {one}" for one in [f"{empty} answers empty"] * bool(empty) + told)


def _decoding(config: EvalConfig, lm: Answers) -> dict:
    facts = {"strategy": "greedy", "template": config.template, "batch_size": config.batch_size}
    facts |= {"max_samples": config.max_samples, "seed": config.seed}
    return facts | ({"server": config.server.base_url} if config.server else lm.facts())


def _versions(config: EvalConfig) -> dict[str, str]:
    """Of every library that a number depends on."""
    import platform
    from importlib.metadata import version

    import sdrrl_factory

    names = ["openai"] if config.server else ["torch", "transformers", "tokenizers"]
    names += ["llamafactory"] * bool(config.template) + ["peft"] * bool(config.adapter) + ["numpy", "sacrebleu"]
    names += ["rouge-score"] * any(task.task == "xlsum" for task in config.tasks)
    versions = {"python": platform.python_version(), "sdrrl_factory": sdrrl_factory.__version__}
    versions |= {name: version(name) for name in names}
    if any("comet" in (task.metrics or ()) for task in config.tasks):
        versions["unbabel-comet"] = comet.installation().version  # perhaps of another environment
    return versions


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
