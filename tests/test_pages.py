"""The templates: everything shown is escaped, nothing is named that was not given; charts against counts by hand."""

from importlib.resources import files

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from sdrrl_factory import pages
from sdrrl_factory.pages.charts import Histogram

NASTY = "</style><script>x</script> | `a` [b](c) {{ title }} {% raw %} 'q' \"d\" &amp;"


def test_a_page_escapes_what_it_is_given_and_takes_html_as_it_is():
    text = pages.html("base.html", title=NASTY)
    assert "<script" not in text and "&lt;script&gt;" in text
    # What looks like a template in a value is text.
    assert "{{ title }} {% raw %}" in text
    assert "<title><b>x</b></title>" in pages.html("base.html", title=Markup("<b>x</b>"))


@pytest.mark.parametrize("name", ["prepare.html", "compare.html"])
def test_a_page_may_not_name_what_it_was_not_given(name):
    with pytest.raises(UndefinedError):
        pages.html(name, title="t")


def test_a_card_may_not_name_what_it_was_not_given():
    with pytest.raises(UndefinedError):
        pages.markdown("card.md", title="t")


def test_the_templates_are_files_of_the_package():
    names = {path.name for path in files("sdrrl_factory.pages").iterdir()}
    assert {"base.html", "style.css", "prepare.html", "compare.html", "charts.html", "card.md"} <= names


def test_a_histogram_draws_each_count_to_scale():
    chart = Histogram([("a", "red", [0, 4, 1]), ("b", "blue", [2, 0, 0])], [(0, "0"), (3, "3")], "x")
    assert chart.highest == 4 and chart.step == pytest.approx(280 / 3)
    drawn = [(r.series, r.count, round(r.x, 2), round(r.height, 2)) for r in chart.rectangles]
    assert drawn == [("a", 4, 94.08, 96.0), ("a", 1, 187.42, 24.0), ("b", 2, 0.75, 48.0)]
    # All stand on one line.
    assert {r.y + r.height for r in chart.rectangles} == {118}


def test_one_row_among_thousands_is_seen():
    few, many = Histogram([("a", "red", [1, 100_000])], [], "x").rectangles
    assert few.height == 1.5 and many.height == 96
