"""The tables of a comparison, built once for whatever writes them."""

from collections.abc import Sequence
from itertools import groupby

from sdrrl_eval import remarks, resampling, show
from sdrrl_eval.compare.runs import ENGLISH, Run
from sdrrl_eval.compare.shared import SIDES, SharedScore
from sdrrl_eval.compare.tables import Block, Cell, Line, Table
from sdrrl_factory.languages import LANGUAGES

_FEW = 3  # directions that are named one by one, even where they are all there are


def language_tables(runs: Sequence[Run], averages: Sequence[SharedScore]) -> list[Table]:
    """A table a task in the paper's shape, from the averages over languages and their parts."""
    own_metric = {average.task for average in averages if average.metric == average.task}
    tables = []
    for (task, *languages), group in groupby(averages, key=lambda average: (average.task, *_languages(average))):
        blocks: list[Block] = []
        parts: list[SharedScore] = []
        for average in group:
            name = SIDES[average.side]
            # A task that is its own metric is in the title.
            if average.metric != task:
                name = f"{show.metric(average.metric)}, {name}"
            columns = [*average.parts, average]
            blocks.append(Block(name, [Line(run.name, [cell(c, i) for c in columns]) for i, run in enumerate(runs)]))
            parts += average.parts
        title = show.metric(task) if task in own_metric else show.task(task)
        heads = [*(code.upper() for code in languages), "AVG."]
        tables.append(Table(title, heads, blocks, basis=basis(parts)))
    return tables


def _languages(average: SharedScore) -> list[str]:
    return [part.taught or part.language for part in average.parts]


def score_table(runs: Sequence[Run], scores: Sequence[SharedScore]) -> Table | None:
    """A line a score, a column a system: what one language has of scores. None where there is none."""
    blocks = [
        Block(name, [Line(s.label, [cell(s, i) for i in range(len(runs))], s.direction) for s in scores_there])
        for name, scores_there in by_language(scores)
    ]
    ordered = [score for _, scores_there in by_language(scores) for score in scores_there]
    return Table("Scores", [run.name for run in runs], blocks, basis=basis(ordered)) if blocks else None


def by_language(scores: Sequence[SharedScore]) -> list[tuple[str, list[SharedScore]]]:
    """(language name, its scores), English last: what was to be learned, then what was to be kept."""
    codes = sorted(dict.fromkeys(score.language for score in scores), key=lambda code: code == ENGLISH)
    return [(language_name(code), [score for score in scores if score.language == code]) for code in codes]


def language_name(code: str) -> str:
    return LANGUAGES[code].name if code in LANGUAGES else code


def cell(score: SharedScore, run: int) -> Cell:
    """One run's score as every table shows it."""
    entry = score.scores[run]
    bounds = entry["ci95"]
    return Cell(
        text=score.value(run),
        rank=score.ranks[run],
        marks=score.marks(run),
        remarks=remarks.marks(entry),
        # Of an average, what its parts are marked for.
        remarks_text="" if score.parts else remarks.words(entry),
        interval=" to ".join(show.number(score.metric, bound) for bound in bounds) if bounds else "",
        change=score.change(run)[0] if run else "",
        p=score.deciding_p(run) if run else None,
        better=score.better(run) if run else None,
    )


def notes(runs: Sequence[Run], scores: Sequence[SharedScore], left_out: Sequence[str]) -> list[str]:
    """What each number stands on, and what is missing."""
    lines = basis(sorted(scores, key=lambda score: score.language == ENGLISH))
    comparable = [score for score in scores if not score.mismatch]
    few = [score for score in comparable if score.has_few_items]
    untested = [score for score in comparable if not score.has_few_items and None in score.statistics]
    if few and len(runs) > 1:
        lines.append(f"no p-value, of fewer than {resampling.MIN_ITEMS} items: {_names(few)}")
    if untested and len(runs) > 1:
        lines.append(f"no p-value, as predictions/ is not there or does not give the score: {_names(untested)}")
    if left_out:
        lines.append(f"not in every run, left out: {', '.join(left_out)}")
    return lines


def remark_notes(runs: Sequence[Run], scores: Sequence[SharedScore]) -> list[str]:
    """What the raised letters behind the scores mean, and how many answers of which system they stand for."""
    lines = []
    for kind in remarks.KINDS:
        systems = []
        for i, run in enumerate(runs):
            # The scores of a part have its answers in common.
            parts = {
                f"{show.task(score.task)} {score.direction}": remarks.share(score.scores[i], kind)
                for score in scores
                if kind in score.scores[i].get("remarks", {})
            }
            if parts:
                systems.append(f"{run.name} {', '.join(f'{part} {share}' for part, share in parts.items())}")
        if systems:
            lines.append(f"{remarks.mark(kind)} {remarks.MEANINGS[kind]}: {'; '.join(systems)}")
    return lines


def basis(scores: Sequence[SharedScore]) -> list[str]:
    """What the scores stand on, n and signature; scores that share them stand on one line."""
    lines: dict[str, list[SharedScore]] = {}
    for score in scores:
        each = dict.fromkeys(f"n {entry['n']}, {entry['signature']}" for entry in score.scores)
        line = " against ".join(each)
        if score.mismatch:
            line += f" ({score.mismatch}: not comparable)"
        elif score.common:
            line += f" ({score.common})"
        lines.setdefault(line, []).append(score)
    return [f"{_names(sharing, scores)}: {line}" for line, sharing in lines.items()]


def _names(scores: Sequence[SharedScore], among: Sequence[SharedScore] = ()) -> str:
    """ "MKQA F1 dan, fin; XL-SUM ROUGE-1 ind"; of more than a few languages, "MKQA F1" where it is all of `among`."""
    names: dict[str, dict[str, None]] = {}
    for score in scores:
        names.setdefault(score.name, {})[score.direction] = None
    texts = []
    for name, directions in names.items():
        is_all = {score.direction for score in among if score.name == name} == set(directions)
        texts.append(name if is_all and len(directions) > _FEW else f"{name} {', '.join(directions)}")
    return "; ".join(texts)
