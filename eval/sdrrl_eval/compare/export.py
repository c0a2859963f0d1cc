"""A comparison as data: JSON and CSV with every interval and p-value, for other programs."""

import csv
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdrrl_eval import remarks, resampling
from sdrrl_eval.compare import rescoring
from sdrrl_eval.compare.runs import Run, predictions, stem
from sdrrl_eval.compare.shared import SharedScore
from sdrrl_factory.errors import UserError

if TYPE_CHECKING:
    from sdrrl_eval.compare.comparison import Comparison

SACREBLEU = ("bs", "ar")


def entries(runs: Sequence[Run], scores: Sequence[SharedScore], sacrebleu: str | None = None) -> list[dict]:
    """One for each score of each system, averages over languages included (their target_lang is "average").

    p is uncorrected, p_corrected what decides where the comparison is corrected; both against the first system.
    sacrebleu: "bs" or "ar"; p_sacrebleu is then what `sacrebleu --paired-bs` or `--paired-ar` says of it.
    """
    found = []
    for score in scores:
        p_sacrebleu = sacrebleu_p(score, sacrebleu) if sacrebleu else {}
        parts = ", ".join(part.taught or part.language for part in score.parts)
        for i, (run, result) in enumerate(zip(runs, score.scores, strict=True)):
            low, high = result["ci95"] or (None, None)
            entry = {
                "system": run.name,
                "task": result["task"],
                "metric": result["metric"],
                "source_lang": None if score.parts else result["source_lang"],
                "target_lang": "average" if score.parts else result["target_lang"],
                "of": score.taught or parts or None,
                "value": result["value"],
                "ci95_low": low,
                "ci95_high": high,
                "n": result["n"],
                "signature": result["signature"],
                "test": score.test if i else None,
                "p": score.p(i) if i else None,
                "p_corrected": score.deciding_p(i) if i and score.corrected is not None else None,
                "marks": score.marks(i),
                **{kind: result.get("remarks", {}).get(kind, 0) for kind in remarks.KINDS},
                "note": score.mismatch or score.common,
            }
            if sacrebleu:
                entry["p_sacrebleu"] = p_sacrebleu.get(i)
            found.append(entry)
    return found


def as_json(comparison: "Comparison") -> str:
    settings = {
        "level": resampling.LEVEL,
        "correction": comparison.correction,
        "permutations": resampling.PERMUTATIONS,
        "seed": resampling.SEED,
        "min_items": resampling.MIN_ITEMS,
    }
    whole = {
        "legend": comparison.legend,
        "settings": settings,
        "differences": comparison.differences,
        "remarks": comparison.remarks,
        "scores": comparison.entries,
    }
    return json.dumps(whole, ensure_ascii=False, indent=2) + "\n"


def as_csv(scores: Sequence[dict]) -> str:
    """A header and a line for each score; what there is not is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(scores[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(scores)
    return text.getvalue()


def sacrebleu_p(score: SharedScore, test: str) -> dict[int, float]:
    """Each run's p-value against the base by sacrebleu's own test, of BLEU and chrF; empty of other scores.

    None of a run with the base's score: sacrebleu 2.6's bootstrap says 0.001 of two systems with the same answers.
    """
    if test not in SACREBLEU:
        raise UserError(f"--sacrebleu-p {test}: unknown", f"known: {', '.join(SACREBLEU)}")
    if not score.items or score.parts or not (score.metric == "bleu" or score.metric.startswith("chrf")):
        return {}
    from sacrebleu.significance import PairedTest

    rows_of = [predictions(entry["folder"], stem(entry)) for entry in score.scores]
    answers = [rescoring.texts([rows[item] for item in score.items]) for rows in rows_of]
    metric = rescoring.scorer(score.metric, rescoring.signature_parts(score.scores[0]["signature"]))
    # sacrebleu takes systems as (name, outputs) and the references as a list of streams; the first is the baseline.
    systems: list[tuple[str, Sequence[str]]] = [(str(i), outputs) for i, (outputs, _) in enumerate(answers)]
    _, results = PairedTest(systems, {score.metric: metric}, [answers[0][1]], test_type=test)()
    # Beside the systems' names, one column: the metric under the name sacrebleu gives it.
    column: list[Any] = next(values for name, values in results.items() if name != "System")
    return {i: float(r.p_value) for i, r in enumerate(column) if i and r.score != column[0].score}
