"""The whole road on a tiny model, from the page alone: prepare, train, measure, compare."""

import json
import re

import pytest

from tests.ui.conftest import Board, read_rows, running
from tests.ui.tab import EVAL, PREPARE, Tab, make_folder, read_json
from tests.ui.test_webui import EXTRA, choose, write

# Minutes of real runs: `make test-all` has it.
pytestmark = [pytest.mark.ui, pytest.mark.slow, pytest.mark.exhaustive]

SUBSETS = ["LL", "TL", "LT", "TT", "mt", "comp"]


@pytest.fixture(scope="module")
def board(tmp_path_factory, tiny):
    with running(Board(make_folder(tmp_path_factory.mktemp("road"), tiny))) as board:
        yield board


@pytest.fixture(scope="module")
def tab(page):
    dialogs = []
    page.on("dialog", lambda dialog: dialogs.append(dialog) or dialog.dismiss())
    yield Tab(page)
    assert dialogs == []


def shoot(tab, pictures, name: str) -> None:
    """The whole page; as high a window, since frames that were never on the screen are not drawn."""
    page, size = tab.page, tab.page.viewport_size
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": size["width"], "height": height})
    page.wait_for_timeout(1500)
    page.screenshot(path=pictures / f"{name}.png")
    page.set_viewport_size(size)


def test_prepare_with_a_mistake_corrected(tab, board, pictures):
    from playwright.sync_api import expect

    tab.open("Prepare")
    expect(tab.problems("prepare")).to_contain_text("No mistakes.")
    assert "name: demo" in tab.text("prepare")
    tab.choose("Recipe", "yaml_recipes/prepare/tiny.yaml")
    expect(tab.field("Records at most")).to_have_value("60")
    assert tab.text("prepare").strip() == PREPARE.strip()

    # A mistake is told while it is typed, at its line; nothing can be started.
    tab.write("prepare", PREPARE.replace("max_new_tokens", "max_new_token"))
    expect(tab.problems("prepare")).to_contain_text("line 8")
    expect(tab.problems("prepare")).to_contain_text("did you mean generator.max_new_tokens?")
    shown = tab.page.locator("#sdrrl-prepare-code .cm-line").nth(7)
    after = shown.evaluate("line => getComputedStyle(line, '::after').content")
    assert "unknown key generator.max_new_token" in after
    shoot(tab, pictures, "page_mistake")
    tab.click("prepare-start")
    expect(tab.state("prepare")).to_contain_text("line 8: unknown key generator.max_new_token")
    assert not list(board.root.glob("runs/webui/*/run.json"))
    tab.write("prepare", PREPARE)
    expect(tab.problems("prepare")).to_contain_text("No mistakes.")

    # A field is the text's key, both ways.
    tab.field("Records at most").fill("40")
    tab.field("Records at most").blur()
    expect(tab.page.locator("#sdrrl-prepare-code .cm-content")).to_contain_text("max_samples: 40")
    assert "# long enough to be stopped" in tab.text("prepare")
    tab.write("prepare", PREPARE.replace("60", "48"))
    expect(tab.field("Records at most")).to_have_value("48")


def test_dry_run(tab, board):
    tab.start("prepare", "dry")
    tab.until("prepare", "finished")
    log = tab.page.locator("#sdrrl-prepare-log textarea").input_value()
    assert re.search(r"records +48", log) and "nothing was loaded or written" in log
    assert not (board.root / "data/dataset_info.json").exists()


def test_start_reload_stop_and_start_again(tab, board, pictures):
    from playwright.sync_api import expect

    tab.start("prepare")
    tab.until("prepare", "running")
    tab.click("prepare-start")
    expect(tab.page.locator("#sdrrl-prepare-state")).to_contain_text("prepare demo_spa is at work already, as prepare-")
    expect(tab.state("prepare")).to_contain_text("records", timeout=300_000)
    tab.page.reload()
    tab.open("Prepare")
    tab.until("prepare", "running")
    # The recipe of the run is in the box again.
    expect(tab.page.locator("#sdrrl-prepare-code .cm-content")).to_contain_text("max_samples: 48")
    shoot(tab, pictures, "page_run")
    tab.click("prepare-stop")
    tab.until("prepare", "stopped", 60)
    assert not (board.root / "data/dataset_info.json").exists()
    tab.start("prepare")
    tab.until("prepare", "finished")
    names = [name for name, entry in read_json(board.root / "data/dataset_info.json").items() if "sdrrl" in entry]
    assert names == [f"demo_spa_{subset.lower()}" for subset in SUBSETS]
    states = sorted(run["code"] for run in map(read_json, board.root.glob("runs/webui/prepare-*/ended.json")))
    assert len(states) == 2 and states[0] == 0 and states[1] != 0


def test_the_report_is_in_the_page(tab, pictures):
    from playwright.sync_api import expect

    report = tab.page.frame_locator("#sdrrl-prepare-report iframe.light")
    expect(report.get_by_role("heading", name="From record to set")).to_be_visible()
    expect(report.get_by_text("lost in this step")).to_be_visible()
    examples = report.locator("section", has_text="Examples").locator("details:not(.more)").locator("visible=true")
    count = examples.count()
    assert count == 10
    report.locator("details.more > summary").click()
    expect(examples).to_have_count(20)
    shoot(tab, pictures, "page_report")


def test_train_on_these(tab, board, tiny, pictures):
    from playwright.sync_api import expect

    page = tab.page
    page.get_by_role("button", name="Train on these").click()
    chosen = page.get_by_role("button", name="Remove").locator("visible=true")
    expect(chosen).to_have_count(6)
    choose(page, "Model name", "Custom")
    expect(page.get_by_text("You are using a non-instruct model")).to_be_visible()
    write(page, "Model path", "models/tiny")
    choose(page, "Chat template", "smollm2")
    choose(page, "Finetuning method", "full")
    choose(page, "Compute type", "fp32")
    for label, value in {"Learning rate": 1e-2, "Epochs": 2, "Batch size": 4, "Gradient accumulation": 1}.items():
        write(page, label, value)
    page.get_by_role("button", name="Extra configurations").click()
    write(page, "Logging steps", 1)
    write(page, "Extra arguments", json.dumps(EXTRA))
    page.get_by_role("button", name="Start", exact=True).locator("visible=true").click()
    # The loss of each subset stands below LLaMA-Factory's own curve while it trains.
    plot = page.get_by_test_id("matplotlib").locator("img")
    expect(plot).to_be_visible(timeout=600_000)
    width, height = plot.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert height > 1.3 * width
    end = page.locator(".prose p", has_text=re.compile(r"^(Finished|Failed)\."))
    end.wait_for(timeout=900_000)
    assert end.inner_text() == "Finished.", page.locator(".prose", has=end).inner_text()
    (log,) = board.root.glob("saves/Custom/full/*/trainer_log.jsonl")
    assert {f"loss_{subset}" for subset in SUBSETS} <= {key for line in read_rows(log) for key in line}
    tab.open("Train")
    page.get_by_role("button", name="Refresh").click()
    curves = page.locator("#sdrrl-train-curves svg")
    expect(curves).to_be_visible()
    for subset in SUBSETS:
        expect(curves).to_contain_text(subset)
    shoot(tab, pictures, "page_train")


def test_measure_two_checkpoints(tab, board, pictures):
    from playwright.sync_api import expect

    tab.open("Measure")
    tab.choose("Recipe", "yaml_recipes/eval/tiny.yaml")
    expect(tab.problems("eval")).to_contain_text("No mistakes.")
    assert tab.text("eval").strip() == EVAL.strip()
    (saved,) = board.root.glob("saves/Custom/full/*/")
    for checkpoint in ("models/tiny", str(saved.relative_to(board.root))):
        tab.choose("Checkpoint", checkpoint)
        expect(tab.page.locator("#sdrrl-eval-code .cm-content")).to_contain_text(f"model: {checkpoint}")
        tab.start("eval")
        tab.until("eval", "finished")
        table = tab.page.locator("#sdrrl-eval-scores table")
        expect(table).to_contain_text("chrF")
    results = sorted(board.root.glob("runs/eval/*/results.json"))
    assert len(results) == 2
    # The page shows the numbers of the file.
    score = next(s for s in read_json(results[-1])["scores"] if s["metric"] == "text_loss")
    expect(table).to_contain_text(f"{score['value']:.3f}")
    expect(table).to_contain_text(f"{score['ci95'][0]:.3f} – {score['ci95'][1]:.3f}")
    shoot(tab, pictures, "page_measure")


def test_compare_and_download(tab, board, pictures, tmp_path):
    from playwright.sync_api import expect

    tab.open("Compare")
    tab.click("compare-start")
    expect(tab.page.locator("#sdrrl-compare-state")).to_contain_text("Choose two evaluations or more.")
    runs = sorted(str(path.parent.relative_to(board.root)) for path in board.root.glob("runs/eval/*/results.json"))
    for run in runs:
        tab.choose("Evaluations", run)
    tab.page.keyboard.press("Escape")
    (saved,) = board.root.glob("saves/Custom/full/*/")
    tab.choose("Training log", str(saved.relative_to(board.root)))
    tab.start("compare")
    tab.until("compare", "finished")
    report = tab.page.frame_locator("#sdrrl-compare-report iframe.light")
    expect(report.get_by_role("heading", name="Training loss by subset")).to_be_visible()
    begins = {"html": "<!doctype html>", "tex": "% ", "md": "", "csv": "system,task,metric,"}
    for kind, text in begins.items():
        with tab.page.expect_download() as download:
            tab.click(f"compare-{kind}")
        download.value.save_as(tmp_path / kind)
        written = next(board.root.glob(f"runs/webui/compare-*/*.{kind}")).read_text(encoding="utf-8")
        assert (tmp_path / kind).read_text(encoding="utf-8") == written and text in written[:200]
    shoot(tab, pictures, "page_compare")


@pytest.mark.parametrize(("theme", "width", "height"), [("dark", 1280, 1000), ("light", 390, 844), ("dark", 390, 844)])
def test_dark_and_on_a_phone(browser, board, pictures, theme, width, height):
    from playwright.sync_api import expect

    size = "phone" if width < 600 else "desktop"
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{board.url}/?__theme={theme}")
    tab = Tab(page)
    for step in ("Prepare", "Train", "Measure", "Compare"):
        tab.open(step)
        if step in ("Prepare", "Compare"):
            expect(page.locator(f"#sdrrl-{step.lower()}-report iframe.{theme}")).to_be_visible()
        shoot(tab, pictures, f"page_{step.lower()}_{theme}_{size}")
        # Nothing is wider than the screen.
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def test_chinese(browser, board):
    from playwright.sync_api import expect

    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(60_000)
    page.goto(board.url)
    Tab(page).open("Prepare")
    # Until then LLaMA-Factory may still set the language it remembers.
    expect(page.get_by_label("Language", exact=True).first).to_have_value("en")
    choose(page, "Language", "zh")
    expect(page.get_by_role("tab", name="1 · 准备数据")).to_be_visible()
    expect(page.get_by_role("button", name="试运行")).to_be_visible()
    choose(page, "语言", "en")
    expect(page.get_by_role("tab", name="1 · Prepare")).to_be_visible()
    page.close()
