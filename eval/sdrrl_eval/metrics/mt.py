"""BLEU and chrF by sacrebleu (Post 2018; Popović 2015), with its signatures."""

from collections.abc import Sequence

from sdrrl_eval.metrics.score import Score, interval

# 13a divides words at spaces; these scripts have none, or glue particles to words.
_BY_CHARACTER = {"jpn", "kor", "tha", "khm"}


def bleu(outputs: Sequence[str], references: Sequence[str], lang: str, seed: int) -> Score:
    """Corpus BLEU in [0, 100], the numbers of `sacrebleu -m bleu`; `lang` is the ISO 639-3 code of the outputs."""
    from sacrebleu.metrics import BLEU

    return _score(BLEU(tokenize="char" if lang in _BY_CHARACTER else "13a"), outputs, references, seed)


def chrf(outputs: Sequence[str], references: Sequence[str], seed: int) -> Score:
    """Corpus chrF2 in [0, 100], the numbers of `sacrebleu -m chrf`."""
    from sacrebleu.metrics import CHRF

    return _score(CHRF(), outputs, references, seed)


def sentence_chrf(output: str, reference: str) -> float:
    """chrF2 of one item, to look at; the corpus score is no mean of these."""
    from sacrebleu.metrics import CHRF

    return round(CHRF().sentence_score(output, [reference]).score, 2)


def _score(metric, outputs: Sequence[str], references: Sequence[str], seed: int) -> Score:
    value = metric.corpus_score(outputs, [references]).score
    # sacrebleu's own bootstrap (`--confidence`) stands on these two methods as well.
    stats = metric._extract_corpus_statistics(outputs, [references])
    ci95 = interval(stats, lambda sums: metric._compute_score_from_stats(sums).score, seed)
    return Score(value, ci95, str(metric.get_signature()))
