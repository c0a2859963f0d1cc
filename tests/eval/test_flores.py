import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdrrl_eval.measure.metrics import mt
from sdrrl_eval.measure.reading import sentences_path
from sdrrl_eval.measure.task import Task
from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.models.lm import Generation
from tests.eval.conftest import task_of

DATA = Path(__file__).parents[1] / "data/flores"


def task(**keys) -> Task:
    return task_of(**{"task": "flores", "path": str(DATA), "langs": ["spa"], "tokenizer": "13a"} | keys)


def test_both_directions_of_the_release():
    there, back = task().read()
    assert (there.name, back.name) == ("flores.eng-spa", "flores.spa-eng")
    assert there.items[1].prompt == (
        "Translate the following sentence from English to Spanish.\nShe bought three red apples."
    )
    assert back.items[1].prompt.startswith("Translate the following sentence from Spanish to English.\nElla")
    assert there.items[1].reference == back.items[1].texts["source"] == "Ella compró tres manzanas rojas."
    [own, _] = task(prompt="{source}: {sentence}\n{target}:").read()
    assert own.items[2].prompt == "English: Nobody knew the answer.\nSpanish:"


def test_dev_files_lie_in_a_folder_named_dev(tmp_path):
    spanish = LANGUAGES["spa"]
    assert sentences_path(str(DATA), spanish) == DATA / "devtest/spa_Latn.devtest"
    assert sentences_path(str(DATA / "devtest"), spanish) == DATA / "devtest/spa_Latn.devtest"
    assert sentences_path(str(tmp_path / "dev"), spanish).name == "spa_Latn.dev"
    assert sentences_path(str(tmp_path), spanish).name == "spa_Latn.devtest"


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("names", "path", "text"),
    [
        # FLORES-200 as released, unpacked, by its devtest; with a hole in the path.
        (("devtest/eng_Latn.devtest", "devtest/spa_Latn.devtest"), "", "One.\nTwo.\n"),
        (("eng_Latn.devtest", "spa_Latn.devtest"), "{flores}.devtest", "One.\nTwo.\n"),
        (("x/eng.txt", "x/spa.txt"), "x/{lang}.txt", "One.\nTwo.\n"),
        # FLORES-101: ISO 639-3 without a script.
        (("devtest/eng.devtest", "devtest/spa.devtest"), "", "One.\nTwo.\n"),
        # FLORES+: rows.
        (
            ("devtest/eng_Latn.jsonl", "devtest/spa_Latn.jsonl"),
            "",
            '{"id": 1, "text": "One."}\n{"id": 2, "text": "Two."}',
        ),
        (("dev/eng_Latn.jsonl", "dev/spa_Latn.jsonl"), "dev", '{"id": 1, "text": "One."}\n{"id": 2, "text": "Two."}'),
        (("eng_Latn.jsonl", "spa_Latn.jsonl"), "{flores}.jsonl", '{"text": "One."}\n{"text": "Two."}'),
    ],
)
def test_the_shapes_of_its_releases(tmp_path, names, path, text):
    for name in names:
        write(tmp_path, name, text if "eng" in name else text.replace("One", "Uno"))
    there, back = task(path=str(tmp_path / path), metrics=["chrf"]).read()
    assert [item.texts["source"] for item in there.items] == ["One.", "Two."] == back.references
    assert there.references == ["Uno.", "Two."]
    assert [Path(file).name for file in there.files] == [Path(name).name for name in names]


def test_flores_plus_has_codes_of_its_own_and_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "devtest").mkdir()
    for code, text in (("eng_Latn", "One."), ("cmn_Hans", "一。"), ("ekk_Latn", "Üks.")):
        pq.write_table(pa.table({"id": [1], "text": [text]}), tmp_path / f"devtest/{code}.parquet")
    parts = task(path=str(tmp_path), langs=["zho", "est"], metrics=["chrf"]).read()
    assert [part.references for part in parts[::2]] == [["一。"], ["Üks."]]


def test_one_file_is_not_two_languages(tmp_path):
    write(tmp_path, "all.txt", "One.\n")
    with pytest.raises(UserError, match=r"^path: .*all.txt would be both eng and spa; write \{lang\} into it"):
        task(path=str(tmp_path / "all.txt")).read()


def test_scores_are_the_sacrebleu_commands(tmp_path):
    part = task().read()[0]
    outputs = ["El río es muy ancho cerca de la ciudad.", "Ella compró tres manzanas.", "Nadie sabía la respuesta."]
    rows, scores = part.config.score(part, [Generation(text, "stop") for text in outputs], [], 42)
    by_metric = {s["metric"]: s for s in scores}
    assert list(by_metric) == ["bleu", "chrf++"] and rows[2]["chrf"] == 100
    (tmp_path / "out").write_text("\n".join(outputs) + "\n", encoding="utf-8")
    reference = str(DATA / "devtest/spa_Latn.devtest")
    for metric, arguments in {"bleu": ["-m", "bleu"], "chrf++": ["-m", "chrf", "--chrf-word-order", "2"]}.items():
        command = [sys.executable, "-m", "sacrebleu", reference, "-i", str(tmp_path / "out"), "-w", "4", *arguments]
        said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert by_metric[metric]["value"] == said["score"] > 30
        assert by_metric[metric]["signature"] == said["signature"]


def test_the_demos_task_is_the_same_with_13a_and_chrf():
    part = task(task="translation", tokenizer=None).read()[0]
    assert part.name == "translation.eng-spa"
    _, scores = part.config.score(part, [Generation(i.reference, "stop") for i in part.items], [], 42)
    assert [s["metric"] for s in scores] == ["bleu", "chrf"] and "tok:13a" in scores[0]["signature"]


def test_the_papers_signature_with_the_flores200_model(tmp_path):
    """In a process of its own: sacrebleu reads SACREBLEU once. The model is a small one of the same kind."""
    spm = pytest.importorskip("sentencepiece")
    (tmp_path / "models").mkdir()
    text = str(Path(__file__).parents[2] / "data/heldout/sentences/spa_Latn.devtest")
    spm.SentencePieceTrainer.train(
        input=text, model_prefix=str(tmp_path / "m"), vocab_size=300, minloglevel=9, hard_vocab_limit=False
    )
    (tmp_path / "m.model").rename(tmp_path / "models/flores200sacrebleuspm")
    code = (
        "from sdrrl_eval.measure.metrics import mt\nmt.check_tokenizer('flores200')\n"
        "print(mt.bleu(['El río es ancho.'], ['El río es ancho.'], 'spa', 1, 'flores200').signature)"
    )
    environment = os.environ | {"SACREBLEU": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    from importlib.metadata import version

    assert done.stdout.strip() == f"nrefs:1|case:mixed|eff:no|tok:flores200|smooth:exp|version:{version('sacrebleu')}"


@pytest.mark.parametrize("empty", [False, True])
def test_without_the_flores200_model_it_is_one_line_and_nothing_is_fetched(tmp_path, monkeypatch, empty):
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", str(tmp_path))
    if empty:  # what a failed download leaves
        (tmp_path / "models").mkdir()
        (tmp_path / "models/flores200sacrebleuspm").touch()
    with pytest.raises(UserError) as caught:
        task(tokenizer=None).check()
    said = str(caught.value)
    assert said.startswith("tokenizer: flores200 needs sacrebleu's SentencePiece model")
    assert str(tmp_path / "models/flores200sacrebleuspm") in said and "\n" not in said
    assert "copy it there from a machine that has it" in said and said.endswith("or set tokenizer: 13a")
    for langs, advice in {
        ("jpn", "khm"): "tokenizer: char",
        ("spa", "kor", "tha"): "tokenizer: 13a for spa, and char for kor, tha, in an entry of their own",
    }.items():
        with pytest.raises(UserError) as caught:
            task(tokenizer=None, langs=list(langs)).check()
        assert str(caught.value).endswith(f"or set {advice}")
    task(tokenizer=None, metrics=["chrf++"]).check()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"tokenizer": "flores"}, r"^tokenizer: sacrebleu has no 'flores'; it has 13a, char"),
        ({"langs": ["eng"]}, "^langs: eng is the source_lang itself; remove it"),
        ({"langs": ["fra"]}, "fra_Latn.devtest: no such file"),
        ({"prompt": "{sentence} {x}"}, r"^prompt: .*a hole that is none of \{source\}"),
    ],
)
def test_a_mistake_is_one_line(keys, expected):
    with pytest.raises(UserError, match=expected) as caught:
        task(**keys).check()
        task(**keys).read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"Uno.\nDos.\n", "eng_Latn.devtest has 3 lines, .*spa_Latn.devtest has 2; make line n of both the same"),
        (b"", "spa_Latn.devtest: 0 sentences"),
        (b"Uno.\n\nTres.\n", "spa_Latn.devtest:2: empty line"),
        ("Añ".encode("latin-1"), "spa_Latn.devtest: not UTF-8"),
    ],
)
def test_files_that_do_not_fit(tmp_path, raw, expected):
    (tmp_path / "eng_Latn.devtest").write_bytes((DATA / "devtest/eng_Latn.devtest").read_bytes())
    (tmp_path / "spa_Latn.devtest").write_bytes(raw)
    with pytest.raises(UserError, match=expected):
        task(path=str(tmp_path)).read()


def test_other_tokenizers_say_what_they_lack():
    try:
        mt.check_tokenizer("ja-mecab")
    except UserError as err:
        assert str(err).startswith("ja-mecab cannot be used (") and "\n" not in str(err)
