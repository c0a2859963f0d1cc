"""A recipe in a code box: chosen from a list, checked as it is typed, saved to one's own folder."""

from typing import Any

import gradio as gr

from sdrrl_factory.errors import UserError
from sdrrl_factory.webui import look, recipes
from sdrrl_factory.webui.locales import label, word
from sdrrl_factory.webui.panel import Page, Updates
from sdrrl_factory.webui.runs import Run


class Editor:
    """The box of one kind of recipe. `code` is the text, `problems` what is wrong with it."""

    def __init__(self, page: Page, kind: str, first: str):
        self.kind, self._first, self._id = kind, first, f"sdrrl-{kind}-code"
        folder = f"yaml_recipes/{kind}"
        with gr.Row():
            self.recipe = page.add(
                "recipe", gr.Dropdown(choices=self._choices(folder), value=first, scale=3, **label("recipe"))
            )
            self.folder = page.add("folder", gr.Textbox(value=folder, scale=2, **label("folder")))
            self.file = page.add("file", gr.Textbox(value=f"{folder}/mine.yaml", scale=2, **label("file")))
            self.save = page.add("save", gr.Button(scale=1, min_width=90, **label("save")))
        self.saved = gr.HTML(padding=False)

    def place(self, page: Page) -> None:
        """The box itself, in the layout's current column."""
        self.code = page.add(
            "code", gr.Code(language="yaml", lines=20, interactive=True, elem_id=self._id, **label("code"))
        )
        self.problems = gr.HTML(padding=False, elem_id=f"sdrrl-{self.kind}-problems")
        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "show_api": False}
        self.recipe.input(self._open, [self.recipe, page.lang], [self.code, self.saved], **quiet)
        # Not when the list is opened: new choices would close it under the pointer.
        for event in (self.folder.blur, self.folder.submit):
            event(self.choices, [self.folder], [self.recipe], **quiet)
        self.code.change(self.check, [self.code, page.lang], [self.problems], trigger_mode="always_last", **quiet)
        self.save.click(self._save, [self.code, self.file, page.lang], [self.saved], **quiet).then(
            self.choices, [self.folder], [self.recipe], **quiet
        )

    @property
    def loaded(self) -> list[Any]:
        """What `load` fills when the page is opened."""
        return [self.recipe, self.code]

    def load(self, run: Run | None) -> tuple[str | None, str]:
        """(recipe of the list, text): the run's own, which no list has, or the first of the shipped ones."""
        if run and run.recipe:
            return None, run.recipe
        return self._first, recipes.text_of(self._first, self.kind)

    def check(self, text: str, lang: str | None) -> str:
        """The mistakes of the text, as HTML."""
        return look.problems(recipes.check(text or "", self.kind).problems, lang, self._id, text or "")

    def _choices(self, folder: str) -> list[tuple[str, str]]:
        return recipes.listed(self.kind, folder)

    def choices(self, folder: str) -> Any:
        """The choices, with what is in one's own folder now."""
        return gr.update(choices=self._choices(folder))

    def _open(self, name: str | None, lang: str | None) -> Updates:
        if not name:
            return [gr.skip(), look.note(word("no_recipe", lang))]
        try:
            return [recipes.text_of(name, self.kind), ""]
        except UserError as err:
            return [gr.skip(), look.refused(str(err))]

    def _save(self, text: str, file: str, lang: str | None) -> str:
        try:
            return look.note(word("saved", lang, file=recipes.save(text or "", file or "", self.kind)))
        except UserError as err:
            return look.refused(str(err))
