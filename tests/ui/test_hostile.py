"""Data sets and recipes of somebody who means harm: nothing runs, nothing is read or written outside, one line each."""

import json

import pytest

from tests.conftest import write_rows
from tests.ui.conftest import Board, running
from tests.ui.tab import Tab, make_folder
from tests.webui.test_recipes import HOSTILE

pytestmark = [pytest.mark.ui, pytest.mark.slow]

SCRIPT = "<script>top.hacked=1;parent.hacked=1;window.hacked=1</script>"
IMAGE = "<img src=x onerror='top.hacked=1;window.hacked=1'>"
NASTY = f'</iframe></textarea></style>{SCRIPT}{IMAGE}" onmouseover="window.hacked=1" {{{{7*7}}}} javascript:alert(1)'

# What each row of a data set is.
DATA = {
    "scripts in every field": {"instruction": NASTY, "input": NASTY, "output": NASTY, "system": NASTY},
    "a script as the id": {"id": NASTY, "instruction": "Say something.", "input": "", "output": "Something."},
    "terminal escapes": {
        "instruction": "\x1b]0;x\x07\x1b[2J Say it.",
        "input": "",
        "output": "\x1b[31mred\x1b[0m it is.",
    },
    "letters that turn the text": {
        "instruction": "\u202eSay it\u2066 now.",
        "input": "",
        "output": "\u202eIt is said.",
    },
}
RECIPE = """\
name: hostile
instructions: data/hostile.jsonl
target_lang: spa
systems: [sft]
translator: {backend: none}
quality: {backend: none}
"""


@pytest.fixture(scope="module")
def board(tmp_path_factory, tiny):
    root = tmp_path_factory.mktemp("hostile")
    (root / "outside").mkdir()
    (root / "outside/secret.txt").write_text("the secret of outside")
    with running(Board(make_folder(root / "work", tiny), SDRRL_TEST_KEY="sk-very-secret")) as board:
        yield board


@pytest.fixture(scope="module")
def tab(page):
    return Tab(page)


def hacked(page) -> bool:
    return any(frame.evaluate("window.hacked === 1") for frame in page.frames)


@pytest.mark.parametrize("name", DATA)
def test_a_data_set_runs_nothing(name, tab, board):
    from playwright.sync_api import expect

    rows = [{**DATA[name], "instruction": f"{DATA[name]['instruction']} {i}"} for i in range(12)]
    if "id" in DATA[name]:
        rows = [{**row, "id": f"{row['id']}{i}"} for i, row in enumerate(rows)]
    write_rows(board.root / "data/hostile.jsonl", rows)
    tab.open("Prepare")
    tab.write("prepare", f"{RECIPE}overwrite: true\n")
    expect(tab.problems("prepare")).to_contain_text("No mistakes.")
    tab.start("prepare")
    tab.until("prepare", "finished")
    report = tab.page.frame_locator("#sdrrl-prepare-report iframe.light")
    expect(report.get_by_role("heading", name="Examples")).to_be_visible()
    if "scripts" in name:
        # It is there, as text.
        expect(report.locator("body")).to_contain_text("<script>top.hacked=1")
    tab.page.wait_for_timeout(500)
    assert not hacked(tab.page)


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in ("a null byte", "half a letter")])
def test_a_recipe_is_one_line_and_starts_nothing(name, tab, board):
    from playwright.sync_api import expect

    text, part = HOSTILE[name]
    before = {path for path in board.root.parent.rglob("*") if path.is_file() and ".lock" not in path.name}
    tab.open("Prepare")
    if len(text) > 100_000:
        text = text[:400_000]  # what a browser's box takes in reasonable time; five megabytes are tried without it
    tab.write("prepare", text)
    expect(tab.problems("prepare")).to_contain_text(part.split("${")[0], timeout=120_000)
    tab.click("prepare-start")
    expect(tab.page.locator("#sdrrl-prepare-state .refused")).to_be_visible()
    shown = tab.page.content()
    assert "sk-very-secret" not in shown and "the secret of outside" not in shown
    assert not hacked(tab.page)
    after = {path for path in board.root.parent.rglob("*") if path.is_file() and ".lock" not in path.name}
    assert after == before


@pytest.mark.parametrize(
    "path",
    ["../outside/secret.txt", "/etc/passwd", "runs/../../outside/secret.txt", "data/seeds/../../../outside/secret.txt"],
)
def test_the_server_gives_no_file_of_outside(path, board):
    """What the page can ask for behind its components' backs."""
    import urllib.error
    import urllib.request

    for address in (f"/gradio_api/file={path}", f"/file={path}"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{board.url}{address}")
        assert caught.value.code in (403, 404, 307)


def test_the_components_take_no_path_of_outside(board):
    """Every event of the tab, asked as a program would, with a path of outside in every field."""
    import urllib.error
    import urllib.request

    with urllib.request.urlopen(f"{board.url}/config") as answer:
        config = json.loads(answer.read())
    first = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "sdrrl")
    events = [
        event for event in config["dependencies"] if event["backend_fn"] and min(event["inputs"], default=0) > first
    ]
    assert len(events) > 15
    for event in events:
        data = ["../outside/secret.txt"] * len(event["inputs"])
        body = json.dumps({"data": data, "fn_index": event["id"], "session_hash": "x"}).encode()
        request = urllib.request.Request(
            f"{board.url}/gradio_api/run/predict", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as err:
            text = err.read().decode()
        assert "the secret of outside" not in text, event
