"""BELEBELE beside lm-evaluation-harness: the same letters, and the time; generation against in-order batches; prompts
that begin alike against prompts that do not.

    python benchmarks/eval.py CHECKPOINT HARNESS_PYTHON [ITEMS]

HARNESS_PYTHON (or LM_EVAL_PYTHON in the environment) is the interpreter of an environment of its own that has lm-eval,
with the torch and transformers of this one; nothing else of the project needs it. Ratios are medians over runs in turn
(A B A B), without the start of either program; both use the checkpoint's own precision and one batch size.
"""

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
ITEMS, SENTENCES, BATCH, ROUNDS = 240, 5, 16, 3
# (answers, most tokens of each, batch size): an evaluation's, and a generator's by default.
GENERATIONS = [(48, 128, 16), (64, 256, 32)]
MAKE = "make it: python -m venv lm-eval && lm-eval/bin/pip install lm-eval torch transformers accelerate"

HARNESS = """
import json, sys, time
import lm_eval, torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
folder, checkpoint, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
device = "cuda" if torch.cuda.is_available() else "cpu"
model = HFLM(pretrained=checkpoint, dtype="auto", batch_size=batch, device=device)
manager = TaskManager(include_path=folder, include_defaults=False)
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    done = lm_eval.simple_evaluate(model=model, tasks=["belebele_local"], task_manager=manager, bootstrap_iters=0)
    seconds = time.perf_counter() - start
    rows = sorted(done["samples"]["belebele_local"], key=lambda row: row["doc_id"])
    values = [[float(r[0]) for r in row["filtered_resps"]] for row in rows]
    print(json.dumps({"seconds": seconds, "values": values}), flush=True)
"""

TASK = """
task: belebele_local
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{file}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "P: {{{{flores_passage}}}}\\nQ: {{{{question.strip()}}}}\\nA: {{{{mc_answer1}}}}\\n\
B: {{{{mc_answer2}}}}\\nC: {{{{mc_answer3}}}}\\nD: {{{{mc_answer4}}}}\\nAnswer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: "{{{{['1', '2', '3', '4'].index(correct_answer_num)}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def main() -> None:
    checkpoint = sys.argv[1] if len(sys.argv) > 1 else "models/smollm2-135m"
    python = sys.argv[2] if len(sys.argv) > 2 else os.environ.get("LM_EVAL_PYTHON")
    items = int(sys.argv[3]) if len(sys.argv) > 3 else ITEMS
    from sdrrl_factory.models.lm import LM

    lm = LM(checkpoint)
    if python and Path(python).exists():
        beside_harness(lm, checkpoint, python, items)
    else:
        print(f"lm-evaluation-harness: not run, no interpreter given (second argument, or LM_EVAL_PYTHON); {MAKE}")
    for answers, new_tokens, batch in GENERATIONS:
        beside_in_order(lm, "generation", seed_prompts(answers), new_tokens, batch, " (at least 1.6)")
    beside_in_order(lm, "few-shot", with_examples(32), 8, BATCH)


def beside_harness(lm, checkpoint: str, python: str, items: int) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        file = Path(folder) / "spa_Latn.jsonl"
        write_questions(file, items)
        (Path(folder) / "belebele_local.yaml").write_text(TASK.format(file=file), encoding="utf-8")
        command = [python, "-c", HARNESS, folder, str(Path(checkpoint).resolve()), str(BATCH)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": f"{folder}/cache"}
        log = stack.enter_context(open(Path(folder) / "log", "w+", encoding="utf-8"))
        harness = stack.enter_context(
            subprocess.Popen(
                command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        )
        stack.callback(harness.stdin.close)

        def answer(sign: str) -> str:
            for line in harness.stdout:
                if line.startswith(sign):
                    return line
            log.seek(0)
            sys.exit(f"lm-evaluation-harness ended: {log.read()[-2000:]}")

        def theirs() -> dict:
            harness.stdin.write("go\n")
            harness.stdin.flush()
            return json.loads(answer("{"))

        answer("ready")
        ratios = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            ours = evaluate(lm, file, Path(folder))
            seconds = time.perf_counter() - begun
            print(f"  ours {seconds:.1f} s", end="", flush=True)
            other = theirs()
            ratios.append(seconds / other["seconds"])
            print(f", lm-evaluation-harness {other['seconds']:.1f} s", flush=True)
        pick = ["ABCD"[row.index(max(row))] for row in other["values"]]
        same = sum(a["letter"] == b for a, b in zip(ours, pick, strict=True))
        # One letter may win everywhere, by a small model's taste; the order of all four tells more.
        orders = [(order(a["logprobs"]), order(b)) for a, b in zip(ours, other["values"], strict=True)]
        alike, kinds = sum(a == b for a, b in orders), len({a for a, _ in orders})
        rows = zip(ours, other["values"], strict=True)
        far = max(abs(x - y) for a, b in rows for x, y in zip(a["logprobs"], b, strict=True))
        print(
            f"BELEBELE: {same} of {len(ours)} letters as lm-evaluation-harness (all of them); chosen: {letters(ours)}"
        )
        print(
            f"  the same order of all four letters in {alike} ({kinds} orders), log-probabilities within {far:.1e} nats"
        )
        print(
            f"BELEBELE: {statistics.median(ratios):.2f} of lm-evaluation-harness's time (at most 0.75), batch {BATCH}"
        )


def order(logprobs: list[float]) -> str:
    return "".join(sorted("ABCD", key=lambda letter: -logprobs["ABCD".index(letter)]))


def letters(rows: list[dict]) -> str:
    return " ".join(f"{c}:{sum(row['letter'] == c for row in rows)}" for c in "ABCD")


def evaluate(lm, file: Path, folder: Path) -> list[dict]:
    """The task as `sdrrl eval` runs it, reading included; without its memory, every run computes."""
    from sdrrl_eval.measure.recipe import EvalConfig
    from sdrrl_factory.memory import Memory
    from sdrrl_factory.models.remembered import RememberedModel
    from sdrrl_factory.recipe import load

    recipe = folder / "recipe.yaml"
    task = {"task": "belebele", "path": str(file), "langs": ["spa"]}
    recipe.write_text(json.dumps({"model": lm.path, "output_dir": "none", "tasks": [task]}), encoding="utf-8")
    [belebele] = load(EvalConfig, str(recipe)).config.tasks
    [part] = belebele.read()
    with tempfile.TemporaryDirectory(dir=folder) as empty, Memory(Path(empty) / "memory.sqlite") as memory:
        model = RememberedModel(memory, lm.path, load=lambda: lm)
        return belebele.score(part, [], belebele.likelihoods(part, model, BATCH), 42)[0]


def write_questions(file: Path, items: int) -> None:
    """Questions in BELEBELE's shape over the held-out Spanish sentences: as there, most passages have two."""
    lines = (ROOT / "data/heldout/sentences/spa_Latn.devtest").read_text(encoding="utf-8").splitlines()
    words = sorted({word.strip(".,;:¿?¡!") for line in lines for word in line.split() if len(word) > 4})
    rng = random.Random(1)
    with open(file, "w", encoding="utf-8") as f:
        for link, count in enumerate(passages(items)):
            chosen = rng.sample(lines, SENTENCES)
            passage = " ".join(chosen)
            for number in range(1, count + 1):
                sentence = rng.choice(chosen)
                word = rng.choice([w for w in words if w in sentence] or words)
                wrong = rng.sample([w for w in words if w not in passage], 3)
                right = rng.randrange(4)
                options = [*wrong[:right], word, *wrong[right:]]
                row = {"link": f"p{link}", "question_number": number, "flores_passage": passage}
                row["question"] = f"¿Qué palabra falta aquí? «{sentence.replace(word, '___')}»"
                row |= {f"mc_answer{i}": option for i, option in enumerate(options, 1)}
                row |= {"correct_answer_num": str(right + 1), "dialect": "spa_Latn", "ds": "2026-01-01"}
                f.write(json.dumps(row, ensure_ascii=False) + "\n")


def passages(items: int) -> list[int]:
    """How many questions each passage has: 900 on 488 in BELEBELE."""
    twice = items * 412 // 900
    return [2] * twice + [1] * (items - 2 * twice)


def seed_prompts(number: int) -> list[str]:
    rows = map(json.loads, (ROOT / "data/seeds/english_instructions.jsonl").read_text(encoding="utf-8").splitlines())
    return ["\n".join(filter(None, (row["instruction"], row["input"]))) for row in rows][:number]


def in_order(lm, prompts: list[str], new_tokens: int, batch_size: int) -> list[str]:
    """transformers' generate on batches in the prompts' order."""
    import torch

    texts = []
    for start in range(0, len(prompts), batch_size):
        rows = {"input_ids": [lm.encode(prompt) for prompt in prompts[start : start + batch_size]]}
        batch = lm.tokenizer.pad(rows, padding_side="left", return_tensors="pt").to(lm.model.device)
        with torch.inference_mode():
            ids = lm.model.generate(**batch, max_new_tokens=new_tokens, do_sample=False, eos_token_id=lm.stops)
        new = ids[:, batch["input_ids"].shape[1] :]
        texts += [text.strip() for text in lm.tokenizer.batch_decode(new, skip_special_tokens=True)]
    return texts


def beside_in_order(lm, name: str, prompts: list[str], new_tokens: int, batch_size: int, least: str = "") -> None:
    def ours() -> list[str]:
        return [answer.text for answer in lm.generate(prompts, new_tokens, batch_size)]

    def theirs() -> list[str]:
        return in_order(lm, prompts, new_tokens, batch_size)

    ratios = []
    for _ in range(ROUNDS):
        times, texts = zip(*(timed(run) for run in (ours, theirs)), strict=True)
        ratios.append(times[1] / times[0])
    same = sum(a == b for a, b in zip(*texts, strict=True))
    tokens = sum(len(lm.tokenizer(text)["input_ids"]) for text in texts[0])
    length = statistics.mean(len(lm.encode(prompt)) for prompt in prompts)
    print(f"{name}: {statistics.median(ratios):.2f} times the tokens/s of in-order batches{least}")
    asked = f"{len(prompts)} prompts of {length:.0f} tokens, at most {new_tokens} new ones, batch {batch_size}"
    print(f"  {asked}: {tokens / times[0]:.0f} tokens/s, {same} answers the same")


def with_examples(number: int) -> list[str]:
    """Few-shot prompts: the same eight examples before each."""
    *examples, _ = seed_prompts(9)
    shots = "".join(f"{example}\nAnswer: yes\n\n" for example in examples)
    return [f"{shots}{prompt}\nAnswer:" for prompt in seed_prompts(number + 8)[8:]]


def timed(run) -> tuple[float, list]:
    start = time.perf_counter()
    out = run()
    return time.perf_counter() - start, out


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    main()
