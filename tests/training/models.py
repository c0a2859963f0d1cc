"""Small models of the architectures of the installed transformers, and a batch for them."""

import torch
import transformers

VOCABULARY = 320
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def build(name: str, **keys):
    """A model of the installed transformers with random weights, whose logits differ clearly; float32."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**(SMALL | keys))
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def padded_batch() -> tuple[dict, torch.Tensor]:
    """Four samples of several lengths: inputs, labels."""
    torch.manual_seed(1)
    ids = torch.randint(3, 300, (4, 12))
    mask, labels = torch.ones_like(ids), ids.clone()
    for row, (prompt, end) in enumerate([(3, 12), (6, 9), (2, 5), (8, 12)]):
        mask[row, end:] = 0
        labels[row, :prompt] = -100
        labels[row, end:] = -100
    return {"input_ids": ids, "attention_mask": mask}, labels


def check_gradients(model, exact, bound=1e-5):
    for (name, p), q in zip(model.named_parameters(), exact.parameters(), strict=True):
        if q.grad is None:
            assert p.grad is None, name
            continue
        assert (p.grad - q.grad).norm() <= bound * q.grad.norm() + 1e-12, name
