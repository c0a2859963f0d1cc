"""l_CE of each sample: logits only where a token is trained, float32 only inside the cross-entropy."""

import torch
import torch.nn.functional as F


def sample_losses(model, inputs: dict, facts: dict, layout: str) -> torch.Tensor:
    """l_CE (equation 1): the mean token cross-entropy of each sample's answer, float32 of shape (samples,).

    inputs: the padded batch without labels; facts: `collator.describe` of it.
    layout: "flat" joins the samples in one row without padding, and asks for logits only where a token is trained;
    "tail" leaves out the logits before the batch's first trained token; "full" asks for all of them.
    """
    kept, sample = facts["kept"], facts["sample"]
    if layout == "flat":
        # Positions that start anew tell the attention where a sample begins; a cache would hide them.
        logits = model(
            input_ids=inputs["input_ids"].flatten()[facts["real"]][None],
            position_ids=facts["position"][None],
            logits_to_keep=facts["joined"],
            use_cache=False,
        ).logits[0]
    else:
        if layout == "tail":
            inputs = inputs | {"logits_to_keep": inputs["input_ids"].shape[1] - facts["first"]}
            kept = kept - facts["first"] * (sample + 1)
        logits = model(**inputs).logits.flatten(0, 1)[kept]
    return mean_losses(logits, facts)


def mean_losses(logits: torch.Tensor, facts: dict) -> torch.Tensor:
    """The mean of each sample's token losses, (samples,); logits: (n, vocabulary), one row a trained token."""
    summed = torch.zeros(len(facts["answer"]), dtype=torch.float32, device=logits.device)
    return summed.index_add(0, facts["sample"], token_losses(logits, facts["target"])) / facts["answer"]


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
