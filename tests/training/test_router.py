"""The router loss of mixtures of experts: the model's own, scaled as LLaMA-Factory without this plugin scales it."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import AutoTokenizer

from sdrrl_factory.errors import UserError
from sdrrl_factory.training.collator import index_batch
from sdrrl_factory.training.head import find_head
from sdrrl_factory.training.loss import batch_loss
from sdrrl_factory.training.router import adds_router_loss
from sdrrl_factory.training.trial import may_join
from tests.training.commands import write_recipe
from tests.training.models import VOCABULARY, build, check_gradients, padded_batch
from tests.training.test_equation6 import zero

COEFFICIENT = torch.tensor([0.3, 2.0, 1.0, 0.0])

# The families of the installed transformers that add a router loss, and the keys of their size. Doge is not among
# them: in transformers 4.57 its experts return two things where one is expected.
EXPERTS = {
    "Mixtral": {"num_local_experts": 4},
    "Qwen2Moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
    "Qwen3Moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "Qwen3Next": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_value_heads": 2,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    },
    "Olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "FlexOlmo": {"num_experts": 4, "num_experts_per_tok": 2},
    "GptOss": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Phimoe": {"num_local_experts": 4},
    "Ernie4_5_Moe": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 16, "moe_layer_start_index": 0},
    "GraniteMoe": {"num_local_experts": 4},
    "GraniteMoeShared": {"num_local_experts": 4, "shared_intermediate_size": 16},
    "GraniteMoeHybrid": {
        "num_local_experts": 4,
        "layer_types": ["attention", "attention"],
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
    },
    "JetMoe": {"num_local_experts": 4, "kv_channels": 8},
    "Jamba": {
        "num_experts": 4,
        "expert_layer_period": 1,
        "expert_layer_offset": 0,
        "attn_layer_period": 1,
        "attn_layer_offset": 0,
        "use_mamba_kernels": False,
    },
    "MiniMax": {"num_local_experts": 4, "layer_types": ["full_attention", "full_attention"]},
    "Dbrx": {},
}
DBRX = {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64, "vocab_size": VOCABULARY}


def build_experts(name: str, **keys):
    if name == "Dbrx":
        keys |= DBRX | {"attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0}}
        keys |= {"ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2, "moe_loss_weight": 10.0}}
    # Much, so that what is left of the stock loss in float32 is known to six digits.
    keys |= {"aux_loss_coef" if name == "JetMoe" else "router_aux_loss_coef": 10.0}
    return build(name, **(EXPERTS[name] | keys))


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("name", EXPERTS)
def test_the_router_loss_is_the_models_own(name, chunked, batch):
    inputs, labels = batch
    model = build_experts(name, output_router_logits=True)
    exact = copy.deepcopy(model)
    if name != "Ernie4_5_Moe":  # its router computes in float32, whatever it is given
        exact = exact.double()
    assert adds_router_loss(model)
    stock = exact(**inputs, labels=labels)
    router = stock.loss - F.cross_entropy(
        stock.logits[:, :-1].float().transpose(1, 2), labels[:, 1:], ignore_index=-100
    )
    if name == "JetMoe":  # it asks an argument of its forward, not its configuration (transformers 4.57)
        assert router.item() == 0 and stock.aux_loss is None
    else:
        assert router.item() > 1
        (10 * stock.aux_loss).backward()
    head = find_head(model, inputs) if chunked else None
    assert bool(head) == chunked
    for layout in ("tail", "flat") if may_join(model) else ("tail",):
        model.zero_grad()
        found = index_batch(labels, inputs["attention_mask"])
        loss = batch_loss(model, dict(inputs), found, COEFFICIENT, layout, head, router=True)
        assert loss.router.item() == pytest.approx(router.item(), rel=1e-5)
        if name != "JetMoe":
            loss.router.backward()
        check_gradients(model, exact)
    assert "_loss_function" not in vars(model)


def test_a_loss_from_all_logits_is_refused():
    model = build("Llama")
    model.config.z_loss_coefficient = 0.1
    with pytest.raises(UserError, match="z_loss_coefficient in the model's config.json cannot be weighted"):
        adds_router_loss(model)


def test_a_router_loss_made_in_another_way_is_refused(batch):
    inputs, labels = batch
    model = build_experts("Mixtral", output_router_logits=True)
    forward = model.forward
    model.forward = lambda labels=None, **inputs: forward(**inputs)
    with pytest.raises(UserError, match="MixtralForCausalLM cannot be trained with a subset-weighted loss"):
        batch_loss(model, dict(inputs), index_batch(labels, inputs["attention_mask"]), COEFFICIENT, "tail", router=True)
    assert "_loss_function" not in vars(model)


@pytest.fixture(scope="module")
def batch():
    return padded_batch()


# --- through LLaMA-Factory


@pytest.fixture(scope="module")
def mixtral(tiny, tmp_path_factory):
    """A small Mixtral with the tokenizer of `tiny`."""
    folder = tmp_path_factory.mktemp("mixtral") / "mixtral"
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = build("Mixtral", num_local_experts=4, vocab_size=len(tokenizer), max_position_embeddings=2048)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def unweighted(data, tmp_path_factory):
    """The training sets without their blocks: LLaMA-Factory's own training."""
    folder = tmp_path_factory.mktemp("unweighted")
    info = json.loads((data / "dataset_info.json").read_text())
    for keys in info.values():
        keys.pop("sdrrl", None)
        keys["file_name"] = str(data / keys["file_name"])
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


WAYS = {
    "one process": (1, None, {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 7}),
    "DDP": (2, None, {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 5}),
    "DDP, tokens of each process": (2, None, {"average_tokens_across_devices": False}),
    "ZeRO-2": (2, 2, {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 5}),
    "ZeRO-3": (2, 3, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[] if way == "one process" else pytest.mark.exhaustive) for way in WAYS]
)
def test_a_step_has_the_router_loss_of_a_step_without_this_plugin(
    way, recipe, mixtral, data, unweighted, commands, tmp_path
):
    """What the coefficient changes in one step of SGD, with the weighted loss and with LLaMA-Factory's own."""
    processes, stage, keys = WAYS[way]
    keys = (
        recipe
        | {"model_name_or_path": str(mixtral), "disable_shuffling": True}
        | {"per_device_train_batch_size": 8}
        # Reentrant checkpointing, LLaMA-Factory's default, computes the router's logits without a gradient.
        | {"use_reentrant_gc": False}
        | keys
    )
    if stage:
        keys["deepspeed"] = zero(stage, tmp_path / "zero.json")
        keys.pop("use_cpu")
    moved = {}
    for folder in (data, unweighted):
        after = []
        for coefficient in (None, 5.0):
            out = tmp_path / f"{folder.name}-{coefficient}"
            one = keys | {"dataset_dir": str(folder), "output_dir": str(out)}
            one |= {"moe_aux_loss_coef": coefficient} if coefficient else {}
            printed = commands.train(write_recipe(out.with_suffix(".yaml"), one), processes)
            assert ("sdrrl: subset-weighted loss" in printed) == (folder == data)
            after.append(load_file(out / "model.safetensors"))
        moved[folder] = {name: after[1][name].double() - after[0][name].double() for name in after[0]}
    size = sum(change.square().sum() for change in moved[unweighted].values())
    off = sum((moved[data][name] - change).square().sum() for name, change in moved[unweighted].items())
    assert size > 1e-3
    assert (off / size) ** 0.5 < 1e-4
