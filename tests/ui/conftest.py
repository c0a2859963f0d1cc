"""LlamaBoard on a folder like this project's, and a real browser before it."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tests.conftest import BIN, ROOT, write_rows

# Pictures go to docs/images only when asked for: UI_PICTURES=docs/images make test-ui
PICTURES = os.environ.get("UI_PICTURES")
COLUMNS = {"prompt": "instruction", "query": "input", "response": "output"}


def pytest_configure(config):
    config.addinivalue_line("markers", "ui: drives the web page in a browser; run by `make test-ui` only")


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def six_subsets() -> dict[str, list[dict]]:
    """Subset -> rows as `sdrrl prepare` writes them; unequal sizes, so that the weights differ."""
    heldout = ROOT / "data/heldout"
    eng, spa = (read_rows(heldout / f"instructions.{lang}.jsonl") for lang in ("eng", "spa"))
    both = list(zip(eng, spa, strict=True))
    english, spanish = (
        (heldout / f"sentences/{name}.devtest").read_text(encoding="utf-8").splitlines()
        for name in ("eng_Latn", "spa_Latn")
    )
    translate = "Translate the following sentence from English to Spanish."
    complete = "Complete the following sentence in Spanish according to its context."
    texts = {
        "LL": [(e["instruction"], e["input"], e["output"]) for e in eng],
        "TL": [(s["instruction"] + " Responde en inglés.", s["input"], e["output"]) for e, s in both[:22]],
        "LT": [(e["instruction"] + " Answer in Spanish.", e["input"], s["output"]) for e, s in both[:20]],
        "TT": [(s["instruction"], s["input"], s["output"]) for s in spa[:16]],
        "mt": [(translate, e, s) for e, s in zip(english[:24], spanish, strict=False)],
        "comp": [(complete, s[: len(s) // 2], s) for s in spanish[24:36]],
    }
    about = {"source_lang": "eng", "target_lang": "spa"}
    return {
        subset: [
            {"id": f"{subset}-{i}", "subset": subset, "instruction": asked, "input": given, "output": answer} | about
            for i, (asked, given, answer) in enumerate(rows)
        ]
        for subset, rows in texts.items()
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder with data/dataset_info.json and the six subsets, where the web page is started."""
    root = tmp_path_factory.mktemp("project")
    info = {}
    for subset, rows in six_subsets().items():
        file = f"demo_spa/{subset.lower()}.jsonl"
        write_rows(root / "data" / file, rows)
        sdrrl = {"subset": subset, "weight": 1.0}
        info[f"demo_spa_{subset.lower()}"] = {"file_name": file, "columns": COLUMNS, "sdrrl": sdrrl}
    (root / "data/dataset_info.json").write_text(json.dumps(info, indent=2), encoding="utf-8")
    return root


class Board:
    """A running web page: its address, and what it and its training printed."""

    def __init__(self, root: Path, program: Sequence[str] = ("llamafactory-cli",), **environment: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.root, self.url, self._log = root, f"http://127.0.0.1:{self._port}", root / "webui.log"
        env = os.environ | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "GRADIO_SERVER_NAME": "127.0.0.1",
            "GRADIO_SERVER_PORT": str(self._port),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "BROWSER": "true",  # the page opens a browser of its own; this one does nothing
            "no_proxy": "127.0.0.1,localhost",
            **environment,
        }
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [*program, "webui"], cwd=root, env=env, stdout=log, stderr=log, start_new_session=True
            )

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait(self, seconds: float = 300):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                return socket.create_connection(("127.0.0.1", self._port), timeout=5).close()
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"the web page did not start; it printed:\n{self.log()[-4000:]}")

    def stop(self):
        """End it and the training it may have started: they share a process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        # The tab's runs outlive the server; no test leaves one behind.
        for file in self.root.glob("runs/webui/*/process.json"):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(json.loads(file.read_text())["pid"])
                for each in [*process.children(recursive=True), process]:
                    each.kill()


@contextlib.contextmanager
def running(board: Board) -> Iterator[Board]:
    """The board once it answers; it is stopped behind the `with`, and what it printed is shown."""
    try:
        board.wait()
        yield board
    finally:
        board.stop()
        print(board.log()[-6000:])  # shown with a failed test


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'sdrrl-factory[ui]'")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    # Under load the page takes its time.
    sync_api.expect.set_options(timeout=60_000)
    # The page asks for fonts and scripts of other hosts: no name but this machine's is resolved.
    arguments = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def board(project):
    with running(Board(project)) as board:
        yield board


@pytest.fixture(scope="module")
def page(browser, board):
    """LlamaBoard, open."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(60_000)
    page.goto(board.url)
    return page


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    folder = ROOT / PICTURES if PICTURES else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
