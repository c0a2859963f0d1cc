"""What the tab shows: nothing that comes from a recipe, a log or a model can be anything but text."""

import json
import re
import sys
import time

import pytest

from sdrrl_factory.shipped import recipes as shipped
from sdrrl_factory.webui import look, prepare, runs
from sdrrl_factory.webui.locales import LABELS, WORDS
from sdrrl_factory.webui.recipes import Problem
from tests.transfer.test_report import Page

DEMO = shipped()["prepare/demo_spa"].read_text(encoding="utf-8")
NASTY = "</style></p><script>alert(1)</script>\"'\\}</iframe><img src=x onerror=alert(1)>*/"


def tags(text: str) -> set[str]:
    page = Page(text)
    assert page.open == []
    return {tag for tag, _ in page.seen}


def test_a_mistake_is_text_in_the_list_and_in_the_editor():
    text = look.problems([Problem(3, NASTY)], None, "code", "a\nb\nc\n")
    assert tags(text) == {"style", "ul", "li", "b"}
    style, listed = text[: text.index("</style>")], Page(text.partition("</style>")[2]).text
    assert NASTY in listed
    # CSS reads its escapes back to the same text, and nothing of it stands outside of the string.
    (content,) = re.findall(r'content:"([^"]*)"', style)
    assert re.sub(r"\\([0-9a-f]{6})", lambda match: chr(int(match[1], 16)), content) == NASTY[:90]
    assert not re.search(r"[<>'\n]", content)


def test_a_long_recipe_has_its_mistakes_in_the_list_alone():
    """The editor draws a part of its lines only, and their numbers are no longer those of the text."""
    assert "<style>" not in look.problems([Problem(3, "x")], None, "code", "a\n" * 500)


def test_a_report_is_in_a_frame_in_which_nothing_runs(folder):
    (folder / "report.html").write_text(f"<p>{NASTY}")
    (folder.parent / "outside/report.html").write_text("outside")
    text = look.report(["report.html", "../outside/report.html", "none.html"])
    page = Page(text)
    assert len(page.seen) == 2  # one a theme
    for tag, attributes in page.seen:
        assert tag == "iframe" and attributes["srcdoc"] == f"<p>{NASTY}"
        # Empty: no scripts, no forms, no top, an origin of its own.
        assert attributes["sandbox"] is None


def test_a_run_is_text(folder):
    command = [sys.executable, "-c", f"import sys; sys.exit({f'sdrrl: {NASTY}'!r})"]
    run = runs.start("prepare", NASTY, command)
    while run.state == "running":
        time.sleep(0.05)
    text = look.state(run, None)
    assert tags(text) == {"div", "p", "b", "span"} and f"sdrrl: {NASTY}" in Page(text).text
    assert tags(look.refused(NASTY)) == {"div", "p"} and tags(look.note(NASTY)) == {"p"}


def test_scores_are_those_of_the_file(folder):
    score = {"task": NASTY, "metric": "chrf", "source_lang": "eng", "target_lang": "spa", "value": 12.345, "n": 1000}
    file = folder / "results.json"
    file.write_text(json.dumps({"scores": [{**score, "ci95": [11.0, 13.5]}]}))
    text = look.scores(str(file), None)
    assert "script" not in tags(text)
    assert re.findall(r"<td>([\d.,– ]+)</td>", text) == ["12.3", "11.0 – 13.5", "1,000"]
    for broken in ("", "[]", '{"scores": [{}]}'):
        file.write_text(broken)
        assert "no scores yet" in look.scores(str(file), None)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7800, "2 h 10 min")]
)
def test_a_duration(seconds, text):
    assert look.duration(seconds) == text


def test_fields_are_read_from_the_text_and_written_to_it():
    values = dict(zip(prepare.KEYS, prepare.read_fields(DEMO), strict=True))
    assert values["name"] == "demo" and values["target_lang"] == "spa" and values["generator.template"] == "smollm2"
    assert values["max_samples"] == ""
    # What the recipe does not say is shown as it is by default.
    assert values["systems"] == ["sdrrl"] and values["translator.backend"] == "apertium"
    text = prepare.write_field("target_lang", DEMO, "spa, ind")
    text = prepare.write_field("max_samples", text, "20")
    text = prepare.write_field("systems", text, ["sdrrl", "sft"])
    values = dict(zip(prepare.KEYS, prepare.read_fields(text), strict=True))
    assert (values["target_lang"], values["max_samples"], values["systems"]) == ("spa, ind", "20", ["sdrrl", "sft"])
    # What is emptied is null where it stood, and stays away where it did not.
    assert "max_samples: null" in prepare.write_field("max_samples", text, "")
    assert isinstance(prepare.write_field("max_samples", DEMO, ""), dict)
    # Of a text that is no YAML nothing is read, and nothing is written to it.
    for broken in ("a: [", "a: &a [*a]", "- a"):
        assert all(isinstance(value, dict) for value in prepare.read_fields(broken))
        assert isinstance(prepare.write_field("name", broken, "x"), dict)


def test_every_word_is_there_in_both_languages():
    for words in (*LABELS.values(), *WORDS.values()):
        assert set(words) == {"en", "zh"}
    for words in LABELS.values():
        assert set(words["en"]) == set(words["zh"])
    for words in WORDS.values():
        assert re.findall(r"\{\w+\}", words["en"]) == re.findall(r"\{\w+\}", words["zh"])
