"""The recipes that are carried: listed, copied, known to the parsers that read them, and two of them run."""

import gzip
import json
import re
from typing import get_args

import pytest
import yaml

from sdrrl_eval.measure.recipe import EvalConfig, check
from sdrrl_eval.measure.runner import plan
from sdrrl_factory import recipe_docs
from sdrrl_factory.cli import main
from sdrrl_factory.errors import UserError
from sdrrl_factory.factory import parse
from sdrrl_factory.recipe import Group, kind_of, load, read
from sdrrl_factory.schema import schemas
from sdrrl_factory.shipped import KINDS, copy, opening, recipes
from sdrrl_factory.study.recipe import StudyConfig
from sdrrl_factory.transfer.recipe import PrepareConfig
from tests.conftest import ROOT, command, write_rows

RECIPES = recipes()
TRAIN = [name for name in RECIPES if name.startswith("train/")]


def test_all_recipes_are_listed_with_their_opening_line(capsys):
    assert main(["recipes"]) == 0
    said = capsys.readouterr().out
    files = [p for k in KINDS for p in (ROOT / "yaml_recipes" / k).glob("*.yaml")]
    assert sorted(files) == sorted(RECIPES.values())
    for path in files:
        lines = path.read_text().splitlines()
        first = lines[path.parent.name in ("prepare", "eval", "study")][2:]  # theirs is below the line for editors
        assert re.search(rf"^{path.parent.name}/{path.stem} +{re.escape(first)}$", said, re.M)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_opens_with_what_it_does_needs_its_command_and_what_to_edit(name):
    text = RECIPES[name].read_text()
    head = text[: re.search(r"^[^#\n]", text, re.M).start()]
    assert len(opening(RECIPES[name])) > 40 and "Needs:" in head and re.search(r"# Edit: ", head)
    command_of = {"prepare": "sdrrl prepare", "train": "llamafactory-cli train", "export": "llamafactory-cli export"}
    command_of["study"] = "sdrrl study"
    assert f"{command_of.get(name.partition('/')[0], 'sdrrl eval')} yaml_recipes/{name}.yaml" in head
    assert kind_of(read(str(RECIPES[name]))) == name.partition("/")[0]
    # What the head and the keys call a recipe is there.
    for other in re.findall(r"yaml_recipes/[\w/.]+\.(?:yaml|json)", text):
        assert (ROOT / other).is_file(), other


def test_the_schemas_are_those_of_the_models():
    for name, text in schemas().items():
        assert (ROOT / "yaml_recipes/schema" / name).read_text() == text, "run python -m sdrrl_factory.schema"


@pytest.mark.parametrize("name", [n for n in RECIPES if n.startswith(("prepare/", "eval/"))])
def test_recipes_name_their_schema_and_keep_to_it(name):
    path = RECIPES[name]
    schema = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", path.read_text().splitlines()[0])[1]
    schema = json.loads((path.parent / schema).read_text())
    assert schema["required"][0] == {"prepare": "instructions", "eval": "tasks"}[name.partition("/")[0]]
    # Types and bounds are the models'; here only that an editor knows every key.
    groups = [(schema, yaml.safe_load(path.read_text()))]
    for group, keys in groups:
        assert not group["additionalProperties"] and set(group["required"]) <= keys.keys() <= group["properties"].keys()
        for key, value in keys.items():
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, dict):
                    node = group["properties"][key]
                    # The key `task` tells whose keys an entry under `tasks` has.
                    # Beside those of the tasks that are here stands what a task of one's own is.
                    items = node.get("items", {})
                    branches = [items, *items.get("anyOf", [])]
                    mapping = next((b["discriminator"]["mapping"] for b in branches if "discriminator" in b), None)
                    node = mapping[child["task"]] if mapping else json.dumps(node)
                    name = re.search(r"#/\$defs/(\w+)", node)[1]
                    groups.append((schema["$defs"][name] | {"required": []}, child))
    assert len(groups) > 1


def test_the_schema_says_what_a_key_does_its_bounds_and_its_default():
    schema = json.loads(schemas()["prepare.json"])
    assert schema["$defs"]["Sampling"]["properties"]["keep_ground_truth"] == {
        "default": 0.5,
        "description": "The share of records whose answer is the ground truth; 1.0 is the ablation without "
        "self-distillation.",
        "maximum": 1.0,
        "minimum": 0.0,
        "type": "number",
    }


def test_the_tables_of_the_documentation_are_the_models():
    text = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    assert recipe_docs.written(text) == text, "run python -m sdrrl_factory.recipe_docs docs/recipes.md"


def test_every_key_of_every_group_has_its_row_in_the_documentation():
    """By a walk of its own through the models: a group that has no table is missed by none."""
    text = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]*\| ", text, re.MULTILINE))
    groups: list[type[Group]] = [PrepareConfig, EvalConfig, StudyConfig]
    for group in groups:
        assert group.model_fields.keys() <= rows, group
        for key in group.model_fields.values():
            inner = [key.annotation, *get_args(key.annotation)]
            groups += [g for g in inner if isinstance(g, type) and issubclass(g, Group) and g not in groups]
    assert len(groups) > 10 and "keep_ground_truth" in rows
    # What a key does is said, too.
    assert not re.findall(r"^\| `.*\|  \|$", text, re.MULTILINE)


def test_a_page_without_a_models_table_is_refused():
    with pytest.raises(ValueError, match="tables for .'prepare'., models for"):
        recipe_docs.written("<!-- keys: prepare -->\n<!-- keys end -->\n")


@pytest.mark.parametrize("name", [n for n in RECIPES if n.startswith("prepare/")])
def test_prepare_recipes_are_read(name):
    assert load(PrepareConfig, str(RECIPES[name])).config.instructions


@pytest.mark.parametrize("name", TRAIN)
def test_train_recipes_are_known_to_llamafactorys_parser(name):
    from llamafactory.data.template import TEMPLATES

    recipe = read(str(RECIPES[name])).config
    model, data, training, finetuning = parse(recipe)
    assert data.template in TEMPLATES and len(data.dataset) == 6 and finetuning.stage == "sft"
    assert training.output_dir == f"runs/{name}" and training.num_train_epochs
    if recipe.get("early_stopping_steps"):
        # What transformers asks of early stopping, under another key's name each.
        assert training.load_best_model_at_end and training.save_steps % training.eval_steps == 0
        assert training.metric_for_best_model == "eval_loss" and not training.greater_is_better and data.val_size
    with pytest.raises(UserError, match=r"LLaMA-Factory says: .*learning_rat'"):
        parse(recipe | {"learning_rat": 1})


@pytest.mark.parametrize("name", ["train/llama2_7b_full", "train/seallm_7b"])
def test_full_training_at_the_papers_sizes_clips_no_usual_step(name):
    """All steps of SmolLM2-135M measured at 128 rows are longer than LLaMA-Factory's 1.0 (docs/training.md)."""
    train = yaml.safe_load(RECIPES[name].read_text())
    assert train["max_grad_norm"] >= 4 * 25  # 0 would take grad_norm out of the log


def test_the_paper_settings():
    prepare = yaml.safe_load(RECIPES["prepare/llama2_7b_ind"].read_text())
    assert prepare["translator"] == {"backend": "nllb", "model": "facebook/nllb-200-3.3B", "beam_size": 4}
    assert prepare["quality"]["threshold"] == 0.8 and prepare["language_id"]["backend"] == "cld3"
    assert prepare["code_switch"]["probability"] == 0.15 and prepare["parallel"] == {"source": "opus-100", "size": 1000}
    train = yaml.safe_load(RECIPES["train/llama2_7b_full"].read_text())
    assert (
        train["num_train_epochs"] == 4 and train["early_stopping_steps"] and train["deepspeed"].endswith("zero3.json")
    )


@pytest.mark.parametrize("name", [n for n in RECIPES if n.startswith("export/")])
def test_export_recipes_are_known_to_llamafactorys_parser(name):
    from llamafactory.hparams.parser import _parse_infer_args

    model, *_ = _parse_infer_args(read(str(RECIPES[name])).config)
    assert model.export_dir and (model.adapter_name_or_path is None) == (not name.endswith("lora"))


@pytest.mark.parametrize("name", [n for n in RECIPES if n.startswith("eval/")])
def test_eval_recipes_are_read_and_their_keys_go_together(name):
    recipe = load(EvalConfig, str(RECIPES[name]))
    check(recipe.config)
    assert recipe.config.output_dir.startswith("runs/eval/")


@pytest.mark.parametrize("name", ["eval/benchmarks_ind", "eval/server_ind"])
def test_benchmark_recipes_read_files_in_the_official_formats(name, tmp_path):
    """With the small files of the tests where the recipe's head puts the official ones, and the languages they have."""
    there, home = tmp_path / "data/benchmarks", ROOT / "tests/data"
    there.mkdir(parents=True)
    parts = {
        "belebele": "Belebele",
        "flores": "flores200_dataset",
        "xlsum": "XLSum",
        "mkqa/mkqa.jsonl.gz": "mkqa.jsonl.gz",
    }
    for source, target in parts.items():
        (there / target).symlink_to(home / source)
    (there / "bactrian-x").mkdir()
    questions = [{"instruction": "¿Qué hora es?", "input": "", "id": "1", "output": "Las tres."}]
    (there / "bactrian-x/es.json.gz").write_bytes(gzip.compress(json.dumps(questions).encode()))
    recipe = load(EvalConfig, str(RECIPES[name]))
    tasks = []
    for task in recipe.config.tasks:
        assert task.path.startswith("data/benchmarks/")
        changes = {"path": str(tmp_path / task.path), "langs": ["spa"]}
        if task.task == "flores":
            # The model of tok:flores200 and COMET's are downloads.
            changes |= {"metrics": ["bleu", "chrf++"], "tokenizer": "13a"}
        tasks.append(task.model_copy(update=changes))
    found = [part.name for part in plan(recipe.config.model_copy(update={"tasks": tasks}))]
    assert found == ["belebele.spa", "flores.eng-spa", "flores.spa-eng", "xlsum.spa", "mkqa.spa", "off_target.spa"]


@pytest.mark.slow  # the import
@pytest.mark.parametrize("path", sorted((ROOT / "yaml_recipes/deepspeed").glob("*.json")), ids=lambda p: p.stem)
def test_deepspeed_settings_are_what_their_name_says(path):
    zero = json.loads(path.read_text())["zero_optimization"]
    assert f"zero{zero['stage']}" == path.stem[:5]
    assert ("offload_optimizer" in zero) == path.stem.endswith("_offload")
    if zero["stage"] == 3:
        assert zero["stage3_gather_16bit_weights_on_model_save"]  # else no checkpoint can be loaded
    else:
        assert not [key for key in zero if key.startswith("stage3")]
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    known = set(DeepSpeedZeroConfig.model_fields)
    assert set(zero) <= known | {f.alias for f in DeepSpeedZeroConfig.model_fields.values()}


def test_a_copy_has_what_the_recipe_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [str(p) for p in copy("train/llama2_7b_full", "mine.yaml")] == [
        "mine.yaml",
        "yaml_recipes/deepspeed/zero3.json",
    ]
    mine = (tmp_path / "mine.yaml").read_text()
    assert (tmp_path / read("mine.yaml").config["deepspeed"]).is_file()
    assert "llamafactory-cli train mine.yaml" in mine and "train/llama2_7b_full.yaml" not in mine
    assert read("mine.yaml").config == read(str(RECIPES["train/llama2_7b_full"])).config
    # A folder, and a name with a hole.
    written = {str(p) for p in copy("eval/demo_spa", "eval.yaml")}
    assert {"data/heldout/sentences/spa_Latn.devtest", "data/heldout/questions.spa.jsonl"} <= written


@pytest.mark.parametrize(
    ("file", "line"),
    [("my.yaml", "yaml_recipes/schema/prepare.json"), ("mine/a/b.yaml", "../../yaml_recipes/schema/prepare.json")],
)
def test_a_copy_finds_its_schema(file, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy("prepare/demo_spa", file)
    first, second = (tmp_path / file).read_text().splitlines()[:2]
    assert first == f"# yaml-language-server: $schema={line}"
    assert (tmp_path / file).parent.joinpath(line).read_text() == schemas()["prepare.json"]
    assert second[2:] == opening(RECIPES["prepare/demo_spa"])


def test_a_copy_leaves_what_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seeds = write_rows(tmp_path / "data/seeds/english_instructions.jsonl", [{"mine": 1}])
    written = [str(p) for p in copy("yaml_recipes/prepare/demo_spa.yaml", "a.yaml")]
    assert written == ["a.yaml", "yaml_recipes/schema/prepare.json"]
    assert seeds.read_text() == '{"mine": 1}\n'


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train/llama2_7b_ful", "a.yaml"], "did you mean train/llama2_7b_full?"),
        (["lama2_7b_lora", "a.yaml"], "did you mean "),
        (["demo_spa", "a.yaml"], "prepare/demo_spa, export/demo_spa, eval/demo_spa"),
        (["zzz", "a.yaml"], "sdrrl recipes"),
        (["train/seallm_7b", "there.yaml"], "is there already"),
        (["train/seallm_7b", "."], "is a folder"),
        (["train/seallm_7b", "there.yaml/a.yaml"], "there.yaml"),
    ],
)
def test_mistakes_in_copying_are_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.yaml").write_text("mine")
    assert main(["recipes", "cp", *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["there.yaml"] and (tmp_path / "there.yaml").read_text() == "mine"


@pytest.mark.parametrize("text", ["a: [1\n", "- 1\n", "a: 1\na: 2\n", "just words\n"])
def test_a_file_that_is_no_recipe_is_one_line(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=r"a\.yaml"):
        kind_of(read(str(tmp_path / "a.yaml")))


NAMES = ["ll", "tl", "lt", "tt", "mt", "comp"]


@pytest.fixture(scope="module")
def subsets(tmp_path_factory):
    """The folder of a dataset_info.json with the six subsets of the demo, of 6 to 1 short rows."""
    folder = tmp_path_factory.mktemp("data")
    info = {}
    for i, name in enumerate(NAMES):
        rows = [{"instruction": f"{name} {n}", "input": "", "output": "yes " * (n + 1)} for n in range(6 - i)]
        write_rows(folder / f"{name}.jsonl", rows)
        info[f"demo_spa_{name}"] = {"file_name": f"{name}.jsonl", "sdrrl": {"subset": name.upper()}}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def train(recipe, subsets, tiny, out, *overrides, **environment):
    data = f"dataset={','.join(f'demo_spa_{n}' for n in NAMES)}"
    keys = [f"model_name_or_path={tiny}", "template=smollm2", f"dataset_dir={subsets}", data, f"output_dir={out}"]
    keys += ["max_steps=2", "logging_steps=1", "cutoff_len=64", "plot_loss=false", "preprocessing_num_workers=1"]
    done = command("llamafactory-cli", "train", RECIPES[recipe], *keys, *overrides, OMP_NUM_THREADS="1", **environment)
    return done, [json.loads(line) for line in (out / "trainer_log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_the_interleaving_recipe_runs_without_the_plugin(subsets, tiny, tmp_path):
    done, log = train("train/demo_spa_interleave", subsets, tiny, tmp_path / "out", SDRRL_FACTORY_DISABLE="1")
    assert log[0]["loss"] > 0 and not [key for key in log[0] if key.startswith("loss_")]
    assert "subset-weighted" not in done.stdout
    # Drawn with equal probability until each row was there: more rows than the 21 there are.
    assert int(re.search(r"Num examples = (\d+)", done.stderr + done.stdout)[1]) > 21


@pytest.mark.slow
def test_the_lora_recipe_runs_with_the_plugin(subsets, tiny, tmp_path):
    keys = [
        "bf16=false",
        "use_cpu=true",
        "gradient_accumulation_steps=1",
        "val_size=0.3",
        "eval_steps=1",
        "save_steps=1",
    ]
    done, log = train("train/llama2_7b_lora", subsets, tiny, tmp_path / "out", *keys)
    assert "subset-weighted loss (equation 6) is on" in done.stdout
    assert (tmp_path / "out/adapter_model.safetensors").is_file()
    assert any("eval_loss" in row for row in log) and any("loss_LL" in row for row in log)
