"""report.html: tables, off-target rates, loss curves, t-SNE and answers side by side, in one file that needs no other.

All text passes through html.escape: answers are written by models, names by users.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from sdrrl_eval import show
from sdrrl_eval.compare.cases import foreign
from sdrrl_eval.compare.runs import Row, Run
from sdrrl_eval.compare.tables import Cell, Table
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import read_text
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.page import COLOURS, card, frame

_MORE_COLOURS = ["#334155", "#a16207", "#be123c", "#4d7c0f"]
# Of systems: told apart by those who see no red or green, and by lightness in print (after Okabe and Ito).
_SYSTEMS = ["#94a3b8", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"]
_TILES, _NOTES = 6, 12

_CSS = """
main { max-width: 1180px; }
.paper table { font-size: 13.5px; }
.paper th, .paper td { padding: 6px 13px 6px 4px; border-bottom: 0; white-space: nowrap;
  position: relative; }
.paper sup { position: absolute; line-height: 1.3; }
.tsne svg { width: auto; max-width: 100%; min-width: 0; }
.p { white-space: nowrap; }
.paper th:first-child, .paper td:first-child { position: sticky; left: 0; z-index: 1; background: #fff;
  padding: 6px 14px 6px 4px;
  max-width: 190px; overflow: hidden; text-overflow: ellipsis; }
.paper thead th { border-bottom: 2px solid var(--ink); color: var(--ink); letter-spacing: .03em; }
.paper tr.block th { border-top: 1px solid var(--line); font-style: italic; font-size: 14px; padding: 10px 4px 4px;
  text-align: left; max-width: none; overflow: visible; }
.paper tr.block:first-child th { border-top: 0; }
.paper tr.published td { color: var(--soft); }
.paper tr.line td { border-top: 1px dashed #94a3b8; }
.paper td:last-child { font-weight: 500; } .paper + .wide { margin-top: 22px; }
.paper h3 { font-size: 16px; margin: 22px 0 8px; } .paper h3:first-child { margin-top: 0; }
.second { text-decoration: underline; text-underline-offset: 3px; }
sup { font-size: 11px; line-height: 0; color: var(--ink); }
summary { cursor: pointer; font-weight: 600; font-size: 15px; } details { margin-top: 16px; }
details table { font-size: 14px; } details .scores { margin-top: 10px; }
.rates { display: grid; gap: 14px 28px; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); }
.rates + p { margin-top: 14px; }
.rate h3 { font-size: 14px; margin: 0 0 4px; }
.rate div { display: grid; grid-template-columns: 1fr 62px; gap: 8px; align-items: center; font-size: 13px;
  font-variant-numeric: tabular-nums; margin: 3px 0; }
.rate span { height: 12px; border-radius: 3px; min-width: 2px; display: block; }
.rate .axis { background: #f1f5f9; }
.differs { border-left: 3px solid #d97706; padding-left: 12px; margin-bottom: 16px; } .differs ul { margin: 0; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-bottom: 14px; font-size: 14px; }
.legend i { width: 12px; height: 12px; border-radius: 3px; display: inline-block; margin-right: 6px; }
mark { background: #fef08a; color: inherit; border-radius: 3px; padding: 0 1px;
  text-decoration: underline wavy #b45309 1px; text-underline-offset: 3px; }
.soft + .sample { margin-top: 18px; }
.score { float: right; font-variant-numeric: tabular-nums; font-weight: 600; }
.head { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 4px 12px; }
@media (max-width: 600px) { .paper th, .paper td { white-space: nowrap; padding: 6px 12px 6px 3px; font-size: 13px; }
  .paper th:first-child, .paper td:first-child { max-width: 112px; padding: 6px 8px 6px 2px; }
  .rates { grid-template-columns: 1fr; } }
"""


@dataclass(frozen=True)
class Content:
    """What the report shows.

    tables: in the paper's layout. groups: (language name, its rows), for what is there in one language. rows: all of
    them. curves: per subset its (step, loss) points. picture: HTML. cases, samples: as cases.pick gives them.
    differences: in how the answers were made, a line each. legend: what the marks mean.
    """

    runs: list[Run]
    tables: list[Table]
    groups: list[tuple[str, list[Row]]]
    rows: list[Row]
    notes: list[str]
    curves: dict[str, list[tuple[int, float]]]
    picture: str
    cases: list[dict]
    samples: list[dict]
    differences: list[str] = field(default_factory=list)
    legend: str = ""


def page(content: Content) -> str:
    """The whole file."""
    runs = content.runs
    title = " vs ".join(run.name for run in runs)
    models = " · ".join(f"{run.name}: {run.model}" for run in runs)
    curves = content.curves
    parts = [
        f"<h1>{escape(title)}</h1><p class='soft'>{escape(models)}</p>",
        _tiles(content),
        _scores(content),
        _off_target(runs, content.rows),
        card("Training loss by subset", f"<div class='wide chart'>{svg(curves)}</div>") if curves else "",
        content.picture,
        _cases(content),
        card("Answers", _samples(content)) if content.samples else "",
    ]
    return frame(title, parts, _CSS)


def _tiles(content: Content) -> str:
    """The last run against the base at a glance: averages, else the first language's. BLEU leaves its place to chrF."""
    tiles = []
    if len(content.runs) < 2:
        return ""
    blocks = [(i, table.title, block) for table in content.tables for i, block in enumerate(table.blocks)]
    # The first block of every table before any second one.
    for _, title, block in sorted(blocks, key=lambda entry: entry[0]):
        if not block.published and len(tiles) < _TILES:
            base, last = block.rows[0][1][-1], block.rows[-1][1][-1]
            verdict = {True: "better", False: "worse", None: "same"}[last.better]
            words = {"same": "no significant change"}.get(verdict, verdict)
            tiles.append(_tile(f"{title} {block.name}, average", base, last, verdict, words))
    if not tiles and content.groups:
        rows = {row.scores[0]["task"]: row for row in reversed(content.groups[0][1]) if row.metric != "bleu"}
        for row in reversed(rows.values()):
            what = f"{row.label}, {show.direction(row.scores[0])}"
            last = len(row.scores) - 1
            tiles.append(_tile(what, row.cell(0), row.cell(last), row.colour(last), row.change(last)[0]))
    return f"<div class='tiles'>{''.join(tiles)}</div>" if tiles else ""


def _tile(what: str, base: Cell, last: Cell, verdict: str, change: str) -> str:
    return (
        f"<div class='tile'><span class='soft'>{escape(what)}</span><b>{escape(last.text)}</b>"
        f"<span class='soft'>from {escape(base.text)}</span> "
        f"<span class='{verdict}'>{escape(change)}</span></div>"
    )


def _scores(content: Content) -> str:
    body = "".join(map(_table, content.tables))
    if body:
        body = f"<div class='paper'>{body}</div>"
    if content.differences:
        lines = [f"Differs: {line}" for line in content.differences]
        body = f"<div class='differs'>{_list(lines)}</div>{body}"
    if content.groups:
        body += _groups(content.runs, content.groups)
    body += _notes(content)
    wide = [row for row in content.rows if not any(row in rows for _, rows in content.groups)]
    if wide:
        body += (
            "<details><summary>Every score with its 95% interval and p-value</summary>"
            f"<div class='wide scores'>{_details(content.runs, wide)}</div></details>"
        )
    return card("Scores", body)


def _table(table: Table) -> str:
    """As the paper prints it. The interval and the p-value are in the cell's title, and in the list below."""
    heads = "".join(f"<th scope='col'>{escape(column)}</th>" for column in table.columns)
    lines = []
    for block in table.blocks:
        span = len(table.columns) + 1
        lines.append(f"<tr class='block'><th colspan='{span}' scope='rowgroup'>{escape(block.name)}</th></tr>")
        lines += [_line(name, cells, "published") for name, cells in block.published]
        for i, (name, cells) in enumerate(block.rows):
            lines.append(_line(name, cells, "line" if block.published and not i else ""))
    notes = "".join(f"<p class='soft'>{escape(note)}</p>" for note in table.notes)
    return (
        f"<h3>{escape(table.title)}</h3><div class='wide'><table><thead><tr><th></th>{heads}</tr></thead>\n"
        f"<tbody>{chr(10).join(lines)}</tbody></table></div>{notes}"
    )


def _line(name: str, cells: Sequence[Cell], kind: str) -> str:
    inner = "".join(f"<td{_title(cell)}>{_cell(cell)}</td>" for cell in cells)
    return f"<tr class='{kind}'><td title='{escape(name)}'>{escape(name)}</td>{inner}</tr>"


def _title(cell: Cell) -> str:
    return f" title='{escape(cell.more)}'" if cell.more else ""


def _cell(cell: Cell) -> str:
    look = {1: "best", 2: "second"}.get(cell.rank, "")
    text = f"<span class='{look}'>{escape(cell.text)}</span>" if look else escape(cell.text)
    # The paper's marks are raised letters already; as plain ones in <sup> they stand as high as the others.
    marks = cell.marks.translate(str.maketrans("ᵗⁿˢ", "tns"))
    return text + (f"<sup>{escape(marks)}</sup>" if marks else "")


def _groups(runs: list[Run], groups: list[tuple[str, list[Row]]]) -> str:
    changes = len(runs) <= 3
    heads = "".join(
        f"<th>{escape(run.name)}</th>" + "<th>change</th>" * bool(i and changes) for i, run in enumerate(runs)
    )
    span = 2 * len(runs) if changes else len(runs) + 1
    lines = [f"<tr><th>score</th>{heads}</tr>"]
    for name, rows in groups:
        lines.append(f"<tr class='group'><th colspan='{span}'>{escape(name)}</th></tr>")
        lines += [_group_row(row, changes) for row in rows]
    return "<div class='wide'><table>\n" + "\n".join(lines) + "\n</table></div>"


def _group_row(row: Row, changes: bool) -> str:
    cells = [f"<td>{escape(row.label)}<small>{escape(show.direction(row.scores[0]))}</small></td>"]
    for i, score in enumerate(row.scores):
        low, high = (show.number(row.metric, bound) for bound in score["ci95"])
        cell = row.cell(i)
        shown = Cell(cell.text, cell.rank) if changes else cell
        cells.append(f"<td{_title(cell)}>{_cell(shown)}<small>{escape(f'{low} to {high}')}</small></td>")
        if i and changes:
            text, p = row.change(i)[0], row.shown_p(i)
            told = f"<small class='p'>{_p(p)}</small>" if p is not None else ""
            cells.append(f"<td class='{row.colour(i)}'>{escape(text)}<sup>{cell.marks}</sup>{told}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _p(p: float) -> str:
    return "p &lt; 0.001" if p < 0.001 else f"p {p:.3f}"


def _details(runs: list[Run], rows: list[Row]) -> str:
    heads = "".join(f"<th>{escape(run.name)}</th>" for run in runs)
    lines = [f"<tr><th>score</th><th>n</th>{heads}</tr>"]
    for row in rows:
        of = f" ({row.of})" if row.of else ""
        cells = ""
        for i, score in enumerate(row.scores):
            low, high = (show.number(row.metric, bound) for bound in score["ci95"])
            p = row.shown_p(i) if i else None
            told = f", {_p(p)}" if p is not None else ""
            cells += f"<td>{_cell(row.cell(i))}<small>{escape(f'{low} to {high}')}{told}</small></td>"
        what = f"{escape(row.label)}<small>{escape(show.direction(row.scores[0]) + of)}</small>"
        lines.append(f"<tr><td>{what}</td><td>{row.scores[0]['n']}</td>{cells}</tr>")
    return "<table>" + "\n".join(lines) + "</table>"


def _notes(content: Content) -> str:
    first = ["↑ higher is better, ↓ lower is better; below each value its 95% interval over the items"]
    if content.tables and not content.groups:
        first = ["↑ higher is better, ↓ lower is better; a cell's 95% interval shows where the pointer rests on it"]
    first += [content.legend] if content.legend else []
    shown, folded = (first + content.notes, []) if len(content.notes) <= _NOTES else (first, content.notes)
    more = f"<details><summary>What each number stands on</summary>{_list(folded)}</details>" if folded else ""
    return _list(shown) + more


def _list(lines: Sequence[str]) -> str:
    return "<ul class='soft'>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _off_target(runs: list[Run], rows: list[Row]) -> str:
    """The paper's Figure 3: a bar a system, a group a language."""
    rates = [row for row in rows if row.metric == "off_target"]
    if not rates or len(runs) < 2:
        return ""
    names = "".join(f"<span><i style='background:{_colour(i)}'></i>{escape(r.name)}</span>" for i, r in enumerate(runs))
    groups = []
    for row in rates:
        bars = "".join(
            f"<div title='{escape(runs[i].name)}: {escape(row.value(i))}'>"
            f"<span class='axis'><span style='width:{score['value']:.2f}%;background:{_colour(i)}'></span></span>"
            f"{escape(row.value(i))}{row.marks(i)}</div>"
            for i, score in enumerate(row.scores)
        )
        groups.append(f"<div class='rate'><h3>{escape(_language(row.language))}</h3>{bars}</div>")
    note = (
        "share of answers surely not in the question's language, each bar on an axis from 0 to 100%; an empty answer "
        "counts; lower is better"
    )
    return card(
        "Off-target answers",
        f"<div class='legend'>{names}</div><div class='rates'>{''.join(groups)}</div><p class='soft'>{note}</p>",
    )


def _colour(i: int) -> str:
    return _SYSTEMS[i % len(_SYSTEMS)]


def _language(code: str) -> str:
    return LANGUAGES[code].name if code in LANGUAGES else code


def picture(folder: str) -> str:
    """The card of a folder `sdrrl tsne` wrote."""
    path = Path(folder) / "tsne.svg"
    if not path.is_file():
        raise UserError(f"--tsne {folder}: no tsne.svg in it; write it with `sdrrl tsne --output {folder} ...`")
    text = read_text(path)
    drawing = text[text.index("<svg") :] if "<svg" in text else ""
    if not drawing or re.search(
        r"<script|<foreignObject|\son\w+\s*=|(?:href|src)\s*=\s*[\"'](?!#)|url\((?!#)", drawing, re.I
    ):
        raise UserError(f"--tsne {folder}: its tsne.svg was not written by `sdrrl tsne`; write it anew")
    return card(
        "Representations of the same instructions in two languages", f"<div class='wide chart tsne'>{drawing}</div>"
    )


def _cases(content: Content) -> str:
    if not content.cases:
        return ""
    note = (
        "<p class='soft'>Chosen, not typical: the items named by --cases or else those whose own score changed most. "
        "Marked: words in another script than the language's, and runs of six words that fastText surely takes for "
        "another language. A hint for the eye, not a verdict: names and loans may be marked, single foreign words "
        "missed.</p>"
    )
    return card("Case study", note + "".join(_sample(content.runs, case, True) for case in content.cases))


def _samples(content: Content) -> str:
    note = "<p class='soft'>The first items of each file, as they come.</p>"
    return note + "".join(_sample(content.runs, sample, False) for sample in content.samples)


def _sample(runs: list[Run], sample: dict, marked: bool) -> str:
    lang = LANGUAGES.get(sample["lang"])
    boxes = [_answer("reference", _words(sample["reference"], None), "", "reference", lang)]
    for run, row in zip(runs, sample["answers"], strict=True):
        value = row.get(sample["metric"])
        tags = _tags(row)
        if isinstance(value, int | float):
            tags += f"<span class='score'>{escape(show.metric(sample['metric'])[:-2])} {value:.1f}</span>"
        boxes.append(_answer(run.name, _words(row.get("output"), lang if marked else None), tags, "", lang))
    verdict = ""
    if marked and sample["change"]:
        word = "↑ better" if sample["change"] > 0 else "↓ worse"
        verdict = f"<span class='same'>{word}</span>"  # one item is never significant, hence has no colour
    head = f"<span class='soft'>{escape(sample['task'])} · {escape(sample['id'])}</span>{verdict}"
    return (
        f"<div class='sample'><p class='head'>{head}</p>"
        f"<p class='question' dir='auto'>{escape(str(sample['question']))}</p>"
        f"<div class='answers'>{''.join(boxes)}</div></div>"
    )


def _words(text, lang) -> str:
    if not text:
        return "<span class='soft'>(empty)</span>"
    if isinstance(text, list):
        text = " / ".join(map(str, text))
    pieces = foreign(str(text), lang) if lang else [(str(text), False)]
    return "".join(f"<mark>{escape(piece)}</mark>" if flag else escape(piece) for piece, flag in pieces)


def _answer(name: str, words: str, tags: str, kind: str, lang) -> str:
    tongue = f" lang='{lang.iso1}'" if lang else ""
    return f"<div class='answer {kind}'><h3>{escape(name)}{tags}</h3><p dir='auto'{tongue}><bdi>{words}</bdi></p></div>"


def _tags(row: dict) -> str:
    tags = ""
    if row.get("off_target"):
        tags += f"<span class='tag'>off target: {escape(str(row.get('language') or 'empty'))}</span>"
    if row.get("finish") == "length":
        tags += "<span class='tag cut'>cut off</span>"
    return tags


def svg(curves: dict[str, list[tuple[int, float]]]) -> str:
    """The loss curves as an inline SVG, one colour a subset: running means, the raw values faint behind.

    The same curves give the same bytes.
    """
    import io

    import matplotlib

    settings = {"svg.hashsalt": "sdrrl", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 11}
    with matplotlib.rc_context(settings):
        # Figure itself, not pyplot: no window system, no global state.
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.6, 3.9), layout="constrained")
        axes = figure.add_subplot()
        spare = iter(_MORE_COLOURS * len(curves))
        for name in sorted(curves, key=lambda n: (list(COLOURS).index(n) if n in COLOURS else 99, n)):
            steps, losses = zip(*curves[name], strict=True)
            colour = COLOURS.get(name) or next(spare)
            axes.plot(steps, losses, color=colour, alpha=0.2, linewidth=1)
            axes.plot(steps, _smooth(losses), color=colour, linewidth=2, label=name, solid_capstyle="round")
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss (nats a token)")
        axes.grid(axis="y", color="#e2e8f0")
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color("#cbd5e1")
        figure.legend(loc="outside upper left", ncols=6, frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    inline = text.getvalue()[text.getvalue().index("<svg") :]
    inline = re.sub(r"<metadata>.*?</metadata>", "", inline, flags=re.DOTALL)
    return inline.replace("<svg ", '<svg role="img" aria-label="training loss by subset" ', 1)


def _smooth(losses: tuple[float, ...]) -> list[float]:
    """A centred running mean over about a twelfth of the curve."""
    half = len(losses) // 24
    windows = (losses[max(0, i - half) : i + half + 1] for i in range(len(losses)))
    return [sum(window) / len(window) for window in windows]
