"""The engine: what batches over the whole corpus save, what two workers gain, what the engine itself costs.

    python benchmarks/engine.py [INSTRUCTIONS] [PART ...]     # parts: batches workers cost; all of them by default

Each ratio is measured in one run on the same machine, the two sides in turn (A B A B). `batches` counts processor time,
which other programs on the machine do not change; the others count seconds, and want two idle cores.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
SEEDS = ROOT / "data/seeds/english_instructions.jsonl"
SHARD, ROUNDS, ALPACA = 200, 3, 52_002


# --- batches over the corpus beside batches of each shard, for a model of NLLB's architecture


def batches(instructions: str) -> None:
    from sdrrl_factory.memory import Memory
    from sdrrl_factory.transfer.recipe import Translator
    from sdrrl_factory.transfer.sources import Reading
    from sdrrl_factory.transfer.store import Store
    from sdrrl_factory.transfer.translate import Translate, engine
    from sdrrl_factory.transfer.translate import nllb as module
    from tests.transfer.nllb_model import build

    rows = [{**row, "answer": row["output"]} for row in Reading(instructions, 700)]
    texts = [row["output"] for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = str(build(root / "nllb", texts, width=128, layers=2, vocabulary=4000, seconds=40, steps=10**6))
        keys = Translator(backend="nllb", model=model, max_new_tokens=128)
        with Memory(root / "name.sqlite") as memory:
            name = engine(keys, "eng", "spa", memory).signature("eng", "spa")
        outputs: dict[str, list[Path]] = {}

        def run(name_of_run: str, stage: Translate) -> float:
            store = Store(root / f"{name_of_run}-{time.monotonic_ns()}")
            shards = store.write_shards(rows, SHARD)
            stage = replace(stage, memory=store.root / "memory.sqlite")
            start = time.process_time()
            outputs[name_of_run] = store.run(stage, shards, lambda rows, reused: None)
            return time.process_time() - start

        stage = Translate(("question", "output"), "eng", "spa", name, keys, Path())
        shard_wise = _by_shard()(*(getattr(stage, key.name) for key in fields(stage)))

        def before() -> float:
            # As it was: no batch had more than `batch_size` rows, and each shard and column had its own.
            times, module._TIMES = module._TIMES, 1
            seconds = run("shards", shard_wise)
            module._TIMES = times
            return seconds

        ratios = [before() / run("corpus", stage) for _ in range(ROUNDS)]
        same, of = _same(outputs["shards"], outputs["corpus"])
    print(
        f"{len(rows)} rows: batches over the corpus give {statistics.median(ratios):.2f} times the throughput of"
        f" batches of each shard (at least 1.2; {', '.join(f'{ratio:.2f}' for ratio in ratios)}),"
        f" same outputs {same} of {of}"
    )


def _by_shard() -> type:
    """Translate as it was: it asks nothing ahead."""
    from sdrrl_factory.transfer.stage import Stage
    from sdrrl_factory.transfer.translate import Translate

    return type("ByShard", (Translate,), {"segments": Stage.segments, "name": "translate"})


def _same(one: list[Path], other: list[Path]) -> tuple[int, int]:
    """How many translated texts are the same, of how many."""
    from sdrrl_factory.transfer.store import read_rows

    columns = ("instruction_mt", "input_mt", "output_mt")
    pairs = zip(read_rows(one), read_rows(other), strict=True)
    equal = [left[column] == right[column] for left, right in pairs for column in columns]
    return sum(equal), len(equal)


# --- two workers beside one


def workers(instructions: str) -> None:
    from sdrrl_factory.transfer.translate.ctranslate2 import convert
    from tests.transfer.nllb_model import build

    texts = [json.loads(line)["output"] for line in SEEDS.read_text(encoding="utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        build(root / "nllb", texts, width=256, layers=4, vocabulary=4000, seconds=40, steps=10**6)
        convert(str(root / "nllb"), f"{root}/int8", "int8")
        mixes = {
            "Apertium with round trip, filter, switch": {},
            "CTranslate2, a thread each": {
                "translator": {"backend": "ctranslate2", "model": f"{root}/int8", "max_new_tokens": 64},
                "quality": {"backend": "none"},
            },
        }
        for name, keys in mixes.items():
            ratios = []
            for _ in range(ROUNDS):
                one, two = (_mix(root, instructions, keys, number) for number in (1, 2))
                ratios.append(one / two)
            print(f"{name}: two workers over one {statistics.median(ratios):.2f} times (at least 1.8)", flush=True)


def _mix(root: Path, instructions: str, keys: dict, number: int) -> float:
    """Seconds of the translation stages by so many workers, which are there before the clock starts."""
    from sdrrl_factory.engine import connect
    from sdrrl_factory.transfer import inputs, pipeline, run
    from sdrrl_factory.transfer.recipe import PrepareConfig
    from sdrrl_factory.transfer.sources import Reading
    from sdrrl_factory.transfer.store import Store

    folder = Path(tempfile.mkdtemp(dir=root))
    recipe = {"instructions": instructions, "target_lang": "spa", "systems": ["sdrrl"], "parallel": {"size": 10}}
    recipe |= {"engine": {"backend": "ray", "workers": number}, "memory": str(folder / "memory.sqlite")}
    config = PrepareConfig.model_validate(recipe | keys | {"work_dir": str(folder), "dataset_dir": str(folder)})
    target = inputs.target(config, "spa")
    forward = inputs.translator(config, "spa")
    models = inputs.Models("", inputs.identifier(config), {"spa": forward}, {"spa": inputs.scorer(config, "spa")})
    stages = pipeline.translation(config, models, target)
    rows = [row | {"answer": row["output"], "answer_origin": "D", "reasons": []} for row in Reading(instructions, None)]
    store = Store(folder)
    # Shards for both workers to the end; some rows first, so that both have started and loaded their model.
    warm, shards = store.write_shards(rows[:8], 2), store.write_shards(rows[8:], 20)
    with connect(config.engine, {}, folder / "ray") as engine:
        run.run_stages(stages, store, warm, engine)
        start = time.perf_counter()
        run.run_stages(stages, store, shards, engine)
        return time.perf_counter() - start


# --- what the engine itself costs


def cost(instructions: str) -> None:
    measured = {
        (backend, count): _apart(backend, count)
        for backend, count in (("local", ALPACA), ("ray", ALPACA), ("ray", 10 * ALPACA))
    }
    local, small, large = measured.values()
    print(
        f"filter to sets of {ALPACA} rows: local {local['seconds']:.1f} s, one worker {small['seconds']:.1f} s,"
        f" {small['seconds'] / local['seconds']:.2f} times (at most 1.1)"
    )
    print(
        f"memory of the driver: {small['megabytes']:.0f} MB, with {10 * ALPACA} rows {large['megabytes']:.0f} MB,"
        f" {large['megabytes'] / small['megabytes']:.2f} times (at most 1.1)"
    )


def _apart(backend: str, count: int) -> dict[str, float]:
    """{seconds, megabytes} in a process of its own, whose highest memory is then its own."""
    command = [sys.executable, __file__, "one", backend, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def one(backend: str, count: int) -> None:
    from benchmarks.prepare_scale import records
    from sdrrl_factory.engine import connect
    from sdrrl_factory.transfer import inputs, pipeline, run
    from sdrrl_factory.transfer.recipe import PrepareConfig
    from sdrrl_factory.transfer.store import Store
    from sdrrl_factory.transfer.summary import Summary

    with tempfile.TemporaryDirectory() as folder:
        recipe = {"instructions": "in.jsonl", "target_lang": "spa", "parallel": {"size": 300}}
        recipe |= {"engine": {"backend": backend} | ({"workers": 1} if backend == "ray" else {})}
        config = PrepareConfig.model_validate(recipe | {"dataset_dir": f"{folder}/data", "work_dir": f"{folder}/work"})
        target = inputs.target(config, "spa")
        models = inputs.Models("", inputs.identifier(config), {"spa": ""}, {"spa": ""})
        store = Store(Path(folder) / "work")
        warm, shards = store.write_shards(records(1), 1), store.write_shards(records(count), config.shard_size)
        stages = [s for s in pipeline.translation(config, models, target) if s.name in ("filter", "switch")]
        with connect(config.engine, {}, Path(folder) / "ray") as engine:
            run.run_stages(stages, store, warm, engine)
            start = time.perf_counter()
            finished = run.run_stages(stages, store, shards, engine)
            summary = Summary(config, "spa")
            summary.names = run.write_sets(config, target, finished, summary, False)
            seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "megabytes": memory}))


PARTS: dict[str, Callable[[str], None]] = {"batches": batches, "workers": workers, "cost": cost}


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["one"]:
        one(arguments[1], int(arguments[2]))
        return
    chosen = [name for name in arguments if name in PARTS] or list(PARTS)
    instructions = next((argument for argument in arguments if argument not in PARTS), str(SEEDS))
    for name in chosen:
        PARTS[name](instructions)


if __name__ == "__main__":
    main(sys.argv[1:])
