"""The step Measure: a checkpoint, an evaluation recipe, its run, its scores."""

import json
import re
from pathlib import Path
from typing import Any

import gradio as gr

from sdrrl_factory.errors import UserError
from sdrrl_factory.webui import look, recipes, runs
from sdrrl_factory.webui.edit import set_key
from sdrrl_factory.webui.editor import Editor
from sdrrl_factory.webui.folders import files_below, is_inside
from sdrrl_factory.webui.locales import label
from sdrrl_factory.webui.panel import QUIET, Page, Panel, Updates, finished
from sdrrl_factory.webui.runs import Run

# Where checkpoints are looked for, and how deep: LlamaBoard's saves/MODEL/METHOD/RUN, the recipes' runs/export/NAME.
_FOLDERS = {"saves": 4, "runs/train": 3, "runs/export": 2, "models": 2, "export": 2}
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "adapter_model.safetensors")


class Measure:
    """The components of the step and what they do."""

    def __init__(self, page: Page):
        self.editor = Editor(page, "eval", "eval/demo_spa")
        self.checkpoint = page.add(
            "checkpoint",
            gr.Dropdown(choices=checkpoints(), value=None, allow_custom_value=True, **label("checkpoint")),
        )
        self.editor.place(page)
        go = page.add("start", gr.Button(variant="primary", elem_id="sdrrl-eval-start", **label("start")))
        self.panel = Panel(page, ("eval",), "eval")
        self.scores = gr.HTML(padding=False, elem_id="sdrrl-eval-scores")
        self.panel.connect(_result, [self.scores])
        code = self.editor.code
        self.checkpoint.input(choose, [code, self.checkpoint], [code], **QUIET)
        go.click(self._start, [code, self.panel.runs, page.lang], self.panel.outputs, **QUIET)

    def opened(self, tab: gr.Tab) -> None:
        """What trainings and exports have written meanwhile, when the step is opened."""
        tab.select(_list_checkpoints, None, [self.checkpoint], **QUIET)

    @property
    def loaded(self) -> list[Any]:
        return [*self.editor.loaded, *self.panel.outputs]

    def load(self, lang: str | None) -> Updates:
        run = self.panel.latest()
        return [*self.editor.load(run), *self.panel.show(run.id if run else None, lang)]

    def _start(self, text: str, run_id: str | None, lang: str | None) -> Updates:
        try:
            run = start(text or "")
        except UserError as err:
            return self.panel.refuse(run_id, lang, err)
        return self.panel.show(run.id, lang)


def start(text: str) -> Run:
    """Start `sdrrl eval`. Raises: UserError, the recipe's first mistake, or that it is at work already."""
    config = recipes.require(text, "eval").config
    return runs.start(
        "eval",
        f"eval {config.output_dir}",
        runs.sdrrl("eval", "{run}/recipe.yaml"),
        recipe=text,
        outputs={"results": [str(Path(config.output_dir, "results.json"))]},
        secrets=[config.server.api_key_env] if config.server else [],
    )


def _result(run: Run | None, lang: str | None) -> Updates:
    done = finished(run, "eval")
    return [look.scores(done.outputs["results"][0], lang) if done else ""]


def checkpoints() -> list[str]:
    """The folders with a model's or an adapter's weights, newest first."""
    files = [
        path for folder, depth in _FOLDERS.items() for name in _WEIGHTS for path in files_below(folder, name, depth)
    ]
    newest = sorted(files, key=lambda path: -path.stat().st_mtime)
    return list(dict.fromkeys(str(path.parent) for path in newest))


def _list_checkpoints() -> Any:
    return gr.update(choices=checkpoints())


def choose(text: str, checkpoint: str | None) -> Any:
    """The recipe with a checkpoint in it, as model or as adapter with the model below it, and a folder of its own."""
    if not checkpoint or recipes.keys_of(text or "") is None or not is_inside(checkpoint):
        return gr.skip()
    values: dict[str, Any] = {"model": checkpoint}
    adapter = Path(checkpoint, "adapter_config.json")
    if adapter.is_file():
        base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
        values = {"model": str(base), "adapter": checkpoint}
    elif re.search(r"(?m)^adapter:", text):
        values["adapter"] = None
    # saves/Custom/full/train_2026 and saves/Custom/lora/train_2026 are two.
    values["output_dir"] = "runs/eval/" + re.sub(r"[^\w.-]+", "-", checkpoint).strip("-.")
    try:
        for key, value in values.items():
            text = set_key(text, key, value)
    except ValueError:
        return gr.skip()
    return text
