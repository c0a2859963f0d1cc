"""Finished evaluations as `sdrrl compare` reads them: systems, and each score in all of them."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from sdrrl_eval import show, significance
from sdrrl_eval.overlap import DROPPED
from sdrrl_eval.tables import Cell, ranks
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import read_jsonl, read_text

_SCORE_TYPES = {"task": str, "metric": str, "target_lang": str, "n": int, "signature": str}
ENGLISH = "eng"


@dataclass(frozen=True)
class Run:
    """A system: one evaluation folder or, of one checkpoint a language as in the paper, several.

    scores: by (task, metric, source_lang, target_lang, of); each score has its "folder". `of` is None but for what a
    system of several folders says of English: there it is the language that folder's checkpoint was taught.
    """

    name: str
    folders: list[Path]
    model: str
    scores: dict[tuple, dict]


@dataclass(frozen=True)
class Row:
    """One score in every run, the base's first. `mismatch` says why the runs' numbers do not compare, if so.

    resampled: per run its score on each bootstrap resample, or None where its predictions do not give the score.
    """

    scores: list[dict]
    resampled: list
    mismatch: str | None = None
    of: str | None = None

    @property
    def metric(self) -> str:
        return self.scores[0]["metric"]

    @property
    def language(self) -> str:
        """The language the row tells of; a translation tells of its other side than English."""
        source, target = self.scores[0]["source_lang"], self.scores[0]["target_lang"]
        return source if target == ENGLISH and source else target

    @property
    def label(self) -> str:
        return show.label(self.scores[0]["task"], self.metric)

    def value(self, run: int) -> str:
        return show.number(self.metric, self.scores[run]["value"])

    @cached_property
    def ranks(self) -> list[int]:
        """1 for the best run's value as it is shown, 2 for the second best of three or more, else 0."""
        if self.mismatch:
            return [0] * len(self.scores)
        values = [score["value"] for score in self.scores]
        return ranks(values, [self.value(i) for i in range(len(values))], show.lower_is_better(self.metric))

    def change(self, run: int) -> tuple[str, str]:
        """(text, "better" | "worse" | "same") of a run against the base."""
        if self.mismatch:
            return "not comparable", "same"
        return show.change(self.metric, self.scores[0]["value"], self.scores[run]["value"])

    def p(self, run: int, other: int = 0) -> float | None:
        """Of the paired bootstrap against the base, or another run; None where there is too little to resample."""
        a, b = self.resampled[run], self.resampled[other]
        if self.mismatch or self.few or a is None or b is None or run == other:
            return None
        value, base = self.scores[run]["value"], self.scores[other]["value"]
        return significance.p_value(value, a, base, b) if value != base else 1.0

    @property
    def few(self) -> bool:
        """Whether the items are too few for any p-value: all of them in one system's favour could be chance."""
        return self.scores[0]["n"] < significance.MIN_ITEMS

    def marks(self, run: int) -> str:
        """† surely not the base's value; ‡ (of three or more runs) surely not the second best's."""
        marks = "†" if _below(self.p(run)) else ""
        if self.ranks[run] == 1 and self.ranks.count(1) == 1 and 2 in self.ranks:
            seconds = [i for i, rank in enumerate(self.ranks) if rank == 2]
            marks += "‡" if all(_below(self.p(run, i)) for i in seconds) else ""
        return marks

    def cell(self, run: int) -> Cell:
        verdict = self.change(run)[1] if run else "same"
        better = {"better": True, "worse": False}.get(verdict)
        return Cell(self.value(run), self.ranks[run], self.marks(run), self.more(run), better)

    def more(self, run: int) -> str:
        """ "95% 33.1 to 35.0; against the base +1.2, p 0.001"."""
        bounds, p = self.scores[run]["ci95"], self.p(run)
        words = [f"95% {' to '.join(show.number(self.metric, bound) for bound in bounds)}"] if bounds else []
        words += [f"against the base {self.change(run)[0]}" + (f", p {p:.3f}" if p is not None else "")] * bool(run)
        return "; ".join(words)


def _below(p: float | None) -> bool:
    return p is not None and p < significance.LEVEL


def read_run(text: str) -> Run:
    """A system as it is named on the command line: FOLDER, or NAME=FOLDER, or NAME=FOLDER,FOLDER,..."""
    name, folders = None, text
    if not Path(text).exists() and "=" in text:
        name, folders = text.split("=", 1)
    found = [folders] if Path(folders).exists() else folders.split(",")
    read = [_read(folder) for folder in found]
    models = ", ".join(dict.fromkeys(str(results.get("model")) for results in read))
    scores: dict[tuple, dict] = {}
    for folder, results in zip(found, read, strict=True):
        taught = {s["target_lang"] for s in results["scores"]} - {ENGLISH}
        for score in results["scores"]:
            if DROPPED in score["signature"]:  # beside the score of all items, which is the one to compare
                continue
            alone = score["target_lang"] == ENGLISH and not score["source_lang"] and len(found) > 1
            of = next(iter(taught)) if alone and len(taught) == 1 else None
            key = (score["task"], score["metric"], score["source_lang"], score["target_lang"], of)
            if key in scores and scores[key]["folder"] != Path(folder):
                raise UserError(
                    f"{folder}: {show.label(*key[:2])} {show.direction(score)} stands in {scores[key]['folder']} too; "
                    "one folder a language in a system"
                )
            scores[key] = score | {"folder": Path(folder)}
    return Run(name or Path(found[0]).resolve().name, [Path(folder) for folder in found], models, scores)


def _read(folder: str) -> dict:
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
    for i, score in enumerate(results["scores"]):
        bad = _bad_key(score)
        if bad:
            raise wrong(f"scores[{i}]: {bad} is missing or malformed")
    return results


def _bad_key(score) -> str | None:
    if not isinstance(score, dict):
        return "the entry"
    for key, kind in _SCORE_TYPES.items():
        if not isinstance(score.get(key), kind):
            return key
    if not isinstance(score.get("source_lang", 0), str | None):
        return "source_lang"
    if not finite(score.get("value")):
        return "value"
    ci95 = score.get("ci95")
    if not (isinstance(ci95, list) and len(ci95) == 2 and all(map(finite, ci95))):
        return "ci95"
    return None


def finite(value) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def score_of(run: Run, key: tuple) -> dict | None:
    """A system of one folder says one thing of English, whatever the column, as SFT in the paper's tables."""
    return run.scores.get(key) or run.scores.get((*key[:4], None))


def rows(runs: Sequence[Run]) -> tuple[list[Row], list[str]]:
    """(the scores that every run has, in the base's order; what was left out, in words)."""
    keys = list(dict.fromkeys(key for run in runs for key in run.scores))
    # English by the language of the checkpoint, where any system has it so; then not once more without.
    split = {key[:4] for key in keys if key[4]}
    keys = [key for key in keys if key[4] or key[:4] not in split]
    found, left_out = [], []
    for key in keys:
        scores = [score_of(run, key) for run in runs]
        if all(scores):
            found.append(_row(scores, key[4]))
        else:
            first = next(filter(None, scores))
            left_out.append(f"{show.label(*key[:2])[:-2]} {show.direction(first)}" + (f" ({key[4]})" if key[4] else ""))
    if not found:
        files = " and ".join(str(folder / "results.json") for run in runs for folder in run.folders)
        raise UserError(f"{files}: no score in common; evaluate all with one recipe: `sdrrl eval RECIPE`")
    return found, left_out


def _row(scores: list[dict], of: str | None) -> Row:
    differ = [name for name in ("n", "signature") if len({s[name] for s in scores}) > 1]
    if differ:
        return Row(scores, [None] * len(scores), f"{' and '.join(differ)} differ", of)
    given = [predictions(score["folder"], stem(score)) for score in scores]
    if any(given[0].keys() != other.keys() for other in given if given[0] and other):
        common = len(set.intersection(*(set(other) for other in given)))
        return Row(scores, [None] * len(scores), f"items differ, {common} in common", of)
    order = given[0] or next(filter(None, given), {})
    found = [
        significance.statistics(score, [items[key] for key in order]) if items else None
        for score, items in zip(scores, given, strict=True)
    ]
    return Row(scores, [statistics.resampled() if statistics else None for statistics in found], None, of)


def average(rows: Sequence[Row]) -> Row:
    """The mean over languages. Resamples are drawn alike in all of them, so that parallel items stay together."""
    import numpy as np

    scores, resampled = [], []
    for i in range(len(rows[0].scores)):
        values = [row.scores[i]["value"] for row in rows]
        vectors = [row.resampled[i] for row in rows]
        mean = None if any(v is None for v in vectors) else np.mean(vectors, axis=0)
        value = sum(values) / len(values)
        ci95 = None if mean is None else [float(b) for b in np.percentile(mean, [2.5, 97.5])]
        fewest = min(row.scores[i]["n"] for row in rows)
        scores.append(rows[0].scores[i] | {"value": value, "ci95": ci95, "n": fewest})
        resampled.append(mean)
    return Row(scores, resampled, next((row.mismatch for row in rows if row.mismatch), None))


def stem(score: dict) -> str:
    """The file in predictions/ that a score comes from."""
    source, target = score["source_lang"], score["target_lang"]
    return f"{score['task']}.{source}-{target}" if source else f"{score['task']}.{target}"


@lru_cache(maxsize=1024)
def predictions(folder: Path, name: str) -> dict[tuple[str, str], dict]:
    """Rows by (id, prompt); none where the file was not kept."""
    path = folder / "predictions" / f"{name}.jsonl"
    return {(str(row.get("id")), str(row.get("prompt"))): row for _, row in read_jsonl(path)} if path.is_file() else {}
