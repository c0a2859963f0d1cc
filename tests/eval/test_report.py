import json
import re
from html.parser import HTMLParser
from pathlib import Path

from sdrrl_eval.compare.cases import Case
from sdrrl_eval.compare.command import compare
from sdrrl_eval.compare.comparison import Comparison
from sdrrl_eval.compare.report import page
from sdrrl_eval.compare.runs import Run


def test_answers_are_escaped_marked_and_run_in_their_own_direction():
    runs = [Run(name, [], "m", {}) for name in ("<base>", "trained")]
    answers = [
        {"output": "Hola <script>alert(1)</script> мир", "chrf": 3.0, "finish": "length"},
        {"output": "", "chrf": 9.25, "off_target": True, "language": "<b>"},
    ]
    case = Case(
        id="<i>",
        name="f:1",
        task="t & t",
        lang="spa",
        metric="chrf",
        question="؟ <q>",
        reference=["uno", "<dos>"],
        answers=answers,
        change=6.25,
    )
    text = page(Comparison(runs, cases=[case], samples=[case]))
    body = text[text.index("<body>") :]
    assert "<script" not in body and "<q>" not in body and "<b>" not in body
    assert body.count("Hola &lt;script&gt;alert(1)&lt;/script&gt; <mark>мир</mark>") == 1  # the case, not the sample
    assert body.count("мир") == 2 and body.count("(empty)") == 2
    assert body.count("<p dir='auto' lang='es'><bdi>") == 6 and body.count("dir='auto'>؟ &lt;q&gt;") == 2
    assert "uno / &lt;dos&gt;" in body and "off target: &lt;b&gt;" in body and "↑ better" in body


NASTY = "</td></style><script>alert('x')</script> \\ & \"q\" | `a` {{ x }} <img src=x onerror=1>"


class Tags(HTMLParser):
    """The tags with their attributes, and the text."""

    def __init__(self, text: str):
        super().__init__()
        self.seen: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def hostile_run(folder: Path, value: float) -> str:
    """An evaluation with markup in every text of its results and predictions."""

    def entry(task: str, metric: str, target: str, source: str | None = None, n: int = 12) -> dict:
        score = {"task": task, "metric": metric, "source_lang": source, "target_lang": target, "value": value, "n": n}
        return score | {"ci95": [value - 1, value + 1], "signature": f"s:{NASTY}"}

    scores = [entry("translation", "chrf", "spa", "eng"), entry("off_target", "off_target", NASTY)]
    scores += [entry(NASTY, NASTY, lang, n=3) for lang in (NASTY, "por")]
    decoding = {"template": f"{NASTY}{value}", "server": f"{NASTY}{value}"}
    results = {"model": NASTY, "scores": scores, "decoding": decoding, "versions": {NASTY: f"{NASTY}{value}"}}
    results["parts"] = {NASTY: {"prompt": f"{NASTY}{value}"}}
    rows = [
        {"id": f"{NASTY}{i}", "prompt": NASTY, "output": f"{NASTY} мир", "reference": [NASTY, NASTY], "chrf": value + i}
        for i in range(12)
    ]
    (folder / "predictions").mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "predictions" / "translation.eng-spa.jsonl").write_text(lines, encoding="utf-8")
    name = NASTY.replace("=", "")  # the first "=" ends a system's name
    return f"{name}{value}={folder}"


def test_markup_in_any_field_stays_text(tmp_path):
    runs = [hostile_run(tmp_path / name, value) for name, value in (("a", 10.0), ("b", 20.0))]
    comparison = compare(runs)
    assert len(comparison.cases) == 1 and comparison.tables and comparison.score_table
    path = comparison.write(tmp_path / "r.html", markdown_file=tmp_path / "t.md", latex_file=tmp_path / "t.tex")
    page = Tags(path.read_text(encoding="utf-8"))
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in page.seen}
    assert not any(key.startswith("on") for _, attrs in page.seen for key in attrs)
    # The title, the heading, each system's name, the notes, the answers ...
    assert page.text.count("<script>alert('x')</script>") > 60 and "{{ x }}" in page.text
    table = re.findall(r"^\|.*\|$", (tmp_path / "t.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert table and not any(re.search(r"(?<!\\)<(?!/?u>)", line) for line in table)
    # As many cells in each line of a table.
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} <= {4, 5}
