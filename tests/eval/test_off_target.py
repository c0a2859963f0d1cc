import gzip
import json
from collections import Counter
from importlib.util import find_spec

import pytest

from sdrrl_eval.measure.task import Item, Part, Task
from sdrrl_eval.measure.tasks import answer_language
from sdrrl_factory.errors import UserError
from sdrrl_factory.language_id import Identifier
from sdrrl_factory.models.lm import Generation
from tests.eval.conftest import task_of

SPANISH = "El agua se expande al congelarse, por lo que el hielo flota."
ENGLISH = "Water expands when it freezes, and so the ice floats on it."
BACKENDS = [
    "fasttext",
    pytest.param(
        "cld3",
        marks=pytest.mark.skipif(find_spec("gcld3") is None, reason="needs gcld3: pip install 'sdrrl-factory[cld3]'"),
    ),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("text", "language", "off"),
    [
        (SPANISH, "spa", False),
        (ENGLISH, "eng", True),
        ("", "", True),
        (" \n", "", True),
        ("1 + 1 = 2", "", False),
        ("図書館", "jpn", False),
        ("はい、そうです。", "jpn", True),
    ],
)
def test_flag(backend, text, language, off):
    found = answer_language.flag(text, "spa", Identifier(backend, None, 20, 0.5))
    assert found["off_target"] == off
    if text != "図書館":  # Han alone may be Chinese
        assert found["language"] == language


def test_a_short_answer_gets_the_benefit_of_the_doubt():
    assert not answer_language.flag("Yes, of course.", "spa", Identifier("fasttext", None, 20, 0.5))["off_target"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_rate_counts_wrong_and_empty_answers(backend):
    answers = [Generation(text, "stop") for text in (SPANISH, ENGLISH, "", SPANISH, "Sí.", ENGLISH)]
    config = task_of(task="off_target", path="", langs=["spa"], identifier=backend)
    part = Part(config, None, "spa", [Item(str(i), "q", None) for i in range(6)])
    rows, [score] = config.score(part, answers, [], seed=1)
    assert score["value"] == 50.0 and score["n"] == 6
    assert [row["off_target"] for row in rows] == [False, True, True, False, False, True]
    assert rows[1]["language"] == "eng" and rows[1]["probability"] > 0.5
    assert list(score["confusion"].items()) == [("spa", 3), ("eng", 2), ("", 1)]
    assert score["confusion"]["eng"] == Counter(r["language"] for r in rows if r["off_target"])["eng"]
    sure = {"fasttext": "0.5", "cld3": "0.98"}[backend]
    assert score["signature"].startswith(f"{backend}:") and score["signature"].endswith(
        f"|minletters:20|minprob:{sure}"
    )


DOLLY = [
    {"instruction": "When did it open?", "context": "It opened in 1999.", "response": "In 1999.", "category": "qa"},
    {"instruction": "Name a river.", "context": "", "response": "The Ebro.", "category": "open"},
]
BACTRIAN = [{"id": "alpaca-7", "instruction": "¿Qué es?", "input": "Un río.", "output": "Agua."}]


def prompts(task: Task) -> list[list[tuple[str, str]]]:
    return [[(item.id, item.prompt) for item in part.items] for part in task.read()]


def test_dolly_and_bactrian_as_they_come(tmp_path):
    dolly = tmp_path / "databricks-dolly-15k.jsonl"
    dolly.write_text("".join(json.dumps(row) + "\n" for row in DOLLY), encoding="utf-8")
    assert prompts(task_of(task="off_target", path=str(dolly), langs=["eng"])) == [
        [("1", "When did it open?\nIt opened in 1999."), ("2", "Name a river.")]
    ]
    # Its answers are the references of `instructions`.
    [part] = task_of(task="instructions", path=str(dolly), langs=["eng"]).read()
    assert part.references == ["In 1999.", "The Ebro."]
    for code, text in {"es": json.dumps(BACTRIAN), "ja": "\n".join(map(json.dumps, BACTRIAN))}.items():
        (tmp_path / f"{code}.json.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "id.json").write_text(json.dumps(BACTRIAN, indent=1), encoding="utf-8")
    packed = task_of(task="off_target", path=str(tmp_path / "{bactrian}.json.gz"), langs=["spa", "jpn"])
    assert prompts(packed) == [[("alpaca-7", "¿Qué es?\nUn río.")]] * 2
    assert prompts(task_of(task="off_target", path=str(tmp_path / "{iso1}.json"), langs=["ind"])) == prompts(packed)[:1]


@pytest.mark.parametrize(
    ("name", "data", "lang", "expected"),
    [
        ("es.json.gz", b"no gzip", "spa", "es.json.gz:1: not JSON"),
        ("es.json.gz", gzip.compress(b"x" * 999)[:-9], "spa", "es.json.gz: broken gzip .*; fetch the file again"),
        (
            "es.json.gz",
            gzip.compress("año".encode("latin-1")),
            "spa",
            r"es.json.gz:1: not UTF-8 \(byte 1 of the line\)",
        ),
        ("es.json.gz", gzip.compress(b"[{]"), "spa", "es.json.gz:1: not JSON"),
        ("es.json.gz", gzip.compress(b"[3]"), "spa", "es.json.gz: row 1: int instead of an object"),
        ("es.json.gz", gzip.compress(b"{}\n{"), "spa", "es.json.gz:1: instruction is missing"),
        ("es.json.gz", gzip.compress(b"\n{"), "spa", "es.json.gz:2: not JSON"),
        ("es.json.gz", gzip.compress(b""), "spa", "es.json.gz: 0 rows"),
        ("other", b"", "spa", "es.json.gz: no such file"),
        ("other", b"", "dan", r"^langs: the data behind \{bactrian\} have no Danish; remove dan"),
        (
            "es.json.gz",
            gzip.compress(b'[{"instruction": "a", "input": [1]}]'),
            "spa",
            "es.json.gz: row 1: input is list",
        ),
    ],
)
def test_a_spoilt_file_is_one_line(tmp_path, name, data, lang, expected):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=expected) as caught:
        prompts(task_of(task="off_target", path=str(tmp_path / "{bactrian}.json.gz"), langs=[lang]))
    assert "\n" not in str(caught.value)


def test_files_in_another_encoding(tmp_path):
    (tmp_path / "q.jsonl").write_bytes('{"instruction": "¿Año?"}'.encode("utf-16"))
    with pytest.raises(UserError, match=r"q.jsonl: UTF-16 or binary; convert it"):
        prompts(task_of(task="off_target", path=str(tmp_path / "q.jsonl"), langs=["spa"]))
