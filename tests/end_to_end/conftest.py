"""Shared: the demo's preparation on the tiny model, and what it writes when nothing disturbs it."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import BIN, ROOT, command

needs_programs = pytest.mark.skipif(
    shutil.which("apertium") is None or not Path("/usr/share/dictd/freedict-eng-spa.index").exists(),
    reason="needs Apertium and FreeDict: apt-get install apertium apertium-eng-spa dict-freedict-eng-spa",
)
SUBSETS = ("ll", "tl", "lt", "tt", "mt", "comp")


def prepare_command(tiny: Path, folder: Path, *overrides: str) -> list[str]:
    return [
        str(BIN / "sdrrl"),
        "prepare",
        str(ROOT / "yaml_recipes/prepare/demo_spa.yaml"),
        f"instructions={ROOT}/data/seeds/english_instructions.jsonl",
        f"generator.model={tiny}",
        "generator.max_new_tokens=8",
        "max_samples=40",
        "parallel.size=20",
        "shard_size=10",
        f"dataset_dir={folder}/data",
        f"work_dir={folder}/work",
        *overrides,
    ]


@pytest.fixture(scope="session")
def undisturbed(tiny, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "data").mkdir()
    (folder / "printed").write_text(command(*prepare_command(tiny, folder)).stdout)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "data").rglob("*.json*"))}


def sets(folder: Path) -> dict[str, bytes]:
    """The data sets and their register; the card names the shard size."""
    return {name: data for name, data in files(folder).items() if name != "README.md"}
