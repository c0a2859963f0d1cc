"""LLaMA-Factory's other ways to train: they know no weights, and must not train silently without them.

Supervised fine-tuning (hyper-parallel, Megatron, version 1 and what comes next) stops where one of its sets has an
sdrrl block. Other stages (dpo, kto, pt, ...) go on and say so once: equation 6 is an objective of SFT, and the same
sets may be meant for both.
"""

import functools
from collections.abc import Callable
from typing import Any

from sdrrl_factory.training.blocks import read_dataset_info
from sdrrl_factory.training.reading import weighted_parts
from sdrrl_factory.training.terminal import say, stop, stopping


def guard(workflow: Any) -> None:
    """Put a guard into the freshly imported module of another way to train."""
    way = workflow.__name__.removeprefix("llamafactory.").removesuffix(".workflow")
    if hasattr(workflow, "DataEngine"):
        # Version 1 (USE_V1) has no data_args: its list of sets is a file that its DataEngine reads.
        is_sft = way.endswith("sft_trainer")
        workflow.DataEngine = functools.partial(_guarded_engine, workflow.DataEngine, way, is_sft)
        return
    for name, stock in list(vars(workflow).items()):
        # The module's own run_<stage>; what it imports of other workflows is guarded there.
        if name.startswith("run_") and getattr(stock, "__module__", None) == workflow.__name__:
            run = functools.partial(_guarded_run, stock, way, name.removeprefix("run_"))
            setattr(workflow, name, functools.update_wrapper(run, stock))


def _guarded_run(
    stock: Callable, way: str, stage: str, model_args: Any, data_args: Any, *args: Any, **kwargs: Any
) -> Any:
    if stage == "sft":
        with stopping():
            weighted = any(weighted_parts(data_args))
        if weighted:
            stop(_CANNOT_WEIGHT.format(way))
    else:
        # A mistake in a block is no matter here: nothing of a block but that it is there is read.
        info = read_dataset_info(data_args)
        names = [*(data_args.dataset or []), *(data_args.eval_dataset or [])]
        marked = [name for name in dict.fromkeys(names) if _has_block(info.get(name))]
        if marked:
            say(_NOT_USED.format(f"stage: {stage}", ", ".join(marked)))
    return stock(model_args, data_args, *args, **kwargs)


def _guarded_engine(stock: Callable, way: str, is_sft: bool, *args: Any, **kwargs: Any) -> Any:
    engine = stock(*args, **kwargs)
    marked = [name for name, entry in engine.dataset_infos.items() if _has_block(entry)]
    if marked and is_sft:
        stop(_CANNOT_WEIGHT.format(way))
    if marked:
        say(_NOT_USED.format(way, ", ".join(marked)))
    return engine


def _has_block(entry: Any) -> bool:
    # A dict of dataset_info.json, or version 1's OmegaConf node.
    return hasattr(entry, "get") and entry.get("sdrrl") is not None


_CANNOT_WEIGHT = (
    "LLaMA-Factory's {} cannot weight by subset; train with its usual trainer (without USE_V1, USE_MCA,"
    " USE_MEGATRON_BRIDGE and use_hyper_parallel), or with SDRRL_FACTORY_DISABLE=1"
)
_NOT_USED = "{} is not weighted by subset, only stage: sft is; the sdrrl blocks of {} are not used"
