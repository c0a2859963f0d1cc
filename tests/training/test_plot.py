"""The picture of each subset's loss."""

from sdrrl_factory.training.plot import plot_subset_losses


def test_the_plot_draws_every_subset(tmp_path):
    history = [{"step": 1, "loss": 2.0, "loss_LL": 2.0}, {"step": 2, "loss_LL": 1.0, "loss_mt": 3.0}, {"eval_loss": 1}]
    assert plot_subset_losses(history, tmp_path / "a.png") and (tmp_path / "a.png").stat().st_size > 1000
    assert not plot_subset_losses([{"step": 1, "loss": 2.0}], tmp_path / "b.png")
