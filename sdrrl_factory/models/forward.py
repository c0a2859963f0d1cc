"""One pass of a causal language model over a batch, behind a cache of what it has read before.

Shapes: a batch holds `batch` rows, padded to `length` tokens; a cache holds `past` positions of each row.
"""

import copy
import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Past:
    """What a model has read of each row of a batch; a pass behind it leaves it as it is.

    cache: the keys and values of every layer, each [rows, heads, past, size]. mask: [rows, past], 1 where a token
    stands, 0 where nothing is to be looked at.
    """

    cache: Any
    mask: "torch.Tensor"

    def rows(self, indexes: Sequence[int]) -> "Past":
        """These rows of it; a row may come more than once."""
        import torch

        kept = torch.tensor(indexes, device=self.mask.device)
        tensors = [(keys.index_select(0, kept), values.index_select(0, kept)) for keys, values in self._tensors()]
        return self._of(tensors, self.mask[kept])

    def joined(self, other: "Past") -> "Past":
        """The rows of both, the other's behind its own, the shorter ones padded on the left."""
        import torch

        width = max(self.mask.shape[1], other.mask.shape[1])
        pairs = zip(self._tensors(), other._tensors(), strict=True)
        tensors = []
        for own, others in pairs:
            keys, values = (torch.cat([_wide(a, width), _wide(b, width)]) for a, b in zip(own, others, strict=True))
            tensors.append((keys, values))
        masks = [torch.nn.functional.pad(mask, (width - mask.shape[1], 0)) for mask in (self.mask, other.mask)]
        return self._of(tensors, torch.cat(masks))

    def hidden(self) -> "Past":
        """The same rows with nothing to be looked at."""
        return Past(self.cache, self.mask * 0)

    def compact(self) -> "Past":
        """The same with all padding on the left, and no more of it than the longest row leaves to the others."""

        width = int(self.mask.sum(1).max())
        mask = self.mask[:, -width:]
        if bool((self.mask.diff(dim=1) >= 0).all()):
            # Nothing stands between the tokens of a row: what is too much stands in front.
            return self._of(
                [(keys[..., -width:, :], values[..., -width:, :]) for keys, values in self._tensors()], mask
            )
        # A stable sort of the mask: a row's tokens, in their order, at its end.
        columns = self.mask.argsort(dim=1, stable=True)[:, -width:]
        at = columns[:, None, :, None]
        tensors = [(keys.take_along_dim(at, 2), values.take_along_dim(at, 2)) for keys, values in self._tensors()]
        return self._of(tensors, self.mask.gather(1, columns))

    def copied_cache(self) -> Any:
        """The cache, for a pass, which puts its own keys into the one that it is given."""
        return self._of(self._tensors(), self.mask).cache

    def _tensors(self) -> list[tuple["torch.Tensor", "torch.Tensor"]]:
        return [(layer.keys, layer.values) for layer in self.cache.layers]

    def _of(self, tensors: list[tuple["torch.Tensor", "torch.Tensor"]], mask: "torch.Tensor") -> "Past":
        # transformers' cache has no way to be made of keys and values; a pass exchanges those of a layer for longer
        # ones and never writes into them, so that copies may share them.
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        for layer, (keys, values) in zip(cache.layers, tensors, strict=True):
            layer.keys, layer.values = keys, values
        return Past(cache, mask)


def _wide(tensor: "torch.Tensor", width: int) -> "torch.Tensor":
    """[rows, heads, width, size], zeros in front of what is there."""
    import torch

    return torch.nn.functional.pad(tensor, (0, 0, width - tensor.shape[2], 0))


def forward(
    model: Any,
    ids: "torch.Tensor",
    mask: "torch.Tensor",
    positions: "torch.Tensor",
    past: Past | None = None,
    last: int = 1,
) -> "tuple[torch.Tensor, Past]":
    """(logits [batch, last or more, vocabulary], what has been read then) of `ids`, `mask` and `positions`, each
    [batch, length], behind `past`.

    Logits are computed for the last positions only where the model can: of a vocabulary of 100,000 they are most of the
    memory that a long batch takes.
    """
    import torch

    last_only = {"logits_to_keep": last} if "logits_to_keep" in _arguments(model) else {}
    whole = mask if past is None else torch.cat([past.mask, mask], 1)  # [batch, past + length]
    output = model(
        input_ids=ids,
        attention_mask=whole,
        position_ids=positions,
        past_key_values=None if past is None else past.copied_cache(),
        use_cache=True,
        **last_only,
    )
    return output.logits[:, -last:], Past(output.past_key_values, whole)


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
