"""The subset-weighted collator: LLaMA-Factory's own, plus what the loss must know of each sample.

Everything the loss needs to find its way in a batch is counted here, on the CPU and ahead of the step: on a GPU each
count in the step itself would wait for the device.

Three samples, padded by LLaMA-Factory (p: prompt, a: answer, which is trained, .: padding):

    input_ids  [samples, width]     row 0   p p a a a .
                                    row 1   p a a . . .
                                    row 2   p p p a . .

The same joined in one row without padding, as most models get them (layout.py):

    input_ids     [1, tokens]   p p a a a   p a a   p p p a
    position_ids  [1, tokens]   0 1 2 3 4   0 1 2   0 1 2 3     they start anew: attention stops there
    target                      . a a a .   a a .   . . a .     labels shifted: a position predicts the token behind it
    sample_of                     0 0 0     1 1         2       [trained]
    weight of the token          w_0 / 3   w_1 / 2   w_2 / 1    l_CE is a mean over the answer, `answer_lengths`

The last position of a sample has no target: it is never trained to predict the first token of the next one.
"""

from typing import TYPE_CHECKING, Any, TypedDict

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from transformers import DataCollatorForSeq2Seq as StockCollator
else:
    StockCollator = object

from sdrrl_factory.training.packing import ENTRY, IGNORE, unpack

KEY = "sdrrl"  # what is added to a batch: a BatchIndex


class BatchIndex(TypedDict, total=False):
    """Where the samples and the trained tokens of a padded batch [samples, width] are.

    A dict, since transformers moves the tensors of dicts, and of nothing else, to the device. "Flattened" is the batch
    as one row, [samples * width].
    """

    tokens: int  # real ones, without padding
    first_trained: int  # the first position of a row that predicts a trained token, over all rows
    token_places: torch.Tensor  # [tokens] where in the flattened batch the real tokens are
    position_ids: torch.Tensor  # [tokens] their positions in their sample
    trained_places: torch.Tensor  # [trained] where in the flattened batch a trained token is predicted
    joined_places: torch.Tensor  # [trained] the same among the real tokens
    targets: torch.Tensor  # [trained] which token
    sample_of: torch.Tensor  # [trained] the sample it belongs to
    answer_lengths: torch.Tensor  # [samples] how many tokens of a sample are trained, at least 1

    # Added by the collator:
    entries: torch.Tensor  # [samples] the named set of each sample, an index into the trainer's weights
    row_of: list[
        int
    ]  # [samples] the row of the batch that a sample comes from: several of one row, where that is a pack
    rows: int  # of the batch
    counted: int  # the batch's samples that count, see counting.py

    # Added by the trainer to a batch of a step:
    global_samples: torch.Tensor  # |B|: the counted samples of all micro-batches and ranks of the step


def weighted_collator(stock: type) -> type:
    """A subclass of LLaMA-Factory's SFT collator, see `WeightedCollatorMixin`."""
    return type("SubsetWeightedCollator", (WeightedCollatorMixin, stock), {})


class WeightedCollatorMixin(StockCollator):
    """Stands in front of LLaMA-Factory's SFT collator: unpacks packs and adds batch["sdrrl"], a BatchIndex.

    Rows of a set without a block stay as stock has them.
    """

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        if ENTRY not in features[0]:
            return super().__call__(features)
        samples, row_of = [], []
        for row, feature in enumerate(features):
            for sample in unpack(feature):
                samples.append(sample)
                row_of.append(row)
        entries = [sample.pop(ENTRY) for sample in samples]

        # These are single samples: LLaMA-Factory's masks for its own packs, which an evaluation beside a training set
        # without a block has switched on, are not for them.
        masks = {name: getattr(self, name, False) for name in ("block_diag_attn", "neat_packing")}
        for name in masks:
            setattr(self, name, False)
        batch = dict(super().__call__(samples))
        for name, value in masks.items():
            setattr(self, name, value)

        batch_index = index_batch(batch["labels"], batch.get("attention_mask"))
        # The index of its set travels with a sample, not its weight: transformers' Trainer casts the floating point
        # inputs of a DeepSpeed run to the model's dtype (`_prepare_input` in 4.57).
        batch_index["entries"] = torch.tensor(entries, dtype=torch.long)
        batch_index["row_of"] = row_of
        batch_index["rows"] = len(features)
        batch_index["counted"] = len(samples)
        batch[KEY] = batch_index
        return batch


def index_batch(labels: torch.Tensor, attention_mask: torch.Tensor | None = None) -> BatchIndex:
    """The BatchIndex of a padded batch; labels, attention_mask: [samples, width]."""
    is_real = torch.ones_like(labels, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    # The label of position t+1 is the target of position t; the last position has none.
    targets = F.pad(labels.masked_fill(~is_real, IGNORE)[:, 1:], (0, 1), value=IGNORE)
    is_trained = targets != IGNORE
    trained_columns = is_trained.any(0).nonzero()[:, 0]
    return {
        "tokens": int(is_real.sum()),
        # A batch without a trained token keeps its last position: a model cannot make logits of none.
        "first_trained": int(trained_columns[0]) if len(trained_columns) else labels.shape[1] - 1,
        "token_places": is_real.flatten().nonzero()[:, 0],
        "position_ids": (is_real.cumsum(1) - 1)[is_real],
        "trained_places": is_trained.flatten().nonzero()[:, 0],
        "joined_places": is_trained[is_real].nonzero()[:, 0],
        "targets": targets[is_trained],
        "sample_of": is_trained.nonzero()[:, 0],
        "answer_lengths": is_trained.sum(1).clamp(min=1),
    }
