"""report.html of a prepared transfer set: what a person looks at before training.

Here is what the page shows, as plain values; how it shows them is pages/prepare.html.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdrrl_factory import pages
from sdrrl_factory.files import atomic_write
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.pages.charts import Bar, Histogram
from sdrrl_factory.transfer.exchanges import question
from sdrrl_factory.transfer.sets import SETS, SIDES
from sdrrl_factory.transfer.summary import LENGTH_EDGES, SCORE_BINS, Summary, in_words, ranked, settings

_KEPT, _LOST, _LOST_BEHIND, _SOFT, _DARK = "#2563eb", "#ef4444", "#fca5a5", "#94a3b8", "#64748b"
_SHORT = {"question": "question", "answer": "answer", "output": "ground truth"}
_NAMES = {"question": "Questions", "answer": "Answers", "output": "Ground truth (for the baselines)"}
_MAX_CHARS, _MAX_HEADING = 1500, 110
_SHOWN = 10  # examples before the button that shows the rest
_LENGTH_TICKS = (1, 4, 16, 64, 256, 1024)
# A word with what closes it; single characters of the scripts that have no spaces.
_NO_SPACES = "[\u0e00-\u0e7f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]"
_TOKEN = re.compile(rf"{_NO_SPACES}|(?:(?!{_NO_SPACES})\w)+[^\w\s]*|\s+|[^\w\s]")


@dataclass(frozen=True)
class Column:
    """A titled column of bars, with a line below."""

    title: str
    bars: list[Bar]
    note: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph as pieces that join to it, each with whether it is marked; `language` is its ISO 639-1 code."""

    pieces: list[tuple[str, bool]]
    language: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Box:
    """One row of a set, or a record; `kind` is "gone" where it was rejected or has no row."""

    name: str
    texts: list[Text]
    note: str = ""
    colour: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Example:
    """A record and the rows it gave; `tags` are (text, kind)."""

    id: str
    heading: str
    language: str
    tags: list[tuple[str, str]]
    boxes: list[Box]


def write(path: Path, summary: Summary) -> None:
    """Write the report of one target language; the file needs no other."""
    # What a server sends may hold half a surrogate pair, which UTF-8 has no bytes for.
    atomic_write(path, page(summary).encode("utf-8", "replace"))


def page(summary: Summary) -> str:
    """The whole page."""
    config = summary.config
    source, target = LANGUAGES[config.source_lang].name, LANGUAGES[summary.target].name
    examples = [_example(summary, record, rows) for record, rows in summary.examples.items]
    return pages.html(
        "prepare.html",
        title=f"{config.name}: {source} → {target}",
        systems=", ".join(config.systems),
        tiles=_tiles(summary),
        parts=summary.parts(),
        # SDRRL's line first: it is the one most come for.
        dataset_lines=sorted(summary.dataset_lines(), key=lambda line: line[0] != "sdrrl"),
        funnel=[_reading(summary), _translations(summary), [Column("Rows of each set", _sets(summary))]],
        colours=[(_KEPT, "kept"), (_LOST_BEHIND, "lost in this step"), (_LOST, "of these, by reason")],
        estimates=_estimates(summary),
        estimator=config.quality.backend,
        lengths=_lengths(summary),
        characters=summary.characters,
        switch_rates=_switch_rates(summary),
        switched=_switched(summary),
        switch_probability=f"{config.code_switch.probability:g}",
        examples=examples[:_SHOWN],
        more_examples=examples[_SHOWN:],
        natural=_natural(summary),
        rejected=_rejected(summary),
        settings=settings(config),
    )


def _tiles(summary: Summary) -> list[tuple[str, str, str]]:
    """(what, value, note) of the numbers at the top."""
    tiles = [("records", f"{summary.records:,}", "read and used")]
    if "LL" in summary.sets:
        own = summary.origins["G"]
        drawn = 1 - summary.config.sampling.keep_ground_truth
        tiles.append(("answers the model's own", _percent(own, summary.records), f"equation 4 draws {drawn:.0%}"))
    # The set whose questions and answers both have to be translated well.
    both = next((subset for subset in ("TT", "tsft") if subset in summary.sets), None)
    if both and summary.is_asked_for(both):
        rows = summary.sets[both].rows
        tiles.append((f"translated well, in {both}", _percent(rows, summary.records), f"{rows:,} rows"))
    total = sum(count.rows for count in summary.sets.values())
    tiles.append(("rows in all", f"{total:,}", f"in {len(summary.names)} sets"))
    return tiles


def _reading(summary: Summary) -> list[Column]:
    """What was read, and whose answer each record has."""
    n, left_out = summary.records, sum(summary.left_out.values())
    columns = [Column("Read", _step("records", n, n + left_out, left_out, ranked(summary.left_out)))]
    if "LL" in summary.sets:
        given_up = ranked(summary.reasons["generation"])
        flawed = sum(count for _, count in given_up)
        bars = [
            *_step("drawn for the model's own answer", summary.origins["G"] + flawed, n),
            *_step("own answers kept", summary.origins["G"], n, flawed, given_up),
            *_step("ground truth", summary.origins["D"], n),
        ]
        ends = f"Generations ended with: {in_words(ranked(summary.finishes))}." if summary.finishes else ""
        note = " ".join(part for part in (ends, summary.few_own_answers) if part)
        columns.append(Column("Whose answer (equation 4)", bars, note))
    return columns


def _translations(summary: Summary) -> list[Column]:
    """A funnel a side: what each step of the filter left of its translations."""
    columns = []
    for side in SIDES:
        if side not in summary.translated:
            continue
        before = summary.records
        bars = _funnel_step("records", before, before)
        for stage, left, reasons in summary.funnel(side):
            if stage == "above tau":
                stage = f"above τ = {summary.threshold:g}"
            bars += _funnel_step(stage, left, summary.records, before - left, reasons)
            before = left
        columns.append(Column(f"{_NAMES[side]}, translated", bars))
    return columns


def _sets(summary: Summary) -> list[Bar]:
    bars = []
    for subset, count in summary.sets.items():
        colour = SETS[subset].colour or _DARK
        if subset in summary.natural:
            # Its rows come from other sentences than the records; it is drawn on their scale.
            share = count.rows / max(count.rows, summary.records, 1)
            bars.append(Bar(f"{subset}: natural text", f"{count.rows:,}", "", [(share, colour)]))
            continue
        missing = summary.missing(subset)
        if not summary.is_asked_for(subset):
            bars.append(Bar(f"{subset}: no translator asked for", "-", "", []))
            continue
        needs = " and ".join(_SHORT[side] for side in SETS[subset].needs)
        label = f"{subset}: needs the {needs} translated" if needs else subset
        bars += _step(label, count.rows, count.rows + missing, missing, colour=colour)
    return bars


def _step(
    label: str, kept: int, total: int, lost: int = 0, reasons: Sequence[tuple[str, int]] = (), colour: str = _KEPT
) -> list[Bar]:
    """What is left after a step, what it lost behind it, and below a thin bar for each reason."""
    scale = max(total, 1)
    bar = Bar(label, f"{kept:,}", _percent(kept, total), [(kept / scale, colour), (lost / scale, _LOST_BEHIND)])
    return [bar, *_reason_bars(reasons)]


def _funnel_step(
    label: str, kept: int, total: int, lost: int = 0, reasons: Sequence[tuple[str, int]] = ()
) -> list[Bar]:
    """As `_step`, around the middle: what is lost stands half on the left and half on the right."""
    half = (lost / max(total, 1) / 2, _LOST_BEHIND)
    fills = [half, (kept / max(total, 1), _KEPT), half]
    return [Bar(label, f"{kept:,}", _percent(kept, total), fills, "step"), *_reason_bars(reasons)]


def _reason_bars(reasons: Sequence[tuple[str, int]]) -> list[Bar]:
    most = max((count for _, count in reasons), default=1)
    return [Bar(why, f"−{count:,}", "", [(count / most, _LOST)], "reason") for why, count in reasons]


def _estimates(summary: Summary) -> list[tuple[str, Histogram]]:
    """The quality estimates of each side's translations, divided at tau."""
    tau, charts = summary.threshold, []
    for side, counts in summary.scores.items():
        if not any(counts):
            continue
        # The bin that tau cuts is drawn as above it.
        low = [n if tau is not None and (i + 1) / SCORE_BINS <= tau + 1e-9 else 0 for i, n in enumerate(counts)]
        high = [n - below for n, below in zip(counts, low, strict=True)]
        chart = Histogram(
            series=[("below τ", _LOST, low), ("at or above τ", _KEPT, high)],
            ticks=[(fifth * SCORE_BINS / 5, f"{fifth / 5:g}") for fifth in range(6)],
            label=f"quality estimates of the {_NAMES[side].lower()}",
            mark=None if tau is None else (tau * SCORE_BINS, f"τ = {tau:g}"),
        )
        charts.append((_NAMES[side], chart))
    return charts


def _lengths(summary: Summary) -> list[tuple[str, Histogram, list[tuple[str, str]]]]:
    """(set, how long its questions and answers are, the means in words) of each set that has rows."""
    ticks = [(i + 1, str(edge)) for i, edge in enumerate(LENGTH_EDGES) if edge in _LENGTH_TICKS]
    charts = []
    for subset, count in summary.sets.items():
        if not count.rows:
            continue
        colour = SETS[subset].colour or _DARK
        chart = Histogram(
            series=[("questions", _SOFT, count.asked_bins), ("answers", colour, count.answered_bins)],
            ticks=ticks,
            label=f"lengths of questions and answers in {subset}",
        )
        asked, answered = summary.means(subset)
        charts.append((subset, chart, [(_SOFT, f"questions {asked}"), (colour, f"answers {answered}")]))
    return charts


def _switch_rates(summary: Summary) -> list[Column]:
    """How many words of each set's questions the dictionary knows, and how many of these were switched."""
    known_bars, switched_bars = [], []
    for subset, (words, known, switched) in summary.switched.items():
        colour = SETS[subset].colour or _DARK
        fill = [(known / max(words, 1), colour)]
        known_bars.append(Bar(subset, _percent(known, words), f"of {words:,} words", fill))
        fill = [(switched / max(known, 1), colour)]
        switched_bars.append(Bar(subset, _percent(switched, known), f"of {known:,} known", fill))
    columns = [Column("Words the dictionary knows", known_bars), Column("Known words switched", switched_bars)]
    return columns if known_bars else []


def _switched(summary: Summary) -> list[list[str]]:
    """Of each set's questions: words, those the dictionary knows, those switched."""
    return [
        [subset, f"{words:,}", f"{known:,}", _percent(known, words), f"{switched:,}", _percent(switched, known)]
        for subset, (words, known, switched) in summary.switched.items()
    ]


def _example(summary: Summary, record: dict, rows: dict[str, list[dict]]) -> Example:
    langs = {"source": summary.config.source_lang, "target": summary.target}
    own = record["answer_origin"] == "G"
    tags = [("the model's own answer", "own") if own else ("ground truth", "cut")]
    tags += [(reason, "") for reason in _reasons(summary, record)]
    for side in SIDES:
        score = record.get(f"{side}_qe")
        if score is not None:
            good = summary.threshold is None or score >= summary.threshold
            tags.append((f"{_SHORT[side]} {score:.2f}", "ok" if good else ""))

    # 1. The record as it was read, and the model's own answer where it was given up.
    asked = question(record["instruction"], record["input"])
    boxes = [_record_box(record, "record", "ground truth", record["output"], langs, system=record["system"])]
    if record.get("response") and record["response"] != record["answer"]:
        boxes.append(_record_box(record, "given up", "", record["response"], langs, kind="gone"))
    # 2. A box for each of its rows, or why there is none. Some sets have several rows a record.
    for subset, lines in rows.items():
        forms = SETS[subset].forms
        for form, row in zip(forms, lines, strict=False):
            q, a = form.languages
            before = asked if q == "source" else _translated_question(record)
            texts = [
                _text(question(row["instruction"], row["input"]), langs[q], "q", before),
                _text(row["output"], langs[a]),
            ]
            boxes.append(Box(subset, texts, f"{langs[q]} → {langs[a]}", SETS[subset].colour or _SOFT))
        if len(lines) < len(forms):
            why = [reason for reason in _reasons(summary, record) if reason.partition(": ")[0] in SETS[subset].needs]
            no_row = "rejected" if summary.is_asked_for(subset) else "no translator asked for"
            text = Text([("; ".join(why) or no_row, False)])
            boxes.append(Box(subset, [text], "no row", SETS[subset].colour or _SOFT, "gone"))
    heading = _clip(" ".join(record["instruction"].split()), _MAX_HEADING)
    return Example(str(record["id"]), heading, _iso(langs["source"]), tags, boxes)


def _reasons(summary: Summary, record: dict) -> list[str]:
    """The reasons of what was rejected; where nothing was to be translated, those of the generation alone."""
    return [why for why in record["reasons"] if summary.has_translator or why.partition(": ")[0] not in SIDES]


def _record_box(
    record: dict, name: str, note: str, answer: str, langs: dict[str, str], kind: str = "", system: str = ""
) -> Box:
    """A record's question with one of its answers, both in the source language."""
    source = langs["source"]
    texts = [_text(question(record["instruction"], record["input"]), source, "q"), _text(answer, source)]
    if system:
        texts.insert(0, _text(system, source, "soft"))
    ways = f"{source} → {source}"
    return Box(name, texts, f"{ways}, {note}" if note else ways, _SOFT, kind)


def _natural(summary: Summary) -> list[Box]:
    """Rows of D_mt and D_comp; a pair's languages stand either way, so none is named."""
    return [
        Box(
            subset,
            [_text(question(row["instruction"], row["input"]), "", "q"), _text(row["output"], "")],
            colour=SETS[subset].colour or _SOFT,
        )
        for subset, lowest in summary.natural.items()
        for row in lowest.items
    ]


def _rejected(summary: Summary) -> list[tuple[str, str, list[Box]]]:
    """(side and reason, how many, some of the records) of each reason for which something was rejected."""
    langs = {"source": summary.config.source_lang, "target": summary.target}
    return [
        (f"{side}: {why}", f"{count:,}", [_rejected_box(side, r, langs) for r in summary.rejected[side, why].items])
        for side, counts in summary.reasons.items()
        for why, count in ranked(counts)
    ]


def _rejected_box(side: str, record: dict, langs: dict[str, str]) -> Box:
    """The text before and after its translation, or the answer that was given up, and why."""
    notes = [reason.partition(": ")[2] for reason in record["reasons"] if reason.startswith(f"{side}: ")]
    if side == "generation":
        answer = record.get("response") or ""
        return _record_box(record, record["id"], ", ".join(notes), answer, langs, kind="gone")
    asked = question(record["instruction"], record["input"])
    before, after = {
        "question": (asked, _translated_question(record)),
        "answer": (record["answer"], record.get("answer_mt")),
        "output": (record["output"], record.get("output_mt")),
    }[side]
    score = record.get(f"{side}_qe")
    if score is not None:
        notes.append(f"estimate {score:.2f}")
    texts = [_text(before, langs["source"]), _text(after or "", langs["target"])]
    return Box(str(record["id"]), texts, ", ".join(notes), kind="gone")


def _translated_question(record: dict) -> str:
    instruction, given = record.get("instruction_mt"), record.get("input_mt")
    return "" if instruction is None or given is None else question(instruction, given)


def _text(text: str, lang: str, kind: str = "", before: str | None = None) -> Text:
    """A paragraph of the page; what is not in `before` is marked."""
    text = _clip(text, _MAX_CHARS)
    pieces = [(text, False)] if before is None else _marked(text, _clip(before, _MAX_CHARS))
    return Text([(piece, is_new) for piece, is_new in pieces if piece], _iso(lang) if lang else "", kind)


def _marked(text: str, before: str) -> list[tuple[str, bool]]:
    """`text` in pieces: those that `before` has, and those that are new; blanks around a new one are not marked."""
    old, new = _TOKEN.findall(before), _TOKEN.findall(text)
    pieces = []
    for change, _, _, start, end in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        piece = "".join(new[start:end])
        core = piece.strip()
        if change == "equal" or not core:
            pieces.append((piece, False))
        else:
            left, _, right = piece.partition(core)
            pieces += [(left, False), (core, True), (right, False)]
    return pieces


def _clip(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[:size]}… ({len(text) - size:,} more characters)"


def _iso(code: str) -> str:
    return LANGUAGES[code].iso1


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
