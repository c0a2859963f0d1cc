import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from sacrebleu import sentence_chrf

from sdrrl_factory.errors import UserError
from sdrrl_factory.memory import Memory
from sdrrl_factory.models.comet import installation
from sdrrl_factory.transfer import quality
from sdrrl_factory.transfer.recipe import Quality, Translator
from tests.kiwi import predict

needs_comet = pytest.mark.skipif(installation() is None, reason="needs COMET: sdrrl install comet")
BACK = {
    "Hola mundo": "Hello world",
    "Qué es\nesto": "What it is\nthis one",
    "Qué es": "What it is",
    "Nada": "Something else",
}
BATCH = {
    "id": ["a", "b"],
    "instruction": ["Hello world", "What is"],
    "input": ["", "this"],
    "answer": ["Hello, world", "Nothing"],
    "output": ["Hello world", "Nothing"],
    "instruction_mt": ["Hola mundo", "Qué es"],
    "input_mt": ["", "esto"],
    "answer_mt": ["Hola mundo", "Nada"],
    "output_mt": ["Hola mundo", None],
}
SIDES = ("question", "answer")


def translate_back(texts):
    return [BACK[t] for t in texts]


def chrf(back, source):
    return pytest.approx(sentence_chrf(back, [source]).score / 100, abs=1e-4)


def roundtrip(back=translate_back):
    """An estimator whose translator back is `back`."""

    engine = SimpleNamespace(
        signature=lambda source, target, back: f"{source}-{target} {back}",
        texts=lambda texts, source, target, **way: [(text, "") for text in back(texts)],
    )
    return quality.RoundTrip(engine, "eng", "spa")


def score_batch(batch, sides, scorer):
    stage = quality.Score(sides, "eng", "spa", "a scorer", Quality(), Translator(), Path("memory.sqlite"))
    return stage(batch, scorer)


def make(**keys):
    return quality.make(Quality(**keys), Translator(), "eng", "spa", Memory(Path(":memory:")))


class Counting:
    name = "counting"

    def __init__(self):
        self.asked = []

    def score(self, pairs):
        self.asked += pairs
        return [0.123456 + 0.1 * i for i in range(len(pairs))]


@pytest.mark.parametrize(
    ("config", "tau"),
    [
        (Quality(backend="cometkiwi"), 0.8),
        (Quality(backend="roundtrip"), 0.4),
        (Quality(backend="none"), None),
        (Quality(backend="cometkiwi", threshold=0.7), 0.7),
        (Quality(backend="roundtrip", threshold=0.0), 0.0),
        (Quality(backend="none", threshold=0.7), None),
    ],
)
def test_threshold(config, tau):
    assert quality.threshold(config) == tau


def test_scores_are_chrf_of_the_round_trip():
    out = score_batch(BATCH, (*SIDES, "output"), roundtrip())
    assert out["question_qe"] == [1.0, chrf("What it is\nthis one", "What is\nthis")]
    assert out["answer_qe"] == [chrf("Hello world", "Hello, world"), chrf("Something else", "Nothing")]
    assert out["output_qe"] == [1.0, None]
    assert 0 < out["answer_qe"][1] < out["question_qe"][1] < 1
    assert {k: out[k] for k in BATCH} == BATCH and "output_qe" not in BATCH


@pytest.mark.parametrize(
    ("column", "scored"), [("instruction_mt", "question"), ("input_mt", "question"), ("answer_mt", "answer")]
)
def test_a_missing_translation_has_no_score(column, scored):
    out = score_batch({**BATCH, column: [BATCH[column][0], None]}, SIDES, roundtrip())
    whole = score_batch(BATCH, SIDES, roundtrip())
    other = {"question": "answer", "answer": "question"}[scored]
    assert out[f"{scored}_qe"] == [whole[f"{scored}_qe"][0], None]
    assert out[f"{other}_qe"] == whole[f"{other}_qe"]


def test_a_text_that_cannot_be_translated_back_scores_nothing():
    scorer = roundtrip(lambda texts: [None if t == "Nada" else BACK[t] for t in texts])
    assert score_batch(BATCH, SIDES, scorer)["answer_qe"][1] == 0.0


def test_each_distinct_pair_is_scored_once_and_rounded():
    scorer = Counting()
    batch = {key: values * 3 for key, values in BATCH.items()}
    out = score_batch(batch, ("question", "output"), scorer)
    assert scorer.asked == [("Hello world", "Hola mundo"), ("What is\nthis", "Qué es\nesto")]
    assert out["question_qe"] == [0.1235, 0.2235] * 3
    assert out["output_qe"] == [0.1235, None] * 3
    assert "answer_qe" not in out


def test_without_a_scorer_there_are_no_scores():
    assert make(backend="none") is None
    out = score_batch(BATCH, SIDES, None)
    assert out["question_qe"] == out["answer_qe"] == [None, None]


def test_a_batch_without_translations_asks_nothing():
    batch = {**BATCH, "answer_mt": [None, None]}
    scorer = Counting()
    assert score_batch(batch, ("answer",), scorer)["answer_qe"] == [None, None]
    assert scorer.asked == []


@needs_comet
class TestCometKiwi:
    PAIRS = [
        ("The library opens in the summer.", "La biblioteca se abre en verano."),
        ("Water.", "Agua."),
        ("", "Nada"),
        ("ok", ""),
        ("One two three " * 300, "Uno dos tres " * 300),
        ("図書館は夏に開館します。", "La biblioteca se abre en verano 😀."),
        ("A line\nand another", "Una línea\ny otra"),
    ]

    @pytest.fixture
    def folder(self, comet_models):
        return comet_models["kiwi"]

    @pytest.fixture(scope="class")
    def by_hand(self, comet_models):
        return predict(comet_models["kiwi"], [{"src": source, "mt": target} for source, target in self.PAIRS])

    @pytest.mark.parametrize("batch_size", [1, 3, 16])
    def test_scores_are_those_of_comet(self, folder, by_hand, batch_size):
        scorer = make(backend="cometkiwi", model=str(folder), batch_size=batch_size)
        expected = [min(max(s, 0.0), 1.0) for s in by_hand]
        assert len({round(s, 3) for s in expected}) == len(expected)  # the tiny model tells the pairs apart
        assert scorer.score(self.PAIRS) == pytest.approx(expected, abs=1e-5)

    def test_a_file_and_its_folder_are_one_model(self, folder):
        file = quality.CometKiwi(str(folder / "checkpoints" / "model.ckpt"), 4)
        assert file.name == quality.CometKiwi(str(folder), 4).name
        assert file.score(self.PAIRS[:1]) == quality.CometKiwi(str(folder), 4).score(self.PAIRS[:1])

    def test_nothing_is_printed(self, folder, capfd):
        quality.CometKiwi(str(folder), 4).score(self.PAIRS)
        assert capfd.readouterr() == ("", "")

    def test_a_model_that_wants_references_is_refused(self, comet_models):
        model = comet_models["comet"]
        with pytest.raises(UserError, match=r"^quality.model: .* references; name a COMETKiwi model$"):
            make(backend="cometkiwi", model=str(model)).score(self.PAIRS)

    def test_pickled_code_is_not_run(self, folder, tmp_path):
        import torch

        class Evil:
            def __reduce__(self):
                return (open, (str(tmp_path / "ran"), "w"))

        bad = tmp_path / "bad"
        (bad / "checkpoints").mkdir(parents=True)
        (bad / "hparams.yaml").write_text((folder / "hparams.yaml").read_text())
        torch.save({"state_dict": Evil()}, bad / "checkpoints" / "model.ckpt")
        with pytest.raises(UserError, match="broken or holds pickled code"):
            quality.CometKiwi(str(bad), 4).score(self.PAIRS)
        assert not (tmp_path / "ran").exists()

    def test_no_encoder(self, folder, tmp_path):
        import shutil

        import torch

        moved = tmp_path / "moved"
        shutil.copytree(folder, moved)
        path = moved / "checkpoints" / "model.ckpt"
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["hyper_parameters"]["pretrained_model"] = str(tmp_path / "nowhere" / "there")
        torch.save(checkpoint, path)
        with pytest.raises(UserError, match=r"^quality.model: .* cannot be loaded") as told:
            quality.CometKiwi(str(moved), 4).score(self.PAIRS)
        assert "\n" not in str(told.value)

    @pytest.mark.parametrize(
        ("files", "model", "told"),
        [
            ((), "nowhere/model.ckpt", r"no checkpoint at nowhere/model.ckpt; mend the path, or accept the licence"),
            ((), "/nowhere/at/all", "no checkpoint at /nowhere/at/all"),
            (("hparams.yaml",), "", "model.ckpt not found; a checkpoint folder holds"),
            (("checkpoints/model.ckpt",), "", "has no hparams.yaml"),
        ],
    )
    def test_a_wrong_path_is_told_at_once(self, tmp_path, files, model, told):
        for name in files:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("x")
        with pytest.raises(UserError, match=told) as error:
            make(backend="cometkiwi", model=model or str(tmp_path))
        assert str(error.value).startswith("quality.model: ") and "\n" not in str(error.value)

    @pytest.mark.parametrize("raw", [b"", b"garbage" * 100, b"PK\x03\x04 truncated"])
    def test_a_broken_checkpoint_is_one_line(self, folder, tmp_path, raw):
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "hparams.yaml").write_text((folder / "hparams.yaml").read_text())
        (tmp_path / "checkpoints" / "model.ckpt").write_bytes(raw)
        with pytest.raises(UserError, match="^quality.model: ") as error:
            quality.CometKiwi(str(tmp_path), 4).score(self.PAIRS)
        assert "\n" not in str(error.value)


@needs_comet
def test_a_hub_that_cannot_be_reached_is_told_at_once(tmp_path):
    from tests.conftest import command

    code = (
        "from sdrrl_factory.transfer.quality import CometKiwi\n"
        "try: CometKiwi('Unbabel/wmt22-cometkiwi-da', 4)\n"
        "except Exception as e: import json; print(json.dumps([type(e).__name__, str(e)]))"
    )
    import sys

    done = command(sys.executable, "-c", code, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    kind, told = json.loads(done.stdout.splitlines()[-1])
    assert kind == "UserError" and "\n" not in told
    assert "Unbabel/wmt22-cometkiwi-da cannot be reached" in told and "accept the licence" in told
