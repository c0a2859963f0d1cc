"""Runs the examination and prints it."""

import os

from sdrrl_factory.doctor.finding import Finding
from sdrrl_factory.doctor.installed import installed
from sdrrl_factory.doctor.needs import needs
from sdrrl_factory.recipe import kind_of, read


def doctor(path: str | None, overrides: list[str]) -> int:
    """Print the findings; returns 0 if the basics, and what the recipe at `path` needs, are there, else 1."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    recipe = read(path, overrides) if path else None
    kind = kind_of(recipe) if recipe else ""
    # What LLaMA-Factory itself interleaves is trained by its own loss.
    interleaves = recipe is not None and str(recipe.config.get("mix_strategy", "")).startswith("interleave")
    findings = installed(plugin_needed=kind in ("", "train") and not interleaves)
    show(findings, "here")
    if recipe:
        needed = needs(kind, recipe, overrides)
        show(needed, f"{kind} recipe {path}")
        findings += needed
    failures = sum(finding.state == "no" for finding in findings)
    print(f"{failures} to mend" if failures else "all there")
    return 1 if failures else 0


def show(findings: list[Finding], title: str) -> None:
    """A table in a terminal, else plain lines; the fix is beside what it mends."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        print(f"{title}:")
        for finding in findings:
            fix = f"   fix: {finding.fix}" if finding.fix else ""
            print(f"{finding.state:3} {finding.what:18} {finding.detail}{fix}")
        return
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("", "", "", "fix"):
        table.add_column(name, overflow="fold")
    colours = {"ok": "green", "no": "bold red", "-": "dim"}
    for finding in findings:
        state = Text(finding.state, style=colours[finding.state])
        table.add_row(state, finding.what, Text(finding.detail), Text(finding.fix, style="yellow"))
    console.print(table)
