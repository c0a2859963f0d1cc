import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP = [
    "choices",
    "comet",
    "config",
    "embedded",
    "errors",
    "files",
    "language_id",
    "languages",
    "lm",
    "pages",
    "rows",
    "server",
    "text",
    "words",
]


def modules(package: str) -> list[Path]:
    path = (ROOT / "eval" if package == "sdrrl_eval" else ROOT) / package.replace(".", "/")
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def imported(path: Path) -> set[str]:
    """Every name a file imports, at its top or inside a function, as package.module[.name]."""
    start = next(i for i, part in enumerate(path.parts) if part in ("sdrrl_factory", "sdrrl_eval"))
    package = path.parts[start:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            base = [*above, node.module] if node.module else above
            names |= {".".join([*base, alias.name]) for alias in node.names}
    return names


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("sdrrl_factory.training", ("sdrrl_factory.transfer", "sdrrl_eval")),
        ("sdrrl_factory.transfer", ("sdrrl_factory.training", "sdrrl_eval")),
        ("sdrrl_eval", ("sdrrl_factory.transfer", "sdrrl_factory.training")),
        *(
            (f"sdrrl_factory.{m}", tuple(f"sdrrl_factory.{p}" for p in ("transfer", "training")) + ("sdrrl_eval",))
            for m in TOP
        ),
    ],
)
def test_imports_run_one_way(package, forbidden):
    paths = modules(package)
    assert paths and all(path.is_file() for path in paths)
    for path in paths:
        wrong = {name for name in imported(path) if any(f"{name}.".startswith(f"{f}.") for f in forbidden)}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_imported_sees_every_form(tmp_path):
    path = tmp_path / "sdrrl_eval" / "tasks" / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text("def f():\n    from . import a\n    from ..b import c\n    import d.e as g\nfrom h import i\n")
    assert imported(path) == {"sdrrl_eval.measure.tasks.a", "sdrrl_eval.b.c", "d.e", "h.i"}


HEAVY = ("torch", "transformers", "yaml", "rich", "omegaconf", "llamafactory", "sacrebleu", "numpy", "matplotlib")


def test_the_command_line_starts_light():
    code = f"import sys, sdrrl_factory.cli; print(*({set(HEAVY)!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
