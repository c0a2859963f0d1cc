"""The subset-weighted trainer: equation 6 over each global batch, and the loss of each subset in the logs.

The loss of a global batch B, over all its micro-batches and all ranks, is

    (1/|B|) * sum over the samples i of B of  w_i l_i            w_i: weights.py, l_i: loss.py

A step, and where what is counted:

    1  the data loader deals rows out in StratifiedSampler's order                       `_get_train_sampler`
    2  the collator makes a batch of them and notes the named set of each sample         collator.py
    3  the micro-batches of the step are taken; repeated rows weigh nothing; |B| is
       counted over all of them and all ranks, and travels in each                       `get_batch_samples`
    4  each micro-batch gives its part of the sum, times the ranks: their gradients
       are averaged                                                                      `compute_loss`
    5  the first step is checked before its gradients are used                           `training_step`
    6  the plain losses of each subset are added up until the next log                   `log`

What cannot go by the stock trainer's ways is said at each method: which library, which version, which issue.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from sdrrl_factory.training.collator import KEY, BatchIndex
from sdrrl_factory.training.counting import EpochCounter, StepCount, patched
from sdrrl_factory.training.head import Head, find_head
from sdrrl_factory.training.layout import layout_for
from sdrrl_factory.training.limits import check_model, check_ranks
from sdrrl_factory.training.logs import SubsetLosses, write_with_subsets
from sdrrl_factory.training.loss import batch_loss, mean_losses
from sdrrl_factory.training.order import StratifiedSampler, stratum_of_rows
from sdrrl_factory.training.packing import ENTRY
from sdrrl_factory.training.router import adds_router_loss
from sdrrl_factory.training.trial import check_joined, may_join
from sdrrl_factory.training.weights import Entry

if TYPE_CHECKING:
    from transformers import Seq2SeqTrainer as StockTrainer
else:
    StockTrainer = object

_LOOK_AGAIN = 10  # steps after which weights have moved


def weighted_trainer(stock: type) -> type:
    """A subclass of LLaMA-Factory's SFT trainer, see `WeightedTrainerMixin`."""
    return type("SubsetWeightedTrainer", (WeightedTrainerMixin, stock), {})


class WeightedTrainerMixin(StockTrainer):
    """Stands in front of LLaMA-Factory's SFT trainer.

    weights: w_i of the samples of each named set, training sets before evaluation sets; a sample's entry is an index
    into them. entries: the training sets alone, whose subsets are logged; none: the evaluation alone is weighted, and
    the training is stock's.
    """

    train_dataset: Any
    model_accepts_loss_kwargs: bool

    def __init__(self, *args: Any, entries: list[Entry], weights: list[float], **kwargs: Any):
        super().__init__(*args, **kwargs)
        check_model(self.model)
        check_ranks(self.accelerator)
        self._trains_weighted = bool(entries)
        # transformers' `training_step` divides by the accumulation steps where a model's loss does not take the number
        # of items (from 4.46, its pull requests 34191 and 35438). Here |B| has done that already. A router loss is
        # still scaled as stock would scale it, see `_router_share`.
        self._stock_accepts_loss_kwargs: bool = self.model_accepts_loss_kwargs
        if self._trains_weighted:
            self.model_accepts_loss_kwargs = True

        device = self.args.device
        self._exact = torch.float32 if device.type in ("mps", "npu") else torch.float64  # those know no float64
        # Tables by entry: its weight, and the column of its subset in the logs. They have one more place than there are
        # entries, at index -1, for repeated rows: those weigh nothing and, like evaluation sets, go to the last column.
        subsets = list(dict.fromkeys(entry.subset for entry in entries if entry.size))
        not_logged = len(subsets)
        columns = [subsets.index(entry.subset) if entry.size else not_logged for entry in entries]
        columns += [not_logged] * (len(weights) + 1 - len(columns))
        self._weight_of = torch.tensor([*weights, 0.0], dtype=torch.float32, device=device)
        self._column_of = torch.tensor(columns, device=device)

        self._subset_losses = SubsetLosses(subsets, self._exact, device)
        self.subset_logs: dict[int, dict] = {}  # by step
        for callback in self.callback_handler.callbacks:
            if hasattr(callback, "_write_log"):
                callback._write_log = functools.partial(write_with_subsets, callback._write_log, self.subset_logs)

        self._epoch_counter = EpochCounter()
        self._step: StepCount | None = None
        self._is_checked = self._looked_again = False
        # How the model is computed, decided at the first batch.
        self._joins: bool | None = None
        self._head: Head | None = None
        self._adds_router_loss = False
        self._evaluated: list[torch.Tensor] = []  # w_i l_i of each batch of an evaluation

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Without empty groups: LoRA trains no bias and no norm.

        DeepSpeed 0.18 drops an empty group behind the scheduler's back, which torch from 2.10 on refuses (transformers
        pull request 43692).
        """
        optimizer = super().create_optimizer(*args, **kwargs)
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        return optimizer

    # --- 1: the order

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        """Where stock shuffles, each subset is spread evenly over the epoch; an order the user asks for stays."""
        sampler = super()._get_train_sampler(*args, **kwargs)
        if not self._trains_weighted or type(sampler) is not torch.utils.data.RandomSampler:
            return sampler
        entries = stratum_of_rows(self.train_dataset[ENTRY][:], self._weight_of.tolist())
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return StratifiedSampler(entries, self._column_of.cpu().numpy(), seed)

    def get_train_dataloader(self) -> Any:
        """Resumed in mid-epoch, a run goes on in that epoch's order.

        accelerate 1.11 sets the epoch of the loader that skips the first batches back to 0 (its issue 3242, mended by
        pull request 4071), so the sampler asks the trainer's state instead.
        """
        loader = super().get_train_dataloader()
        batches: Any = loader.batch_sampler
        while hasattr(batches, "batch_sampler"):  # accelerate's, around torch's
            batches = batches.batch_sampler
        sampler: Any = getattr(batches, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch = functools.partial(self._set_epoch, sampler)
        return loader

    def _set_epoch(self, sampler: Any, epoch: int) -> None:
        sampler.epoch = int(self.state.epoch or 0)

    # --- 3: the global batch

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The micro-batches of a step, each told |B|; returns them and |B|.

        Counted here, from the batches themselves, and not in `_get_num_items_in_batch`: that is called in evaluation
        too, where nothing says so (transformers 4.57 leaves the model in evaluation mode until the next training step),
        and others put a function of their own there (Unsloth counts tokens, its pull request 1134).
        """
        if not self._trains_weighted:
            return super().get_batch_samples(epoch_iterator, num_batches, device)
        batches = list(itertools.islice(epoch_iterator, num_batches))
        rows = len(self.train_dataset)
        self._epoch_counter.leave_out_repeated(self.accelerator, rows, epoch_iterator, batches, num_batches)
        here = sum(batch[KEY]["counted"] for batch in batches)
        global_samples = self.accelerator.gather(torch.tensor([here], device=device)).sum()
        for batch in batches:
            batch[KEY]["global_samples"] = global_samples
        self._step = StepCount(global_samples, len(batches))
        return batches, global_samples

    # --- 4: the loss

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This process's part of the global batch's loss; in evaluation, the local batch's mean of w_i l_i."""
        if KEY not in inputs:  # a batch of a set that is not weighted
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        batch_index: BatchIndex = inputs.pop(KEY)
        inputs.pop("labels")
        # A batch of a step has |B|; the model's mode says nothing, see `get_batch_samples`.
        outputs: dict[str, torch.Tensor] = {}
        if "global_samples" in batch_index:
            loss = self._training_loss(model, inputs, batch_index)
        else:
            loss, outputs = self._evaluation_loss(model, inputs, batch_index)
        return (loss, {"loss": loss} | outputs) if return_outputs else loss

    def _training_loss(self, model: torch.nn.Module, inputs: dict, batch_index: BatchIndex) -> torch.Tensor:
        self._look_at(model, inputs, after_steps=_LOOK_AGAIN)
        # w_i / |B|. Ranks' gradients are averaged, so each rank's part is scaled up by their number.
        share = self.accelerator.num_processes / batch_index["global_samples"]
        coefficients = self._weight_of[batch_index["entries"]] * share
        layout = layout_for(model, inputs, batch_index, bool(self._joins))
        loss, losses, router = batch_loss(
            model, inputs, batch_index, coefficients, layout, self._head, self._adds_router_loss
        )
        self._subset_losses.add(self._column_of[batch_index["entries"]], losses)
        if router is not None:
            loss = loss + router * self._router_share()
        if self._step is not None:
            self._step.loss = loss.detach()
        return loss

    def _evaluation_loss(
        self, model: torch.nn.Module, inputs: dict, batch_index: BatchIndex
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        self._look_at(model, inputs, after_steps=1)
        weights = self._weight_of[batch_index["entries"]]
        outputs: dict[str, torch.Tensor] = {}
        if self.compute_metrics is not None:
            # LLaMA-Factory's compute_accuracy looks at all logits.
            outputs["logits"] = model(**inputs).logits
            losses = mean_losses(outputs["logits"].flatten(0, 1)[batch_index["trained_places"]], batch_index)
            loss = (weights * losses).mean()
        else:
            layout = layout_for(model, inputs, batch_index, bool(self._joins))
            loss, losses, _ = batch_loss(model, inputs, batch_index, weights * (1 / len(weights)), layout, self._head)
        self._evaluated.append((weights * losses).detach())
        return loss, outputs

    def _look_at(self, model: torch.nn.Module, inputs: dict, after_steps: int) -> None:
        """Decides once how the model is computed; looks again whether joined samples leak, once weights have moved.

        All ranks are here at the same time. UserError: they leak, or the model cannot be weighted.
        """
        if self._joins is None:
            self._joins, self._head = may_join(model), find_head(model, inputs)
            self._adds_router_loss = self._trains_weighted and adds_router_loss(model)
        if self._joins and not self._looked_again and self.state.global_step >= after_steps:
            self._looked_again = True
            check_joined(model)

    def _router_share(self) -> float:
        """What transformers' Trainer (4.57) does to the router loss of a micro-batch, with the rest of its loss.

        A model whose loss is a sum over the tokens of a step: times the ranks, whose gradients are averaged, so router
        losses of all micro-batches and ranks are added up (its issue 48690). Other models: the mean of them.
        """
        if not self._stock_accepts_loss_kwargs:
            return 1 / self.current_gradient_accumulation_steps
        return self.accelerator.num_processes if self.args.average_tokens_across_devices else 1

    # --- 5: the check

    def training_step(self, model: torch.nn.Module, inputs: dict, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Raises UserError: a sample is lost, or the loss is scaled, between the data loader and the step."""
        if not self._trains_weighted:
            return super().training_step(model, inputs, *args, **kwargs)
        batch_index: BatchIndex = inputs[KEY]
        if self._step is None or "global_samples" not in batch_index:
            raise patched("the samples of a step are not counted")
        loss = super().training_step(model, inputs, *args, **kwargs)
        if not self._is_checked:
            self._is_checked = self._step.check(batch_index["counted"], loss, self.accelerator)
        return loss

    # --- evaluation

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """`<prefix>_loss` is the mean of w_i l_i over the data set's rows, each once.

        The stock loop takes the mean of the batches' losses (transformers 4.57, its issue 39241): a last, shorter batch
        would count too much, and so would the rows that fill up the last ranks.
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
        # 1. This rank's losses, and where one is present, [batches, width, 2].
        losses = torch.nn.utils.rnn.pad_sequence(self._evaluated, batch_first=True)
        lengths = torch.tensor([len(batch) for batch in self._evaluated], device=losses.device)
        is_present = torch.arange(losses.shape[1], device=losses.device) < lengths[:, None]
        pairs = torch.stack([losses, is_present], dim=-1).to(self._exact)
        # 2. Those of all ranks, [ranks, batches, width, 2].
        for dim in (0, 1):
            pairs = self.accelerator.pad_across_processes(pairs, dim=dim)
        pairs = self.accelerator.gather(pairs[None])
        # 3. In the order of the data set: its rows come first, the repeated ones behind them.
        pairs = pairs.transpose(0, 1).reshape(-1, 2)
        return pairs[pairs[:, 1] > 0, 0][:rows].mean().item()

    # --- 6: the logs

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the mean loss of each subset's samples since the last log, over all ranks."""
        if "loss" in logs:
            for subset, (loss, samples) in self._subset_losses.collect(self.accelerator).items():
                logs[f"loss_{subset}"] = loss
                of_step = self.subset_logs.setdefault(self.state.global_step, {})
                of_step |= {f"loss_{subset}": loss, f"samples_{subset}": samples}
        super().log(logs, *args, **kwargs)
