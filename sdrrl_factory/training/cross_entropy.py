"""The cross-entropy of single tokens, and its derivative in the place of the logits.

    l  =  -log softmax(z)[target]            dl/dz  =  softmax(z) - onehot(target)

The derivative is as large as the logits and needed once, by the backward pass; the logits are not needed any more. So
it overwrites them, part by part in float32: nothing else of their size is ever made.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

PART_BYTES = 2**24  # of what is in float32 (or float64) at a time


def cross_entropy_(
    logits: torch.Tensor,
    targets: torch.Tensor,
    dtype: torch.dtype,
    coefficients: torch.Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
) -> torch.Tensor:
    """The cross-entropy of each row, [n] in `dtype`; overwrites `logits` with its derivative.

    logits: [n, vocabulary], or the head's output z of which logits are made, scale * z or softcap * tanh(z / softcap);
    the derivative is by z. targets: [n]; coefficients: [n] multiply the derivatives, not the losses that are returned.
    """
    losses = torch.empty(len(targets), dtype=dtype, device=logits.device)
    for part in _parts(logits, dtype):
        target = targets[part, None]
        z, slope = logits[part].to(dtype), None
        if softcap is not None:
            # d/dz of softcap * tanh(z / softcap) is 1 - tanh^2.
            tanh = torch.tanh(z / softcap)
            z = tanh * softcap
            slope = 1 - tanh.square_()
        elif scale != 1:
            z = z * scale
        probabilities = torch.log_softmax(z, dim=1)
        losses[part] = -probabilities.gather(1, target)[:, 0]
        derivative = probabilities.exp_().scatter_add_(1, target, torch.full_like(target, -1, dtype=dtype))
        if slope is not None:
            derivative *= slope
        if coefficients is not None:
            derivative *= scale * coefficients[part, None].to(dtype)
        logits[part] = derivative
    return losses


def _parts(logits: torch.Tensor, dtype: torch.dtype) -> Iterator[slice]:
    step = max(1, PART_BYTES // (logits.shape[1] * dtype.itemsize))
    for start in range(0, len(logits), step):
        yield slice(start, start + step)


def token_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each row of [n, vocabulary] logits that the model made, float32 [n]. Overwrites the logits."""
    # float16 has no room for the small probabilities that the gradient is made of.
    if logits.dtype == torch.float16 or not (torch.is_grad_enabled() and logits.requires_grad):
        return F.cross_entropy(logits.float(), targets, reduction="none")
    return _TokenLosses.apply(logits, targets)


class _TokenLosses(torch.autograd.Function):
    """`cross_entropy_` with its backward pass. logits: [n, vocabulary]; targets: [n]."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        losses = cross_entropy_(logits, targets, torch.float32)
        ctx.derivative = logits.detach()
        return losses

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        derivative, ctx.derivative = ctx.derivative, None
        for part in _parts(derivative, torch.float32):
            derivative[part] = derivative[part].float() * upstream[part, None]
        return derivative, None
