"""The loss over chunks of the trained positions: the logits of all of them are never in memory together.

The chunks are computed where the model itself calls its head, so that what others put around modules and their
parameters (DDP, ZeRO's partitions, adapters, hooks) sees an ordinary call. The gradient is computed with the logits:
nothing is computed twice, and nothing as large as the logits waits for the backward pass.
"""

import contextlib
from dataclasses import dataclass

import torch

from sdrrl_factory.training.layout import bare

# Of each chunk's logits; and of what is in float32 besides, at a time.
CHUNK_BYTES, PART_BYTES = 2**26, 2**24


@dataclass(frozen=True)
class Head:
    """A linear layer from hidden states to logits, and what the model does to its output.

    The logits are scale * output, or with a softcap: softcap * tanh(output / softcap).
    """

    linear: torch.nn.Linear
    scale: float = 1.0
    softcap: float | None = None


def find_head(model, inputs: dict) -> Head | None:
    """The model's head, or None where a trial on `inputs` shows that its logits are not made as in `Head`.

    Every rank must call it at the same time.
    """
    base = bare(model)
    linear = base.get_output_embeddings()
    if hasattr(linear, "modules_to_save"):  # PEFT trains a copy of the head beside the adapter
        linear = linear.modules_to_save[linear.active_adapters[0]]
    # A quantised head, one with an adapter, or one whose forward is somebody else's, is not computed by its weight.
    if type(linear) is not torch.nn.Linear or "forward" in vars(linear) or hasattr(base, "_orig_mod"):
        return None
    try:
        trial = _try_head(model, linear, inputs)
    except (RuntimeError, ValueError, IndexError, TypeError):  # a model that looks into its logits
        return None
    if trial is None:
        return None
    output, logits = trial
    softcap = getattr(base.config.get_text_config(), "final_logit_softcapping", None)
    if softcap is not None and torch.allclose(logits, softcap * torch.tanh(output / softcap), rtol=1e-5):
        return Head(linear, softcap=softcap)
    scale = float(logits.flatten()[-1] / output.flatten()[-1])
    return Head(linear, scale) if scale and torch.allclose(logits, scale * output, rtol=1e-5) else None


def _try_head(model, linear, inputs) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Numbers of a wide range in place of the head's output, and the logits that the model makes of them."""
    outputs = []

    def cut(module, args):
        return (args[0][..., -2:, :],)

    def put(module, args, output):
        # float16 has no room for the small probabilities that a gradient is made of.
        usable = output.dtype != torch.float16
        exact = torch.promote_types(output.dtype, torch.float32)
        outputs.append(torch.linspace(-64, 64, output.numel(), dtype=exact, device=output.device).view_as(output))
        return outputs[0].clone() if usable else None

    training = model.training
    model.eval()
    # First of the hooks on the output: what the others do to it belongs to the trial.
    hooks = [linear.register_forward_pre_hook(cut), linear.register_forward_hook(put, prepend=True)]
    try:
        with torch.no_grad():
            logits = model(**inputs).logits
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    if len(outputs) != 1 or logits.shape != outputs[0].shape:
        return None
    return outputs[0], logits.to(outputs[0].dtype)


class HeadLoss:
    """Stands in for the head's forward during one call of the model.

    places, target, coefficient: (n,): where in the flattened batch a token is trained, which token, and what its loss
    counts in the total. Afterwards `losses` (n,) has the token losses, without a gradient.
    """

    def __init__(self, head: Head, places, target, coefficient):
        self._head, self._places, self._target, self._coefficient = head, places, target, coefficient
        self._total = self.losses = None

    @contextlib.contextmanager
    def in_place(self):
        self._head.linear.forward = self._forward
        try:
            yield
        finally:
            del self._head.linear.forward

    def _forward(self, hidden):
        rows = hidden.flatten(0, -2).index_select(0, self._places)
        linear, device = self._head.linear, hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        total, self.losses = _Chunks.apply(
            rows,
            linear.weight,
            linear.bias,
            self._target,
            self._coefficient,
            self._head,
            dtype,
            torch.is_grad_enabled(),
        )
        self._total = total.detach()
        # Zero with the total's gradient: what the model makes of its logits, by `Head`, leaves it zero.
        return (total - self._total).view(1, 1, 1)

    def total(self, logits) -> torch.Tensor:
        """The sum of coefficient times loss, with its gradient; logits: what the model returned."""
        return self._total + logits.sum() / self._head.scale


class _Chunks(torch.autograd.Function):
    """Sum of coefficient_i times the cross-entropy of row i, and each row's cross-entropy.

    rows: (n, hidden); weight: (vocabulary, hidden); target, coefficient: (n,); dtype: that of the products.
    """

    @staticmethod
    def forward(ctx, rows, weight, bias, target, coefficient, head, dtype, trains):
        needs_rows, needs_weight, needs_bias = (trains and needed for needed in ctx.needs_input_grad[:3])
        exact = torch.promote_types(dtype, torch.float32)
        losses = torch.empty(len(rows), dtype=exact, device=rows.device)
        grad_rows = torch.empty_like(rows, dtype=dtype) if needs_rows else None
        grad_weight = torch.zeros_like(weight) if needs_weight else None
        grad_bias = torch.zeros_like(bias) if needs_bias else None
        with torch.autocast(rows.device.type, enabled=False):
            cast, matrix = rows.to(dtype), weight.to(dtype)
            size = max(1, CHUNK_BYTES // (len(weight) * dtype.itemsize))
            buffer = cast.new_empty(min(size, len(rows)), len(weight))
            for start in range(0, len(rows), size):
                chunk = slice(start, start + size)
                logits = torch.mm(cast[chunk], matrix.T, out=buffer[: len(cast[chunk])])
                if bias is not None:
                    logits += bias.to(dtype)
                # From here on the gradient lies where the logits were.
                losses[chunk] = _derive_(logits, target[chunk], coefficient[chunk], head, exact)
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
        return (coefficient * losses).sum(), losses

    @staticmethod
    def backward(ctx, upstream, _):
        grad_rows, grad_weight, grad_bias = [g if g is None else g.mul_(upstream) for g in ctx.gradients]
        ctx.gradients = None
        return grad_rows if grad_rows is None else grad_rows.to(ctx.rows_dtype), grad_weight, grad_bias, *[None] * 5


def _derive_(output, target, coefficient, head: Head, exact) -> torch.Tensor:
    """Cross-entropy of each row of the head's output, (n,), which it overwrites with the derivative of the total."""
    losses = torch.empty(len(target), dtype=exact, device=output.device)
    size = max(1, PART_BYTES // (output.shape[1] * exact.itemsize))
    for start in range(0, len(target), size):
        part = slice(start, start + size)
        chosen = target[part, None]
        logits, slope = output[part].to(exact), None
        if head.softcap is not None:
            slope = torch.tanh(logits / head.softcap)
            logits = slope * head.softcap
            slope = 1 - slope.square_()
        elif head.scale != 1:
            logits = logits * head.scale
        probabilities = torch.log_softmax(logits, dim=1)
        losses[part] = -probabilities.gather(1, chosen)[:, 0]
        # The derivative of the cross-entropy: softmax less one at the target.
        probabilities.exp_().scatter_add_(1, chosen, torch.full_like(chosen, -1, dtype=exact))
        if slope is not None:
            probabilities *= slope
        output[part] = probabilities.mul_(head.scale * coefficient[part, None].to(exact))
    return losses
