"""Runs the examination and prints each finding as it is made."""

import os
from collections.abc import Iterable

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
    failures = show(installed(kind, plugin_needed=kind in ("", "train") and not interleaves), "here")
    if recipe:
        failures += show(needs(kind, recipe, overrides), f"{kind} recipe {path}")
    print(f"{failures} to mend" if failures else "all there")
    return 1 if failures else 0


def show(findings: Iterable[Finding], title: str) -> int:
    """A line each, in colours on a terminal, the fix beside or below what it mends; returns how many fail."""
    from rich.console import Console
    from rich.text import Text

    console, failures = Console(highlight=False), 0
    colours = {"ok": "green", "no": "bold red", "-": "dim"}
    print(f"{title}:", flush=True)
    for finding in findings:
        failures += finding.state == "no"
        if console.is_terminal:
            line = Text.assemble((f"{finding.state:3}", colours[finding.state]), f" {finding.what:18} {finding.detail}")
            if finding.fix:
                line.append(f"\n{'':22} fix: {finding.fix}", "yellow")
            console.print(line, soft_wrap=True)
        else:
            fix = f"   fix: {finding.fix}" if finding.fix else ""
            print(f"{finding.state:3} {finding.what:18} {finding.detail}{fix}", flush=True)
    return failures
