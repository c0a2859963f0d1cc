"""enable_liger_kernel: true: Liger's norms, rotations and MLPs, with joined samples and the chunked loss."""

import importlib.util
import sys

import pytest

from tests.conftest import ROOT, command
from tests.training.commands import write_recipe
from tests.training.conftest import TRAINING, distance, weighted

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(not importlib.util.find_spec("liger_kernel"), reason="pip install sdrrl-factory[liger]"),
]
ROWS = 1  # of each set: an interpreted kernel takes a row of the batch a millisecond


def test_one_step_with_liger_is_equation_6(recipe, exact, tmp_path):
    model = exact("full")
    before = model.parameters()
    model.step(weighted({subset: rows[:ROWS] for subset, rows in TRAINING.items()}))
    keys = recipe | {"enable_liger_kernel": True, "max_samples": ROWS}
    path = write_recipe(tmp_path / "r.yaml", keys)
    program = [sys.executable, "-m", "tests.training.liger", path]
    done = command(*program, cwd=ROOT, TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")
    assert "Liger kernel has been applied to the model" in done.stdout + done.stderr
    assert distance(before, model.parameters(), tmp_path / "out/model.safetensors") < 1e-4
