"""Against a resampling written out item by item, and against sacrebleu's own `--paired-bs`."""

import random

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from sdrrl_eval import runner
from sdrrl_eval.recipe import EvalConfig, TaskConfig
from sdrrl_eval.runs import Row, stem
from sdrrl_eval.significance import RESAMPLES, SEED, draws, p_value, statistics
from sdrrl_factory.files import read_jsonl
from tests.conftest import ROOT

WORDS = ["the", "river", "is", "wide", "and", "deep", "near", "old", "town", "three", "red", "apples", "nobody", "knew"]


def texts(seed: int, quality: float) -> tuple[list[str], list[str]]:
    pick = random.Random(7)
    references = [" ".join(pick.choices(WORDS, k=pick.randint(4, 12))) for _ in range(40)]
    noise = random.Random(seed)
    outputs = [" ".join(w if noise.random() < quality else noise.choice(WORDS) for w in r.split()) for r in references]
    return outputs, references


def rows(seed: int, quality: float) -> list[dict]:
    return [{"output": o, "reference": r} for o, r in zip(*texts(seed, quality), strict=True)]


def entry(metric: str, value: float, n: int, signature: str = "s:1") -> dict:
    return {"metric": metric, "value": value, "n": n, "signature": signature}


@pytest.mark.parametrize("metric", [BLEU(), BLEU(tokenize="char", lowercase=True), CHRF(), CHRF(word_order=2)])
@pytest.mark.parametrize("quality", [0.62, 0.8])
def test_bleu_and_chrf_have_the_p_value_of_sacrebleu(metric, quality, monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", str(SEED))
    (base, references), (other, _) = texts(1, 0.6), texts(2, quality)
    _, told = PairedTest(
        [("base", base), ("other", other)], {"m": metric}, [references], test_type="bs", n_samples=RESAMPLES
    )()
    expected = next(values for name, values in told.items() if name != "System")
    name, found = "bleu" if isinstance(metric, BLEU) else "chrf", []
    for seed, q in ((1, 0.6), (2, quality)):
        given = rows(seed, q)
        value = metric.corpus_score([r["output"] for r in given], [references]).score
        result = statistics(entry(name, round(value, 4), len(given), str(metric.get_signature())), given)
        found.append((value, result.resampled()))
    (a, one), (b, two) = found
    assert (a, b) == pytest.approx((expected[0].score, expected[1].score), abs=1e-12)
    assert p_value(b, two, a, one) == expected[1].p_value
    # sacrebleu resamples in float32, and with numpy 2 its mean stays in it.
    assert np.mean(two) == pytest.approx(expected[1].mean, abs=1e-5)


def brute(items: list[list[float]], value) -> list[float]:
    """Every resample drawn, every item of it visited."""
    drawn = np.random.default_rng(SEED).choice(len(items), size=(RESAMPLES, len(items)), replace=True)
    return [value([items[i] for i in row]) for row in drawn.tolist()]


def test_item_scores_and_losses_against_brute_force():
    pick = random.Random(3)
    flags = [{"off_target": pick.random() < 0.3} for _ in range(31)]
    rate = 100 * sum(r["off_target"] for r in flags) / 31
    found = statistics(entry("off_target", round(rate, 4), 31), flags).resampled()
    assert found.tolist() == pytest.approx(
        brute(flags, lambda drawn: 100 * sum(r["off_target"] for r in drawn) / len(drawn))
    )
    losses = [{"nats": pick.random() * 50, "tokens": pick.randint(0, 20)} for _ in range(31)]

    def loss(drawn):
        return sum(r["nats"] for r in drawn) / sum(r["tokens"] for r in drawn)

    result = statistics(entry("text_loss", loss(losses), 31), losses)
    assert result.resampled().tolist() == pytest.approx(brute(losses, loss))
    assert draws(31).sum(axis=1).tolist() == [31.0] * RESAMPLES


def test_p_value_against_its_definition():
    pick = np.random.default_rng(0)
    a, b = pick.normal(0, 1, 500), pick.normal(0.4, 1, 500)
    sizes = [abs(x - y) for x, y in zip(a, b, strict=True)]
    centre = sum(sizes) / 500
    for real in (0.0, 0.4, 2.0):
        expected = (1 + sum(size - centre > real for size in sizes)) / 501
        assert p_value(real, b, 0.0, a) == expected
    assert p_value(9.0, b, 0.0, a) == 1 / 501


@pytest.mark.parametrize(
    ("score", "given"),
    [
        (entry("f1", 50.0, 2), [{"f1": 10.0}, {"f1": 20.0}]),  # the predictions say 15
        (entry("f1", 15.0, 3), [{"f1": 10.0}, {"f1": 20.0}]),  # cut off
        (entry("f1", 15.0, 2), [{"f1": 10.0}, {"x": 20.0}]),
        (entry("f1", 0.0, 0), []),
        (entry("bleu", 1.0, 1, "case:mixed|tok:none-such|smooth:exp|eff:no"), [{"output": "a", "reference": "a"}]),
        (entry("bleu", 1.0, 1, "case:mixed"), [{"output": "a", "reference": "a"}]),
    ],
)
def test_predictions_that_do_not_give_the_score_are_not_resampled(score, given):
    assert statistics(score, given) is None


def test_every_score_of_every_task_comes_out_of_its_predictions(checkpoint, tmp_path):
    """What `sdrrl compare` resamples is what `sdrrl eval` wrote: no score is without its p-value."""
    pytest.importorskip("rouge_score", reason="rouge-score is missing: pip install 'sdrrl-factory[rouge]'")
    data, held = ROOT / "tests/data", ROOT / "data/heldout"
    tasks = [
        TaskConfig("belebele", str(data / "belebele"), ["spa", "eng"]),
        TaskConfig("flores", str(data / "flores"), ["spa"], tokenizer="13a", metrics=["bleu", "chrf", "chrf++"]),
        TaskConfig("xlsum", str(data / "xlsum"), ["spa", "eng"]),
        TaskConfig("mkqa", str(data / "mkqa/mkqa.jsonl.gz"), ["spa", "eng"]),
        TaskConfig("translation", str(held / "sentences"), ["spa"]),
        TaskConfig("instructions", str(held / "instructions.{lang}.jsonl"), ["spa"]),
        TaskConfig("off_target", str(held / "questions.{lang}.jsonl"), ["spa"]),
        TaskConfig("text_loss", str(held / "sentences"), ["spa"]),
    ]
    config = EvalConfig(checkpoint, tasks, str(tmp_path / "run"), max_samples=8, max_new_tokens=8)
    scores = runner.run(config, "r.yaml")["scores"]
    assert {score["task"] for score in scores} == {task.task for task in tasks}
    for score in scores:
        given = read_jsonl(tmp_path / "run/predictions" / f"{stem(score)}.jsonl")
        found = statistics(score, [row for _, row in given])
        assert found is not None, score
        assert found.total() == pytest.approx(score["value"], abs=0.006)


def row_of(values: list[float], items: list[list[float]]) -> Row:
    scores = [entry("f1", value, len(items[0])) for value in values]
    found = [statistics(s, [{"f1": v} for v in given]) for s, given in zip(scores, items, strict=True)]
    return Row(scores, [one.resampled() for one in found])


def test_no_difference_is_not_significant_and_few_items_say_nothing():
    same = row_of([0.0, 0.0], [[0.0] * 8] * 2)
    assert same.p(1) == 1.0 and same.marks(1) == ""
    clear = row_of([10.0, 90.0], [[10.0] * 6, [90.0] * 6])
    assert clear.p(1) < 0.05 and clear.marks(1) == "†"
    few = row_of([10.0, 90.0], [[10.0] * 5, [90.0] * 5])
    assert few.few and few.p(1) is None and few.marks(1) == ""


def test_item_scores_in_the_unit_interval_are_scaled():
    assert statistics(entry("rouge1", 25.0, 2), [{"rouge1": 0.2}, {"rouge1": 0.3}]).total() == pytest.approx(25)
