"""The subset-weighted collator: LLaMA-Factory's own, plus what the loss must know of each sample.

Everything the loss needs to find its way in a batch is counted here, on the CPU and ahead of the step: on a GPU each
count in the step itself would wait for the device.
"""

import torch
import torch.nn.functional as F

ENTRY = "sdrrl_entry"  # column: the named set of a row, or of each sample of a pack
LENGTHS = "sdrrl_lengths"  # column: the tokens of each sample of a pack
KEY = "sdrrl"  # what is added to a batch
IGNORE = -100


def weighted_collator(stock: type) -> type:
    """A subclass of LLaMA-Factory's SFT collator, see `SubsetWeighting`."""
    return type("SubsetWeightedCollator", (SubsetWeighting, stock), {})


class SubsetWeighting:
    """Stands in front of LLaMA-Factory's SFT collator: unpacks packs and adds batch["sdrrl"], see `describe`.

    Added besides: entry (samples,): the named set of each sample; rows: the row of the batch that each sample comes
    from; dealt, counted: the rows and the samples of the batch. Rows of a set without a block stay as stock has them.
    """

    def __call__(self, features):
        if ENTRY not in features[0]:
            return super().__call__(features)
        samples = [(row, sample) for row, feature in enumerate(features) for sample in _samples(feature)]
        entries = [sample.pop(ENTRY) for _, sample in samples]
        # Single samples: LLaMA-Factory's masks for its own packs (of training sets without a block) are not for them.
        masks = {name: getattr(self, name, False) for name in ("block_diag_attn", "neat_packing")}
        vars(self).update(dict.fromkeys(masks, False))
        batch = dict(super().__call__([sample for _, sample in samples]))
        vars(self).update(masks)
        batch[KEY] = describe(batch["labels"], batch.get("attention_mask")) | {
            # The index travels, not the weight: DeepSpeed casts floating inputs to the model's dtype.
            "entry": torch.tensor(entries, dtype=torch.long),
            "rows": [row for row, _ in samples],
            "dealt": len(features),
            "counted": len(samples),
        }
        return batch


def _samples(feature: dict) -> list[dict]:
    """A pack's samples; a row that is no pack is its own only sample."""
    lengths = feature.pop(LENGTHS, None)
    if lengths is None:
        return [feature]
    samples, start = [], 0
    for entry, length in zip(feature[ENTRY], lengths, strict=True):
        cut = {key: feature[key][start : start + length] for key in ("input_ids", "attention_mask", "labels")}
        samples.append(cut | {ENTRY: entry})
        start += length
    return samples


def describe(labels, attention_mask=None) -> dict:
    """Where the tokens of a padded batch are; labels and attention_mask: (samples, width).

    tokens, first   ints: real tokens; the first position that predicts a trained token
    real, position  (tokens,): where in the flattened batch the real tokens are, and their place in their sample
    kept, target    (n,): where in the flattened batch a trained token is predicted, and which
    joined          (n,): the same among the real tokens
    sample          (n,): the sample it belongs to
    answer          (samples,): how many are trained, at least 1
    """
    mask = torch.ones_like(labels, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    # The label of position t+1 is the target of position t.
    target = F.pad(labels.masked_fill(~mask, IGNORE)[:, 1:], (0, 1), value=IGNORE)
    trained = target != IGNORE
    columns = trained.any(0).nonzero()[:, 0]
    return {
        "tokens": int(mask.sum()),
        "first": int(columns[0]) if len(columns) else labels.shape[1] - 1,
        "real": mask.flatten().nonzero()[:, 0],
        "position": (mask.cumsum(1) - 1)[mask],
        "kept": trained.flatten().nonzero()[:, 0],
        "target": target[trained],
        "joined": trained[mask].nonzero()[:, 0],
        "sample": trained.nonzero()[:, 0],
        "answer": trained.sum(1).clamp(min=1),
    }
