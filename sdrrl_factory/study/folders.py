"""Makes a training's folder one that `llamafactory-cli train` goes on in, after whatever ended the last attempt.

    python -m sdrrl_factory.study.folders RECIPE

LLaMA-Factory goes on from the last checkpoint in the folder by itself. In its way are a checkpoint that was half
written, weights without the results that are written behind them, and what another recipe left.
"""

import json
import shutil
import sys
from pathlib import Path

from sdrrl_factory.files import atomic_write, read_text

# transformers writes it last: of a checkpoint, and of a training.
_LAST_WRITTEN = "trainer_state.json"


def make_ready(recipe: Path) -> None:
    """Take away what a training by this recipe could not go on from."""
    import yaml

    text = read_text(recipe)
    folder = Path(yaml.safe_load(text)["output_dir"])
    started_by = folder / "recipe.yaml"
    if folder.is_dir() and not (started_by.is_file() and read_text(started_by) == text):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(started_by, text)
    for checkpoint in folder.glob("checkpoint-*"):
        if not _is_whole(checkpoint):
            shutil.rmtree(checkpoint)
    if not _is_whole(folder):
        for file in (*folder.glob("*.safetensors"), *folder.glob("*.bin")):
            file.unlink()


def _is_whole(folder: Path) -> bool:
    try:
        json.loads((folder / _LAST_WRITTEN).read_bytes())
    except (OSError, ValueError):
        return False
    return True


if __name__ == "__main__":
    make_ready(Path(sys.argv[1]))
