"""Equation 6 as weights of single samples."""

import pytest

from sdrrl_factory.training.weights import Entry, sample_weights


def test_weights_give_every_subset_the_same_share_and_a_mean_of_one():
    entries = [Entry("a", "LL", 1.0, 30), Entry("b", "TL", 1.0, 5), Entry("c", "LL", 1.0, 10), Entry("d", "mt", 1.0, 0)]
    weights = sample_weights(entries)
    assert sum(w * e.size for w, e in zip(weights, entries, strict=True)) == pytest.approx(45)
    assert weights[1] * 5 == pytest.approx(weights[0] * 30 + weights[2] * 10)
    assert weights[3] == 0


def test_entry_weight_multiplies():
    assert sample_weights([Entry("a", "LL", 2.0, 4), Entry("b", "TT", 0.0, 4)]) == [2.0, 0.0]
