"""The subset-weighted collator: LLaMA-Factory's own, which also carries each sample's training set."""

COLUMN = "sdrrl_entry"


def weighted_collator(stock: type) -> type:
    """A subclass of LLaMA-Factory's SFT collator that adds batch["sdrrl_entry"], int64 of shape (batch,).

    The index travels, not the weight: DeepSpeed casts floating inputs to the model's dtype.
    """

    class SubsetWeightedCollator(stock):
        def __call__(self, features):
            import torch

            entries = [feature.pop(COLUMN) for feature in features]
            batch = super().__call__(features)
            batch[COLUMN] = torch.tensor(entries, dtype=torch.long)
            return batch

    return SubsetWeightedCollator
