"""The loss of each subset in the logs, over all ranks."""

from collections.abc import Callable
from typing import Any

import torch


class SubsetLosses:
    """Sums of l_i and numbers of samples of each subset since the last log, on the device: a step waits for none of it.

    exact: the dtype of the sums.
    """

    def __init__(self, subsets: list[str], exact: torch.dtype, device: torch.device):
        self._subsets = subsets
        # One more column than there are subsets, for the samples of no subset that is logged.
        self._sums = torch.zeros(2, len(subsets) + 1, dtype=exact, device=device)

    def add(self, subset: torch.Tensor, losses: torch.Tensor) -> None:
        """subset: [samples] the column of each sample; losses: [samples]."""
        self._sums[0].index_add_(0, subset, losses.detach().to(self._sums))
        self._sums[1].index_add_(0, subset, torch.ones_like(losses).to(self._sums))

    def collect(self, accelerator: Any) -> dict[str, tuple[float, int]]:
        """By subset, the mean loss and the number of its samples; those without a sample are absent. Begins anew.

        Every rank must call it at the same time.
        """
        sums = accelerator.reduce(self._sums.clone(), reduction="sum")[:, :-1].T.tolist()
        self._sums.zero_()
        pairs = zip(self._subsets, sums, strict=True)
        return {subset: (total / samples, int(samples)) for subset, (total, samples) in pairs if samples}


def write_with_subsets(write: Callable, logs_of_step: dict[int, dict], output_dir: str, logs: dict) -> None:
    """Stands for LLaMA-Factory's `LogCallback._write_log`, with the subsets' losses and samples put to the line.

    LLaMA-Factory (0.9.5) writes a fixed set of keys to trainer_log.jsonl. write: its own.
    """
    if "loss" in logs:
        logs = logs | logs_of_step.get(logs["current_steps"], {})
    write(output_dir, logs)
