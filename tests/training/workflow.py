"""LLaMA-Factory's SFT workflow with nothing behind it: what the plugin decides before a row is read."""

import json
from pathlib import Path
from types import SimpleNamespace

MODEL = SimpleNamespace(block_diag_attn=False, use_kt=False)
BLOCK = {"a": {"file_name": "x", "sdrrl": {"subset": "LL"}}}


def arguments(folder: Path, info: dict, **keys):
    """data_args, training_args and finetuning_args of a recipe that names all sets of `info`; keys: of the recipe."""
    (folder / "dataset_info.json").write_text(json.dumps(info))
    data = {
        "dataset": list(info),
        "dataset_dir": str(folder),
        "streaming": False,
        "packing": False,
        "neat_packing": False,
        "tokenized_path": None,
        "eval_dataset": None,
        "val_size": 0.0,
        "mix_strategy": "concat",
        "interleave_probs": None,
    }
    training = {
        "do_train": True,
        "predict_with_generate": False,
        "label_smoothing_factor": 0.0,
        "process_index": 0,
        "seed": 1,
        "gradient_accumulation_steps": 1,
        "hf_deepspeed_config": None,
    }
    finetuning = {"plot_loss": False, "use_dft_loss": False, "use_eaft_loss": False, "use_asft_loss": False}
    groups = (data, training, finetuning)
    unknown = keys.keys() - set().union(*groups)
    assert not unknown, unknown
    return tuple(SimpleNamespace(**{k: keys.get(k, v) for k, v in group.items()}) for group in groups)


def workflow(calls: list):
    """A module like `llamafactory.train.sft.workflow`; a call of its run_sft puts the trainer it finds into `calls`."""

    def run_sft(model_args, data_args, training_args, finetuning_args, generating_args=None, callbacks=None):
        calls.append(module.CustomSeq2SeqTrainer)
        return "done"

    def get_dataset(template, model_args, data_args, training_args, stage, tokenizer, processor=None): ...

    module = SimpleNamespace(
        run_sft=run_sft,
        get_dataset=get_dataset,
        SFTDataCollatorWith4DAttentionMask=object,
        CustomSeq2SeqTrainer=object,
    )
    return module
