"""One pass of a causal language model over a batch, behind a cache of what it has read before.

Shapes: a batch holds `batch` rows, padded to `length` tokens; a cache holds `past` positions of each row.
"""

import functools
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def padded(
    rows: Sequence[list[int]], first: Sequence[int], left: bool, device: "torch.device", pad: int = 0
) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """(ids, mask, positions), each [batch, length]: rows of different lengths as one batch, padded left or right.

    mask: 1 where a token stands, 0 where padding does. positions: row r's count from first[r].
    """
    import torch

    length = max(map(len, rows))
    ids = torch.full((len(rows), length), pad, dtype=torch.long)
    mask, positions = torch.zeros_like(ids), torch.zeros_like(ids)
    for r, row in enumerate(rows):
        tokens = slice(length - len(row), length) if left else slice(0, len(row))
        ids[r, tokens] = torch.tensor(row, dtype=torch.long)
        mask[r, tokens] = 1
        positions[r, tokens] = torch.arange(first[r], first[r] + len(row))
    return ids.to(device), mask.to(device), positions.to(device)


def forward(model: Any, ids: "torch.Tensor", mask: "torch.Tensor", positions: "torch.Tensor", cache: Any) -> Any:
    """The model's output for `ids`, [batch, length], behind `cache`; its logits are [batch, 1 or length, vocabulary].

    mask: [batch, past + length]. cache: of the earlier passes, None for the first one; the output has the one that the
    next pass takes. Logits are computed for the last position only where the model can: of a vocabulary of 100,000 they
    are most of the memory that a long batch takes.
    """
    last_only = {"logits_to_keep": 1} if "logits_to_keep" in _arguments(model) else {}
    return model(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, **last_only
    )


def keeps_all_keys(model: Any) -> bool:
    """Whether the cache is the keys and values of all tokens, so that it can be cut, copied and continued at will.

    It is not for a sliding window, which forgets the first tokens, nor for models with a state instead of keys (Mamba),
    nor for hybrids of both.
    """
    config = model.config.get_text_config()
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    window = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    full = set(layers) == {"full_attention"} and not window and not getattr(model, "_is_stateful", False)
    return full and {"position_ids", "past_key_values"} <= _arguments(model)


def out_of_memory(err: Exception) -> bool:
    """Whether the GPU's or the machine's memory ran out; torch has no class of its own for the CPU's (2.11)."""
    import torch

    if isinstance(err, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(err) or "out of memory" in str(err)


def base_model(model: Any) -> Any:
    """The model itself under a PEFT adapter, whose own class takes any argument and hands it on."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _arguments(model: Any) -> set[str]:
    return _parameters(base_model(model).__class__)


@functools.cache  # asked at every token
def _parameters(model_class: Any) -> set[str]:
    return set(inspect.signature(model_class.forward).parameters)
