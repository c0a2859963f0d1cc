"""`sdrrl prepare`: shards of records through the stages of pipeline.py; locks, progress bars, the report, the card."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.shipped import shown_name
from sdrrl_factory.transfer import card, inputs, pipeline, report
from sdrrl_factory.transfer.exchanges import question
from sdrrl_factory.transfer.filters import not_in_language
from sdrrl_factory.transfer.recipe import PrepareConfig
from sdrrl_factory.transfer.register import DataSets
from sdrrl_factory.transfer.sampling import next_threshold
from sdrrl_factory.transfer.sets import has_natural, has_own_answers, has_switched, sides
from sdrrl_factory.transfer.sources import Reading
from sdrrl_factory.transfer.stage import Stage
from sdrrl_factory.transfer.store import Store, columns, read_rows
from sdrrl_factory.transfer.summary import Summary, dataset_lines, in_words, print_dataset_lines, ranked

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def prepare(config: PrepareConfig, recipe_path: str = "") -> list[str]:
    """Make the data sets of every target language; returns their names in dataset_info.json.

    recipe_path: for their entries there.

    Raises: UserError about a key of the recipe, before any work as far as it can be told, or at a file and line.
    """
    # 1. What can be wrong is found before any work.
    targets = inputs.check(config)
    models = inputs.models(config)
    inputs.make_folders(config)
    for line in inputs.remarks(config):
        print(line, flush=True)
    work = Path(config.work_dir)
    with inputs.memory_of(config) as memory:
        memory.take_translations(work / "translations.sqlite")

    # 2. D and D_synth, which the target languages share. So do other runs: the first one does the work.
    common = Store(work / config.name)
    common.root.mkdir(parents=True, exist_ok=True)
    reading = _Reading(config)
    with FileLock(common.root / ".lock"):
        with under("instructions"):
            shards = common.write_shards(reading, config.shard_size)
        questions = (question(row["instruction"], row["input"]) for row in read_rows(shards))
        if warning := not_in_language(questions, config.source_lang, config.language_id):
            reading.formats.append(warning)
        for line in reading.formats:
            print(f"reading   {line}", flush=True)
        inputs.fewer_rows(config, targets, sum(1 for _ in read_rows(shards)))
        shards = synthesise(config, models, common, shards)

    # 3. Each target language's translations and sets.
    names = []
    for target in targets:
        store = Store(work / f"{config.name}_{target.code}")
        store.root.mkdir(parents=True, exist_ok=True)
        summary = Summary(config, target.code)
        summary.left_out, summary.formats = reading.left_out, reading.formats
        summary.resources = _resources(config, target)
        try:
            with FileLock(store.root / ".lock", timeout=0):
                finished = run_stages(pipeline.translation(config, models, target), store, shards)
                summary.names = write_sets(config, target, finished, summary, reading.has_system, recipe_path)
                card.write(Path(config.dataset_dir) / f"{config.name}_{target.code}" / "README.md", summary)
                report.write(store.root / "report.html", summary)
        except Timeout:
            what = "another `sdrrl prepare` is at work here"
            raise UserError(what, "wait or set work_dir", at=str(store.root)) from None
        summary.print()
        for name, text in summary.resources.items():
            if "left out" in text or name == "quality estimate" or text.startswith("none"):
                print(f"{name}: {text}")
        for name in [name for name, count in summary.sets.items() if not count.rows]:
            reasons = summary.rejections(name)
            print(f"{name} has no row: {in_words(reasons) if reasons else 'there is nothing to make it of'}")
        print(f"report: {store.root / 'report.html'}")
        names += summary.names
    if len(targets) > 1:
        print("all languages:")
        print_dataset_lines(dataset_lines(names))
    return names


class _Reading(Reading):
    """D; `has_system`: whether some record had a system prompt: only then the data sets have that column."""

    def __init__(self, config: PrepareConfig):
        super().__init__(config.instructions, config.max_samples)
        self.has_system = False

    def __iter__(self) -> Iterator[dict]:
        for record in super().__iter__():
            self.has_system = self.has_system or bool(record["system"])
            yield record


def synthesise(config: PrepareConfig, models: inputs.Models, store: Store, shards: list[Path]) -> list[Path]:
    """D to D_synth, with as many of the model's own answers as equation 4 draws, if so many can be used."""
    sample = pipeline.sampling(config)
    while True:
        settled = run_stages(pipeline.synthesis(config, models, sample), store, shards)
        threshold = next_threshold(sample, read_rows(settled), pipeline.sampling(config).threshold)
        if threshold == sample.threshold:
            return settled
        if threshold < sample.threshold:
            print("some own answers are flawed: further records are asked in their place", flush=True)
        # What was answered is in the memory, and shards in which nothing changed are reused.
        sample = replace(sample, threshold=threshold)


def write_sets(
    config: PrepareConfig,
    target: inputs.Target,
    shards: Iterable[Path],
    summary: Summary,
    has_system: bool,
    recipe_path: str = "",
) -> list[str]:
    """Finished records to data sets, a shard in memory at a time; returns their names in dataset_info.json."""
    assemble = pipeline.assembly(config, target)
    folder, recipe = Path(config.dataset_dir), shown_name(recipe_path)
    with DataSets(folder, config.name, target.code, config.systems, has_system, config.overwrite, recipe) as sets:
        for shard in shards:
            records = list(read_rows([shard]))
            for record, rows in zip(records, assemble(columns(records))["rows"], strict=True):
                for name, lines in rows.items():
                    for line in lines:
                        sets.write(name, line)
                summary.add(record, rows)
        if has_natural(config.systems):
            for line in pipeline.natural_text(config, target):
                sets.write(line["subset"], line)
                summary.add_natural(line["subset"], line)
        return sets.register()


def _resources(config: PrepareConfig, target: inputs.Target) -> dict[str, str]:
    """What went into a target language's sets, for the report and the card."""
    resources = {}
    if has_own_answers(config.systems):
        generator = config.generator
        resources["generator"] = f"{generator.model} ({generator.base_url or f'template {generator.template}'})"
    if engine := inputs.engine(config, target.code):
        resources["translator"] = engine.name
    if config.translator.via and config.quality.backend == "roundtrip" and sides(config.systems):
        via = ", ".join(LANGUAGES[code].name for code in config.translator.via)
        resources["quality estimate"] = (
            f"chrF of a round trip through {via}: a word left in {via} or untranslated comes back as it was and scores "
            "well; read the examples"
        )
    if has_switched(config.systems) and config.code_switch.probability:
        name = inputs.dictionary_name(config, target.code)
        left_out = _left_out(target.left_out["dictionary"])
        words = f"{name}, {len(target.forward)} words{left_out}"
        resources["dictionary"] = words if target.forward else "none: no question is code-switched"
    if target.pairs:
        left_out = _left_out(target.left_out["pairs"])
        resources["parallel corpus"] = f"{config.parallel.source}, {len(target.pairs)} pairs{left_out}"
    if target.sentences:
        left_out = _left_out(target.left_out["sentences"])
        resources["monolingual text"] = f"{config.parallel.monolingual}, {len(target.sentences)} sentences{left_out}"
    return resources


def _left_out(reasons: Counter[str]) -> str:
    return f"; left out: {in_words(ranked(reasons))}" if reasons else ""


def run_stages(stages: list[Stage], store: Store, shards: list[Path]) -> list[Path]:
    """The shards that come out of the last stage; a bar a stage, or a line where there is no terminal."""
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
            shards = store.run(stage, shards, count.shard, count.within_shard)
            if not console.is_terminal:
                again = f", {count.reused} of {len(shards)} shards reused" if count.reused else ""
                print(f"{stage.name:9} {count.rows} records in {count.seconds:.1f} s{again}", flush=True)
    return shards


class _Count:
    """What one stage has done, shown by its bar: whole shards, and records inside the shard in work."""

    def __init__(self, progress: "Progress", task: "TaskID"):
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
