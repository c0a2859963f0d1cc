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
from typing import NamedTuple

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
MAKES_MASK = re.compile(r"(create|update|prepare|make|build|expand)_\w*mask")


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
    # Around the decoder of a vision-language model others may make the mask.
    around = [module for module in base.modules() if any(part is decoder for part in module.modules())]
    masks = {name for module in around for name in _names(module.forward) if MAKES_MASK.search(name)}
    if not masks or masks - MASKS:
        return ", ".join(sorted(masks - MASKS)) or "a mask of its own"
    if not _masks_by_position(decoder.forward):
        return "a mask without positions"
    return next(filter(None, map(_find_mixing, decoder.modules())), None) if _layers(decoder) else "no layers"


def _find_mixing(module) -> str | None:
    """What lets one module carry something from token to token, but for attention under the mask it is given."""
    name = type(module).__name__
    if isinstance(module, _ConvNd | torch.nn.RNNBase):
        return name
    takes = set(inspect.signature(inspect.unwrap(module.forward)).parameters)
    if not takes & SEES or "ALL_ATTENTION_FUNCTIONS" in _names(module.forward):
        return None
    # An attention whose forward somebody replaced is not the one its class describes.
    if "ALL_ATTENTION_FUNCTIONS" in _names(type(module).forward):
        return name
    # A layer, or the decoder: it hands the mask on, and computes with no parameter of its own.
    owns = dict(module.named_parameters(recurse=False))
    return name if owns or not any(True for _ in module.children()) else None


def _layers(decoder) -> bool:
    return any("ALL_ATTENTION_FUNCTIONS" in _names(module.forward) for module in decoder.modules())


def _masks_by_position(forward: Callable) -> bool:
    """Whether positions are among the arguments of the mask: GPT-OSS in transformers 4.57 leaves them out.

    The names of keywords are constants of the code, all those of a call in one tuple; and those of a dictionary.
    """
    keywords = [set(names) for code in _codes(forward) for names in code.co_consts if isinstance(names, tuple)]
    calls = [names for names in keywords if {"config", "attention_mask"} <= names]
    return bool(calls) and all("position_ids" in names for names in calls)


def _names(function: Callable) -> set[str]:
    """The global names and attributes that a function's code reads, those inside of it included."""
    return {name for code in _codes(function) for name in code.co_names}


def _codes(function: Callable) -> list:
    """The code of a function, and of those inside of it; none of what is not written in Python."""
    codes = [code for code in [getattr(inspect.unwrap(function), "__code__", None)] if code is not None]
    for code in codes:
        codes += [constant for constant in code.co_consts if inspect.iscode(constant)]
    return codes


def _keys(values: dict) -> Iterator[tuple[str, object]]:
    """All keys of a nested dictionary, with their values."""
    for key, value in values.items():
        yield str(key), value
        if isinstance(value, dict):
            yield from _keys(value)


# --- whether samples may be joined: a trial


class Trial(NamedTuple):
    """How far logits are from those of each sample alone, as shares of the logits' spread; NaN where there is none.

    joined, padded: the samples in one row, and padded; None where not tried. rounding: what it may add up to.
    """

    joined: float | None
    padded: float
    rounding: float

    @property
    def bound(self) -> float:
        """A leak moves the logits of a trained model by about their spread.

        Rounding moves them a little in each layer, and more where it chooses another expert: as in the padded batch.
        """
        return max(4 * self.padded, self.rounding)


def may_join(model) -> bool:
    """Whether samples joined in one row stay apart in this model; every rank must call it at the same time.

    Raises UserError where not even those of a padded batch do.
    """
    joins = find_obstacle(model) is None
    try:
        trial = _try_batch(model, joins)
    except (AttributeError, TypeError, ValueError):  # a model that cannot do without images
        return False
    # Far more than rounding may make of it: CPM-Ant takes the padding for text.
    if trial.padded > (1e-3 if trial.rounding < 1e-4 else 0.3):
        raise UserError(
            f"{type(bare(model)).__name__}: a sample changes with the batch it is in; take"
            " per_device_train_batch_size: 1, or train unweighted with SDRRL_FACTORY_DISABLE=1"
        )
    return joins and trial.joined <= trial.bound


def check_joined(model) -> None:
    """Raises UserError where joined samples reach each other in a model that `may_join` let pass.

    A gate that begins at zero hides a leak from the first trial: to be called again after some steps. Every rank must
    call it at the same time.
    """
    trial = _try_batch(model, joins=True)
    if trial.joined > trial.bound:  # not so for NaN: a model that diverged says nothing
        raise UserError(
            f"{type(bare(model)).__name__}: the samples of a batch joined in one row reach each other (by"
            f" {trial.joined:.1g} of the logits' spread); please report it, and train unweighted with"
            " SDRRL_FACTORY_DISABLE=1"
        )


def _try_batch(model, joins: bool) -> Trial:
    """Three samples joined (if `joins`) and padded, beside each of them alone."""
    base = bare(model)
    samples = _draw_samples(base)
    with _at_rest(model, base.device), _precision_of(base) as dtypes, torch.no_grad():
        alone = torch.cat([_logits(model, [sample], joined=False) for sample in samples])
        padded = _logits(model, samples, joined=False)
        joined = _logits(model, samples, joined=True) if joins else None
    # Of the middle logits: some models set those of image tokens to the least number.
    spread = (alone - alone.median(dim=1, keepdim=True).values).abs().median()

    def distance(logits) -> float:
        return ((logits - alone).square().mean(dim=1).sqrt().mean() / spread).item()

    eps = max(torch.finfo(dtype).eps for dtype in dtypes)
    if base.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32:
        eps = max(eps, 2**-10)
    return Trial(None if joined is None else distance(joined), distance(padded), 32 * eps)


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
    base = bare(model)
    inputs = {key: value.to(base.device) for key, value in inputs.items()}
    if "use_cache" in accepts(type(base)):
        inputs["use_cache"] = False
    logits = model(**inputs).logits.float()
    if joined:
        return logits[0]
    return logits[torch.arange(len(samples)).repeat_interleave(6), kept]


@contextlib.contextmanager
def _at_rest(model, device) -> Iterator[None]:
    """Without dropout and noise; afterwards each module's mode and state, and the random numbers, are as they were."""
    # Mode by mode: parts may be frozen in evaluation, and some do more than that when their mode is set.
    modes = [(module, module.training) for module in model.modules()]
    states = [(module, dict(vars(module)), dict(module._buffers)) for module, _ in modes]
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
            # RecurrentGemma keeps its state for the next batch; rotary embeddings may change with the length.
            for module, state, buffers in states:
                kept = [key for key, value in vars(module).items() if torch.is_tensor(value)]
                for key in kept:
                    if key in state:
                        setattr(module, key, state[key])
                    else:
                        delattr(module, key)
                module._buffers.update(buffers)


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
