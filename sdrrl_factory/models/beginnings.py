"""Reads prompts into a model, what they begin with alike once: examples, a system prompt, a passage asked about twice.

Of five prompts:

    examples | passage A | question 1        a group of 2: everything up to "question" is read once
    examples | passage A | question 2
    examples | passage B | question 1        a group of its own: shares the examples with all
             ^ common    ^ the group's cut
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdrrl_factory.models.forward import Past, forward, keeps_all_keys, padded

if TYPE_CHECKING:
    import torch

# So many tokens in common, beyond what all have, make a group: fewer are not worth a pass of their own.
_WORTH = 24

# (how many tokens its rows have in common, the indexes of its rows)
Group = tuple[int, list[int]]


def groups(rows: Sequence[Sequence[int]], own: Sequence[int] | None = None) -> tuple[int, list[Group]]:
    """Which rows to read together: (how many tokens all have in common, the groups).

    A row by itself has only what all have in common.

    own: how many tokens at its end each row keeps for itself; one where it is None.
    """
    most = [len(row) - (own[i] if own else 1) for i, row in enumerate(rows)]
    # Sorted, rows that begin alike are neighbours, and the first and the last one have the least in common.
    order = sorted(range(len(rows)), key=lambda i: tuple(rows[i]))
    common = min([_shared(rows[order[0]], rows[order[-1]]), *most]) if len(rows) > 1 else 0
    out: list[Group] = []
    for i in order:
        if out:
            length, members = out[-1]
            first = members[0]
            longest = length if len(members) > 1 else most[first]
            shared = min(_shared(rows[first], rows[i]), longest, most[i])
            if shared >= common + _WORTH:
                out[-1] = (shared, [*members, i])
                continue
        out.append((common, [i]))
    return common, out


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens both begin with."""
    longest = min(len(a), len(b))
    return next((k for k in range(longest) if a[k] != b[k]), longest)


class Beginnings:
    """The rows of a run, read by a causal `model` some at a time; call it inside `torch.inference_mode`.

    Args:
        rows: the token ids of each prompt.
        own: how many tokens at its end each row keeps for itself, so that their logits can be had; one where None.

    Attributes:
        order: all rows, in an order in which what is shared is read once and little is padded.
    """

    def __init__(self, model: Any, rows: Sequence[list[int]], own: Sequence[int] | None = None):
        self.model, self.rows = model, rows
        self._shares = keeps_all_keys(model)
        self._common, together = groups(rows, own) if self._shares else (0, [(0, [i]) for i in range(len(rows))])
        # The largest groups first, the longest of them first: what memory does not hold is known at once.
        together = sorted(together, key=lambda group: (-len(group[1]), -max(len(rows[i]) for i in group[1]), group[1]))
        self.order = [i for _, indexes in together for i in indexes]
        self._group_of = {i: g for g, (_, indexes) in enumerate(together) for i in indexes}
        self._first = [indexes[0] for _, indexes in together]
        self._cut = [shared for shared, _ in together]
        # Of each group, the rows that have not been read; of a group that has been read in part, its beginning.
        self._unread = [set(indexes) for _, indexes in together]
        self._sizes = [len(indexes) for _, indexes in together]
        self._read: dict[int, Past] = {}
        self._beginning: Past | None = None  # what all rows have in common

    def __call__(self, batch: Sequence[int], last: int = 1) -> "tuple[torch.Tensor, Past | None]":
        """(the logits of the last `last` tokens [rows, last, vocabulary], what has been read) of these rows.

        What has been read is None of a model whose cache cannot be continued at will.
        """
        if not self._shares:
            return self._without_cache(batch, last), None

        # 1. Where each group's beginning ends and its rows' own tokens start.
        cuts = self._cuts(batch)
        # 2. The beginnings, one row a group, and of each row of the batch, which is its.
        beginnings, at = self._beginnings(cuts)
        past = beginnings.rows([at[self._group_of[i]] for i in batch]) if beginnings else None
        # 3. The rows' own tokens [rows, length], padded on the left: the last position is every row's last token.
        tails = [self.rows[i][cuts[self._group_of[i]] :] for i in batch]
        starts = [cuts[self._group_of[i]] for i in batch]
        ids, mask, positions = padded(tails, starts, True, self.model.device)
        logits, past = forward(self.model, ids, mask, positions, past, last)
        # 4. The beginning of a group that has not been read to its end is kept for the next batch.
        for group in cuts:
            self._unread[group] -= set(batch)
            if beginnings and self._sizes[group] > 1 and self._unread[group]:
                self._read[group] = beginnings.rows([at[group]])
            else:
                self._read.pop(group, None)
        return logits[:, -last:], past

    def _cuts(self, batch: Sequence[int]) -> dict[int, int]:
        """Per group of the batch, how many tokens its rows' beginning has.

        A row by itself is cut where its tail is no longer than those of the groups beside it: its beginning is read in
        a pass with theirs, and the last pass, which has a row for each of theirs, is not made longer by it.
        """
        cuts = {self._group_of[i]: self._cut[self._group_of[i]] for i in batch}
        tails = [len(self.rows[i]) - cuts[self._group_of[i]] for i in batch if self._sizes[self._group_of[i]] > 1]
        if tails:
            for i in batch:
                group = self._group_of[i]
                if self._sizes[group] == 1:
                    cuts[group] = max(self._common, len(self.rows[i]) - max(tails))
        return cuts

    def _beginnings(self, cuts: dict[int, int]) -> tuple[Past | None, dict[int, int]]:
        """(the beginnings of the groups, one row each; of each group, its row); None where they have none."""
        new = [group for group in cuts if group not in self._read]
        kept = [group for group in cuts if group in self._read]
        past = self._common_beginning(len(new)) if new else None
        # What each group has in common beyond what all have: [groups, length], padded on the right.
        heads = [self.rows[self._first[group]][self._common : cuts[group]] for group in new]
        if any(heads):
            ids, mask, positions = padded(heads, [self._common] * len(heads), False, self.model.device)
            _, past = forward(self.model, ids, mask, positions, past)
        for group in kept:
            if past:
                past.add(self._read[group])
            elif not new:
                past = self._read[group].rows([0])
            else:  # rows without a beginning, beside some that have one
                past = self._read[group].rows([0] * len(new))
                past.hide()
                past.add(self._read[group])
        return past, {group: row for row, group in enumerate([*new, *kept])}

    def _common_beginning(self, n: int) -> Past | None:
        """What all rows have in common, `n` times; None where they have nothing."""
        if not self._common:
            return None
        if self._beginning is None:
            ids, mask, positions = padded([self.rows[0][: self._common]], [0], True, self.model.device)
            _, self._beginning = forward(self.model, ids, mask, positions)
        return self._beginning.rows([0] * n)

    def _without_cache(self, batch: Sequence[int], last: int) -> "torch.Tensor":
        """Nothing shared, padding behind: for models that keep something else than the keys of all tokens."""
        import torch

        ids, mask, _ = padded([self.rows[i] for i in batch], [0] * len(batch), False, self.model.device)
        logits = self.model(input_ids=ids, attention_mask=mask).logits
        ends = [len(self.rows[i]) for i in batch]
        # A row shorter than `last` repeats its first logits, which nobody looks at.
        at = torch.tensor([[max(0, end - last + k) for k in range(last)] for end in ends], device=logits.device)
        return logits[torch.arange(len(batch), device=logits.device)[:, None], at]
