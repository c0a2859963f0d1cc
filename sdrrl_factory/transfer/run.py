"""`sdrrl prepare`: shards of records through the stages of pipeline.py; locks, the log, the report, the card."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from sdrrl_factory import __version__
from sdrrl_factory.engine import Engine, Pool, connect
from sdrrl_factory.errors import UserError, under
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.log import log_file, say, warn
from sdrrl_factory.memory import Memory
from sdrrl_factory.progress import Meter, progress
from sdrrl_factory.shipped import shown_name
from sdrrl_factory.transfer import card, inputs, pipeline, rates, report
from sdrrl_factory.transfer.exchanges import question
from sdrrl_factory.transfer.filters import not_in_language
from sdrrl_factory.transfer.rates import Rate
from sdrrl_factory.transfer.recipe import PrepareConfig
from sdrrl_factory.transfer.register import DataSets
from sdrrl_factory.transfer.sampling import next_threshold
from sdrrl_factory.transfer.sets import has_natural, has_switched, sides
from sdrrl_factory.transfer.sources import Reading
from sdrrl_factory.transfer.stage import Stage
from sdrrl_factory.transfer.store import Store, columns, read_rows
from sdrrl_factory.transfer.summary import Summary, dataset_lines, in_words, print_dataset_lines, ranked, settings


def prepare(config: PrepareConfig, recipe_path: str = "") -> list[str]:
    """Make the data sets of every target language; returns their names in dataset_info.json.

    recipe_path: for their entries there.

    Raises: UserError about a key of the recipe, before any work as far as it can be told, or at a file and line.
    """
    # 1. What can be wrong is found before any work, on the nodes of a cluster too.
    with progress("checks", 0):
        targets = inputs.check(config)
    shared = {"work_dir": config.work_dir, "dataset_dir": config.dataset_dir}
    with connect(config.engine, shared, Path(config.work_dir, config.name, "ray")) as engine:
        return prepare_on(engine, config, targets, recipe_path)


def prepare_on(engine: Engine, config: PrepareConfig, targets: list[inputs.Target], recipe_path: str) -> list[str]:
    """As `prepare`, with the engine that does the work, and the target languages as they were read."""
    with progress("checks", 0):
        models = engine.agreed(partial(inputs.models, config))
    inputs.make_folders(config)
    common = Store(Path(config.work_dir) / config.name)
    common.root.mkdir(parents=True, exist_ok=True)
    title = f"sdrrl {__version__} prepare {shown_name(recipe_path)}\n{settings(config)}"
    with log_file(common.root / "prepare.log", title):
        for line in inputs.remarks(config):
            say(line)
        with inputs.memory_of(config) as memory:
            memory.take_translations(Path(config.work_dir) / "translations.sqlite")

        # 2. D and D_synth, which the target languages share. So do other runs: the first one does the work.
        reading = _Reading(config)
        with _waiting_for(FileLock(common.root / ".lock")):
            shards = synthesise(engine, config, models, common, read(config, targets, common, reading))
        reading.left_out += common.rejected

        # 3. Each target language's translations and sets.
        names = []
        for target in targets:
            names += make_sets(engine, config, models, target, shards, reading, recipe_path)
        if len(targets) > 1:
            say("all languages:")
            print_dataset_lines(dataset_lines(names))
        return names


@contextmanager
def _waiting_for(lock: FileLock) -> Iterator[None]:
    """The lock, and a word where another run has it."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"waiting for another `sdrrl prepare`, which is at work in {Path(lock.lock_file).parent}")
        with progress("waiting", 0):
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Reading(Reading):
    """D; `has_system`: whether some record had a system prompt: only then the data sets have that column."""

    def __init__(self, config: PrepareConfig):
        super().__init__(config.instructions, config.max_samples)
        self.has_system = False

    def __iter__(self) -> Iterator[dict]:
        for record in super().__iter__():
            self.has_system = self.has_system or bool(record["system"])
            yield record


def read(config: PrepareConfig, targets: list[inputs.Target], store: Store, reading: _Reading) -> list[Path]:
    """D, in shards."""
    with progress("reading", 0) as meter, under("instructions"):
        shards = store.write_shards(_counted(reading, meter), config.shard_size)
    questions = (question(row["instruction"], row["input"]) for row in read_rows(shards))
    if warning := not_in_language(questions, config.source_lang, config.language_id):
        reading.formats.append(warning)
    for line in reading.formats:
        say(f"reading   {line}")
    inputs.fewer_rows(config, targets, sum(1 for _ in read_rows(shards)))
    return shards


def _counted(records: Iterable[dict], meter: Meter) -> Iterator[dict]:
    for record in records:
        yield record
        meter.advance(1)


def synthesise(
    engine: Engine, config: PrepareConfig, models: inputs.Models, store: Store, shards: list[Path]
) -> list[Path]:
    """D to D_synth, with as many of the model's own answers as equation 4 draws, if so many can be used."""
    sample = pipeline.sampling(config)
    while True:
        settled = run_stages(pipeline.synthesis(config, models, sample), store, shards, engine)
        threshold = next_threshold(sample, read_rows(settled), pipeline.sampling(config).threshold)
        if threshold == sample.threshold:
            return settled
        if threshold < sample.threshold:
            say("some own answers are flawed: further records are asked in their place")
        # What was answered is in the memory, and shards in which nothing changed are reused.
        sample = replace(sample, threshold=threshold)


def make_sets(
    engine: Engine,
    config: PrepareConfig,
    models: inputs.Models,
    target: inputs.Target,
    shards: list[Path],
    reading: _Reading,
    recipe_path: str,
) -> list[str]:
    """Records of D_synth to the registered sets of a target language, with report and card; returns their names."""
    store = Store(Path(config.work_dir) / f"{config.name}_{target.code}")
    store.root.mkdir(parents=True, exist_ok=True)
    summary = Summary(config, target.code)
    summary.left_out, summary.formats = reading.left_out, reading.formats
    summary.resources = _resources(config, target)
    try:
        with FileLock(store.root / ".lock", timeout=0):
            finished = run_stages(pipeline.translation(config, models, target), store, shards, engine)
            summary.left_out = reading.left_out + store.rejected
            summary.names = write_sets(config, target, finished, summary, reading.has_system, recipe_path)
            card.write(Path(config.dataset_dir) / f"{config.name}_{target.code}" / "README.md", summary)
            report.write(store.root / "report.html", summary)
    except Timeout:
        what = "another `sdrrl prepare` is at work here"
        raise UserError(what, "wait or set work_dir", at=str(store.root)) from None
    summary.print()
    for name, text in summary.resources.items():
        if "left out" in text or name == "quality estimate" or text.startswith("none"):
            say(f"{name}: {text}")
    for name in [name for name, count in summary.sets.items() if not count.rows]:
        reasons = summary.rejections(name)
        warn(f"{name} has no row: {in_words(reasons) if reasons else 'there is nothing to make it of'}")
    say(f"report: {store.root / 'report.html'}")
    return summary.names


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
    names = config.name, target.code, config.systems
    with progress("assemble", 0) as meter, DataSets(folder, *names, has_system, config.overwrite, recipe) as sets:
        for shard in shards:
            records = list(read_rows([shard]))
            for record, rows in zip(records, assemble(columns(records))["rows"], strict=True):
                for name, lines in rows.items():
                    for line in lines:
                        sets.write(name, line)
                summary.add(record, rows)
                meter.advance(1)
        if has_natural(config.systems):
            for line in pipeline.natural_text(config, target):
                sets.write(line["subset"], line)
                summary.add_natural(line["subset"], line)
        return sets.register()


def _resources(config: PrepareConfig, target: inputs.Target) -> dict[str, str]:
    """What went into a target language's sets, for the report and the card."""
    resources = {}
    if inputs.asks_generator(config):
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


def run_stages(stages: list[Stage], store: Store, shards: list[Path], engine: Engine | None = None) -> list[Path]:
    """The shards that come out of the last stage; engine: who does the work, None: this process."""
    rows = sum(1 for _ in read_rows(shards)) if stages else 0
    for stage in stages:
        with progress(stage.name, rows) as meter:
            count = _Count(meter)
            known = _answers(stage)
            shards = store.run(stage, shards, count.shard, count.within_shard, engine, count.opened, count.answered)
            if count.reused:
                meter.note = f", {count.reused} of {len(shards)} shards reused"
            # Of a stage that asks a model, what the memory had already took no time.
            unit = "records" if known is None else "answers"
            amount = meter.done - meter.known if known is None else (_answers(stage) or 0) - known
            if count.pool:
                rate = Rate(amount, meter.seconds * count.most, unit, count.pool.on)
                rates.keep(store.root, stage.name, rate)
    return shards


def _answers(stage: Stage) -> int | None:
    """How many answers the stage's memory has; None for a stage that keeps none."""
    path = stage.kept_in()
    if path is None:
        return None
    with Memory(path) as memory:
        return len(memory)


class _Count:
    """What one stage has done, as its meter is told: whole shards, and records inside the shard in work."""

    def __init__(self, meter: Meter):
        self.meter, self.reused, self.inside = meter, 0, 0
        self.pool: Pool | None = None
        self.most = 1  # workers at a time

    def opened(self, pool: Pool) -> None:
        self.pool = pool

    def answered(self, units: int, total: int) -> None:
        """The segments of the whole corpus are translated before the shards are put together."""
        self.meter.aside = f"{units} of {total} units translated" if units < total else self._workers()

    def _workers(self) -> str:
        workers = self.pool.workers if self.pool else 1
        self.most = max(self.most, workers)
        return f"{workers} workers" if workers > 1 else ""

    def within_shard(self, rows: int) -> None:
        self.inside += rows
        self.meter.advance(rows)

    def shard(self, rows: int, reused: bool) -> None:
        if reused:
            self.reused += 1
            self.meter.know(rows)
        else:
            self.meter.aside = self._workers()
            self.meter.advance(rows - self.inside)
            self.inside = 0
