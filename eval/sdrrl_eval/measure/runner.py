"""Runs an evaluation recipe: checks, generates, scores, writes predictions/ and results.json."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

from sdrrl_eval.measure import checkpoint
from sdrrl_eval.measure.answers import Answers
from sdrrl_eval.measure.overlap import DROPPED, Overlap, check_list, find_overlap, print_overlap, write_list
from sdrrl_eval.measure.recipe import EvalConfig, TaskConfig, check
from sdrrl_eval.measure.tasks.part import Part
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import atomic_write, write_jsonl
from sdrrl_factory.models import comet
from sdrrl_factory.models.lm import Generation
from sdrrl_factory.models.server import Server

Place = Callable[[str], str]


def run(
    config: EvalConfig,
    recipe_path: str,
    place: Place | None = None,
    training_files: Sequence[str] = (),
    overlap_list: str | None = None,
) -> dict:
    """Evaluate `config.model`; returns what output_dir/results.json holds.

    place: where a key of the recipe stands, for errors. training_files: as of `find_overlap`; each score is then
    computed once more without the items that stand in them. overlap_list: where these are listed (.jsonl or .csv);
    None is overlap.jsonl in the output_dir. Everything that can be checked without the model is checked
    before it is loaded. The same inputs write the same bytes, however often the run was killed on the way.
    """
    place = place or (lambda key: f"{recipe_path}: {key}")
    parts = plan(config, place)
    out = _writable(config.output_dir, place)
    listed = overlap_list or str(out / "overlap.jsonl")
    overlap = _overlap(parts, training_files, listed) if training_files else None
    lm = _model(config, place, out)
    answers = _generate(lm, parts, config.batch_size)
    scores, about = [], {}
    for part in parts:
        given = [answers[item.prompt, part.max_new_tokens] for item in part.items if item.prompt is not None]
        rows, found = _task(part.task).score(part, given, lm, config.batch_size, config.seed)
        if overlap:
            rows = [row | {"overlap": overlap.kind(part, item.id)} for row, item in zip(rows, part.items, strict=True)]
            found += _without_overlap(overlap, part, given, lm, config)
        write_jsonl(out / "predictions" / f"{part.name}.jsonl", rows)
        scores += found
        about[part.name] = _about(part, given) | ({"overlap": overlap.counts(part)} if overlap else {})
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
    if overlap:
        results["overlap"] = {"files": overlap.files, "list": listed}
    path = out / "results.json"
    atomic_write(path, json.dumps(results, ensure_ascii=False, indent=2) + "\n")
    _print_scores(scores)
    print(f"scores: {path}")
    return results


def plan(config: EvalConfig, place: Place, scoring: bool = True) -> list[Part]:
    """Every part of the recipe, read and checked; no model is touched.

    scoring: whether what the scores need (tokenizers, COMET, language identification) must be there too.
    """
    check(config, place)
    parts: list[Part] = []
    for i, task in enumerate(config.tasks):
        where = place(f"tasks.{i}")
        if scoring and config.server and (step := _without_likelihoods(task)):
            raise UserError(f"{where}: {task.task} needs likelihoods, which a server does not give; {step}")
        if scoring and hasattr(_task(task.task), "check"):
            _task(task.task).check(task, where)
        for part in _task(task.task).read(task, where):
            if part.name in {other.name for other in parts}:
                raise UserError(f"{where}: {part.name} is asked twice; remove one")
            limit = task.max_new_tokens or config.max_new_tokens
            items = part.items[: config.max_samples]
            parts.append(replace(part, items=items, max_new_tokens=limit, config=task, place=where))
    return parts


def _task(name: str):
    """The task's module: `read(task, place) -> [Part]`, `score(part, answers, lm, batch_size, seed)`, and perhaps
    `check(task, place)`."""
    return import_module(f"sdrrl_eval.measure.tasks.{name}")


def _without_likelihoods(task: TaskConfig) -> str:
    """What to do about a task that a server cannot answer; "" where it can."""
    if task.task == "text_loss":
        return "remove the task, or evaluate the checkpoint itself"
    if task.task == "instructions" and task.metrics != ["chrf"]:
        return "set metrics: [chrf]"
    if task.task == "belebele" and task.mode != "generate":
        return "set mode: generate"
    return ""


def _overlap(parts: list[Part], training_files: Sequence[str], listed: str) -> Overlap:
    check_list(listed)
    overlap = find_overlap(parts, training_files)
    print_overlap(overlap)
    write_list(listed, overlap)
    return overlap


def _without_overlap(
    overlap: Overlap, part: Part, answers: list[Generation], lm: Answers, config: EvalConfig
) -> list[dict]:
    """The part's scores without the items that overlap; none where all of them do."""
    kept = overlap.kept(part)
    if not kept:
        print(f"{part.name}: all {len(part.items)} items overlap, no score without them")
        return []
    given = [answers[i] for i in kept] if answers else []
    left = replace(part, items=[part.items[i] for i in kept])
    _, found = _task(part.task).score(left, given, lm, config.batch_size, config.seed)
    return [score | {"signature": f"{score['signature']}|{DROPPED}"} for score in found]


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

    from sdrrl_eval.show import console, direction, label

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("score", "language"):
        table.add_column(name)
    dropped = {(label(s["task"], s["metric"]), direction(s)): s for s in scores if DROPPED in s["signature"]}
    for name in ["value", "95% interval", "n"] + ["without overlap", "95% interval", "n"] * bool(dropped):
        table.add_column(name, justify="right")
    for s in scores:
        if DROPPED not in s["signature"]:
            name = (label(s["task"], s["metric"]), direction(s))
            table.add_row(*name, *_cells(s), *(_cells(dropped[name]) if name in dropped else ()))
    console().print(table)


def _cells(score: dict) -> tuple[str, str, str]:
    """(value, interval, n) as they are shown."""
    from sdrrl_eval.show import number

    value, low, high = (number(score["metric"], v) for v in (score["value"], *score["ci95"]))
    return value, f"{low} to {high}", str(score["n"])
