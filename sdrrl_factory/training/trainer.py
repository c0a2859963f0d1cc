"""The subset-weighted trainer: equation 6 over each global batch, and the loss of each subset in the logs."""

import torch

from sdrrl_factory.errors import UserError
from sdrrl_factory.training.collator import ENTRY, KEY
from sdrrl_factory.training.head import find_head
from sdrrl_factory.training.layout import check_joined, check_model, layout_for, may_join
from sdrrl_factory.training.loss import batch_loss, mean_losses
from sdrrl_factory.training.order import StratifiedSampler, stratum_of_rows
from sdrrl_factory.training.router import adds_router_loss
from sdrrl_factory.training.weights import Entry


def weighted_trainer(stock: type) -> type:
    """A subclass of LLaMA-Factory's SFT trainer that takes `entries` and `weights` besides, see `SubsetWeighting`."""
    return type("SubsetWeightedTrainer", (SubsetWeighting, stock), {})


class SubsetWeighting:
    """Stands in front of LLaMA-Factory's SFT trainer; the loss over a global batch B is (1/|B|) sum of w_i l_i.

    |B| counts the samples of all accumulation steps and all ranks, so a last, shorter accumulation is exact too. A row
    that accelerate repeats, to give every rank a full last batch, is no part of B: each sample counts once an epoch.

    weights: w_i of the samples of each named set, training sets before evaluation sets; a sample's `entry` is an index
    into them. entries: the training sets alone, whose subsets are logged; none: the evaluation alone is weighted.
    """

    def __init__(self, *args, entries: list[Entry], weights: list[float], **kwargs):
        super().__init__(*args, **kwargs)
        check_model(self.model)
        _check_ranks(self.accelerator)
        # Without a training set among the entries only the evaluation is weighted: the training is stock's.
        self._trains_weighted = bool(entries)
        # A router loss is scaled as stock would scale it, see `_router_share`.
        self._stock_accepts_loss_kwargs = self.model_accepts_loss_kwargs
        if self._trains_weighted:
            # The loss is normalised here, by samples: no further division by the accumulation steps.
            self.model_accepts_loss_kwargs = True
        device = self.args.device
        exact = torch.float32 if device.type in ("mps", "npu") else torch.float64
        self._subsets = list(dict.fromkeys(entry.subset for entry in entries if entry.size))
        # One more place than there are entries and subsets, for repeated rows and evaluation sets: index -1.
        self._weight = torch.tensor([*weights, 0.0], dtype=torch.float32, device=device)
        places = [self._subsets.index(entry.subset) if entry.size else -1 for entry in entries]
        places += [-1] * (len(weights) + 1 - len(places))
        self._subset = torch.tensor(places, device=device) % (len(self._subsets) + 1)
        # Sum of l_i and number of samples of each subset since the last log.
        self._logged = torch.zeros(2, len(self._subsets) + 1, dtype=exact, device=device)
        self._evaluated: list[torch.Tensor] = []
        self._epoch = self._step = None
        self._checked = self._looked_again = False
        self._joins = self._head = self._router = None
        self.subset_logs: dict[int, dict] = {}
        for callback in self.callback_handler.callbacks:
            if hasattr(callback, "_write_log"):
                callback._write_log = _with_subset_losses(callback._write_log, self)

    def create_optimizer(self, *args, **kwargs):
        """LoRA trains no bias and no norm: ZeRO-3 drops that empty group, and torch's schedulers then refuse."""
        optimizer = super().create_optimizer(*args, **kwargs)
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        return optimizer

    def _get_train_sampler(self, *args, **kwargs):
        """Where stock shuffles, each subset is spread evenly over the epoch; an order the user asks for stays."""
        sampler = super()._get_train_sampler(*args, **kwargs)
        if not self._trains_weighted or type(sampler) is not torch.utils.data.RandomSampler:
            return sampler
        entries = stratum_of_rows(self.train_dataset[ENTRY][:], self._weight.tolist())
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return StratifiedSampler(entries, self._subset.cpu().numpy(), seed)

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

    # --- the global batch

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The micro-batches of a step, each told |B|; returns them and |B|.

        Counted here, from the batches themselves, and not in `_get_num_items_in_batch`: that is called in evaluation
        too, where nothing says so (transformers leaves the model in evaluation mode until the next training step), and
        others put a function of their own there (Unsloth counts tokens).
        """
        if not self._trains_weighted:
            return super().get_batch_samples(epoch_iterator, num_batches, device)
        batches = []
        while len(batches) < num_batches:
            batch = next(epoch_iterator, None)
            if batch is None:
                break
            batches.append(batch)
        self._leave_out_repeated(epoch_iterator, batches, num_batches)
        here = sum(batch[KEY]["counted"] for batch in batches)
        samples = self.accelerator.gather(torch.tensor([here], device=device)).sum()
        for batch in batches:
            batch[KEY]["global"] = samples
        self._step = {"samples": samples, "left": len(batches), "here": 0}
        return batches, samples

    def _leave_out_repeated(self, epoch_iterator, batches, num_batches: int) -> None:
        """Takes out of B the rows by which accelerate fills up an epoch's last round.

        The rows of an epoch are dealt out micro-batch by micro-batch, and in each to the ranks in turn, with and
        without `split_batches`. Those behind the data set's last row are the first ones over again.
        """
        ranks = self.accelerator.num_processes
        if ranks == 1:
            return
        rows = torch.zeros(1, num_batches, dtype=torch.long, device=self.args.device)
        for i, batch in enumerate(batches):
            rows[0, i] = batch[KEY]["dealt"]
        rows = self.accelerator.gather(rows).T.cpu()  # (micro-batches, ranks)
        if epoch_iterator is not self._epoch:
            self._epoch = epoch_iterator
            # Resumed in mid-epoch: the batches that transformers skips were full ones.
            sampler = getattr(self.accelerator.gradient_state.active_dataloader, "batch_sampler", None)
            self._dealt = getattr(sampler, "skip_batches", 0) * int(rows[0].sum())
        first = self._dealt + rows.flatten().cumsum(0).reshape(rows.shape) - rows
        self._dealt += int(rows.sum())
        if self._dealt <= len(self.train_dataset):
            return
        for batch, start in zip(batches, first[:, self.accelerator.process_index].tolist(), strict=False):
            new = len(self.train_dataset) - start
            samples = batch[KEY]
            samples["counted"] = sum(row < new for row in samples["rows"])
            samples["entry"][samples["counted"] :] = -1

    def training_step(self, model, inputs, *args, **kwargs):
        """Raises UserError: a sample is lost, or the loss is scaled, between the data loader and the step."""
        if not self._trains_weighted:
            return super().training_step(model, inputs, *args, **kwargs)
        batch = inputs[KEY]
        if "global" not in batch:
            raise UserError(_BETWEEN.format("the samples of a step are not counted"))
        loss = super().training_step(model, inputs, *args, **kwargs)
        if not self._checked:
            self._check_step(batch["counted"], loss)
        return loss

    def _check_step(self, counted: int, loss) -> None:
        """The first step, before its gradients are used: every sample of B was computed, and its loss not rescaled."""
        if not torch.allclose(loss.float(), self._step["loss"].float(), equal_nan=True):
            raise UserError(_BETWEEN.format("the loss of a step is divided once more"))
        self._step["here"] += counted
        self._step["left"] -= 1
        if self._step["left"]:
            return
        self._checked = True
        computed = self.accelerator.gather(torch.tensor([self._step["here"]], device=self.args.device)).sum()
        if computed != self._step["samples"]:
            said = f"{int(computed)} of the {int(self._step['samples'])} samples of a step are computed"
            raise UserError(_BETWEEN.format(said))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """This process's part of the global batch's loss; in evaluation, the local batch's mean of w_i l_i."""
        if KEY not in inputs:  # a batch of a set that is not weighted
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        batch = inputs.pop(KEY)
        inputs.pop("labels")
        training, outputs = "global" in batch, {}
        self._look_at(model, inputs, training)
        weight = self._weight[batch["entry"]]
        if self.compute_metrics is not None and not training:
            outputs["logits"] = model(**inputs).logits
            losses = mean_losses(outputs["logits"].flatten(0, 1)[batch["kept"]], batch)
            loss = (weight * losses).mean()
        else:
            # Ranks' gradients are averaged, so each rank's part is scaled up by their number.
            share = self.accelerator.num_processes / batch["global"] if training else 1 / len(weight)
            layout = layout_for(model, inputs, batch, self._joins)
            loss, losses, router = batch_loss(
                model, inputs, batch, weight * share, layout, self._head, training and self._router
            )
        if training:
            self._log_losses(self._subset[batch["entry"]], losses)
            if router is not None:
                loss = loss + router * self._router_share()
            self._step["loss"] = loss.detach()
        else:
            self._evaluated.append((weight * losses).detach())
        return (loss, {"loss": loss} | outputs) if return_outputs else loss

    def _look_at(self, model, inputs, training: bool) -> None:
        """Decides once how the model is computed; looks again whether joined samples leak, once weights have moved.

        All ranks are here at the same time. UserError: they leak, or the model cannot be weighted.
        """
        if self._joins is None:
            self._joins, self._head = may_join(model), find_head(model, inputs)
            self._router = self._trains_weighted and adds_router_loss(model)
        later = self.state.global_step >= _LOOK_AGAIN if training else self.state.global_step > 0
        if self._joins and later and not self._looked_again:
            self._looked_again = True
            check_joined(model)

    def _router_share(self) -> float:
        """What transformers' Trainer does to the router loss of a micro-batch, together with the rest of its loss.

        A model whose loss is a sum over the tokens of a step: times the ranks, whose gradients are averaged, so router
        losses of all micro-batches and ranks are added up. Other models: the mean of them.
        """
        if not self._stock_accepts_loss_kwargs:
            return 1 / self.current_gradient_accumulation_steps
        return self.accelerator.num_processes if self.args.average_tokens_across_devices else 1

    # --- evaluation

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ):
        """`<prefix>_loss` is the mean of w_i l_i over the data set's rows, each once.

        The stock loop takes the mean of the batches' losses: a last, shorter batch would count too much, and so would
        the rows that fill up the last ranks.
        """
        self._evaluated.clear()
        output = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix=metric_key_prefix
        )
        key = f"{metric_key_prefix}_loss"
        if self._evaluated and key in output.metrics:
            output.metrics[key] = self._mean_of_evaluated(len(dataloader.dataset))
        self._evaluated.clear()
        return output

    def _mean_of_evaluated(self, rows: int) -> float:
        """The rows were dealt out batch by batch, and in each to the ranks in turn; behind the last they repeat."""
        here = torch.nn.utils.rnn.pad_sequence(self._evaluated, batch_first=True)
        lengths = torch.tensor([len(batch) for batch in self._evaluated], device=here.device)
        present = torch.arange(here.shape[1], device=here.device) < lengths[:, None]
        pair = torch.stack([here, present], dim=-1).to(self._logged.dtype)  # (batches, width, 2)
        for dim in (0, 1):
            pair = self.accelerator.pad_across_processes(pair, dim=dim)
        pair = self.accelerator.gather(pair[None])  # (ranks, batches, width, 2)
        pair = pair.transpose(0, 1).reshape(-1, 2)
        losses = pair[pair[:, 1] > 0, 0][:rows]
        return losses.mean().item()

    # --- the logs

    def _log_losses(self, places, losses):
        self._logged[0].index_add_(0, places, losses.detach().to(self._logged))
        self._logged[1].index_add_(0, places, torch.ones_like(losses).to(self._logged))

    def log(self, logs, *args, **kwargs):
        """Adds the mean loss of each subset's samples since the last log, over all ranks."""
        if "loss" in logs:
            sums = self.accelerator.reduce(self._logged.clone(), reduction="sum")[:, :-1].T.tolist()
            self._logged.zero_()
            for subset, (total, samples) in zip(self._subsets, sums, strict=True):
                if samples:
                    step = self.subset_logs.setdefault(self.state.global_step, {})
                    step[f"loss_{subset}"] = logs[f"loss_{subset}"] = total / samples
                    step[f"samples_{subset}"] = int(samples)
        super().log(logs, *args, **kwargs)


_LOOK_AGAIN = 10  # steps
_BETWEEN = (
    "{}: something replaces what this trainer computes with (Unsloth, or another patch of transformers' Trainer);"
    " take it out (use_unsloth: false), or train unweighted with SDRRL_FACTORY_DISABLE=1"
)


def _check_ranks(accelerator) -> None:
    """Every rank takes rows of its own: raises UserError where some share theirs, or one hands them out."""
    parallel = getattr(accelerator, "parallelism_config", None)
    if parallel is not None and getattr(parallel, "non_data_parallel_size", 1) > 1:
        raise UserError(
            "tensor, context and sequence parallelism cannot be weighted by subset; divide the model with DeepSpeed"
            " ZeRO-3, or train unweighted with SDRRL_FACTORY_DISABLE=1"
        )
    if accelerator.dispatch_batches:
        raise UserError("accelerator_config: dispatch_batches: true cannot be weighted by subset; take it out")


def _with_subset_losses(write, trainer):
    """LLaMA-Factory writes a fixed set of keys to trainer_log.jsonl; put the subsets' losses and samples beside it."""

    def write_log(output_dir, logs):
        if "loss" in logs:
            logs = logs | trainer.subset_logs.get(logs["current_steps"], {})
        write(output_dir, logs)

    return write_log
