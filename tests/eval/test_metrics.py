import subprocess
import sys

import pytest

from sdrrl_eval.measure.metrics import mt
from sdrrl_eval.measure.metrics.score import ratio

OUTPUTS = ["The cat sat on the mat.", "There is a house by the river", "", "No, it was not the dog, it was me!"]
REFERENCES = ["The cat sat on a mat.", "There is a small house by the river.", "Yes.", "No, it was me, not the dog!"]
JAPANESE = ["猫はマットの上に座った。", "川のそばに家があります。"]
JAPANESE_REFERENCES = ["猫がマットの上に座りました。", "川のそばに小さな家がある。"]


def sacrebleu_cli(tmp_path, outputs, references, *arguments) -> float:
    for name, lines in {"out": outputs, "ref": references}.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "out", "-b", "-w", "4", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_bleu_equals_the_sacrebleu_command(tmp_path):
    score = mt.bleu(OUTPUTS, REFERENCES, "spa", seed=1)
    assert score.value > 10
    assert round(score.value, 4) == sacrebleu_cli(tmp_path, OUTPUTS, REFERENCES, "-m", "bleu")
    assert "tok:13a" in score.signature and "nrefs:1" in score.signature


def test_bleu_of_japanese_counts_characters(tmp_path):
    score = mt.bleu(JAPANESE, JAPANESE_REFERENCES, "jpn", seed=1)
    assert score.value > 10
    expected = sacrebleu_cli(tmp_path, JAPANESE, JAPANESE_REFERENCES, "-m", "bleu", "-tok", "char")
    assert round(score.value, 4) == expected
    assert "tok:char" in score.signature


@pytest.mark.parametrize(
    ("code", "tokenizer"),
    [("zho", "char"), ("yue", "char"), ("lao", "char"), ("mya", "char"), ("deu", "13a"), ("hin", "13a")],
)
def test_what_bleu_counts_beyond_the_papers_languages(code, tokenizer):
    assert f"tok:{tokenizer}" in mt.bleu(["猫坐在垫子上。"], ["猫在垫子上坐着。"], code, seed=1).signature


def test_chrf_equals_the_sacrebleu_command(tmp_path):
    score = mt.chrf(OUTPUTS, REFERENCES, seed=1)
    assert round(score.value, 4) == sacrebleu_cli(tmp_path, OUTPUTS, REFERENCES, "-m", "chrf")
    assert "nc:6|nw:0" in score.signature


@pytest.mark.parametrize(
    "metric",
    [
        lambda seed: mt.bleu(OUTPUTS * 3, REFERENCES * 3, "eng", seed),
        lambda seed: mt.chrf(OUTPUTS * 3, REFERENCES * 3, seed),
    ],
)
def test_an_interval_is_seeded_and_holds_the_value(metric):
    score = metric(1)
    low, high = score.ci95
    assert low < score.value < high
    assert metric(1) == score
    assert metric(2).ci95 != score.ci95 and metric(2).value == score.value


def test_mt_intervals_of_few_items_are_students():
    """By hand, of the scores of the corpus without each item: t of one degree of freedom is 12.706."""
    outputs, references = OUTPUTS[:2], REFERENCES[:2]
    for score, one in [
        (
            mt.bleu(outputs, references, "eng", 3),
            lambda i: mt.bleu(outputs[i : i + 1], references[i : i + 1], "eng", 3),
        ),
        (mt.chrf(outputs, references, 3), lambda i: mt.chrf(outputs[i : i + 1], references[i : i + 1], 3)),
    ]:
        half = 12.7062 * abs(one(0).value - one(1).value) / 2
        expected = (max(0, score.value - half), min(100, score.value + half))
        assert score.ci95 == pytest.approx(expected, abs=1e-6)


def test_a_ratio_weighs_items_by_their_tokens():
    score = ratio([(2.0, 1), (4.0, 4)], "s", seed=1)
    assert score.value == pytest.approx(6 / 5)
    assert score.ci95[0] < 1 and score.ci95[1] > 2  # two items: Student's t of one degree of freedom
    assert ratio([(1, 1), (0, 1), (0, 1), (0, 1)], "s", seed=1, scale=100).value == 25
