"""The step Prepare: a recipe, its dry run, its run, its report."""

from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import gradio as gr

from sdrrl_factory.errors import UserError
from sdrrl_factory.recipe import Recipe
from sdrrl_factory.transfer.recipe import PrepareConfig
from sdrrl_factory.transfer.sets import SYSTEMS
from sdrrl_factory.webui import look, recipes, runs
from sdrrl_factory.webui.edit import set_key
from sdrrl_factory.webui.editor import Editor
from sdrrl_factory.webui.locales import label
from sdrrl_factory.webui.panel import QUIET, Page, Panel, Updates, finished
from sdrrl_factory.webui.runs import Run

# The keys that people change, two in a row; of those with a list of values one is chosen.
FIELDS = (
    ("name", "target_lang"),
    ("instructions", "max_samples"),
    ("generator.model", "generator.template"),
    ("translator.backend", "quality.backend"),
    ("code_switch.dictionary", "systems"),
)
KEYS = tuple(key for row in FIELDS for key in row)


class Prepare:
    """The components of the step and what they do."""

    def __init__(self, page: Page):
        self.editor = Editor(page, "prepare", "prepare/demo_spa")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                self.editor.place(page)
            with gr.Column(scale=2, min_width=300), page.add("fields", gr.Accordion(open=True, **label("fields"))):
                self.fields: dict[str, Any] = {}
                for row in FIELDS:
                    with gr.Row():
                        self.fields |= {key: page.add(key, _field(key)) for key in row}
        with gr.Row():
            dry = page.add("dry_run", gr.Button(elem_id="sdrrl-prepare-dry", **label("dry_run")))
            go = page.add("start", gr.Button(variant="primary", elem_id="sdrrl-prepare-start", **label("start")))
        self.panel = Panel(page, ("prepare", "dry-run"), "prepare")
        self.train_on = page.add("train_on", gr.Button(variant="primary", visible=False, **label("train_on")))
        self.report = gr.HTML(padding=False, elem_id="sdrrl-prepare-report")
        self.panel.connect(self._result, [self.train_on, self.report])

        code = self.editor.code
        fields = list(self.fields.values())
        # Typed text goes into the fields, a field's value into the text: never round in a circle, as `input` is the
        # user's own and `change` only looks for mistakes.
        code.input(read_fields, [code], fields, trigger_mode="always_last", **QUIET)
        self.editor.recipe.input(self._open_fields, [self.editor.recipe], fields, **QUIET)
        for key, component in self.fields.items():
            component.input(partial(write_field, key), [code, component], [code], trigger_mode="always_last", **QUIET)
        asked = [code, self.panel.runs, page.lang]
        go.click(partial(self._start, "prepare"), asked, self.panel.outputs, **QUIET)
        dry.click(partial(self._start, "dry-run"), asked, self.panel.outputs, **QUIET)

    @property
    def loaded(self) -> list[Any]:
        """What `load` fills when the page is opened."""
        return [*self.editor.loaded, *self.fields.values(), *self.panel.outputs]

    def load(self, lang: str | None) -> Updates:
        """The run that is at work, or was last, with its recipe; before the first one the demo's."""
        run = self.panel.latest()
        name, text = self.editor.load(run)
        return [name, text, *read_fields(text), *self.panel.show(run.id if run else None, lang)]

    def _open_fields(self, name: str | None) -> Updates:
        try:
            return read_fields(recipes.text_of(name or "", "prepare"))
        except UserError:
            return [gr.skip() for _ in KEYS]

    def _start(self, kind: str, text: str, run_id: str | None, lang: str | None) -> Updates:
        try:
            recipe = recipes.require(text or "", "prepare")
            run = start(kind, text, recipe)
        except UserError as err:
            return self.panel.refuse(run_id, lang, err)
        return self.panel.show(run.id, lang)

    def _result(self, run: Run | None, lang: str | None) -> Updates:
        """The button and the reports of a preparation that has ended well."""
        done = finished(run, "prepare")
        return [gr.update(visible=done is not None), look.report(done.outputs["reports"]) if done else ""]


def start(kind: str, text: str, recipe: Recipe[PrepareConfig]) -> Run:
    """Start `sdrrl prepare`, or its dry run, on a text that has no mistakes."""
    config = recipe.config
    targets = [config.target_lang] if isinstance(config.target_lang, str) else config.target_lang
    folders = [f"{config.name}_{code}" for code in targets]
    arguments = ["prepare", "{run}/recipe.yaml", *(["--dry-run"] if kind == "dry-run" else [])]
    return runs.start(
        kind,
        f"{kind} {' '.join(folders)}",
        runs.sdrrl(*arguments),
        recipe=text,
        outputs={
            "reports": [str(Path(config.work_dir, folder, "report.html")) for folder in folders],
            "sets": folders,
            "dataset_dir": [config.dataset_dir],
        },
        secrets=[config.generator.api_key_env, config.translator.api_key_env],
    )


def _field(key: str) -> Any:
    choices = _choices(key)
    if not choices:
        return gr.Textbox(max_lines=1, min_width=120, **label(key))
    return gr.Dropdown(choices=choices, multiselect=key == "systems", value=None, min_width=120, **label(key))


def _choices(key: str) -> list[str]:
    """The values that a key may have; none where it is free."""
    if key == "systems":
        return list(SYSTEMS)
    return list(get_args(_annotation(key)))


def _annotation(key: str) -> Any:
    group, _, name = key.rpartition(".")
    model = PrepareConfig.model_fields[group].annotation if group else PrepareConfig
    annotation = model.model_fields[name].annotation  # type: ignore[union-attr]
    return annotation if get_origin(annotation) is Literal else None


def _default(key: str) -> Any:
    """What a key is where the recipe does not say."""
    group, _, name = key.rpartition(".")
    field = PrepareConfig.model_fields[group or name]
    if group:
        return getattr(field.get_default(call_default_factory=True), name)
    return None if field.is_required() else field.get_default(call_default_factory=True)


def read_fields(text: str) -> Updates:
    """The fields' values in a recipe's text; none changes where the text is no YAML."""
    keys = recipes.keys_of(text or "")
    return [gr.skip() if keys is None else _shown(key, keys) for key in KEYS]


def _value(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _shown(key: str, keys: dict[str, Any]) -> Any:
    """A key's value in its field, or what it is by default; what a field cannot show stays in the text alone."""
    value = _value(keys, key)
    if value is None:
        value = _default(key)
    choices = _choices(key)
    if key == "systems":
        return [item for item in value if item in choices] if isinstance(value, list) else []
    if choices:
        return value if isinstance(value, str) and value in choices else None
    # A list of languages as `spa, ind`.
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return str(value) if isinstance(value, str | int | float) else ""


def write_field(key: str, text: str, value: Any) -> Any:
    """The text with a field's value at its key; an empty field is `null` where the key stands in the text."""
    keys = recipes.keys_of(text or "")
    if keys is None:
        return gr.skip()
    if isinstance(value, str):
        value = value.strip()
        if key in ("instructions", "target_lang") and "," in value:
            value = [part.strip() for part in value.split(",") if part.strip()]
        elif key == "max_samples" and value.isdigit():
            value = int(value)
    if value in ("", [], None):
        if _value(keys, key) is None:
            return gr.skip()
        value = None
    try:
        return set_key(text or "", key, value)
    except ValueError:
        return gr.skip()
