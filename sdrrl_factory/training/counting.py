"""The samples of a global batch: which rows of an epoch count, and whether a step computed each of them once.

|B| counts each row of the data set once an epoch. accelerate deals an epoch's rows out in rounds, a micro-batch to each
rank in turn, and fills up the last round with rows from the beginning, so that every rank has a full batch
(`even_batches`; 1.11, BatchSamplerShard). Ten rows, two ranks, micro-batches of three:

                     rank 0      rank 1
    micro-batch 0    0 1 2       3 4 5
    micro-batch 1    6 7 8       9 (0 1)     repeated: they are computed, and weigh nothing
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from sdrrl_factory.errors import UserError
from sdrrl_factory.training.collator import KEY

_SOMETHING_BETWEEN = (
    "something replaces what this trainer computes with (Unsloth, or another patch of transformers' Trainer)"
)
_TAKE_IT_OUT = "take it out (use_unsloth: false), or train unweighted with SDRRL_FACTORY_DISABLE=1"
REPEATED = -1  # the entry of a sample that does not count: the last place of the trainer's weights, which is 0


def patched(what: str) -> UserError:
    """The error that another library has come between the data loader and the step."""
    return UserError(f"{what}: {_SOMETHING_BETWEEN}", _TAKE_IT_OUT)


class EpochCounter:
    """Takes the rows out of |B| by which accelerate fills up an epoch's last round."""

    def __init__(self) -> None:
        self._epoch: Iterator | None = None
        self._dealt = 0  # rows of this epoch, over all ranks, before the step

    def leave_out_repeated(
        self, accelerator: Any, rows_in_all: int, epoch: Iterator, batches: list[dict], num_batches: int
    ) -> None:
        """Every rank must call it at the same time.

        rows_in_all: of the data set; batches: this rank's micro-batches of a step, at most `num_batches`; epoch: the
        iterator they are from. With and without `split_batches`, rows are consecutive over the ranks of a micro-batch.
        """
        if accelerator.num_processes == 1:
            return
        # 1. The rows of each micro-batch on each rank, [micro-batches, ranks]; a rank may have fewer micro-batches.
        rows = torch.zeros(1, num_batches, dtype=torch.long, device=accelerator.device)
        for i, batch in enumerate(batches):
            rows[0, i] = batch[KEY]["rows"]
        rows = accelerator.gather(rows).T.cpu()

        # 2. How many rows were dealt before them.
        if epoch is not self._epoch:
            self._epoch = epoch
            # Resumed in mid-epoch: the micro-batches that transformers skips were full ones.
            sampler = getattr(accelerator.gradient_state.active_dataloader, "batch_sampler", None)
            self._dealt = getattr(sampler, "skip_batches", 0) * int(rows[0].sum())
        first = self._dealt + rows.flatten().cumsum(0).reshape(rows.shape) - rows
        self._dealt += int(rows.sum())
        if self._dealt <= rows_in_all:
            return

        # 3. Rows behind the data set's last one are repeated; a row's samples are all of one pack.
        for batch, start in zip(batches, first[:, accelerator.process_index].tolist(), strict=False):
            batch_index = batch[KEY]
            new_rows = rows_in_all - start
            batch_index["counted"] = sum(row < new_rows for row in batch_index["row_of"])
            batch_index["entries"][batch_index["counted"] :] = REPEATED


@dataclass
class StepCount:
    """What a step is to compute and has computed, to check the first one.

    samples: |B|; batches_left: this rank's micro-batches not computed yet; here: samples computed on this rank;
    loss: of the last micro-batch.
    """

    samples: torch.Tensor
    batches_left: int
    here: int = 0
    loss: torch.Tensor | None = None

    def check(self, counted: int, loss: torch.Tensor, accelerator: Any) -> bool:
        """After a micro-batch of `counted` samples whose training step returned `loss`. True: the step is complete.

        Before its gradients are used: every sample of B was computed, and its loss not rescaled. Raises UserError.
        """
        if self.loss is None or not torch.allclose(loss.float(), self.loss.float(), equal_nan=True):
            raise patched("the loss of a step is divided once more")
        self.here += counted
        self.batches_left -= 1
        if self.batches_left:
            return False
        computed = accelerator.gather(torch.tensor([self.here], device=accelerator.device)).sum()
        if computed != self.samples:
            raise patched(f"{int(computed)} of the {int(self.samples)} samples of a step are computed")
        return True
