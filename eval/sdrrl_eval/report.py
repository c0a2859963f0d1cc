"""report.html: the table, the loss curves, and answers side by side, in one file that needs no other.

All text passes through html.escape: answers are written by models, names by users.
"""

import re
from html import escape

from sdrrl_eval import show

_COLOURS = {
    "LL": "#2563eb",
    "TL": "#0891b2",
    "LT": "#7c3aed",
    "TT": "#db2777",
    "mt": "#ea580c",
    "comp": "#16a34a",
}
_MORE_COLOURS = ["#334155", "#a16207", "#be123c", "#4d7c0f"]

_CSS = """
:root { color-scheme: light; --ink: #0f172a; --soft: #64748b; --line: #e2e8f0; --good: #15803d; --bad: #b91c1c; }
* { box-sizing: border-box; }
body { margin: 0; background: #f1f5f9; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 32px 16px 64px; }
h1 { font-size: clamp(24px, 5vw, 34px); line-height: 1.2; letter-spacing: -.02em; margin: 0 0 6px;
  overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 0 0 12px; }
p { margin: 0; }
.soft { color: var(--soft); font-size: 14px; overflow-wrap: anywhere; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 14px; padding: 20px; margin-top: 20px;
  box-shadow: 0 1px 3px rgb(15 23 42 / .05); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; margin-top: 20px; }
.tile { background: #fff; border: 1px solid var(--line); border-radius: 14px; padding: 14px 16px; }
.tile b { display: block; font-size: 28px; letter-spacing: -.02em; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 8px 10px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { font-size: 13px; color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr.group th { color: var(--ink); font-size: 15px; padding-top: 20px; text-align: left; }
td small { display: block; color: var(--soft); font-size: 12px; }
.best { font-weight: 700; }
.better, .worse, .same { font-size: 13px; font-weight: 600; }
.better { color: var(--good); } .worse { color: var(--bad); } .same { color: var(--soft); }
@media (max-width: 600px) { .card { padding: 16px; } th, td { white-space: normal; padding: 7px 5px; font-size: 14px;
  overflow-wrap: anywhere; } td:first-child { overflow-wrap: normal; } }
ul { margin: 14px 0 0; padding-left: 18px; }
.chart svg { width: 100%; min-width: 560px; height: auto; display: block; }
.sample + .sample { border-top: 1px solid var(--line); margin-top: 22px; padding-top: 22px; }
.question { font-weight: 600; white-space: pre-wrap; overflow-wrap: anywhere; margin: 2px 0 12px; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 12px; }
.answer { background: #f8fafc; border-radius: 10px; padding: 12px 14px; }
.answer.reference { background: #ecfdf5; }
.answer p { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 15px; }
.answer h3 { font-size: 13px; color: var(--soft); margin: 0 0 4px; overflow-wrap: anywhere; }
.tag { background: #fee2e2; color: var(--bad); border-radius: 6px; padding: 1px 6px; margin-left: 6px; }
.tag.cut { background: #e2e8f0; color: #475569; }
"""


def page(
    runs: list, groups: list, notes: list[str], curves: dict[str, list[tuple[int, float]]], samples: list[dict]
) -> str:
    """The whole file.

    Args:
        runs: `compare.Run`s, the base first.
        groups: (language name, `compare.Row`s).
        notes: what the numbers stand on, below the table.
        curves: per subset its (step, loss) points; empty for no chart.
        samples: {"task", "question", "reference", "answers": [a predictions row per run]}.
    """
    title = " vs ".join(run.name for run in runs)
    models = " · ".join(f"{run.name}: {run.model}" for run in runs)
    parts = [
        f"<h1>{escape(title)}</h1><p class='soft'>{escape(models)}</p>",
        _tiles(groups),
        _card("Scores", _table(runs, groups) + _notes(notes)),
        _card("Training loss by subset", f"<div class='wide chart'>{svg(curves)}</div>") if curves else "",
        _card("Answers", "".join(_sample(runs, sample) for sample in samples)) if samples else "",
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, parts))
        + "\n</main>\n</body>\n</html>\n"
    )


def _card(title: str, body: str) -> str:
    return f"<section class='card'>\n<h2>{escape(title)}</h2>\n{body}\n</section>"


def _tiles(groups: list) -> str:
    """The first language's four tasks at a glance: the last run against the base. BLEU leaves its place to chrF."""
    rows = {row.scores[0]["task"]: row for row in reversed(groups[0][1]) if row.metric != "bleu"}
    tiles = []
    for row in reversed(rows.values()):
        text, verdict = row.change(len(row.scores) - 1)
        what = f"{row.label}, {show.direction(row.scores[0])}"
        tiles.append(
            f"<div class='tile'><span class='soft'>{escape(what)}</span><b>{escape(row.value(-1))}</b>"
            f"<span class='soft'>from {escape(row.value(0))}</span> <span class='{verdict}'>{escape(text)}</span></div>"
        )
    return f"<div class='tiles'>{''.join(tiles)}</div>"


def _table(runs: list, groups: list) -> str:
    heads = "".join(f"<th>{escape(run.name)}</th>" + "<th>change</th>" * bool(i) for i, run in enumerate(runs))
    lines = [f"<tr><th>score</th>{heads}</tr>"]
    for name, rows in groups:
        lines.append(f"<tr class='group'><th colspan='{2 * len(runs)}'>{escape(name)}</th></tr>")
        lines += [_table_row(row, len(runs)) for row in rows]
    return "<div class='wide'><table>\n" + "\n".join(lines) + "\n</table></div>"


def _table_row(row, runs: int) -> str:
    cells, best = [f"<td>{escape(row.label)}<small>{escape(show.direction(row.scores[0]))}</small></td>"], row.best()
    for i in range(runs):
        low, high = (show.number(row.metric, bound) for bound in row.scores[i]["ci95"])
        mark = " class='best'" if i in best else ""
        cells.append(f"<td><span{mark}>{escape(row.value(i))}</span><small>{escape(f'{low} to {high}')}</small></td>")
        if i:
            text, verdict = row.change(i)
            cells.append(f"<td class='{verdict}'>{escape(text)}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _notes(lines: list[str]) -> str:
    first = "↑ higher is better, ↓ lower is better; below each value its 95% bootstrap interval over the items"
    return "<ul class='soft'>" + "".join(f"<li>{escape(line)}</li>" for line in [first, *lines]) + "</ul>"


def _sample(runs: list, sample: dict) -> str:
    boxes = [_answer("reference", sample["reference"], "", "reference")]
    boxes += [
        _answer(run.name, row.get("output"), _tags(row)) for run, row in zip(runs, sample["answers"], strict=True)
    ]
    return (
        f"<div class='sample'><p class='soft'>{escape(sample['task'])}</p>"
        f"<p class='question'>{escape(str(sample['question']))}</p><div class='answers'>{''.join(boxes)}</div></div>"
    )


def _answer(name: str, text, tags: str, kind: str = "") -> str:
    words = escape(str(text)) if text else "<span class='soft'>(empty)</span>"
    return f"<div class='answer {kind}'><h3>{escape(name)}{tags}</h3><p>{words}</p></div>"


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
        for name in sorted(curves, key=lambda n: (list(_COLOURS).index(n) if n in _COLOURS else 99, n)):
            steps, losses = zip(*curves[name], strict=True)
            colour = _COLOURS.get(name) or next(spare)
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
