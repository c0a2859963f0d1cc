"""The step Train: what was prepared goes into LLaMA-Factory's Train tab; the loss of each subset while it trains."""

import json
import time
from pathlib import Path
from typing import Any

import gradio as gr

from sdrrl_factory.errors import UserError
from sdrrl_factory.transfer.registered import registered
from sdrrl_factory.transfer.sets import SYSTEMS
from sdrrl_factory.transfer.summary import dataset_lines
from sdrrl_factory.webui import look, losses, runs
from sdrrl_factory.webui.folders import refuse_outside
from sdrrl_factory.webui.locales import label, word
from sdrrl_factory.webui.panel import QUIET, SECONDS, Page, Updates
from sdrrl_factory.webui.prepare import Prepare

# A log that nothing was written to for so long is of no training at work.
_SECONDS_AT_WORK = 600
# LLaMA-Factory's first tab; gradio has no way to choose a tab that has no id.
_OPEN_TRAIN_TAB = "() => { document.querySelector('.tab-container button[role=tab]').click(); }"


class Train:
    """The components of the step and what they do."""

    def __init__(self, page: Page, prepare: Prepare):
        self._lang = page.lang
        with gr.Row():
            self.dataset_dir = page.add("dataset_dir", gr.Textbox(value="data", scale=1, **label("dataset_dir")))
            self.sets = page.add("sets", gr.Dropdown(choices=[], value=None, scale=3, **label("sets")))
            fill = page.add("fill", gr.Button(variant="primary", scale=1, elem_id="sdrrl-train-fill", **label("fill")))
        self.filled = gr.HTML(padding=False, elem_id="sdrrl-train-filled")
        with gr.Row():
            self.training = page.add("training", gr.Dropdown(choices=[], value=None, scale=4, **label("training")))
            refresh = page.add("refresh", gr.Button(scale=1, **label("refresh")))
        self.curves = gr.HTML(padding=False, elem_id="sdrrl-train-curves", elem_classes="curves")
        self.timer = gr.Timer(2 * SECONDS, active=False)

        into = [page.element("train.dataset_dir"), page.element("train.dataset")]
        # Queued, as gradio shows errors of such events alone.
        loud: dict[str, Any] = {"show_progress": "hidden", "show_api": False}
        outputs = [*into, self.filled]
        fill.click(self._fill, [self.dataset_dir, self.sets, page.lang], outputs, **loud).success(
            None, None, None, js=_OPEN_TRAIN_TAB
        )
        prepare.train_on.click(self._fill_from_run, [prepare.panel.runs, page.lang], outputs, **loud).success(
            None, None, None, js=_OPEN_TRAIN_TAB
        )
        for event in (self.dataset_dir.blur, self.dataset_dir.submit):
            event(self._list_sets, [self.dataset_dir], [self.sets], **QUIET)
        shown = [self.curves, self.timer]
        self.training.input(self._curves, [self.training, page.lang], shown, **QUIET)
        self.timer.tick(self._curves, [self.training, page.lang], shown, **QUIET)
        refresh.click(self._latest, [page.lang], [self.training, *shown], **QUIET)

    def opened(self, tab: gr.Tab) -> None:
        """What was prepared and trained meanwhile, when the step is opened."""
        tab.select(self._list_sets, [self.dataset_dir], [self.sets], **QUIET)
        tab.select(self._latest, [self._lang], [self.training, self.curves, self.timer], **QUIET)

    @property
    def loaded(self) -> list[Any]:
        return [self.sets, self.training, self.curves, self.timer]

    def load(self, lang: str | None) -> Updates:
        choices = set_choices("data")
        return [gr.update(choices=choices, value=choices[0] if choices else None), *self._latest(lang)]

    def _latest(self, lang: str | None) -> Updates:
        found = losses.trainings()
        first = found[0] if found else None
        return [gr.update(choices=found, value=first), *self._curves(first, lang)]

    def _list_sets(self, dataset_dir: str) -> Any:
        choices = set_choices(dataset_dir)
        return gr.update(choices=choices, value=choices[0] if choices else None)

    def _curves(self, folder: str | None, lang: str | None) -> Updates:
        if not folder or folder not in losses.trainings():
            return [look.note(word("no_training", lang)), gr.update(active=False)]
        log = Path(folder, "trainer_log.jsonl")
        at_work = time.time() - log.stat().st_mtime < _SECONDS_AT_WORK and not _is_over(log)
        try:
            return [losses.curves_svg(folder), gr.update(active=at_work)]
        except UserError as err:
            return [look.note(str(err)), gr.update(active=at_work)]

    def _fill(self, dataset_dir: str, chosen: str | None, lang: str | None) -> Updates:
        names = set_names(dataset_dir, chosen or "")
        if not names:
            raise gr.Error(word("no_sets", lang), print_exception=False)
        return _filled(dataset_dir, names, lang)

    def _fill_from_run(self, run_id: str | None, lang: str | None) -> Updates:
        """The sets of SDRRL that a preparation made; where it made none, those of its first baseline."""
        run = runs.find(run_id)
        folders = run.outputs.get("sets", []) if run else []
        dataset_dir = run.outputs["dataset_dir"][0] if run else "data"
        for system in SYSTEMS:
            names = [name for folder in folders for name in set_names(dataset_dir, f"{folder}: {system}")]
            if names:
                return _filled(dataset_dir, names, lang)
        raise gr.Error(word("no_sets", lang), print_exception=False)


def _filled(dataset_dir: str, names: list[str], lang: str | None) -> Updates:
    return [dataset_dir, gr.update(choices=names, value=names), look.note(word("filled", lang, n=len(names)))]


def set_choices(dataset_dir: str) -> list[str]:
    """`demo_spa: sdrrl`: each prepared folder with each system that has sets in it."""
    return list(_sets_by_system(dataset_dir))


def set_names(dataset_dir: str, chosen: str) -> list[str]:
    """The entries of dataset_info.json that a choice of `set_choices` stands for."""
    return _sets_by_system(dataset_dir).get(chosen, [])


def _sets_by_system(dataset_dir: str) -> dict[str, list[str]]:
    try:
        refuse_outside(dataset_dir)
        found = registered(Path(dataset_dir))
    except (UserError, OSError):
        return {}
    by_system = {}
    for folder in dict.fromkeys(row.folder for row in found):
        own = [row.name for row in found if row.folder == folder]
        # SDRRL's first: it is what most come for.
        for system, line in sorted(dataset_lines(own), key=lambda item: item[0] != "sdrrl"):
            by_system[f"{folder}: {system}"] = line.removeprefix("dataset: ").split(",")
    return by_system


def _is_over(log: Path) -> bool:
    """Whether the last line of a training's log is of its last step."""
    lines = log.read_text(encoding="utf-8").splitlines()
    try:
        last = json.loads(lines[-1])
        return last["current_steps"] >= last["total_steps"]
    except (IndexError, ValueError, KeyError, TypeError):
        return False
