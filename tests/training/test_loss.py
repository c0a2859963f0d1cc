"""The loss of a batch and every gradient, against each sample alone in float64 with transformers' own logits."""

import copy

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from sdrrl_factory.errors import UserError
from sdrrl_factory.training import head as heads
from sdrrl_factory.training.collator import describe
from sdrrl_factory.training.head import Head, find_head
from sdrrl_factory.training.layout import may_join
from sdrrl_factory.training.loss import _TokenLosses, batch_loss, token_losses
from sdrrl_factory.training.router import adds_router_loss

COEFFICIENT = torch.tensor([0.3, 2.0, 1.0, 0.0])
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
# What each does to the output of its head: nothing, a softcap, a division, a factor; a head with a bias.
HEADS = {
    "Llama": ({"tie_word_embeddings": False}, Head),
    "Gemma2": ({"final_logit_softcapping": 0.3}, "softcap"),
    "Granite": ({"logits_scaling": 3.0}, "scale"),
    "Cohere": ({"logit_scale": 0.0625}, "scale"),
    "Phi": ({}, Head),
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


@pytest.fixture(scope="module")
def batch():
    torch.manual_seed(1)
    ids = torch.randint(3, 300, (4, 12))
    mask, labels = torch.ones_like(ids), ids.clone()
    for row, (prompt, end) in enumerate([(3, 12), (6, 9), (2, 5), (8, 12)]):
        mask[row, end:] = 0
        labels[row, :prompt] = -100
        labels[row, end:] = -100
    return {"input_ids": ids, "attention_mask": mask}, labels


@pytest.fixture
def chunks(monkeypatch):
    """Chunks of three rows of 320 numbers in float32, parts of two: the last ones are shorter."""
    monkeypatch.setattr(heads, "CHUNK_BYTES", 3 * VOCABULARY * 4)
    monkeypatch.setattr(heads, "PART_BYTES", 2 * VOCABULARY * 4)


def alone(model, inputs, labels) -> list[torch.Tensor]:
    """The mean cross-entropy of each sample, without its neighbours and its padding."""
    losses = []
    for row, n in enumerate(inputs["attention_mask"].sum(1).tolist()):
        logits = model(input_ids=inputs["input_ids"][row : row + 1, :n]).logits[0]
        losses.append(F.cross_entropy(logits[:-1], labels[row, 1:n], ignore_index=-100))
    return losses


def check_gradients(model, exact, bound=1e-5):
    for (name, p), q in zip(model.named_parameters(), exact.parameters(), strict=True):
        if q.grad is None:
            assert p.grad is None, name
            continue
        assert (p.grad - q.grad).norm() <= bound * q.grad.norm() + 1e-12, name


def check(model, inputs, labels, layout, head, bound=1e-5, router=False):
    """Losses and every gradient against float64; models are compared with what they return themselves."""
    exact = copy.deepcopy(model).double()
    loss = batch_loss(
        model, dict(inputs), describe(labels, inputs["attention_mask"]), COEFFICIENT, layout, head, router
    )
    want = alone(exact, inputs, labels)
    assert loss.samples.tolist() == pytest.approx([w.item() for w in want], rel=bound)
    total = sum(c * w for c, w in zip(COEFFICIENT.double(), want, strict=True))
    assert loss.total.item() == pytest.approx(total.item(), rel=bound)
    # A factor behind the total, as a loss scaler has it.
    (3 * loss.total).backward()
    (3 * total).backward()
    check_gradients(model, exact, bound)


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("layout", ["full", "tail", "flat"])
def test_layouts_agree_with_one_sample_at_a_time(layout, chunked, tiny, batch, chunks):
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    head = find_head(model, batch[0]) if chunked else None
    check(model, *batch, layout, head)
    assert "forward" not in vars(model.lm_head)


@pytest.mark.parametrize("tuned", ["all", "all but the head", "the head alone"])
@pytest.mark.parametrize("name", HEADS)
def test_heads(name, tuned, batch, chunks):
    keys, kind = HEADS[name]
    model = build(name, **keys)
    head = find_head(model, batch[0])
    if kind is Head:
        assert head == Head(model.get_output_embeddings())
    else:
        assert getattr(head, kind) not in (None, 1.0)
    shared = model.get_output_embeddings().weight
    for parameter in model.parameters():
        parameter.requires_grad_(tuned == "all" or (parameter is shared) == (tuned == "the head alone"))
    check(model, *batch, "flat", head)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_sample_without_a_trained_token_counts_zero(chunked, tiny, batch):
    inputs, labels = batch
    model = AutoModelForCausalLM.from_pretrained(tiny)
    head = find_head(model, inputs) if chunked else None
    for untrained in (1, slice(None)):
        labels = labels.clone()
        labels[untrained] = -100
        for layout in ("full", "tail", "flat"):
            model.zero_grad()
            found = describe(labels, inputs["attention_mask"])
            loss = batch_loss(model, dict(inputs), found, torch.ones(4), layout, head)
            assert (loss.samples[untrained] == 0).all() and torch.isfinite(loss.samples).all()
            loss.total.backward()
            assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert all((p.grad == 0).all() for p in model.parameters())


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)])
def test_token_losses_and_their_gradient(dtype, bound, monkeypatch):
    monkeypatch.setattr(_TokenLosses, "CHUNK", 3 * 50)  # several parts, the last a shorter one
    torch.manual_seed(2)
    source = torch.randn(7, 50).to(dtype).requires_grad_()
    target, scale = torch.randint(0, 50, (7,)), torch.rand(7)
    got = token_losses(source * 1, target)
    (scale * got).sum().backward()
    exact = source.detach().double().requires_grad_()
    want = F.cross_entropy(exact, target, reduction="none")
    (scale.double() * want).sum().backward()
    assert torch.allclose(got.double(), want, rtol=1e-5)
    assert (source.grad.double() - exact.grad).norm() <= bound * exact.grad.norm()
    with torch.no_grad():
        assert torch.allclose(token_losses(source, target).double(), want, rtol=1e-5)


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
        found = describe(labels, inputs["attention_mask"])
        loss = batch_loss(model, dict(inputs), found, COEFFICIENT, layout, head, router=True)
        assert loss.router.item() == pytest.approx(router.item(), rel=1e-5)
        if name != "JetMoe":
            loss.router.backward()
        check_gradients(model, exact)
    assert "_loss_function" not in vars(model)


class Largest(TorchDispatchMode):
    """The numbers of the largest tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return made


@pytest.mark.parametrize("chunked", [True, False])
def test_the_logits_of_all_trained_tokens_are_never_made(chunked, batch, chunks):
    inputs, labels = batch
    # A vocabulary beside which all else is small, but for the head's own gradient: frozen here, as with LoRA.
    model = build("Llama", num_hidden_layers=1, hidden_size=8, vocab_size=VOCABULARY, tie_word_embeddings=False)
    model.lm_head.requires_grad_(False)
    model.model.embed_tokens.requires_grad_(False)
    head = find_head(model, inputs) if chunked else None
    found = describe(labels, inputs["attention_mask"])
    with Largest() as largest:
        loss = batch_loss(model, dict(inputs), found, COEFFICIENT, "flat", head)
        loss.total.backward()
    trained = len(found["target"])
    assert trained > 15
    # A chunk is three rows; the weight itself is eight.
    assert largest.numbers <= 8 * VOCABULARY if chunked else largest.numbers >= trained * VOCABULARY


@pytest.mark.parametrize("kept", ["bfloat16 weights", "float32 weights under autocast"])
@pytest.mark.parametrize("name", ["Llama", "Gemma2"])
def test_bfloat16(name, kept, batch, chunks):
    inputs, labels = batch
    model = build(name, **HEADS[name][0])
    exact = copy.deepcopy(model).double()
    if kept == "bfloat16 weights":
        model = model.bfloat16()
        exact.load_state_dict(model.state_dict())
    found = describe(labels, inputs["attention_mask"])
    total = sum(c * w for c, w in zip(COEFFICIENT.double(), alone(exact, inputs, labels), strict=True))
    total.backward()
    off = {}
    for chunked in (True, False):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=kept != "bfloat16 weights"):
            head = find_head(model, inputs) if chunked else None
            loss = batch_loss(model, dict(inputs), found, COEFFICIENT, "flat", head)
        assert loss.total.dtype == torch.float32
        assert loss.total.item() == pytest.approx(total.item(), rel=0.02)
        loss.total.backward()
        pairs = list(zip(model.parameters(), exact.parameters(), strict=True))
        wrong = sum((p.grad.double() - q.grad).square().sum() for p, q in pairs)
        off[chunked] = float(wrong / sum(q.grad.square().sum() for _, q in pairs)) ** 0.5
    # As near as the way over all logits, which rounds once where chunks round each time.
    assert off[True] < 0.05 and off[True] < 1.5 * off[False]


def test_a_head_that_is_more_than_its_weight_is_left_alone(batch):
    from peft import LoraConfig, get_peft_model

    inputs, labels = batch
    adapted = get_peft_model(build("Llama"), LoraConfig(target_modules=["q_proj", "lm_head"]))
    assert find_head(adapted, inputs) is None
    half = build("Llama")
    half.lm_head.register_forward_hook(lambda module, args, output: output.half().float().square())
    assert find_head(half, inputs) is None
    masked = build("Llama")
    forward = masked.forward

    def without_the_first(**inputs):
        outputs = forward(**inputs)
        outputs.logits[..., 0] = -1e9
        return outputs

    masked.forward = without_the_first
    assert find_head(masked, inputs) is None
    twice = build("Llama")
    hidden = twice.lm_head
    twice.model.register_forward_hook(lambda module, args, output: hidden(output.last_hidden_state) and None)
    assert find_head(twice, inputs) is None
    with torch.autocast("cpu", torch.float16):
        assert find_head(build("Llama"), inputs) is None


def test_a_head_that_peft_trains_whole(batch, chunks):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(build("Llama"), LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]))
    head = find_head(model, batch[0])
    assert head.linear.weight.requires_grad
    check(model, *batch, "flat", head)


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
        batch_loss(model, dict(inputs), describe(labels, inputs["attention_mask"]), COEFFICIENT, "tail", router=True)
    assert "_loss_function" not in vars(model)
