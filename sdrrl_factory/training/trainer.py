"""The subset-weighted loss, and the loss of each subset in the logs."""

import inspect
import sys

import torch
import torch.nn.functional as F

from sdrrl_factory.training.collator import COLUMN
from sdrrl_factory.training.weights import Entry

IGNORE = -100


def sample_losses(model, inputs: dict, labels: torch.Tensor, layout: str) -> torch.Tensor:
    """l_CE (equation 1): the mean token cross-entropy of each sample's answer, float32 of shape (batch,).

    inputs: a padded batch of (batch, length) tensors; labels: (batch, length), -100 where not trained.
    layout: "flat" joins the samples in one row without padding, and asks for logits only where a token is trained;
    "tail" leaves out the logits before the batch's first trained token; "full" asks for all of them.
    """
    # The label of position t+1 is the target of position t.
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORE)
    rows = torch.arange(len(labels), device=labels.device)[:, None].expand_as(labels)
    if layout == "flat":
        real = inputs["attention_mask"].bool()
        targets, rows = targets[real], rows[real]
        kept = (targets != IGNORE).nonzero()[:, 0]
        # Positions that start anew tell the attention where a sample begins; a cache would hide them.
        logits = model(
            input_ids=inputs["input_ids"][real][None],
            position_ids=(real.cumsum(1) - 1)[real][None],
            logits_to_keep=kept,
            use_cache=False,
        ).logits[0]
        targets, rows = targets[kept], rows[kept]
    else:
        if layout == "tail":
            first = int((targets != IGNORE).any(0).int().argmax())
            targets, rows = targets[:, first:], rows[:, first:]
            inputs = {**inputs, "logits_to_keep": targets.shape[1]}
        logits = model(**inputs).logits
        trained = targets != IGNORE
        logits, targets, rows = logits[trained], targets[trained], rows[trained]
    token = F.cross_entropy(logits.float(), targets, reduction="none")
    summed = torch.zeros(len(labels), device=token.device).index_add(0, rows, token)
    return summed / (labels[:, 1:] != IGNORE).sum(1).clamp(min=1)


def layout_for(model, inputs: dict) -> str:
    """The cheapest exact layout that this model and batch allow."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "logits_to_keep" not in inspect.signature(base.forward).parameters:
        return "full"
    # Models that build their mask by this function see a new sample where positions start anew.
    knows_positions = hasattr(sys.modules[type(base).__module__], "create_causal_mask")
    attention = getattr(base.config, "_attn_implementation", None)
    plain = set(inputs) == {"input_ids", "attention_mask"} and inputs["attention_mask"].dim() == 2
    if not (knows_positions and plain and attention in ("sdpa", "eager", "flash_attention_2")):
        return "tail"
    if attention == "flash_attention_2":
        return "flat"
    # With a dense mask the joined row attends over all pairs: worth it while the linear layers weigh more.
    samples, width = inputs["input_ids"].shape
    tokens = int(inputs["attention_mask"].sum())
    hidden, layers = base.config.hidden_size, base.config.num_hidden_layers
    per_token, per_pair = 24 * hidden * hidden * layers, 4 * hidden * layers
    flat = tokens * per_token + tokens**2 * per_pair
    padded = samples * width * per_token + samples * width**2 * per_pair
    return "flat" if flat < padded else "tail"


def weighted_trainer(stock: type, entries: list[Entry], weights: list[float]) -> type:
    """A subclass of LLaMA-Factory's SFT trainer whose loss over a global batch B is (1/|B|) sum of w_i l_i.

    |B| counts the samples of all accumulation steps and all ranks, so a last, shorter accumulation is exact too.
    """
    subsets = list(dict.fromkeys(e.subset for e in entries if e.size))
    subset_of = [subsets.index(e.subset) if e.size else 0 for e in entries]

    class SubsetWeightedTrainer(stock):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            # The loss is normalised here, by samples: no further division by the accumulation steps.
            self.model_accepts_loss_kwargs = True
            self._seen = torch.zeros(2, len(subsets), dtype=torch.float64)
            self._held = torch.zeros(2, dtype=torch.float64)
            for callback in self.callback_handler.callbacks:
                if hasattr(callback, "_write_log"):
                    callback._write_log = _with_subset_losses(callback._write_log, self)

        def _get_num_items_in_batch(self, batch_samples, device):
            """The samples of the global batch."""
            here = torch.tensor(sum(len(b["labels"]) for b in batch_samples), device=device)
            return self.accelerator.gather(here).sum()

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            """This process's part of the global batch's loss; in evaluation, the local batch's mean of w_i l_i."""
            entry = inputs.pop(COLUMN)
            labels = inputs.pop("labels")
            losses = sample_losses(model, inputs, labels, layout_for(self.model, inputs))
            weight = torch.tensor(weights, dtype=torch.float32, device=losses.device)[entry]
            total = (weight * losses).sum()
            if num_items_in_batch is None or not model.training:
                loss = total / len(losses)
                self._held += torch.tensor([total.item(), len(losses)], dtype=torch.float64)
            else:
                self._count(entry, losses)
                # Ranks' gradients are averaged, so each rank's part is scaled up by their number.
                loss = total * self.accelerator.num_processes / num_items_in_batch
            return (loss, {"loss": loss}) if return_outputs else loss

        def evaluation_loop(self, *args, **kwargs):
            """The stock loop takes the mean of the batches' losses; a last, shorter batch would count too much."""
            self._held.zero_()
            output = super().evaluation_loop(*args, **kwargs)
            total, samples = self.accelerator.reduce(self._held.to(self.args.device), reduction="sum").tolist()
            for key in output.metrics:
                if key.endswith("_loss") and samples:
                    output.metrics[key] = total / samples
            return output

        def _count(self, entry, losses):
            of = torch.tensor(subset_of)[entry.cpu()]
            self._seen[0].index_add_(0, of, losses.detach().double().cpu())
            self._seen[1].index_add_(0, of, torch.ones(len(of), dtype=torch.float64))

        def log(self, logs, *args, **kwargs):
            if "loss" in logs:
                seen = self._seen.to(self.args.device)
                summed, count = self.accelerator.reduce(seen, reduction="sum").cpu()
                self._seen.zero_()
                for subset, s, n in zip(subsets, summed.tolist(), count.tolist(), strict=True):
                    if n:
                        logs[f"loss_{subset}"] = round(s / n, 4)
            super().log(logs, *args, **kwargs)

    return SubsetWeightedTrainer


def _with_subset_losses(write, trainer):
    """LLaMA-Factory writes a fixed set of keys to trainer_log.jsonl; put the subsets' losses beside `loss`."""

    def write_log(output_dir, logs):
        if "loss" in logs:
            entry = next((e for e in reversed(trainer.state.log_history) if e.get("step") == logs["current_steps"]), {})
            logs = logs | {key: value for key, value in entry.items() if key.startswith("loss_")}
        write(output_dir, logs)

    return write_log
