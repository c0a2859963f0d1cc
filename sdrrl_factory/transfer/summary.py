"""What was made of the records, counted while they stream by: for the terminal, report.html and the dataset card.

Memory does not grow with rows. Nothing here depends on the order of the records: kept examples are those of the lowest
hash of (seed, id).
"""

import re
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from sdrrl_factory.files import sha256
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.log import say, show, warn
from sdrrl_factory.transfer import quality
from sdrrl_factory.transfer.recipe import PrepareConfig
from sdrrl_factory.transfer.sets import BASELINES, SETS, SIDES, sets_of

EXAMPLES, REJECTED_EXAMPLES, NATURAL_EXAMPLES = 20, 3, 3
# Score bins of 0.05; length bins at half octaves.
SCORE_BINS = 20
LENGTH_EDGES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
# Where a translation can be lost, in the order the filter looks.
STAGES = ("translated", "passed the rules", "above tau", "on target")
# Of the own answers that equation 4 draws, the share below which there is a warning: 40 of 100 records at its half.
_ENOUGH_OWN = 0.8
# More kinds than this are a server's or a library's messages; the rest are counted together.
_MAX_KINDS = 100


@dataclass
class SetCount:
    """Rows of one set; lengths are in words, or characters where the language has no spaces."""

    rows: int = 0
    asked: int = 0
    answered: int = 0
    asked_bins: list[int] = field(default_factory=lambda: [0] * (len(LENGTH_EDGES) + 1))
    answered_bins: list[int] = field(default_factory=lambda: [0] * (len(LENGTH_EDGES) + 1))


class Lowest:
    """The `size` items of the lowest keys, in the keys' order."""

    def __init__(self, size: int):
        self.size = size
        self._pairs: list[tuple[str, Any]] = []

    def offer(self, key: str, item: Any) -> None:
        if len(self._pairs) == self.size:
            if key >= self._pairs[-1][0]:
                return
            self._pairs.pop()
        insort(self._pairs, (key, item), key=itemgetter(0))

    @property
    def items(self) -> list:
        return [item for _, item in self._pairs]


class Summary:
    """One target language's. The pipeline sets the first four attributes; `add` and `add_natural` fill the rest."""

    def __init__(self, config: PrepareConfig, target: str):
        self.config, self.target = config, target
        self.left_out: Counter = Counter()  # on reading, by reason
        self.formats: list[str] = []
        self.resources: dict[str, str] = {}
        self.names: list[str] = []  # entries of dataset_info.json
        self.records = 0
        self.origins: Counter = Counter()
        self.finishes: Counter = Counter()
        self.sets = {row.name: SetCount() for row in sets_of(config.systems)}
        self.reasons: dict[str, Counter] = {side: Counter() for side in ("generation", *SIDES)}
        # Of each set the records it lacks rows of, each by the first of its reasons.
        self.set_reasons: dict[str, Counter] = {name: Counter() for name in self.sets}
        self.stage_reasons: dict[tuple[str, str], Counter] = {(s, t): Counter() for s in SIDES for t in STAGES}
        self.lost: dict[str, Counter] = {side: Counter() for side in SIDES}  # records by the first stage that lost them
        self.scores = {side: [0] * SCORE_BINS for side in SIDES}
        self.switched: dict[str, list[int]] = {}  # set -> [words, known, switched]
        self.translated: set[str] = set()  # the sides that were translated at all
        self.examples = Lowest(EXAMPLES)  # (record, its rows)
        self.rejected: dict[tuple[str, str], Lowest] = {}  # (side, reason) -> records
        self.natural = {"mt": Lowest(NATURAL_EXAMPLES), "comp": Lowest(NATURAL_EXAMPLES)}
        spaced = LANGUAGES[config.source_lang].spaced, LANGUAGES[target].spaced
        self._by_words = {name: tuple(spaced[is_target] for is_target in _in_target(name)) for name in self.sets}

    @property
    def title(self) -> str:
        return f"{self.config.name}_{self.target}"

    @property
    def threshold(self) -> float | None:
        """tau; None without a quality estimate."""
        return quality.threshold(self.config.quality)

    @property
    def has_translator(self) -> bool:
        """Whether anything was to be translated."""
        return self.config.translator.backend != "none"

    @property
    def own_share(self) -> float:
        """The share of the records whose answer is the model's own (equation 4)."""
        return self.origins["G"] / max(self.records, 1)

    @property
    def few_own_answers(self) -> str:
        """A warning where much of equation 4's share of own answers was lost, or ""."""
        drawn = 1 - self.config.sampling.keep_ground_truth
        if "LL" not in self.sets or not self.records or self.own_share >= _ENOUGH_OWN * drawn:
            return ""
        shares = f"warning: {self.own_share:.0%} own answers, where equation 4 draws {drawn:.0%}: "
        flawed = ranked(self.reasons["generation"])
        if not flawed:
            return f"{shares}so few records are drawn unevenly"
        asked = self.origins["G"] + sum(count for _, count in flawed)
        most = flawed[0][0]
        remedy = "another model or template"
        if most == "cut off":
            remedy = "raise longest_answer"
        elif most.startswith("error"):
            remedy = "see the server, run it again"
        return f"{shares}{in_words(flawed)} of {asked} asked: {remedy}"

    def add(self, record: dict, rows: dict[str, list[dict]]) -> None:
        """Count a finished record and the rows it gave (set -> its rows)."""
        key = sha256(f"{self.config.seed}\x00{record['id']}")
        self.records += 1
        self.origins[record["answer_origin"]] += 1
        if record.get("response_finish"):
            self.finishes[_bounded(self.finishes, _kind(record["response_finish"]))] += 1
        for subset, lines in rows.items():
            for row in lines:
                self._count(subset, row)
        for subset, counts in (record.get("switch_counts") or {}).items():
            total = self.switched.setdefault(subset, [0, 0, 0])
            for k in range(3):
                total[k] += counts[k]
        for side in SIDES:
            if f"{side}_ok" in record and self.has_translator:
                self.translated.add(side)
            score = record.get(f"{side}_qe")
            if score is not None:
                # A model's estimate may lie a little outside of 0 to 1.
                self.scores[side][max(0, min(int(score * SCORE_BINS), SCORE_BINS - 1))] += 1
        if record["reasons"]:
            self._reject(key, record, rows)
        self.examples.offer(key, (record, rows))

    def add_natural(self, subset: str, row: dict) -> None:
        """Count a row of D_mt or D_comp."""
        self._count(subset, row)
        self.natural[subset].offer(sha256(f"{self.config.seed}\x00{row['id']}"), row)

    def _count(self, subset: str, row: dict) -> None:
        count, (asked_words, answered_words) = self.sets[subset], self._by_words[subset]
        question = f"{row['instruction']} {row['input']}"
        asked = len(question.split()) if asked_words else len(question.strip())
        answered = len(row["output"].split()) if answered_words else len(row["output"].strip())
        count.rows += 1
        count.asked += asked
        count.answered += answered
        count.asked_bins[bisect_right(LENGTH_EDGES, asked)] += 1
        count.answered_bins[bisect_right(LENGTH_EDGES, answered)] += 1

    def _reject(self, key: str, record: dict, rows: dict[str, list[dict]]) -> None:
        first: dict[str, str] = {}
        first_reasons: dict[str, str] = {}
        for text in record["reasons"]:
            side, _, particulars = text.partition(": ")
            if side in SIDES and not self.has_translator:
                continue
            reason = _bounded(self.reasons[side], _kind(particulars))
            self.reasons[side][reason] += 1
            self.rejected.setdefault((side, reason), Lowest(REJECTED_EXAMPLES)).offer(key, record)
            if side in SIDES:
                stage = _stage(side, reason, record)
                self.stage_reasons[side, stage][reason] += 1
                first[side] = min(first.get(side, stage), stage, key=STAGES.index)
                first_reasons.setdefault(side, reason)
        # A side is lost once, at the earliest stage, however many reasons there are.
        for side, stage in first.items():
            self.lost[side][stage] += 1
        # So is a record of a set, however many sides were rejected.
        for name in self.sets:
            reasons = [first_reasons[side] for side in SETS[name].needs if side in first_reasons]
            if reasons and len(rows.get(name, [])) < len(SETS[name].forms):
                self.set_reasons[name][reasons[0]] += 1

    def funnel(self, side: str) -> list[tuple[str, int, list[tuple[str, int]]]]:
        """(stage, records left after it, what it lost by reason) of the translations of `side`.

        Without quality estimates there is no stage "above tau".
        """
        out, left = [], self.records
        for stage in STAGES:
            left -= self.lost[side][stage]
            reasons = ranked(self.stage_reasons[side, stage])
            if stage != "above tau" or (self.threshold is not None and (any(self.scores[side]) or reasons)):
                out.append((stage, left, reasons))
        return out

    def is_asked_for(self, subset: str) -> bool:
        """Whether there can be rows of the set: not where it needs translations and no translator was asked for."""
        return self.has_translator or not SETS[subset].needs

    def rejections(self, subset: str) -> list[tuple[str, int]]:
        """Why records are not in the set, by reason; a record counts once."""
        return ranked(self.set_reasons[subset])

    def missing(self, subset: str) -> int:
        """How many rows rejections took from the set; a set has a row a record for each of its forms."""
        if subset in self.natural or not self.is_asked_for(subset):
            return 0
        return self.records * len(SETS[subset].forms) - self.sets[subset].rows

    def means(self, subset: str) -> tuple[str, str]:
        """Mean length of question and answer: words, or characters, then with a "c"."""
        count, (asked_words, answered_words) = self.sets[subset], self._by_words[subset]
        asked, answered = count.asked / max(count.rows, 1), count.answered / max(count.rows, 1)
        return f"{asked:.1f}{'' if asked_words else 'c'}", f"{answered:.1f}{'' if answered_words else 'c'}"

    @property
    def characters(self) -> str:
        """What the "c" of `means` stands for, or "" where every length is in words."""
        codes = self.config.source_lang, self.target
        names = [LANGUAGES[code].name for code in codes if not LANGUAGES[code].spaced]
        return f"c: characters, as {' and '.join(names)} has no spaces" if names else ""

    def parts(self) -> list[tuple[str, str]]:
        """(part, what served as it): the sources' formats and what else went in."""
        resources = [(part, _open(self.filled(text))) for part, text in self.resources.items()]
        return [("instructions", text) for text in self.formats] + resources

    def filled(self, name: str) -> str:
        """A name out of the recipe with its {source} and {target} filled in."""
        codes = {"{source}": self.config.source_lang, "{target}": self.target}
        for mark, code in codes.items():
            name = name.replace(mark, LANGUAGES[code].iso1)
        return name

    def dataset_lines(self) -> list[tuple[str, str]]:
        """As of all languages, of this one."""
        return dataset_lines(self.names)

    def print(self) -> None:
        """The table on the terminal; last the line to paste into a train recipe."""
        from rich.table import Table
        from rich.text import Text

        config = self.config
        table = Table(title=Text(f"{config.name}: {config.source_lang} to {self.target}, {self.records} records"))
        table.add_column("subset")
        table.add_column("rows", justify="right")
        table.add_column("rejected", justify="right")
        table.add_column("mean words Q / A", justify="right")
        table.add_column("reasons")
        for subset, count in self.sets.items():
            is_made = subset not in self.natural and self.is_asked_for(subset)
            rejected = str(self.missing(subset)) if is_made else "-"
            reasons = Text(
                in_words(self.rejections(subset)) if self.is_asked_for(subset) else "no translator asked for"
            )
            table.add_row(subset, str(count.rows), rejected, " / ".join(self.means(subset)), reasons)
        show(table)
        if self.characters:
            say(self.characters)
        say(f"left out on reading: {in_words(ranked(self.left_out))}")
        if "LL" in self.sets:
            say(f"answers: {self.origins['G']} the model's own, {self.origins['D']} ground truth{self._share()}")
            say(f"own answers given up for the ground truth: {in_words(ranked(self.reasons['generation']))}")
            if self.few_own_answers:
                warn(self.few_own_answers)
        if self.switched:
            words, known, switched = map(sum, zip(*self.switched.values(), strict=True))
            rates = f"{known / max(words, 1):.0%} known, {switched / max(known, 1):.1%} of the known switched"
            say(f"code-switching: {words} words, {rates}")
        say(f"registered in {config.dataset_dir}/dataset_info.json; in a train recipe:")
        print_dataset_lines(self.dataset_lines())

    def _share(self) -> str:
        drawn = 1 - self.config.sampling.keep_ground_truth
        return f" ({self.own_share:.0%} own; equation 4 draws {drawn:.0%})"


def dataset_lines(names: Sequence[str]) -> list[tuple[str, str]]:
    """(system, its `dataset:` line of a train recipe) of entries in dataset_info.json; the baselines' first."""
    lines = []
    for system in (*BASELINES, "sdrrl"):
        sets = tuple(f"_{row.name.lower()}" for row in sets_of([system]))
        lines.append((system, [name for name in names if name.endswith(sets)]))
    return [(system, f"dataset: {','.join(own)}") for system, own in lines if own]


def print_dataset_lines(lines: Sequence[tuple[str, str]]) -> None:
    """The lines to paste into a train recipe, one a system: a training is of one of them."""
    for system, line in lines:
        say(line if system == "sdrrl" else f"baseline {system} -- {line}")


def ranked(counts: Counter) -> list[tuple[str, int]]:
    """(reason, count), the most frequent first, the rest by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def in_words(counts: list[tuple[str, int]]) -> str:
    """The counts on one line."""
    return ", ".join(f"{n} {reason}" for reason, n in counts) or "-"


def _in_target(name: str) -> tuple[bool, bool]:
    """Whether a set's questions, and its answers, are in the target language; in both, it counts as the target's."""
    forms = SETS[name].forms
    if not forms:
        return True, True
    questions, answers = zip(*(form.languages for form in forms), strict=True)
    return "target" in questions, "target" in answers


def _kind(reason: str) -> str:
    """The reason without its particulars, which stand after a colon or in brackets."""
    parts = reason.split(": ")
    # A server's errors: the part after the colon is the reason.
    return ": ".join(parts[: 1 + (parts[0] == "error")]).partition(" (")[0][:60]


def _bounded(counts: Counter, reason: str) -> str:
    return reason if reason in counts or len(counts) < _MAX_KINDS else "other"


def _stage(side: str, reason: str, record: dict) -> str:
    if any(record.get(f"{column}_mt") is None for column in SIDES[side]):
        return "translated"
    return {"low quality": "above tau", "off-target": "on target"}.get(reason, "passed the rules")


def settings(config: PrepareConfig) -> str:
    """The recipe with all its defaults, as YAML."""
    import yaml

    return _open(yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True, width=100))


def _open(text: str) -> str:
    """Without the user and password an address may hold."""
    return re.sub(r"(?<=://)[^/\s@]+@", "", text)
