"""The scores that every run has, compared on the items that every run answered.

All intervals and p-values are resampling.py's; here is decided between what they are computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from sdrrl_eval import remarks, resampling, show
from sdrrl_eval.compare import rescoring
from sdrrl_eval.compare.runs import ENGLISH, Key, Run, predictions, stem
from sdrrl_eval.compare.tables import ranks
from sdrrl_eval.resampling import Array, Statistics
from sdrrl_factory.errors import UserError

# The blocks of the paper's tables.
SIDES = {
    "target": "target languages",
    "english": "English, by the language taught",
    "to_english": "X → English",
    "from_english": "English → X",
}


@dataclass(frozen=True)
class SharedScore:
    """One score in every run, the base's first; or the average of several over languages.

    Attributes:
        scores: each run's entry of results.json, of the compared items alone.
        statistics: what each run's score is computed from, or None where its predictions do not give the score.
        mismatch: why the runs' numbers do not compare; None where they do.
        taught: the language that the checkpoints of a score in English were taught, where they are one a language.
        common: which items were compared, where not every run has the same.
        items: the keys of the items in `predictions`.
        parts: what it is the average of.
        corrected: each p-value of the comparison -> its corrected one.
    """

    scores: list[dict]
    statistics: list[Statistics | None]
    mismatch: str | None = None
    taught: str | None = None
    common: str | None = None
    items: tuple = ()
    parts: tuple["SharedScore", ...] = ()
    corrected: dict[float, float] | None = None
    # What was computed once, by the two runs.
    _p_values: dict[tuple[int, int], float] = field(default_factory=dict, repr=False, compare=False)
    _swapped: dict[tuple[int, int], Array] = field(default_factory=dict, repr=False, compare=False)

    @property
    def task(self) -> str:
        return self.scores[0]["task"]

    @property
    def metric(self) -> str:
        return self.scores[0]["metric"]

    @property
    def label(self) -> str:
        return show.label(self.task, self.metric)

    @property
    def name(self) -> str:
        """The label without its arrow."""
        return self.label.rpartition(" ")[0]

    @property
    def direction(self) -> str:
        return show.direction(self.scores[0])

    @property
    def language(self) -> str:
        """The language the score tells of; a translation tells of its other side than English."""
        source, target = self.scores[0]["source_lang"], self.scores[0]["target_lang"]
        return source if target == ENGLISH and source else target

    @property
    def side(self) -> str:
        """Which of the paper's blocks it belongs to: a key of SIDES."""
        if self.scores[0]["source_lang"]:
            return "to_english" if self.scores[0]["target_lang"] == ENGLISH else "from_english"
        return "english" if self.language == ENGLISH else "target"

    def value(self, run: int) -> str:
        return show.number(self.metric, self.scores[run]["value"])

    @cached_property
    def ranks(self) -> list[int]:
        """1 for the best run's value as it is shown, 2 for the second best of three or more, else 0."""
        if self.mismatch:
            return [0] * len(self.scores)
        shown = [self.value(run) for run in range(len(self.scores))]
        return ranks([score["value"] for score in self.scores], shown, show.lower_is_better(self.metric))

    def change(self, run: int) -> tuple[str, str]:
        """(text, "better" | "worse" | "same") of a run against the base."""
        if self.mismatch:
            return "not comparable", "same"
        return show.change(self.metric, self.scores[0]["value"], self.scores[run]["value"])

    def better(self, run: int) -> bool | None:
        """Whether the run is better or worse than the base; None where the difference is not significant."""
        verdict = self.change(run)[1]
        if verdict == "same" or not self.is_significant(run):
            return None
        return verdict == "better"

    # --- tests

    @property
    def has_few_items(self) -> bool:
        """Whether the items are too few for any p-value: all of them in one system's favour could be chance."""
        units = [
            len(statistics.items) for statistics in self.statistics if statistics
        ]  # passages, where they share one
        return min([self.scores[0]["n"], *units]) < resampling.MIN_ITEMS

    @property
    def test(self) -> str | None:
        """The name of the test that its p-values are from; None where there are none."""
        if self.mismatch or self.has_few_items or None in self.statistics:
            return None
        known = [statistics for statistics in self.statistics if statistics]
        if not self.parts and all(statistics.rate and not statistics.has_groups for statistics in known):
            return "exact McNemar"
        return "approximate randomisation"

    def p(self, run: int, other: int = 0) -> float | None:
        """Two-sided, against the base or another run; None where it cannot be computed."""
        pair = (min(run, other), max(run, other))
        if self.mismatch or self.has_few_items or run == other or any(self.statistics[i] is None for i in pair):
            return None
        if pair not in self._p_values:
            self._p_values[pair] = self._compute_p(*pair)
        return self._p_values[pair]

    def _compute_p(self, run: int, other: int) -> float:
        if not self.parts:
            # Exact where the swaps of its items can be counted.
            p = resampling.exact_p(*self._pair(run, other))
            if p is not None:
                return p
        return resampling.random_p(self._difference(run, other), self._swapped_differences(run, other))

    def _pair(self, run: int, other: int) -> tuple[Statistics, Statistics]:
        one, two = self.statistics[run], self.statistics[other]
        assert one is not None and two is not None  # p() looked
        return one, two

    def _difference(self, run: int, other: int) -> float:
        """Of the scores before they were rounded."""
        if self.parts:
            return sum(part._difference(run, other) for part in self.parts) / len(self.parts)
        one, two = self._pair(run, other)
        return one.total() - two.total()

    def _swapped_differences(self, run: int, other: int) -> Array:
        """[permutations]: the same after each of the random swaps of items between the two runs."""
        if self.parts:
            # An item has one swap in all languages: an average's differences are the mean of its parts'.
            return sum(part._swapped_differences(run, other) for part in self.parts) / len(self.parts)
        if (run, other) not in self._swapped:
            self._swapped[run, other] = resampling.differences(*self._pair(run, other))
        return self._swapped[run, other]

    # --- marks

    def deciding_p(self, run: int, other: int = 0) -> float | None:
        """The p-value that decides, and that is shown: the corrected one if the comparison is corrected."""
        p = self.p(run, other)
        return p if p is None or self.corrected is None else self.corrected[p]

    def is_significant(self, run: int, other: int = 0) -> bool:
        p = self.deciding_p(run, other)
        return p is not None and p < resampling.LEVEL

    @property
    def best_and_second(self) -> list[tuple[int, int]]:
        """(the best run, a second best run) of three or more; none where several are the best."""
        if self.ranks.count(1) != 1:
            return []
        return [(self.ranks.index(1), run) for run, rank in enumerate(self.ranks) if rank == 2]

    @property
    def tests(self) -> list[float]:
        """The p-value of every pair of runs that a mark depends on."""
        pairs = {(0, run) for run in range(1, len(self.scores))}
        pairs |= {(min(pair), max(pair)) for pair in self.best_and_second}
        values = [self.p(*pair) for pair in sorted(pairs)]
        return [p for p in values if p is not None]

    def marks(self, run: int) -> str:
        """† differs significantly from the base; ‡ (of three or more runs) from the second best."""
        marks = "†" if self.is_significant(run) else ""
        seconds = [second for best, second in self.best_and_second if best == run]
        if seconds and all(self.is_significant(run, second) for second in seconds):
            marks += "‡"
        return marks

    def with_correction(self, corrected: dict[float, float]) -> "SharedScore":
        parts = tuple(part.with_correction(corrected) for part in self.parts)
        return replace(self, corrected=corrected, parts=parts)


def shared_scores(runs: Sequence[Run]) -> tuple[list[SharedScore], list[str]]:
    """(the scores that every run has, in the base's order; the names of those left out)."""
    keys = list(dict.fromkeys(key for run in runs for key in run.scores))
    # English by the language taught, where any system has it so; then not once more without.
    by_taught = {key[:4] for key in keys if key[4]}
    keys = [key for key in keys if key[4] or key[:4] not in by_taught]
    shared, left_out = [], []
    for key in keys:
        entries = [run.score(key) for run in runs]
        present = [entry for entry in entries if entry]
        if len(present) == len(runs):
            shared.append(_share(key, present))
        else:
            taught = f" ({key[4]})" if key[4] else ""
            name = show.label(key[0], key[1]).rpartition(" ")[0]
            left_out.append(f"{name} {show.direction(present[0])}{taught}")
    if not shared:
        files = " and ".join(str(folder / "results.json") for run in runs for folder in run.folders)
        raise UserError("no score in common", "evaluate all with one recipe: `sdrrl eval RECIPE`", at=files)
    return shared, left_out


def _share(key: Key, entries: list[dict]) -> SharedScore:
    """One score of every run, on the items that every run has."""

    def unlike(mismatch: str) -> SharedScore:
        return SharedScore(entries, [None] * len(entries), mismatch, key[4])

    # 1. What has to be said of each; a results.json of an earlier version has no remarks, its predictions have.
    rows_of = [predictions(entry["folder"], stem(entry)) for entry in entries]
    entries = [_with_remarks(entry, [*rows.values()]) for entry, rows in zip(entries, rows_of, strict=True)]

    # 2. The same score at all: its settings, and the number of items where nothing else tells which they are.
    if len({_settings(entry) for entry in entries}) > 1:
        return unlike("signature differ")
    statistics = [
        rescoring.statistics(entry, list(rows.values()), list(rows)) if rows else None
        for entry, rows in zip(entries, rows_of, strict=True)
    ]
    kept = [rows for rows in rows_of if rows]
    common = [item for item in rows_of[0] if all(item in rows for rows in kept)]
    same_n = len({entry["n"] for entry in entries}) == 1
    same_items = same_n and all(len(rows) == len(common) for rows in kept)
    can_be_cut = None not in statistics and bool(common)

    # 3. Where the items differ, only the common ones are compared, if the predictions allow it.
    if not same_n and not can_be_cut:
        return unlike("n differ")
    if not same_items and kept and not can_be_cut:
        return unlike(f"items differ, {len(common)} in common")
    # Versions and tokenizers may differ only where the score was computed anew from the answers.
    if len({entry["signature"] for entry in entries}) > 1 and None in statistics:
        return unlike("signature differ")
    if None in statistics:
        return SharedScore(entries, statistics, None, key[4])
    # By its id alone, an item is the same in every language.
    names = tuple(name for name, _ in common)
    cut = [replace(one.only(common), items=names) for one in statistics if one]
    # Named by its first item, a group has one name in all languages.
    first_items: dict[str, str] = {}
    groups = [first_items.setdefault(rows_of[0][item].get("group") or item[0], item[0]) for item in common]
    if len(set(groups)) < len(groups):
        cut = [one.grouped(groups) for one in cut]
    # A loss a token compares only over the same tokens; its table's second column counts them.
    if "nats" in next(iter(rows_of[0].values())) and len({one.table[:, 1].tobytes() for one in cut}) > 1:
        return unlike("tokens differ")
    if same_items:
        return SharedScore(entries, [*cut], None, key[4], items=tuple(common))

    # 4. The scores of the common items alone.
    note = f"the {len(common)} items that all have, of {', '.join(str(entry['n']) for entry in entries)}"
    entries = [
        _with_remarks(_score_of(entry, one, len(common)), [rows[item] for item in common])
        for entry, one, rows in zip(entries, cut, rows_of, strict=True)
    ]
    return SharedScore(entries, [*cut], None, key[4], note, tuple(common))


def _settings(entry: dict) -> frozenset[str]:
    """A signature's parts that make another score; whether versions and tokens do is seen by computing it anew."""
    return frozenset(part for part in entry["signature"].split("|") if part.split(":")[0] not in ("version", "tokens"))


def _with_remarks(entry: dict, rows: Sequence[dict]) -> dict:
    """`entry` with the remarks on these items, its predictions; what was left out has no line there."""
    if len(rows) != entry["n"]:
        return entry
    left_out = {kind: n for kind, n in entry.get("remarks", {}).items() if kind == "left_out"}
    return entry | {"remarks": remarks.of_rows(rows, entry["signature"]) | left_out}


def _score_of(entry: dict, statistics: Statistics, items: int) -> dict:
    """`entry` with the value, n and interval of so many items."""
    bounds = [round(bound, 4) for bound in resampling.interval([statistics])]
    return entry | {"value": round(statistics.total(), 4), "n": items, "ci95": bounds}


def average_over_languages(shared: Sequence[SharedScore]) -> tuple[list[SharedScore], list[SharedScore]]:
    """(an average for each task, metric and side that stands in two languages or more; the scores that have none).

    Those of one task and the same languages come one after the other: they make one table.
    """
    by_side: dict[tuple[str, str, str], dict[str, SharedScore]] = {}
    for score in shared:
        by_side.setdefault((score.task, score.metric, score.side), {})[score.taught or score.language] = score
    averages: dict[tuple[str, ...], list[SharedScore]] = {}
    single: list[SharedScore] = []
    for (task, _, _), by_language in by_side.items():
        if len(by_language) > 1:
            averages.setdefault((task, *by_language), []).append(average(list(by_language.values())))
        else:
            single += by_language.values()
    return [score for group in averages.values() for score in group], single


def average(parts: Sequence[SharedScore]) -> SharedScore:
    """The mean over languages; parallel items, which have one name, are swapped and resampled together."""
    scores, statistics = [], []
    for run, first in enumerate(parts[0].scores):
        of_parts = [part.statistics[run] for part in parts]
        known = [one for one in of_parts if one]
        bounds = [*resampling.interval(known)] if len(known) == len(parts) else None
        value = sum(part.scores[run]["value"] for part in parts) / len(parts)
        fewest = min(part.scores[run]["n"] for part in parts)
        counts = remarks.total([part.scores[run] for part in parts])
        scores.append(first | {"value": value, "ci95": bounds, "n": fewest, "remarks": counts})
        # Only whether they are there is asked of an average's; its p-values are computed from its parts'.
        statistics.append(of_parts[0] if len(known) == len(parts) else None)
    mismatch = next((part.mismatch for part in parts if part.mismatch), None)
    common = "the items that all have" if any(part.common for part in parts) else None
    return SharedScore(scores, statistics, mismatch, None, common, parts=tuple(parts))
