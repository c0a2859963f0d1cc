"""The text of everything the project writes for people: the two HTML reports and the dataset card, as Jinja2 templates.

Autoescape is on in HTML, and the card has its counterpart for Markdown: what a template shows is escaped wherever it
comes from, as answers are written by models and names by users. A template may not name what it was not given
(StrictUndefined). No page has a script or needs another file.

base.html      the frame of an HTML page
style.css      the look that both reports share
prepare.html   report.html of a transfer set (transfer/report.py), with prepare.css
compare.html   report.html of a comparison (sdrrl_eval/compare/report.py), with compare.css
charts.html    bars and histograms, drawn from charts.py
webui/         what the tab in LlamaBoard shows of its own (webui/look.py), and its style sheet
card.md        README.md beside a transfer set (transfer/card.py)
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

# A colour for each of SDRRL's six sets; both reports draw them in it.
SET_COLOURS = {
    "LL": "#2563eb",
    "TL": "#0891b2",
    "LT": "#7c3aed",
    "TT": "#db2777",
    "mt": "#ea580c",
    "comp": "#16a34a",
}

# Every HTML report has it near its beginning, from style.css: what tells it from a page of another program.
MARK = "--ink: #0f172a"


def html(template: str, **values: Any) -> str:
    """The page that `template` makes of `values`; a value that is HTML already is a `markupsafe.Markup`."""
    return _HTML.get_template(template).render(**values)


def markdown(template: str, **values: Any) -> str:
    """The Markdown text that `template` makes of `values`; a value that is Markdown already is a `Markup`."""
    return _MARKDOWN.get_template(template).render(**values)


def _plain(value: Any) -> Markup:
    """Text that Markdown takes as it stands, on one line."""
    if isinstance(value, Markup):
        return value
    flat = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Markup(re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", flat))


def _fence(text: str, language: str) -> Markup:
    """A code block that nothing in `text` can end: its fence is longer than any run of backticks in it."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return Markup(f"{ticks}{language}\n{text}\n{ticks}")


def _table(rows: Sequence[Sequence[object]], *head: str) -> Markup:
    """A Markdown table."""
    lines = [map(_plain, head), ["---"] * len(head), *(map(_plain, row) for row in rows)]
    return Markup("\n".join(f"| {' | '.join(line)} |" for line in lines))


_FOLDER = FileSystemLoader(Path(__file__).parent)
_HTML = Environment(
    loader=_FOLDER,
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
# Jinja2 escapes for HTML only. `finalize` sees whatever an expression of a template is about to write; as it returns
# Markup, HTML's escaping finds nothing left to do.
_MARKDOWN = _HTML.overlay(finalize=_plain)
_MARKDOWN.filters |= {"fence": _fence, "table": _table}
