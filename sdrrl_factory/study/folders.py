"""Makes a training's folder one that `llamafactory-cli train` goes on in, after whatever ended the last attempt.

    llamafactory-cli train RECIPE $(python -m sdrrl_factory.study.folders RECIPE)

LLaMA-Factory goes on from the last checkpoint in the folder by itself. In its way are a checkpoint that was half
written, weights without the results that are written behind them, and what another recipe left. A training that early
stopping had ended would go on: transformers (4.57) forgets that when it resumes, so its last step is printed, as the
key by which the training ends there.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from sdrrl_factory.files import atomic_write, read_text

# transformers writes it last: of a checkpoint, and of a training.
_LAST_WRITTEN = "trainer_state.json"


def make_ready(recipe: Path) -> str:
    """Take away what a training by this recipe could not go on from; returns the key that it needs besides, or ""."""
    import yaml

    text = read_text(recipe)
    folder = Path(yaml.safe_load(text)["output_dir"])
    started_by = folder / "recipe.yaml"
    if folder.is_dir() and not (started_by.is_file() and read_text(started_by) == text):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(started_by, text)
    states = {}
    for checkpoint in folder.glob("checkpoint-*"):
        state = _state(checkpoint)
        if state is None:
            shutil.rmtree(checkpoint)
        else:
            states[state["global_step"]] = state
    if _state(folder) is None:
        for file in (*folder.glob("*.safetensors"), *folder.glob("*.bin")):
            file.unlink()
    last = max(states, default=0)
    return f"max_steps={last}" if last and _is_stopped(states[last]) else ""


def _state(folder: Path) -> dict[str, Any] | None:
    """The trainer's state in a folder; None where it is not there, or half there."""
    try:
        return json.loads((folder / _LAST_WRITTEN).read_bytes())
    except (OSError, ValueError):
        return None


def _is_stopped(state: dict[str, Any]) -> bool:
    """Whether early stopping had lost its patience."""
    callback = state.get("stateful_callbacks", {}).get("EarlyStoppingCallback")
    if not isinstance(callback, dict):
        return False
    return callback["attributes"]["early_stopping_patience_counter"] >= callback["args"]["early_stopping_patience"]


if __name__ == "__main__":
    print(make_ready(Path(sys.argv[1])))
