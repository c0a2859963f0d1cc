"""Stands in for the programs that a study's steps call: its order, its shell and its stamps are tried in seconds.

Named `sdrrl` and `llamafactory-cli` on the PATH it writes what they would leave, and a line a call into the file that
STUDY_CALLS names. `sdrrl study` is the real one.
"""

import json
import os
import sys
from pathlib import Path

import yaml


def main() -> None:
    program, (command, recipe, *rest) = Path(sys.argv[0]).name, sys.argv[1:]
    if command == "study":
        os.environ["PATH"] = os.environ["PATH"].partition(os.pathsep)[2]
        os.execvp(program, [program, command, recipe, *rest])
    with open(os.environ["STUDY_CALLS"], "a", encoding="utf-8") as file:
        file.write(f"{program} {command} {Path(recipe).stem}\n")
    keys = yaml.safe_load(Path(recipe).read_text(encoding="utf-8"))
    if command == "prepare":
        folder = Path(keys["dataset_dir"], f"{keys['name']}_{keys['target_lang']}")
        write(folder / "ll.jsonl", "{}\n")
    elif command == "lr":
        write(Path(rest[1]), yaml.safe_dump(keys | {"learning_rate": 1e-5}))
    elif command == "train":
        folder = Path(keys["output_dir"])
        write(folder / "model.safetensors", "weights")
        log = [{"step": 1, "loss": 3.0}, {"step": 2, "eval_loss": 2.0}]
        write(folder / "trainer_state.json", json.dumps({"global_step": 2, "best_global_step": 2, "log_history": log}))
    elif command == "export":
        write(Path(keys["export_dir"], "model.safetensors"), "weights")
    elif command == "eval":
        evaluate(keys)


def evaluate(keys: dict) -> None:
    """Losses of four sentences a language: what a model has learned is told by its folder's name."""
    folder, scores = Path(keys["output_dir"]), []
    nats = 9.0 if "sdrrl" in str(folder) else 10.0 if ".base" in str(folder) else 9.5
    for lang in keys["tasks"][0]["langs"]:
        rows = [{"id": str(i), "prompt": None, "reference": f"s{i}", "nats": nats + i, "tokens": 4} for i in range(8)]
        write(folder / f"predictions/text_loss.{lang}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        value = sum(row["nats"] for row in rows) / 32
        score = {"task": "text_loss", "metric": "text_loss", "source_lang": None, "target_lang": lang}
        score |= {"value": round(value, 4), "n": 8, "ci95": [value - 1, value + 1]}
        scores.append(score | {"signature": "unit:nats|tokens:32|bos:1"})
    write(folder / "results.json", json.dumps({"model": keys["model"], "model_hash": "0", "scores": scores}))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
