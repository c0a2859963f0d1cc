import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest

from sdrrl_eval.measure import runner
from sdrrl_eval.measure.recipe import EvalConfig
from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import language
from sdrrl_factory.models.checkpoint import model_hash
from sdrrl_factory.models.lm import LM
from tests.eval.conftest import task_of, without_times


def recipe(files: Path, checkpoint: str, **keys) -> EvalConfig:
    flores, questions = str(files / "flores"), str(files / "instructions.{lang}.jsonl")
    tasks = [
        task_of(task="text_loss", path=flores, langs=["spa", "eng"]),
        task_of(task="translation", path=flores, langs=["spa"], max_new_tokens=12),
        task_of(task="instructions", path=questions, langs=["spa", "eng"]),
        task_of(task="off_target", path=questions, langs=["spa"]),
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
    keys = ["model", "model_hash", "recipe", "versions", "decoding", "scores", "parts", "config", "data", "times"]
    assert list(results) == keys
    assert (results["model"], results["recipe"]) == (checkpoint, "some.yaml")
    libraries = {"torch", "transformers", "tokenizers", "numpy", "sacrebleu"}
    assert set(results["versions"]) == libraries | {"python", "sdrrl_factory"}
    assert all(results["versions"][name] == version(name) for name in libraries)
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


def test_results_tell_how_the_answers_were_made(evaluation):
    files, results, _ = evaluation
    chat = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    said = {"strategy": "greedy", "template": None, "batch_size": 2, "max_samples": None, "seed": 42}
    device = results["decoding"].pop("device")
    assert results["decoding"] == said | {"format": chat, "precision": "float32"} and device in ("cpu", "cuda")
    results["decoding"]["device"] = device
    about = results["parts"]["translation.eng-spa"]
    rows = predictions(files, "translation.eng-spa")
    stopped = {f: sum(r["finish"] == f for r in rows) for f in sorted({r["finish"] for r in rows})}
    assert about == {
        "path": str(files / "flores"),
        "n": 3,
        "prompt": "Translate the following sentence from English to Spanish.\n{sentence}",
        "max_new_tokens": 12,
        "finish": stopped,
        "empty": sum(not r["output"] for r in rows),
    }
    assert results["parts"]["off_target.spa"]["prompt"] == "{instruction}\n{input}"
    assert results["parts"]["text_loss.spa"] == {"path": str(files / "flores"), "n": 3}


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
            prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
            answers.append((row, prompt))
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


def test_each_distinct_prompt_is_generated_once_the_longest_first(evaluation, model):
    files, _, calls = evaluation
    _, tokenizer = model
    # 3 English and 3 Spanish questions (off_target asks the Spanish ones again); 2 x 3 translations.
    for limit in (12, 6):
        batches = [users for n, users in calls if n == limit]
        [asked] = batches  # four batches of two are handed over together
        lengths = [len(tokenizer(user)["input_ids"]) for user in asked]
        assert len(set(asked)) == 6 and lengths == sorted(lengths, reverse=True)
    asked, flagged = predictions(files, "instructions.spa"), predictions(files, "off_target.spa")
    assert [r["output"] for r in asked] == [r["output"] for r in flagged]


def test_the_same_inputs_write_the_same_bytes(evaluation, checkpoint, capsys):
    files, _, _ = evaluation

    def written():
        texts = {str(p.relative_to(files)): p.read_text("utf-8") for p in sorted((files / "out").rglob("*.json*"))}
        return texts | {"out/results.json": without_times(texts["out/results.json"])}

    before = written()
    assert len(before) == 8
    for path in [*(files / "out").rglob("*.json*"), *files.glob("memory.sqlite*")]:
        path.unlink()
    runner.run(recipe(files, checkpoint), "some.yaml")
    assert written() == before
    said = capsys.readouterr().out
    assert f"scores: {files / 'out' / 'results.json'}" in said and "translation.spa-eng: 3 items" in said


def test_max_samples_takes_the_first(files, checkpoint):
    parts = runner.plan(recipe(files, checkpoint, max_samples=2, draw="first"))
    assert {part.name: [item.id for item in part.items] for part in parts}["translation.spa-eng"] == ["1", "2"]
    assert all(len(part.items) == 2 for part in parts)


def test_max_samples_draws_the_same_items_in_every_language(tmp_path):
    (tmp_path / "flores").mkdir()
    for code in ("eng_Latn", "spa_Latn"):
        (tmp_path / f"flores/{code}.devtest").write_text("\n".join(f"{code} {i}" for i in range(1000)))
    task = task_of(task="translation", path=str(tmp_path / "flores"), langs=["spa"])

    def drawn(**keys) -> list[list[int]]:
        config = EvalConfig(model="m", output_dir=str(tmp_path), tasks=[task], **keys)
        return [[int(item.id) for item in part.items] for part in runner.plan(config)]

    there, back = drawn(max_samples=200)
    assert there == back == sorted(set(there)) and len(there) == 200
    # Over the whole file, each item as likely as any other: the mean of 200 of 1,000 lies within 4 standard errors.
    assert abs(sum(there) / 200 - 500.5) < 4 * 288.7 * (0.8 / 200) ** 0.5
    assert drawn(max_samples=200) == [there, back]
    # More items hold those of fewer, another seed has others.
    assert set(there) < set(drawn(max_samples=300)[0])
    assert len(set(there) & set(drawn(max_samples=200, seed=1)[0])) < 80
    assert drawn(max_samples=2000)[0] == list(range(1, 1001))


def test_results_tell_the_resolved_recipe_and_the_hash_of_every_data_file(evaluation, checkpoint):
    import hashlib

    files, results, _ = evaluation
    names = ["flores/eng_Latn.devtest", "flores/spa_Latn.devtest", "instructions.eng.jsonl", "instructions.spa.jsonl"]
    expected = {str(files / name): hashlib.sha256((files / name).read_bytes()).hexdigest() for name in names}
    assert results["data"] == expected
    # What is written is a recipe that gives the same again.
    assert EvalConfig.model_validate(results["config"]) == recipe(files, checkpoint)
    started = datetime.fromisoformat(results["times"].pop("started"))
    assert abs((datetime.now(UTC) - started).total_seconds()) < 3600
    assert all(0 <= seconds < 3600 for seconds in results["times"].values()) and len(results["times"]) == 2
    results["times"]["started"] = started.isoformat(timespec="seconds")


def test_one_file_as_two_languages_is_refused(files):
    (files / "instructions.por.jsonl").write_bytes((files / "instructions.spa.jsonl").read_bytes())
    task = task_of(task="off_target", path=str(files / "instructions.{lang}.jsonl"), langs=["spa", "por"])
    with pytest.raises(UserError, match="^tasks.0.path: spa and por have the same texts; name a file for each"):
        runner.plan(recipe(files, "./no/model", tasks=[task]))


@pytest.mark.parametrize(
    ("code", "limits"), [("spa", [256, 64]), ("jpn", [384, 96]), ("tha", [1024, 256]), ("khm", [1536, 384])]
)
def test_the_limit_of_an_answer_is_by_task_and_script_unless_named(tmp_path, code, limits):
    flores = language(code).flores
    (tmp_path / "flores").mkdir()
    for name in ("eng_Latn", flores):
        (tmp_path / f"flores/{name}.devtest").write_text(f"{name}\n")
    (tmp_path / f"q.{code}.jsonl").write_text('{"instruction": "a"}\n')

    def limits_of(**keys) -> list[int]:
        tasks = [
            task_of(task="translation", path=str(tmp_path / "flores"), langs=[code]),
            task_of(task="off_target", path=str(tmp_path / "q.{lang}.jsonl"), langs=[code]),
        ]
        parts = runner.plan(EvalConfig(model="m", output_dir=str(tmp_path), tasks=tasks, **keys), scoring=False)
        return [part.max_new_tokens for part in parts]

    into, back, off_target = limits_of()
    assert [into, off_target] == limits and back == 256
    assert limits_of(max_new_tokens=7) == [7, 7, 7]


def test_model_hash_is_the_shells(checkpoint):
    command = "cat config.json *.safetensors | sha256sum"
    said = subprocess.run(command, shell=True, cwd=checkpoint, capture_output=True, text=True, check=True).stdout
    assert model_hash(checkpoint) == said.split()[0]
    assert model_hash("some/hub-id") is None


def test_the_demo_recipe_loads():
    from sdrrl_factory.recipe import load

    root = Path(__file__).parents[2]
    config = load(EvalConfig, str(root / "yaml_recipes/eval/demo_spa.yaml")).config
    assert {task.task for task in config.tasks} >= {"translation", "instructions", "off_target", "text_loss"}
    assert runner.plan(config)


def test_importing_costs_nothing_and_knows_nothing_of_training():
    code = (
        "import sys\nbefore = set(sys.modules)\nimport sdrrl_eval.measure.runner, sdrrl_eval.compare\n"
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
        (nothing, ("translation", "flores", ["eng"]), r"^tasks.0.langs: eng is the source_lang itself;"),
        (
            nothing,
            ("text_loss", "flores", ["es"]),
            r"^tasks.0.langs: unknown language 'es'; did you mean spa",
        ),
        (nothing, ("text_loss", "flores", ["spa", "spa"]), r"^tasks.0: text_loss.spa is asked twice;"),
        (nothing, ("off_target", "instructions.jsonl", ["spa", "eng"]), r"^tasks.0.path: .*no \{lang\}"),
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
    config = EvalConfig(
        model="./no/model",
        tasks=[task_of(task=name, path=str(files / path), langs=langs)],
        output_dir=str(files / "out"),
    )
    with pytest.raises(UserError, match=expected) as caught:
        runner.run(config, "r.yaml")
    assert "\n" not in str(caught.value)


def test_an_output_dir_that_cannot_be_written(files, checkpoint):
    (files / "taken").write_text("")
    with pytest.raises(UserError, match="^output_dir: .*taken cannot be written"):
        runner.run(recipe(files, checkpoint, output_dir=str(files / "taken")), "r.yaml")


@pytest.mark.parametrize("name", ["results.json", "predictions/off_target.spa.jsonl"])
def test_files_of_others_in_the_output_dir_are_not_replaced(files, checkpoint, name):
    path = files / "theirs" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"acc": 1.0}\n')
    with pytest.raises(UserError, match=f"{name}: is there already"):
        runner.run(recipe(files, checkpoint, output_dir=str(files / "theirs")), "r.yaml")
    assert path.read_text() == '{"acc": 1.0}\n'


def test_a_checkpoint_that_is_not_there(files):
    with pytest.raises(
        UserError, match="^model: no checkpoint at .*nowhere: config.json .*; train and export it first"
    ):
        runner.run(recipe(files, str(files / "nowhere")), "r.yaml")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (dict(shots=5), "unknown key tasks.0.shots; known keys: task, path, langs, name, max_new_tokens$"),
        (dict(metrics=["chrf"]), "unknown key tasks.0.metrics; known keys: task, path, langs, name, max_new_tokens$"),
        (dict(identifier="cld3"), "unknown key tasks.0.identifier; known keys: task, "),
        (dict(task="mkqa", mode="generate"), "unknown key tasks.0.mode; known keys: .*, prompt, metrics$"),
        (dict(task="off_target", identifer="cld3"), "unknown key tasks.0.identifer; did you mean tasks.0.identifier"),
        (dict(task="instructions", metrics=["chfr"]), r"tasks.0.metrics.0 is 'chfr'; .* \(did you mean chrf\?\)$"),
        (dict(task="translation", metrics=["rouge"]), r"0 is 'rouge'; it must be bleu \| chrf \| chrf\+\+ \| comet$"),
        (
            dict(task="instruction"),
            r"tasks.0.task is 'instruction'; it must be answer_language \| belebele \| .*did you mean instructions",
        ),
        (dict(task=None), r"tasks.0.task is 'None'; it must be answer_language \| belebele \| "),
    ],
)
def test_keys_that_do_not_go_together_are_one_line(files, keys, expected):
    with pytest.raises(UserError, match=expected) as caught:
        task_of(**dict(task="text_loss", path=str(files / "flores"), langs=["spa"]) | keys)
    assert "\n" not in str(caught.value)


def test_metrics_choose_what_is_computed(files, checkpoint):
    questions = str(files / "instructions.{lang}.jsonl")
    tasks = [
        task_of(task="instructions", path=questions, langs=["spa"], metrics=["chrf"]),
        task_of(task="translation", path=str(files / "flores"), langs=["spa"], metrics=["bleu"]),
    ]
    results = runner.run(recipe(files, checkpoint, tasks=tasks), "r.yaml")
    assert [s["metric"] for s in results["scores"]] == ["chrf", "bleu", "bleu"]


def test_a_hub_id_without_a_network_is_one_line(files):
    with pytest.raises(UserError, match="^model: some/hub-id cannot be loaded ") as caught:
        runner.run(recipe(files, "some/hub-id"), "r.yaml")
    assert "\n" not in str(caught.value)


def copied(checkpoint: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "spoilt"))


def resaved(folder: Path, change) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    change(model)
    model.save_pretrained(folder)


def no_template(folder):
    (folder / "chat_template.jinja").unlink()


def bad_template(folder):
    (folder / "chat_template.jinja").write_text("{% for %}")


def one_nan(folder):
    resaved(folder, lambda m: m.model.layers[1].mlp.up_proj.weight.data[3, 4].fill_(float("nan")))


def one_infinity(folder):
    resaved(folder, lambda m: m.model.norm.weight.data[0].fill_(float("inf")))


def overflow(folder):
    resaved(folder, lambda m: m.model.norm.weight.data.fill_(3e38))


def few_embeddings(folder):
    resaved(folder, lambda m: m.resize_token_embeddings(300))


def many_embeddings(folder):
    resaved(folder, lambda m: m.resize_token_embeddings(5000))


def added_tokens(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(folder)


def other_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))


def broken_json(folder):
    (folder / "config.json").write_text("{")


def broken_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{}")


def no_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)


def cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def unknown_kind(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "some_other"}))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (no_template, "has no chat template; set `template:` to its LLaMA-Factory template"),
        (bad_template, "chat template of .* fails|cannot be loaded"),
        (one_nan, r"has NaN or infinity in model.layers.1.mlp.up_proj.weight; train or export it again"),
        (one_infinity, "has NaN or infinity in model.norm.weight;"),
        (overflow, r"has NaN or infinity in its first answer, though its weights are finite \(float32 overflows\);"),
        (few_embeddings, r"tokenizer of .* does not match .*\(a prompt has token 3\d\d, .* have 300 rows\); export"),
        (many_embeddings, r"tokenizer of .* does not match its weights \(400 tokens, 5000 embeddings\); copy"),
        (other_shape, "cannot be loaded .*; export or fetch it again"),
        (broken_json, "cannot be loaded"),
        (broken_tokenizer, "cannot be loaded"),
        (no_tokenizer, "cannot be loaded"),
        (cut_weights, "cannot be loaded"),
        (no_weights, "cannot be loaded"),
        (unknown_kind, "cannot be loaded"),
    ],
)
def test_a_spoilt_checkpoint_is_one_line(files, checkpoint, tmp_path, spoil, expected):
    folder = copied(checkpoint, tmp_path)
    spoil(folder)
    with pytest.raises(UserError, match=f"^model: .*(?:{expected})") as caught:
        runner.run(recipe(files, str(folder)), "r.yaml")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert not (files / "out" / "results.json").exists()


def test_a_token_more_than_the_embeddings_is_a_mistake_only_in_a_prompt(files, checkpoint, tmp_path):
    folder = copied(checkpoint, tmp_path)
    added_tokens(folder)
    results = runner.run(recipe(files, str(folder)), "r.yaml")
    plain = runner.run(recipe(files, checkpoint, output_dir=str(files / "plain")), "r.yaml")
    assert [s["value"] for s in results["scores"]] == [s["value"] for s in plain["scores"]]
    (files / "instructions.spa.jsonl").write_text('{"instruction": "Hola <pad> adiós", "output": "a"}\n')
    task = task_of(task="off_target", path=str(files / "instructions.spa.jsonl"), langs=["spa"])
    with pytest.raises(UserError, match=r"^model: .* \(a prompt has token 400, '<pad>', the embeddings have 400"):
        runner.run(recipe(files, str(folder), tasks=[task]), "r.yaml")


def test_a_padded_vocabulary_is_none_of_these(files, checkpoint, tmp_path):
    folder = copied(checkpoint, tmp_path)
    resaved(folder, lambda m: m.resize_token_embeddings(512))
    assert runner.run(recipe(files, str(folder)), "r.yaml")["scores"]


def adapter(checkpoint: str, folder: Path) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(checkpoint), LoraConfig(r=2, target_modules=["q_proj"]))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)
    model.save_pretrained(folder)
    return folder


def test_an_adapter_is_part_of_the_model(evaluation, files, checkpoint, tmp_path):
    _, base, _ = evaluation
    lora = adapter(checkpoint, tmp_path / "lora")
    results = runner.run(recipe(files, checkpoint, adapter=str(lora)), "r.yaml")
    assert results["model"] == f"{checkpoint} + {lora}" and "peft" in results["versions"]
    assert results["model_hash"] != base["model_hash"]
    assert [s["value"] for s in results["scores"]] != [s["value"] for s in base["scores"]]


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda f: shutil.rmtree(f), r"adapter: no LoRA adapter at .*lora \(adapter_config.json not found\); mend"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), r"adapter: .*\(adapter_model.safetensors not found\)"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "adapter: .*lora cannot be loaded"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"x" * 99), "model: .*lora cannot be loaded"),
    ],
)
def test_a_spoilt_adapter_is_one_line(files, checkpoint, tmp_path, spoil, expected):
    lora = adapter(checkpoint, tmp_path / "lora")
    spoil(lora)
    with pytest.raises(UserError, match=f"^(?:{expected})") as caught:
        runner.run(recipe(files, checkpoint, adapter=str(lora)), "r.yaml")
    assert "\n" not in str(caught.value)


def test_the_command_line_names_the_line_of_a_mistake(files, checkpoint, capsys):
    from sdrrl_factory.cli import main

    path = files / "r.yaml"
    tasks = f"tasks:\n- task: text_loss\n  path: {files}/flores\n  langs: [spa]\n  shots: 3\n"
    path.write_text(f"model: {checkpoint}\noutput_dir: {files}/out\n{tasks}")
    assert main(["eval", str(path)]) == 2
    told = capsys.readouterr().err
    known = "task, path, langs, name, max_new_tokens"
    assert told == f"sdrrl: {path}:7: unknown key tasks.0.shots; known keys: {known}\n"
    path.write_text(path.read_text().replace("  shots: 3\n", "").replace("[spa]", "[es]"))
    assert main(["eval", str(path)]) == 2
    told = capsys.readouterr().err
    assert told == f"sdrrl: {path}:6: tasks.0.langs: unknown language 'es'; did you mean spa?\n"
