"""docs/architecture.md, "Where the paper is": every line of the method points at code that is there."""

import ast
import re

import pytest

from tests.conftest import ROOT

HOUSE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split("```")[1]
SECTION = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").partition("## Where the paper is")[2]
TABLE = [line for line in SECTION.partition("\n## ")[0].splitlines() if line.startswith("|")]
# file:name, file:Class.method, or file:NAME["key"] of a table that the file holds.
POINTER = re.compile(r"`([\w/]+\.py):([\w.]+)(?:\[\"(\w+)\"\])?`")
POINTERS = POINTER.findall("\n".join(TABLE))


def names(tree: ast.AST, prefix: str = "") -> set[str]:
    """What a module, or a class in it, defines: functions, classes with their methods, variables."""
    out = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            out.add(prefix + node.name)
        if isinstance(node, ast.ClassDef):
            out |= names(node, f"{prefix}{node.name}.")
        if isinstance(node, ast.Assign):
            out |= {prefix + target.id for target in node.targets if isinstance(target, ast.Name)}
    return out


@pytest.mark.parametrize(("file", "name", "key"), POINTERS)
def test_a_pointer_leads_to_its_code(file, name, key):
    code = (ROOT / "sdrrl_factory" / file).read_text(encoding="utf-8")
    assert name in names(ast.parse(code))
    if key:
        from sdrrl_factory.transfer import sets

        assert file == "transfer/sets.py" and key in getattr(sets, name)


def test_every_line_of_the_method_is_in_the_table():
    assert all(POINTER.search(line) for line in TABLE[2:])
    text = "\n".join(TABLE)
    lines = [f"Equation {n}" for n in range(1, 7)]
    lines += ["G", "T(x)", "tau", "off-target", "D_LL", "D_TL", "D_LT", "D_TT", "P", "D_mt", "D_comp"]
    for line in lines:
        assert re.search(rf"\| [^|]*\b{re.escape(line)}(?!\w)[^|]*\|", text), line


def test_the_drawing_shows_every_file_and_no_other():
    modules = {
        path
        for package in ("sdrrl_factory", "eval/sdrrl_eval")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py" and path.parent.name != "tasks"
    }
    drawn = set(re.findall(r"(\w+\.py)\b", HOUSE))
    assert {path.name for path in modules} - drawn == set()
    tasks = {path.name for path in (ROOT / "eval/sdrrl_eval/measure/tasks").glob("*.py")}
    assert drawn - {path.name for path in modules} <= tasks


@pytest.mark.parametrize(
    "page", sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]), ids=lambda page: page.name
)
def test_a_page_names_files_that_are_there(page):
    named = re.findall(
        r"`((?:tests|sdrrl_factory|eval|benchmarks|yaml_recipes|docs)/[\w/]+\.\w+)`", page.read_text(encoding="utf-8")
    )
    # "eval/demo_spa.yaml" is a recipe by its name.
    assert [path for path in named if not (ROOT / path).exists() and not (ROOT / "yaml_recipes" / path).exists()] == []
