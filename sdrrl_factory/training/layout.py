"""The cheapest exact layout of a batch.

Three samples (p: prompt, a: answer), and the positions of each layout that the model computes; `#`: with its logits.

    the batch   p p p a a .     "full"   # # # # # #     "tail"   . # # # # #     "flat"   . . # # . . # . . . # .
                p p a . . .              # # # # # #              . # # # # #
                p p p a . .              # # # # # #              . # # # # #

    full   padded, all logits: of a model that cannot leave any out
    tail   padded, logits from the first position on that predicts a trained token in any row
    flat   one row without padding, whose positions start anew with each sample (collator.py)

Joined in one row, samples save time and memory. But only a model whose every layer is an attention under a mask made
from the positions keeps them apart: obstacles.py reads that from the model's parts, trial.py shows it on its weights.
"""

import torch

from sdrrl_factory.training.collator import BatchIndex
from sdrrl_factory.training.model import forward_arguments, unwrap


def layout_for(model: torch.nn.Module, inputs: dict, batch_index: BatchIndex, joins: bool) -> str:
    """One of "flat", "tail" and "full".

    inputs: the padded batch without labels, input_ids [samples, width]; joins: `trial.may_join(model)`.
    """
    base = unwrap(model)
    # Images, positions or a mask of its own: a batch that is more than ids is left as it is.
    is_plain = set(inputs) == {"input_ids", "attention_mask"} and inputs["attention_mask"].dim() == 2
    if not joins or not is_plain or _adds_noise(model, base):
        return "tail" if "logits_to_keep" in forward_arguments(base) else "full"
    # Flash attention computes joined samples one by one (transformers finds their ends in the positions).
    if base.config._attn_implementation == "flash_attention_2":
        return "flat"

    # Other attentions compute all pairs of a row under a dense mask, so joining saves the linear layers' work on
    # padding and costs attention between samples. In multiplications a layer, divided by 2 hidden: for a token some
    # 12 hidden^2 in the linear layers, and 2 hidden for each token of its row in the attention.
    samples, width = inputs["input_ids"].shape
    hidden, tokens = base.config.get_text_config().hidden_size, batch_index["tokens"]
    cost_joined = tokens * (6 * hidden + tokens)
    cost_padded = samples * width * (6 * hidden + width)
    return "flat" if cost_joined < cost_padded else "tail"


def _adds_noise(model: torch.nn.Module, base: torch.nn.Module) -> bool:
    """NEFTune's noise is divided by the root of the row's length: a joined row would get less of it.

    transformers 4.57, `neftune_post_forward_hook` (its issue 34659).
    """
    return model.training and hasattr(base.get_input_embeddings(), "neftune_noise_alpha")
