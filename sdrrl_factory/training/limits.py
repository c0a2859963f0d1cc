"""What cannot be weighted exactly: it stops with one line, it is never silently unweighted.

Before the model is loaded: `refuse`, and `check_mix` before a row is tokenized. With the trainer: `check_model`,
`check_ranks`. What a model does with a batch is found out at the first one: trial.py, router.py.
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from sdrrl_factory.errors import UserError
from sdrrl_factory.training.model import unwrap

if TYPE_CHECKING:
    from llamafactory.hparams import DataArguments, FinetuningArguments, ModelArguments, TrainingArguments

_UNWEIGHTED = "train unweighted with SDRRL_FACTORY_DISABLE=1"


def refuse(
    model_args: "ModelArguments",
    data_args: "DataArguments",
    training_args: "TrainingArguments",
    finetuning_args: "FinetuningArguments",
    trains: bool = True,
) -> None:
    """Raises UserError where a step, or trains=False: an evaluation, would not be equation 6."""
    settings = {
        # Rows that stream by are never counted, so |D_d| is not known.
        "streaming": data_args.streaming,
        # An answer that is generated has no loss.
        "predict_with_generate": training_args.predict_with_generate,
    }
    if trains:
        settings |= {
            # Other losses than l_CE.
            "label_smoothing_factor": training_args.label_smoothing_factor,
            "use_dft_loss": getattr(finetuning_args, "use_dft_loss", False),
            "use_eaft_loss": getattr(finetuning_args, "use_eaft_loss", False),
            "use_asft_loss": getattr(finetuning_args, "use_asft_loss", False),
            # KTransformers (LLaMA-Factory from 0.9.5) computes the experts in a training loop of its own.
            "use_kt": getattr(model_args, "use_kt", False),
        }
    for key, value in settings.items():
        if value:
            shown = "true" if value is True else value
            raise UserError(f"{shown} cannot be weighted by subset", f"take it out, or {_UNWEIGHTED}", key=key)
    if not trains:
        return

    # transformers 4.57 collects the router's logits in the forward (OutputRecorder), and reentrant checkpointing runs
    # that without gradients: the loss is there and trains nothing, in stock LLaMA-Factory too.
    reentrant = getattr(model_args, "use_reentrant_gc", True)
    checkpointing = not getattr(model_args, "disable_gradient_checkpointing", False)
    coefficient = getattr(model_args, "moe_aux_loss_coef", None)
    if coefficient and checkpointing and reentrant:
        raise UserError(
            f"{coefficient} trains nothing under reentrant gradient checkpointing, LLaMA-Factory's default",
            "set use_reentrant_gc: false or disable_gradient_checkpointing: true",
            key="moe_aux_loss_coef",
        )
    deepspeed = getattr(training_args, "hf_deepspeed_config", None)
    if deepspeed:
        check_offload(deepspeed.config.get("zero_optimization") or {}, training_args.gradient_accumulation_steps)


def check_offload(zero: dict, accumulations: int) -> None:
    """Raises UserError: DeepSpeed would lose gradients; zero: `zero_optimization` of its configuration.

    Before DeepSpeed 0.19 (its pull request 7967, for a fault that came with 6550) ZeRO-1 and ZeRO-2 with an offloaded
    optimizer keep the first and the last of three or more accumulations, and drop those between.
    """
    offloads = (zero.get("offload_optimizer") or {}).get("device", "none") != "none"
    if zero.get("stage") not in (1, 2) or not offloads or accumulations < 3:
        return
    installed = version("deepspeed")
    if tuple(int(part) for part in installed.split(".")[:2]) >= (0, 19):
        return
    raise UserError(
        f"DeepSpeed {installed} loses gradients where ZeRO-{zero['stage']} offloads its optimizer and there are"
        f" {accumulations} accumulation steps",
        "set gradient_accumulation_steps to 1 or 2, or use ZeRO-3 with offload, or no offload",
        key="gradient_accumulation_steps",
    )


def check_mix(data_args: "DataArguments", sets: int, merge: Callable) -> None:
    """Raises UserError: the installed `datasets` cannot mix so many sets as the recipe says, or would never end.

    Tried on sets of one row, before a row is tokenized. merge: LLaMA-Factory's `merge_dataset`.
    """
    if sets < 2:
        return
    mixing = data_args.mix_strategy
    probabilities = data_args.interleave_probs
    if probabilities:
        mixing += f" with interleave_probs: {','.join(f'{p:g}' for p in probabilities)}"
        # datasets 4.0 draws until each set has been drawn from to its end: from a set that is never drawn, never.
        if data_args.mix_strategy != "interleave_under" and min(probabilities) <= 0:
            raise UserError(
                f"{mixing} never ends",
                "give each set a share above 0, or take the set out of dataset",
                key="mix_strategy",
            )
    from datasets import Dataset

    try:
        # interleave_once, for one, came to LLaMA-Factory (pull request 10112) before datasets 4.0 knew it.
        merge([Dataset.from_dict({"row": [0]}) for _ in range(sets)], data_args=data_args, seed=0)
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"{mixing} cannot mix these {sets} sets (datasets {version('datasets')}: {error})",
            "mend it, or use concat",
            key="mix_strategy",
        ) from None


def check_model(model: torch.nn.Module) -> None:
    """Raises UserError for a model with an encoder: it trains on targets shifted once more, by itself."""
    base = unwrap(model)
    configs = [base.config, base.config.get_text_config()]
    if any(getattr(config, "is_encoder_decoder", False) for config in configs):
        raise UserError(
            f"{type(base).__name__} is an encoder-decoder; the subset-weighted loss is for decoder-only models",
            f"take one, or {_UNWEIGHTED}",
            key="model_name_or_path",
        )


def check_ranks(accelerator: Any) -> None:
    """Raises UserError where ranks share their rows, or one hands them out: |B| counts the rows of each."""
    parallel = getattr(accelerator, "parallelism_config", None)
    if parallel is not None and getattr(parallel, "non_data_parallel_size", 1) > 1:
        raise UserError(
            "tensor, context and sequence parallelism cannot be weighted by subset",
            f"divide the model with DeepSpeed ZeRO-3, or {_UNWEIGHTED}",
        )
    if accelerator.dispatch_batches:
        raise UserError("dispatch_batches: true cannot be weighted by subset", "take it out", key="accelerator_config")
