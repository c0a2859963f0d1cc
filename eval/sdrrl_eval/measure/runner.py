"""Runs an evaluation recipe: checks, generates, scores, writes predictions/ and results.json."""

import hashlib
import json
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sdrrl_factory
from sdrrl_eval import remarks
from sdrrl_eval.measure.answers import Answers
from sdrrl_eval.measure.limits import Fit, answer_limit, fit
from sdrrl_eval.measure.metrics import comet
from sdrrl_eval.measure.overlap import DROPPED, Overlap, check_list, find_overlap, print_overlap, write_list
from sdrrl_eval.measure.recipe import EvalConfig, check
from sdrrl_eval.measure.task import Asking, Item, Part, PromptedTask, Scored, Task
from sdrrl_factory.engine import Engine, connect
from sdrrl_factory.errors import UserError, under
from sdrrl_factory.files import atomic_write, recording, refuse_foreign, sha256_file, write_jsonl
from sdrrl_factory.log import is_quiet, log_file, say, warn
from sdrrl_factory.models.checkpoint import model_hash
from sdrrl_factory.models.hub import local_folder
from sdrrl_factory.models.lm import Generation
from sdrrl_factory.models.remembered import set_keys


@dataclass(frozen=True)
class Plan:
    """What a recipe asks, read and checked. data: path -> SHA-256 of every file that the items come from."""

    parts: list[Part]
    data: dict[str, str]


@dataclass(frozen=True)
class Answered:
    """All that one checkpoint was asked, before anything is scored: a part's answers and likelihoods, in its order.

    config: of this checkpoint. started: in seconds since 1970. seconds: that the asking took.
    """

    config: EvalConfig
    fits: list[Fit]
    answers: list[list[Generation]]
    likelihoods: list[list[Any]]
    decoding: dict[str, Any]
    started: float
    seconds: float


def run(
    config: EvalConfig,
    recipe_path: str,
    training_files: Sequence[str] = (),
    overlap_list: str | None = None,
) -> dict[str, Any]:
    """Evaluate `config.model`; returns what output_dir/results.json holds.

    Everything that can be checked without the model is checked before it is loaded. The same inputs write the same
    bytes, but for the times, however often the run was killed on the way.

    Args:
        recipe_path: for results.json.
        training_files: as of `find_overlap`; each score is then computed once more without the items that stand in
            them.
        overlap_list: where these are listed (.jsonl or .csv); None is overlap.jsonl in the output_dir.

    Raises: UserError about a key of the recipe, or at a line of a file.
    """
    # 1. What can be wrong without a model: the keys, the files, what the scores need, the output.
    whole = read_plan(config)
    out = writable(config.output_dir, whole.parts)
    with log_file(out / "eval.log", f"sdrrl {sdrrl_factory.__version__} eval {recipe_path}"):
        overlap = overlap_of(whole.parts, training_files, overlap_list or str(out / "overlap.jsonl"))
        # 2. All that the model is asked; it leaves memory before COMET comes.
        answered = ask(config, whole.parts)
        # 3. The scores.
        results = write_scores(answered, whole, recipe_path, overlap)
        _print_scores(results["scores"])
        say(f"scores: {out / 'results.json'}")
        print_missing([results])
        return results


def ask(config: EvalConfig, parts: Sequence[Part]) -> Answered:
    """Each distinct prompt once, however many parts have it; then the likelihoods."""
    with connect(config.engine, {"output_dir": config.output_dir}, Path(config.output_dir, "ray")) as engine:
        if not config.server and local_folder(config.model):
            engine.agreed(partial(model_hash, config.model, config.adapter))
        return _ask_on(engine, config, parts)


def _ask_on(engine: Engine, config: EvalConfig, parts: Sequence[Part]) -> Answered:
    started = time.time()
    model = Answers(config, engine)
    model.check_likelihoods()
    fits = [fit(part, model, config.long_prompts) for part in parts]
    for fitting in fits:
        if not fitting.part.items:
            what = (
                f"{fitting.part.name}: no prompt leaves room for its answer in the context of {fitting.context} tokens"
            )
            fix = "take fewer max_new_tokens, no or fewer examples, or another model"
            raise UserError(what, fix, key=f"tasks.{config.tasks.index(fitting.part.config)}")
    fitted = [fitting.part for fitting in fits]
    by_prompt = _generate(model, fitted, config.batch_size)
    answers = [
        [by_prompt[part.asking, item.prompt] for item in part.items if item.prompt is not None] for part in fitted
    ]
    likelihoods = [part.config.likelihoods(part, model, config.batch_size) for part in fitted]
    decoding = _decoding(config, model)
    model.release()
    return Answered(config, fits, answers, likelihoods, decoding, started, time.time() - started)


def write_scores(
    answered: Answered, whole: Plan, recipe_path: str, overlap: tuple[Overlap, str] | None
) -> dict[str, Any]:
    """Score a part at a time and write its predictions: they are there even if a later part fails. results.json last:
    where it is, the evaluation is whole.
    """
    config, out, began = answered.config, Path(answered.config.output_dir), time.time()
    scores: list[dict[str, Any]] = []
    conditions: dict[str, dict[str, Any]] = {}
    for fitting, answers, values in zip(answered.fits, answered.answers, answered.likelihoods, strict=True):
        part = fitting.part
        with comet.remembering(config.memory_path()):
            rows, part_scores = _score(part, answers, values, config)
            if overlap:
                part_scores += _without_overlap(overlap[0], part, answers, values, config)
        rows = [row | ({"prompt_cut": True} if row["id"] in fitting.cut else {}) for row in rows]
        conditions[part.name] = _conditions(fitting, answers)
        if overlap:
            rows = [
                row | {"overlap": overlap[0].kind(part, item.id)} for row, item in zip(rows, part.items, strict=True)
            ]
            conditions[part.name]["overlap"] = overlap[0].counts(part)
        write_jsonl(out / "predictions" / f"{part.name}.jsonl", rows)
        scores += [_with_remarks(score, rows, fitting) for score in part_scores]
        say(", ".join([f"{part.name}: {len(rows)} items", *_troubles(fitting, answers)]))
    results = {
        "model": f"{config.model} + {config.adapter}" if config.adapter else config.model,
        "model_hash": None if config.server else model_hash(config.model, config.adapter),
        "recipe": recipe_path,
        "versions": _versions(config),
        "decoding": answered.decoding,
        "scores": scores,
        "parts": conditions,
        "config": config.model_dump(mode="json"),
        "data": whole.data,
    }
    if overlap:
        results["overlap"] = {"files": overlap[0].files, "list": overlap[1]}
    results["times"] = {
        "started": datetime.fromtimestamp(answered.started, UTC).isoformat(timespec="seconds"),
        "answers_s": round(answered.seconds, 1),
        "scores_s": round(time.time() - began, 1),
    }
    atomic_write(out / "results.json", json.dumps(results, ensure_ascii=False, indent=2) + "\n")
    return results


def plan(config: EvalConfig, scoring: bool = True) -> list[Part]:
    """Every part of the recipe, read and checked; no model is touched.

    scoring: whether what the scores need (likelihoods, tokenizers, COMET, language identification) must be there too.
    """
    return read_plan(config, scoring).parts


def read_plan(config: EvalConfig, scoring: bool = True) -> Plan:
    """The same with the files that were read."""
    check(config)
    parts: list[Part] = []
    data: dict[str, str] = {}
    for i, task in enumerate(config.tasks):
        with under(f"tasks.{i}"):
            if scoring:
                task.check()
            with recording() as paths:
                read = task.read()
            # A file that another task has read is not read again.
            files = sorted(path for path in paths | {task.path} if Path(path).is_file())
            data |= {path: sha256_file(path) for path in files if path not in data}
            _refuse_one_file_for_two(read)
            for part in read:
                if part.name in {other.name for other in parts}:
                    raise UserError(f"{part.name} is asked twice", "remove one")
                limit = answer_limit(task, part.target_lang, config.max_new_tokens)
                how = _prompting(task, part, config)
                parts.append(replace(part, items=_drawn(part, config), max_new_tokens=limit, **how))
    return Plan(parts, data)


def _prompting(task: Task, part: Part, config: EvalConfig) -> dict[str, Any]:
    """What stands before the part's prompts and what ends their answers."""
    if not isinstance(task, PromptedTask) or not part.is_asked:
        return {}
    system = (config.system_prompt or "") if task.system_prompt is None else task.system_prompt
    if task.stop is not None:
        return {"system_prompt": system, "stop": tuple(task.stop)}
    # LLaMA-Factory's template without a chat format: the model goes on with the text.
    is_plain = config.template == "empty" and not config.server
    return {"system_prompt": system, "stop": task.stops(part.prompt) if is_plain else ()}


def _drawn(part: Part, config: EvalConfig) -> list[Item]:
    """`max_samples` items of the file, in its order; by seed and id, so that they are parallel in all languages."""
    if config.max_samples is None or config.draw == "first":
        return part.items[: config.max_samples]
    ranks = {item.id: hashlib.sha256(f"{config.seed} {item.id}".encode()).digest() for item in part.items}
    chosen = set(sorted(ranks, key=ranks.__getitem__)[: config.max_samples])
    return [item for item in part.items if item.id in chosen]


def _refuse_one_file_for_two(parts: Sequence[Part]) -> None:
    """A file that is read as two languages would be scored as the one and the other."""
    languages: dict[str, str] = {}
    for part in parts:
        texts = json.dumps([item.texts for item in part.items], ensure_ascii=False)
        other = languages.setdefault(texts, part.target_lang)
        if other != part.target_lang and part.source_lang is None:
            what = f"{other} and {part.target_lang} have the same texts"
            raise UserError(what, "name a file for each language, as by {lang} or {flores}", key="path")


def overlap_of(parts: list[Part], training_files: Sequence[str], list_path: str) -> tuple[Overlap, str] | None:
    """(the items that stand in these files, told and listed; the path of the list), or None without files."""
    if not training_files:
        return None
    check_list(list_path)
    overlap = find_overlap(parts, training_files)
    print_overlap(overlap)
    write_list(list_path, overlap)
    return overlap, list_path


def _score(part: Part, answers: list[Generation], likelihoods: list[Any], config: EvalConfig) -> Scored:
    with under(f"tasks.{config.tasks.index(part.config)}"):
        return part.config.score(part, answers, likelihoods, config.seed)


def _without_overlap(
    overlap: Overlap, part: Part, answers: list[Generation], likelihoods: list[Any], config: EvalConfig
) -> list[dict[str, Any]]:
    """The part's scores without the items that overlap; none where all of them do."""
    kept = overlap.kept(part)
    if not kept:
        say(f"{part.name}: all {len(part.items)} items overlap, no score without them")
        return []
    left = replace(part, items=[part.items[i] for i in kept])
    left_answers = [answers[i] for i in kept] if answers else []
    left_likelihoods = [likelihoods[i] for i in kept] if likelihoods else []
    _, scores = _score(left, left_answers, left_likelihoods, config)
    return [score | {"signature": f"{score['signature']}|{DROPPED}"} for score in scores]


def writable(folder: str, parts: list[Part]) -> Path:
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


def _generate(model: Answers, parts: list[Part], batch_size: int) -> dict[tuple[Asking, str], Generation]:
    """(how it is asked, prompt) -> its answer, each asked once: off_target and instructions share their answers."""
    # A dict keeps the order and drops what comes twice.
    prompts_by_asking: dict[Asking, dict[str, None]] = {}
    for part in parts:
        for item in part.items:
            if item.prompt is not None:
                prompts_by_asking.setdefault(part.asking, {})[item.prompt] = None
    answers = {}
    for asking, prompts in prompts_by_asking.items():
        systems = [asking.system_prompt] * len(prompts) if asking.system_prompt else None
        generations = model.generate(
            list(prompts), asking.max_new_tokens, batch_size, systems=systems, stop=asking.stop
        )
        # Without their tokens: of many checkpoints, all answers are in memory at once.
        texts = [Generation(answer.text, answer.finish) for answer in generations]
        answers.update({(asking, prompt): answer for prompt, answer in zip(prompts, texts, strict=True)})
    return answers


def _conditions(fitting: Fit, answers: list[Generation]) -> dict[str, Any]:
    """What a reader needs to ask the same again: the prompt, the limit, why the answers ended."""
    part = fitting.part
    conditions: dict[str, Any] = {"path": part.config.path, "n": len(part.items)}
    if part.prompt:
        conditions["prompt"] = part.prompt
    if isinstance(part.config, PromptedTask) and part.config.shots:
        conditions["shots"] = part.config.shots
    if answers:
        finish = Counter(answer.finish for answer in answers)
        empty = sum(not answer.text for answer in answers)
        conditions |= {"max_new_tokens": part.max_new_tokens, "finish": dict(sorted(finish.items())), "empty": empty}
        conditions |= set_keys(system_prompt=part.system_prompt or None, stop=list(part.stop) or None)
    if fitting.cut or fitting.left_out:
        conditions |= {"context": fitting.context, "cut": len(fitting.cut), "left_out": sorted(fitting.left_out)}
    return conditions


def _with_remarks(score: dict[str, Any], rows: Sequence[Mapping[str, Any]], fitting: Fit) -> dict[str, Any]:
    """The entry with what a reader must know of its answers, where there is something."""
    if DROPPED in score["signature"]:
        rows = [row for row in rows if not row["overlap"]]
    counts = remarks.of_rows(rows, score["signature"])
    if fitting.left_out:
        counts["left_out"] = len(fitting.left_out)
    return score | ({"remarks": counts} if counts else {})


def _troubles(fitting: Fit, answers: list[Generation]) -> Iterator[str]:
    """What is to be said of a part's answers: how many are empty, cut off or did not come, and why; of its prompts."""
    failed = Counter(answer.finish for answer in answers if answer.finish.startswith("error: "))
    empty = sum(not answer.text for answer in answers) - failed.total()
    cut_off = sum(answer.finish == "length" for answer in answers)
    if empty:
        yield f"{empty} answers empty"
    if cut_off:
        yield f"{cut_off} of {len(answers)} cut off at {fitting.part.max_new_tokens} tokens"
    for why, count in failed.items():
        yield f"{count} without an answer ({why.removeprefix('error: ')})"
    for count, what in ((len(fitting.cut), "cut"), (len(fitting.left_out), "left out")):
        if count:
            yield f"{count} prompts {what}: longer than the context of {fitting.context} tokens"


def has_missing_answers(results: Mapping[str, Any]) -> bool:
    """Whether a server did not give some of the answers; results: what results.json holds, or several of them."""
    return any(map(missing_answers, results.get("evaluations", [results])))


def missing_answers(results: Mapping[str, Any]) -> int:
    """How many answers a server did not give."""
    ends = (end for part in results["parts"].values() for end in part.get("finish", {}).items())
    return sum(count for end, count in ends if end.startswith("error: "))


def print_missing(evaluations: Sequence[Mapping[str, Any]]) -> None:
    """Say that a score is not yet what it will be."""
    missing = sum(map(missing_answers, evaluations))
    if missing:
        warn(f"{missing} answers did not come and are scored as empty; the same command asks for them again")


def _decoding(config: EvalConfig, model: Answers) -> dict[str, Any]:
    how = {"strategy": "greedy", "template": config.template, "batch_size": config.batch_size}
    how |= {"max_samples": config.max_samples, "seed": config.seed}
    how |= {"draw": config.draw} if config.max_samples else {}
    how |= set_keys(enable_thinking=config.enable_thinking, chat_template_kwargs=config.chat_template_kwargs)
    how |= set_keys(extra_body=config.server.extra_body) if config.server else {}
    if "temperature" in model.left_out():
        how["strategy"] = "the server's own: it refuses a temperature"
    if config.server and any(task.without_likelihoods() for task in config.tasks):
        how["tokenizer"] = config.server.tokenizer or config.model
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
    has_remarks = any("remarks" in score for score in scores)
    if has_remarks:
        table.add_column("answers")
    for score in scores:
        if DROPPED in score["signature"]:
            continue
        row = (label(score["task"], score["metric"]), direction(score))
        other = _cells(dropped[row]) if row in dropped else ("", "", "") if dropped else ()
        table.add_row(*row, *_cells(score), *other, *([remarks.words(score)] if has_remarks else []))
    if not is_quiet():
        console().print(table)


def _cells(score: dict[str, Any]) -> tuple[str, str, str]:
    """(value, interval, n) as they are shown."""
    from sdrrl_eval.show import number

    value, low, high = (number(score["metric"], v) for v in (score["value"], *score["ci95"]))
    return value + remarks.marks(score), f"{low} to {high}", str(score["n"])
