"""What batching, CTranslate2 and int8 do for NLLB, on a model of its architecture trained here for a minute.

Ratios are medians over interleaved runs (A B A B) of the same segments: the sentences of the seed instructions and
their answers, in the order of the file.
"""

import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
SEGMENTS, ROUNDS, BATCH = 128, 3, 32


def main() -> None:
    from sdrrl_factory.transfer.recipe import Translator as Config
    from sdrrl_factory.transfer.translate.ctranslate2 import CTranslate2, convert
    from sdrrl_factory.transfer.translate.nllb import Nllb
    from tests.transfer.nllb_model import build

    texts = sentences()
    segments = texts[:: len(texts) // SEGMENTS][:SEGMENTS]
    with tempfile.TemporaryDirectory() as folder:
        model = str(build(Path(folder) / "nllb", texts, width=512, layers=6, vocabulary=8000, seconds=60, steps=10**6))
        convert(model, f"{folder}/float32", "float32")
        convert(model, f"{folder}/int8", "int8")

        def translator(make, where: str):
            config = Config(model=where, batch_size=BATCH, max_new_tokens=128)
            return make(config, [("eng", "spa")], lambda key: key)

        nllb, float32, int8 = (
            translator(make, where)
            for make, where in ((Nllb, model), (CTranslate2, f"{folder}/float32"), (CTranslate2, f"{folder}/int8"))
        )

        def bucketed() -> list[str]:
            return nllb.translate(segments, "eng", "spa")

        def in_order() -> list[str]:
            parts = (segments[i : i + BATCH] for i in range(0, len(segments), BATCH))
            return [t for part in parts for t in nllb.translate(part, "eng", "spa")]

        def quantized() -> list[str]:
            return int8.translate(segments, "eng", "spa")

        for run in (bucketed, quantized):  # loads and warms up
            run()
        ours, same = share(bucketed(), in_order())
        print(
            f"batches alike in length over in-order ones: {ratio(in_order, bucketed):.2f} times the throughput"
            f" (at least 1.5), same outputs {same:.1%}, {ours:.0%} of the segments translated"
        )
        _, same = share(bucketed(), float32.translate(segments, "eng", "spa"))
        print(f"CTranslate2 float32 gives transformers' beam-4 output: {same:.1%} (at least 99%)")
        _, same = share(bucketed(), quantized())
        print(
            f"CTranslate2 int8 over transformers float32, CPU: {ratio(bucketed, quantized):.2f} times the throughput"
            f" (at least 2.5), same outputs {same:.1%}"
        )
    saved(sys.argv[1] if len(sys.argv) > 1 else "data/seeds/english_instructions.jsonl")


def saved(path: str) -> None:
    """Segments sent to the translator over those in the rows of SDRRL's sets and of the four baselines'.

    No model is asked: the translator returns what it is given. In place of the model's own answer stands the ground
    truth with its words turned round, a text as long whose sentences are all new.
    """
    from sdrrl_factory.memory import Memory
    from sdrrl_factory.text import pieces
    from sdrrl_factory.transfer.recipe import Translator
    from sdrrl_factory.transfer.sampling import Sample
    from sdrrl_factory.transfer.sets import SYSTEMS, sides
    from sdrrl_factory.transfer.sources import Reading
    from sdrrl_factory.transfer.store import columns
    from sdrrl_factory.transfer.translate import Engine, Translate

    batch = Sample(0.5, 42)(columns(list(Reading(path, None))))
    batch["answer"] = [
        " ".join(reversed(text.split())) if origin == "G" else text
        for text, origin in zip(batch["output"], batch["answer_origin"], strict=True)
    ]
    # How often the sets hold a translation of each: TL, TT, tsft, xcot; LT, TT; tsft, cit, xcot.
    times = {"instruction": 4, "input": 4, "answer": 2, "output": 3}
    there = sum(n * sum(wanted for text in batch[key] for _, wanted in pieces(text)) for key, n in times.items())
    with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "memory") as memory:
        engine = Engine(Same(), memory)
        Translate(sides(SYSTEMS), "eng", "spa", engine.name, Translator(), memory.path)(batch, engine)
    share = engine.sent / there
    print(f"{path}: {engine.sent} of {there} segments sent to the translator: {share:.2f} (at most 0.5)")


class Same:
    name = "same"

    def signature(self, source, target):
        return self.name

    def translate(self, segments, source, target):
        return list(segments)


def sentences() -> list[str]:
    rows = map(json.loads, (ROOT / "data/seeds/english_instructions.jsonl").read_text(encoding="utf-8").splitlines())
    lines = [line for row in rows for key in ("instruction", "input", "output") for line in row[key].splitlines()]
    cut = [s for line in lines for s in re.split(r"(?<=[.?!])\s+", line.strip()) if s]
    return list(dict.fromkeys(cut))


def share(a: list[str], b: list[str]) -> tuple[float, float]:
    """Of the segments: those `a` has a translation of, those where `a` is `b`."""
    return sum(map(bool, a)) / len(a), sum(x == y for x, y in zip(a, b, strict=True)) / len(a)


def ratio(slow: Callable, fast: Callable) -> float:
    """The median of how many times longer `slow` takes, over interleaved pairs of runs."""
    return statistics.median(seconds(slow) / seconds(fast) for _ in range(ROUNDS))


def seconds(run: Callable) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    main()
