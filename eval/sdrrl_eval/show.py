"""How a score is named and written: on the terminal, in Markdown, LaTeX and report.html alike."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# metric: (its name, which way is better, decimals, unit)
_METRICS = {
    "accuracy": ("accuracy", "↑", 2, ""),
    "accuracy_paper": ("accuracy by the paper's parser", "↑", 2, ""),
    "bleu": ("BLEU", "↑", 1, ""),
    "chrf": ("chrF", "↑", 1, ""),
    "chrf++": ("chrF++", "↑", 1, ""),
    "comet": ("COMET", "↑", 2, ""),
    "rouge1": ("ROUGE-1", "↑", 2, ""),
    "rougeL": ("ROUGE-L", "↑", 2, ""),
    "f1": ("F1", "↑", 2, ""),
    "em": ("exact match", "↑", 2, ""),
    "text_loss": ("text loss", "↓", 3, ""),
    "answer_loss": ("answer loss", "↓", 3, ""),
    "off_target": ("off-target", "↓", 1, "%"),
}
_TASKS = {"belebele": "BELEBELE", "flores": "FLORES-200", "xlsum": "XL-SUM", "mkqa": "MKQA"}


def _row(name: str) -> tuple[str, str, int, str]:
    # A results.json may hold a metric of a later version, or of someone's own task.
    return _METRICS.get(name, (name, "↑", 3, ""))


def task(name: str) -> str:
    """The benchmark's own spelling: "XL-SUM"."""
    return _TASKS.get(name, name.replace("_", " "))


def metric(name: str) -> str:
    """The metric with the arrow that says which way is better: "chrF ↑"."""
    label, arrow, _, _ = _row(name)
    return f"{label} {arrow}"


def label(task_name: str, name: str) -> str:
    """ "translation chrF ↑"; the task is left out where the metric says it."""
    return metric(name) if task_name == name else f"{task(task_name)} {metric(name)}"


def lower_is_better(name: str) -> bool:
    return _row(name)[1] == "↓"


def number(name: str, value: float) -> str:
    """The value with the metric's decimals and unit: "12.3%"."""
    _, _, decimals, unit = _row(name)
    return f"{value:.{decimals}f}{unit}"


def change(name: str, base: float, value: float) -> tuple[str, str]:
    """(text, "better" | "worse" | "same"); of the values as they are shown, so that the line adds up."""
    decimals = _row(name)[2]
    delta = round(value, decimals) - round(base, decimals)
    size = number(name, abs(delta)).replace("%", " points")
    if not round(delta, decimals):  # the difference of two rounded numbers rounds once more
        return "no change", "same"
    verdict = "better" if (delta < 0) == lower_is_better(name) else "worse"
    return f"{'↑' if delta > 0 else '↓'} {size} {verdict}", verdict


def direction(score: dict) -> str:
    """ "eng → spa", or "spa" where a single language is at work."""
    return f"{score['source_lang']} → {score['target_lang']}" if score["source_lang"] else score["target_lang"]


def console() -> "Console":
    """Where there is no terminal, a width that no table is broken by."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=140)
