"""What in a model may let samples joined in one row reach each other, read from its parts.

They stay apart where positions that start anew make transformers build a mask that starts anew (its pull request
39194), and every layer mixes tokens under that mask alone. Everything not known to be so is an obstacle, and the model
is padded: an architecture of next year costs time, never exactness.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from types import CodeType

import torch
from torch.nn.modules.conv import _ConvNd

from sdrrl_factory.training.model import find_decoder, forward_arguments, unwrap

# transformers' masks that start anew where the positions do, the layers they are for, the attentions that take them.
MASKS = {"create_causal_mask", "create_sliding_window_causal_mask"}
LAYERS = {"full_attention", "sliding_attention"}
ATTENTIONS = ("sdpa", "eager", "flash_attention_2")
# What a layer takes that lets a token see others.
SEES_OTHERS = {"attention_mask", "cache_params", "layer_past", "past_key_value", "past_key_values", "state"}
# Keys of a configuration by which a token's index in its row counts (Llama 4), or a position has several numbers
# (Qwen2-VL), from which transformers makes no mask.
BY_INDEX = re.compile(r"attention_chunk|temperature_tuning|mrope_section")
MAKES_MASK = re.compile(r"(create|update|prepare|make|build|expand)_\w*mask")
# An attention of transformers looks its implementation up under this name, and that one takes the mask it is given.
ATTENTION = "ALL_ATTENTION_FUNCTIONS"


def find_obstacle(model: torch.nn.Module) -> str | None:
    """Why samples joined in one row may reach each other in this model, in a few words; None: no part lets them."""
    base = unwrap(model)
    config, decoder = base.config.get_text_config(), find_decoder(base)

    # 1. The model takes positions, and its attention a mask made from them.
    if not {"logits_to_keep", "position_ids", "use_cache"} <= forward_arguments(base):
        return "its forward takes no positions, or makes all logits"
    if base.config._attn_implementation not in ATTENTIONS:
        return f"attention by {base.config._attn_implementation}"

    # 2. Nothing in its configuration goes by a token's index in the row.
    other_layers = set(getattr(config, "layer_types", None) or ()) - LAYERS
    if other_layers:
        return ", ".join(sorted(other_layers))
    for key, value in nested_items(config.to_dict()):
        if value and BY_INDEX.search(key):
            return key

    # 3. Its masks are the known ones, made from the positions. In a vision-language model the parts around the decoder
    # may make the mask, so those are looked at too.
    around = [module for module in base.modules() if any(part is decoder for part in module.modules())]
    masks = {name for module in around for name in _global_names(module.forward) if MAKES_MASK.search(name)}
    if masks - MASKS:
        return ", ".join(sorted(masks - MASKS))
    if not masks:
        return "a mask of its own"
    if not _masks_by_position(decoder.forward):
        return "a mask without positions"

    # 4. No layer mixes tokens but by attention under that mask.
    modules = list(decoder.modules())
    if not any(ATTENTION in _global_names(module.forward) for module in modules):
        return "no layers"
    for module in modules:
        if _mixes_tokens(module):
            return type(module).__name__
    return None


def _mixes_tokens(module: torch.nn.Module) -> bool:
    """Whether a module may carry something from token to token, but for attention under the mask it is given."""
    if isinstance(module, _ConvNd | torch.nn.RNNBase):
        return True
    arguments = set(inspect.signature(inspect.unwrap(module.forward)).parameters)
    if not arguments & SEES_OTHERS:
        return False  # it sees one token at a time
    if ATTENTION in _global_names(module.forward):
        return False
    # An attention whose forward somebody replaced is not the one its class describes.
    if ATTENTION in _global_names(type(module).forward):
        return True
    # What is left is a layer or the decoder, which hands the mask on and computes with no parameter of its own; with
    # parameters, or without parts to hand it to, it is a way of mixing that is not known.
    has_parameters = any(True for _ in module.parameters(recurse=False))
    has_parts = any(True for _ in module.children())
    return has_parameters or not has_parts


def _masks_by_position(forward: Callable) -> bool:
    """Whether positions are among the arguments of the mask.

    GPT-OSS leaves them out (transformers 4.57; its pull request 39997 would mend it). Read from the compiled code,
    where the names of a call's keyword arguments are one constant, a tuple, as are the keys of a dictionary display.
    """
    keywords = [set(names) for code in _codes(forward) for names in code.co_consts if isinstance(names, tuple)]
    mask_calls = [names for names in keywords if {"config", "attention_mask"} <= names]
    return bool(mask_calls) and all("position_ids" in names for names in mask_calls)


def _global_names(function: Callable) -> set[str]:
    """The global names and attributes that a function's code reads, those inside of it included."""
    return {name for code in _codes(function) for name in code.co_names}


def _codes(function: Callable) -> list[CodeType]:
    """The code of a function, and of those inside of it; none of what is not written in Python."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    codes = [] if code is None else [code]
    for code in codes:  # grows while it is walked
        codes += [constant for constant in code.co_consts if inspect.iscode(constant)]
    return codes


def nested_items(values: dict) -> Iterator[tuple[str, object]]:
    """All keys of a nested dictionary, with their values."""
    for key, value in values.items():
        yield str(key), value
        if isinstance(value, dict):
            yield from nested_items(value)
