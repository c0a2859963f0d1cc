from sdrrl_eval.compare.cases import Case
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
