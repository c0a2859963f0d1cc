"""The loss of each subset: below LLaMA-Factory's own curve in its Train tab, and in the step Train."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrrl_factory.pages import SET_COLOURS
from sdrrl_factory.webui.folders import files_below

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Where LLaMA-Factory's page and the shipped recipes write trainings, relative to the working folder.
_FOLDERS = ("saves", "runs/train")


def add_subset_losses(figure: "Figure", trainer_log: Sequence[dict[str, Any]]) -> "Figure":
    """LLaMA-Factory's figure, its curve untouched, with a second one below it: a line a subset.

    Where the log has no losses of subsets it stays as it is.
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in trainer_log:
        for key, loss in line.items():
            if key.startswith("loss_") and isinstance(loss, int | float):
                curves.setdefault(key.removeprefix("loss_"), []).append((line["current_steps"], loss))
    if not curves or len(figure.axes) != 1:
        return figure
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, 2 * height)
    grid = figure.add_gridspec(2, 1, hspace=0.22)
    figure.axes[0].set_subplotspec(grid[0])
    axes = figure.add_subplot(grid[1])
    for subset, points in sorted(curves.items(), key=lambda item: _order(item[0])):
        steps, losses = zip(*points, strict=True)
        # A single point of a line is seen only as a dot.
        marker = "." if len(points) < 30 else None
        axes.plot(steps, losses, label=subset, color=SET_COLOURS.get(subset), marker=marker)
    axes.legend(ncols=3, fontsize="small")
    axes.set_xlabel("step")
    axes.set_ylabel("loss by subset")
    return figure


def _order(subset: str) -> tuple[int, str]:
    names = list(SET_COLOURS)
    return (names.index(subset) if subset in names else len(names), subset)


def trainings() -> list[str]:
    """The trainings that wrote a log, newest first, each by its folder."""
    logs = [path for folder in _FOLDERS for path in files_below(folder, "trainer_log.jsonl", 3)]
    return [str(path.parent) for path in sorted(logs, key=lambda path: -path.stat().st_mtime)]


def curves_svg(folder: str) -> str:
    """The curves of a training's log as SVG. Raises: UserError where the log has none."""
    from sdrrl_eval.compare.curves import read_curves, svg

    drawn = svg(read_curves(str(Path(folder, "trainer_log.jsonl"))))
    # matplotlib's style sheet is for every element, within a page for the whole page's.
    return re.sub(r"<style.*?</style>", "", drawn, flags=re.DOTALL)
