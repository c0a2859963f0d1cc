"""Sets evaluations side by side: a table on the terminal, and report.html."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from sdrrl_eval import report, show
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import atomic_write, read_jsonl, read_text
from sdrrl_factory.languages import LANGUAGES

_SAMPLES = 10
_SCORE_TYPES = {"task": str, "metric": str, "target_lang": str, "n": int, "signature": str}


@dataclass(frozen=True)
class Run:
    """One evaluation folder; `scores` by (task, metric, source_lang, target_lang)."""

    name: str
    folder: Path
    model: str
    scores: dict[tuple, dict]


@dataclass(frozen=True)
class Row:
    """One score in every run, the base's first. `mismatch` says why the runs' numbers do not compare, if so."""

    scores: list[dict]
    mismatch: str | None

    @property
    def metric(self) -> str:
        return self.scores[0]["metric"]

    @property
    def language(self) -> str:
        """The language the row tells of; a translation tells of its other side than English."""
        source, target = self.scores[0]["source_lang"], self.scores[0]["target_lang"]
        return source if target == "eng" and source else target

    @property
    def label(self) -> str:
        return show.label(self.scores[0]["task"], self.metric)

    def value(self, run: int) -> str:
        return show.number(self.metric, self.scores[run]["value"])

    def best(self) -> set[int]:
        """Which runs have the best value as it is shown; none when all are equal."""
        shown = [self.value(i) for i in range(len(self.scores))]
        if self.mismatch or len(set(shown)) == 1:
            return set()
        pick = min if show.lower_is_better(self.metric) else max
        top = shown[pick(range(len(shown)), key=lambda i: self.scores[i]["value"])]
        return {i for i, text in enumerate(shown) if text == top}

    def change(self, run: int) -> tuple[str, str]:
        """(text, "better" | "worse" | "same") of a run against the base."""
        if self.mismatch:
            return "not comparable", "same"
        return show.change(self.metric, self.scores[0]["value"], self.scores[run]["value"])


def compare(run_dirs: list[str], train_log: str | None = None, output: str | None = None) -> str:
    """Print the table of two or more evaluation folders, the first being the base; returns the path of the report.

    Args:
        train_log: a LLaMA-Factory trainer_log.jsonl; its per-subset losses are drawn into the report.
        output: the report's path; None is report.html in the last folder.
    """
    if len(run_dirs) < 2:
        raise UserError("compare: fewer than two evaluation folders; name the base's first, then the others")
    runs = [_read_run(folder, name) for folder, name in zip(run_dirs, _names(run_dirs), strict=True)]
    groups = _groups(_rows(runs))
    curves = read_curves(train_log) if train_log else {}
    page = report.page(runs, groups, _notes(groups), curves, _samples(runs, groups))
    target = Path(output) if output else Path(run_dirs[-1]) / "report.html"
    try:
        atomic_write(target, page)
    except OSError as err:
        raise UserError(f"{target}: cannot be written ({err.strerror}); name another file") from None
    _print(runs, groups)
    print(f"report: {target}")
    return str(target)


def _names(run_dirs: list[str]) -> list[str]:
    """The folders' names; the paths as given where names clash."""
    names = [Path(folder).resolve().name for folder in run_dirs]
    return names if len(set(names)) == len(names) else list(run_dirs)


def _read_run(folder: str, name: str) -> Run:
    path = Path(folder) / "results.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; write it with `sdrrl eval RECIPE output_dir={folder}`")

    def wrong(what: str) -> UserError:
        return UserError(f"{path}: {what}; write it anew with `sdrrl eval RECIPE output_dir={folder}`")

    try:
        results = json.loads(read_text(path))
    except ValueError as err:
        raise wrong(f"not JSON ({err})") from None
    if not isinstance(results, dict) or not isinstance(results.get("scores"), list):
        raise wrong("no list of scores")
    scores = {}
    for i, score in enumerate(results["scores"]):
        bad = _bad_key(score)
        if bad:
            raise wrong(f"scores[{i}]: {bad} is missing or malformed")
        scores[score["task"], score["metric"], score["source_lang"], score["target_lang"]] = score
    return Run(name, Path(folder), str(results.get("model")), scores)


def _bad_key(score) -> str | None:
    if not isinstance(score, dict):
        return "the entry"
    for key, kind in _SCORE_TYPES.items():
        if not isinstance(score.get(key), kind):
            return key
    if not isinstance(score.get("source_lang", 0), str | None):
        return "source_lang"
    if not _finite(score.get("value")):
        return "value"
    ci95 = score.get("ci95")
    if not (isinstance(ci95, list) and len(ci95) == 2 and all(map(_finite, ci95))):
        return "ci95"
    return None


def _finite(value) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _rows(runs: list[Run]) -> list[Row]:
    """The scores that every run has, in the base's order."""
    rows = []
    for key in runs[0].scores:
        if all(key in run.scores for run in runs):
            scores = [run.scores[key] for run in runs]
            differ = [name for name in ("n", "signature") if len({s[name] for s in scores}) > 1]
            rows.append(Row(scores, f"{' and '.join(differ)} differ" if differ else None))
    if not rows:
        files = " and ".join(str(run.folder / "results.json") for run in runs)
        raise UserError(f"{files}: no score in common; evaluate all with one recipe: `sdrrl eval RECIPE`")
    return rows


def _groups(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """(language name, its rows), English last: what was to be learned, then what was to be kept."""
    codes = sorted(dict.fromkeys(row.language for row in rows), key=lambda code: code == "eng")
    return [(_language_name(code), [row for row in rows if row.language == code]) for code in codes]


def _language_name(code: str) -> str:
    return LANGUAGES[code].name if code in LANGUAGES else code


def _notes(groups: list[tuple[str, list[Row]]]) -> list[str]:
    """What each number stands on: n and signature, rows that share them on one line."""
    lines: dict[str, list[str]] = {}
    for _, rows in groups:
        for row in rows:
            names = lines.setdefault(_basis(row), [])
            names.append(f"{row.label[:-2]} {show.direction(row.scores[0])}")
    return [f"{', '.join(names)}: {basis}" for basis, names in lines.items()]


def _basis(row: Row) -> str:
    each = dict.fromkeys(f"n {s['n']}, {s['signature']}" for s in row.scores)
    return " against ".join(each) + (f" ({row.mismatch}: not comparable)" if row.mismatch else "")


def read_curves(train_log: str) -> dict[str, list[tuple[int, float]]]:
    """Per subset (LL, TL, ...) its (step, loss) points; the total ("all") where the log has no subsets.

    A step logged twice (a resumed run) keeps its last loss.
    """
    points: dict[str, dict[int, float]] = {}
    for number, row in read_jsonl(train_log):
        losses = {m[1] or "all": row[key] for key in row if (m := re.fullmatch(r"loss(?:_([A-Za-z]\w*))?", key))}
        for name, loss in losses.items():
            if not isinstance(row.get("current_steps"), int) or not _finite(loss):
                raise UserError(f"{train_log}:{number}: current_steps or a loss is no number; remove the line")
            points.setdefault(name, {})[row["current_steps"]] = float(loss)
    if not points:
        raise UserError(f"{train_log}: no line with a loss; name the trainer_log.jsonl in the training's output_dir")
    if len(points) > 1:
        points.pop("all", None)
    return {name: sorted(curve.items()) for name, curve in points.items()}


def _samples(runs: list[Run], groups: list[tuple[str, list[Row]]]) -> list[dict]:
    """The first items that every run answered, taken in turn from each file: nobody picks the pretty ones."""
    names = dict.fromkeys(
        (s["task"], s["source_lang"], s["target_lang"])
        for _, rows in groups
        for s in (row.scores[0] for row in rows)
        if s["task"] in ("instructions", "translation")
    )
    files = [_common_items(runs, *name) for name in names]
    longest = max(map(len, files), default=0)
    return [items[i] for i in range(longest) for items in files if i < len(items)][:_SAMPLES]


def _common_items(runs: list[Run], task: str, source: str | None, target: str) -> list[dict]:
    """Up to ten items of one predictions file: question, reference, and each run's answer."""
    stem = f"{task}.{source}-{target}" if source else f"{task}.{target}"
    answers = [_predictions(run, stem) for run in runs]
    flags = [_predictions(run, f"off_target.{target}") if task == "instructions" else {} for run in runs]
    shared = [key for key in answers[0] if all(key in given for given in answers)]
    return [
        {
            "task": f"{task}, {show.direction({'source_lang': source, 'target_lang': target})}",
            "question": answers[0][key].get("prompt"),
            "reference": answers[0][key].get("reference"),
            "answers": [given[key] | flagged.get(key, {}) for given, flagged in zip(answers, flags, strict=True)],
        }
        for key in shared[:_SAMPLES]
    ]


def _predictions(run: Run, stem: str) -> dict[tuple[str, str], dict]:
    """Rows by (id, prompt); none where the file was not kept."""
    path = run.folder / "predictions" / f"{stem}.jsonl"
    return {(str(row.get("id")), str(row.get("prompt"))): row for _, row in read_jsonl(path)} if path.is_file() else {}


def _print(runs: list[Run], groups: list[tuple[str, list[Row]]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("score", no_wrap=True)
    table.add_column("language", no_wrap=True)
    for i, run in enumerate(runs):
        table.add_column(Text(run.name), justify="right")
        if i:
            table.add_column("change")
    colours = {"better": "green", "worse": "red", "same": "dim"}
    for name, rows in groups:
        table.add_row(Text(name, style="bold"))
        for row in rows:
            best = row.best()
            cells = [Text(f"  {row.label}"), Text(show.direction(row.scores[0]))]
            for i in range(len(runs)):
                cells.append(Text(row.value(i), style="bold" if i in best else ""))
                if i:
                    text, verdict = row.change(i)
                    cells.append(Text(text, style=colours[verdict]))
            table.add_row(*cells)
    console = show.console()
    console.print(table)
    console.print()
    for line in _notes(groups):
        console.print(Text(line, style="dim"), soft_wrap=True)
