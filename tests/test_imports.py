"""Imports run one way: the edge -> training | transfer | the evaluator -> the shared modules. No module is left out."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sdrrl_factory

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "sdrrl_factory").rglob("*.py"), *(ROOT / "eval/sdrrl_eval").rglob("*.py")])
# What puts the sides together. Every other module of sdrrl_factory outside training/ and transfer/ is shared by all.
EDGE = ("cli", "doctor", "interface", "learning_rate", "recipe_docs", "schema", "study", "webui")
SIDES = ("training", "transfer")
# What opens the plugin in a process names the tab that it puts into LLaMA-Factory's page.
INLETS = {"sdrrl_factory.training.autoload": {"sdrrl_factory.webui.install.install_page"}}


def layer(name: str) -> str | None:
    """The layer of package.module[.name]; None for another package's, and for what __init__.py itself defines."""
    package, module = [*name.split("."), "__init__"][:2]
    if package == "sdrrl_eval":
        return "sdrrl_eval"
    if package != "sdrrl_factory":
        return None
    if module in SIDES:
        return module
    folder = ROOT / "sdrrl_factory"
    if module in EDGE or module in sdrrl_factory.__all__:
        return "edge"
    return "shared" if (folder / f"{module}.py").is_file() or (folder / module).is_dir() else None


def module_of(path: Path) -> str:
    start = next(i for i, part in enumerate(path.parts) if part in ("sdrrl_factory", "sdrrl_eval"))
    return ".".join([*path.parts[start:-1], path.stem])


def imported(path: Path) -> set[str]:
    """Every name a file imports, at its top or inside a function, as package.module[.name]."""
    package = module_of(path).split(".")[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            base = [*above, node.module] if node.module else above
            names |= {".".join([*base, alias.name]) for alias in node.names}
    return names


def wrong_imports(path: Path) -> list[str]:
    name = module_of(path)
    own = "edge" if name == "sdrrl_factory.__init__" else layer(name)
    if own == "edge":
        return []
    allowed = INLETS.get(name, set())
    return sorted(other for other in imported(path) - allowed if layer(other) not in (None, own, "shared"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    assert not wrong_imports(path)


def test_every_layer_is_there():
    layers = [layer(module_of(path)) for path in FILES]
    assert set(layers) == {"edge", "shared", "sdrrl_eval", *SIDES}
    assert min(map(layers.count, layers)) > 5


@pytest.mark.parametrize(
    ("file", "line", "wrong"),
    [
        ("sdrrl_factory/training/x.py", "from sdrrl_factory.transfer import pipeline", True),
        ("sdrrl_factory/transfer/x.py", "import sdrrl_eval.measure.runner", True),
        ("sdrrl_factory/transfer/x.py", "from sdrrl_factory import training", True),
        ("sdrrl_eval/measure/x.py", "from sdrrl_factory.training.hook import install", True),
        ("sdrrl_eval/measure/x.py", "from sdrrl_factory.doctor.finding import Finding", True),
        ("sdrrl_factory/models/x.py", "def f():\n    from ..transfer import run", True),
        ("sdrrl_factory/text.py", "from sdrrl_factory import prepare", True),
        ("sdrrl_factory/cli.py", "from sdrrl_factory.transfer import run", False),
        ("sdrrl_factory/training/x.py", "from sdrrl_factory import files, __version__", False),
        ("sdrrl_eval/measure/x.py", "from . import y\nfrom ..compare.runs import Run", False),
    ],
)
def test_what_is_a_wrong_import(file, line, wrong, tmp_path):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    assert bool(wrong_imports(path)) == wrong


def test_imported_sees_every_form(tmp_path):
    path = tmp_path / "sdrrl_eval" / "tasks" / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text("def f():\n    from . import a\n    from ..b import c\n    import d.e as g\nfrom h import i\n")
    assert imported(path) == {"sdrrl_eval.tasks.a", "sdrrl_eval.b.c", "d.e", "h.i"}


HEAVY = ("torch", "transformers", "yaml", "rich", "omegaconf", "pydantic", "llamafactory", "sacrebleu", "numpy")
HEAVY += ("matplotlib",)


def test_the_command_line_starts_light():
    code = f"import sys, sdrrl_factory.cli; print(*({set(HEAVY)!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
