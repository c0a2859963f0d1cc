"""What `sdrrl prepare` and `sdrrl eval` wrote on the tiny model when golden.json was recorded.

    python -m tests.golden.record    # anew, where a change of bytes is meant; the commit gives the reason

A prepare with the demo's recipe, one with all systems into Spanish and, through it, Portuguese, and an evaluation. The
SHA-256 of every data set, of dataset_info.json and of the card; every score. The HTML report is not in it: its numbers
are those of the sets, its looks may change.
"""

import json
import sys
import tempfile
from pathlib import Path

from sdrrl_factory.files import sha256_file
from tests.conftest import BIN, ROOT, build_tiny, command

GOLDEN = Path(__file__).with_name("golden.json")
SEEDS = ROOT / "data/seeds/english_instructions.jsonl"
# Every word has one translation or two, with accents, capitals and an apostrophe among them.
WORDS = {
    "spa": {"the": "el,la", "what": "qué", "is": "es", "of": "de", "a": "un", "water": "agua", "how": "cómo"},
    "por": {"the": "o,a", "what": "que", "is": "é", "of": "de", "a": "um", "water": "água", "how": "como"},
}


def prepare(folder: Path, name: str, *overrides: str) -> None:
    command(
        BIN / "sdrrl",
        "prepare",
        ROOT / "yaml_recipes/prepare/demo_spa.yaml",
        f"name={name}",
        "instructions=seeds.jsonl",
        "generator.model=tiny",
        "generator.max_new_tokens=8",
        "shard_size=10",
        "dataset_dir=sets",
        "work_dir=work",
        *overrides,
        cwd=folder,
    )


def record(tiny: Path, folder: Path) -> dict[str, dict[str, str | float]]:
    """{"sha256": {file: digest}, "scores": {score: value}} of everything that is written under `folder`."""
    # All paths are relative: the card names them.
    (folder / "tiny").symlink_to(tiny)
    (folder / "seeds.jsonl").symlink_to(SEEDS)
    (folder / "data").symlink_to(ROOT / "data")
    for language, words in WORDS.items():
        lines = [f"{word}\t{translations}\n" for word, translations in words.items()]
        (folder / f"eng-{language}.tsv").write_text("".join(lines), encoding="utf-8")
    prepare(folder, "demo", "max_samples=30", "parallel.size=20")
    prepare(
        folder,
        "all",
        "systems=[sdrrl,sft,tsft,cit,xcot]",
        "target_lang=[spa,por]",
        "translator.via=[spa]",
        "code_switch.dictionary=eng-{target}.tsv",
        "max_samples=16",
        "parallel.size=10",
    )
    command(
        BIN / "sdrrl",
        "eval",
        ROOT / "yaml_recipes/eval/demo_spa.yaml",
        "model=tiny",
        "output_dir=eval",
        "max_samples=6",
        "draw=first",
        "max_new_tokens=12",
        cwd=folder,
    )
    written = [
        path for path in sorted((folder / "sets").rglob("*")) if path.is_file() and not path.name.startswith(".")
    ]
    results = json.loads((folder / "eval/results.json").read_text(encoding="utf-8"))
    scores = {}
    for score in results["scores"]:
        name = " ".join(str(score[key]) for key in ("task", "metric", "source_lang", "target_lang"))
        scores[name] = [score["value"], *score["ci95"]]
    return {"sha256": {str(path.relative_to(folder)): sha256_file(path) for path in written}, "scores": scores}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "golden"
        folder.mkdir()
        golden = record(build_tiny(Path(name) / "tiny"), folder)
    GOLDEN.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(golden['sha256'])} files, {len(golden['scores'])} scores: {GOLDEN}", file=sys.stderr)


if __name__ == "__main__":
    main()
