"""The checkpoint under evaluation: what tells it from others, and what is wrong with it."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from sdrrl_eval.measure.recipe import EvalConfig
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import fingerprint
from sdrrl_factory.models.lm import LM, check_checkpoint

Place = Callable[[str], str]

# Vocabularies are padded by 2% or less; what goes far beyond is another model's.
_PADDING, _FEW = 0.1, 1024


def check(config: EvalConfig, place: Place) -> None:
    """Say at once that a local checkpoint or adapter is not there; a hub id passes."""
    check_checkpoint(config.model, place("model"))
    adapter = Path(config.adapter or ".")
    if config.adapter and (adapter.exists() or config.adapter.count("/") != 1):
        for names in (["adapter_config.json"], ["adapter_model.safetensors", "adapter_model.bin"]):
            if not any((adapter / name).is_file() for name in names):
                where = place("adapter")
                raise UserError(f"{where}: no LoRA adapter at {adapter} ({names[0]} not found); mend the path")


def load(config: EvalConfig, place: Place) -> LM:
    """The model, once its weights and its tokenizer have been looked at."""
    where = place("model")
    try:
        lm = LM(config.model, config.template, config.adapter, where)
    except UserError:
        raise
    except Exception as err:  # torch, tokenizers, peft and huggingface_hub have an error each for a broken file
        what = f"{config.model} with {config.adapter}" if config.adapter else config.model
        why = " ".join((str(err) or type(err).__name__).split())[:200]
        raise UserError(f"{where}: {what} cannot be loaded ({why}); export or fetch it again") from None
    _check_tokenizer(lm, config.model, where)
    _check_weights(lm, config.model, where)
    return lm


def folder(model: str) -> Path | None:
    """Where the checkpoint lies: the folder itself, or a hub id's latest snapshot in the cache."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(model, "config.json")
    return Path(path).parent if isinstance(path, str) else None


def model_hash(model: str, adapter: str | None = None) -> str | None:
    """What `cat config.json *.safetensors | sha256sum` says in the checkpoint, an adapter's files after it.

    None where the weights do not lie on this machine.
    """
    files: list[Path] = []
    for name, config in [(model, "config.json"), (adapter, "adapter_config.json")]:
        if name:
            found = folder(name)
            weights = sorted(found.glob("*.safetensors")) or sorted(found.glob("*.bin")) if found else []
            if not weights or not (found / config).is_file():
                return None
            files += [found / config, *weights]
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as f:
            while block := f.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def format_hash(model: str, adapter: str | None = None) -> str:
    """Tells apart tokenizers and chat templates, which `model_hash` does not see."""
    return " ".join(fingerprint(found) for name in (model, adapter) if name and (found := folder(name)))


def _check_tokenizer(lm: LM, model: str, place: str) -> None:
    rows = lm.model.get_input_embeddings().num_embeddings
    size = max(lm.tokenizer.get_vocab().values()) + 1
    wrong = f"{place}: the tokenizer of {model} does not match its weights"
    if size > rows:
        token = lm.tokenizer.convert_ids_to_tokens(size - 1)
        raise UserError(f"{wrong} (token {size - 1} is {token!r}, the embeddings have {rows} rows); export it again")
    if rows - size > max(_FEW, _PADDING * rows):
        raise UserError(f"{wrong} ({size} tokens, {rows} embeddings); copy the tokenizer of its base model")


def _check_weights(lm: LM, model: str, place: str) -> None:
    import torch

    def broken(what: str) -> UserError:
        return UserError(f"{place}: {model} has NaN or infinity in {what}; train or export it again")

    for name, weight in lm.model.named_parameters():
        # A sum is finite only if all its terms are, and needs no copy of the weights; quantized ones have none.
        known = weight.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
        if known and not torch.isfinite(weight.detach().sum(dtype=torch.float64)):
            raise broken(name)
    ids = torch.tensor([lm.encode("1 + 1 = ?")], device=lm.model.device)
    with torch.inference_mode():
        if not torch.isfinite(lm.model(input_ids=ids).logits[0, -1]).all():
            raise broken(f"its first answer, though its weights are finite ({str(lm.model.dtype)[6:]} overflows)")
