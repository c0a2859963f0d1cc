"""How the code is written, where a reader relies on it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "sdrrl_factory").rglob("*.py"), *(ROOT / "eval").rglob("*.py")])


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node


def test_there_are_files():
    assert len(FILES) > 80


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_is_handed_the_place_of_a_mistake(path):
    """A mistake carries its key; only the edge knows where the key stands (errors.py)."""
    for function in functions(path):
        arguments = function.args
        names = [a.arg for a in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]]
        assert not {"place", "where"} & set(names), f"line {function.lineno}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_class_stands_in_a_function(path):
    """It could not be pickled, and is made anew at each call."""
    for function in functions(path):
        inner = [node.name for node in ast.walk(function) if isinstance(node, ast.ClassDef)]
        assert not inner, f"line {function.lineno}: {inner}"
