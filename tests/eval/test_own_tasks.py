"""Tasks without code: a YAML of kind, path, fields, prompt and metrics."""

import json
import warnings
from pathlib import Path

import pytest

from sdrrl_eval.measure import runner
from sdrrl_eval.measure.recipe import EvalConfig
from sdrrl_eval.measure.task import Task
from sdrrl_factory.errors import UserError
from sdrrl_factory.models.lm import Generation
from tests.conftest import write_rows
from tests.eval.conftest import task_of

COPA = [
    {"premise": "The man broke his toe.", "choice1": "He got a hole.", "choice2": "He dropped a hammer.", "label": 1},
    {"premise": "The sun rose.", "choice1": "It grew light.", "choice2": "It grew dark", "label": 0},
    {"premise": "It rained.", "choice1": "The street is wet.", "choice2": "The street is dry.", "label": 0},
]
COPA_YAML = """
kind: multiple_choice
path: FOLDER/copa.{iso1}.jsonl
fields: {premise: premise, choices: [choice1, choice2], answer: label}
answers: index
by: text
prompt: "{premise} So:"
metrics: [accuracy, accuracy_norm]
"""


def task_file(folder: Path, text: str, name: str = "copa.yaml") -> str:
    (folder / name).write_text(text.replace("FOLDER", str(folder)), encoding="utf-8")
    return str(folder / name)


def own(folder: Path, text: str, langs: list[str], **keys) -> Task:
    return task_of(task=task_file(folder, text), langs=langs, **keys)


def log_probability(model, tokenizer, prompt: str, choice: str) -> float:
    """One sequence, float64, no cache, apart from LM."""
    import torch

    head, whole = tokenizer(prompt)["input_ids"], tokenizer(prompt + choice)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    return sum(float(logits[k - 1, whole[k]]) for k in range(len(head), len(whole)))


def test_choices_by_their_text_against_a_brute_force(checkpoint, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_rows(tmp_path / "copa.en.jsonl", COPA)
    write_rows(tmp_path / "copa.es.jsonl", COPA[::-1][:2])
    tasks = [own(tmp_path, COPA_YAML, ["eng", "spa"])]
    config = EvalConfig(model=checkpoint, output_dir=str(tmp_path / "out"), tasks=tasks, batch_size=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = runner.run(config, "r.yaml")
    model = AutoModelForCausalLM.from_pretrained(checkpoint).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    lines = (tmp_path / "out/predictions/copa.eng.jsonl").read_text(encoding="utf-8").splitlines()
    right = {"accuracy": 0, "accuracy_norm": 0}
    for row, line in zip(COPA, map(json.loads, lines), strict=True):
        choices = [row["choice1"], row["choice2"]]
        expected = [log_probability(model, tokenizer, f"{row['premise']} So:", f" {choice}") for choice in choices]
        assert line["logprobs"] == pytest.approx(expected, abs=1e-3)
        best = expected.index(max(expected))
        assert line["output"] == choices[best] and line["reference"] == "AB"[row["label"]]
        normed = [value / len(choice) for value, choice in zip(expected, choices, strict=True)]
        right["accuracy"] += best == row["label"]
        right["accuracy_norm"] += normed.index(max(normed)) == row["label"]
    scores = [score for score in results["scores"] if score["target_lang"] == "eng"]
    assert {score["metric"]: score["value"] for score in scores} == pytest.approx(
        {name: round(100 * count / 3, 4) for name, count in right.items()}
    )
    assert {score["task"] for score in results["scores"]} == {"copa"}
    assert scores[1]["signature"] == "mode:likelihood|shots:0|prompt:official|by:text|norm:characters"
    # results.json has the task as it was asked.
    assert results["config"]["tasks"][0]["prompt"] == "{premise} So:"


def test_letters_of_any_number_of_choices(tmp_path):
    rows = [{"q": f"Q{i}", "options": ["a", "b", "c", "d", "e"], "gold": "E"} for i in range(3)]
    write_rows(tmp_path / "five.jsonl", rows)
    text = """
kind: multiple_choice
path: FOLDER/five.jsonl
fields: {q: q, choices: options, answer: gold}
answers: letter
mode: generate
prompt: "{q}\\n{A} {B} {C} {D} {E}"
"""
    [part] = own(tmp_path, text, ["eng"]).read()
    assert part.items[0].prompt == "Q0\na b c d e" and part.items[0].reference == "E"
    answers = [Generation(text, "stop") for text in ("The answer is (E).", "e)", "D")]
    _, [score] = part.config.score(part, answers, [], 42)
    assert score["value"] == pytest.approx(66.6667)


SQUAD = [
    {"qas": {"q": "Capital of Spain?"}, "answers": {"text": ["Madrid", "the city of Madrid"]}, "lang": "en"},
    {"qas": {"q": "¿Capital de Francia?"}, "answers": {"text": ["París"]}, "lang": "es"},
    {"qas": {"q": "¿Capital de Italia?"}, "answers": {"text": ["Roma", "la ciudad de Roma"]}, "lang": "es"},
]
SQUAD_YAML = """
kind: generation
path: FOLDER/qa.jsonl
fields: {question: qas.q, answer: answers.text}
only: {lang: "{iso1}"}
prompt: "{question}"
metrics: [f1, em]
"""


def test_answers_of_which_the_best_counts(tmp_path):
    write_rows(tmp_path / "qa.jsonl", SQUAD)
    english, spanish = own(tmp_path, SQUAD_YAML, ["eng", "spa"]).read()
    assert [item.prompt for item in spanish.items] == ["¿Capital de Francia?", "¿Capital de Italia?"]
    assert [len(english.items), spanish.items[1].reference] == [1, "Roma\nla ciudad de Roma"]
    rows, scores = spanish.config.score(spanish, [Generation("París", "stop"), Generation("La Roma", "stop")], [], 42)
    # MKQA's normalisation takes off Spanish articles.
    assert [(score["metric"], score["value"]) for score in scores] == [("f1", 100.0), ("em", 100.0)]
    with pytest.raises(UserError, match="qa.jsonl:1: chrf compares with one answer, here are 2; take f1 and em"):
        own(tmp_path, SQUAD_YAML, ["eng"], metrics=["chrf", "f1"]).read()


def test_both_languages_in_one_row(tmp_path):
    rows = [{"translation": {"en": f"E{i}", "es": f"S{i}", "pt": f"P{i}"}} for i in range(2)]
    write_rows(tmp_path / "opus.jsonl", rows)
    text = 'kind: translation\npath: FOLDER/opus.jsonl\ncolumn: "translation.{iso1}"\nmetrics: [chrf]\n'
    there, back, other, _ = own(tmp_path, text, ["spa", "por"]).read()
    assert [(item.texts["source"], item.reference) for item in there.items] == [("E0", "S0"), ("E1", "S1")]
    assert [(item.texts["source"], item.reference) for item in back.items] == [("S0", "E0"), ("S1", "E1")]
    assert other.references == ["P0", "P1"] and there.name == "copa.eng-spa"


def test_the_language_of_any_answer(tmp_path):
    (tmp_path / "ask.csv").write_text("frage,x\n¿Qué es el agua?,1\n¿Qué es la luz?,2\n", encoding="utf-8")
    text = 'kind: answer_language\npath: FOLDER/ask.csv\nfields: {question: frage}\nprompt: "{question} ({language})"\n'
    [part] = own(tmp_path, text, ["spa"], name="lights").read()
    assert [item.prompt for item in part.items][1] == "¿Qué es la luz? (Spanish)"
    answers = ["Water is a clear liquid that all known life needs.", "La luz es una onda que vemos con los ojos."]
    _, [score] = part.config.score(part, [Generation(answer, "stop") for answer in answers], [], 42)
    assert (score["task"], score["metric"], score["value"]) == ("lights", "off_target", 50.0)


def test_a_kind_needs_no_file(tmp_path):
    write_rows(tmp_path / "qa.jsonl", SQUAD[:1])
    [part] = task_of(
        task="generation",
        path=str(tmp_path / "qa.jsonl"),
        langs=["eng"],
        fields={"question": "qas.q", "answer": "answers.text.0"},
        prompt="{question}\nA:",
        metrics=["chrf"],
        name="capitals",
    ).read()
    assert (part.name, part.items[0].prompt, part.references) == (
        "capitals.eng",
        "Capital of Spain?\nA:",
        ["Madrid"],
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path: x\n", r"copa.yaml: key kind is missing; it must be multiple_choice \| generation \| translation"),
        ("path: x\nkind: choice\n", r"copa.yaml:2: kind is 'choice'; it must be multiple_choice \| generation"),
        ("kind: generation\npath: x\nmetrics: [chrf]\n", "copa.yaml: key (fields|prompt) is missing; add it"),
        (COPA_YAML + "shuts: 3\n", "copa.yaml:9: unknown key shuts; did you mean shots?"),
        (COPA_YAML.replace("index", "indexes"), "copa.yaml:5: answers is 'indexes'; it must be number"),
        (COPA_YAML + "metrics: [\n", r"copa.yaml:\d+: not YAML"),
        (COPA_YAML + "article: premises\n", "copa.yaml:9: article is 'premises'; it must be one of the fields"),
        (COPA_YAML + "answer_tokens: some\n", "copa.yaml:9: answer_tokens is 'some'; it must be a whole number"),
        (COPA_YAML.replace("[choice1, choice2]", "[choice1, choice9]"), "en.jsonl:1: choice9 is missing or empty"),
        (COPA_YAML.replace("choices:", "options:"), "fields: no choices among the fields; write choices:"),
        (COPA_YAML.replace("index", "number"), "en.jsonl:2: label is 0, not 1 to 2"),
        (COPA_YAML.replace("by: text", "by: letter"), "^metrics: accuracy_norm is of choices by their text"),
        (
            COPA_YAML.replace("{premise} So", "{promise} So"),
            r"^prompt: .* has a hole that is none of \{premise\}, \{A\}",
        ),
        (COPA_YAML.replace(".{iso1}", ".en"), r"^path: .*copa.en.jsonl has no \{lang\} for 2 languages; write it in"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path, text, expected):
    write_rows(tmp_path / "copa.en.jsonl", COPA)
    write_rows(tmp_path / "copa.es.jsonl", COPA)
    with pytest.raises(UserError, match=expected) as caught:
        own(tmp_path, text, ["eng", "spa"]).read()
    assert "\n" not in str(caught.value) or "prompt" in expected


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"task": "no.yaml"}, "no.yaml: no such file"),
        ({"metricks": ["accuracy"]}, "unknown key tasks.0.metricks; did you mean tasks.0.metrics?"),
        ({"by": "word"}, r"tasks.0.by is 'word'; it must be letter \| text"),
        ({"name": "a/b"}, "tasks.0.name is 'a/b'; it must be letters, digits, - and _, as the name of a folder"),
        ({"langs": ["es"]}, "^langs: unknown language 'es'; did you mean spa"),
    ],
)
def test_a_mistake_in_the_recipe_is_one_line(tmp_path, keys, expected):
    write_rows(tmp_path / "copa.en.jsonl", COPA)
    with pytest.raises(UserError, match=expected) as caught:
        task_of(**{"task": task_file(tmp_path, COPA_YAML), "langs": ["eng"]} | keys).read()
    assert "\n" not in str(caught.value)
