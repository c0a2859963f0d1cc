"""The subset-weighted trainer: equation 6 over each global batch, and the loss of each subset in the logs."""

import torch

from sdrrl_factory.training.collator import KEY
from sdrrl_factory.training.layout import layout_for, may_join
from sdrrl_factory.training.loss import mean_losses, sample_losses
from sdrrl_factory.training.weights import Entry


def weighted_trainer(stock: type, entries: list[Entry], weights: list[float]) -> type:
    """A subclass of LLaMA-Factory's SFT trainer whose loss over a global batch B is (1/|B|) sum of w_i l_i.

    |B| counts the samples of all accumulation steps and all ranks, so a last, shorter accumulation is exact too. A row
    that the sampler repeats, to give every rank a full last batch, is no part of B: each sample counts once an epoch.

    entries, weights: the named sets that a sample's index points to; the training sets' subsets are logged.
    """
    subsets = list(dict.fromkeys(e.subset for e in entries if e.size))

    class SubsetWeightedTrainer(stock):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            # The loss is normalised here, by samples: no further division by the accumulation steps.
            self.model_accepts_loss_kwargs = True
            device = self.args.device
            exact = torch.float32 if device.type in ("mps", "npu") else torch.float64
            # One more place than there are entries and subsets, for repeated rows and evaluation sets: index -1.
            self._weight = torch.tensor([*weights, 0.0], dtype=torch.float32, device=device)
            places = [subsets.index(e.subset) if e.size else -1 for e in entries]
            places += [-1] * (len(weights) + 1 - len(places))
            self._subset = torch.tensor(places, device=device) % (len(subsets) + 1)
            self._seen = torch.zeros(2, len(subsets) + 1, dtype=exact, device=device)
            self._held = torch.zeros(2, dtype=exact, device=device)
            self._joins = None
            self.subset_logs: dict[int, dict] = {}
            for callback in self.callback_handler.callbacks:
                if hasattr(callback, "_write_log"):
                    callback._write_log = _with_subset_losses(callback._write_log, self)

        def create_optimizer(self, *args, **kwargs):
            """LoRA trains no bias and no norm: ZeRO-3 drops that empty group, and torch's schedulers then refuse."""
            optimizer = super().create_optimizer(*args, **kwargs)
            optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
            return optimizer

        def get_train_dataloader(self):
            """Resumed in mid-epoch, a run goes on in that epoch's order; accelerate would take the first's."""
            loader = super().get_train_dataloader()
            batches = loader.batch_sampler
            while hasattr(batches, "batch_sampler"):
                batches = batches.batch_sampler
            sampler = getattr(batches, "sampler", None)
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch = lambda epoch: setattr(sampler, "epoch", int(self.state.epoch or 0))
            return loader

        def _get_num_items_in_batch(self, batch_samples, device):
            """The samples of the global batch; in evaluation, of this rank's batch."""
            if not batch_samples:
                return None
            state = self.accelerator.gradient_state
            if state.end_of_dataloader:
                self._leave_out_repeated(batch_samples[-1], len(state.active_dataloader.dataset))
            here = torch.tensor(sum(batch[KEY]["counted"] for batch in batch_samples), device=device)
            return self.accelerator.gather(here).sum() if self.model.training else here

        def _leave_out_repeated(self, batch, dataset_size: int):
            """The last round's ranks take their rows in turn; what is past the data set's end is repeated."""
            facts, ranks = batch[KEY], self.accelerator.num_processes
            size = self._train_batch_size if self.model.training else self.args.eval_batch_size
            last = dataset_size % (size * ranks)
            if ranks > 1 and last and not self.args.dataloader_drop_last:
                new = max(last - self.accelerator.process_index * size, 0)
                facts["counted"] = sum(row < new for row in facts["rows"])
                facts["entry"][facts["counted"] :] = -1

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            """This process's part of the global batch's loss; in evaluation, the local batch's mean of w_i l_i."""
            facts = inputs.pop(KEY)
            inputs.pop("labels")
            if self._joins is None:
                self._joins = may_join(model)
            entry, outputs = facts["entry"], {}
            if self.compute_metrics is not None and not model.training:
                outputs["logits"] = model(**inputs).logits
                losses = mean_losses(outputs["logits"].flatten(0, 1)[facts["kept"]], facts)
            else:
                losses = sample_losses(model, inputs, facts, layout_for(model, inputs, facts, self._joins))
            total = (self._weight[entry] * losses).sum()
            if model.training:
                self._count(self._subset[entry], losses)
                # Ranks' gradients are averaged, so each rank's part is scaled up by their number.
                loss = total * self.accelerator.num_processes / num_items_in_batch
            else:
                self._held[0] += total
                self._held[1] += facts["counted"]
                loss = total / max(facts["counted"], 1)
            return (loss, {"loss": loss} | outputs) if return_outputs else loss

        def evaluation_loop(self, *args, **kwargs):
            """The stock loop takes the mean of the batches' losses; a last, shorter batch would count too much."""
            self._held.zero_()
            output = super().evaluation_loop(*args, **kwargs)
            total, samples = self.accelerator.reduce(self._held, reduction="sum").tolist()
            for key in output.metrics:
                if key.endswith("_loss") and samples:
                    output.metrics[key] = total / samples
            return output

        def _count(self, places, losses):
            self._seen[0].index_add_(0, places, losses.detach().to(self._seen))
            self._seen[1].index_add_(0, places, torch.ones_like(losses).to(self._seen))

        def log(self, logs, *args, **kwargs):
            """Adds the mean loss of each subset's samples since the last log, over all ranks."""
            if "loss" in logs:
                seen = self.accelerator.reduce(self._seen.clone(), reduction="sum")[:, :-1].T.tolist()
                self._seen.zero_()
                found = {subset: (total / n, int(n)) for subset, (total, n) in zip(subsets, seen, strict=True) if n}
                losses = {f"loss_{subset}": loss for subset, (loss, _) in found.items()}
                samples = {f"samples_{subset}": n for subset, (_, n) in found.items()}
                logs |= losses
                self.subset_logs[self.state.global_step] = losses | samples
            super().log(logs, *args, **kwargs)

    return SubsetWeightedTrainer


def _with_subset_losses(write, trainer):
    """LLaMA-Factory writes a fixed set of keys to trainer_log.jsonl; put the subsets' losses and samples beside it."""

    def write_log(output_dir, logs):
        if "loss" in logs:
            logs = logs | trainer.subset_logs.get(logs["current_steps"], {})
        write(output_dir, logs)

    return write_log
