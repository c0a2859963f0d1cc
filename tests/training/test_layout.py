"""Which layout a batch gets, and that looking for it leaves the model as it was."""

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.trainer_utils import neftune_post_forward_hook

from sdrrl_factory.errors import UserError
from sdrrl_factory.training.collator import index_batch
from sdrrl_factory.training.layout import layout_for
from sdrrl_factory.training.limits import check_model
from sdrrl_factory.training.obstacles import find_obstacle
from sdrrl_factory.training.trial import check_joined, may_join
from tests.training.commands import write_recipe


@pytest.fixture(scope="module")
def batch():
    torch.manual_seed(1)
    ids = torch.randint(3, 300, (4, 12))
    mask, labels = torch.ones_like(ids), ids.clone()
    for row, (prompt, end) in enumerate([(3, 12), (6, 9), (2, 5), (8, 12)]):
        mask[row, end:] = 0
        labels[row, :prompt] = -100
        labels[row, end:] = -100
    inputs = {"input_ids": ids, "attention_mask": mask}
    return inputs, index_batch(labels, mask)


@pytest.fixture
def model(tiny):
    return AutoModelForCausalLM.from_pretrained(tiny).train()


def test_only_a_plain_batch_is_joined(model, batch):
    inputs, batch_index = batch
    assert (batch_index["tokens"], batch_index["first_trained"]) == (38, 1)
    assert layout_for(model, inputs, batch_index, True) == "flat"
    assert layout_for(model, inputs, batch_index, False) == "tail"
    assert layout_for(model, inputs | {"position_ids": None}, batch_index, True) == "tail"


# --- the parts of a model


def test_a_decoder_whose_mask_is_made_elsewhere_is_not_joined(model):
    stock = model.model.forward
    model.model.forward = lambda *args, position_ids=None, **kwargs: stock(*args, **kwargs)
    assert find_obstacle(model) == "a mask of its own"
    assert not may_join(model)


def test_an_attention_of_its_own_is_not_joined(model):
    attention = model.model.layers[1].self_attn
    stock = attention.forward
    attention.forward = lambda hidden_states, attention_mask=None, **kwargs: stock(hidden_states, None, **kwargs)
    assert find_obstacle(model) == "LlamaAttention"


def test_a_convolution_is_not_joined(model):
    model.model.layers[0].mlp.smooth = torch.nn.Conv1d(48, 48, 3)
    assert find_obstacle(model) == "Conv1d"


@pytest.mark.parametrize(
    "key, value",
    [("layer_types", ["full_attention", "conv"]), ("attention_chunk_size", 8), ("attn_temperature_tuning", True)],
)
def test_what_counts_in_rows_is_not_joined(key, value, model):
    setattr(model.config, key, value)
    assert find_obstacle(model) in (key, value[-1] if isinstance(value, list) else key)


def test_adapters_do_not_stand_in_the_way(model):
    from peft import LoraConfig, get_peft_model

    assert may_join(get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")))


# --- the trial


class Leaking(torch.nn.Module):
    """Adds to each token the sum of those before it, behind a gate, as no part's signature tells."""

    def __init__(self, inner, gate: float):
        super().__init__()
        self.inner, self.gate = inner, torch.nn.Parameter(torch.tensor(gate))

    def forward(self, x):
        return self.inner(x) + self.gate * x.cumsum(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_trial_finds_what_the_parts_do_not_tell(dtype, model):
    model.to(dtype)
    model.model.layers[0].mlp = Leaking(model.model.layers[0].mlp, 0.5).to(dtype)
    assert find_obstacle(model) is None
    assert not may_join(model)


def test_a_gate_that_opens_in_training_stops_the_run(model):
    model.model.layers[0].mlp = Leaking(model.model.layers[0].mlp, 0.0)
    assert may_join(model)
    check_joined(model)
    with torch.no_grad():
        model.model.layers[0].mlp.gate += 0.01
    with pytest.raises(UserError, match="reach each other"):
        check_joined(model)


def test_a_model_that_diverged_is_not_blamed(model):
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    check_joined(model)


class Mixing(torch.nn.Module):
    """A layer norm over the whole batch."""

    def forward(self, x):
        return (x - x.mean()) / x.std()


def test_a_model_that_mixes_padded_samples_is_refused(model):
    model.model.norm = Mixing()
    with pytest.raises(UserError, match="per_device_train_batch_size: 1"):
        may_join(model)


class Remembering(torch.nn.Module):
    """Keeps a tensor for the next batch, and one in a buffer."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.seen = inner, None
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.seen, self.last = x[:, -1], x
        self.count = self.count + 1
        return self.inner(x)


@pytest.mark.parametrize("look", [may_join, check_joined])
def test_the_trial_leaves_the_model_as_it_was(look, model):
    """Each module's mode, what it keeps, the gradients, the hooks and the random numbers."""
    model.model.layers[0].mlp = remembering = Remembering(model.model.layers[0].mlp)
    model.model.layers[1].eval()  # a part frozen by its user
    model.config.attention_dropout = model.model.layers[0].self_attn.attention_dropout = 0.5
    embedding = model.get_input_embeddings()
    embedding.neftune_noise_alpha = 5.0
    embedding.register_forward_hook(neftune_post_forward_hook)
    model(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()
    remembering.seen = None
    del remembering.last

    def snapshot():
        modes = [module.training for module in model.modules()]
        hooks = [len(module._forward_hooks) for module in model.modules()]
        return modes, hooks, [p.grad.clone() for p in model.parameters()], torch.get_rng_state()

    before, count = snapshot(), remembering.count
    look(model)  # noise and dropout would fail the trial, or end it
    after = snapshot()
    assert before[:2] == after[:2]
    assert all(map(torch.equal, before[2], after[2])) and torch.equal(before[3], after[3])
    assert remembering.seen is None and not hasattr(remembering, "last") and remembering.count is count
    assert may_join(model)


# --- what is refused


@pytest.mark.parametrize("name", ["T5", "Bart", "Pegasus"])
def test_encoder_decoders_are_refused(name):
    small = {"vocab_size": 64, "d_model": 16, "pad_token_id": 0}
    small |= {"d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    if name != "T5":
        small |= {
            f"{part}_{key}": 2 for part in ("encoder", "decoder") for key in ("layers", "attention_heads", "ffn_dim")
        }
    model = getattr(transformers, f"{name}ForConditionalGeneration")(getattr(transformers, f"{name}Config")(**small))
    with pytest.raises(UserError, match=f"{name}ForConditionalGeneration is an encoder-decoder") as error:
        check_model(model)
    assert "\n" not in str(error.value)


# --- NEFTune


def test_noise_is_that_of_a_padded_batch(model, batch):
    """Its size falls with the root of the row's length: alpha / sqrt(3 L d) is its standard deviation."""
    inputs, batch_index = batch
    embedding = model.get_input_embeddings()
    embedding.neftune_noise_alpha = 5.0
    assert layout_for(model, inputs, batch_index, True) == "tail"
    assert layout_for(model.eval(), inputs, batch_index, True) == "flat"  # no noise in evaluation
    del embedding.neftune_noise_alpha
    assert layout_for(model.train(), inputs, batch_index, True) == "flat"


@pytest.mark.slow
def test_noise_in_a_training(commands, recipe, tmp_path):
    alpha = 5.0
    printed = commands.train(
        write_recipe(tmp_path / "r.yaml", recipe | {"neftune_noise_alpha": alpha}), patch="measure_noise"
    )
    # Behind a progress bar, which ends no line.
    noise = [line.split("noise:")[1].split() for line in printed.splitlines() if "noise:" in line]
    assert noise
    for samples, length, size, deviation in noise:
        assert int(samples) == 16
        expected = alpha / (3 * int(length) * int(size)) ** 0.5
        assert float(deviation) == pytest.approx(expected, rel=0.02)
