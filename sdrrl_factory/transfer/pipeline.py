"""`sdrrl prepare`: the stages in order, read top to bottom like the paper's section 3.2."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.files import sha256
from sdrrl_factory.language_id import Identifier
from sdrrl_factory.languages import language
from sdrrl_factory.memory import Memory, beside
from sdrrl_factory.transfer import card, generate, parallel, quality, report, sources, translate
from sdrrl_factory.transfer.codeswitch import switch_batch
from sdrrl_factory.transfer.dictionaries import Dictionary
from sdrrl_factory.transfer.dictionaries import load as load_dictionary
from sdrrl_factory.transfer.filters import filter_batch
from sdrrl_factory.transfer.recipe import PrepareConfig
from sdrrl_factory.transfer.register import DataSets, read_info
from sdrrl_factory.transfer.sampling import draw, settle
from sdrrl_factory.transfer.store import Batch, Stage, Store, read_rows
from sdrrl_factory.transfer.subsets import natural_row, rows_of_record, sides
from sdrrl_factory.transfer.summary import Summary
from sdrrl_factory.transfer.translate import Engine, Translator

Place = Callable[[str], str]


@dataclass
class Target:
    """What one target language needs beside the model and the translator."""

    code: str
    pairs: list[tuple[str, str, str]]
    sentences: list[tuple[str, str]]  # monolingual, for D_comp
    forward: Dictionary
    backward: Dictionary


def prepare(config: PrepareConfig, place: Place) -> list[str]:
    """Make the data sets of every target language; returns their names in dataset_info.json.

    place: where a recipe key stands (file:line), for errors. Everything that can be checked is, before any work.
    """
    targets, translator = check(config, place)
    memory = memory_of(config)
    generator = generate.make(config.generator, config.seed, memory) if "sdrrl" in config.systems else None
    identifier = _identifier(config, place)
    work = Path(config.work_dir)
    with memory:
        memory.take_translations(work / "translations.sqlite")
        engine = Engine(translator, memory, config.translator.via) if translator else None
        scorers = [_scorer(config, place, engine, target.code) if engine else None for target in targets]

        common = Store(work / config.name)
        common.root.mkdir(parents=True, exist_ok=True)
        reading = sources.Reading(config.instructions, config.max_samples)
        # Other targets' runs share these stages: the first one does the work.
        with FileLock(common.root / ".lock"):
            has_system: list[bool] = []
            with under("instructions"):
                shards = common.write_shards(_noting_systems(reading, has_system), config.shard_size)
            for line in reading.formats:
                print(f"reading   {line}", flush=True)
            shards = _run(_common_stages(config, generator, identifier), common, shards, generator)
        names = []
        for i, target in enumerate(targets):
            stages = _target_stages(config, target, engine, scorers[i], identifier, place)
            summary = Summary(config, target.code)
            summary.left_out, summary.formats = reading.left_out, reading.formats
            summary.facts = _facts(config, target, engine, generator)
            store = Store(work / f"{config.name}_{target.code}")
            store.root.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(store.root / ".lock", timeout=0):
                    done = _run(stages, store, shards)
                    summary.names = assemble(read_rows(done), target, config, summary, bool(has_system))
                    card.write(Path(config.dataset_dir) / f"{config.name}_{target.code}" / "README.md", summary)
                    report.write(store.root / "report.html", summary)
            except Timeout:
                raise UserError(
                    f"{store.root}: another `sdrrl prepare` is at work here; wait or set work_dir"
                ) from None
            summary.print()
            print(f"report: {store.root / 'report.html'}")
            names += summary.names
    if len(targets) > 1:
        print(f"all languages: dataset: {','.join(names)}")
    return names


def check(config: PrepareConfig, place: Place) -> tuple[list[Target], Translator | None]:
    """Read and check everything a mistake can be in, but no model; the last is what is slowest to read."""
    source = config.source_lang
    with under("source_lang"):
        language(source)
    codes = [config.target_lang] if isinstance(config.target_lang, str) else config.target_lang
    for i, code in enumerate(codes):
        key = "target_lang" if isinstance(config.target_lang, str) else f"target_lang.{i}"
        at = place(key)
        with under(key):
            language(code)
        if code == source:
            raise UserError(f"{at}: target_lang is the source language {source}; choose another")
        if code in codes[:i]:
            raise UserError(f"{at}: {code} stands twice; remove one")
    for i, code in enumerate(config.translator.via):
        with under(f"translator.via.{i}"):
            language(code)
    if len(set(config.systems)) < len(config.systems):
        raise UserError(f"{place('systems')}: a system stands twice in {config.systems}; remove one")
    if not config.name or not all(c.isalnum() or c in "-_." for c in config.name):
        raise UserError(f"{place('name')}: {config.name!r} cannot be a folder's name; use letters, digits, - and _")
    read_info(Path(config.dataset_dir) / "dataset_info.json")
    with under("instructions"):
        sources.check(config.instructions)
    with under("parallel"):
        parallel.check(config.parallel)
    translator = None
    if sides(config.systems) and config.translator.backend != "none":
        hops = [hop for code in codes for hop in translate.route(source, code, config.translator.via)]
        if config.quality.backend == "roundtrip":
            hops += [hop[::-1] for hop in hops]
        translator = translate.make(config.translator, list(dict.fromkeys(hops)), memory_of(config), place)
    return [_target(config, code, place) for code in codes], translator


def memory_of(config: PrepareConfig) -> Memory:
    """Where the answers of the translator and the generator are kept."""
    return Memory(Path(config.memory) if config.memory else beside(config.work_dir))


def _target(config: PrepareConfig, code: str, place: Place) -> Target:
    source, sdrrl = config.source_lang, "sdrrl" in config.systems
    pairs: list[tuple[str, str, str]] = []
    induced = config.code_switch.dictionary == "induced" and config.code_switch.probability > 0
    with under("parallel"):
        if config.parallel.size and (sdrrl or induced):
            pairs = parallel.load(config.parallel, source, code, config.seed)
        sentences = parallel.monolingual(config.parallel, code, config.seed) if sdrrl else []
    forward, backward = {}, {}
    if config.code_switch.probability and {"sdrrl", "xcot"} & set(config.systems):
        texts = [(a, b) for _, a, b in pairs]
        with under("code_switch.dictionary"):
            forward, backward = load_dictionary(config.code_switch.dictionary, source, code, texts)
    return Target(code, pairs, sentences, forward, backward)


def _common_stages(config: PrepareConfig, generator, identifier: Identifier | None) -> list[Stage]:
    """Up to D_synth nothing depends on the target language."""
    # Without SDRRL nothing is distilled: every answer is the ground truth.
    keep = config.sampling.keep_ground_truth if generator else 1.0
    source = config.source_lang

    def answer(batch: Batch) -> Batch:
        if generator:
            return generator(batch)
        return {**batch, "response": [None] * len(batch["id"]), "response_finish": [None] * len(batch["id"])}

    form = {**config.generator.model_dump(), "checkpoint": generator.identity()} if generator else {}
    # How it is run changes no answer.
    run = ("batch_size", "api_key_env", "concurrency", "timeout", "retries")
    form = {key: value for key, value in form.items() if key not in run}
    return [
        Stage("sample", lambda b: draw(b, keep, config.seed), {"keep_ground_truth": keep, "seed": config.seed}),
        Stage("generate", answer, {**form, "seed": config.seed}, version=2),
        Stage(
            "settle",
            lambda batch: settle(batch, source, identifier),
            {"source": source, "language_id": _named(identifier)},
            version=2,
        ),
    ]


def _target_stages(
    config: PrepareConfig, target: Target, engine: Engine | None, scorer, identifier, place
) -> list[Stage]:
    source, code = config.source_lang, target.code
    parts = sides(config.systems)
    threshold = quality.threshold(config.quality)
    ways = {"source": source, "target": code}
    rules = {**config.filters.model_dump(), "threshold": threshold, "language_id": _named(identifier)}
    scored = {"backend": config.quality.backend, "scorer": scorer.name if scorer else None}
    entries = sha256(json.dumps([target.forward, target.backward], sort_keys=True))
    probability = config.code_switch.probability
    stages = []
    if parts:
        stages += [
            Stage(
                "translate",
                lambda batch: translate_batch(batch, parts, engine, source, code),
                {**ways, "sides": parts, "translator": engine.name if engine else None},
                version=2,
            ),
            Stage(
                "score", lambda b: quality.score_batch(b, parts, scorer), {**ways, "sides": parts, **scored}, version=2
            ),
            Stage(
                "filter",
                lambda b: filter_batch(b, parts, config.filters, threshold, source, code, identifier),
                {**ways, **rules, "sides": parts},
                version=2,
            ),
        ]
    if {"sdrrl", "xcot"} & set(config.systems):
        stages.append(
            Stage(
                "switch",
                lambda b: switch_batch(
                    b, target.forward, target.backward, probability, config.seed, source, code
                ),
                {**ways, "probability": probability, "entries": entries, "seed": config.seed},
                version=2,
            )
        )
    return stages


_COLUMNS = {"question": ("instruction", "input"), "answer": ("answer",), "output": ("output",)}


def translate_batch(batch: Batch, parts: Iterable[str], engine: Engine | None, source: str, target: str) -> Batch:
    """+ instruction_mt, input_mt, answer_mt, output_mt (null where a sentence could not be translated), and why not."""
    out = dict(batch)
    none = [(None, "no translator")] * len(batch["id"])
    for side in parts:
        whys = [""] * len(batch["id"])
        for column in _COLUMNS[side]:
            made = engine.texts(batch[column], source, target) if engine else none
            out[f"{column}_mt"] = [text for text, _ in made]
            whys = [old or why for old, (_, why) in zip(whys, made, strict=True)]
        out[f"{side}_why"] = whys
    return out


def assemble(records: Iterable[dict], target: Target, config: PrepareConfig, summary: Summary, has_system: bool):
    """Finished records to data sets, streaming; returns their names in dataset_info.json."""
    source = config.source_lang
    with DataSets(Path(config.dataset_dir), config.name, target.code, config.systems, has_system) as sets:
        for record in records:
            rows = rows_of_record(record, config, target.code)
            for subset, lines in rows.items():
                for line in lines:
                    sets.write(subset, line)
            summary.add(record, rows)
        if "sdrrl" in config.systems:
            for subset, row in _natural(target, config):
                line = natural_row(subset, row, source, target.code)
                sets.write(subset, line)
                summary.add_natural(subset, line)
        return sets.register()


def _natural(target: Target, config: PrepareConfig) -> Iterator[tuple[str, dict]]:
    p = config.parallel
    for row in parallel.translation_rows(target.pairs, config.source_lang, target.code, p.translation_prompt):
        yield "mt", row
    sentences = [(pid, sentence) for pid, _, sentence in target.pairs] + target.sentences
    for row in parallel.completion_rows(sentences, target.code, config.seed, p.completion_prompt):
        yield "comp", row


def _identifier(config: PrepareConfig, place: Place) -> Identifier | None:
    c = config.language_id
    if c.backend == "none":
        return None
    with under("language_id"):
        return Identifier(c.backend, c.model, c.min_letters, c.min_probability)


def _named(identifier: Identifier | None) -> list | None:
    return [identifier.name, identifier.min_letters, identifier.min_probability] if identifier else None


def _scorer(config: PrepareConfig, place: Place, engine: Engine, target: str):
    def back(texts: list[str]) -> list[str | None]:
        return [text for text, _ in engine.texts(texts, target, config.source_lang, back=True)]

    return quality.make(config.quality, place, back)


def _noting_systems(records: Iterable[dict], found: list[bool]) -> Iterator[dict]:
    """`found` gets an item at the first system prompt: only then the data sets have that column."""
    for record in records:
        if record["system"] and not found:
            found.append(True)
        yield record


def _facts(config: PrepareConfig, target: Target, engine: Engine | None, generator) -> dict[str, str]:
    facts = {}
    if generator:
        g = config.generator
        facts["generator"] = f"{g.model} ({g.base_url or f'template {g.template}'})"
    if engine:
        facts["translator"] = engine.name
    if target.forward:
        facts["dictionary"] = f"{config.code_switch.dictionary}, {len(target.forward)} words"
    if target.pairs:
        facts["parallel corpus"] = f"{config.parallel.source}, {len(target.pairs)} pairs"
    if target.sentences:
        facts["monolingual text"] = f"{config.parallel.monolingual}, {len(target.sentences)} sentences"
    return facts


def _run(stages: list[Stage], store: Store, shards: list[Path], generator=None) -> list[Path]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console()
    bar = (
        TextColumn("{task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    rows = sum(1 for _ in read_rows(shards)) if stages else 0
    with Progress(*bar, console=console, disable=not console.is_terminal) as progress:
        for stage in stages:
            count = _Count(progress, progress.add_task(stage.name, total=rows, rate=""))
            if generator:
                generator.progress = count.within_shard
            shards = store.run(stage, shards, count.shard)
            if not console.is_terminal:
                again = f", {count.reused} of {len(shards)} shards reused" if count.reused else ""
                print(f"{stage.name:9} {count.rows} records in {count.seconds:.1f} s{again}", flush=True)
    return shards


class _Count:
    """What one stage has done, told to its bar: whole shards, and records inside the shard in work."""

    def __init__(self, progress, task):
        self.progress, self.task, self.began = progress, task, time.monotonic()
        self.rows = self.reused = self.inside = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def within_shard(self, rows: int) -> None:
        self.inside += rows
        self._show(self.rows + self.inside)

    def shard(self, rows: int, reused: bool) -> None:
        self.rows, self.reused, self.inside = self.rows + rows, self.reused + reused, 0
        self._show(self.rows)

    def _show(self, done: int) -> None:
        self.progress.update(self.task, completed=done, rate=f"{done / max(self.seconds, 1e-3):.1f}/s")
