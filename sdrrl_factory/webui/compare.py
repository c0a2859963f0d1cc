"""The step Compare: finished evaluations side by side, as the command `sdrrl compare` sets them; and the downloads."""

from pathlib import Path
from typing import Any

import gradio as gr

from sdrrl_factory.errors import UserError
from sdrrl_factory.webui import look, losses, runs
from sdrrl_factory.webui.folders import files_below
from sdrrl_factory.webui.locales import label, word
from sdrrl_factory.webui.panel import QUIET, Page, Panel, Updates, finished
from sdrrl_factory.webui.runs import Run

# What a comparison writes: kind -> (the command's option, the file).
_FILES = {
    "html": ("--output", "report.html"),
    "tex": ("--latex", "tables.tex"),
    "md": ("--markdown", "tables.md"),
    "csv": ("--csv", "scores.csv"),
}


class Compare:
    """The components of the step and what they do."""

    def __init__(self, page: Page):
        self.evaluations = page.add(
            "evaluations", gr.Dropdown(choices=[], value=[], multiselect=True, **label("evaluations"))
        )
        with gr.Row():
            self.train_log = page.add("train_log", gr.Dropdown(choices=[], value=None, **label("train_log")))
            self.paper = page.add("paper", gr.Dropdown(choices=_paper(), value="", **label("paper")))
            self.holm = page.add("holm", gr.Checkbox(value=False, **label("holm")))
        go = page.add("compare", gr.Button(variant="primary", elem_id="sdrrl-compare-start", **label("compare")))
        self.panel = Panel(page, ("compare",), "compare")
        with gr.Row():
            self.downloads = {
                kind: page.add(
                    f"download_{kind}",
                    gr.DownloadButton(
                        visible=False, size="md", elem_id=f"sdrrl-compare-{kind}", **label(f"download_{kind}")
                    ),
                )
                for kind in _FILES
            }
        self.report = gr.HTML(padding=False, elem_id="sdrrl-compare-report")
        self.panel.connect(_result, [*self.downloads.values(), self.report])
        asked = [self.evaluations, self.train_log, self.paper, self.holm, self.panel.runs, page.lang]
        go.click(self._start, asked, self.panel.outputs, **QUIET)

    def opened(self, tab: gr.Tab) -> None:
        """What was measured meanwhile, when the step is opened."""
        tab.select(_lists, None, [self.evaluations, self.train_log], **QUIET)

    @property
    def loaded(self) -> list[Any]:
        return [self.evaluations, self.train_log, *self.panel.outputs]

    def load(self, lang: str | None) -> Updates:
        run = self.panel.latest()
        return [*_lists(), *self.panel.show(run.id if run else None, lang)]

    def _start(
        self, chosen: list[str], train_log: str | None, paper: str, holm: bool, run_id: str | None, lang: str | None
    ) -> Updates:
        try:
            run = start(chosen or [], train_log or "", paper or "", bool(holm), lang)
        except UserError as err:
            return self.panel.refuse(run_id, lang, err)
        return self.panel.show(run.id, lang)


def start(chosen: list[str], train_log: str, paper: str, holm: bool, lang: str | None = None) -> Run:
    """Start `sdrrl compare`. Raises: UserError for fewer than two evaluations, or what is none."""
    known = evaluations()
    if len(chosen) < (1 if paper else 2) or not set(chosen) <= set(known):
        raise UserError(word("two_runs", lang))
    arguments = [*chosen, *[f"{option}={{run}}/{name}" for option, name in _FILES.values()]]
    if train_log and train_log in losses.trainings():
        arguments.append(f"--train-log={Path(train_log, 'trainer_log.jsonl')}")
    if paper in _paper():
        arguments += [f"--paper={paper}"] if paper else []
    if holm:
        arguments.append("--correct=holm")
    outputs = {kind: [f"{{run}}/{name}"] for kind, (_, name) in _FILES.items()}
    return runs.start("compare", f"compare {' '.join(chosen)}", runs.sdrrl("compare", *arguments), outputs=outputs)


def evaluations() -> list[str]:
    """The folders of finished evaluations, newest first."""
    return [str(path.parent) for path in files_below("runs", "results.json", 3)]


def _lists() -> Updates:
    return [gr.update(choices=evaluations()), gr.update(choices=losses.trainings())]


def _paper() -> list[str]:
    from sdrrl_eval.compare.published import SETS

    return ["", *SETS]


def _result(run: Run | None, lang: str | None) -> Updates:
    """The files of a comparison that has ended well."""
    done = finished(run, "compare")
    files = done.outputs if done else {}
    buttons = [gr.update(visible=done is not None, value=files[kind][0] if files else None) for kind in _FILES]
    return [*buttons, look.report(files["html"]) if files else ""]
