"""The loss of each subset over the steps, beside LLaMA-Factory's own plot."""

from pathlib import Path


def plot_subset_losses(history: list[dict], path: Path) -> bool:
    """Draw every `loss_<subset>` of a trainer's log history; False, and no file, when there is none."""
    from matplotlib.figure import Figure

    keys = list(dict.fromkeys(key for line in history for key in line if key.startswith("loss_")))
    if not keys:
        return False
    figure = Figure(figsize=(6.4, 4.8))
    axes = figure.add_subplot()
    for key in keys:
        # A step without a sample of a small subset has no loss of it in its line.
        lines = [line for line in history if key in line]
        steps, losses = [line["step"] for line in lines], [line[key] for line in lines]
        axes.plot(steps, losses, marker="." if len(lines) < 30 else None, label=key.removeprefix("loss_"))
    axes.set(xlabel="step", ylabel="loss", title="mean loss of each subset's samples")
    axes.legend()
    figure.savefig(path, dpi=100)
    return True
