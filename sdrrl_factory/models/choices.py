"""How likely a model finds each of a few short continuations of a prompt: multiple choice by likelihood.

Where every choice is one token, all come out of one forward pass. What prompts have in common is computed once: the
beginning of all (examples), and the beginning of neighbours (a passage asked about twice).
"""

import copy
import functools
import inspect
from collections.abc import Sequence

_WORTH = 24  # tokens in common that make a group of neighbours


def encode(tokenizer, prompts: Sequence[str], choices: Sequence[str]) -> tuple[list[list[int]], list[list[list[int]]]]:
    """(ids of each prompt; per prompt the ids of each choice behind it), the two tokenized as one text."""
    heads = tokenizer(list(prompts))["input_ids"]
    whole = tokenizer([prompt + choice for prompt in prompts for choice in choices])["input_ids"]
    n = len(choices)
    return heads, [[ids[len(head) :] for ids in whole[i * n : i * n + n]] for i, head in enumerate(heads)]


def groups(rows: Sequence[Sequence[int]]) -> tuple[int, list[tuple[int, list[int]]]]:
    """Which rows to compute together: (tokens that all have in common, (tokens in common, rows) of each group).

    Every row keeps at least one token of its own. A row by itself has only what all have in common.
    """
    order = sorted(range(len(rows)), key=lambda i: rows[i])
    everywhere = _shared(rows[order[0]], rows[order[-1]]) if len(rows) > 1 else 0
    found: list[tuple[int, list[int]]] = []
    for i in order:
        if found:
            first = rows[found[-1][1][0]]
            shared = _shared(first, rows[i])
            # Sorted: the first and the last row of a group have the least in common.
            if shared >= everywhere + _WORTH:
                found[-1] = (shared, [*found[-1][1], i])
                continue
        found.append((everywhere, [i]))
    return everywhere, found


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    most = min(len(a), len(b)) - 1
    return next((k for k in range(most) if a[k] != b[k]), most)


class NextToken:
    """Log-probabilities of the token after each row, for a causal `model`; call it inside `torch.inference_mode`."""

    def __init__(self, model, rows: Sequence[list[int]], batch_size: int):
        self.model, self.rows = model, rows
        self._shares = keeps_all_keys(model)
        self._everywhere, found = groups(rows) if self._shares else (0, [(0, [i]) for i in range(len(rows))])
        self._start = None
        parts = [(shared, some[k : k + batch_size]) for shared, some in found for k in range(0, len(some), batch_size)]
        self.groups = sorted(parts, key=lambda g: (-len(g[1]), -len(rows[g[1][0]]), g[1]))

    def take(self, start: int, batch_size: int) -> int:
        """How many groups from `start` on make a batch of at most `batch_size` rows (or of one group)."""
        end, size = start, 0
        while end < len(self.groups) and (end == start or size + len(self.groups[end][1]) <= batch_size):
            size += len(self.groups[end][1])
            end += 1
        return end - start

    def __call__(self, batch: Sequence[tuple[int, list[int]]]):
        """(rows of the groups in `batch`, in their order; vocabulary)."""
        if not self._shares:
            return self._plainly([i for _, some in batch for i in some])
        import torch

        longest = max((len(self.rows[i]) - cut for cut, some in batch for i in some if len(some) > 1), default=None)
        cuts = [self._cut(cut, some, longest) for cut, some in batch]
        owner = [g for g, (_, some) in enumerate(batch) for _ in some]
        past, seen = self._beginning(len(batch))
        heads = [self.rows[some[0]][self._everywhere : cut] for cut, (_, some) in zip(cuts, batch, strict=True)]
        if any(heads):
            ids, mask, places = padded(heads, [self._everywhere] * len(heads), False, self.model.device)
            seen = torch.cat([seen, mask], 1)
            past = forward(self.model, ids, seen, places, past).past_key_values
        tails = [self.rows[i][cut:] for cut, (_, some) in zip(cuts, batch, strict=True) for i in some]
        if past is not None:
            past.batch_select_indices(torch.tensor(owner, device=self.model.device))
        ids, mask, places = padded(tails, [cuts[g] for g in owner], True, self.model.device)
        seen = torch.cat([seen[owner], mask], 1)
        return forward(self.model, ids, seen, places, past).logits[:, -1].float().log_softmax(-1)

    def _cut(self, shared: int, some: list[int], longest: int | None) -> int:
        """Where a group's tails begin; a row by itself is cut so that its tail is no longer than its neighbours'."""
        if len(some) > 1 or longest is None:
            return shared
        return max(self._everywhere, len(self.rows[some[0]]) - longest)

    def _beginning(self, n: int):
        """The keys and values of what all rows have in common, `n` times; their mask."""
        import torch

        seen = torch.ones(n, self._everywhere, dtype=torch.long, device=self.model.device)
        if not self._everywhere:
            return None, seen
        if self._start is None:
            ids, mask, places = padded([self.rows[0][: self._everywhere]], [0], True, self.model.device)
            self._start = forward(self.model, ids, mask, places, None).past_key_values
        past = copy.deepcopy(self._start)
        past.batch_select_indices(torch.zeros(n, dtype=torch.long, device=self.model.device))
        return past, seen

    def _plainly(self, some: list[int]):
        """Nothing shared, padding behind: for models that keep something else than the keys of all tokens."""
        import torch

        ids, mask, _ = padded([self.rows[i] for i in some], [0] * len(some), False, self.model.device)
        logits = self.model(input_ids=ids, attention_mask=mask).logits
        last = torch.tensor([len(self.rows[i]) - 1 for i in some], device=logits.device)
        return logits[torch.arange(len(some), device=logits.device), last].float().log_softmax(-1)


def padded(rows: Sequence[list[int]], first: Sequence[int], left: bool, device, pad: int = 0):
    """(ids, mask, positions), each (rows, longest row); row r's positions count from first[r]."""
    import torch

    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask, places = torch.zeros_like(ids), torch.zeros_like(ids)
    for r, row in enumerate(rows):
        here = slice(width - len(row), width) if left else slice(0, len(row))
        ids[r, here] = torch.tensor(row, dtype=torch.long)
        mask[r, here] = 1
        places[r, here] = torch.arange(first[r], first[r] + len(row))
    return tuple(t.to(device) for t in (ids, mask, places))


def forward(model, ids, mask, places, past):
    """One pass over a cache (None: an empty one), with the last position's logits only where the model can."""
    only_last = {"logits_to_keep": 1} if "logits_to_keep" in _arguments(model) else {}
    return model(
        input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=past, use_cache=True, **only_last
    )


def _arguments(model) -> set[str]:
    return _parameters(type(model.get_base_model() if hasattr(model, "get_base_model") else model))


@functools.cache  # asked at every token
def _parameters(model_class: type) -> set[str]:
    return set(inspect.signature(model_class.forward).parameters)


def keeps_all_keys(model) -> bool:
    """Whether a prefix's keys and values are the same whatever follows, at any place in the cache."""
    config = model.config.get_text_config()
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    window = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    full = set(layers) == {"full_attention"} and not window and not getattr(model, "_is_stateful", False)
    return full and {"position_ids", "past_key_values"} <= _arguments(model)
