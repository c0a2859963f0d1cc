"""The loss of a batch: what each sample's l_CE counts, summed; logits only where a token is trained."""

import contextlib
from typing import NamedTuple

import torch
import torch.nn.functional as F

from sdrrl_factory.training.head import Head, HeadLoss
from sdrrl_factory.training.router import RouterLoss


class BatchLoss(NamedTuple):
    """total: the sum of coefficient_i l_i, with its gradient; samples (samples,): l_i, without; router: or None."""

    total: torch.Tensor
    samples: torch.Tensor
    router: torch.Tensor | None


def batch_loss(
    model, inputs: dict, batch: dict, coefficient, layout: str, head: Head | None = None, router: bool = False
) -> BatchLoss:
    """l_CE (equation 1) of each sample, the mean token cross-entropy of its answer, and what it counts; float32.

    inputs: the padded batch without labels; batch: `collator.describe` of it. coefficient: (samples,).
    layout: "flat" joins the samples in one row without padding; "tail" leaves out the logits before the batch's first
    trained token, "full" asks for all of them. head: from `find_head`, makes logits of trained tokens alone, chunk by
    chunk. router: whether the model's router loss is wanted, see `RouterLoss`.
    """
    kept, sample = batch["kept"], batch["sample"]
    if layout == "flat":
        # Positions that start anew tell the attention where a sample begins; a cache would hide them.
        kept = batch["joined"]
        ids = inputs["input_ids"].flatten()[batch["real"]][None]
        inputs = {"input_ids": ids, "position_ids": batch["position"][None], "use_cache": False}
    share = coefficient / batch["answer"]
    with contextlib.ExitStack() as stack:
        chunks = auxiliary = None
        if head is not None:
            chunks = HeadLoss(head, kept, batch["target"], share[sample])
            stack.enter_context(chunks.in_place())
        elif layout == "flat":
            inputs, kept = inputs | {"logits_to_keep": kept}, slice(None)
        elif layout == "tail":
            inputs = inputs | {"logits_to_keep": inputs["input_ids"].shape[1] - batch["first"]}
            kept = kept - batch["first"] * (sample + 1)
        if router:
            auxiliary = RouterLoss(model)
            stack.enter_context(auxiliary.in_place())
            inputs = inputs | auxiliary.inputs(inputs["input_ids"])
        outputs = model(**inputs)
    auxiliary = auxiliary and auxiliary.of(outputs)
    if chunks is not None:
        return BatchLoss(chunks.total(outputs.logits), _means(chunks.losses, batch), auxiliary)
    losses = mean_losses(outputs.logits.flatten(0, 1)[kept], batch)
    return BatchLoss((coefficient * losses).sum(), losses.detach(), auxiliary)


def mean_losses(logits: torch.Tensor, batch: dict) -> torch.Tensor:
    """The mean of each sample's token losses, (samples,); logits: (n, vocabulary), one row a trained token."""
    return _means(token_losses(logits, batch["target"]), batch)


def _means(losses, batch) -> torch.Tensor:
    summed = torch.zeros(len(batch["answer"]), dtype=losses.dtype, device=losses.device)
    return summed.index_add(0, batch["sample"], losses) / batch["answer"]


def token_losses(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each row of (n, vocabulary) logits, float32 of shape (n,)."""
    # float16 has no room for the small probabilities that the gradient is made of.
    if logits.dtype == torch.float16 or not (torch.is_grad_enabled() and logits.requires_grad):
        return F.cross_entropy(logits.float(), target, reduction="none")
    return _TokenLosses.apply(logits, target)


class _TokenLosses(torch.autograd.Function):
    """Cross-entropy that leaves its gradient where the logits were: no second array of their size is made."""

    CHUNK = 2**22  # numbers in float32 at a time

    @staticmethod
    def forward(ctx, logits, target):
        losses = torch.empty(len(target), dtype=torch.float32, device=logits.device)
        for part in _parts(logits):
            shifted = logits[part].float()
            shifted = torch.log_softmax(shifted, dim=1)
            chosen = target[part, None]
            losses[part] = -shifted.gather(1, chosen)[:, 0]
            # The derivative of the loss: softmax less one at the target.
            shifted.exp_().scatter_add_(1, chosen, torch.full_like(chosen, -1, dtype=torch.float32))
            logits[part] = shifted
        ctx.gradient = logits.detach()
        return losses

    @staticmethod
    def backward(ctx, scale):
        gradient, ctx.gradient = ctx.gradient, None
        for part in _parts(gradient):
            gradient[part] = gradient[part].float() * scale[part, None]
        return gradient, None


def _parts(logits):
    step = max(1, _TokenLosses.CHUNK // logits.shape[1])
    return [slice(start, start + step) for start in range(0, len(logits), step)]
