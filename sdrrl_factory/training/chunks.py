"""The loss over chunks of the trained positions: the logits of all of them are never in memory together.

The chunks are computed where the model itself calls its head, so that what others put around modules and their
parameters (DDP, ZeRO's partitions, adapters, hooks) sees an ordinary call. The gradient is computed with the logits:
nothing is computed twice, and nothing as large as the logits waits for the backward pass.

    hidden [tokens, hidden] --pick trained--> rows [trained, hidden] --chunk by chunk--> logits [chunk, vocabulary]
                                                        gradients of rows, weight, bias <--- losses [chunk]
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from sdrrl_factory.training.cross_entropy import cross_entropy_
from sdrrl_factory.training.head import Head

CHUNK_BYTES = 2**26  # of each chunk's logits


class ChunkedLoss:
    """Stands in for the head's forward during one call of the model.

    places, targets, coefficients: [trained], where in the flattened batch a token is trained, which token, and what its
    loss counts in the total. Afterwards `losses` [trained] has the token losses, without a gradient.
    """

    losses: torch.Tensor

    def __init__(self, head: Head, places: torch.Tensor, targets: torch.Tensor, coefficients: torch.Tensor):
        self._head, self._places, self._targets, self._coefficients = head, places, targets, coefficients

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        # On the module, not its class: hooks and wrappers around the call stay.
        self._head.linear.forward = self._forward
        try:
            yield
        finally:
            del self._head.linear.forward

    def _forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden: [samples, width, hidden]; what the model takes for its logits, [1, 1, 1]."""
        rows = hidden.flatten(0, -2).index_select(0, self._places)
        linear, device = self._head.linear, hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        # Autograd functions run without gradients and must be told whether the model does.
        total, self.losses = _Chunks.apply(
            rows,
            linear.weight,
            linear.bias,
            self._targets,
            self._coefficients,
            self._head,
            dtype,
            torch.is_grad_enabled(),
        )
        self._total = total.detach()
        # The backward pass has to come through what the model makes of its logits, where hooks wait for it. So the
        # model gets a zero that has the total's gradient, and by `Head` leaves it zero; `total` adds the number again.
        return (total - self._total).view(1, 1, 1)

    def total(self, logits: torch.Tensor) -> torch.Tensor:
        """The sum of coefficient times loss, with its gradient; logits: what the model returned."""
        return self._total + logits.sum() / self._head.scale


class _Chunks(torch.autograd.Function):
    """Sum of coefficient_i times the cross-entropy of row i, and each row's cross-entropy [n].

    rows: [n, hidden]; weight: [vocabulary, hidden]; bias: [vocabulary] or None; targets, coefficients: [n]; dtype: that
    of the products; trains: whether gradients are wanted at all.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        coefficients: torch.Tensor,
        head: Head,
        dtype: torch.dtype,
        trains: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        needs_rows, needs_weight, needs_bias = (trains and needed for needed in ctx.needs_input_grad[:3])
        exact = torch.promote_types(dtype, torch.float32)
        losses = torch.empty(len(rows), dtype=exact, device=rows.device)
        grad_rows: Any = torch.empty_like(rows, dtype=dtype) if needs_rows else None
        grad_weight: Any = torch.zeros_like(weight) if needs_weight else None
        grad_bias: Any = torch.zeros_like(bias) if needs_bias else None
        with torch.autocast(rows.device.type, enabled=False):
            cast, matrix = rows.to(dtype), weight.to(dtype)
            size = max(1, CHUNK_BYTES // (len(weight) * dtype.itemsize))
            buffer = cast.new_empty(min(size, len(rows)), len(weight))
            for start in range(0, len(rows), size):
                chunk = slice(start, start + size)
                # 1. The logits of a chunk, always in the same memory.
                logits = torch.mm(cast[chunk], matrix.T, out=buffer[: len(cast[chunk])])
                if bias is not None:
                    logits += bias.to(dtype)
                # 2. Its losses; from here on the derivative lies where the logits were.
                losses[chunk] = cross_entropy_(
                    logits, targets[chunk], exact, coefficients[chunk], head.scale, head.softcap
                )
                # 3. What the derivative makes of the gradients.
                if needs_rows:
                    torch.mm(logits, matrix, out=grad_rows[chunk])
                if needs_weight and dtype == weight.dtype:
                    grad_weight.addmm_(logits.T, cast[chunk])
                elif needs_weight:
                    grad_weight += logits.T @ cast[chunk]
                if needs_bias:
                    grad_bias += logits.sum(0, dtype=exact)
        ctx.gradients, ctx.rows_dtype = [grad_rows, grad_weight, grad_bias], rows.dtype
        ctx.mark_non_differentiable(losses)
        return (coefficients * losses).sum(), losses

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor, _: torch.Tensor) -> tuple:
        """upstream: a scalar, a loss scaler's factor or an accumulation's share."""
        gradients = [None if gradient is None else gradient.mul_(upstream) for gradient in ctx.gradients]
        ctx.gradients = None
        grad_rows, grad_weight, grad_bias = gradients
        if grad_rows is not None:
            grad_rows = grad_rows.to(ctx.rows_dtype)
        return grad_rows, grad_weight, grad_bias, None, None, None, None, None
