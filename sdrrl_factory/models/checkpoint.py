"""A checkpoint by its files: whether it is there, and what tells it from any other, before anything is loaded."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import fingerprint, looked_in
from sdrrl_factory.models.hub import is_hub_id, local_folder


def check_checkpoint(model: str, is_trained: bool = False) -> None:
    """Say at once that a local checkpoint is not there; a hub id passes.

    is_trained: whether it is one that the user trains; the next step is then to do so.

    Raises: UserError, without a key: the recipe's name for it is the caller's to give.
    """
    if not is_hub_id(model, short=True) and not (Path(model) / "config.json").is_file():
        if Path(model).name == "smollm2-135m":
            fix = "run `sdrrl unpack-model` or mend the path"
        elif is_trained:
            fix = "train and export it first or mend the path"
        else:
            fix = "mend the path, or name a hub id"
        raise UserError(f"no checkpoint at {model}{looked_in(model)}: config.json not found", fix)


def model_hash(model: str, adapter: str | None = None) -> str | None:
    """What `cat config.json *.safetensors | sha256sum` says in the checkpoint, an adapter's files after it.

    None where the weights do not lie on this machine.
    """
    files: list[Path] = []
    for name, config in [(model, "config.json"), (adapter, "adapter_config.json")]:
        if name:
            folder = local_folder(name)
            weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin")) if folder else []
            if not folder or not weights or not (folder / config).is_file():
                return None
            files += [folder / config, *weights]
    # A run asks more than once, and gigabytes take seconds to read.
    return _hash_of(tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@cache
def _hash_of(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, _, _ in files:
        with open(path, "rb") as f:
            while block := f.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def format_hash(model: str, adapter: str | None = None) -> str:
    """Tells apart tokenizers and chat templates, which `model_hash` does not see."""
    folders = [local_folder(name) for name in (model, adapter) if name]
    return " ".join(fingerprint(folder) for folder in folders if folder)


def identity(model: str, template: str | None, adapter: str | None = None) -> dict[str, str | None]:
    """All that an answer depends on but the prompt and the decoding settings; the same for equal files under two paths.

    The device is part of it: sums are rounded otherwise on a GPU, and a CPU computes float16 checkpoints in float32. So
    is LLaMA-Factory's version where the prompt's form is a template of its own.
    """
    import torch

    return {
        "checkpoint": model_hash(model, adapter) or f"{model} {adapter}",
        "format": format_hash(model, adapter),
        "template": f"{template} of llamafactory {version('llamafactory')}" if template else None,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }
