"""Few-shot prompts, system prompts and stop strings: what is asked, drawn from where, and where an answer ends."""

import json
import warnings
from pathlib import Path

import pytest

from sdrrl_eval.measure import runner
from sdrrl_eval.measure.recipe import EvalConfig
from sdrrl_factory.errors import UserError
from sdrrl_factory.models.lm import LM
from tests.conftest import write_rows
from tests.eval.conftest import task_of

DATA = Path(__file__).parents[1] / "data"
ENGLISH = ["One.", "Two {x}.", "Three.", "Four.", "Five."]
SPANISH = ["Uno.", "Dos {x}.", "Tres.", "Cuatro.", "Cinco."]


def release(folder: Path) -> Path:
    """A release of FLORES: the tests' devtest, and a dev of five sentences."""
    for code, lines in (("eng_Latn", ENGLISH), ("spa_Latn", SPANISH)):
        for split, text in (
            ("devtest", (DATA / f"flores/devtest/{code}.devtest").read_text(encoding="utf-8")),
            ("dev", "".join(f"{line}\n" for line in lines)),
        ):
            (folder / split).mkdir(parents=True, exist_ok=True)
            (folder / split / f"{code}.{split}").write_text(text, encoding="utf-8")
    return folder


def flores(folder: Path, **keys):
    return task_of(**{"task": "flores", "path": str(folder), "langs": ["spa"], "metrics": ["chrf"]} | keys).read()


def shown(prompt: str) -> list[tuple[str, str]]:
    """(sentence, translation) of each example in a prompt of FLORES's default form."""
    *examples, _ = prompt.split("\n\n")
    return [tuple(example.split("\n")[1:]) for example in examples]  # type: ignore[misc]


def test_flores_draws_from_dev_the_same_in_both_directions(tmp_path):
    there, back = flores(release(tmp_path), shots=3)
    question = "Translate the following sentence from English to Spanish.\n"
    pairs = shown(there.items[0].prompt)
    assert len(set(pairs)) == 3 and all(SPANISH[ENGLISH.index(english)] == spanish for english, spanish in pairs)
    expected = "".join(f"{question}{english}\n{spanish}\n\n" for english, spanish in pairs)
    zero = flores(tmp_path)
    assert [item.prompt for item in there.items] == [expected + item.prompt for item in zero[0].items]
    assert shown(back.items[2].prompt) == [(spanish, english) for english, spanish in pairs]
    # What results.json tells of the prompt has the examples, braces doubled: it is a form to be filled.
    assert there.prompt.format(sentence="S") == f"{expected}{question}S"
    assert flores(tmp_path, shots=3)[0].items == there.items
    others = [shown(flores(tmp_path, shots=3, shots_seed=seed)[0].items[0].prompt) for seed in range(1, 6)]
    assert any(other != pairs for other in others)


QUESTIONS = [{"id": str(i), "instruction": f"Q{i}?", "input": "", "output": f"A{i}."} for i in range(4)]
TRAINING = [{"id": f"t{i}", "instruction": f"T{i}?", "input": "", "output": f"B{i}."} for i in range(4)]
NEWS = [{"id": f"n{i}", "title": "", "text": f"Text {i}.", "summary": f"Sum {i}."} for i in range(4)]


def mkqa(name: str) -> dict:
    answers = [{"type": "short_phrase", "text": f"{name} one", "aliases": ["another"]}]
    return {"example_id": name, "queries": {"es": f"{name}?"}, "answers": {"es": answers}}


@pytest.mark.parametrize(
    ("task", "rows", "training", "first"),
    [
        ("instructions", QUESTIONS, TRAINING, "T{0}?\nB{0}.\n\n"),
        ("off_target", QUESTIONS, TRAINING, "T{0}?\nB{0}.\n\n"),
        (
            "xlsum",
            NEWS,
            [row | {"id": f"t{i}", "text": f"Other {i}."} for i, row in enumerate(NEWS)],
            "Summarize the following text in one sentence in Spanish.\nOther {0}.\nSum {0}.\n\n",
        ),
        (
            "mkqa",
            [mkqa("q1"), mkqa("q2")],
            [mkqa(f"t{i}") for i in range(4)],
            "Answer the following question in Spanish with as few words as possible.\nt{0}?\nt{0} one\n\n",
        ),
    ],
)
def test_every_task_that_asks_has_shots(tmp_path, task, rows, training, first):
    test, examples = write_rows(tmp_path / "test.jsonl", rows), write_rows(tmp_path / "train.jsonl", training)
    keys = {"task": task, "path": str(test), "langs": ["spa"]}
    [zero] = task_of(**keys).read()
    [part] = task_of(**keys, shots=1, examples=str(examples)).read()
    prefix = part.items[0].prompt.removesuffix(zero.items[0].prompt)
    assert prefix in {first.format(i) for i in range(4)}
    assert [item.prompt for item in part.items] == [prefix + item.prompt for item in zero.items]
    assert [item.texts for item in part.items] == [item.texts for item in zero.items]


def test_a_prompt_that_ends_in_a_colon_is_answered_in_its_line(tmp_path):
    test, examples = write_rows(tmp_path / "a.jsonl", QUESTIONS), write_rows(tmp_path / "b.jsonl", TRAINING[:1])
    task = task_of(
        task="instructions",
        path=str(test),
        langs=["eng"],
        prompt="Q: {instruction}\nA:",
        shots=1,
        examples=str(examples),
    )
    assert task.read()[0].items[3].prompt == "Q: T0?\nA: B0.\n\nQ: Q3?\nA:"
    assert task.stops(task.prompt) == ("\n",)


def test_written_letters_have_shots_from_the_test_itself():
    [part] = task_of(task="belebele", path=str(DATA / "belebele"), langs=["spa"], mode="generate", shots=1).read()
    asked = part.items[0].prompt
    assert asked.count("Passage:") == 2 and asked.split("\n\n")[0].endswith(
        "###\nAnswer:\n" + asked.split("\n\n")[0][-1]
    )
    assert len(part.items) < 6


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "^examples: 1 shots need examples that are not the test; name a file or folder like that of path"),
        ({"examples": "{test}"}, "^examples: .*test.jsonl is the test itself; name another file"),
        ({"examples": "{folder}/link.jsonl"}, "^examples: .*link.jsonl is the test itself"),
        ({"examples": "{folder}/no.jsonl"}, "no.jsonl: no such file"),
        ({"examples": "{folder}/leaked.jsonl"}, "^shots: .*leaked.jsonl has too few questions for 1 examples"),
        ({"examples": "{folder}/unanswered.jsonl"}, "^shots: .*unanswered.jsonl has too few questions"),
    ],
)
def test_examples_that_are_none(tmp_path, keys, expected):
    test = write_rows(tmp_path / "test.jsonl", QUESTIONS)
    (tmp_path / "link.jsonl").symlink_to(test)
    write_rows(tmp_path / "leaked.jsonl", [row | {"id": "other", "output": "C."} for row in QUESTIONS[:1]])
    write_rows(tmp_path / "unanswered.jsonl", [{"instruction": "T?"}])
    keys = {key: value.format(test=test, folder=tmp_path) for key, value in keys.items()}
    with pytest.raises(UserError, match=expected) as caught:
        task_of(task="off_target", path=str(test), langs=["eng"], shots=1, **keys).read()
    assert "\n" not in str(caught.value)


# --- a whole run


def by_hand(checkpoint: str, ids: list[int], limit: int) -> str:
    """Greedily, one sequence, in float64, apart from LM: the text up to the end of turn."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(checkpoint).double().eval(),
        AutoTokenizer.from_pretrained(checkpoint),
    )
    tokens: list[int] = []
    with torch.no_grad():
        while len(tokens) < limit:
            token = int(model(torch.tensor([ids + tokens])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            tokens.append(token)
    return tokenizer.decode(tokens, skip_special_tokens=True).strip()


def test_a_system_prompt_and_stops_shape_the_answer(checkpoint, tmp_path):
    from transformers import AutoTokenizer

    questions = write_rows(tmp_path / "q.jsonl", QUESTIONS)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    chat = [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": row["instruction"]}]
        for row in QUESTIONS
    ]
    prompts = [tokenizer.apply_chat_template(turns, add_generation_prompt=True) for turns in chat]
    whole = [by_hand(checkpoint, ids, 24) for ids in prompts]
    # A letter that stands within the first answer, as a tiny model that knows nothing never writes a line.
    stop = next(letter for letter in whole[0][3:] if letter.strip() and letter not in whole[0][:3])
    assert any(stop in text for text in whole)
    task = {"task": "instructions", "path": str(questions), "langs": ["eng"], "metrics": ["chrf", "answer_loss"]}
    keys = {"model": checkpoint, "output_dir": str(tmp_path / "out"), "max_new_tokens": 24, "batch_size": 3}
    config = EvalConfig(**keys, system_prompt="Be brief.", tasks=[task_of(**task, stop=[stop])])
    results = runner.run(config, "r.yaml")
    lines = (tmp_path / "out/predictions/instructions.eng.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["output"] for row in rows] == [text.split(stop)[0].strip() for text in whole]
    assert {row["finish"] for row in rows if stop in whole[rows.index(row)]} == {"stop"}
    about = results["parts"]["instructions.eng"]
    assert about["system_prompt"] == "Be brief." and about["stop"] == [stop]
    # The loss of the reference stands behind the system prompt as well.
    lm = LM(checkpoint)
    for row, question in zip(rows, QUESTIONS, strict=True):
        [(nats, tokens)] = lm.answer_loss([(question["instruction"], question["output"])], 1, "Be brief.")
        assert row["nats"] == pytest.approx(nats, abs=1e-3) and row["tokens"] == tokens
        [(other, _)] = lm.answer_loss([(question["instruction"], question["output"])], 1)
        assert abs(other - nats) > 1e-3


def test_two_entries_of_one_task_have_names_of_their_own(checkpoint, tmp_path):
    release(tmp_path / "flores")
    task = {"task": "flores", "path": str(tmp_path / "flores"), "langs": ["spa"], "metrics": ["chrf"]}
    keys = {"model": checkpoint, "output_dir": str(tmp_path / "out"), "max_new_tokens": 3}
    with pytest.raises(UserError, match="flores.eng-spa is asked twice"):
        runner.plan(EvalConfig(**keys, tasks=[task_of(**task), task_of(**task, shots=2)]))
    tasks = [task_of(**task), task_of(**task, shots=2, name="flores_2shot")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = runner.run(EvalConfig(**keys, tasks=tasks), "r.yaml")
    zero, two = results["scores"][0], results["scores"][2]
    assert (zero["task"], two["task"]) == ("flores", "flores_2shot")
    assert two["signature"] == f"{zero['signature']}|shots:2" and "shots:" not in zero["signature"]
    assert results["parts"]["flores_2shot.eng-spa"]["shots"] == 2
    assert (tmp_path / "out/predictions/flores_2shot.spa-eng.jsonl").is_file()


def test_text_that_goes_on_ends_where_the_prompt_says_so(tmp_path):
    """Without a chat format, that is: with LLaMA-Factory's template `empty`."""
    test, examples = write_rows(tmp_path / "a.jsonl", QUESTIONS), write_rows(tmp_path / "b.jsonl", TRAINING)

    def stops(template: str | None, **keys) -> tuple[str, ...]:
        task = task_of(task="instructions", path=str(test), langs=["eng"], metrics=["chrf"], **keys)
        config = EvalConfig(model="m", template=template, output_dir=str(tmp_path / "out"), tasks=[task])
        return runner.plan(config)[0].stop

    assert stops("empty", prompt="{instruction}\nAnswer:") == ("\n",)
    assert stops("empty", prompt="{instruction}\nAnswer:", stop=[]) == ()
    assert stops("empty") == ()
    assert stops("empty", shots=1, examples=str(examples)) == ("\n\n",)
    assert stops(None, prompt="{instruction}\nAnswer:") == ()
    assert stops(None, prompt="{instruction}\nAnswer:", stop=["."]) == (".",)
