"""`sdrrl prepare --dry-run`: what a recipe would do, in counts; no model is loaded and nothing is written."""

import sqlite3
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from sdrrl_factory.log import say
from sdrrl_factory.memory import translation_kind
from sdrrl_factory.text import pieces
from sdrrl_factory.transfer import inputs, pipeline, rates
from sdrrl_factory.transfer.exchanges import question
from sdrrl_factory.transfer.filters import not_in_language
from sdrrl_factory.transfer.generate import limits
from sdrrl_factory.transfer.rates import Load
from sdrrl_factory.transfer.recipe import PrepareConfig
from sdrrl_factory.transfer.sets import SIDES, has_natural, has_switched, sides
from sdrrl_factory.transfer.sources import Reading
from sdrrl_factory.transfer.store import UNIT
from sdrrl_factory.transfer.translate import route


def dry_run(config: PrepareConfig) -> dict[str, int]:
    """Print the counts of a run; returns them.

    The model's own answers are not known yet: the ground truth stands in for them, so the segments are an estimate.
    """
    targets = inputs.check(config)
    own_answers = inputs.asks_generator(config)
    sample = pipeline.sampling(config)
    columns = _translated_columns(config)
    reading = Reading(config.instructions, config.max_samples)
    distinct = _Distinct()
    records = own = occurrences = 0
    first: list[str] = []  # the questions whose language is looked at
    for record in reading:
        records += 1
        if records <= 200:
            first.append(question(record["instruction"], record["input"]))
        own += sample({"id": [record["id"]]})["answer_origin"][0] == "G"
        segments = [piece for column in columns for piece, is_sentence in pieces(record[column]) if is_sentence]
        occurrences += len(segments)
        distinct.add(segments)
    inputs.fewer_rows(config, targets, records)
    counts = {
        "records": records,
        "left out": sum(reading.left_out.values()),
        "own answers": own,
        "segments": occurrences,
        "distinct segments": len(distinct),
    }
    if warning := not_in_language(first, config.source_lang, config.language_id):
        reading.formats.append(warning)
    for line in inputs.remarks(config):
        say(line)
    for line in reading.formats:
        say(f"reading   {line}")
    left_out = ", ".join(f"{count} {reason}" for reason, count in reading.left_out.most_common())
    say(f"records   {records} (left out: {left_out})" if left_out else f"records   {records}")
    if own_answers:
        generator = config.generator
        batches = -(-own // generator.batch_size)
        shortest, *further = limits(generator)
        longer = f" (what is cut off goes on up to {further[-1]})" if further else ""
        say(f"generator {own} answers of at most {shortest} tokens{longer}, in about {batches} batches;")
        say("          where they are flawed, further records are asked")
    if columns and config.translator.backend != "none":
        say(f"segments  {occurrences} segments in the records, {len(distinct)} distinct (own answers estimated)")
    for target in targets:
        counts[f"{target.code} calls"] = _target(config, target, distinct, records)
    _print_cost(config, counts, [target.code for target in targets])
    say("nothing was loaded or written; without --dry-run the same command does it")
    return counts


def _print_cost(config: PrepareConfig, counts: dict[str, int], codes: list[str]) -> None:
    """What it takes by stage, from the rates of earlier runs."""
    records, shards = counts["records"], -(-counts["records"] // config.shard_size)
    of_records = partial(Load, amount=records, pieces=shards)
    answers = counts["own answers"] if inputs.asks_generator(config) else 0
    loads = {config.name: [Load("generate", answers, shards), of_records("settle")]}
    for code in codes:
        calls = counts[f"{code} calls"]
        segments = partial(Load, amount=calls, pieces=-(-calls // UNIT))
        score = segments("score") if config.quality.backend == "roundtrip" else of_records("score")
        stages = [segments("translate"), score, of_records("filter")] if sides(config.systems) else []
        loads[f"{config.name}_{code}"] = stages + ([of_records("switch")] if has_switched(config.systems) else [])
    measured = {folder: rates.read(Path(config.work_dir, folder)) for folder in loads}
    rates.print_cost(loads, measured, config.engine.price)


def _translated_columns(config: PrepareConfig) -> list[str]:
    """The columns of a record that the translator sees; the ground truth stands in for the drawn answer."""
    parts = sides(config.systems)
    columns = [*SIDES["question"]] if "question" in parts else []
    return [*columns, "output"] if {"answer", "output"} & set(parts) else columns


def _target(config: PrepareConfig, target: inputs.Target, distinct: "_Distinct", records: int) -> int:
    """Print what a target language takes; returns the segments to send to the translator."""
    code, calls = target.code, 0
    engine = inputs.engine(config, code)
    if engine:
        hops = route(config.source_lang, code, config.translator.via)
        remembered = _remembered(config, engine.translator.signature(*hops[0]), *hops[0], distinct)
        calls = (len(distinct) - remembered) * len(hops)
        back = " and about as many back (round trip)" if config.quality.backend == "roundtrip" else ""
        say(f"{code}       translator: {calls} segments to send{back}, {remembered} known to the memory")
        if config.quality.backend == "cometkiwi":
            say(f"{code}       quality: about {records * len(sides(config.systems))} pairs to score")
    if target.forward:
        say(f"{code}       dictionary: {len(target.forward)} source words, {len(target.backward)} target words")
    if has_natural(config.systems):
        natural = f"mt {2 * len(target.pairs)}, comp {len(target.pairs) + len(target.sentences)}"
        say(f"{code}       rows: LL {records}; TL, LT, TT at most {records}; {natural}")
    return calls


def _remembered(config: PrepareConfig, signature: str, source: str, target: str, distinct: "_Distinct") -> int:
    """How many of the segments the memory has the translations of."""
    memory = inputs.memory_of(config)
    if not memory.path.is_file():
        return 0
    with memory:
        kind = translation_kind(signature, source, target)
        return sum(len(memory.get(kind, chunk)) for chunk in distinct.chunks())


class _Distinct:
    """A set of strings on disk: SQLite's unnamed database spills out of memory by itself."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")
        self._db.execute("CREATE TABLE seen (text TEXT PRIMARY KEY) WITHOUT ROWID")

    def add(self, texts: Iterable[str]) -> None:
        self._db.executemany("INSERT OR IGNORE INTO seen VALUES (?)", ((text,) for text in texts))

    def __len__(self) -> int:
        return self._db.execute("SELECT count(*) FROM seen").fetchone()[0]

    def chunks(self) -> Iterator[list[str]]:
        rows = self._db.execute("SELECT text FROM seen")
        while chunk := rows.fetchmany(1000):
            yield [text for (text,) in chunk]
