"""How likely a model finds each of a few short continuations of a prompt: multiple choice by likelihood.

Where every choice is one token, all come out of one forward pass. What prompts have in common is computed once: the
beginning of all (examples), and the beginning of neighbours (a passage asked about twice). Of five prompts:

    examples | passage A | question 1        group of 2: everything up to "question" is computed once
    examples | passage A | question 2
    examples | passage B | question 1        a group of its own: shares the examples with all
             ^ common    ^ the group's cut
"""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdrrl_factory.models.forward import forward, keeps_all_keys, padded

if TYPE_CHECKING:
    import torch

# So many tokens in common, beyond what all have, make a group: fewer are not worth a pass of their own.
_WORTH = 24

# (how many tokens its rows have in common, the indexes of its rows)
Group = tuple[int, list[int]]


def encode(
    tokenizer: Any, prompts: Sequence[str], choices: Sequence[str]
) -> tuple[list[list[int]], list[list[list[int]]]]:
    """(ids of each prompt; per prompt the ids of each choice behind it), the two tokenized as one text."""
    heads = tokenizer(list(prompts))["input_ids"]
    whole = tokenizer([prompt + choice for prompt in prompts for choice in choices])["input_ids"]
    n = len(choices)
    return heads, [[ids[len(head) :] for ids in whole[i * n : i * n + n]] for i, head in enumerate(heads)]


def groups(rows: Sequence[list[int]]) -> tuple[int, list[Group]]:
    """Which rows to compute together: (how many tokens all have in common, the groups).

    Every row keeps at least one token of its own. A row by itself has only what all have in common.
    """
    # Sorted, rows that begin alike are neighbours, and the first and the last one have the least in common.
    order = sorted(range(len(rows)), key=lambda i: rows[i])
    common = _shared(rows[order[0]], rows[order[-1]]) if len(rows) > 1 else 0
    out: list[Group] = []
    for i in order:
        if out:
            first = out[-1][1][0]
            shared = _shared(rows[first], rows[i])
            if shared >= common + _WORTH:
                out[-1] = (shared, [*out[-1][1], i])
                continue
        out.append((common, [i]))
    return common, out


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens both begin with; the last token of the shorter one does not count."""
    longest = min(len(a), len(b)) - 1
    return next((k for k in range(longest) if a[k] != b[k]), longest)


class NextToken:
    """Log-probabilities of the token after each row, for a causal `model`; call it inside `torch.inference_mode`.

    `groups`: what is to be scored, in an order in which little is padded.
    """

    def __init__(self, model: Any, rows: Sequence[list[int]], batch_size: int):
        self.model, self.rows = model, rows
        self._shares = keeps_all_keys(model)
        self._common, together = groups(rows) if self._shares else (0, [(0, [i]) for i in range(len(rows))])
        self._beginning: Any = None  # the cache of what all rows have in common
        # A group of more rows than a batch holds is computed in several, its beginning in each of them.
        parts = [
            (shared, indexes[k : k + batch_size])
            for shared, indexes in together
            for k in range(0, len(indexes), batch_size)
        ]
        self.groups = sorted(parts, key=lambda group: (-len(group[1]), -len(rows[group[1][0]]), group[1]))

    def take(self, start: int, batch_size: int) -> int:
        """How many groups from `start` on make a batch of at most `batch_size` rows (or of one group)."""
        end, size = start, 0
        while end < len(self.groups) and (end == start or size + len(self.groups[end][1]) <= batch_size):
            size += len(self.groups[end][1])
            end += 1
        return end - start

    def __call__(self, batch: Sequence[Group]) -> "torch.Tensor":
        """[rows, vocabulary]: of the rows of the groups in `batch`, in their order."""
        if not self._shares:
            return self._without_cache([i for _, indexes in batch for i in indexes])
        import torch

        # 1. Where each group's beginning ends and its rows' own tokens start.
        cuts = self._cuts(batch)
        owner = [g for g, (_, indexes) in enumerate(batch) for _ in indexes]  # of each row, its group
        # 2. What all rows have in common: once for the whole run, copied for each group.
        cache, mask = self._beginnings(len(batch))
        # 3. What each group has in common beyond it: one row a group [groups, length], padded on the right.
        heads = [self.rows[indexes[0]][self._common : cut] for cut, (_, indexes) in zip(cuts, batch, strict=True)]
        if any(heads):
            ids, head_mask, positions = padded(heads, [self._common] * len(heads), False, self.model.device)
            mask = torch.cat([mask, head_mask], 1)
            cache = forward(self.model, ids, mask, positions, cache).past_key_values
        # 4. The cache and the mask of its group for each row.
        if cache is not None:
            cache.batch_select_indices(torch.tensor(owner, device=self.model.device))
        # 5. The rows' own tokens [rows, length], padded on the left: the last position is every row's last token.
        tails = [self.rows[i][cut:] for cut, (_, indexes) in zip(cuts, batch, strict=True) for i in indexes]
        ids, tail_mask, positions = padded(tails, [cuts[g] for g in owner], True, self.model.device)
        mask = torch.cat([mask[owner], tail_mask], 1)
        return forward(self.model, ids, mask, positions, cache).logits[:, -1].float().log_softmax(-1)

    def _cuts(self, batch: Sequence[Group]) -> list[int]:
        """Per group, how many tokens its rows' beginning has.

        A row by itself is cut where its tail is no longer than those of the groups beside it: its beginning is computed
        in step 3 with theirs, and step 5, which has a row for each of theirs, is not made longer by it.
        """
        tails = [len(self.rows[i]) - cut for cut, indexes in batch if len(indexes) > 1 for i in indexes]
        if not tails:
            return [cut for cut, _ in batch]
        longest = max(tails)
        return [
            cut if len(indexes) > 1 else max(self._common, len(self.rows[indexes[0]]) - longest)
            for cut, indexes in batch
        ]

    def _beginnings(self, n: int) -> tuple[Any, "torch.Tensor"]:
        """The cache of what all rows have in common, `n` times (None: they have nothing), and its mask [n, common]."""
        import torch

        mask = torch.ones(n, self._common, dtype=torch.long, device=self.model.device)
        if not self._common:
            return None, mask
        if self._beginning is None:
            ids, one, positions = padded([self.rows[0][: self._common]], [0], True, self.model.device)
            self._beginning = forward(self.model, ids, one, positions, None).past_key_values
        cache = copy.deepcopy(self._beginning)  # a pass writes into the cache that it is given
        cache.batch_select_indices(torch.zeros(n, dtype=torch.long, device=self.model.device))
        return cache, mask

    def _without_cache(self, indexes: list[int]) -> "torch.Tensor":
        """Nothing shared, padding behind: for models that keep something else than the keys of all tokens."""
        import torch

        ids, mask, _ = padded([self.rows[i] for i in indexes], [0] * len(indexes), False, self.model.device)
        logits = self.model(input_ids=ids, attention_mask=mask).logits
        last = torch.tensor([len(self.rows[i]) - 1 for i in indexes], device=logits.device)
        return logits[torch.arange(len(indexes), device=logits.device), last].float().log_softmax(-1)
