"""The only file that touches LLaMA-Factory's names.

It wraps `run_sft`. When a named set carries an `sdrrl` block, that call runs with three of the workflow's names
replaced: `get_dataset` (each set tokenised by the original, with a column that tells which it is), the collator and the
trainer. Otherwise the original runs untouched.
"""

import contextlib
import copy
import functools
import inspect
import io
import os
import sys
from pathlib import Path

from sdrrl_factory.errors import UserError
from sdrrl_factory.training import data
from sdrrl_factory.training.blocks import read_blocks
from sdrrl_factory.training.collator import ENTRY, weighted_collator
from sdrrl_factory.training.limits import refuse
from sdrrl_factory.training.plot import plot_subset_losses

WORKS_WITH = "0.9.5"
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
        workflow.run_sft = lambda *args, **kwargs: _stop(_unknown(["run_sft"]))
        return

    @functools.wraps(stock)
    def run_sft(model_args, data_args, training_args, finetuning_args, *args, **kwargs):
        with _stopping():
            weighted = _wanted(data_args)
        if not weighted:
            return stock(model_args, data_args, training_args, finetuning_args, *args, **kwargs)
        unknown = _missing(workflow)
        if unknown:
            _stop(_unknown(unknown))
        with _stopping():
            refuse(model_args, data_args, training_args, finetuning_args)
        originals = {name: getattr(workflow, name) for name in _NAMES}
        plan = _Plan(originals, data_args, finetuning_args)
        # The collator takes packs apart again: what LLaMA-Factory does for its own packs must not be done.
        data_args, model_args = copy.copy(data_args), copy.copy(model_args)
        data_args.packing = data_args.neat_packing = model_args.block_diag_attn = False
        workflow.get_dataset = plan.get_dataset
        workflow.SFTDataCollatorWith4DAttentionMask = weighted_collator(originals["SFTDataCollatorWith4DAttentionMask"])
        workflow.CustomSeq2SeqTrainer = plan.trainer
        try:
            with _stopping():
                result = stock(model_args, data_args, training_args, finetuning_args, *args, **kwargs)
        finally:
            for name in originals.keys() - {"run_sft"}:
                setattr(workflow, name, originals[name])
        plan.plot(training_args)
        return result

    workflow.run_sft = run_sft


def guard(workflow) -> None:
    """LLaMA-Factory's other ways to run SFT know no weights: with an sdrrl block among their sets they stop."""
    way = workflow.__name__.removeprefix("llamafactory.").removesuffix(".workflow")
    line = (
        f"LLaMA-Factory's {way} cannot weight by subset; train with its usual trainer, or with SDRRL_FACTORY_DISABLE=1"
    )
    if hasattr(workflow, "DataEngine"):  # version 1 has its own list of data sets

        def checked(*args, **kwargs):
            engine = read(*args, **kwargs)
            if any("sdrrl" in info for info in engine.dataset_infos.values()):
                _stop(line)
            return engine

        read, workflow.DataEngine = workflow.DataEngine, checked
        return

    def run_sft(model_args, data_args, *args, **kwargs):
        with _stopping():
            weighted = _wanted(data_args)
        if weighted:
            _stop(line)
        return stock(model_args, data_args, *args, **kwargs)

    stock, workflow.run_sft = workflow.run_sft, run_sft


class _Plan:
    """What one training run is made of, known once its data are read."""

    def __init__(self, originals: dict, data_args, finetuning_args):
        self._get_dataset, self._trainer = originals["get_dataset"], originals["CustomSeq2SeqTrainer"]
        self._packing = data_args.packing
        self._finetuning = finetuning_args
        self._running = None

    def get_dataset(self, template, model_args, data_args, training_args, stage, **kwargs):
        """The original, once a named set; returns what it returns, with the column of the sets."""
        from datasets import DatasetDict
        from llamafactory.data.data_utils import get_dataset_module

        folder = data_args.tokenized_path
        if _tokenized(folder):
            self.sets = data.Sets.load(folder)
        else:
            read = functools.partial(self._read, template, model_args, data_args, training_args, stage, kwargs)
            self.sets = self._make(read, data_args, training_args)
            if folder and training_args.should_save:
                self.sets.save(folder)
        if training_args.process_index == 0:
            print(told(self.sets), flush=True)
        return get_dataset_module(DatasetDict(self.sets.rows))

    def _make(self, read, data_args, training_args) -> data.Sets:
        from datasets import concatenate_datasets
        from llamafactory.data.data_utils import merge_dataset

        merge = functools.partial(merge_dataset, data_args=data_args, seed=training_args.seed)
        train_blocks, eval_blocks = (
            read_blocks(data_args, data_args.dataset),
            read_blocks(data_args, data_args.eval_dataset),
        )
        sets = data.Sets({}, each=data_args.eval_on_each_dataset)
        train, held = read(train_blocks), []
        if train and data_args.val_size > 1e-6:
            train, held = data.split(train, data_args.val_size, training_args.seed)
        if train:
            sets.rows["train"] = self._pack(merge(train), data_args, training_args)
            sets.train = data.entries_of(train_blocks, sets.rows["train"])
        held = held or read(eval_blocks, first=len(train_blocks))
        if eval_blocks and sets.each:
            sets.rows |= {f"validation_{name}": rows for name, rows in zip(eval_blocks, held, strict=True)}
            sets.evaluation = [
                data.entries_of({name: block}, rows, len(train_blocks) + i)[0]
                for i, ((name, block), rows) in enumerate(zip(eval_blocks.items(), held, strict=True))
            ]
        elif held:
            sets.rows["validation"] = merge(held) if eval_blocks else concatenate_datasets(held)
            sets.evaluation = data.entries_of(eval_blocks, sets.rows["validation"], len(train_blocks))
        return sets

    def _read(self, template, model_args, data_args, training_args, stage, kwargs, blocks, first=0) -> list:
        sets = []
        for index, name in enumerate(blocks, first):
            one = copy.copy(data_args)
            one.dataset, one.eval_dataset, one.val_size, one.tokenized_path = [name], None, 0.0, None
            # LLaMA-Factory prints a first example of whatever it tokenises: one is enough.
            with contextlib.redirect_stdout(io.StringIO()) if index else contextlib.nullcontext():
                rows = self._get_dataset(template, model_args, one, training_args, stage, **kwargs)["train_dataset"]
            sets.append(rows.add_column(ENTRY, [index] * len(rows)))
        return sets

    def _pack(self, rows, data_args, training_args):
        from llamafactory.data.processor.processor_utils import greedy_knapsack

        if not self._packing:
            return rows
        seed = None if self._finetuning.disable_shuffling else training_args.seed
        with training_args.main_process_first(desc="pack", local=not data_args.data_shared_file_system):
            return data.pack(
                rows,
                data_args.cutoff_len,
                greedy_knapsack,
                seed,
                batch_size=data_args.preprocessing_batch_size,
                num_proc=data_args.preprocessing_num_workers,
            )

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


def told(sets: data.Sets) -> str:
    """One line for the person who trains: each set's subset, rows and weight."""

    def rows(entries, weights):
        return ", ".join(f"{e.subset} {e.size} rows x {w:.4g}" for e, w in zip(entries, weights, strict=True) if e.size)

    here = len(sets.train)
    line = f"sdrrl: subset-weighted loss (equation 6) is on: {rows(sets.train, sets.weights[:here])}"
    if sets.evaluation:
        line += f"; evaluation: {rows(sets.evaluation, sets.weights[here:])}"
    bare = [e.name for e in sets.train + sets.evaluation if e.subset == "other"]
    if bare:
        line += f"; without an sdrrl block, together one more subset of weight 1, other: {', '.join(bare)}"
    return line


def _wanted(data_args) -> bool:
    """Whether a named set has a block, or the tokenized sets were written with one."""
    blocks = read_blocks(data_args, data_args.dataset) | read_blocks(data_args, data_args.eval_dataset)
    kept = _tokenized(data_args.tokenized_path)
    if kept and any(blocks.values()) and not Path(data_args.tokenized_path, data.NOTE).is_file():
        raise UserError(
            f"tokenized_path {data_args.tokenized_path} was written without this plugin and tells no subsets;"
            " remove it, name another, or train unweighted with SDRRL_FACTORY_DISABLE=1"
        )
    return Path(data_args.tokenized_path, data.NOTE).is_file() if kept else any(blocks.values())


def _tokenized(folder: str | None) -> bool:
    return folder is not None and os.path.isdir(folder) and bool(os.listdir(folder))


def _missing(workflow) -> list[str]:
    wrong = []
    for name, parameters in _NAMES.items():
        function = getattr(workflow, name, None)
        if function is None or not parameters <= set(inspect.signature(function).parameters):
            wrong.append(name)
    return wrong


def _unknown(names: list[str]) -> str:
    from importlib.metadata import version

    return (
        f"LLaMA-Factory {version('llamafactory')} has no {', '.join(names)} as this plugin knows it; it works with"
        f" llamafactory {WORKS_WITH}: pip install llamafactory=={WORKS_WITH}, or set SDRRL_FACTORY_DISABLE=1"
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
        print(f"sdrrl: {line}", file=sys.stderr, flush=True)
    sys.exit(2)
