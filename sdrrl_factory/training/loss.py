"""The loss of a batch: equation 6 for the samples that are in it.

    total  =  sum over samples i of  coefficient_i * l_i

    l_i    =  1/answer_length_i * sum over the trained tokens t of i of  -log p(t | what stands before it)

l_i is l_CE of equation 1, taken over the answer alone as a mean over its tokens. coefficient_i is w_i / |B|, times the
number of ranks, whose gradients are averaged (trainer.py; w_i: weights.py). Logits are made only where a token is
trained.
"""

import contextlib
from typing import NamedTuple

import torch

from sdrrl_factory.training.chunks import ChunkedLoss
from sdrrl_factory.training.collator import BatchIndex
from sdrrl_factory.training.cross_entropy import token_losses
from sdrrl_factory.training.head import Head
from sdrrl_factory.training.router import RouterLoss


class BatchLoss(NamedTuple):
    """total: a scalar, with its gradient; samples: [samples] l_i, without; router: like total, or None."""

    total: torch.Tensor
    samples: torch.Tensor
    router: torch.Tensor | None


def batch_loss(
    model: torch.nn.Module,
    inputs: dict,
    batch_index: BatchIndex,
    coefficients: torch.Tensor,
    layout: str,
    head: Head | None = None,
    router: bool = False,
) -> BatchLoss:
    """The loss of a batch, float32.

    inputs: the padded batch without labels, input_ids [samples, width]; coefficients: [samples]; layout: see layout.py;
    head: from `find_head`, makes logits of trained tokens alone, chunk by chunk; router: whether the model's router
    loss is wanted, see `RouterLoss`.
    """
    inputs = dict(inputs)
    # 1. Where among the positions that the model computes a token is trained, [trained].
    places: torch.Tensor | slice = batch_index["trained_places"]
    if layout == "flat":
        places = batch_index["joined_places"]
        # Positions that start anew tell the attention where a sample begins; a cache would hide them.
        ids = inputs["input_ids"].flatten()[batch_index["token_places"]][None]
        inputs = {"input_ids": ids, "position_ids": batch_index["position_ids"][None], "use_cache": False}

    with contextlib.ExitStack() as replaced:
        # 2. Where no chunks are computed, of which positions the model makes logits, and where in those the places are.
        chunked = router_loss = None
        if head is not None:
            token_coefficients = (coefficients / batch_index["answer_lengths"])[batch_index["sample_of"]]
            chunked = ChunkedLoss(head, places, batch_index["targets"], token_coefficients)
            replaced.enter_context(chunked.in_place())
        elif layout == "flat":
            inputs["logits_to_keep"] = places
            places = slice(None)  # all of them, and as a view: the loss overwrites them
        elif layout == "tail":
            skipped = batch_index["first_trained"]
            inputs["logits_to_keep"] = inputs["input_ids"].shape[1] - skipped
            # Each row before, and the place's own, is shorter by what is skipped.
            places = places - skipped * (batch_index["sample_of"] + 1)
        if router:
            router_loss = RouterLoss(model)
            replaced.enter_context(router_loss.in_place())
            inputs |= router_loss.inputs(inputs["input_ids"])

        # 3. The one call of the model, whose head and loss function may be replaced for it.
        outputs = model(**inputs)

    # 4. The sum of coefficient_i l_i.
    auxiliary = None if router_loss is None else router_loss.of(outputs)
    if chunked is not None:
        return BatchLoss(chunked.total(outputs.logits), _mean_of_samples(chunked.losses, batch_index), auxiliary)
    losses = mean_losses(outputs.logits.flatten(0, 1)[places], batch_index)
    return BatchLoss((coefficients * losses).sum(), losses.detach(), auxiliary)


def mean_losses(logits: torch.Tensor, batch_index: BatchIndex) -> torch.Tensor:
    """l_i, [samples]; logits: [trained, vocabulary], one row a trained token."""
    return _mean_of_samples(token_losses(logits, batch_index["targets"]), batch_index)


def _mean_of_samples(losses: torch.Tensor, batch_index: BatchIndex) -> torch.Tensor:
    """The mean of each sample's token losses, [samples]; losses: [trained]."""
    answer_lengths = batch_index["answer_lengths"]
    sums = torch.zeros(len(answer_lengths), dtype=losses.dtype, device=losses.device)
    return sums.index_add(0, batch_index["sample_of"], losses) / answer_lengths
