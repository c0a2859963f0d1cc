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


@dataclass
class Past:
    """What a model has read of each row of a batch. A pass takes it over: only what comes of it is good then.

    cache: the keys and values of every layer, each [rows, heads, past, size]. mask: [rows, past], 1 where a token
    stands, 0 where nothing is to be looked at.
    """

    cache: Any
    mask: "torch.Tensor"

    def rows(self, indexes: Sequence[int]) -> "Past":
        """A copy of these rows; one may come more than once."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        twin = Past(cache, self.mask)
        twin.keep(indexes)
        return twin

    # transformers' cache (4.57 to 5.6) has no way to take rows from another or to leave out columns: its layers' keys
    # and values are exchanged, one after the other, so that no more than one layer's are there twice.

    def keep(self, indexes: Sequence[int]) -> None:
        """These rows alone, in this order."""
        import torch

        kept = torch.tensor(indexes, dtype=torch.long, device=self.mask.device)
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys.index_select(0, kept), layer.values.index_select(0, kept)
        self.mask = self.mask[kept]

    def add(self, other: "Past") -> None:
        """The rows of the other too, behind those that are there; the shorter ones are padded on the left."""
        import torch

        width = max(self.mask.shape[1], other.mask.shape[1])
        for layer, new in zip(self.cache.layers, other.cache.layers, strict=True):
            layer.keys = torch.cat([_wide(layer.keys, width), _wide(new.keys, width)])
            layer.values = torch.cat([_wide(layer.values, width), _wide(new.values, width)])
        masks = [torch.nn.functional.pad(mask, (width - mask.shape[1], 0)) for mask in (self.mask, other.mask)]
        self.mask = torch.cat(masks)

    def compact(self) -> None:
        """All padding on the left, and no more of it than the longest row leaves to the others."""
        width = int(self.mask.sum(1).max())
        if bool((self.mask.diff(dim=1) >= 0).all()):
            # Nothing stands between the tokens of a row: what is too much stands in front.
            for layer in self.cache.layers:
                layer.keys, layer.values = layer.keys[:, :, -width:], layer.values[:, :, -width:]
            self.mask = self.mask[:, -width:]
            return
        # A stable sort of the mask: a row's tokens, in their order, at its end.
        columns = self.mask.argsort(dim=1, stable=True)[:, -width:]
        at = columns[:, None, :, None]
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys.take_along_dim(at, 2), layer.values.take_along_dim(at, 2)
        self.mask = self.mask.gather(1, columns)

    def hide(self) -> None:
        """Nothing of it is to be looked at."""
        self.mask = self.mask * 0


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
    """(logits [batch, last, vocabulary], what has been read then) of a batch behind `past`.

    ids, mask, positions: each [batch, length].

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
        past_key_values=None if past is None else past.cache,
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
