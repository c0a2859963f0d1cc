"""How the tab shows things: runs, mistakes, scores and reports as HTML; every value is escaped by the templates."""

import json
import re
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path

from sdrrl_factory import pages
from sdrrl_factory.webui.folders import is_inside
from sdrrl_factory.webui.locales import word
from sdrrl_factory.webui.recipes import Problem
from sdrrl_factory.webui.runs import Run

# A line of the editor is found by its number among those drawn, which are all of them up to so many.
_MARKED_LINES = 150
_REPORT_BYTES = 20_000_000


@cache
def css() -> str:
    """The tab's style sheet."""
    return (Path(pages.__file__).parent / "webui/tab.css").read_text(encoding="utf-8")


def state(run: Run | None, lang: str | None, *lines: str) -> str:
    """A run in a box: its state, how long it took, what it is at; below it `lines`, as what was refused."""
    if run is None:
        return note(word("no_run", lang)) if not lines else refused(*lines)
    bar, at = _progress(run, lang)
    messages = list(lines)
    now = run.state
    if now == "failed":
        # A mistake of the user's is the last line, in its one form.
        messages += [line for line in run.log.splitlines() if line.startswith("sdrrl: ")][-5:] or _last_line(run)
    return pages.html(
        "webui/state.html",
        id=run.id,
        what=run.what,
        state=now,
        state_word=word(now, lang),
        time=duration(run.seconds),
        bar=bar if now == "running" else None,
        at=at,
        lines=messages,
    )


def refused(*lines: str) -> str:
    """What could not be done."""
    return f"<div class='run refused'>{''.join(f'<p class=mistake>{escape(line)}</p>' for line in lines)}</div>"


def note(text: str) -> str:
    return f"<p class='note soft'>{escape(text)}</p>"


def _last_line(run: Run) -> list[str]:
    lines = [line.strip() for line in run.log.splitlines() if line.strip()]
    return lines[-1:]


def _progress(run: Run, lang: str | None) -> tuple[int, str]:
    """(percent of the step, the step in words)."""
    now = run.progress
    try:
        done, total = int(now["done"]), int(now["total"])
        text = f"{now['what']}: {now['state']}"
    except (KeyError, TypeError, ValueError):
        return 0, word("starting", lang)
    share = min(1.0, done / total) if total else 0.0
    return round(100 * share), text


def duration(seconds: float) -> str:
    """12 s, 3 min 5 s, 2 h 10 min."""
    whole = max(0, round(seconds))
    minutes, hours = whole // 60, whole // 3600
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def problems(found: Sequence[Problem], lang: str | None, editor: str, text: str) -> str:
    """The mistakes of a recipe as a list; and each in the editor, at the end of its line."""
    listed = [(word("line", lang, n=problem.line), problem.text) for problem in found[:20]]
    html = pages.html("webui/problems.html", problems=listed, good=word("good", lang))
    return _marks(found, editor) + html if text.count("\n") < _MARKED_LINES else html


def _marks(found: Sequence[Problem], editor: str) -> str:
    """A style sheet that writes each mistake behind its line: gradio's editor has no way to be told of one."""
    rules = []
    by_line: dict[int, str] = {}
    for problem in found:
        by_line.setdefault(problem.line, problem.text)
    for line, text in by_line.items():
        at = f"#{editor} .cm-line:nth-child({line})"
        rules.append(f"{at}{{background:#fecaca55;box-shadow:inset 3px 0 #dc2626}}")
        rules.append(
            f"@media(min-width:700px){{{at}::after{{content:{_css_text(text[:90])};position:absolute;right:6px;"
            "max-width:55%;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;color:#b91c1c;font-style:italic;"
            "background:#fef2f2;padding:0 6px;border-radius:4px}}"
        )
    return f"<style>{''.join(rules)}</style>"


def _css_text(text: str) -> str:
    """A string of CSS in which nothing but letters and digits stands as it is: nothing in it can end it."""
    return '"' + re.sub(r"[^A-Za-z0-9]", lambda match: f"\\{ord(match[0]):06x}", text) + '"'


def report(paths: Sequence[str]) -> str:
    """Reports in frames of their own, in which nothing runs and nothing is loaded, whatever they hold.

    Each twice, as the style sheet shows the one that fits LlamaBoard's theme: a frame cannot ask for it.
    """
    frames = []
    for path in map(Path, paths):
        if path.is_file() and is_inside(str(path)) and path.stat().st_size < _REPORT_BYTES:
            text = path.read_text(encoding="utf-8", errors="replace")
            for theme, media in (("light", "not all"), ("dark", "all")):
                themed = escape(text.replace("@media (prefers-color-scheme: dark)", f"@media {media}"), quote=True)
                title = escape(str(path), quote=True)
                frames.append(
                    f'<iframe class="report {theme}" sandbox title="{title}" loading="lazy" srcdoc="{themed}"></iframe>'
                )
    return "".join(frames)


def scores(path: str, lang: str | None) -> str:
    """The scores of an evaluation's results.json, with their intervals."""
    from sdrrl_eval import show

    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))["scores"]
        rows = []
        for score in entries:
            low, high = (show.number(score["metric"], bound) for bound in score["ci95"])
            value = show.number(score["metric"], score["value"])
            name = show.label(score["task"], score["metric"])
            rows.append((name, show.direction(score), value, f"{low} – {high}", f"{score['n']:,}"))
    except (OSError, ValueError, KeyError, TypeError):
        return note(word("unmeasured", lang))
    columns = [word(name, lang) for name in ("score", "language", "value", "interval")]
    return pages.html("webui/scores.html", columns=[*columns, "n"], rows=rows)
