"""NLLB through transformers and CTranslate2, against plain `generate` on one segment after another."""

import json
import re
import shutil
from pathlib import Path

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.transfer.recipe import Translator as Config
from sdrrl_factory.transfer.translate.ctranslate2 import CTranslate2, convert
from sdrrl_factory.transfer.translate.nllb import Batches, Nllb
from tests.conftest import ROOT
from tests.transfer.nllb_model import build

PAIRS = [("eng", "spa"), ("spa", "eng")]
ctranslate2 = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("ctranslate2"),
    reason="ctranslate2 is not installed: pip install 'sdrrl-factory[ctranslate2]'",
)


@pytest.fixture(scope="session")
def segments() -> list[str]:
    rows = map(json.loads, (ROOT / "data/seeds/english_instructions.jsonl").read_text().splitlines())
    cut = [s for row in rows for s in re.split(r"(?<=[.?!])\s+", row["output"]) if s.strip() and "\n" not in s]
    return list(dict.fromkeys(cut))


@pytest.fixture(scope="session")
def nllb(tmp_path_factory, segments) -> str:
    return str(build(tmp_path_factory.mktemp("nllb") / "nllb", segments, 64, 2, 600, seconds=60, steps=200))


@pytest.fixture(scope="session")
def converted(tmp_path_factory, nllb) -> str:
    folder = tmp_path_factory.mktemp("ct2") / "float32"
    convert(nllb, str(folder), "float32")
    return str(folder)


def config(model: str | None, **keys) -> Config:
    return Config(model=model, **{"max_new_tokens": 48, **keys})


@pytest.fixture(scope="session")
def alone(nllb, segments) -> list[str]:
    """40 segments, each by itself, as transformers' documentation has it."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(nllb, src_lang="eng_Latn")
    model = AutoModelForSeq2SeqLM.from_pretrained(nllb).eval()
    out = []
    for segment in segments[:40]:
        with torch.inference_mode():
            ids = model.generate(
                **tokenizer(segment, return_tensors="pt"),
                forced_bos_token_id=tokenizer.convert_tokens_to_ids("spa_Latn"),
                num_beams=4,
                max_new_tokens=48,
                early_stopping=True,
            )[0]
        text = tokenizer.decode(ids, skip_special_tokens=True).strip()
        out.append(text if ids[1:].tolist().count(tokenizer.eos_token_id) else "")
    return out


def test_a_batch_gives_what_each_segment_gives_alone(nllb, segments, alone):
    out = Nllb(config(nllb, batch_size=8), PAIRS).translate(segments[:40], "eng", "spa")
    assert out == alone
    assert len(set(alone)) > 20  # neither is the model flat nor the order chance


def test_the_codes_of_both_languages_reach_the_model(nllb):
    translator = Nllb(config(nllb), [("spa", "ces")])
    row = translator._tokens.encode(["Hola."], "spa")[0]
    code = translator._tokens.tokenizer.convert_tokens_to_ids
    assert (row[0], row[-1]) == (code("spa_Latn"), code("</s>"))
    assert translator._search([row], "ces", 10)[0][0] == code("ces_Latn")


@ctranslate2
def test_ctranslate2_in_float32_is_transformers(nllb, converted, segments):
    ours = Nllb(config(nllb), PAIRS).translate(segments[:200], "eng", "spa")
    theirs = CTranslate2(config(converted), PAIRS).translate(segments[:200], "eng", "spa")
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    assert same >= 0.99 * 200
    assert sum(map(bool, ours)) > 100


@ctranslate2
@pytest.mark.parametrize(("beam", "limit"), [(1, 48), (4, 12)])
def test_they_agree_greedily_and_where_translations_are_cut_off(nllb, converted, segments, beam, limit):
    both = [
        make(config(model, beam_size=beam, max_new_tokens=limit), PAIRS).translate(segments[:40], "eng", "spa")
        for make, model in ((Nllb, nllb), (CTranslate2, converted))
    ]
    assert both[0] == both[1]
    assert any(both[0])
    assert "" in both[0] or limit == 48


@ctranslate2
def test_int8_runs_converted_or_quantized_while_loading(nllb, converted, segments, tmp_path):
    convert(nllb, str(tmp_path / "int8"), "int8")
    a = CTranslate2(config(str(tmp_path / "int8")), PAIRS)
    b = CTranslate2(config(converted, compute_type="int8"), PAIRS)
    full = CTranslate2(config(converted), PAIRS)
    one, other = (t.translate(segments[:40], "eng", "spa") for t in (a, b))
    assert sum(x == y for x, y in zip(one, other, strict=True)) >= 36 and any(one)
    assert len({a.name, b.name, full.name}) == 3
    sizes = [(Path(folder) / "model.bin").stat().st_size for folder in (tmp_path / "int8", converted)]
    assert sizes[0] < 0.5 * sizes[1]


@pytest.fixture(params=["nllb", pytest.param("ctranslate2", marks=ctranslate2)])
def translator(request, nllb, converted):
    if request.param == "nllb":
        return Nllb(config(nllb), PAIRS)
    return CTranslate2(config(converted), PAIRS)


def test_empty_and_too_long_segments_are_not_translated(translator, segments):
    long = " ".join(segments[:60])
    out = translator.translate(["", segments[0], long, "  ", segments[1]], "eng", "spa")
    assert [bool(t) for t in out] == [False, True, False, False, True]
    assert out[1::3] == translator.translate(segments[:2], "eng", "spa")
    assert translator.translate([], "eng", "spa") == []


def test_names_tell_models_and_settings_apart(nllb, tmp_path):
    other = tmp_path / "other" / "nllb"
    shutil.copytree(nllb, other)
    with open(other / "model.safetensors", "r+b") as f:
        f.seek(-1, 2)
        last = f.read(1)
        f.seek(-1, 2)
        f.write(bytes([last[0] ^ 1]))
    made = [
        Nllb(c, PAIRS)
        for c in (
            config(nllb),
            config(str(other)),
            config(nllb, beam_size=2),
            config(nllb, max_new_tokens=9),
            config(nllb, compute_type="bfloat16"),
        )
    ]
    assert len({t.name for t in made}) == 5
    assert Nllb(config(nllb, batch_size=3), PAIRS[:1]).name == made[0].name


def test_batches_are_bounded_by_rows_and_by_padded_tokens():
    rows = [[0] * n for n in (1000, 300, 128, 64, 64, *[3] * 18)]
    cut = list(Batches(4).cut(range(23), rows))
    assert cut == [[0], [1], [2, 3], [4, 5, 6, 7], list(range(8, 23))]
    assert [len(batch) for batch in Batches(1).cut(range(18), rows[5:])] == [4, 4, 4, 4, 2]


def test_running_out_of_memory_halves_the_batch_and_says_so(nllb, segments, capsys):
    import torch

    class Small(Nllb):
        """A machine with room for three rows."""

        def _search(self, rows, target, max_new_tokens):
            if len(rows) > 3:
                raise torch.OutOfMemoryError("out of memory")
            return super()._search(rows, target, max_new_tokens)

    out = Small(config(nllb, batch_size=8), PAIRS).translate(segments[:10], "eng", "spa")
    assert out == Nllb(config(nllb), PAIRS).translate(segments[:10], "eng", "spa")
    assert capsys.readouterr().out.splitlines() == [
        "out of memory: short segments have translator.batch_size rows a batch too",
        *[f"out of memory: translator.batch_size is now {n}" for n in (4, 2)],
    ]
    batches = Batches(1)
    batches.halve()
    with pytest.raises(UserError, match=r"^batch_size: out of memory with batch_size 1"):
        batches.halve()


def test_nothing_is_loaded_before_the_first_translation(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    late = Nllb(config(str(tmp_path), compute_type="float32"), PAIRS)
    assert late.name.startswith("nllb ")
    with pytest.raises(UserError, match=r"^model: .* cannot be loaded \(.*\); mend the path"):
        late.translate(["a"], "eng", "spa")


def test_a_checkpoint_without_language_codes_is_named(tiny):
    with pytest.raises(UserError, match="is no NLLB-200 model \\(its tokenizer has no eng_Latn\\)") as err:
        Nllb(config(str(tiny)), PAIRS).translate(["a"], "eng", "spa")
    assert "\n" not in str(err.value)


def test_mistakes_told_at_once(tmp_path, nllb):
    with pytest.raises(UserError, match="^model: no checkpoint at .*config.json not found"):
        Nllb(config(str(tmp_path)), PAIRS)
    with pytest.raises(UserError, match="^compute_type: the nllb backend has no int8"):
        Nllb(config(nllb, compute_type="int8"), PAIRS)
    with pytest.raises(UserError, match="sdrrl convert-model facebook/nllb-200-3.3B FOLDER"):
        CTranslate2(config(None), PAIRS)
    with pytest.raises(UserError, match="model.bin not found"):
        CTranslate2(config(nllb), PAIRS)


@ctranslate2
def test_a_broken_converted_model_is_one_line(converted, tmp_path):
    shutil.copytree(converted, tmp_path / "broken")
    (tmp_path / "broken/model.bin").write_bytes(Path(converted, "model.bin").read_bytes()[:1000])
    with pytest.raises(UserError, match="^model: .*broken cannot be loaded"):
        CTranslate2(config(str(tmp_path / "broken")), PAIRS).translate(["a"], "eng", "spa")


@ctranslate2
def test_conversion_leaves_a_whole_folder_or_none(nllb, tiny, tmp_path):
    for model, folder, kind, why in (
        (nllb, "a", "int7", "int7: unknown; known: .*int8"),
        (str(tiny), "b", "int8", "no NLLB-200 model"),
        (str(tmp_path), "c", "int8", "config.json not found"),
        (nllb, ".", "int8", "is there already"),
    ):
        with pytest.raises(UserError, match=why):
            convert(model, str(tmp_path / folder), kind)
    assert list(tmp_path.iterdir()) == []
