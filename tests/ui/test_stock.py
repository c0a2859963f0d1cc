"""What the tab costs and what it leaves alone: LLaMA-Factory's own page, byte for byte, and its time to open."""

import json
import re
import statistics
import sys
import sysconfig
import time
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import BIN
from tests.ui.conftest import Board

# Three servers, and times compared: `make test-all` has it.
pytestmark = [pytest.mark.ui, pytest.mark.slow, pytest.mark.exhaustive]

# LLaMA-Factory without the plugin: a Python that processes no .pth file, and so never hears of it.
STOCK = (
    f"import sys; sys.path.append({sysconfig.get_path('purelib')!r});"
    " from llamafactory.cli import main; main(); assert 'sdrrl_factory' not in sys.modules"
)
LOADS = 7


@pytest.fixture(scope="module")
def boards(tmp_path_factory):
    """(stock, switched off, with the tab)."""
    roots = [tmp_path_factory.mktemp(name) for name in ("stock", "off", "on")]
    stock = [str(BIN / Path(sys.executable).name), "-S", "-c", STOCK]
    boards = [Board(roots[0], stock), Board(roots[1], SDRRL_FACTORY_DISABLE="1"), Board(roots[2])]
    try:
        for board in boards:
            board.wait()
        yield boards
    finally:
        for board in boards:
            board.stop()
            print(board.log()[-2000:])


def served(board: Board, path: str) -> bytes:
    """What the server sends, without the number it draws for itself and its port."""
    with urllib.request.urlopen(f"{board.url}{path}") as answer:
        text = answer.read()
    text = re.sub(rb'"app_id":\s*\d+', b'"app_id": 0', text)
    return text.replace(board.url.rpartition(":")[2].encode(), b"PORT")


def test_switched_off_the_page_is_stocks_byte_for_byte(boards):
    stock, off, on = boards
    for path in ("/", "/config"):
        assert served(stock, path) == served(off, path)
        assert served(stock, path) != served(on, path)


def test_llama_factorys_own_components_and_events_are_untouched(boards):
    stock, _, on = (json.loads(served(board, "/config")) for board in boards)
    assert on["components"][: len(stock["components"])] == stock["components"]
    assert on["dependencies"][: len(stock["dependencies"])] == stock["dependencies"]
    assert on["css"] == stock["css"] and on["title"] == stock["title"]

    def tabs(config: dict) -> list[str]:
        return [c["props"]["label"] for c in config["components"] if c["type"] == "tabitem"]

    assert tabs(stock) == ["Train", "Evaluate & Predict", "Chat", "Export"]
    assert tabs(on)[:5] == [*tabs(stock), "SDRRL"]


def test_the_page_opens_as_fast_as_stocks(boards, browser):
    stock, _, on = boards
    times: dict[str, list[float]] = {stock.url: [], on.url: []}
    for load in range(LOADS + 1):
        for url, seconds in times.items():
            context = browser.new_context()
            page = context.new_page()
            began = time.perf_counter()
            page.goto(url)
            page.get_by_label("Learning rate").wait_for()
            # The first load fills the server's caches.
            if load:
                seconds.append(time.perf_counter() - began)
            context.close()
    stocks, ours = (statistics.median(times[board.url]) for board in (stock, on))
    print(f"opening: stock {stocks:.2f} s, with the tab {ours:.2f} s, ratio {ours / stocks:.2f}")
    assert ours / stocks < 1.2


def test_the_page_listens_to_this_machine_unless_told_otherwise(tmp_path):
    """Where nothing is set; a test that opened a port to others would be a hole of its own."""
    board = Board(tmp_path, GRADIO_SERVER_NAME="")
    try:
        board.wait()
        assert "the page listens to this machine alone" in board.log()
        port = f"{int(board.url.rpartition(':')[2]):04X}"
        lines = [
            line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()
        ]
        # Linux's table of sockets: 0A is one that listens, 0100007F is 127.0.0.1.
        assert {line[1] for line in lines if line[1].endswith(f":{port}") and line[3] == "0A"} == {f"0100007F:{port}"}
    finally:
        board.stop()
