"""The pages: their links lead somewhere, they build as a site, and what they quote is there."""

import ast
import re
import shutil
from collections.abc import Iterator

import pytest
import yaml

from sdrrl_factory import __version__
from tests.conftest import ROOT, command
from tests.links import anchors, broken


def test_every_link_leads_somewhere():
    assert broken(ROOT) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.md").write_text(
        "# One `two`, three\n\n## Same\n\n## Same\n\n```\n# no heading\n[x](none.md)\n```\n"
    )
    (tmp_path / "README.md").write_text(
        "[right](docs/a.md#one-two-three) [twice](docs/a.md#same-1) `[code](none.md)` [web](https://example.org/x)\n"
        "[no file](docs/b.md) [no heading](docs/a.md#no-heading) ![no picture](docs/a.png) [own](#nothing)\n"
        "[absolute](/docs/a.md)\n"
    )
    assert broken(tmp_path) == [
        "README.md: docs/b.md: no such file",
        "README.md: docs/a.md#no-heading: no such heading",
        "README.md: docs/a.png: no such file",
        "README.md: #nothing: no such heading",
        "README.md: /docs/a.md: no such file",
    ]
    assert anchors("## `sdrrl eval`\n") == {"sdrrl-eval"}


@pytest.fixture
def site(tmp_path):
    """A copy of the pages and their settings, to build or to break."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    return tmp_path


def test_the_site_is_built(site):
    command("mkdocs", "build", cwd=site)
    page = (site / "build/site/recipes/index.html").read_text(encoding="utf-8")
    assert "keep_ground_truth" in page and "<table>" in page
    # Whoever reads it asks no other host for anything.
    assert "fonts.g" not in page and 'src="http' not in page and 'stylesheet" href="http' not in page


def test_broken_links_end_the_build(site):
    links = ["none.md", "recipes.md#no-such-heading", "images/none.png"]
    with (site / "docs/python.md").open("a", encoding="utf-8") as page:
        page.write("".join(f"\n[broken]({link})\n" for link in links))
    done = command("mkdocs", "build", cwd=site, check=False)
    assert done.returncode and all(link.rpartition("/")[2] in done.stderr for link in links)


def _texts(tree: ast.AST) -> Iterator[str]:
    """Every text of a module as it is written; what an f-string fills in is a "\0"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)


def test_the_messages_of_the_page_are_those_of_the_tools():
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### (`.+)$", page, re.MULTILINE)
    messages = [message for heading in headings for message in re.findall(r"`([^`]+)`", heading)]
    files = [*(ROOT / "sdrrl_factory").rglob("*.py"), *(ROOT / "eval").rglob("*.py")]
    texts = [text.replace("`", "") for file in files for text in _texts(ast.parse(file.read_text(encoding="utf-8")))]
    assert len(messages) > 20
    for message in messages:
        pattern = re.compile(".*".join(map(re.escape, message.strip(". ").split("..."))), re.DOTALL)
        assert any(pattern.search(text) for text in texts), message


def test_the_citation_is_of_this_version_and_of_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__ and citation["cff-version"] == "1.2.0"
    paper = citation["preferred-citation"]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").replace(">", " ").split())
    authors = ", ".join(f"{author['given-names']} {author['family-names']}" for author in paper["authors"])
    assert f"{authors}: *{paper['title']}*. ACL {paper['year']}." in readme
