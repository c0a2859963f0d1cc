"""What cannot be weighted exactly: it stops with one line, it is never silently unweighted."""

from importlib.metadata import version

from sdrrl_factory.errors import UserError


def refuse(model_args, data_args, training_args, finetuning_args, trains: bool = True) -> None:
    """Raises UserError where a step, or trains=False: an evaluation, would not be equation 6."""
    no = {
        "streaming: true": data_args.streaming,
        "predict_with_generate: true": training_args.predict_with_generate,
    }
    if trains:
        no |= {
            "label_smoothing_factor": training_args.label_smoothing_factor,
            "use_dft_loss: true": getattr(finetuning_args, "use_dft_loss", False),
            "use_eaft_loss: true": getattr(finetuning_args, "use_eaft_loss", False),
            "use_asft_loss: true": getattr(finetuning_args, "use_asft_loss", False),
            # KTransformers (LLaMA-Factory from 0.9.5) computes the experts in a training loop of its own.
            "use_kt: true": getattr(model_args, "use_kt", False),
        }
    for key, value in no.items():
        if value:
            raise UserError(
                f"{key} cannot be weighted by subset; take it out, or train unweighted with SDRRL_FACTORY_DISABLE=1"
            )
    if not trains:
        return
    # transformers collects the router's logits where reentrant checkpointing computes without gradients (seen in 4.57).
    reentrant = getattr(model_args, "use_reentrant_gc", True)
    checkpointing = not getattr(model_args, "disable_gradient_checkpointing", False)
    if getattr(model_args, "moe_aux_loss_coef", None) and checkpointing and reentrant:
        raise UserError(
            "moe_aux_loss_coef trains nothing under reentrant gradient checkpointing, LLaMA-Factory's default; set"
            " use_reentrant_gc: false or disable_gradient_checkpointing: true"
        )
    config = getattr(training_args, "hf_deepspeed_config", None)
    zero = config.config.get("zero_optimization") if config else None
    check_offload(zero or {}, training_args.gradient_accumulation_steps)


def check_mix(data_args, sets: int, merge) -> None:
    """Raises UserError: the installed `datasets` cannot mix so many sets as the recipe says, or would never end.

    Tried on sets of one row, before a row is tokenized. merge: LLaMA-Factory's `merge_dataset`.
    """
    if sets < 2:
        return
    mixing = f"mix_strategy: {data_args.mix_strategy}"
    probabilities = data_args.interleave_probs
    if probabilities:
        mixing += f" with interleave_probs: {','.join(f'{p:g}' for p in probabilities)}"
        # datasets draws until each set has been drawn from to its end: from a set that is never drawn, never.
        if data_args.mix_strategy != "interleave_under" and min(probabilities) <= 0:
            raise UserError(f"{mixing} never ends; give each set a share above 0, or take the set out of dataset")
    from datasets import Dataset

    try:
        merge([Dataset.from_dict({"row": [0]}) for _ in range(sets)], data_args=data_args, seed=0)
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"{mixing} cannot mix these {sets} sets (datasets {version('datasets')}: {error}); mend it, or use concat"
        ) from None


def check_offload(zero: dict, accumulations: int) -> None:
    """Raises UserError: under this `zero_optimization` of DeepSpeed's a step is not exact.

    Before version 0.19 (its pull request 7967) only the first and the last of three or more accumulations count.
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
