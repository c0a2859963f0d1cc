"""Whether samples joined in one row reach each other in a model, tried on its weights.

Three samples are computed alone, padded and joined. A leak moves the logits of a trained model by about their spread;
rounding moves them by a few digits' worth, and the padded batch says how many.
"""

import contextlib
import re
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch

from sdrrl_factory.errors import UserError
from sdrrl_factory.training.model import forward_arguments, unwrap
from sdrrl_factory.training.obstacles import find_obstacle, nested_items


class Trial(NamedTuple):
    """How far logits are from those of each sample alone, as shares of the logits' spread; NaN where there is none.

    joined, padded: the samples in one row (NaN: not tried), and padded; rounding: what it may add up to.
    """

    joined: float
    padded: float
    rounding: float

    @property
    def bound(self) -> float:
        """More than this is a leak: rounding moves a little in each layer, and more where it chooses another expert, as
        in the padded batch."""
        return max(4 * self.padded, self.rounding)


def may_join(model: torch.nn.Module) -> bool:
    """Whether samples joined in one row stay apart in this model; every rank must call it at the same time.

    Raises UserError where not even those of a padded batch do.
    """
    joins = find_obstacle(model) is None
    try:
        trial = _try_batch(model, joins)
    except (AttributeError, TypeError, ValueError):  # a model that cannot do without images
        return False
    # Far more than rounding may make of it: CPM-Ant takes the padding for text (transformers 4.57).
    if trial.padded > (1e-3 if trial.rounding < 1e-4 else 0.3):
        raise UserError(
            f"{type(unwrap(model)).__name__}: a sample changes with the batch it is in",
            "take per_device_train_batch_size: 1, or train unweighted with SDRRL_FACTORY_DISABLE=1",
        )
    return joins and trial.joined <= trial.bound


def check_joined(model: torch.nn.Module) -> None:
    """Raises UserError where joined samples reach each other in a model that `may_join` let pass.

    A gate that begins at zero hides a leak from the first trial: to be called again after some steps. Every rank must
    call it at the same time.
    """
    trial = _try_batch(model, joins=True)
    if trial.joined > trial.bound:  # not so for NaN: a model that diverged says nothing
        raise UserError(
            f"{type(unwrap(model)).__name__}: the samples of a batch joined in one row reach each other (by"
            f" {trial.joined:.1g} of the logits' spread)",
            "please report it, and train unweighted with SDRRL_FACTORY_DISABLE=1",
        )


def _try_batch(model: torch.nn.Module, joins: bool) -> Trial:
    """Three samples joined (if `joins`) and padded, beside each of them alone."""
    base = unwrap(model)
    samples = _draw_samples(base)
    with _at_rest(model, base.device), _dtypes_computed_in(base) as dtypes, torch.no_grad():
        alone = torch.cat([_logits(model, [sample], joined=False) for sample in samples])
        padded = _logits(model, samples, joined=False)
        joined = _logits(model, samples, joined=True) if joins else None
    # Of the middle logits: some models set those of image tokens to the least number.
    spread = (alone - alone.median(dim=1, keepdim=True).values).abs().median()
    eps = max(torch.finfo(dtype).eps for dtype in dtypes)
    if base.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32:
        eps = max(eps, 2**-10)  # TF32 has 10 bits
    return Trial(
        joined=float("nan") if joined is None else _distance(joined, alone, spread),
        padded=_distance(padded, alone, spread),
        rounding=32 * eps,
    )


def _distance(logits: torch.Tensor, exact: torch.Tensor, spread: torch.Tensor) -> float:
    """logits, exact: [tokens, vocabulary]; the mean over tokens of their root mean square difference, in spreads."""
    return ((logits - exact).square().mean(dim=1).sqrt().mean() / spread).item()


def _draw_samples(base: torch.nn.Module) -> list[torch.Tensor]:
    """Three samples of random ids, [length] each, the longest beyond windows of up to 120 tokens.

    Longer windows need no longer samples: they are masked by the same functions, whose layers `find_obstacle` knows.
    """
    config = base.config.get_text_config()
    windows = [value for key, value in nested_items(config.to_dict()) if "window" in key and type(value) is int]
    longest = max([24, *(window + 8 for window in windows if window <= 120)])
    # Ids that mean an image, or padding, are computed in another way.
    special: set[Any] = set()
    for key, value in nested_items(base.config.to_dict()):
        if re.search(r"_(token_)?(id|ids|index)$", key):
            special.update(value if isinstance(value, list) else [value])
    usual = torch.tensor([number for number in range(config.vocab_size) if number not in special])
    generator = torch.Generator().manual_seed(0)  # the same samples on every rank
    return [usual[torch.randint(len(usual), (length,), generator=generator)] for length in (9, longest, 14)]


def _logits(model: torch.nn.Module, samples: list[torch.Tensor], joined: bool) -> torch.Tensor:
    """Logits of the first four and the last two tokens of each sample, float32 [6 * samples, vocabulary]."""
    base = unwrap(model)
    lengths = torch.tensor([len(sample) for sample in samples])
    # The first tokens are where an earlier sample would leak in, the last ones where all of a sample is summed up.
    looked_at = torch.cat([torch.tensor([0, 1, 2, 3, length - 2, length - 1]) for length in lengths])
    if joined:
        begins = lengths.cumsum(0) - lengths
        inputs = {
            "input_ids": torch.cat(samples)[None],
            "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
            "logits_to_keep": looked_at + begins.repeat_interleave(6),
        }
    else:
        pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
        inputs = {
            "input_ids": pad(samples, padding_value=int(samples[0][0])),
            "attention_mask": pad([torch.ones_like(sample) for sample in samples]),
        }
    inputs = {key: value.to(base.device) for key, value in inputs.items()}
    # A cache would hide from transformers that positions start anew.
    without_cache = {"use_cache": False} if "use_cache" in forward_arguments(base) else {}
    logits = model(**inputs, **without_cache).logits.float()
    if joined:
        return logits[0]
    return logits[torch.arange(len(samples)).repeat_interleave(6), looked_at]


@contextlib.contextmanager
def _at_rest(model: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Without dropout and noise; afterwards each module's mode and state, and the random numbers, are as they were."""
    # Mode by mode: parts may be frozen in evaluation, and some do more than that when their mode is set.
    modes = [(module, module.training) for module in model.modules()]
    states = [(module, dict(vars(module)), dict(module._buffers)) for module, _ in modes]
    devices = [] if device.type == "cpu" else [device]
    device_type = {} if device.type == "cpu" else {"device_type": device.type}
    with torch.random.fork_rng(devices, **device_type):
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            # RecurrentGemma (transformers 4.57) keeps its state for the next batch; rotary embeddings may change with
            # the length.
            for module, state, buffers in states:
                for key in [key for key, value in vars(module).items() if torch.is_tensor(value)]:
                    if key in state:
                        setattr(module, key, state[key])
                    else:
                        delattr(module, key)
                module._buffers.update(buffers)


@contextlib.contextmanager
def _dtypes_computed_in(base: torch.nn.Module) -> Iterator[set[torch.dtype]]:
    """Collects the dtypes that the model's linear layers compute in: under autocast not those of the weights."""
    dtypes = {base.dtype}

    def collect(module: torch.nn.Module, args: tuple, output: Any) -> None:
        if torch.is_tensor(output):
            dtypes.add(output.dtype)

    hooks = [module.register_forward_hook(collect) for module in base.modules() if isinstance(module, torch.nn.Linear)]
    try:
        yield dtypes
    finally:
        for hook in hooks:
            hook.remove()
