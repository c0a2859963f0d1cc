"""Layouts of the loss and the plot, without starting LLaMA-Factory."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from sdrrl_factory.training.collator import describe
from sdrrl_factory.training.layout import layout_for, may_join
from sdrrl_factory.training.plot import plot_subset_losses


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


def test_samples_are_joined_only_where_they_stay_apart(tiny, batch):
    inputs, labels = batch
    facts = describe(labels, inputs["attention_mask"])
    model = AutoModelForCausalLM.from_pretrained(tiny).train()
    assert may_join(model) and model.training
    assert layout_for(model, inputs, facts, True) == "flat"
    assert layout_for(model, inputs, facts, False) == "tail"
    assert layout_for(model, inputs | {"position_ids": None}, facts, True) == "tail"
    assert (facts["tokens"], facts["first"]) == (38, 1)
    leaky = AutoModelForCausalLM.from_pretrained(tiny)
    stock = leaky.model.forward
    leaky.model.forward = lambda *args, position_ids=None, **kwargs: stock(*args, **kwargs)
    assert not may_join(leaky)


def test_the_plot_draws_every_subset(tmp_path):
    history = [{"step": 1, "loss": 2.0, "loss_LL": 2.0}, {"step": 2, "loss_LL": 1.0, "loss_mt": 3.0}, {"eval_loss": 1}]
    assert plot_subset_losses(history, tmp_path / "a.png") and (tmp_path / "a.png").stat().st_size > 1000
    assert not plot_subset_losses([{"step": 1, "loss": 2.0}], tmp_path / "b.png")
