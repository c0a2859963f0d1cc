"""The loss curves of a training, out of LLaMA-Factory's trainer_log.jsonl."""

import io
import re
from collections.abc import Sequence

from sdrrl_eval.compare.runs import is_number
from sdrrl_factory.errors import UserError
from sdrrl_factory.pages import SET_COLOURS
from sdrrl_factory.rows import read_rows

Curves = dict[str, list[tuple[int, float]]]  # subset -> its (step, loss) points, in order

# Of sets that are not SDRRL's, and of the total.
_OTHER_COLOURS = ["#334155", "#a16207", "#be123c", "#4d7c0f"]
_SET_ORDER = list(SET_COLOURS)


def read_curves(train_log: str) -> Curves:
    """Per subset (LL, TL, ...) its points; the total ("all") where the log has no subsets.

    A step logged twice (a resumed run) keeps its last loss. Raises UserError at the line of what is no loss.
    """
    points: dict[str, dict[int, float]] = {}
    for at, _, row in read_rows(train_log):
        for key, loss in row.items():
            match = re.fullmatch(r"loss(?:_([A-Za-z]\w*))?", key)
            if match is None:
                continue
            step = row.get("current_steps")
            if not isinstance(step, int) or not is_number(loss):
                raise UserError("current_steps or a loss is no number", "remove the line", at=at)
            points.setdefault(match[1] or "all", {})[step] = float(loss)
    if not points:
        fix = "name the trainer_log.jsonl in the training's output_dir"
        raise UserError("no line with a loss", fix, at=train_log)
    if len(points) > 1:
        points.pop("all", None)
    return {name: sorted(curve.items()) for name, curve in points.items()}


def svg(curves: Curves) -> str:
    """The curves as an inline SVG, one colour a subset: running means, the raw values faint behind.

    The same curves give the same bytes.
    """
    import matplotlib

    settings = {"svg.hashsalt": "sdrrl", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 11}
    with matplotlib.rc_context(settings):
        # Figure itself, not pyplot: no window system, no global state.
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.6, 3.9), layout="constrained")
        axes = figure.add_subplot()
        others = 0
        for name in sorted(curves, key=_order):
            if name in SET_COLOURS:
                colour = SET_COLOURS[name]
            else:
                colour = _OTHER_COLOURS[others % len(_OTHER_COLOURS)]
                others += 1
            steps, losses = zip(*curves[name], strict=True)
            axes.plot(steps, losses, color=colour, alpha=0.2, linewidth=1)
            axes.plot(steps, _smooth(losses), color=colour, linewidth=2, label=name, solid_capstyle="round")
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss (nats a token)")
        axes.grid(axis="y", color="#e2e8f0")
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color("#cbd5e1")
        figure.legend(loc="outside upper left", ncols=6, frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    # Without the XML declaration, which has no place within a page, and the metadata, which name the library.
    inline = text.getvalue()[text.getvalue().index("<svg") :]
    inline = re.sub(r"<metadata>.*?</metadata>", "", inline, flags=re.DOTALL)
    return inline.replace("<svg ", '<svg role="img" aria-label="training loss by subset" ', 1)


def _order(name: str) -> tuple[int, str]:
    """SDRRL's sets as the paper has them, then the others by name."""
    return (_SET_ORDER.index(name) if name in SET_COLOURS else len(_SET_ORDER), name)


def _smooth(losses: Sequence[float]) -> list[float]:
    """A centred running mean over about a twelfth of the curve."""
    half = len(losses) // 24
    windows = [losses[max(0, i - half) : i + half + 1] for i in range(len(losses))]
    return [sum(window) / len(window) for window in windows]
