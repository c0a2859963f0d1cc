import json
import random
from pathlib import Path

import pytest

from sdrrl_eval.measure.metrics.rouge import Rouge, bare, pieces
from sdrrl_factory.languages import LANGUAGES

pytest.importorskip("rouge_score", reason="rouge-score is missing: pip install 'sdrrl-factory[rouge]'")
# F1 of XL-SUM's own scorer (github.com/csebuetnlp/xl-sum, commit afcd803c) of texts written for this project, with
# fugashi 1.5.2, unidic-lite 1.0.8, pythainlp 5.4 and pyonmttok 1.38.
FIGURES = Path(__file__).parents[1] / "data/xlsum/figures.jsonl"
ROWS = [json.loads(line) for line in FIGURES.read_text(encoding="utf-8").splitlines()]
BY_NAME = {lang.xlsum: lang for lang in LANGUAGES.values() if lang.xlsum}


def rouge(code: str, tokenizer: str | None = None) -> Rouge:
    needs = {"jpn": "fugashi", "tha": "pythainlp"}.get(code)
    if needs:
        pytest.importorskip(needs, reason=f"{needs} is missing: pip install 'sdrrl-factory[rouge]'")
    return Rouge(LANGUAGES[code], tokenizer)


@pytest.mark.parametrize("name", sorted({row["language"] for row in ROWS}))
def test_figures_equal_the_benchmarks_own_scorer(name):
    scorer = rouge(BY_NAME[name].code)
    if name == "japanese" and "unidic-lite" not in scorer.signature:
        pytest.skip("the figures are of unidic-lite; this environment has the large UniDic")
    rows = [row for row in ROWS if row["language"] == name]
    assert any(row["rouge1"] > 0 for row in rows) and any(row["rouge1"] != row["rougeL"] for row in rows)
    for row in rows:
        found = scorer.f1(row["output"], row["reference"])
        assert found["rouge1"] == pytest.approx(row["rouge1"], abs=1e-12)
        assert found["rougeL"] == pytest.approx(row["rougeL"], abs=1e-12)


def test_english_equals_rouge_score():
    from rouge_score.rouge_scorer import RougeScorer

    plain = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    lines = (Path(__file__).parents[2] / "data/heldout/sentences/eng_Latn.devtest").read_text().splitlines()
    rng, scorer = random.Random(1), rouge("eng")
    assert scorer.signature.startswith("f1|tok:rouge-score|stem:porter|rouge-score:")
    for line in lines[:30]:
        words = line.split()
        output = " ".join(rng.choices(words, k=len(words))) + f" {rng.choice(lines)}"
        expected = {name: score.fmeasure for name, score in plain.score(line, output).items()}
        assert scorer.f1(output, line) == expected and expected["rouge1"] > 0


def test_no_letter_is_lost_and_stems_are_only_the_benchmarks():
    # Stemmed: what Snowball knows. Not stemmed: what it does not.
    assert rouge("spa").f1("las canciones nuevas", "la canción nueva")["rouge1"] > 0.5
    assert rouge("ukr").f1("нові пісні", "нова пісня")["rouge1"] == 0
    assert rouge("ind").f1("menyanyikan", "bernyanyi")["rouge1"] == 0
    assert "stem:snowball" in rouge("spa").signature and "stem:no" in rouge("ukr").signature
    for code in ("jpn", "kor", "tha", "ukr"):
        text = {"jpn": "猫がいる。", "kor": "고양이가 있다.", "tha": "มีแมว", "ukr": "Є кіт."}[code]
        assert rouge(code).f1(text, text) == {"rouge1": 1.0, "rougeL": 1.0}
        assert rouge(code).f1("", text) == {"rouge1": 0.0, "rougeL": 0.0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("¡Hola,\u00a0Mundo!\u200b 3,5km 20€", ["hola", "mundo", "3", "5", "km", "20", "€"]),
        ("漢字とかな", ["漢", "字", "とかな"]),
        ("CAFE\u0301 à-la", ["caf\u00e9", "à", "la"]),
        ("a\x07b \ufffd x²", ["ab", "x", "²"]),
    ],
)
def test_words_are_cut_as_by_the_benchmark(text, words):
    assert pieces(bare(text)) == words


def test_the_mean_has_its_interval():
    score = rouge("ukr").score([0.0, 1.0, 0.5, 0.5], seed=1)
    assert score.value == 50 and score.ci95[0] < 50 < score.ci95[1]
