"""The auxiliary loss of a mixture of experts, as the model itself makes and weighs it."""

import contextlib

import torch

from sdrrl_factory.errors import UserError
from sdrrl_factory.training.layout import accepts, bare


def adds_router_loss(model) -> bool:
    """Whether the model's configuration asks for a router loss. UserError: for one that is made from all logits."""
    config = bare(model).config
    configs = [config, *(getattr(config, name, None) for name in config.sub_configs)]
    # Bamba adds the mean over all positions, padding too, where here logits are made of trained tokens alone.
    if any(getattr(one, "z_loss_coefficient", 0) for one in configs):
        raise UserError(
            "z_loss_coefficient in the model's config.json cannot be weighted by subset; set it to 0, or train"
            " unweighted with SDRRL_FACTORY_DISABLE=1"
        )
    return any(getattr(one, "output_router_logits", False) for one in configs)


class RouterLoss:
    """Lets a model make its router loss and nothing else of its loss.

    transformers' models add the router loss, under coefficients of many names, to what their `loss_function` returns.
    Here that returns zero, so what the model returns as its loss is the router loss, coefficient and all.
    """

    def __init__(self, model):
        self._base = bare(model)
        self._called = False

    def inputs(self, input_ids) -> dict:
        """What the model must be called with besides."""
        # Liger's forwards would make a loss of their own from labels.
        more = {"skip_logits": False} if "skip_logits" in accepts(type(self._base)) else {}
        return {"labels": input_ids} | more

    @contextlib.contextmanager
    def in_place(self):
        before = vars(self._base).get("_loss_function")
        self._base.loss_function = self._zero
        try:
            yield
        finally:
            if before is None:
                del self._base._loss_function
            else:
                self._base.loss_function = before

    def _zero(self, logits, *args, **kwargs) -> torch.Tensor:
        self._called = True
        return torch.zeros((), dtype=torch.promote_types(logits.dtype, torch.float32), device=logits.device)

    def of(self, outputs) -> torch.Tensor:
        """The router loss. UserError: the model makes its loss in another way."""
        if not self._called:
            raise UserError(
                f"output_router_logits: true (or moe_aux_loss_coef) of {type(self._base).__name__} cannot be trained"
                " with a subset-weighted loss; take it out, or train unweighted with SDRRL_FACTORY_DISABLE=1"
            )
        return outputs.loss
