"""The tab: four steps from left to right, added to LLaMA-Factory's page once that is built."""

from typing import Any

import gradio as gr

from sdrrl_factory.webui import look
from sdrrl_factory.webui.compare import Compare
from sdrrl_factory.webui.locales import label
from sdrrl_factory.webui.measure import Measure
from sdrrl_factory.webui.panel import Page
from sdrrl_factory.webui.prepare import Prepare
from sdrrl_factory.webui.train import Train


def add_tab(blocks: gr.Blocks, engine: Any) -> None:
    """Put the tab behind LLaMA-Factory's; its components keep their numbers and their events.

    blocks: what `create_ui` returned. engine: LlamaBoard's, which knows its components by name.
    """
    tabs = next(block for block in blocks.children if isinstance(block, gr.Tabs))
    page = Page(blocks, engine, engine.manager.get_elem_by_id("top.lang"))
    with blocks, tabs, gr.Tab("SDRRL", elem_id="sdrrl"), gr.Column(elem_classes="sdrrl"):
        gr.HTML(f"<style>{look.css()}</style>", padding=False)
        with gr.Tabs():
            with page.add("step_prepare", gr.Tab(elem_id="sdrrl-prepare", **label("step_prepare"))):
                prepare = Prepare(page)
            with page.add("step_train", gr.Tab(elem_id="sdrrl-train", **label("step_train"))) as train_tab:
                train = Train(page, prepare)
            with page.add("step_measure", gr.Tab(elem_id="sdrrl-measure", **label("step_measure"))) as measure_tab:
                measure = Measure(page)
            with page.add("step_compare", gr.Tab(elem_id="sdrrl-compare", **label("step_compare"))) as compare_tab:
                compare = Compare(page)
        page.lang.change(
            page.change_lang,
            [page.lang],
            [component for _, component in page.labelled],
            queue=False,
            show_progress="hidden",
            show_api=False,
        )
        train.opened(train_tab)
        measure.opened(measure_tab)
        compare.opened(compare_tab)
        for step in (prepare, train, measure, compare):
            blocks.load(step.load, [page.lang], step.loaded, queue=False, show_progress="hidden", show_api=False)
