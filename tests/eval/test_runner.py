import json
import subprocess
import sys
from pathlib import Path

import pytest

from sdrrl_eval import runner
from sdrrl_eval.recipe import EvalConfig, TaskConfig
from sdrrl_factory.errors import UserError
from sdrrl_factory.lm import LM


def recipe(files: Path, checkpoint: str, **keys) -> EvalConfig:
    flores, questions = str(files / "flores"), str(files / "instructions.{lang}.jsonl")
    tasks = [
        TaskConfig("text_loss", flores, ["spa", "eng"]),
        TaskConfig("translation", flores, ["spa"], max_new_tokens=12),
        TaskConfig("instructions", questions, ["spa", "eng"]),
        TaskConfig("off_target", questions, ["spa"]),
    ]
    base = dict(model=checkpoint, tasks=tasks, output_dir=str(files / "out"), max_new_tokens=6, batch_size=2)
    return EvalConfig(**base | keys)


def predictions(files: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (files / "out" / "predictions" / f"{name}.jsonl").open(encoding="utf-8")]


@pytest.fixture(scope="module")
def evaluation(checkpoint, shared_files):
    """One whole run: (its files, its results, the calls of LM.generate as (limit, prompts))."""
    files, calls, generate = shared_files, [], LM.generate

    def spy(self, users, max_new_tokens, *args, **kwargs):
        calls.append((max_new_tokens, list(users)))
        return generate(self, users, max_new_tokens, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LM, "generate", spy)
        return files, runner.run(recipe(files, checkpoint), "some.yaml"), calls


@pytest.fixture(scope="module")
def model(checkpoint):
    """The same weights in float64 and their tokenizer, apart from LM."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(checkpoint).double().eval(), AutoTokenizer.from_pretrained(checkpoint)


def nats(model, prompt: list[int], answer: list[int]) -> float:
    """Brute force: one sequence, no padding, float64."""
    import torch

    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0]
    assert logits.dtype == torch.float64
    logp = logits.log_softmax(-1)
    return -sum(float(logp[len(prompt) + i - 1, token]) for i, token in enumerate(answer))


def test_a_whole_run(evaluation, checkpoint):
    files, results, _ = evaluation
    out = files / "out"
    assert json.loads((out / "results.json").read_text(encoding="utf-8")) == results
    assert list(results) == ["model", "model_hash", "recipe", "versions", "scores"]
    assert (results["model"], results["recipe"]) == (checkpoint, "some.yaml")
    assert set(results["versions"]) == {"torch", "transformers", "sacrebleu", "sdrrl_factory"}
    assert [(s["task"], s["metric"], s["source_lang"], s["target_lang"]) for s in results["scores"]] == [
        ("text_loss", "text_loss", None, "spa"),
        ("text_loss", "text_loss", None, "eng"),
        ("translation", "bleu", "eng", "spa"),
        ("translation", "chrf", "eng", "spa"),
        ("translation", "bleu", "spa", "eng"),
        ("translation", "chrf", "spa", "eng"),
        ("instructions", "chrf", None, "spa"),
        ("instructions", "answer_loss", None, "spa"),
        ("instructions", "chrf", None, "eng"),
        ("instructions", "answer_loss", None, "eng"),
        ("off_target", "off_target", None, "spa"),
    ]
    for score in results["scores"]:
        assert score["n"] == 3 and score["signature"] and score["ci95"][0] <= score["value"] <= score["ci95"][1]
    assert sorted(p.stem for p in (out / "predictions").iterdir()) == [
        "instructions.eng", "instructions.spa", "off_target.spa", "text_loss.eng", "text_loss.spa",
        "translation.eng-spa", "translation.spa-eng",
    ]  # fmt: skip
    row = predictions(files, "translation.eng-spa")[1]
    assert row["prompt"] == "Translate the following sentence from English to Spanish.\nShe bought three red apples."
    assert row["reference"] == "Ella compró tres manzanas rojas." and row["finish"] in ("stop", "length")
    assert predictions(files, "translation.spa-eng")[1]["prompt"].startswith(
        "Translate the following sentence from Spanish to English.\nElla"
    )
    assert predictions(files, "instructions.spa")[1]["prompt"].endswith("rojas.\nx <script>")


def test_translation_scores_are_sacrebleus_of_the_predictions(evaluation):
    import sacrebleu

    files, results, _ = evaluation
    rows = predictions(files, "translation.spa-eng")
    outputs, references = [r["output"] for r in rows], [r["reference"] for r in rows]
    by_metric = {s["metric"]: s["value"] for s in results["scores"] if s["source_lang"] == "spa"}
    assert by_metric["chrf"] == round(sacrebleu.corpus_chrf(outputs, [references]).score, 4) > 0
    assert by_metric["bleu"] == round(sacrebleu.corpus_bleu(outputs, [references]).score, 4)


def test_losses_equal_a_float64_brute_force(evaluation, model):
    files, results, _ = evaluation
    network, tokenizer = model

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    for lang in ("spa", "eng"):
        texts = [(r, [tokenizer.bos_token_id]) for r in predictions(files, f"text_loss.{lang}")]
        answers = []
        for row in predictions(files, f"instructions.{lang}"):
            chat = [{"role": "user", "content": row["prompt"]}]
            answers.append((row, tokenizer.apply_chat_template(chat, add_generation_prompt=True)))
        for metric, items, kind in [("text_loss", texts, "bos:1"), ("answer_loss", answers, "eos:no")]:
            total, tokens = 0.0, 0
            for row, prompt in items:
                answer = ids(row["reference"])
                loss = nats(network, prompt, answer)
                assert row["nats"] == pytest.approx(loss, rel=1e-5) and row["tokens"] == len(answer)
                total, tokens = total + loss, tokens + len(answer)
            [score] = [s for s in results["scores"] if s["metric"] == metric and s["target_lang"] == lang]
            assert score["value"] == pytest.approx(total / tokens, abs=1e-4)
            assert score["signature"] == f"unit:nats|tokens:{tokens}|{kind}"


def test_each_distinct_prompt_is_generated_once_in_one_call_a_limit(evaluation):
    files, _, calls = evaluation
    # 3 English and 3 Spanish questions (off_target asks the Spanish ones again); 2 x 3 translations.
    assert [(limit, len(users), len(set(users))) for limit, users in calls] == [(12, 6, 6), (6, 6, 6)]
    asked, flagged = predictions(files, "instructions.spa"), predictions(files, "off_target.spa")
    assert [r["output"] for r in asked] == [r["output"] for r in flagged]


def test_the_same_inputs_write_the_same_bytes(evaluation, checkpoint, capsys):
    files, _, _ = evaluation

    def written():
        return {p.name: p.read_bytes() for p in sorted((files / "out").rglob("*.json*"))}

    before = written()
    assert len(before) == 8
    for path in (files / "out").rglob("*.json*"):
        path.unlink()
    runner.run(recipe(files, checkpoint), "some.yaml")
    assert written() == before
    said = capsys.readouterr().out
    assert f"scores: {files / 'out' / 'results.json'}" in said and "translation.spa-eng: 3 items" in said


def test_max_samples_takes_the_first(files, checkpoint):
    parts = runner.plan(recipe(files, checkpoint, max_samples=2), "r.yaml")
    assert {part.name: [item.id for item in part.items] for part in parts}["translation.spa-eng"] == ["1", "2"]
    assert all(len(part.items) == 2 for part in parts)


def test_model_hash_is_the_shells(checkpoint):
    command = "cat config.json *.safetensors | sha256sum"
    said = subprocess.run(command, shell=True, cwd=checkpoint, capture_output=True, text=True, check=True).stdout
    assert runner.model_hash(checkpoint) == said.split()[0]
    assert runner.model_hash("some/hub-id") is None


def test_the_demo_recipe_loads():
    from sdrrl_factory.config import load

    root = Path(__file__).parents[2]
    config = load(EvalConfig, str(root / "yaml_recipes/eval/demo_spa.yaml"))[0]
    assert {task.task for task in config.tasks} == set(runner.TASKS)


def test_importing_costs_nothing_and_knows_nothing_of_training():
    code = (
        "import sys\nbefore = set(sys.modules)\nimport sdrrl_eval.runner, sdrrl_eval.compare\n"
        "heavy = {'torch', 'transformers', 'sacrebleu', 'matplotlib', 'rich', 'numpy', 'fasttext'}\n"
        "new = set(sys.modules) - before\n"
        "print(sorted(m for m in new if m in heavy or m.startswith(('sdrrl_factory.tr', 'llamafactory'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def lose_a_line(files):
    (files / "flores/spa_Latn.devtest").write_text("Uno.\nDos.\n", encoding="utf-8")


def empty_a_file(files):
    (files / "flores/spa_Latn.devtest").write_text("", encoding="utf-8")


def blank_a_line(files):
    (files / "flores/spa_Latn.devtest").write_text("Uno.\n\nTres.\n", encoding="utf-8")


def remove_flores(files):
    (files / "flores/spa_Latn.devtest").unlink()


def questions(text):
    return lambda files: (files / "instructions.spa.jsonl").write_text(text, encoding="utf-8")


def nothing(files):
    pass


@pytest.mark.parametrize(
    ("spoil", "task", "expected"),
    [
        (lose_a_line, ("translation", "flores", ["spa"]), "eng_Latn.devtest has 3 lines, .*spa_Latn.devtest has 2;"),
        (empty_a_file, ("translation", "flores", ["spa"]), "spa_Latn.devtest: 0 sentences;"),
        (blank_a_line, ("text_loss", "flores", ["spa"]), "spa_Latn.devtest:2: empty line;"),
        (remove_flores, ("text_loss", "flores", ["spa"]), "spa_Latn.devtest: no such file;"),
        (nothing, ("translation", "flores", ["eng"]), r"r.yaml: tasks.0.langs: eng is the source_lang itself;"),
        (
            nothing,
            ("text_loss", "flores", ["es"]),
            r"r.yaml: tasks.0.langs: unknown language 'es'; did you mean spa",
        ),
        (nothing, ("text_loss", "flores", ["spa", "spa"]), r"r.yaml: tasks.0: text_loss.spa is asked twice;"),
        (nothing, ("off_target", "instructions.jsonl", ["spa", "eng"]), r"r.yaml: tasks.0.path: .*no \{lang\}"),
        (nothing, ("off_target", "nowhere.{lang}.jsonl", ["spa"]), "nowhere.spa.jsonl: no such file;"),
        (questions(""), ("instructions", "instructions.{lang}.jsonl", ["spa"]), "instructions.spa.jsonl: 0 rows;"),
        (questions("{"), ("instructions", "instructions.{lang}.jsonl", ["spa"]), "instructions.spa.jsonl:1: not JSON"),
        (
            questions('{"instruction": "a", "output": "b"}\n{"instruction": "a"}'),
            ("instructions", "instructions.{lang}.jsonl", ["spa"]),
            "instructions.spa.jsonl:2: output is missing",
        ),
        (
            questions('{"instruction": ["a"]}'),
            ("off_target", "instructions.{lang}.jsonl", ["spa"]),
            "instructions.spa.jsonl:1: instruction is missing",
        ),
        (
            questions('{"id": 1, "instruction": "a"}\n{"id": 1, "instruction": "b"}'),
            ("off_target", "instructions.{lang}.jsonl", ["spa"]),
            "instructions.spa.jsonl:2: id '1' stands twice",
        ),
        (
            questions('{"instruction": "a", "input": 3}'),
            ("off_target", "instructions.{lang}.jsonl", ["spa"]),
            "instructions.spa.jsonl:1: input is int",
        ),
    ],
)
def test_a_bad_input_is_one_line_before_the_model_loads(files, spoil, task, expected):
    spoil(files)
    name, path, langs = task
    config = EvalConfig("./no/model", [TaskConfig(name, str(files / path), langs)], str(files / "out"))
    with pytest.raises(UserError, match=expected) as caught:
        runner.run(config, "r.yaml")
    assert "\n" not in str(caught.value)


def test_an_output_dir_that_cannot_be_written(files, checkpoint):
    (files / "taken").write_text("")
    with pytest.raises(UserError, match="output_dir: .*taken cannot be written"):
        runner.run(recipe(files, checkpoint, output_dir=str(files / "taken")), "r.yaml")


def test_a_checkpoint_that_is_not_there(files):
    with pytest.raises(UserError, match="model: no checkpoint at .*nowhere"):
        runner.run(recipe(files, str(files / "nowhere")), "r.yaml")
