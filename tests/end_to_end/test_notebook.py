"""docs/road.ipynb, cell after cell, on the tiny model."""

import json
import os

import pytest

from tests.conftest import BIN, ROOT

CELLS = json.loads((ROOT / "docs/road.ipynb").read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_the_notebook_carries_no_results_of_a_machine():
    assert not [cell for cell in CELLS if cell.get("outputs") or cell.get("execution_count")]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_notebook_goes_the_whole_road(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    small = f'MODEL = "{tiny}"\nRECORDS = 8\nSTEPS = 2\nITEMS = 6\n'
    names: dict = {}
    for cell in [small, *CODE[1:]]:
        exec(cell, names)
    printed = capsys.readouterr().out

    # What each part ends with: the mistake, the sets, the loss that is weighted, and a comparison of both checkpoints.
    assert (
        "command line: quality.treshold=0.5: unknown key quality.treshold; did you mean quality.threshold?" in printed
    )
    assert names["names"] == [f"demo_spa_{subset}" for subset in ("ll", "tl", "lt", "tt", "mt", "comp")]
    assert names["counts"]["records"] == 8 and len(names["forms"]["ll"]) == 8
    assert "subset-weighted loss (equation 6) is on: LL 8 rows" in printed
    assert any("loss_LL" in line for line in names["lines"])
    assert {entry["system"] for entry in names["comparison"].entries} == {"base", "sdrrl"}
    assert (tmp_path / "road/runs/eval/sdrrl/report.html").is_file()
