"""A table of a study as a picture: for each score a panel, each system's mean with its interval, its seeds as dots."""

import io
from collections.abc import Sequence

from sdrrl_eval import show
from sdrrl_eval.compare.shared import SharedScore

_COLUMNS, _MEAN, _SEED = 3, "#1d4ed8", "#94a3b8"


def svg(scores: Sequence[SharedScore], labels: Sequence[str], order: Sequence[int]) -> str:
    """The picture as SVG; the same scores give the same bytes.

    labels: the systems' names as `scores` have them. order: in which they stand in a panel.
    """
    import matplotlib

    settings = {"svg.hashsalt": "sdrrl", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
    with matplotlib.rc_context(settings):
        # Figure itself, not pyplot: no window system, no global state.
        from matplotlib.figure import Figure

        rows = -(-len(scores) // _COLUMNS)
        figure = Figure(figsize=(3.6 * _COLUMNS, 0.9 + rows * (0.6 + 0.22 * len(order))), layout="constrained")
        panels = figure.subplots(rows, _COLUMNS, squeeze=False).flat
        for panel, score in zip(panels, scores, strict=False):
            for place, system in enumerate(order):
                entry = score.scores[system]
                low, high = entry["ci95"] or (entry["value"], entry["value"])
                seeds = [part.scores[system]["value"] for part in score.parts]
                panel.plot([low, high], [place, place], color=_MEAN, linewidth=1.5, solid_capstyle="round")
                panel.plot(seeds, [place] * len(seeds), "o", color=_SEED, markersize=4)
                panel.plot([entry["value"]], [place], "D", color=_MEAN, markersize=5)
            panel.set_title(f"{score.label}, {show.direction(score.scores[0])}", fontsize=9)
            panel.set_yticks(range(len(order)), [labels[i] for i in order])
            panel.invert_yaxis()
            panel.grid(axis="x", color="#e2e8f0")
            panel.spines[["top", "right", "left"]].set_visible(False)
        for panel in list(figure.axes)[len(scores) :]:
            panel.set_visible(False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
