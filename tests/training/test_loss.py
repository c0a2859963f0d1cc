"""The loss of a batch and every gradient, against each sample alone in float64 with transformers' own logits."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from sdrrl_factory.training import chunks as chunked_loss
from sdrrl_factory.training import cross_entropy
from sdrrl_factory.training.collator import index_batch
from sdrrl_factory.training.cross_entropy import token_losses
from sdrrl_factory.training.head import Head, find_head
from sdrrl_factory.training.loss import batch_loss
from tests.training.models import VOCABULARY, build, check_gradients, padded_batch

COEFFICIENT = torch.tensor([0.3, 2.0, 1.0, 0.0])
# What each does to the output of its head: nothing, a softcap, a division, a factor; a head with a bias.
HEADS = {
    "Llama": ({"tie_word_embeddings": False}, Head),
    "Gemma2": ({"final_logit_softcapping": 0.3}, "softcap"),
    "Granite": ({"logits_scaling": 3.0}, "scale"),
    "Cohere": ({"logit_scale": 0.0625}, "scale"),
    "Phi": ({}, Head),
}


@pytest.fixture(scope="module")
def batch():
    return padded_batch()


@pytest.fixture
def chunks(monkeypatch):
    """Chunks of three rows of 320 numbers in float32, parts of two: the last ones are shorter."""
    monkeypatch.setattr(chunked_loss, "CHUNK_BYTES", 3 * VOCABULARY * 4)
    monkeypatch.setattr(cross_entropy, "PART_BYTES", 2 * VOCABULARY * 4)


def alone(model, inputs, labels) -> list[torch.Tensor]:
    """The mean cross-entropy of each sample, without its neighbours and its padding."""
    losses = []
    for row, n in enumerate(inputs["attention_mask"].sum(1).tolist()):
        logits = model(input_ids=inputs["input_ids"][row : row + 1, :n]).logits[0]
        losses.append(F.cross_entropy(logits[:-1], labels[row, 1:n], ignore_index=-100))
    return losses


def check(model, inputs, labels, layout, head, bound=1e-5, router=False):
    """Losses and every gradient against float64; models are compared with what they return themselves."""
    exact = copy.deepcopy(model).double()
    loss = batch_loss(
        model, dict(inputs), index_batch(labels, inputs["attention_mask"]), COEFFICIENT, layout, head, router
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
            found = index_batch(labels, inputs["attention_mask"])
            loss = batch_loss(model, dict(inputs), found, torch.ones(4), layout, head)
            assert (loss.samples[untrained] == 0).all() and torch.isfinite(loss.samples).all()
            loss.total.backward()
            assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert all((p.grad == 0).all() for p in model.parameters())


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)])
def test_token_losses_and_their_gradient(dtype, bound, monkeypatch):
    monkeypatch.setattr(cross_entropy, "PART_BYTES", 3 * 50 * 4)  # several parts, the last a shorter one
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
    found = index_batch(labels, inputs["attention_mask"])
    with Largest() as largest:
        loss = batch_loss(model, dict(inputs), found, COEFFICIENT, "flat", head)
        loss.total.backward()
    trained = len(found["targets"])
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
    found = index_batch(labels, inputs["attention_mask"])
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

    model = get_peft_model(
        build("Llama", tie_word_embeddings=False), LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"])
    )
    head = find_head(model, batch[0])
    assert head.linear.weight.requires_grad
    check(model, *batch, "flat", head)
