"""`sdrrl prepare --dry-run`: what a recipe would do, in counts; no model is loaded and nothing is written."""

import sqlite3
from collections.abc import Iterable

from sdrrl_factory.memory import translation_kind
from sdrrl_factory.text import pieces
from sdrrl_factory.transfer import sources
from sdrrl_factory.transfer.pipeline import Place, check, memory_of
from sdrrl_factory.transfer.recipe import PrepareConfig
from sdrrl_factory.transfer.sampling import draw
from sdrrl_factory.transfer.subsets import sides
from sdrrl_factory.transfer.translate import route


def dry_run(config: PrepareConfig, place: Place) -> dict[str, int]:
    """Print the counts of a run; returns them.

    The model's own answers are not known yet: the ground truth stands in for them, so the segments are an estimate.
    """
    targets, translator = check(config, place)
    parts = sides(config.systems)
    keep = config.sampling.keep_ground_truth if "sdrrl" in config.systems else 1.0
    reading = sources.Reading(config.instructions, config.max_samples)
    seen = _Distinct()
    records = own = occurrences = 0
    for record in reading:
        records += 1
        own += draw({"id": [record["id"]]}, keep, config.seed)["answer_origin"][0] == "G"
        if parts:
            question = [p for p in ("instruction", "input") if "question" in parts]
            fields = [*question, "output"] if {"answer", "output"} & set(parts) else question
            segments = [p for field in fields for p, wanted in pieces(record[field]) if wanted]
            occurrences += len(segments)
            seen.add(segments)
    counts = {
        "records": records,
        "left out": sum(reading.left_out.values()),
        "own answers": own,
        "segments": occurrences,
        "distinct segments": len(seen),
    }
    for line in reading.formats:
        print(f"reading   {line}")
    told = ", ".join(f"{n} {why}" for why, n in reading.left_out.most_common())
    print(f"records   {records}" + f" (left out: {told})" * bool(told))
    if "sdrrl" in config.systems:
        g = config.generator
        print(
            f"generator {own} answers of at most {g.max_new_tokens} tokens, in about {-(-own // g.batch_size)} batches"
        )
    if translator:
        per_text = f"{occurrences} segments in the records, {len(seen)} distinct (own answers estimated)"
        print(f"segments  {per_text}")
    for target in targets:
        counts |= _target(config, target, translator, seen, records)
    print("nothing was loaded or written; without --dry-run the same command does it")
    return counts


def _target(config, target, translator, seen, records: int) -> dict[str, int]:
    code, calls = target.code, 0
    if translator:
        hops = route(config.source_lang, code, config.translator.via)
        known = _known(config, translator.name, *hops[0], seen)
        calls = (len(seen) - known) * len(hops)
        back = " and about as many back (round trip)" * (config.quality.backend == "roundtrip")
        print(f"{code}       translator: {calls} segments to send{back}, {known} known to the memory")
    if config.quality.backend == "cometkiwi" and translator:
        print(f"{code}       quality: about {records * len(sides(config.systems))} pairs to score")
    if target.forward:
        print(f"{code}       dictionary: {len(target.forward)} source words, {len(target.backward)} target words")
    if "sdrrl" in config.systems:
        natural = f"mt {2 * len(target.pairs)}, comp {len(target.pairs) + len(target.sentences)}"
        print(f"{code}       rows: LL {records}; TL, LT, TT at most {records}; {natural}")
    return {f"{code} calls": calls}


def _known(config: PrepareConfig, name: str, source: str, target: str, seen: "_Distinct") -> int:
    memory = memory_of(config)
    if not memory.path.is_file():
        return 0
    kind = translation_kind(name, source, target)
    with memory:
        return sum(len(memory.get(kind, chunk)) for chunk in seen.chunks())


class _Distinct:
    """A set of strings on disk: SQLite's unnamed database spills out of memory by itself."""

    def __init__(self):
        self._db = sqlite3.connect("")
        self._db.execute("CREATE TABLE seen (text TEXT PRIMARY KEY) WITHOUT ROWID")

    def add(self, texts: Iterable[str]) -> None:
        self._db.executemany("INSERT OR IGNORE INTO seen VALUES (?)", ((t,) for t in texts))

    def __len__(self) -> int:
        return self._db.execute("SELECT count(*) FROM seen").fetchone()[0]

    def chunks(self):
        rows = self._db.execute("SELECT text FROM seen")
        while chunk := rows.fetchmany(1000):
            yield [text for (text,) in chunk]
