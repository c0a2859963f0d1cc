"""The checkpoint under evaluation: what is wrong with it, before a score is computed from it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdrrl_eval.measure.recipe import EvalConfig
from sdrrl_factory.errors import UserError, under
from sdrrl_factory.models.checkpoint import check_checkpoint
from sdrrl_factory.models.hub import is_hub_id
from sdrrl_factory.models.lm import LM

# Vocabularies are padded by 2% or less; what goes far beyond is another model's.
_PADDING, _FEW = 0.1, 1024


def check(config: EvalConfig) -> None:
    """Say at once that a local checkpoint or adapter is not there; a hub id passes."""
    with under("model"):
        check_checkpoint(config.model, is_trained=True)
    if config.adapter and not is_hub_id(config.adapter):
        adapter = Path(config.adapter)
        for names in (["adapter_config.json"], ["adapter_model.safetensors", "adapter_model.bin"]):
            if not any((adapter / name).is_file() for name in names):
                what = f"no LoRA adapter at {adapter} ({names[0]} not found)"
                raise UserError(what, "mend the path", key="adapter")


def load(config: EvalConfig) -> LM:
    """The model, once its weights and its tokenizer have been looked at."""
    try:
        lm = LM(
            config.model,
            config.template,
            config.adapter,
            enable_thinking=config.enable_thinking,
            chat_template_kwargs=config.chat_template_kwargs,
            precision=config.precision,
        )
    except UserError:
        raise
    except Exception as err:  # torch, tokenizers, peft and huggingface_hub have an error each for a broken file
        name = f"{config.model} with {config.adapter}" if config.adapter else config.model
        why = " ".join((str(err) or type(err).__name__).split())[:200]
        raise UserError(f"{name} cannot be loaded ({why})", "export or fetch it again", key="model") from None
    _check_tokenizer(lm, config.model)
    _check_weights(lm, config.model)
    return lm


# Kinds of scaled rotary positions whose `max_position_embeddings` has the factor in it already.
_SCALED_ALREADY = ("llama3", "longrope", "su", "default", "mrope")


def context_length(config: Any) -> int | None:
    """How many tokens a model reads at most, from its config.json; None where nothing limits them (ALiBi, Mamba).

    Behind it learned positions end in an error, and rotary ones in text that nobody trained.
    """
    text = config.get_text_config()
    length = getattr(text, "max_position_embeddings", None)
    if not isinstance(length, int) or getattr(text, "alibi", False):
        return None
    # transformers 5 has it under the second name.
    scaling = getattr(text, "rope_scaling", None) or getattr(text, "rope_parameters", None) or {}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind in _SCALED_ALREADY or not isinstance(scaling.get("factor"), int | float):
        return length
    # YaRN says what it was trained on; linear and dynamic scaling stretch what the config has.
    return int(scaling.get("original_max_position_embeddings", length) * scaling["factor"])


class Lengths:
    """How long prompts are for a checkpoint, by its tokenizer and config.json, without its weights.

    The prompt format is not counted: it may make a few more prompts too long.
    """

    def __init__(self, model: str):
        from transformers import AutoConfig, AutoTokenizer

        self._tokenizer, self._config = AutoTokenizer.from_pretrained(model), AutoConfig.from_pretrained(model)

    def window(self) -> tuple[int | None, int]:
        return context_length(self._config), 0

    def lengths(self, texts: Sequence[str], system: str | None) -> list[int]:
        whole = [(system or "") + text for text in texts]
        return [len(ids) for ids in self._tokenizer(whole)["input_ids"]] if whole else []


def _check_tokenizer(lm: LM, model: str) -> None:
    """Another model's tokenizer gives ids that the embeddings lack, or that nobody trained: a crash, or nonsense."""
    rows = lm.model.get_input_embeddings().num_embeddings
    size = max(lm.tokenizer.get_vocab().values()) + 1
    what = f"the tokenizer of {model} does not match its weights"
    if size > rows:
        # A token for pictures or infilling that no text has is no mistake: Gemma 3 1B and CodeLlama 34B have one.
        _refuse_ids_from(lm, rows, what)
    if rows - size > max(_FEW, _PADDING * rows):
        what += f" ({size} tokens, {rows} embeddings)"
        raise UserError(what, "copy the tokenizer of its base model", key="model")


def _refuse_ids_from(lm: LM, rows: int, what: str) -> None:
    """Stop at the first prompt that has a token which the embeddings lack; a GPU would end with an assertion."""
    import torch

    def look(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        highest = int(inputs[0].max())
        if highest >= rows:
            token = lm.tokenizer.convert_ids_to_tokens(highest)
            why = f" (a prompt has token {highest}, {token!r}, the embeddings have {rows} rows)"
            raise UserError(what + why, "export it again", key="model")

    lm.model.get_input_embeddings().register_forward_pre_hook(look)


def _check_weights(lm: LM, model: str) -> None:
    """A training that diverged leaves weights that answer every question alike, and score without a word."""
    import torch

    def broken(what: str) -> UserError:
        return UserError(f"{model} has NaN or infinity in {what}", "train or export it again", key="model")

    for name, weight in lm.model.named_parameters():
        # A sum is finite only if all its terms are, and needs no copy of the weights; quantized ones have none.
        summable = weight.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
        if summable and not torch.isfinite(weight.detach().sum(dtype=torch.float64)):
            raise broken(name)
    # Finite weights may still overflow: float16 holds nothing above 65,504.
    ids = torch.tensor([lm.encode("1 + 1 = ?")], device=lm.model.device)  # [1, length]
    with torch.inference_mode():
        if not torch.isfinite(lm.model(input_ids=ids).logits[0, -1]).all():
            raise broken(f"its first answer, though its weights are finite ({str(lm.model.dtype)[6:]} overflows)")
