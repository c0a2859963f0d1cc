"""A comparison as data: JSON and CSV with every interval and p-value, for other programs."""

import csv
import io
import json
from collections.abc import Sequence

from sdrrl_eval import resampling
from sdrrl_eval.compare import rescoring
from sdrrl_eval.compare.runs import Row, Run, predictions, stem
from sdrrl_factory.errors import UserError

SACREBLEU = ("bs", "ar")


def entries(systems: Sequence[Run], rows: Sequence[Row], sacrebleu: str | None = None) -> list[dict]:
    """One for each score of each system, averages over languages included (their target_lang is "average").

    p is uncorrected, p_corrected what decides where the comparison is corrected; both against the first system.
    sacrebleu: "bs" or "ar"; p_sacrebleu is then what `sacrebleu --paired-bs` or `--paired-ar` says of it.
    """
    found = []
    for row in rows:
        own = sacrebleu_p(row, sacrebleu) if sacrebleu else {}
        for i, (run, score) in enumerate(zip(systems, row.scores, strict=True)):
            low, high = score["ci95"] or (None, None)
            p = row.p(i) if i else None
            entry = {
                "system": run.name,
                "task": score["task"],
                "metric": score["metric"],
                "source_lang": score["source_lang"] if not row.parts else None,
                "target_lang": score["target_lang"] if not row.parts else "average",
                "of": row.of or (", ".join(part.of or part.language for part in row.parts) or None),
                "value": score["value"],
                "ci95_low": low,
                "ci95_high": high,
                "n": score["n"],
                "signature": score["signature"],
                "test": row.test if i else None,
                "p": p,
                "p_corrected": row.shown_p(i) if i and row.corrected is not None else None,
                "marks": row.marks(i),
                "note": row.mismatch or row.common,
            }
            found.append(entry | ({"p_sacrebleu": own.get(i)} if sacrebleu else {}))
    return found


def as_json(scores: Sequence[dict], legend: str, differences: Sequence[str], correction: str | None) -> str:
    settings = {
        "level": resampling.LEVEL,
        "correction": correction,
        "permutations": resampling.PERMUTATIONS,
        "seed": resampling.SEED,
        "min_items": resampling.MIN_ITEMS,
    }
    whole = {"legend": legend, "settings": settings, "differences": list(differences), "scores": list(scores)}
    return json.dumps(whole, ensure_ascii=False, indent=2) + "\n"


def as_csv(scores: Sequence[dict]) -> str:
    """A header and a line for each score; what there is not is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(scores[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(scores)
    return text.getvalue()


def sacrebleu_p(row: Row, test: str) -> dict[int, float]:
    """Each run's p-value against the base by sacrebleu's own test, of BLEU and chrF; empty of other scores.

    None of a run with the base's score: sacrebleu 2.6's bootstrap says 0.001 of two systems with the same answers.
    """
    if test not in SACREBLEU:
        raise UserError(f"--sacrebleu-p {test}: unknown; known: {', '.join(SACREBLEU)}")
    if not row.items or row.parts or not (row.metric == "bleu" or row.metric.startswith("chrf")):
        return {}
    from sacrebleu.significance import PairedTest

    given = [predictions(score["folder"], stem(score)) for score in row.scores]
    answers = [rescoring.texts([items[item] for item in row.items]) for items in given]
    metric = rescoring.scorer(row.metric, rescoring.signature_parts(row.scores[0]["signature"]))
    named = [(str(i), outputs) for i, (outputs, _) in enumerate(answers)]
    _, scores = PairedTest(named, {row.metric: metric}, [answers[0][1]], test_type=test)()
    found = next(values for name, values in scores.items() if name != "System")
    return {i: float(r.p_value) for i, r in enumerate(found) if i and r.score != found[0].score}
