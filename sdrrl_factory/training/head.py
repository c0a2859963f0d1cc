"""The model's head, and what the model does to its output: whether the loss can be computed in chunks (chunks.py)."""

from dataclasses import dataclass
from typing import Any

import torch

from sdrrl_factory.training.model import unwrap


@dataclass(frozen=True)
class Head:
    """A linear layer from hidden states to logits, and what the model does to its output.

    The logits are scale * output, or with a softcap: softcap * tanh(output / softcap).
    """

    linear: torch.nn.Linear
    scale: float = 1.0
    softcap: float | None = None


def find_head(model: torch.nn.Module, inputs: dict) -> Head | None:
    """The model's head, or None where a trial on `inputs` shows that its logits are not made as in `Head`.

    Every rank must call it at the same time.
    """
    base = unwrap(model)
    linear = base.get_output_embeddings()
    if hasattr(linear, "modules_to_save"):  # PEFT trains a copy of the head beside the adapter
        linear = linear.modules_to_save[linear.active_adapters[0]]
    # A quantised head, one with an adapter, or one whose forward is somebody else's, is not computed by its weight.
    if type(linear) is not torch.nn.Linear or "forward" in vars(linear) or hasattr(base, "_orig_mod"):
        return None

    # What the model does to its head's output (Gemma 2's softcap, Cohere's factor, Granite's division) has no common
    # name in configurations, so it is found by giving it an output that is known.
    trial = _HeadTrial(linear)
    try:
        logits = trial.run(model, inputs)
    except (RuntimeError, ValueError, IndexError, TypeError):  # a model that looks into its logits
        return None
    # A head called twice, or logits of another shape, are more than a head's output.
    if len(trial.outputs) != 1 or logits.shape != trial.outputs[0].shape:
        return None
    output = trial.outputs[0]
    logits = logits.to(output.dtype)

    softcap = getattr(base.config.get_text_config(), "final_logit_softcapping", None)
    if softcap is not None and torch.allclose(logits, softcap * torch.tanh(output / softcap), rtol=1e-5):
        return Head(linear, softcap=softcap)
    scale = float(logits.flatten()[-1] / output.flatten()[-1])
    return Head(linear, scale) if scale and torch.allclose(logits, scale * output, rtol=1e-5) else None


class _HeadTrial:
    """One forward of the model with numbers of a wide range in place of the head's output.

    outputs: what was put there, [samples, 2, vocabulary], one each time the head was called.
    """

    def __init__(self, linear: torch.nn.Linear):
        self._linear = linear
        self.outputs: list[torch.Tensor] = []

    def run(self, model: torch.nn.Module, inputs: dict) -> torch.Tensor:
        """The logits that the model makes of them."""
        was_training = model.training
        model.eval()
        # First of the hooks on the output: what the others do to it belongs to the trial.
        hooks = [
            self._linear.register_forward_pre_hook(self._shorten),
            self._linear.register_forward_hook(self._replace, prepend=True),
        ]
        try:
            with torch.no_grad():
                return model(**inputs).logits
        finally:
            for hook in hooks:
                hook.remove()
            model.train(was_training)

    def _shorten(self, module: torch.nn.Module, args: tuple) -> tuple:
        return (args[0][..., -2:, :],)  # two positions say as much as all, in less memory

    def _replace(self, module: torch.nn.Module, args: tuple, output: torch.Tensor) -> Any:
        exact = torch.promote_types(output.dtype, torch.float32)
        numbers = torch.linspace(-64, 64, output.numel(), dtype=exact, device=output.device).view_as(output)
        self.outputs.append(numbers)
        # float16 has no room for the small probabilities that a gradient is made of: left as it is, the trial fails.
        return None if output.dtype == torch.float16 else numbers.clone()
