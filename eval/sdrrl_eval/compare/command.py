"""`sdrrl compare`: finished evaluations set side by side, step by step."""

from collections.abc import Sequence

from sdrrl_eval import resampling, show
from sdrrl_eval.compare import cases, export, layout, published
from sdrrl_eval.compare.comparison import Comparison
from sdrrl_eval.compare.curves import read_curves
from sdrrl_eval.compare.differences import differences
from sdrrl_eval.compare.report import read_picture
from sdrrl_eval.compare.runs import predictions, read_runs
from sdrrl_eval.compare.shared import average_over_languages, shared_scores
from sdrrl_factory.errors import UserError

_RANKS = "Bold: best; underlined: second best."


def compare(
    runs: Sequence[str],
    *,
    train_log: str | None = None,
    paper: str | None = None,
    case_ids: Sequence[str] | None = None,
    tsne: str | None = None,
    correct: str | None = None,
    sacrebleu: str | None = None,
) -> Comparison:
    """Compare two or more systems, the first being the base. What it returns can be printed and written.

    Args:
        runs: evaluation folders, each FOLDER or NAME=FOLDER, or NAME=FOLDER,FOLDER for one checkpoint a language.
        train_log: a LLaMA-Factory trainer_log.jsonl; its per-subset losses are drawn into the report.
        paper: "table2" ... "table12", "llama2" or "seallm": the published figures; then one system is enough.
        case_ids: the ids of the case study's items; None takes the most changed ones.
        tsne: a folder `sdrrl tsne` wrote; its picture goes into the report.
        correct: "holm" corrects the p-values for the number of tests.
        sacrebleu: "bs" or "ar": the p-values of `sacrebleu --paired-bs` or `--paired-ar` stand beside.

    Raises:
        UserError: a folder without results, scores that no two systems share, an unknown table, id or correction.
    """
    # A system alone stands beside the paper, or has an average over its languages.
    if len(runs) < 2 and not paper and not ("," in "".join(runs) and "=" in "".join(runs)):
        raise UserError("compare: fewer than two evaluation folders", "name the base's first, then the others")
    if correct not in (None, "holm"):
        raise UserError(f"--correct {correct}: unknown", "known: holm")
    # A folder may have been evaluated anew since the last comparison of this process.
    predictions.cache_clear()

    # 1. What is compared: the scores that every system has, and their averages over languages.
    systems = read_runs(runs)
    beside = published.beside(systems, paper) if paper else []
    picture = read_picture(tsne) if tsne else ""
    scores, left_out = shared_scores(systems)
    averages, single = average_over_languages(scores)

    # 2. All tests of the comparison are one family; a correction changes what they decide.
    tests = [p for score in scores + averages for p in score.tests]
    if correct:
        corrected = resampling.holm(tests)
        scores, averages, single = (
            [score.with_correction(corrected) for score in some] for some in (scores, averages, single)
        )

    # 3. What is shown of it.
    entries = export.entries(systems, scores + averages, sacrebleu)
    return Comparison(
        runs=systems,
        scores=scores,
        single=single,
        entries=entries,
        tables=layout.language_tables(systems, averages),
        score_table=layout.score_table(systems, single),
        published=beside,
        differences=differences(systems),
        legend=_legend(len(tests), correct) if len(systems) > 1 else _RANKS,
        remarks=layout.remark_notes(systems, scores),
        notes=layout.notes(systems, scores, left_out) + _sacrebleu_notes(entries, sacrebleu),
        cases=cases.most_changed(systems, scores) if case_ids is None else cases.by_id(systems, scores, case_ids),
        samples=cases.first_items(systems, scores),
        curves=read_curves(train_log) if train_log else {},
        picture=picture,
        correction=correct,
    )


def _legend(tests: int, correct: str | None) -> str:
    """What the marks mean, and how many of them chance alone would make."""
    marks = (
        f"{_RANKS} † differs from the first system, ‡ the best from the second best (two-sided p < {resampling.LEVEL}: "
        "exact McNemar test where items are right or wrong, else approximate randomisation, "
        f"{resampling.PERMUTATIONS:,} permutations, seed {resampling.SEED})."
    )
    if correct:
        chance = "of 100 comparisons without any difference, at most 5 have a mark."
        return f"{marks} {tests} tests, p corrected by Holm: {chance}"
    marked = f"{tests * resampling.LEVEL:.1f}"
    return f"{marks} {tests} tests, not corrected: without any difference, chance alone would mark about {marked}."


def _sacrebleu_notes(entries: Sequence[dict], test: str | None) -> list[str]:
    values = [
        f"{show.label(e['task'], e['metric']).rpartition(' ')[0]} {show.direction(e)}: "
        f"{e['system']} {e['p_sacrebleu']:.3f}"
        for e in entries
        if e.get("p_sacrebleu") is not None
    ]
    return [f"p by sacrebleu --paired-{test}, not corrected: {'; '.join(values)}"] if values else []
