"""Which layout of a batch is exact for a model, and the cheapest of those."""

import functools
import inspect
import sys

import torch


def may_join(model) -> bool:
    """Whether samples joined in one row stay apart in this model; every rank must call it at the same time.

    The code must build its mask from positions, and a trial must show it: another first sample may not move the
    second one's logits.
    """
    base = bare(model)
    forward = type(base).forward
    known = {"logits_to_keep", "position_ids", "use_cache"} <= accepts(type(base))
    # A model whose forward was replaced from elsewhere is not the one its module describes.
    own = forward.__module__ == type(base).__module__ and hasattr(sys.modules[forward.__module__], "create_causal_mask")
    if not (known and own) or base.config._attn_implementation not in ("sdpa", "eager", "flash_attention_2"):
        return False
    training = model.training
    model.eval()
    logits = [_second_of_two(model, first, base.device) for first in ([5, 6, 7], [8, 9, 10])]
    model.train(training)
    # Where experts are chosen, other company may change the last digit; a leak changes the first.
    return bool((logits[0] - logits[1]).abs().max() <= 0.01 * logits[0].abs().max())


def _second_of_two(model, first: list[int], device) -> torch.Tensor:
    rows = {"input_ids": [*first, 11, 12, 13], "position_ids": [0, 1, 2, 0, 1, 2]}
    inputs = {key: torch.tensor([row], device=device) for key, row in rows.items()}
    with torch.no_grad():
        kept = torch.tensor([3, 4, 5], device=device)
        return model(**inputs, logits_to_keep=kept, use_cache=False).logits.float()


def layout_for(model, inputs: dict, facts: dict, joins: bool) -> str:
    """The cheapest exact layout for this batch; joins: `may_join(model)`."""
    base = bare(model)
    plain = set(inputs) == {"input_ids", "attention_mask"} and inputs["attention_mask"].dim() == 2
    if not (joins and plain):
        return "tail" if "logits_to_keep" in accepts(type(base)) else "full"
    if base.config._attn_implementation == "flash_attention_2":
        return "flat"
    # With a dense mask the joined row attends over all pairs: worth it while the linear layers weigh more.
    samples, width = inputs["input_ids"].shape
    hidden = base.config.get_text_config().hidden_size
    cost = {True: facts["tokens"] * (6 * hidden + facts["tokens"]), False: samples * width * (6 * hidden + width)}
    return "flat" if cost[True] < cost[False] else "tail"


def bare(model):
    """The transformers model inside adapters and wrappers."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@functools.cache
def accepts(model_class: type) -> set[str]:
    """The names its forward takes."""
    return set(inspect.signature(model_class.forward).parameters)
