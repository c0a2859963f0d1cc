import json
import re
from pathlib import Path

import pytest

from sdrrl_eval.measure.metrics import letters
from sdrrl_eval.measure.task import Part, Scored, Task
from sdrrl_factory.errors import UserError, under
from sdrrl_factory.memory import Memory
from sdrrl_factory.models.lm import Generation
from sdrrl_factory.models.remembered import RememberedModel
from tests.eval.conftest import task_of

DATA = Path(__file__).parents[1] / "data/belebele"
CHOICES = [" A", " B", " C", " D"]


def one_by_one(exact, tokenizer, prompt: str, choices: list[str]) -> list[float]:
    """Each choice appended, one sequence a pass, no padding, no cache."""
    import torch

    head, out = tokenizer(prompt)["input_ids"], []
    for choice in choices:
        whole = tokenizer(prompt + choice)["input_ids"]
        with torch.no_grad():
            logits = exact(torch.tensor([whole])).logits[0].log_softmax(-1)
        out.append(sum(float(logits[k - 1, whole[k]]) for k in range(len(head), len(whole))))
    return out


def task(**keys) -> Task:
    return task_of(**{"task": "belebele", "path": str(DATA), "langs": ["spa"]} | keys)


def part_of(**keys):
    return task(**keys).read()[0]


def remembered(folder: Path, load) -> RememberedModel:
    # A folder, so that its identity needs no hub.
    return RememberedModel(Memory(folder / "memory.sqlite"), str(folder), load=load)


def scored(part: Part, model: RememberedModel) -> Scored:
    return part.config.score(part, [], part.config.likelihoods(part, model, 4), 42)


def test_the_likelihood_task(lm, exact, tmp_path):
    part = part_of()
    answers = remembered(tmp_path, lambda: lm)
    rows, [score] = scored(part, answers)
    assert len(rows) == len(part.items) == 6 and all(item.prompt is None for item in part.items)
    first = rows[0]
    assert first["prompt"] == (
        "P: Marta cultiva tomates en el balcón. Los riega cada mañana antes de ir al trabajo.\n"
        "Q: ¿Cuándo riega Marta los tomates?\n"
        "A: Por la noche\nB: Antes de trabajar\nC: Los domingos\nD: Nunca\nAnswer:"
    )
    assert first["reference"] == "B" and first["id"] == "own/balcon 1"
    for row in rows:
        expected = one_by_one(exact, lm.tokenizer, row["prompt"], CHOICES)
        assert row["logprobs"] == pytest.approx(expected, abs=1e-4)
        assert row["letter"] == row["output"] == "ABCD"[expected.index(max(expected))]
        assert row["accuracy"] == (row["letter"] == row["reference"])
    assert score["value"] == pytest.approx(100 * sum(row["accuracy"] for row in rows) / 6, abs=1e-4)
    assert (score["metric"], score["n"]) == ("accuracy", 6) and score["ci95"][0] <= score["value"] <= score["ci95"][1]
    assert score["signature"] == "mode:likelihood|shots:0|prompt:official"
    # Once computed, it is read back: no model is asked.
    again = remembered(tmp_path, lambda: pytest.fail("the model was loaded"))
    assert scored(part, again)[0] == rows


def test_examples_are_drawn_once_and_not_asked(lm, tmp_path):
    part = part_of(shots=2)
    rows, [score] = scored(part, remembered(tmp_path, lambda: lm))
    heads = {re.split(r"(?<=Answer: [ABCD]\n\n)(?=P: )", row["prompt"])[0] for row in rows}
    assert len(heads) == 1 and all(row["prompt"].count("Answer:") == 3 for row in rows)
    shown = re.findall(r"P: (.*)", rows[0]["prompt"])[:2]
    assert not {item.texts["passage"] for item in part.items} & set(shown)
    assert score["signature"].startswith("mode:likelihood|shots:2") and score["n"] == len(part.items) < 6
    other = part_of(shots=2, examples=str(DATA / "eng_Latn.jsonl"))
    assert len(other.items) == 6 and "The vet said" in other.prompt
    # One file for all languages: English examples for everyone; the test of English is none.
    for code in ("spa_Latn", "fra_Latn"):
        text = (DATA / "spa_Latn.jsonl").read_text(encoding="utf-8").replace("spa_Latn", code)
        (tmp_path / f"{code}.jsonl").write_text(text, encoding="utf-8")
    english = str(DATA / "eng_Latn.jsonl")
    [spanish, other] = task(path=str(tmp_path), shots=2, examples=english, langs=["spa", "fra"]).read()
    assert spanish.prompt == other.prompt and len(other.items) == 6
    # The same questions in every language: the draw is by link and number.
    own = task(shots=1, langs=["eng", "spa"]).read()
    assert [part.items[0].id for part in own][0] == [part.items[0].id for part in own][1]


def test_braces_in_an_example_stay(tmp_path):
    lines = (DATA / "spa_Latn.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        row["question"] += " {A} {x}"
    (tmp_path / "spa_Latn.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    [part] = task(path=str(tmp_path), shots=1).read()
    assert part.prompt.format_map(part.items[0].texts).count("{A} {x}") == 2


def test_dialects_in_one_file_are_told_apart(tmp_path):
    rows = [ROW | {"dialect": code, "question_number": i, "question": f"{code}?"}
            for i, code in enumerate(("eng_Latn", "spa_Latn", "fra_Latn"))]  # fmt: skip
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    parts = task(path=str(tmp_path / "all.jsonl"), langs=["spa", "eng"]).read()
    assert [[item.texts["question"] for item in part.items] for part in parts] == [["spa_Latn?"], ["eng_Latn?"]]


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("B", "B"), ("(B)", "B"), ("(C) Los domingos", "C"), ("The correct answer is (D).", "D"), ("", ""),
     ("Because", "B"), ("b", "b"), ("Respuesta: A", "R")],
)  # fmt: skip
def test_a_written_answer_is_parsed_as_in_the_papers_repository(answer, letter):
    assert letters.paper_letter(answer) == letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), ("(B)", "B"), ("b", "B"), ("b)", "B"), ("B.", "B"), ("B) Los domingos", "B"), ("[C]", "C"),
        ("C: Los domingos", "C"), ("D Nunca", "D"), ("A\n\nBecause (B) is not in the text.", "A"), ("Ｂ", "B"),
        ("**B**", "B"), ("**B. Los domingos**", "B"), ("`D`", "D"), ("$\\boxed{C}$", "C"), ("\\boxed{\\text{A}}", "A"),
        ("The correct answer is (D).", "D"), ("The answer is B", "B"), ("Answer: C", "C"), ("Respuesta: A", "A"),
        ("La respuesta correcta es B.", "B"), ("Jawaban: **D**", "D"), ("答案：B", "B"), ("Option C is correct.", "C"),
        ("The correct option is: (A) Lunes", "A"), ("Answer:\n(B)", "B"), ("The answer is option B.", "B"),
        ("(A) is wrong, and so is (C). The answer is (B).", "B"),
        ("Let us see. (A) is wrong, (C) too. The answer is (B).", "B"),
        ("Both (A) and (C) may be right.", ""), ("Because", ""), ("A dog barks", ""), ("", ""), ("No lo sé", ""),
        ("Dogs", ""), ("Anna", ""), ("I do not know.", ""),
    ],
)  # fmt: skip
def test_the_ways_models_write_a_letter(answer, letter):
    assert letters.written_letter(answer) == letter


def test_the_papers_parser_beside(tmp_path):
    part = part_of(mode="generate", metrics=["accuracy", "accuracy_paper"])
    gold = [item.reference for item in part.items]
    answers = [Generation(f"**{letter}**" if i % 2 else f"({letter})", "stop") for i, letter in enumerate(gold)]
    rows, scores = part.config.score(part, answers, [], 42)
    assert [(score["metric"], score["value"]) for score in scores] == [("accuracy", 100.0), ("accuracy_paper", 50.0)]
    assert [score["signature"].split("|")[3] for score in scores] == ["letter:written", "letter:paper"]
    assert [row["accuracy_paper"] for row in rows] == [i % 2 == 0 for i in range(len(gold))]
    with pytest.raises(UserError, match="^metrics: accuracy_paper reads a written letter; set mode: generate$"):
        part_of(metrics=["accuracy_paper"])


def test_the_generative_task(tmp_path):
    part = part_of(mode="generate")
    assert part.items[0].prompt.startswith("Given the following passage, query, and answer choices, output the letter")
    assert part.items[0].prompt.endswith("\n(D) Nunca\n###\nAnswer:\n")
    answers = [Generation(text, "stop") for text in ["(B)", "A", "", "The correct answer is C", "x", "D"]]
    rows, [score] = part.config.score(part, answers, [], 42)
    gold = [item.reference for item in part.items]
    right = [a == b for a, b in zip(["B", "A", "", "C", "x", "D"], gold, strict=True)]
    assert [row["accuracy"] for row in rows] == right and rows[0]["output"] == "(B)"
    assert score["value"] == pytest.approx(100 * sum(right) / 6, abs=1e-4)
    assert score["signature"].startswith("mode:generate")


def spoiled(row: dict, **keys) -> str:
    return json.dumps({k: v for k, v in (row | keys).items() if v is not None}, ensure_ascii=False)


ROW = {
    "link": "a", "question_number": 1, "flores_passage": "P.", "question": "Q?", "mc_answer1": "1", "mc_answer2": "2",
    "mc_answer3": "3", "mc_answer4": "4", "correct_answer_num": "2",
}  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "keys", "expected"),
    [
        (spoiled(ROW, mc_answer3=None), {}, r"spa_Latn.jsonl:1: mc_answer3 is missing or empty; fetch"),
        (spoiled(ROW, flores_passage=" "), {}, r"spa_Latn.jsonl:1: flores_passage is missing or empty"),
        (spoiled(ROW, correct_answer_num="5"), {}, r"spa_Latn.jsonl:1: correct_answer_num is 5, not 1 to 4"),
        (spoiled(ROW) + "\n" + spoiled(ROW), {}, r"spa_Latn.jsonl:2: link and question_number 'a 1' stands twice"),
        ("", {}, r"spa_Latn.jsonl: 0 rows"),
        ("{", {}, r"spa_Latn.jsonl:1: not JSON"),
        ("ñ".encode("latin-1"), {}, r"spa_Latn.jsonl:1: not UTF-8"),
        (None, {}, r"spa_Latn.jsonl: no such file"),
        (spoiled(ROW), {"shots": 5}, r"tasks.0.shots: .* has too few questions for 5 examples"),
        (spoiled(ROW), {"mode": "guess"}, r"tasks.0.mode is 'guess'; it must be likelihood \| generate$"),
        (spoiled(ROW), {"mode": "generate", "shots": 1}, r"tasks.0.shots: .* has too few questions for 1 examples"),
        (spoiled(ROW), {"system_prompt": "Be brief."}, r"tasks.0.system_prompt: likelihoods are of plain text"),
        (spoiled(ROW, dialect="eng_Latn"), {}, r"0 rows with dialect spa_Latn; it has dialect eng_Latn: name the file"),
        (spoiled(ROW), {"prompt": "P: {text} {D}"}, r"tasks.0.prompt: .*a hole that is none of \{passage\}"),
        (spoiled(ROW), {"prompt": "P: {passage}"}, r"tasks.0.prompt: .*lacks \{D\}"),
        (spoiled(ROW), {"metrics": ["acc"]}, r"tasks.0.metrics.0 is 'acc'; it must be accuracy"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, raw, keys, expected):
    if raw is not None:
        (tmp_path / "spa_Latn.jsonl").write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    with pytest.raises(UserError, match=expected) as caught, under("tasks.0"):
        task(path=str(tmp_path), **keys).read()
    assert "\n" not in str(caught.value)
