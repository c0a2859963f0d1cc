"""Puts the plugin into LLaMA-Factory's SFT workflow, for the runs that have an sdrrl block.

`run_sft` is wrapped. It looks up three names of its module when it runs; where a named set carries a block, that call
runs with them replaced:

    get_dataset                           each set read alone by the original, its rows marked       reading.py
    SFTDataCollatorWith4DAttentionMask    the weighted collator                                      collator.py
    CustomSeq2SeqTrainer                  the weighted trainer                                       trainer.py

Otherwise the original runs untouched.
"""

import copy
import functools
import inspect
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from sdrrl_factory.training.collator import weighted_collator
from sdrrl_factory.training.limits import refuse
from sdrrl_factory.training.plot import plot_subset_losses
from sdrrl_factory.training.reading import dataset_module, read_sets, weighted_parts
from sdrrl_factory.training.sets import Sets, describe_sets
from sdrrl_factory.training.terminal import say, stop, stopping

# The versions of LLaMA-Factory that the tests ran with. Another one is used too, where it has the names below.
TESTED_WITH = ("0.9.4", "0.9.5")
# What the plugin uses of the workflow's module, and the parameters it uses of each.
_NAMES: dict[str, set[str]] = {
    "run_sft": {"model_args", "data_args", "training_args", "finetuning_args", "generating_args"},
    "get_dataset": {"template", "model_args", "data_args", "training_args", "stage", "tokenizer", "processor"},
    "SFTDataCollatorWith4DAttentionMask": set(),
    "CustomSeq2SeqTrainer": set(),
}


def install(workflow: Any) -> None:
    """Put the plugin into the freshly imported module `llamafactory.train.sft.workflow`."""
    stock = getattr(workflow, "run_sft", None)
    if stock is None:
        # A LLaMA-Factory of tomorrow: said when something is trained, not when it is imported.
        workflow.run_sft = functools.partial(_stop_at_missing, ["run_sft"])
        return
    workflow.run_sft = functools.update_wrapper(functools.partial(_run_sft, workflow, stock), stock)


def _run_sft(
    workflow: Any,
    stock: Callable,
    model_args: Any,
    data_args: Any,
    training_args: Any,
    finetuning_args: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """`run_sft` as LLaMA-Factory calls it; stock: its own."""
    # 1. Is there anything to weight?
    with stopping():
        trains_weighted, evaluates_weighted = weighted_parts(data_args)
    # Answers are generated then, for LlamaBoard's Evaluate tab or do_predict: there is no loss to weight.
    generates = training_args.predict_with_generate and not (trains_weighted and training_args.do_train)
    if generates and training_args.do_train and evaluates_weighted:
        say("predict_with_generate evaluates by generated answers: the sdrrl blocks of eval_dataset are not used")
    if generates or not (trains_weighted or evaluates_weighted):
        return stock(model_args, data_args, training_args, finetuning_args, *args, **kwargs)

    # 2. Can it be weighted, by this LLaMA-Factory and with this recipe?
    missing = missing_names(workflow)
    if missing:
        _stop_at_missing(missing)
    if version("llamafactory") not in TESTED_WITH:
        say(
            f"LLaMA-Factory {version('llamafactory')} is none of the versions that this plugin was tested with"
            f" ({', '.join(TESTED_WITH)}); it has the names that the plugin uses, so the training goes on"
        )
    with stopping():
        refuse(model_args, data_args, training_args, finetuning_args, trains=trains_weighted)

    # 3. LLaMA-Factory's own run, with three names replaced for this call.
    run = WeightedRun(workflow, data_args, finetuning_args, trains_weighted)
    if trains_weighted:
        # The collator takes packs apart again: what LLaMA-Factory does for its own packs must not be done.
        data_args, model_args = copy.copy(data_args), copy.copy(model_args)
        data_args.packing = data_args.neat_packing = model_args.block_diag_attn = False
    originals = {name: getattr(workflow, name) for name in _NAMES if name != "run_sft"}
    workflow.get_dataset = run.get_dataset
    workflow.SFTDataCollatorWith4DAttentionMask = weighted_collator(originals["SFTDataCollatorWith4DAttentionMask"])
    workflow.CustomSeq2SeqTrainer = run.make_trainer
    try:
        with stopping():
            result = stock(model_args, data_args, training_args, finetuning_args, *args, **kwargs)
    finally:
        for name, original in originals.items():
            setattr(workflow, name, original)
    run.plot(training_args)
    return result


class WeightedRun:
    """What stands in the place of LLaMA-Factory's names during one run, and what it learns of the run's sets.

    trains_weighted: training sets have blocks; otherwise the evaluation alone is weighted and the training is
    LLaMA-Factory's.
    """

    def __init__(self, workflow: Any, data_args: Any, finetuning_args: Any, trains_weighted: bool):
        self._stock_get_dataset, self._stock_trainer = workflow.get_dataset, workflow.CustomSeq2SeqTrainer
        self._packing = data_args.packing
        self._finetuning_args = finetuning_args
        self._trains_weighted = trains_weighted
        self._sets = Sets({})
        self._trainer: Any = None

    def get_dataset(
        self, template: Any, model_args: Any, data_args: Any, training_args: Any, stage: str, **kwargs: Any
    ) -> dict[str, Any]:
        """The original, once a named set; returns what it returns, with the column of the sets."""
        read = functools.partial(self._stock_get_dataset, template, model_args, stage=stage, **kwargs)
        self._sets = read_sets(read, data_args, training_args, self._trains_weighted, self._packing)
        for line in self._sets.warnings:
            say(line)
        say(describe_sets(self._sets))
        shuffled = not self._finetuning_args.disable_shuffling
        return dataset_module(self._sets, data_args, training_args, shuffled)

    def make_trainer(self, **kwargs: Any) -> Any:
        """LLaMA-Factory's trainer, weighted."""
        # Imported here: its parts are not needed, and take a second, where a run stops before.
        from sdrrl_factory.training.trainer import weighted_trainer

        make = weighted_trainer(self._stock_trainer)
        self._trainer = make(entries=self._sets.train, weights=self._sets.weights, **kwargs)
        return self._trainer

    def plot(self, training_args: Any) -> None:
        """The picture of the subsets' losses, where LLaMA-Factory makes one of the loss."""
        if self._finetuning_args.plot_loss and training_args.do_train and training_args.process_index == 0:
            path = Path(training_args.output_dir, "training_loss_by_subset.png")
            if plot_subset_losses(self._trainer.state.log_history, path):
                print("Figure saved at:", path)


def missing_names(workflow: Any) -> list[str]:
    """The names of LLaMA-Factory that the plugin uses and `workflow` has not, or has with other parameters."""
    missing = []
    for name, parameters in _NAMES.items():
        function = getattr(workflow, name, None)
        if function is None or not parameters <= set(inspect.signature(function).parameters):
            missing.append(name)
    return missing


def _stop_at_missing(names: list[str], *args: Any, **kwargs: Any) -> NoReturn:
    stop(
        f"LLaMA-Factory {version('llamafactory')} has no {', '.join(names)} as this plugin knows it; it was tested with"
        f" llamafactory {', '.join(TESTED_WITH)}: pip install llamafactory=={TESTED_WITH[-1]}, or set"
        " SDRRL_FACTORY_DISABLE=1"
    )
