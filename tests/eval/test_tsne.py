import json

import numpy as np
import pytest

from sdrrl_eval.measure.tsne import alignment, hidden_states, tsne
from sdrrl_factory.errors import UserError
from sdrrl_factory.models.lm import LM

ENGLISH = ["One two.", "Red apples grow here and there.", "Why?", "The river is wide.", "Nobody knew.", "She ran home."]
SPANISH = ["Uno dos.", "Aquí y allá crecen manzanas.", "¿Por qué?", "El río es ancho.", "Nadie sabía.", "Corrió."]


def test_the_numbers_against_brute_force():
    pick = np.random.default_rng(0)
    one = pick.normal(size=(7, 5))
    two = one + pick.normal(size=(7, 5))

    def cosine(a, b):
        return sum(a * b) / (sum(a * a) ** 0.5 * sum(b * b) ** 0.5)

    table = [[cosine(a, b) for b in two] for a in one]
    found = alignment(one, two)
    assert found.pairs == 7
    assert found.pair_cosine == pytest.approx(sum(table[i][i] for i in range(7)) / 7)
    others = [table[i][j] for i in range(7) for j in range(7) if i != j]
    assert found.random_cosine == pytest.approx(sum(others) / 42)
    assert found.source_to_target == sum(max(range(7), key=lambda j: table[i][j]) == i for i in range(7)) / 7
    assert found.target_to_source == sum(max(range(7), key=lambda i: table[i][j]) == j for j in range(7)) / 7
    assert alignment(one, one).source_to_target == 1.0 and alignment(one, one).pair_cosine == pytest.approx(1)


def test_a_state_is_the_last_tokens_last_hidden_state(checkpoint):
    import torch

    lm = LM(checkpoint, "empty")
    found = hidden_states(lm, ENGLISH)
    for text, state in zip(ENGLISH, found, strict=True):
        with torch.inference_mode():
            expected = lm.model.model(torch.tensor([lm.encode(text)])).last_hidden_state[0, -1]
        assert state == pytest.approx(expected.double().numpy(), abs=1e-5)


def test_the_files(checkpoint, tmp_path):
    (tmp_path / "eng.txt").write_text("\n".join(ENGLISH) + "\n", encoding="utf-8")
    rows = [{"instruction": text, "input": ""} for text in SPANISH]
    (tmp_path / "spa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out = []
    for name in ("a", "b"):
        files = str(tmp_path / "eng.txt"), str(tmp_path / "spa.jsonl")
        tsne([checkpoint, checkpoint], *files, str(tmp_path / name), "empty")
        out.append([(tmp_path / name / f"tsne.{kind}").read_bytes() for kind in ("json", "svg", "png")])
    assert out[0] == out[1]
    told = json.loads(out[0][0])
    assert [m["pairs"] for m in told["models"]] == [6, 6] and len(told["models"][0]["model_hash"]) == 64
    svg = out[0][1].decode()
    assert f"cosine: pairs {told['models'][0]['pair_cosine']:.3f}" in svg and "chance 17%" in svg
    assert svg.count('id="PathCollection') == 6  # two languages in each of two panels, and the legend


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("a\nb\nc\nd\n", "a\nb\n", "source.txt: 4 texts, .* has 2; make text n"),
        ("a\nb\n", "a\nb\n", "2 texts; t-SNE needs 4 pairs"),
        ("a\n\nb\nc\n", "a\nb\n", "source.txt:2: empty line"),
    ],
)
def test_bad_files_are_one_line(checkpoint, tmp_path, source, target, expected):
    (tmp_path / "source.txt").write_text(source)
    (tmp_path / "target.txt").write_text(target)
    with pytest.raises(UserError, match=expected):
        tsne([checkpoint], str(tmp_path / "source.txt"), str(tmp_path / "target.txt"), str(tmp_path))


@pytest.mark.parametrize("name", ["tsne.json", "tsne.svg", "tsne.png"])
def test_files_of_others_are_not_replaced(tmp_path, name):
    for language in ("source", "target"):
        (tmp_path / language).write_text("one\ntwo\nthree\nfour\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(UserError, match=f"{name}: is there already"):
        tsne(["nowhere/a"], str(tmp_path / "source"), str(tmp_path / "target"), str(tmp_path / "out"))
    assert (tmp_path / "out" / name).read_text() == "mine"
