"""Every causal architecture of the installed transformers: no sample of a batch sees another, in the layout it gets."""

import re

import pytest
import torch
from transformers import CONFIG_MAPPING
from transformers.models.auto import modeling_auto

from sdrrl_factory.errors import UserError
from sdrrl_factory.training.collator import index_batch
from sdrrl_factory.training.head import find_head
from sdrrl_factory.training.layout import layout_for
from sdrrl_factory.training.limits import check_model
from sdrrl_factory.training.loss import batch_loss
from sdrrl_factory.training.obstacles import find_obstacle
from sdrrl_factory.training.trial import may_join
from tests.conftest import ROOT
from tests.training.tiny_models import VOCABULARY, build

LENGTHS, PROMPTS = (17, 9, 26, 13), (6, 4, 20, 2)
COEFFICIENTS = torch.tensor([1.0, 3.0, 0.5, 2.0])

# Vision-language models that LLaMA-Factory has templates for; here with text alone.
VISION = """aya_vision cohere2_vision gemma3 gemma3n glm4v glm4v_moe got_ocr2 idefics3 internvl lfm2_vl llama4 llava
    llava_next llava_next_video llava_onevision mistral3 mllama ovis2 paligemma qwen2_5_vl qwen2_vl qwen3_vl
    qwen3_vl_moe smolvlm vipllava""".split()  # noqa: SIM905

# What the sizes of tiny_models.py do not say: layers of every kind, and sizes that must fit each other.
ROPE = {"rope_type": "default", "type": "default", "mrope_section": [1, 1, 2]}
IMAGES = {"text_config": {"rope_scaling": ROPE}}
ALL_HEADS = {"num_key_value_heads": 4}  # latent attention
CHANGES = {
    "deepseek_v2": ALL_HEADS,
    "deepseek_v3": ALL_HEADS,
    "dots1": {"n_shared_experts": 1, "n_routed_experts": 4},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "intermediate_size": 64,
        "activation_sparsity_pattern": None,
    },
    "glm4v": IMAGES,
    "glm4v_moe": {"text_config": {"rope_scaling": {**ROPE, "mrope_section": [1, 0, 1]}}},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], "num_hidden_layers": 2},
    "jamba": {"use_mamba_kernels": False, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2},
    "lfm2": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
    "lfm2_vl": {"text_config": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2}},
    "longcat_flash": ALL_HEADS,
    "mllama": {
        "text_config": {
            "num_hidden_layers": 2,
            "cross_attention_layers": [1],
            "rope_scaling": {"rope_type": "default"},
        },
        "vision_config": {"vision_output_dim": 64, "intermediate_layers_indices": [0], "attention_heads": 4},
    },
    "blt": {
        "encoder_hash_byte_group_vocab": 64,
        "encoder_hash_byte_group_size": [2, 3],
        "patching_device": "cpu",
        "encoder_config": {"hidden_size_global": 32},
        "decoder_config": {"hidden_size_global": 32},
    },
    "cohere2_vision": {"alignment_intermediate_size": 64},
    "llama4": {"vision_config": {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32}},
    # In transformers 4.57 its forward without kernels lets later chunks into earlier ones: one chunk.
    "zamba2": {"chunk_size": 32, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "num_mem_blocks": 1},
    "mamba2": {"num_heads": 8},
    "qwen2_5_vl": IMAGES,
    "qwen2_vl": IMAGES,
    "qwen3_vl": IMAGES,
    "qwen3_vl_moe": IMAGES,
    "roc_bert": {"enable_pronunciation": False, "enable_shape": False},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"use_mamba_kernels": False, "attn_layer_period": 2, "attn_layer_offset": 1},
}

# What trains with one sample a batch at most, or not at all.
REFUSED = {
    "cpmant": "changes with the batch",  # takes the padding for text
    "prophetnet": "changes with the batch",
    "xlm-prophetnet": "changes with the batch",
}

SKIPPED = {
    "gemma3n": "its image encoder needs timm, which is no part of the installation; gemma3n_text is here",
    "mega": "keeps its graph from one forward to the next; transformers no longer maintains it",
    "musicgen": "makes audio from the states of a text encoder",
    "musicgen_melody": "makes audio from the states of a text encoder",
    "phi4_multimodal": "its default configuration has no image part, and without one it is not built",
    "qdqbert": "needs pytorch-quantization; transformers no longer maintains it",
    "recurrent_gemma": "keeps its state, and that's graph, from one forward to the next (transformers 4.57)",
    "reformer": "hashes tokens at random, so that no sample gives the same loss twice",
    "speech_to_text_2": "is not built in transformers 4.57, which no longer maintains it",
    "transfo-xl": "is not built from other sizes than its own; transformers no longer maintains it",
    "xlstm": "its forward without Triton calls a tensor, and ends (transformers 4.57)",
}


def cells() -> dict[str, tuple[str, str]]:
    """model_class and model_type of each cell, by name."""
    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    images = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    found = {name: (model_class, name) for name, model_class in causal.items()}
    found |= {f"{name} with images": (images[name], name) for name in VISION if name in images}
    # Where a model type has several classes, the first is the whole one.
    return {cell: (c if isinstance(c, str) else c[0], name) for cell, (c, name) in found.items()}


CELLS = cells()


def draw_batch(seed: int) -> tuple[dict, torch.Tensor]:
    """A padded batch, and its labels."""
    drawn = torch.Generator().manual_seed(seed)
    samples = [torch.randint(10, VOCABULARY, (length,), generator=drawn) for length in LENGTHS]
    ids = torch.nn.utils.rnn.pad_sequence(samples, batch_first=True)
    place = torch.arange(ids.shape[1])
    mask = (place < torch.tensor(LENGTHS)[:, None]).long()
    labels = ids.masked_fill((mask == 0) | (place < torch.tensor(PROMPTS)[:, None]), -100)
    return {"input_ids": ids, "attention_mask": mask}, labels


def compute_alone(model, inputs: dict, labels) -> torch.Tensor:
    """The loss of each sample, no other in the batch and nothing masked."""
    losses = []
    for row, length in enumerate(LENGTHS):
        ids = inputs["input_ids"][row : row + 1, :length]
        # Qwen2-VL and its kin make positions from the mask.
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits.float(), labels[row, 1:length]))
    return torch.stack(losses)


def differentiate(model, loss) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat(
        [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in model.parameters()]
    )


@pytest.mark.parametrize("noise", [0.0, 0.2], ids=["initial", "random"])
@pytest.mark.parametrize("cell", CELLS)
def test_each_sample_is_computed_as_if_alone(cell, noise):
    model_class, model_type = CELLS[cell]
    if cell.split()[0] in SKIPPED:
        pytest.skip(SKIPPED[model_type])
    seed = int(10 * noise)
    model = build(model_class, CONFIG_MAPPING[model_type], seed, CHANGES.get(model_type), noise)
    if model_type in REFUSED:
        with pytest.raises(UserError, match=REFUSED[model_type]):
            check_model(model)
            may_join(model)
        return
    check_model(model)
    model.config.get_text_config().use_cache = False  # as LLaMA-Factory sets it
    inputs, labels = draw_batch(seed)
    batch = index_batch(labels, inputs["attention_mask"])

    joins = may_join(model)
    # The trial is the second check: what the parts let pass never needs it.
    assert joins == (find_obstacle(model) is None)
    layout = layout_for(model, inputs, batch, joins)
    assert layout == "flat" if joins else layout in ("tail", "full")

    losses = compute_alone(model, inputs, labels)
    expected = differentiate(model, (COEFFICIENTS * losses).sum())
    loss = batch_loss(model, dict(inputs), batch, COEFFICIENTS, layout, find_head(model, inputs))
    change = differentiate(model, loss.total)
    torch.testing.assert_close(loss.samples, losses, rtol=1e-5, atol=0)
    assert (change - expected).norm() < 1e-4 * expected.norm()


def test_the_docs_name_those_that_are_joined():
    joined = {False: set(), True: set()}
    for cell, (model_class, model_type) in CELLS.items():
        if cell.split()[0] in SKIPPED or model_type in REFUSED:
            continue
        model = build(model_class, CONFIG_MAPPING[model_type], 0, CHANGES.get(model_type))
        if find_obstacle(model) is None:
            joined["with images" in cell].add(cell.split()[0])
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    text, images = re.search(r"Joined, in transformers [\d.]+: (.*?)\.\n.*?alone: (.*?)\.\n", page, re.S).groups()
    assert [set(re.split(r",\s+", names)) for names in (text, images)] == [joined[False], joined[True]]
