"""The same bytes as before: what a rebuild of the house must not change."""

import json
import shutil

import pytest

from tests.golden.record import GOLDEN, record

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("apertium") is None, reason="needs Apertium: apt-get install apertium-eng-spa apertium-es-pt"
    ),
]


@pytest.fixture(scope="module")
def recorded(tiny, tmp_path_factory):
    return record(tiny, tmp_path_factory.mktemp("golden"))


def test_prepare_writes_the_same_bytes(recorded):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))["sha256"]
    assert set(recorded["sha256"]) == set(golden)
    changed = [path for path, digest in golden.items() if recorded["sha256"][path] != digest]
    assert not changed, "the bytes of these changed; if that is meant, record them anew (tests/golden/record.py)"


def test_eval_gives_the_same_scores(recorded):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))["scores"]
    assert set(recorded["scores"]) == set(golden)
    for name, values in golden.items():
        # A loss differs in its last digits from one CPU to another.
        assert recorded["scores"][name] == pytest.approx(values, rel=1e-3, abs=1e-3), name
