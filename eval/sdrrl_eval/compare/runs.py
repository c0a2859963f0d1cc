"""Finished evaluations as `sdrrl compare` reads them: systems, and each score in all of them."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

from sdrrl_eval import resampling, show
from sdrrl_eval.compare import rescoring
from sdrrl_eval.compare.tables import Cell, ranks
from sdrrl_eval.measure.overlap import DROPPED
from sdrrl_eval.resampling import Statistics
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import read_text
from sdrrl_factory.rows import read_rows

_SCORE_TYPES = {"task": str, "metric": str, "target_lang": str, "n": int, "signature": str}
ENGLISH = "eng"


@dataclass(frozen=True)
class Run:
    """A system: one evaluation folder or, of one checkpoint a language as in the paper, several.

    scores: by (task, metric, source_lang, target_lang, of); each score has its "folder". `of` is None but for what a
    system of several folders says of English: there it is the language that folder's checkpoint was taught.
    results: what each folder's results.json holds.
    """

    name: str
    folders: list[Path]
    model: str
    scores: dict[tuple, dict]
    results: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """One score in every run, the base's first. `mismatch` says why the runs' numbers do not compare, if so.

    statistics: what each run's score is computed from, or None where its predictions do not give the score.
    common: says which items were compared, where not every run has the same; the scores are then those of these items.
    items: the keys of the items in `predictions`.
    parts: the rows that this one is the average of. corrected: each p-value of the comparison -> its corrected one.
    """

    scores: list[dict]
    statistics: list[Statistics | None]
    mismatch: str | None = None
    of: str | None = None
    common: str | None = None
    items: tuple = ()
    parts: tuple["Row", ...] = ()
    corrected: dict[float, float] | None = None
    _known: dict = field(default_factory=dict, repr=False, compare=False)

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

    def colour(self, run: int) -> str:
        """ "better" or "worse" where the run differs significantly from the base, else "same"."""
        return self.change(run)[1] if _significant(self.shown_p(run)) else "same"

    @property
    def few(self) -> bool:
        """Whether the items are too few for any p-value: all of them in one system's favour could be chance."""
        return self.scores[0]["n"] < resampling.MIN_ITEMS

    def p(self, run: int, other: int = 0) -> float | None:
        """Two-sided, against the base or another run; None where it cannot be computed."""
        pair = (min(run, other), max(run, other))
        if self.mismatch or self.few or run == other or any(self.statistics[i] is None for i in pair):
            return None
        if ("p", pair) not in self._known:
            self._known["p", pair] = self._p(*pair)
        return self._known["p", pair]

    def _p(self, one: int, other: int) -> float:
        if self.parts:
            return resampling.random_p(self._gap(one, other), self._differences(one, other))
        exact = resampling.exact_p(self.statistics[one], self.statistics[other])
        return resampling.random_p(self._gap(one, other), self._differences(one, other)) if exact is None else exact

    def _gap(self, one: int, other: int) -> float:
        """Of the scores before they were rounded."""
        if self.parts:
            return sum(part._gap(one, other) for part in self.parts) / len(self.parts)
        return self.statistics[one].total() - self.statistics[other].total()

    def _differences(self, one: int, other: int):
        if self.parts:
            return sum(part._differences(one, other) for part in self.parts) / len(self.parts)
        if ("swapped", one, other) not in self._known:
            swapped = resampling.differences(self.statistics[one], self.statistics[other])
            self._known["swapped", one, other] = swapped
        return self._known["swapped", one, other]

    @property
    def test(self) -> str | None:
        """The name of the test that its p-values are from."""
        if self.mismatch or self.few or None in self.statistics:
            return None
        right = not self.parts and all(statistics.rate for statistics in self.statistics)
        return "exact McNemar" if right else "approximate randomisation"

    @cached_property
    def tests(self) -> dict[tuple[int, int], float]:
        """The p-value of every pair of runs that a mark depends on."""
        pairs = [(0, i) for i in range(1, len(self.scores))]
        pairs += [(min(b, s), max(b, s)) for b, s in self._best_and_second()]
        return {pair: p for pair in pairs if (p := self.p(*pair)) is not None}

    def _best_and_second(self) -> list[tuple[int, int]]:
        if self.ranks.count(1) != 1:
            return []
        return [(self.ranks.index(1), i) for i, rank in enumerate(self.ranks) if rank == 2]

    def shown_p(self, run: int, other: int = 0) -> float | None:
        """The p-value that decides, and that is shown: the corrected one if the comparison is."""
        p = self.p(run, other)
        return p if p is None or self.corrected is None else self.corrected[p]

    def marks(self, run: int) -> str:
        """† differs significantly from the base; ‡ (of three or more runs) from the second best."""
        marks = "†" if _significant(self.shown_p(run)) else ""
        seconds = [pair for pair in self._best_and_second() if pair[0] == run]
        return marks + "‡" * bool(seconds and all(_significant(self.shown_p(*pair)) for pair in seconds))

    def cell(self, run: int) -> Cell:
        better = {"better": True, "worse": False}.get(self.colour(run)) if run else None
        return Cell(self.value(run), self.ranks[run], self.marks(run), self.more(run), better)

    def more(self, run: int) -> str:
        """ "95% 33.1 to 35.0; against the base +1.2, p 0.001"."""
        bounds, p = self.scores[run]["ci95"], self.shown_p(run)
        words = [f"95% {' to '.join(show.number(self.metric, bound) for bound in bounds)}"] if bounds else []
        words += [f"against the base {self.change(run)[0]}" + (f", p {p:.3f}" if p is not None else "")] * bool(run)
        return "; ".join(words)


def _significant(p: float | None) -> bool:
    return p is not None and p < resampling.LEVEL


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
    return Run(name or Path(found[0]).resolve().name, [Path(folder) for folder in found], models, scores, read)


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
    """Compared on the items that every run has."""
    none = [None] * len(scores)
    if len({_settings(score) for score in scores}) > 1:
        return Row(scores, none, "signature differ", of)
    given = [predictions(score["folder"], stem(score)) for score in scores]
    found = [
        rescoring.statistics(score, [*items.values()], [*items]) if items else None
        for score, items in zip(scores, given, strict=True)
    ]
    there = [items for items in given if items]
    common = [item for item in given[0] if all(item in items for items in there)] if given[0] else []
    whole = len({score["n"] for score in scores}) == 1 and all(len(items) == len(common) for items in there)
    if not whole and len({score["n"] for score in scores}) > 1 and (None in found or not common):
        return Row(scores, none, "n differ", of)
    if not whole and there and (None in found or not common):
        return Row(scores, none, f"items differ, {len(common)} in common", of)
    if len({score["signature"] for score in scores}) > 1 and None in found:
        return Row(scores, none, "signature differ", of)
    if None in found:
        return Row(scores, found, None, of)
    # By its id alone, an item is the same in every language.
    names = tuple(name for name, _ in common)
    found = [replace(statistics.only(common), items=names) for statistics in found]
    if "nats" in next(iter(given[0].values())) and len({statistics.table[:, 1].tobytes() for statistics in found}) > 1:
        return Row(scores, none, "tokens differ", of)
    if whole:
        return Row(scores, found, None, of, items=tuple(common))
    said = f"the {len(common)} items that all have, of {', '.join(str(score['n']) for score in scores)}"
    return Row([_anew(*pair) for pair in zip(scores, found, strict=True)], found, None, of, said, tuple(common))


def _settings(score: dict) -> frozenset[str]:
    """A signature's parts that make another score; whether versions and tokens do is seen by computing it anew."""
    return frozenset(part for part in score["signature"].split("|") if part.split(":")[0] not in ("version", "tokens"))


def _anew(score: dict, statistics: Statistics) -> dict:
    """The score of these items alone."""
    bounds = [round(bound, 4) for bound in resampling.interval([statistics])]
    return score | {"value": round(statistics.total(), 4), "n": len(statistics.items), "ci95": bounds}


def average(rows: Sequence[Row]) -> Row:
    """The mean over languages; parallel items, which have one name, are swapped and resampled together."""
    scores = []
    for i in range(len(rows[0].scores)):
        parts = [row.statistics[i] for row in rows]
        bounds = None if None in parts else [*resampling.interval(parts)]
        value = sum(row.scores[i]["value"] for row in rows) / len(rows)
        fewest = min(row.scores[i]["n"] for row in rows)
        scores.append(rows[0].scores[i] | {"value": value, "ci95": bounds, "n": fewest})
    known = [rows[0].statistics[i] if all(row.statistics[i] for row in rows) else None for i in range(len(scores))]
    mismatch = next((row.mismatch for row in rows if row.mismatch), None)
    common = "the items that all have" if any(row.common for row in rows) else None
    return Row(scores, known, mismatch, None, common, parts=tuple(rows))


def stem(score: dict) -> str:
    """The file in predictions/ that a score comes from."""
    source, target = score["source_lang"], score["target_lang"]
    return f"{score['task']}.{source}-{target}" if source else f"{score['task']}.{target}"


@lru_cache(maxsize=1024)
def predictions(folder: Path, name: str) -> dict[tuple[str, str], dict]:
    """Rows by their item: its id and what makes it the same in every run; none where the file was not kept.

    That is its reference, as the prompt around it may differ, or the prompt of an item without a reference.
    """
    path = folder / "predictions" / f"{name}.jsonl"
    if not path.is_file():
        return {}
    rows = [row.values for row in read_rows(path)]
    return {(str(row.get("id")), str(row.get("reference") or row.get("prompt"))): row for row in rows}
