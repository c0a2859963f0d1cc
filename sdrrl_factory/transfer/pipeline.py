"""`sdrrl prepare`: the stages in order, read top to bottom like the paper's section 3.2."""

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import read_jsonl, sha256
from sdrrl_factory.languages import language
from sdrrl_factory.lm import check_checkpoint
from sdrrl_factory.transfer import parallel, sources, wishes
from sdrrl_factory.transfer.codeswitch import switch_batch
from sdrrl_factory.transfer.dictionaries import freedict, inverted
from sdrrl_factory.transfer.filters import filter_batch
from sdrrl_factory.transfer.generate import TransformersGenerator
from sdrrl_factory.transfer.quality import score
from sdrrl_factory.transfer.recipe import PrepareConfig
from sdrrl_factory.transfer.register import read_info, register
from sdrrl_factory.transfer.sampling import draw, settle
from sdrrl_factory.transfer.store import Batch, Stage, Store
from sdrrl_factory.transfer.subsets import SUBSETS, row, rows_of_record
from sdrrl_factory.transfer.translate import translate_texts
from sdrrl_factory.transfer.translate.apertium import Apertium
from sdrrl_factory.transfer.translate.memory import TranslationMemory

Place = Callable[[str], str]


def prepare(config: PrepareConfig, place: Place) -> list[str]:
    """Make the six subsets of one target language; returns their names in dataset_info.json.

    place: where a recipe key stands (file:line), for errors.
    """
    source, target = config.source_lang, config.target_lang
    language(source, place("source_lang"))
    iso1 = language(target, place("target_lang")).iso1
    if source == target:
        raise UserError(f"{place('target_lang')}: target_lang is the source language {source}; choose another")
    translator = Apertium(
        [(source, target)] + [(target, source)] * (config.quality.backend == "roundtrip"),
        place("target_lang"),
    )
    if config.answer_language != "none":
        wishes.check(source, target, place("answer_language"))
    forward, backward = {}, {}
    if config.code_switch.probability:
        forward = freedict(source, target, place("code_switch.dictionary"))
        backward = inverted(forward)
    pairs = []
    if config.parallel.size:
        pairs = parallel.gettext(source, target, config.parallel.size, config.seed, place("parallel.source"))
    read_info(Path(config.dataset_dir) / "dataset_info.json")
    paths = [config.instructions] if isinstance(config.instructions, str) else config.instructions
    records, left_out = sources.read(paths, config.max_samples)
    check_checkpoint(config.generator.model, place("generator.model"))
    generator = TransformersGenerator(config.generator, config.seed, place("generator"))

    work = Path(config.work_dir)
    memory = TranslationMemory(work / "translations.sqlite")
    threshold = config.quality.threshold if config.quality.backend != "none" else None

    def translate(batch: Batch) -> Batch:
        """+ instruction_mt, input_mt, answer_mt; null where a sentence could not be translated."""
        out = dict(batch)
        for column in ("instruction", "input", "answer"):
            out[f"{column}_mt"] = translate_texts(batch[column], translator, memory, source, target)
        return out

    def estimate(batch: Batch) -> Batch:
        if threshold is None:
            return {**batch, "question_qe": [None] * len(batch["id"]), "answer_qe": [None] * len(batch["id"])}
        return score(batch, lambda texts: translate_texts(texts, translator, memory, target, source))

    def filtered(batch: Batch) -> Batch:
        return filter_batch(batch, config.filters, threshold, iso1 if config.language_id.backend != "none" else None)

    ways = {"source": source, "target": target}
    stages = [
        Stage(
            "sample",
            lambda batch: draw(batch, config.sampling.keep_ground_truth, config.seed),
            {**dataclasses.asdict(config.sampling), "seed": config.seed},
        ),
        Stage("generate", generator, {**dataclasses.asdict(config.generator), "checkpoint": generator.identity()}),
        Stage("settle", settle, {}),
        Stage("translate", translate, {**ways, "translator": translator.name}),
        Stage("score", estimate, {**ways, "translator": translator.name, "backend": config.quality.backend}),
        Stage(
            "filter",
            filtered,
            {
                **ways,
                **dataclasses.asdict(config.filters),
                "threshold": threshold,
                "language_id": config.language_id.backend,
            },
        ),
        Stage(
            "switch",
            lambda batch: switch_batch(batch, forward, backward, config.code_switch.probability, config.seed),
            {
                **ways,
                **dataclasses.asdict(config.code_switch),
                "entries": sha256(json.dumps(forward, sort_keys=True)),
                "seed": config.seed,
            },
        ),
    ]

    run = work / f"{config.name}_{target}"
    run.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run / ".lock", timeout=0):
            shards = _run(stages, Store(run), records, config.shard_size, generator)
            finished = [record for shard in shards for _, record in read_jsonl(shard)]
            subsets = _assemble(finished, pairs, config)
            names = register(Path(config.dataset_dir), config.name, target, subsets)
    except Timeout:
        raise UserError(f"{run}: another `sdrrl prepare` is at work here; wait for it or set work_dir") from None
    finally:
        memory.close()
    _print_summary(subsets, finished, left_out, names, config)
    return names


def _run(stages: list[Stage], store: Store, records: list[dict], size: int, generator) -> list[Path]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console()
    bar = (
        TextColumn("{task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    shards = store.write_shards(records, size)
    with Progress(*bar, console=console, disable=not console.is_terminal) as progress:
        for stage in stages:
            began = time.monotonic()
            count = _Count(progress, progress.add_task(stage.name, total=len(records)))
            generator.progress = count.within_shard
            shards = store.run(stage, shards, count.shard)
            if not console.is_terminal:
                again = f", {count.reused} of {len(shards)} shards reused" if count.reused else ""
                print(f"{stage.name:9} {count.rows} records in {time.monotonic() - began:.1f} s{again}", flush=True)
    return shards


class _Count:
    """What one stage has done, told to its bar: whole shards, and records inside the shard in work."""

    def __init__(self, progress, task):
        self.progress, self.task = progress, task
        self.rows = self.reused = self.inside = 0

    def within_shard(self, rows: int) -> None:
        self.inside += rows
        self.progress.update(self.task, completed=self.rows + self.inside)

    def shard(self, rows: int, reused: bool) -> None:
        self.rows, self.reused, self.inside = self.rows + rows, self.reused + reused, 0
        self.progress.update(self.task, completed=self.rows)


def _assemble(records: list[dict], pairs: list, config: PrepareConfig) -> dict[str, list[dict]]:
    source, target = config.source_lang, config.target_lang
    subsets: dict[str, list[dict]] = {subset: [] for subset in SUBSETS}
    for record in records:
        for subset, line in rows_of_record(record, source, target, config.answer_language).items():
            subsets[subset].append(line)
    natural = {
        "mt": parallel.translation_rows(pairs, source, target),
        "comp": parallel.completion_rows(pairs, target, config.seed),
    }
    for subset, rows in natural.items():
        for r in rows:
            subsets[subset].append(row(subset, r["id"], r["instruction"], r["input"], r["output"], source, target, "P"))
    return subsets


def _print_summary(subsets, records, left_out: Counter, names: list[str], config: PrepareConfig) -> None:
    from rich.console import Console
    from rich.table import Table

    reasons = {side: Counter() for side in ("question", "answer", "generation")}
    for record in records:
        for reason in record["reasons"]:
            side, _, why = reason.partition(": ")
            reasons[side][why] += 1

    def told(*counters: Counter) -> str:
        both = sum(counters, Counter())
        return ", ".join(f"{n} {why}" for why, n in both.most_common()) or "-"

    table = Table(title=f"{config.name}: {config.source_lang} to {config.target_lang}, {len(records)} records")
    table.add_column("subset")
    table.add_column("rows", justify="right")
    table.add_column("rejected", justify="right")
    table.add_column("mean words Q / A", justify="right")
    table.add_column("reasons")
    why = {"TL": (reasons["question"],), "LT": (reasons["answer"],), "TT": (reasons["question"], reasons["answer"])}
    for subset, rows in subsets.items():
        rejected = str(len(records) - len(rows)) if subset.isupper() else "-"
        asked = sum(len(f"{r['instruction']} {r['input']}".split()) for r in rows) / max(len(rows), 1)
        answered = sum(len(r["output"].split()) for r in rows) / max(len(rows), 1)
        told_why = told(*why[subset]) if subset in why else "-"
        table.add_row(subset, str(len(rows)), rejected, f"{asked:.1f} / {answered:.1f}", told_why)
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(table)
    words, known, switched = (sum(r["switch_counts"][k] for r in records) for k in range(3))
    own = sum(r["answer_origin"] == "G" for r in records)
    print(f"left out on reading: {told(left_out)}")
    print(f"answers: {own} the model's own, {len(records) - own} ground truth")
    hint = " (raise generator.max_new_tokens to keep more)" if reasons["generation"]["cut off"] else ""
    print(f"own answers given up for the ground truth: {told(reasons['generation'])}{hint}")
    rates = f"{known / max(words, 1):.0%} known, {switched / max(known, 1):.1%} of the known switched"
    print(f"code-switching: {words} words, {rates}")
    print(f"registered in {config.dataset_dir}/dataset_info.json; in a train recipe:")
    print(f"dataset: {','.join(names)}")
