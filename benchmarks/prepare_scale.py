"""Filter, switch and assemble at the paper's scale: 52,002 records on one core, and ten times as many.

The records are made of the aligned English and Spanish sentences of data/heldout: one or two for the question, one to
six for the answer, some with a number put in, one in twenty with a translation that has to be rejected. They are read
from disk as `sdrrl prepare` leaves them after scoring; language identification, dictionary, report and card are real.
"""

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ALPACA = 52_002


def records(count: int):
    """Finished records as the score stage leaves them."""
    sides = [(ROOT / f"data/heldout/sentences/{code}_Latn.devtest").read_text().splitlines() for code in ("eng", "spa")]
    pairs = list(zip(*sides, strict=True))
    random_ = random.Random(1)

    def text(low: int, high: int) -> tuple[str, str]:
        chosen = random_.choices(pairs, k=random_.randint(low, high))
        number = f" {random_.randint(2, 99)}." if random_.random() < 0.3 else ""
        return tuple(" ".join(side) + number for side in zip(*chosen, strict=True))

    for i in range(count):
        (question, question_mt), (answer, answer_mt) = text(1, 2), text(1, 6)
        if random_.random() < 0.05:
            answer_mt = answer if random_.random() < 0.5 else answer_mt[: len(answer_mt) // 5]
        origin = "DG"[random_.random() < 0.5]
        yield {
            "id": f"r{i:07d}", "instruction": question, "input": "", "output": answer, "system": "",
            "answer_origin": origin, "response": answer if origin == "G" else None,
            "response_finish": "stop" if origin == "G" else None, "answer": answer, "reasons": [],
            "instruction_mt": question_mt, "input_mt": "", "answer_mt": answer_mt, "question_why": "", "answer_why": "",
            "question_qe": round(random_.uniform(0.3, 1), 4), "answer_qe": round(random_.uniform(0.3, 1), 4),
        }  # fmt: skip


def one(count: int) -> None:
    """Print {seconds, megabytes}: the time from filter to the registered sets, the process's highest memory."""
    from sdrrl_factory.transfer import card, inputs, pipeline, report, run
    from sdrrl_factory.transfer.recipe import Parallel, PrepareConfig
    from sdrrl_factory.transfer.store import Store
    from sdrrl_factory.transfer.summary import Summary

    with tempfile.TemporaryDirectory() as folder:
        config = PrepareConfig(
            instructions="in.jsonl",
            target_lang="spa",
            dataset_dir=f"{folder}/data",
            work_dir=f"{folder}/work",
            parallel=Parallel(size=300),
        )
        target = inputs.target(config, "spa")
        # No model is asked: the records are translated and scored already.
        models = inputs.Models(
            checkpoint="", identifier=inputs.identifier(config), translators={"spa": ""}, scorers={"spa": ""}
        )
        store = Store(Path(folder) / "work")
        shards = store.write_shards(records(count), config.shard_size)
        stages = [s for s in pipeline.translation(config, models, target) if s.name in ("filter", "switch")]
        start = time.perf_counter()
        finished = run.run_stages(stages, store, shards)
        summary = Summary(config, "spa")
        summary.names = run.write_sets(config, target, finished, summary, False)
        card.write(Path(folder) / "data/README.md", summary)
        report.write(Path(folder) / "report.html", summary)
        seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "megabytes": memory}))


def measure(count: int) -> dict:
    # One core, whatever the machine has.
    command = ["taskset", "-c", "0", sys.executable, __file__, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    small = measure(ALPACA)
    print(
        f"{ALPACA} records: {small['seconds']:.1f} s (at most 60), {small['megabytes']:.0f} MB (at most 1000)",
        flush=True,
    )
    large = measure(10 * ALPACA)
    ratio = {key: large[key] / small[key] for key in small}
    print(f"{10 * ALPACA} records: {large['seconds']:.1f} s, {large['megabytes']:.0f} MB")
    print(f"ten times the records: {ratio['seconds']:.2f} times the time (at most 10.5), ", end="")
    print(f"{ratio['megabytes']:.2f} times the memory (at most 1.1)")


if __name__ == "__main__":
    one(int(sys.argv[1])) if len(sys.argv) > 1 else main()
