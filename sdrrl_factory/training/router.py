"""The auxiliary loss of a mixture of experts, as the model itself makes and weighs it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from sdrrl_factory.errors import UserError
from sdrrl_factory.training.model import forward_arguments, unwrap


def adds_router_loss(model: torch.nn.Module) -> bool:
    """Whether the model's configuration asks for a router loss. UserError: for one that is made from all logits."""
    config = unwrap(model).config
    configs = [config, *(getattr(config, name, None) for name in config.sub_configs)]
    # Bamba (transformers 4.57) adds a mean over the logits of all positions, padding too; here logits are made of
    # trained tokens alone.
    if any(getattr(part, "z_loss_coefficient", 0) for part in configs):
        raise UserError(
            "z_loss_coefficient in the model's config.json cannot be weighted by subset",
            "set it to 0, or train unweighted with SDRRL_FACTORY_DISABLE=1",
        )
    return any(getattr(part, "output_router_logits", False) for part in configs)


class RouterLoss:
    """Lets a model make its router loss and nothing else of its loss.

    transformers' models add the router loss, under coefficients of many names, to what their `loss_function` returns.
    For one call of the model that returns zero, so what the model returns as its loss is the router loss, coefficient
    and all.
    """

    def __init__(self, model: torch.nn.Module):
        self._base = unwrap(model)
        self._called = False

    def inputs(self, input_ids: torch.Tensor) -> dict:
        """What the model must be called with besides: labels, of any content, or it makes no loss at all."""
        extra: dict[str, Any] = {"labels": input_ids}
        # Liger Kernel 0.8's forwards would make the loss from labels themselves, and no logits (its issue 703).
        if "skip_logits" in forward_arguments(self._base):
            extra["skip_logits"] = False
        return extra

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The model's loss function is this one's zero, and afterwards what it was."""
        before = vars(self._base).get("_loss_function")
        self._base.loss_function = self._zero
        try:
            yield
        finally:
            # `loss_function` is a property over this attribute, which most models make at its first use.
            if before is None:
                del self._base._loss_function
            else:
                self._base.loss_function = before

    def _zero(self, logits: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._called = True
        return torch.zeros((), dtype=torch.promote_types(logits.dtype, torch.float32), device=logits.device)

    def of(self, outputs: Any) -> torch.Tensor:
        """The router loss, a scalar with its gradient. UserError: the model makes its loss in another way."""
        if not self._called:
            raise UserError(
                f"output_router_logits: true (or moe_aux_loss_coef) of {type(self._base).__name__} cannot be trained"
                " with a subset-weighted loss",
                "take it out, or train unweighted with SDRRL_FACTORY_DISABLE=1",
            )
        return outputs.loss
