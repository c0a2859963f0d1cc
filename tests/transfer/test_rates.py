import pytest

from sdrrl_factory.transfer import rates
from sdrrl_factory.transfer.rates import Load, Rate


def test_the_rate_measured_on_most_is_kept(tmp_path):
    rates.keep(tmp_path, "translate", Rate(5, 1.0, "answers", "CPU"))
    assert rates.read(tmp_path) == {}  # too few to tell
    rates.keep(tmp_path, "translate", Rate(300, 60.0, "answers", "CPU"))
    rates.keep(tmp_path, "translate", Rate(30, 60.0, "answers", "CPU"))
    rates.keep(tmp_path, "score", Rate(200, 10.0, "records", "GPU"))
    assert rates.read(tmp_path) == {
        "translate": Rate(300, 60.0, "answers", "CPU"),
        "score": Rate(200, 10.0, "records", "GPU"),
    }
    (tmp_path / "rates.json").write_text("broken")
    assert rates.read(tmp_path) == {}


@pytest.mark.parametrize(
    ("workers", "hours"),
    # 100 pieces of 36 s each: one hour for one; 13 rounds of 8; two rounds of 64; never less than one piece.
    [(1, 1.0), (8, 13 * 0.01), (64, 2 * 0.01), (1000, 0.01)],
)
def test_workers_divide_the_pieces_not_the_amount(workers, hours):
    rate = Rate(50, 18.0, "answers", "GPU")
    assert rates.hours(Load("translate", 10_000, 100), rate, workers) == pytest.approx(hours)


def test_what_a_run_takes_is_said_by_stage_and_what_nobody_has_measured(capsys):
    loads = {"sdrrl": [Load("generate", 7200, 100)], "sdrrl_spa": [Load("translate", 100, 1), Load("filter", 0, 0)]}
    measured = {"sdrrl": {"generate": Rate(100, 50.0, "answers", "GPU")}, "sdrrl_spa": {}}
    rates.print_cost(loads, measured, price=2.5)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "cost stage on worker hours 1 workers 8 workers 64 workers",
        "sdrrl/generate GPU 1.00 1.00 h 0.13 h 0.02 h",
        "all 1.00 1.00 h 0.13 h 0.02 h",
        "from rates that runs here have measured, on 100 and more each",
        "2.50 at 2.5 for a worker's hour",
        "cost nobody has measured sdrrl_spa/translate here: run it with max_samples=200 first",
    ]
