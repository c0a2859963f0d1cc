"""BLEU and chrF by sacrebleu (Post 2018; Popović 2015), with its signatures."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from sdrrl_eval.measure.metrics.score import Score, score_of
from sdrrl_eval.resampling import Array, Statistics
from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import LANGUAGES

# 13a divides words at spaces; these languages have none between words, or glue particles to them.
_BY_CHARACTER = {code for code, row in LANGUAGES.items() if not row.spaced} | {"kor"}


def check_tokenizer(name: str | None, langs: Sequence[str] = ()) -> None:
    """Say before anything runs that sacrebleu has no such tokenizer, or lacks what it needs. Nothing is downloaded.

    langs: the ISO 639-3 codes that are to be scored: which other tokenizer does depends on them.
    """
    if name is None:
        return
    from sacrebleu.metrics import BLEU

    if name not in BLEU.TOKENIZERS:
        raise UserError(f"sacrebleu has no {name!r}", f"it has {', '.join(sorted(BLEU.TOKENIZERS))}")
    # sacrebleu (2.6) would download the file at the first score, and leave an empty one where that fails.
    file = _spm_file(name)
    if file and not (file.is_file() and file.stat().st_size):
        raise UserError(
            f"{name} needs sacrebleu's SentencePiece model, which is not at {file}",
            f"fetch it with `sacrebleu --tokenize {name}`, or copy it there from a machine that has it (SACREBLEU "
            f"names another folder than ~/.sacrebleu), or set tokenizer: {_other_tokenizer(langs)}",
        )
    try:
        BLEU(tokenize=name)
    except (ImportError, OSError, RuntimeError) as err:
        why = " ".join(str(err).split())
        raise UserError(f"{name} cannot be used ({why})", "install what it needs, or take another") from None


def _other_tokenizer(langs: Sequence[str]) -> str:
    """One that needs no file, in words: 13a takes a sentence without blanks for a word."""
    by_character = [code for code in dict.fromkeys(langs) if code in _BY_CHARACTER]
    others = [code for code in dict.fromkeys(langs) if code not in _BY_CHARACTER]
    if not by_character:
        return "13a"
    if not others:
        return "char"
    return f"13a for {', '.join(others)}, and char for {', '.join(by_character)}, in an entry of their own"


def _spm_file(name: str) -> Path | None:
    """Where sacrebleu looks for the SentencePiece model of a tokenizer; None of those that need none."""
    from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
    from sacrebleu.utils import SACREBLEU_DIR

    if name not in SPM_MODELS:
        return None
    return Path(SACREBLEU_DIR) / "models" / PurePosixPath(SPM_MODELS[name]["url"]).name


def bleu(
    outputs: Sequence[str], references: Sequence[str], lang: str, seed: int, tokenizer: str | None = None
) -> Score:
    """Corpus BLEU in [0, 100], the numbers of `sacrebleu -m bleu`.

    Args:
        lang: the ISO 639-3 code of the outputs.
        tokenizer: sacrebleu's name; None is 13a, or char for scripts that 13a does not suit.
    """
    from sacrebleu.metrics import BLEU

    name = tokenizer or ("char" if lang in _BY_CHARACTER else "13a")
    return _score(BLEU(tokenize=name), outputs, references, seed)


def chrf(outputs: Sequence[str], references: Sequence[str], seed: int, word_order: int = 0) -> Score:
    """Corpus chrF2 in [0, 100], the numbers of `sacrebleu -m chrf`; chrF2++ with `word_order` 2."""
    from sacrebleu.metrics import CHRF

    return _score(CHRF(word_order=word_order), outputs, references, seed)


def sentence_chrf(output: str, reference: str) -> float:
    """chrF2 of one item, to look at; the corpus score is no mean of these."""
    from sacrebleu.metrics import CHRF

    return round(CHRF().sentence_score(output, [reference]).score, 2)


def _score(metric: Any, outputs: Sequence[str], references: Sequence[str], seed: int) -> Score:
    # The value is sacrebleu's own to the last digit; only the interval stands on the statistics.
    value = metric.corpus_score(outputs, [references]).score
    score = score_of(statistics(metric, outputs, references), str(metric.get_signature()), seed)
    return Score(value, score.ci95, score.signature)


def statistics(metric: Any, outputs: Sequence[str], references: Sequence[str] | None) -> Statistics:
    """What sacrebleu's `metric` computes a corpus score from; its own significance tests stand on the same table.

    Args:
        metric: a BLEU or CHRF of sacrebleu.
        references: None where `metric` was made with them, which then counts their n-grams once for many systems.

    Raises: ValueError for settings of the metric that `sdrrl eval` does not use.
    """
    import numpy as np
    from sacrebleu.metrics import BLEU

    streams = None if references is None else [references]
    table = np.asarray(metric._extract_corpus_statistics(outputs, streams), dtype=np.float64)
    names = tuple(range(len(table)))
    if isinstance(metric, BLEU):
        if (metric.smooth_method, metric.effective_order, metric.max_ngram_order) != ("exp", False, 4):
            raise ValueError("BLEU is resampled with smooth:exp and eff:no alone")
        return Statistics(table, _bleu_of_sums, names)
    if metric.eps_smoothing:
        raise ValueError("chrF is resampled with eff:yes alone")
    return Statistics(table, partial(_chrf_of_sums, metric.beta**2), names)


def _bleu_of_sums(sums: Array) -> Array:
    """sacrebleu's `compute_bleu` of many corpora at once: [..., 10] -> [...].

    sums: output length, reference length, matches of orders 1 to 4, n-grams of orders 1 to 4.
    """
    import numpy as np

    length, reference, right, total = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
    with np.errstate(divide="ignore", invalid="ignore"):
        # The k-th order without a match counts as 1 / 2**k of one.
        missing = np.cumsum(right <= 0, axis=-1)
        precision = np.where(right > 0, right, 0.5**missing) / total
        brevity = np.where(length < reference, np.exp(1 - reference / length), 1.0)
        score = 100 * brevity * np.exp(np.log(precision).mean(-1))
    # Without any match, or with outputs too short for an order, sacrebleu says 0, smoothed or not.
    scored = (right > 0).any(-1) & (total > 0).all(-1) & (length > 0)
    return np.where(scored, score, 0.0)


def _chrf_of_sums(factor: float, sums: Array) -> Array:
    """sacrebleu's `CHRF._compute_f_score` of many corpora at once: [..., 3 * orders] -> [...].

    factor: beta squared. sums: n-grams of the output, of the reference, matches, of each order.
    """
    import numpy as np

    output, reference, right = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    # eff:yes: an order of which the output or the reference has no n-gram does not count.
    counted = (output > 0) & (reference > 0)
    orders = np.maximum(counted.sum(-1), 1)
    precision = np.where(counted, right / np.where(counted, output, 1), 0).sum(-1) / orders
    recall = np.where(counted, right / np.where(counted, reference, 1), 0).sum(-1) / orders
    below = factor * precision + recall
    return np.where(below > 0, 100 * (1 + factor) * precision * recall / np.where(below > 0, below, 1), 0.0)
