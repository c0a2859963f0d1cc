"""Runs an evaluation recipe: checks, generates, scores, writes predictions/ and results.json."""

import json
import platform
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sdrrl_factory
from sdrrl_eval.measure.answers import Answers
from sdrrl_eval.measure.overlap import DROPPED, Overlap, check_list, find_overlap, print_overlap, write_list
from sdrrl_eval.measure.recipe import EvalConfig, check
from sdrrl_eval.measure.task import Part, Scored
from sdrrl_factory.errors import UserError, under
from sdrrl_factory.files import atomic_write, refuse_foreign, write_jsonl
from sdrrl_factory.models.checkpoint import model_hash
from sdrrl_factory.models.lm import Generation
from sdrrl_factory.models.remembered import set_keys


def run(
    config: EvalConfig,
    recipe_path: str,
    training_files: Sequence[str] = (),
    overlap_list: str | None = None,
) -> dict[str, Any]:
    """Evaluate `config.model`; returns what output_dir/results.json holds.

    Everything that can be checked without the model is checked before it is loaded. The same inputs write the same
    bytes, however often the run was killed on the way.

    Args:
        recipe_path: for results.json.
        training_files: as of `find_overlap`; each score is then computed once more without the items that stand in
            them.
        overlap_list: where these are listed (.jsonl or .csv); None is overlap.jsonl in the output_dir.

    Raises: UserError about a key of the recipe, or at a line of a file.
    """
    # 1. What can be wrong without a model: the keys, the files, what the scores need, the output.
    parts = plan(config)
    out = _writable(config.output_dir, parts)
    listed = overlap_list or str(out / "overlap.jsonl")
    overlap = _overlap(parts, training_files, listed) if training_files else None
    # 2. All that the model is asked: each distinct prompt once, however many parts have it; then the likelihoods.
    model = Answers(config)
    by_prompt = _generate(model, parts, config.batch_size)
    likelihoods = [part.config.likelihoods(part, model, config.batch_size) for part in parts]
    # 3. The scores, a part at a time; what is written is there even if a later part fails.
    scores: list[dict[str, Any]] = []
    conditions: dict[str, dict[str, Any]] = {}
    for part, values in zip(parts, likelihoods, strict=True):
        answers = [by_prompt[item.prompt, part.max_new_tokens] for item in part.items if item.prompt is not None]
        rows, part_scores = _score(part, answers, values, config)
        conditions[part.name] = _conditions(part, answers)
        if overlap:
            rows = [row | {"overlap": overlap.kind(part, item.id)} for row, item in zip(rows, part.items, strict=True)]
            part_scores += _without_overlap(overlap, part, answers, values, config)
            conditions[part.name]["overlap"] = overlap.counts(part)
        write_jsonl(out / "predictions" / f"{part.name}.jsonl", rows)
        scores += part_scores
        print(", ".join([f"{part.name}: {len(rows)} items", *_troubles(answers)]), flush=True)
    # 4. results.json last: where it is, the evaluation is whole.
    results = {
        "model": f"{config.model} + {config.adapter}" if config.adapter else config.model,
        "model_hash": None if config.server else model_hash(config.model, config.adapter),
        "recipe": recipe_path,
        "versions": _versions(config),
        "decoding": _decoding(config, model),
        "scores": scores,
        "parts": conditions,
    }
    if overlap:
        results["overlap"] = {"files": overlap.files, "list": listed}
    path = out / "results.json"
    atomic_write(path, json.dumps(results, ensure_ascii=False, indent=2) + "\n")
    _print_scores(scores)
    print(f"scores: {path}")
    return results


def plan(config: EvalConfig, scoring: bool = True) -> list[Part]:
    """Every part of the recipe, read and checked; no model is touched.

    scoring: whether what the scores need (likelihoods, tokenizers, COMET, language identification) must be there too.
    """
    check(config)
    parts: list[Part] = []
    for i, task in enumerate(config.tasks):
        with under(f"tasks.{i}"):
            if scoring:
                fix = task.without_likelihoods()
                if config.server and fix:
                    raise UserError(f"{task.task} needs likelihoods, which a server does not give", fix)
                task.check()
            for part in task.read():
                if part.name in {other.name for other in parts}:
                    raise UserError(f"{part.name} is asked twice", "remove one")
                limit = task.max_new_tokens or config.max_new_tokens
                parts.append(replace(part, items=part.items[: config.max_samples], max_new_tokens=limit))
    return parts


def _overlap(parts: list[Part], training_files: Sequence[str], listed: str) -> Overlap:
    check_list(listed)
    overlap = find_overlap(parts, training_files)
    print_overlap(overlap)
    write_list(listed, overlap)
    return overlap


def _score(part: Part, answers: list[Generation], likelihoods: list[Any], config: EvalConfig) -> Scored:
    with under(f"tasks.{config.tasks.index(part.config)}"):
        return part.config.score(part, answers, likelihoods, config.seed)


def _without_overlap(
    overlap: Overlap, part: Part, answers: list[Generation], likelihoods: list[Any], config: EvalConfig
) -> list[dict[str, Any]]:
    """The part's scores without the items that overlap; none where all of them do."""
    kept = overlap.kept(part)
    if not kept:
        print(f"{part.name}: all {len(part.items)} items overlap, no score without them")
        return []
    left = replace(part, items=[part.items[i] for i in kept])
    left_answers = [answers[i] for i in kept] if answers else []
    left_likelihoods = [likelihoods[i] for i in kept] if likelihoods else []
    _, scores = _score(left, left_answers, left_likelihoods, config)
    return [score | {"signature": f"{score['signature']}|{DROPPED}"} for score in scores]


def _writable(folder: str, parts: list[Part]) -> Path:
    """The folder, tried before hours of work; what another program wrote there is not replaced."""
    out = Path(folder)
    refuse_foreign(out / "results.json", '"sdrrl_factory": ', '"model_hash": ')
    for part in parts:
        refuse_foreign(out / "predictions" / f"{part.name}.jsonl", '"prompt": ')
    try:
        (out / "predictions").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out / "predictions"):
            pass
    except OSError as err:
        what = f"{folder} cannot be written ({err.strerror})"
        raise UserError(what, "name another folder", key="output_dir") from None
    return out


def _generate(model: Answers, parts: list[Part], batch_size: int) -> dict[tuple[str, int], Generation]:
    """(prompt, max_new_tokens) -> its answer, each asked once: off_target and instructions share their answers."""
    # A dict keeps the order and drops what comes twice.
    prompts_by_limit: dict[int, dict[str, None]] = {}
    for part in parts:
        for item in part.items:
            if item.prompt is not None:
                prompts_by_limit.setdefault(part.max_new_tokens, {})[item.prompt] = None
    answers = {}
    for limit, prompts in prompts_by_limit.items():
        generations = model.generate(list(prompts), limit, batch_size)
        answers.update({(prompt, limit): answer for prompt, answer in zip(prompts, generations, strict=True)})
    return answers


def _conditions(part: Part, answers: list[Generation]) -> dict[str, Any]:
    """What a reader needs to ask the same again: the prompt, the limit, why the answers ended."""
    conditions: dict[str, Any] = {"path": part.config.path, "n": len(part.items)}
    if part.prompt:
        conditions["prompt"] = part.prompt
    if answers:
        finish = Counter(answer.finish for answer in answers)
        empty = sum(not answer.text for answer in answers)
        conditions |= {"max_new_tokens": part.max_new_tokens, "finish": dict(sorted(finish.items())), "empty": empty}
    return conditions


def _troubles(answers: list[Generation]) -> Iterator[str]:
    """What is to be said of a part's answers: how many are empty, how many a server did not give, and why."""
    failed = Counter(answer.finish for answer in answers if answer.finish.startswith("error: "))
    empty = sum(not answer.text for answer in answers) - failed.total()
    if empty:
        yield f"{empty} answers empty"
    for why, count in failed.items():
        yield f"{count} without an answer ({why.removeprefix('error: ')})"


def _decoding(config: EvalConfig, model: Answers) -> dict[str, Any]:
    how = {"strategy": "greedy", "template": config.template, "batch_size": config.batch_size}
    how |= {"max_samples": config.max_samples, "seed": config.seed}
    how |= set_keys(enable_thinking=config.enable_thinking, chat_template_kwargs=config.chat_template_kwargs)
    how |= set_keys(extra_body=config.server.extra_body) if config.server else {}
    return how | ({"server": config.server.base_url} if config.server else model.conditions())


def _versions(config: EvalConfig) -> dict[str, str]:
    """Of every library that a number depends on."""
    names = ["openai"] if config.server else ["torch", "transformers", "tokenizers"]
    if config.template:
        names.append("llamafactory")
    if config.adapter:
        names.append("peft")
    names += ["numpy", "sacrebleu"]
    versions = {"python": platform.python_version(), "sdrrl_factory": sdrrl_factory.__version__}
    versions |= {name: version(name) for name in names}
    for task in config.tasks:
        versions |= task.libraries()
    return versions


def _print_scores(scores: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from sdrrl_eval.show import console, direction, label

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("score", "language"):
        table.add_column(name)
    # The scores without the items that overlap stand in the rows of those with them.
    dropped = {(label(s["task"], s["metric"]), direction(s)): s for s in scores if DROPPED in s["signature"]}
    columns = ["value", "95% interval", "n"]
    if dropped:
        columns += ["without overlap", "95% interval", "n"]
    for name in columns:
        table.add_column(name, justify="right")
    for score in scores:
        if DROPPED in score["signature"]:
            continue
        row = (label(score["task"], score["metric"]), direction(score))
        table.add_row(*row, *_cells(score), *(_cells(dropped[row]) if row in dropped else ()))
    console().print(table)


def _cells(score: dict[str, Any]) -> tuple[str, str, str]:
    """(value, interval, n) as they are shown."""
    from sdrrl_eval.show import number

    value, low, high = (number(score["metric"], v) for v in (score["value"], *score["ci95"]))
    return value, f"{low} to {high}", str(score["n"])
