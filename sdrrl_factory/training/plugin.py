"""The only file that touches LLaMA-Factory's names.

It wraps `run_sft`. When a named training set carries an `sdrrl` block, that call runs with three of the workflow's
names replaced: `get_dataset` (each set tokenised by the original, with a column that tells which it is), the collator
and the trainer. Otherwise the original runs untouched.
"""

import copy
import functools
import inspect
import json
import os
import sys
from collections import Counter
from pathlib import Path

from sdrrl_factory.training.collator import COLUMN, weighted_collator
from sdrrl_factory.training.weights import Entry, sample_weights

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
        if not any(_blocks(data_args).values()):
            return stock(model_args, data_args, training_args, finetuning_args, *args, **kwargs)
        unknown = _missing(workflow)
        if unknown:
            _stop(_unknown(unknown))
        refusal = _refusal(data_args, training_args, finetuning_args)
        if refusal:
            _stop(refusal)
        originals = {name: getattr(workflow, name) for name in _NAMES}
        plan = _Plan(originals["get_dataset"])
        workflow.get_dataset = plan.get_dataset
        workflow.SFTDataCollatorWith4DAttentionMask = weighted_collator(originals["SFTDataCollatorWith4DAttentionMask"])
        workflow.CustomSeq2SeqTrainer = lambda **kw: plan.trainer(originals["CustomSeq2SeqTrainer"])(**kw)
        try:
            return stock(model_args, data_args, training_args, finetuning_args, *args, **kwargs)
        finally:
            for name in originals.keys() - {"run_sft"}:
                setattr(workflow, name, originals[name])

    workflow.run_sft = run_sft


class _Plan:
    """What one training run is made of, known once its data are read."""

    def __init__(self, get_dataset):
        self._get_dataset = get_dataset
        self.entries: list[Entry] = []

    def get_dataset(self, template, model_args, data_args, training_args, stage, **kwargs):
        """The original, once a named set; returns {"train_dataset", "eval_dataset"?} with the column of the sets."""
        from llamafactory.data.data_utils import merge_dataset

        blocks = _blocks(data_args)
        train, held = [], []
        for index, name in enumerate(blocks):
            one = copy.copy(data_args)
            one.dataset, one.eval_dataset, one.val_size = [name], None, 0.0
            rows = self._get_dataset(template, model_args, one, training_args, stage, **kwargs)["train_dataset"]
            train.append(rows.add_column(COLUMN, [index] * len(rows)))
        if data_args.val_size > 1e-6:
            # A share of each set, so that the validation set is made like the training set.
            share = data_args.val_size
            share = share / sum(map(len, train)) if share > 1 else share
            splits = [rows.train_test_split(test_size=share, seed=training_args.seed) for rows in train]
            train, held = [s["train"] for s in splits], [s["test"] for s in splits]
        module = {"train_dataset": merge_dataset(train, data_args, seed=training_args.seed)}
        if held:
            module["eval_dataset"] = merge_dataset(held, data_args, seed=training_args.seed)
        counts = Counter(module["train_dataset"][COLUMN])
        self.entries = [
            Entry(name, (block or {}).get("subset", "other"), float((block or {}).get("weight", 1.0)), counts[i])
            for i, (name, block) in enumerate(blocks.items())
        ]
        self.weights = sample_weights(self.entries)
        if training_args.process_index == 0:
            print(self.line(), flush=True)
        return module

    def line(self) -> str:
        told = ", ".join(
            f"{e.subset} {e.size} rows x {w:.4g}" for e, w in zip(self.entries, self.weights, strict=True) if e.size
        )
        return f"sdrrl: subset-weighted loss (equation 6) is on: {told}"

    def trainer(self, stock):
        from sdrrl_factory.training.trainer import weighted_trainer

        return weighted_trainer(stock, self.entries, self.weights)


def _blocks(data_args) -> dict[str, dict | None]:
    """The named training sets and their sdrrl blocks; LLaMA-Factory itself complains of what it cannot read."""
    names = data_args.dataset or []
    info = data_args.dataset_dir
    if isinstance(info, str):
        try:
            info = json.loads(Path(info, "dataset_info.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            info = {}
    blocks = {name: (info.get(name) or {}).get("sdrrl") for name in names}
    for name, block in blocks.items():
        if block is None:
            continue
        subset = block.get("subset") if isinstance(block, dict) else None
        weight = block.get("weight", 1.0) if isinstance(block, dict) else None
        if not isinstance(subset, str) or not subset:
            _stop(f'{data_args.dataset_dir}/dataset_info.json: {name}: "sdrrl" needs {{"subset": "TL", "weight": 1.0}}')
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
            _stop(f"{data_args.dataset_dir}/dataset_info.json: {name}: sdrrl.weight is {weight!r}; use a number from 0")
    return blocks


def _refusal(data_args, training_args, finetuning_args) -> str | None:
    """What cannot be weighted exactly stops; it is never silently unweighted."""
    no = {
        "streaming: true": data_args.streaming,
        "packing: true": data_args.packing,
        "neat_packing: true": data_args.neat_packing,
        "tokenized_path": data_args.tokenized_path,
        "eval_dataset (use val_size)": data_args.eval_dataset,
        "predict_with_generate: true": training_args.predict_with_generate,
        "label_smoothing_factor": training_args.label_smoothing_factor,
        "compute_accuracy: true": getattr(finetuning_args, "compute_accuracy", False),
        "use_dft_loss: true": getattr(finetuning_args, "use_dft_loss", False),
        "use_eaft_loss: true": getattr(finetuning_args, "use_eaft_loss", False),
        "use_asft_loss: true": getattr(finetuning_args, "use_asft_loss", False),
    }
    for key, value in no.items():
        if value:
            return f"{key} cannot be weighted by subset; take it out, or train unweighted with SDRRL_FACTORY_DISABLE=1"
    return None


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


def _stop(line: str) -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"sdrrl: {line}", file=sys.stderr, flush=True)
    sys.exit(2)
