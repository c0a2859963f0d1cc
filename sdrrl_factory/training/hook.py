"""What touches the names of LLaMA-Factory's workflows; its data functions are called in reading.py, nothing else is.

It wraps `run_sft`. When a named set carries an `sdrrl` block, that call runs with three of the workflow's names
replaced: `get_dataset` (each set tokenised by the original, with a column that tells which it is), the collator and the
trainer. Otherwise the original runs untouched.
"""

import contextlib
import copy
import functools
import inspect
import os
import sys
from importlib.metadata import version
from pathlib import Path

from sdrrl_factory.errors import UserError
from sdrrl_factory.training.blocks import read_info
from sdrrl_factory.training.collator import weighted_collator
from sdrrl_factory.training.data import describe_sets
from sdrrl_factory.training.limits import refuse
from sdrrl_factory.training.plot import plot_subset_losses
from sdrrl_factory.training.reading import dataset_module, is_kept, load_sets, read_sets, weighted_parts

# The versions of LLaMA-Factory that the tests ran with. Another one is used too, where it has the names below.
TESTED_WITH = ("0.9.5",)
_NAMES = {
    "run_sft": {"model_args", "data_args", "training_args", "finetuning_args", "generating_args"},
    "get_dataset": {"template", "model_args", "data_args", "training_args", "stage", "tokenizer", "processor"},
    "SFTDataCollatorWith4DAttentionMask": set(),
    "CustomSeq2SeqTrainer": set(),
}


def install(workflow) -> None:
    """Put the plugin into the freshly imported module `llamafactory.train.sft.workflow`."""
    stock = getattr(workflow, "run_sft", None)
    if stock is None:
        workflow.run_sft = functools.partial(_stop_at_names, ["run_sft"])
        return
    workflow.run_sft = functools.update_wrapper(functools.partial(_run_sft, workflow, stock), stock)


def _run_sft(workflow, stock, model_args, data_args, training_args, finetuning_args, *args, **kwargs):
    """`run_sft` as LLaMA-Factory calls it; stock: its own."""
    with _stopping():
        training, evaluation = weighted_parts(data_args)
    # Answers are generated then, for LlamaBoard's Evaluate tab or do_predict: there is no loss to weight.
    generates = training_args.predict_with_generate and not (training and training_args.do_train)
    if generates and training_args.do_train and evaluation:
        _say("predict_with_generate evaluates by generated answers: the sdrrl blocks of eval_dataset are not used")
    if generates or not (training or evaluation):
        return stock(model_args, data_args, training_args, finetuning_args, *args, **kwargs)
    unknown = missing_names(workflow)
    if unknown:
        _stop_at_names(unknown)
    if version("llamafactory") not in TESTED_WITH:
        _say(
            f"LLaMA-Factory {version('llamafactory')} is none of the versions that this plugin was tested with"
            f" ({', '.join(TESTED_WITH)}); it has the names that the plugin uses, so the training goes on"
        )
    with _stopping():
        refuse(model_args, data_args, training_args, finetuning_args, trains=training)
    run = _Run(workflow, data_args, finetuning_args, training)
    if training:
        # The collator takes packs apart again: what LLaMA-Factory does for its own packs must not be done.
        data_args, model_args = copy.copy(data_args), copy.copy(model_args)
        data_args.packing = data_args.neat_packing = model_args.block_diag_attn = False
    originals = {name: getattr(workflow, name) for name in _NAMES if name != "run_sft"}
    workflow.get_dataset = run.get_dataset
    workflow.SFTDataCollatorWith4DAttentionMask = weighted_collator(originals["SFTDataCollatorWith4DAttentionMask"])
    workflow.CustomSeq2SeqTrainer = run.trainer
    try:
        with _stopping():
            result = stock(model_args, data_args, training_args, finetuning_args, *args, **kwargs)
    finally:
        for name, original in originals.items():
            setattr(workflow, name, original)
    run.plot(training_args)
    return result


# --- LLaMA-Factory's other ways to train


def guard(workflow) -> None:
    """Put a guard into the freshly imported module of another way to train: it knows no weights.

    Supervised fine-tuning (hyper-parallel, Megatron, version 1 and what comes next) stops where there is an sdrrl block
    among its sets: it would be silently unweighted. Other stages (dpo, kto, pt, ...) go on and say so once: equation 6
    is an objective of SFT, and the same sets may be meant for both.
    """
    way = workflow.__name__.removeprefix("llamafactory.").removesuffix(".workflow")
    if hasattr(workflow, "DataEngine"):  # version 1 has its own list of data sets
        sft = way.endswith("sft_trainer")
        workflow.DataEngine = functools.partial(_guarded_engine, workflow.DataEngine, way, sft)
        return
    for name, stock in list(vars(workflow).items()):
        if name.startswith("run_") and getattr(stock, "__module__", None) == workflow.__name__:
            run = functools.partial(_guarded_run, stock, way, name.removeprefix("run_"))
            setattr(workflow, name, functools.update_wrapper(run, stock))


def _guarded_run(stock, way: str, stage: str, model_args, data_args, *args, **kwargs):
    if stage == "sft":
        with _stopping():
            weighted = any(weighted_parts(data_args))
        if weighted:
            _stop(_CANNOT_WEIGHT.format(way))
    else:
        info = read_info(data_args)
        names = [*(data_args.dataset or []), *(data_args.eval_dataset or [])]
        marked = [name for name in dict.fromkeys(names) if _is_marked(info.get(name))]
        if marked:
            _say(_NOT_USED.format(f"stage: {stage}", ", ".join(marked)))
    return stock(model_args, data_args, *args, **kwargs)


def _guarded_engine(stock, way: str, sft: bool, *args, **kwargs):
    engine = stock(*args, **kwargs)
    marked = [name for name, entry in engine.dataset_infos.items() if _is_marked(entry)]
    if marked and sft:
        _stop(_CANNOT_WEIGHT.format(way))
    if marked:
        _say(_NOT_USED.format(way, ", ".join(marked)))
    return engine


_CANNOT_WEIGHT = (
    "LLaMA-Factory's {} cannot weight by subset; train with its usual trainer (without USE_V1, USE_MCA,"
    " USE_MEGATRON_BRIDGE and use_hyper_parallel), or with SDRRL_FACTORY_DISABLE=1"
)
_NOT_USED = "{} is not weighted by subset, only stage: sft is; the sdrrl blocks of {} are not used"


def _is_marked(entry) -> bool:
    return hasattr(entry, "get") and entry.get("sdrrl") is not None


# --- the weighted run


class _Run:
    """What one training run is made of, known once its data are read.

    trains: training sets have blocks; otherwise the evaluation alone is weighted and the training is LLaMA-Factory's.
    """

    def __init__(self, workflow, data_args, finetuning_args, trains: bool):
        self._get_dataset, self._trainer = workflow.get_dataset, workflow.CustomSeq2SeqTrainer
        self._packing = data_args.packing
        self._finetuning = finetuning_args
        self._trains = trains
        self._running = None

    def get_dataset(self, template, model_args, data_args, training_args, stage, **kwargs):
        """The original, once a named set; returns what it returns, with the column of the sets."""
        if is_kept(data_args.tokenized_path):
            self.sets = load_sets(data_args, training_args)
            for line in self.sets.warnings:
                _say(line)
        else:
            read = functools.partial(self._get_dataset, template, model_args, stage=stage, **kwargs)
            self.sets = read_sets(read, data_args, training_args, self._trains, self._packing)
            if data_args.tokenized_path and training_args.should_save:
                self.sets.save(data_args.tokenized_path)
        _say(describe_sets(self.sets))
        shuffled = not self._finetuning.disable_shuffling
        return dataset_module(self.sets, data_args, training_args, shuffled)

    def trainer(self, **kwargs):
        from sdrrl_factory.training.trainer import weighted_trainer

        trainer = weighted_trainer(self._trainer)
        self._running = trainer(entries=self.sets.train, weights=self.sets.weights, **kwargs)
        return self._running

    def plot(self, training_args) -> None:
        if self._finetuning.plot_loss and training_args.do_train and training_args.process_index == 0:
            path = Path(training_args.output_dir, "training_loss_by_subset.png")
            if plot_subset_losses(self._running.state.log_history, path):
                print("Figure saved at:", path)


# --- names, lines, stops


def missing_names(workflow) -> list[str]:
    """The names of LLaMA-Factory that the plugin uses and `workflow` has not, or has with other parameters."""
    missing = []
    for name, parameters in _NAMES.items():
        function = getattr(workflow, name, None)
        if function is None or not parameters <= set(inspect.signature(function).parameters):
            missing.append(name)
    return missing


def _stop_at_names(names: list[str], *args, **kwargs) -> None:
    _stop(
        f"LLaMA-Factory {version('llamafactory')} has no {', '.join(names)} as this plugin knows it; it was tested with"
        f" llamafactory {', '.join(TESTED_WITH)}: pip install llamafactory=={TESTED_WITH[-1]}, or set"
        " SDRRL_FACTORY_DISABLE=1"
    )


@contextlib.contextmanager
def _stopping():
    """A mistake the user can mend ends the command with one line, on the first rank of a machine alone."""
    try:
        yield
    except UserError as error:
        _stop(str(error))


def _stop(line: str) -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"sdrrl: {' '.join(line.split())}", file=sys.stderr, flush=True)
    sys.exit(2)


def _say(line: str) -> None:
    """One line, from the first rank of all."""
    if os.environ.get("RANK", "0") == "0":
        print(f"sdrrl: {line}", flush=True)
