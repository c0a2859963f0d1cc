"""The data this project ships: seeds to learn from, held-out sets to measure on, and nothing in both."""

from sdrrl_factory.rows import read_rows
from tests.conftest import ROOT


def rows(path: str) -> list[dict]:
    return [row.values for row in read_rows(ROOT / "data" / path)]


def test_seeds_and_held_out_do_not_meet():
    seeds = rows("seeds/english_instructions.jsonl")
    train = [r for r in seeds if not r.get("held_out")]
    held = [{k: r[k] for k in ("id", "instruction", "input", "output")} for r in seeds if r.get("held_out")]
    assert len(train) >= 150 and len(held) == 30
    assert len({r["id"] for r in seeds}) == len(seeds)
    assert len({(r["instruction"], r["input"]) for r in seeds}) == len(seeds)
    assert held == rows("heldout/instructions.eng.jsonl")


def test_held_out_sets_are_parallel():
    english, spanish = rows("heldout/instructions.eng.jsonl"), rows("heldout/instructions.spa.jsonl")
    assert [r["id"] for r in english] == [r["id"] for r in spanish]
    assert all(bool(a["input"]) == bool(b["input"]) for a, b in zip(english, spanish, strict=True))
    sides = [(ROOT / f"data/heldout/sentences/{c}.devtest").read_text().splitlines() for c in ("eng_Latn", "spa_Latn")]
    assert len(sides[0]) == len(sides[1]) == 60 and all(map(str.strip, sides[0] + sides[1]))
    assert len({r["instruction"] for r in rows("heldout/questions.spa.jsonl")}) == 60
