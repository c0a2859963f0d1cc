"""What every step with runs has: the list of its runs, the state of the one that is looked at, its log, its end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import gradio as gr

from sdrrl_factory.errors import UserError
from sdrrl_factory.webui import look, runs
from sdrrl_factory.webui.locales import label, word
from sdrrl_factory.webui.runs import Run

SECONDS = 2  # between two looks at a run
# How an event goes that only shows something: at once, and without a sign that it is at work.
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "show_api": False}
Updates = list[Any]


@dataclass
class Page:
    """LlamaBoard's page while the tab is built: its language, its components by name, and what the tab adds to it."""

    blocks: gr.Blocks
    engine: Any
    lang: gr.Dropdown
    labelled: list[tuple[str, Any]] = field(default_factory=list)

    def add(self, name: str, component: Any) -> Any:
        """A component whose words follow the language of the page."""
        self.labelled.append((name, component))
        return component

    def element(self, name: str) -> Any:
        """A component of LLaMA-Factory's, as "train.dataset"."""
        return self.engine.manager.get_elem_by_id(name)

    def change_lang(self, lang: str | None) -> Updates:
        """The words of all components in another language."""
        return [gr.update(**label(name, lang)) for name, _ in self.labelled]


class Panel:
    """The runs of some kinds; `outputs` are its components, in the order in which `show` gives their updates.

    result: what is shown of a run that has ended, as updates of the components `results`.
    """

    def __init__(self, page: Page, kinds: Sequence[str], name: str):
        self._kinds = tuple(kinds)
        with gr.Row():
            self.runs = page.add("runs", gr.Dropdown(choices=[], value=None, scale=4, **label("runs")))
            self.stop = page.add(
                "stop",
                gr.Button(variant="stop", scale=1, interactive=False, elem_id=f"sdrrl-{name}-stop", **label("stop")),
            )
        self.state = gr.HTML(padding=False, elem_id=f"sdrrl-{name}-state")
        with page.add("log", gr.Accordion(open=False, **label("log"))):
            self.log = gr.Textbox(
                lines=14, max_lines=14, show_label=False, interactive=False, elem_id=f"sdrrl-{name}-log"
            )
        self.timer = gr.Timer(SECONDS, active=False)
        self._lang = page.lang
        self._results: list[Any] = []
        self._result: Callable[[Run | None, str | None], Updates] = no_result

    @property
    def outputs(self) -> list[Any]:
        return [self.runs, self.state, self.log, self.stop, self.timer, *self._results]

    def connect(self, result: Callable[[Run | None, str | None], Updates], results: list[Any]) -> None:
        """Wire it up, once the components that show a run's results are there."""
        self._result, self._results = result, results
        chosen = [self.runs, self._lang]
        self.timer.tick(self.tick, chosen, self.outputs, **QUIET)
        self.runs.input(self.show, chosen, self.outputs, **QUIET)
        self.stop.click(self._stop, chosen, self.outputs, **QUIET)

    def choices(self, lang: str | None) -> list[tuple[str, str]]:
        """(what it is, when it began and its state; its id) of the runs, newest first."""
        return [
            (f"{run.what} · {datetime.fromtimestamp(run.started):%m-%d %H:%M:%S} · {word(run.state, lang)}", run.id)
            for run in runs.all_runs(*self._kinds)[:100]
        ]

    def latest(self) -> Run | None:
        """The run to look at first: one at work, or else the last one started."""
        found = runs.all_runs(*self._kinds)
        return next((run for run in found if run.state == "running"), found[0] if found else None)

    def show(self, run_id: str | None, lang: str | None = None, *lines: str) -> Updates:
        """A run as it is now, its results included."""
        run = runs.find(run_id)
        is_running = run is not None and run.state == "running"
        return [
            gr.update(choices=self.choices(lang), value=run.id if run else None),
            look.state(run, lang, *lines),
            run.log if run else "",
            gr.update(interactive=is_running),
            gr.update(active=is_running),
            *self._result(None if is_running else run, lang),
        ]

    def tick(self, run_id: str | None, lang: str | None) -> Updates:
        """A run that is looked at, again: only what changes while it is at work."""
        run = runs.find(run_id)
        if run is None or run.state != "running":
            return self.show(run_id, lang)
        return [gr.skip(), look.state(run, lang), run.log, gr.skip(), gr.skip(), *[gr.skip() for _ in self._results]]

    def refuse(self, run_id: str | None, lang: str | None, err: UserError) -> Updates:
        """What could not be done, above the run that is looked at."""
        lines = [" ".join(line.split()) for line in str(err).splitlines()]
        updates = self.show(run_id, lang)
        updates[1] = look.refused(*lines) + (look.state(runs.find(run_id), lang) if runs.find(run_id) else "")
        return updates

    def _stop(self, run_id: str | None, lang: str | None) -> Updates:
        run = runs.find(run_id)
        if run:
            runs.stop(run)
        return self.tick(run_id, lang)


def finished(run: Run | None, kind: str) -> Run | None:
    """The run, if it is of this kind and has ended well."""
    return run if run and run.kind == kind and run.state == "finished" else None


def no_result(run: Run | None, lang: str | None) -> Updates:
    return []
