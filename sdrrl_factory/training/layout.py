"""Which layout of a batch is exact for a model, and the cheapest of those.

Samples joined in one row without padding save time and memory, but only a model whose every layer is an attention
under a mask made from the positions keeps them apart. That is read from the model's parts (`find_obstacle`), and shown
by a trial on its weights (`may_join`, again `check_joined`).
"""

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Iterator

import torch
from torch.nn.modules.conv import _ConvNd

from sdrrl_factory.errors import UserError

# transformers' masks that begin anew where the positions do, and the layers they are for.
MASKS = {"create_causal_mask", "create_sliding_window_causal_mask"}
LAYERS = {"full_attention", "sliding_attention"}
# What a layer takes that lets a token see others.
SEES = {"attention_mask", "cache_params", "layer_past", "past_key_value", "past_key_values", "state"}
# Keys of a configuration by which a token's index in its row counts (Llama 4), or a position has several numbers
# (Qwen2-VL), from which transformers makes no mask.
BY_INDEX = re.compile(r"attention_chunk|temperature_tuning|mrope_section")


# --- what is refused


def check_model(model) -> None:
    """Raises UserError for a model with an encoder: it trains on targets shifted once more, by itself."""
    base = bare(model)
    configs = [base.config, base.config.get_text_config()]
    if any(getattr(config, "is_encoder_decoder", False) for config in configs):
        raise UserError(
            f"model_name_or_path: {type(base).__name__} is an encoder-decoder; the subset-weighted loss is for"
            " decoder-only models: take one, or train unweighted with SDRRL_FACTORY_DISABLE=1"
        )


# --- the layout of a batch


def layout_for(model, inputs: dict, facts: dict, joins: bool) -> str:
    """The cheapest exact layout for this batch; joins: `may_join(model)`.

    facts: `collator.describe` of the batch.
    """
    base = bare(model)
    plain = set(inputs) == {"input_ids", "attention_mask"} and inputs["attention_mask"].dim() == 2
    if not (joins and plain) or _adds_noise(model, base):
        return "tail" if "logits_to_keep" in accepts(type(base)) else "full"
    if base.config._attn_implementation == "flash_attention_2":
        return "flat"
    # With a dense mask the joined row attends over all pairs: worth it while the linear layers weigh more.
    samples, width = inputs["input_ids"].shape
    hidden = base.config.get_text_config().hidden_size
    cost = {True: facts["tokens"] * (6 * hidden + facts["tokens"]), False: samples * width * (6 * hidden + width)}
    return "flat" if cost[True] < cost[False] else "tail"


def _adds_noise(model, base) -> bool:
    """transformers divides NEFTune's noise by the root of the row's length: a joined row would get less of it."""
    return model.training and hasattr(base.get_input_embeddings(), "neftune_noise_alpha")


# --- whether samples may be joined: the model's parts


def find_obstacle(model) -> str | None:
    """Why samples joined in one row may reach each other in this model, in a few words; None where no part lets them.

    Everything not known to keep them apart is an obstacle, so that an architecture of next year is padded.
    """
    base = bare(model)
    config, decoder = base.config.get_text_config(), find_decoder(base)
    if not {"logits_to_keep", "position_ids", "use_cache"} <= accepts(type(base)):
        return "its forward takes no positions, or makes all logits"
    if base.config._attn_implementation not in ("sdpa", "eager", "flash_attention_2"):
        return f"attention by {base.config._attn_implementation}"
    others = set(getattr(config, "layer_types", None) or ()) - LAYERS
    if others:
        return ", ".join(sorted(others))
    for key, value in _keys(config.to_dict()):
        if value and BY_INDEX.search(key):
            return key
    masks = {name for name in _names(decoder.forward) if re.fullmatch(r"create_\w*masks?(_\w+)?", name)}
    if not masks or masks - MASKS:
        return ", ".join(sorted(masks - MASKS)) or "a mask of its own"
    return next(filter(None, map(_find_mixing, decoder.modules())), None) if _layers(decoder) else "no layers"


def _find_mixing(module) -> str | None:
    """What lets one module carry something from token to token, but for attention under the mask it is given."""
    name = type(module).__name__
    if isinstance(module, _ConvNd | torch.nn.RNNBase):
        return name
    takes = set(inspect.signature(inspect.unwrap(module.forward)).parameters)
    if not takes & SEES or "ALL_ATTENTION_FUNCTIONS" in _names(module.forward):
        return None
    # A layer, or the decoder: it hands the mask on, and computes with no parameter of its own.
    owns = dict(module.named_parameters(recurse=False))
    return name if owns or not any(True for _ in module.children()) else None


def _layers(decoder) -> bool:
    return any("ALL_ATTENTION_FUNCTIONS" in _names(module.forward) for module in decoder.modules())


def _names(function: Callable) -> set[str]:
    """The global names and attributes that a function's code reads, those inside of it included."""
    codes, names = [getattr(inspect.unwrap(function), "__code__", None)], set()
    while codes:
        code = codes.pop()
        if code is not None:
            names.update(code.co_names)
            codes += [constant for constant in code.co_consts if inspect.iscode(constant)]
    return names


def _keys(values: dict) -> Iterator[tuple[str, object]]:
    """All keys of a nested dictionary, with their values."""
    for key, value in values.items():
        yield str(key), value
        if isinstance(value, dict):
            yield from _keys(value)


# --- whether samples may be joined: a trial


def may_join(model) -> bool:
    """Whether samples joined in one row stay apart in this model; every rank must call it at the same time."""
    return find_obstacle(model) is None and _measure_leak(model) <= 1


def check_joined(model) -> None:
    """Raises UserError where joined samples reach each other in a model that `may_join` let pass.

    A gate that begins at zero hides a leak from the first trial: to be called again after some steps. Every rank must
    call it at the same time.
    """
    leak = _measure_leak(model)
    if leak > 1:  # not so for NaN: a model that diverged says nothing
        raise UserError(
            f"{type(bare(model)).__name__}: the samples of a batch joined in one row reach each other ({leak:.1f} times"
            " what rounding explains); please report it, and train unweighted with SDRRL_FACTORY_DISABLE=1"
        )


def _measure_leak(model) -> float:
    """How far the logits of joined samples are from those of each sample alone, over what rounding explains.

    Rounding is measured too: the same samples padded, which is exact. NaN where logits are not finite or all the same.
    """
    base = bare(model)
    samples = _draw_samples(base)
    with _at_rest(model, base.device), _precision_of(base) as dtypes, torch.no_grad():
        alone = torch.cat([_logits(model, [sample], joined=False) for sample in samples])
        joined = _logits(model, samples, joined=True)
        padded = _logits(model, samples, joined=False)
    # Of the middle logits: some models set those of image tokens to the least number.
    spread = (alone - alone.median(dim=1, keepdim=True).values).abs().median()
    off = [((other - alone).square().mean(dim=1).sqrt().mean() / spread).item() for other in (joined, padded)]
    # Half a hundred layers add up; where experts are chosen, rounding may choose another.
    rounding = 64 * max(torch.finfo(dtype).eps for dtype in dtypes)
    return off[0] / max(4 * off[1], rounding)


def _draw_samples(base) -> list[torch.Tensor]:
    """Three samples of random ids, the longest beyond windows of up to 120 tokens.

    Longer windows need no longer samples: they are masked by the same functions, whose layers `find_obstacle` knows.
    """
    config = base.config.get_text_config()
    windows = [value for key, value in _keys(config.to_dict()) if "window" in key and type(value) is int]
    longest = max([24, *(window + 8 for window in windows if window <= 120)])
    # Ids that mean an image, or padding, are computed in another way.
    special = {
        number
        for key, value in _keys(base.config.to_dict())
        if re.search(r"_(token_)?(id|ids|index)$", key)
        for number in (value if isinstance(value, list) else [value])
        if type(number) is int
    }
    usual = torch.tensor([number for number in range(config.vocab_size) if number not in special])
    drawn = torch.Generator().manual_seed(0)
    return [usual[torch.randint(len(usual), (length,), generator=drawn)] for length in (9, longest, 14)]


def _logits(model, samples: list[torch.Tensor], joined: bool) -> torch.Tensor:
    """Logits of the first four and the last two tokens of each sample, float32 (6 * samples, vocabulary)."""
    lengths = torch.tensor([len(sample) for sample in samples])
    kept = torch.cat([torch.tensor([0, 1, 2, 3, length - 2, length - 1]) for length in lengths])
    if joined:
        inputs = {
            "input_ids": torch.cat(samples)[None],
            "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
            "logits_to_keep": kept + (lengths.cumsum(0) - lengths).repeat_interleave(6),
        }
    else:
        padding = functools.partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
        inputs = {
            "input_ids": padding(samples, padding_value=int(samples[0][0])),
            "attention_mask": padding([torch.ones_like(sample) for sample in samples]),
        }
    device = bare(model).device
    logits = model(**{key: value.to(device) for key, value in inputs.items()}, use_cache=False).logits.float()
    if joined:
        return logits[0]
    return logits[torch.arange(len(samples)).repeat_interleave(6), kept]


@contextlib.contextmanager
def _at_rest(model, device) -> Iterator[None]:
    """Without dropout and noise; afterwards each module's mode and the random numbers are as they were."""
    # Mode by mode: parts may be frozen in evaluation, and some do more than that when their mode is set.
    modes = [(module, module.training) for module in model.modules()]
    devices = [] if device.type == "cpu" else [device]
    kind = {} if device.type == "cpu" else {"device_type": device.type}
    with torch.random.fork_rng(devices, **kind):
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, mode in modes:
                module.training = mode


@contextlib.contextmanager
def _precision_of(base) -> Iterator[set[torch.dtype]]:
    """Collects the dtypes that the model's linear layers compute in: under autocast not those of the weights."""
    dtypes = {base.dtype}

    def collect(module, args, output):
        if torch.is_tensor(output):
            dtypes.add(output.dtype)

    hooks = [module.register_forward_hook(collect) for module in base.modules() if isinstance(module, torch.nn.Linear)]
    try:
        yield dtypes
    finally:
        for hook in hooks:
            hook.remove()


# --- the model inside


def find_decoder(base):
    """The part of a transformers model that makes the mask and holds the layers."""
    decoder = base.get_decoder() if hasattr(base, "get_decoder") else base
    return base.base_model if decoder is base or decoder is None else decoder


def bare(model):
    """The transformers model inside adapters and wrappers."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@functools.cache
def accepts(model_class: type) -> set[str]:
    """The names its forward takes."""
    return set(inspect.signature(model_class.forward).parameters)
