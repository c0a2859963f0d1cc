"""What the tests of the tab do on the page, as a person would."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

PREPARE = """\
name: demo
instructions: data/seeds/english_instructions.jsonl
target_lang: spa
max_samples: 60
generator:
  model: models/tiny
  template: smollm2
  max_new_tokens: 48   # long enough to be stopped
  batch_size: 8
parallel: {source: gettext, size: 24}
shard_size: 12
"""
EVAL = """\
model: models/tiny
template: smollm2
output_dir: runs/eval/tiny
tasks:
  - {task: text_loss, path: data/heldout/sentences, langs: [spa]}
  - {task: translation, path: data/heldout/sentences, langs: [spa], source_lang: eng}
max_samples: 12
max_new_tokens: 12
"""


def make_folder(root: Path, tiny: Path) -> Path:
    """A folder to start the page in: the seeds, the held-out sets, a model that knows nothing."""
    for name in ("data/seeds", "data/heldout"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copytree(tiny, root / "models/tiny")
    (root / "yaml_recipes/prepare").mkdir(parents=True)
    (root / "yaml_recipes/prepare/tiny.yaml").write_text(PREPARE)
    (root / "yaml_recipes/eval").mkdir()
    (root / "yaml_recipes/eval/tiny.yaml").write_text(EVAL)
    return root


class Tab:
    """The tab on an open page."""

    def __init__(self, page: Any):
        self.page = page

    def open(self, step: str) -> None:
        """Go to a step; a page that has only just come takes no click yet, so it is clicked until it opens."""
        from playwright.sync_api import TimeoutError

        tabs = self.page.get_by_role("tab")
        # LLaMA-Factory's first tab is always there, once the page is.
        tabs.filter(has_text=re.compile(r"^\s*Train\s*$")).locator("visible=true").first.wait_for()
        for _ in range(30):
            self._click_tab("body", "SDRRL")
            try:
                tabs.filter(has_text="1 ·").locator("visible=true").first.wait_for(timeout=4000)
                break
            except TimeoutError:
                continue
        self._click_tab("#sdrrl", f"· {step}")

    def _click_tab(self, around: str, text: str) -> None:
        """On a phone the last tabs are behind a button with dots."""
        block = self.page.locator(around)
        tab = block.get_by_role("tab").filter(has_text=text).locator("visible=true")
        if tab.count():
            tab.first.click()
        else:
            block.locator(".overflow-menu > button").locator("visible=true").first.click()
            block.locator(".overflow-dropdown button", has_text=text).first.click()

    def choose(self, label: str, value: str) -> None:
        # Where several can be chosen, the label's text goes on with what it informs of.
        box = self.page.locator("#sdrrl").get_by_label(re.compile(rf"^\s*{label}\b")).locator("visible=true").first
        box.click()
        self.page.get_by_role("option", name=value, exact=True).click()

    def field(self, label: str) -> Any:
        return self.page.locator("#sdrrl").get_by_label(label, exact=True).locator("visible=true").first

    def write(self, kind: str, text: str) -> None:
        """Type a recipe into the code box, in the place of what is there."""
        box = self.page.locator(f"#sdrrl-{kind}-code .cm-content")
        box.click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(text)

    def text(self, kind: str) -> str:
        """The recipe's text as the box shows it, once it is drawn."""
        self.page.locator(f"#sdrrl-{kind}-code .cm-line").first.wait_for()
        return "\n".join(self.page.locator(f"#sdrrl-{kind}-code .cm-line").all_text_contents())

    def problems(self, kind: str) -> Any:
        return self.page.locator(f"#sdrrl-{kind}-problems")

    def click(self, name: str) -> None:
        self.page.locator(f"#sdrrl-{name}").click()

    def start(self, kind: str, button: str = "start") -> None:
        """Start a run and wait until it is the one that is looked at."""
        from playwright.sync_api import expect

        seen = self.state(kind).get_attribute("data-run") if self.state(kind).count() else ""
        self.click(f"{kind}-{button}")
        expect(self.state(kind)).to_have_attribute("data-run", re.compile(rf"^(?!{seen or 'none'}$).+$"))

    def state(self, kind: str) -> Any:
        return self.page.locator(f"#sdrrl-{kind}-state .run").last

    def until(self, kind: str, state: str, seconds: float = 600) -> None:
        """Wait until the run that is looked at is finished, stopped, ..."""
        from playwright.sync_api import expect

        expect(self.state(kind)).to_have_class(re.compile(rf"\brun {state}\b"), timeout=1000 * seconds)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
