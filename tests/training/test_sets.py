"""The sets that `llamafactory-cli train` is given: what of them is trained on, and the line for each that is wrong."""

import json

import pytest

from tests.conftest import write_rows
from tests.training.commands import train_from_start, write_recipe
from tests.training.conftest import EVALUATION, PLAIN, TRAINING, distance, log_of, rows, weighted

pytestmark = pytest.mark.slow

# Nothing of the answer is left of such a question, cut off at 256 tokens.
LONG = [{"instruction": "uno " * 40_000, "input": "", "output": "el río " * 40}]
CUT = {"cutoff_len": 256}


def folder(path, sets: dict, blocks: dict) -> str:
    """A dataset_dir; sets: name -> rows, or the very text of the file."""
    path.mkdir()
    info = {}
    for name, content in sets.items():
        file = path / f"{name}.jsonl"
        file.write_text(content) if isinstance(content, str) else write_rows(file, content)
        info[name] = {"file_name": file.name} | ({"sdrrl": blocks[name]} if name in blocks else {})
    (path / "dataset_info.json").write_text(json.dumps(info))
    return str(path)


def sets_of(recipe: dict, path, sets: dict, blocks: dict | None = None, **keys) -> dict:
    """The recipe with sets of its own, each its own subset unless `blocks` says otherwise."""
    blocks = {name: {"subset": name} for name in sets} if blocks is None else blocks
    return recipe | {"dataset_dir": folder(path / "sets", sets, blocks), "dataset": ",".join(sets)} | keys


def eval_losses(out) -> list[float]:
    return [line["eval_loss"] for line in log_of(out) if "eval_loss" in line]


# --- rows without a trained token


@pytest.mark.parametrize(
    ("keys", "processes"),
    [({}, 1), ({"packing": True}, 1), ({"per_device_train_batch_size": 8}, 2)],
    ids=["plain", "packing", "two processes"],
)
def test_rows_without_a_trained_token_count_nowhere(keys, processes, recipe, exact, commands, tmp_path):
    """Neither in |D_d| nor in |B|, in the training and in the evaluation, and the line says how many."""
    trained = {"LL": TRAINING["LL"], "TT": TRAINING["TT"]}
    sets = {"LL": trained["LL"], "TT": [*LONG, trained["TT"][0], *LONG, trained["TT"][1], *LONG], "held": LONG + PLAIN}
    keys = sets_of(recipe, tmp_path, sets, dataset="LL,TT", eval_dataset="held", do_eval=True, **CUT) | keys
    printed = commands.train(write_recipe(tmp_path / "r.yaml", keys), processes=processes)
    model = exact("full")
    before = model.parameters()
    batch = weighted(trained)
    model.step(batch)
    assert distance(before, model.parameters(), tmp_path / "out/model.safetensors") < 1e-4
    assert printed.count("LL 9 rows x 0.6111, TT 2 rows x 2.75") == 1
    assert printed.count("3 of 5 rows of TT are left out") == printed.count("1 of 5 rows of held are left out") == 1
    evaluated = json.loads((tmp_path / "out/eval_results.json").read_text())["eval_loss"]
    assert evaluated == pytest.approx(sum(model.loss(row).item() for row in PLAIN) / len(PLAIN), rel=1e-4)


# --- a block on the evaluation set alone

# Dropout takes from the random numbers that an evaluation must leave alone; packs stay LLaMA-Factory's own.
ALONE = {"finetuning_type": "lora", "lora_target": "all", "lora_dropout": 0.3, "neat_packing": True, "cutoff_len": 256}


def test_a_weighted_evaluation_leaves_the_training_as_it_is(recipe, exact, commands, tmp_path):
    """The losses and the parameters of SDRRL_FACTORY_DISABLE=1, to the last bit, with evaluations between the steps."""
    sets = {"one": TRAINING["LL"], "two": TRAINING["mt"]} | {f"held_{d}": part for d, part in EVALUATION.items()}
    blocks = {f"held_{d}": {"subset": d} for d in EVALUATION}
    keys = sets_of(recipe, tmp_path, sets, blocks, dataset="one,two", eval_dataset="held_LL,held_mt") | ALONE
    keys |= {"per_device_train_batch_size": 2, "eval_strategy": "steps", "eval_steps": 1, "eval_on_start": True}
    keys |= {"optim": "adamw_torch", "learning_rate": 1e-3}
    live, off = (keys | {"output_dir": str(tmp_path / name)} for name in ("live", "off"))
    printed = commands.train(write_recipe(tmp_path / "live.yaml", live))
    train_from_start(write_recipe(tmp_path / "off.yaml", off), SDRRL_FACTORY_DISABLE="1")
    losses = [[line["loss"] for line in log_of(tmp_path / name) if "loss" in line] for name in ("live", "off")]
    assert len(losses[0]) > 1 and losses[0] == losses[1]
    (name,) = [file.name for file in (tmp_path / "off").glob("*model.safetensors")]
    assert (tmp_path / "live" / name).read_bytes() == (tmp_path / "off" / name).read_bytes()
    assert "is on in evaluation: LL 3 rows x 1.167, mt 4 rows x 0.875; the training is LLaMA-Factory's own" in printed
    assert printed.count("training example:") == 1
    # The first evaluation, before a step: equation 6 over the evaluation sets.
    model = exact("full")
    batch = weighted(EVALUATION, {})
    state = json.loads((tmp_path / "live/trainer_state.json").read_text())["log_history"]
    first = next(line["eval_loss"] for line in state if "eval_loss" in line)
    assert first == pytest.approx(sum(w * model.loss(row).item() for w, row in batch) / len(batch), rel=1e-5)


# --- mixes


def test_a_mix_that_repeats_rows_is_weighted_over_what_it_draws_and_says_so(recipe, exact, commands, tmp_path):
    keys = recipe | {"dataset": "x_LL,x_TT", "mix_strategy": "interleave_over", "per_device_train_batch_size": 18}
    printed = commands.train(write_recipe(tmp_path / "r.yaml", keys))
    assert "LL 9 rows x 1, TT 9 rows x 1" in printed
    assert "mix_strategy: interleave_over draws unevenly from the sets" in printed
    model = exact("full")
    before = model.parameters()
    repeated = [TRAINING["TT"][i % 2] for i in range(9)]
    model.step(weighted({"LL": TRAINING["LL"], "TT": repeated}))
    assert distance(before, model.parameters(), tmp_path / "out/model.safetensors") < 1e-4


def test_a_set_named_twice_counts_as_in_llamafactory(recipe, commands, tmp_path):
    """Once: its loader keeps the sets by name (0.9.2 to 0.9.6.dev0)."""
    keys = recipe | {"dataset": "x_LL,x_LL,x_TT"}
    assert "on: LL 9 rows x 0.6111, TT 2 rows x 2.75;" in commands.train(write_recipe(tmp_path / "r.yaml", keys))
    plain = sets_of(recipe, tmp_path, {"a": TRAINING["LL"], "b": TRAINING["TT"]}, {}, dataset="a,a,b")
    plain["output_dir"] = str(tmp_path / "plain")
    assert "Num examples = 11" in commands.train(write_recipe(tmp_path / "r.yaml", plain))


# --- what stops

GOOD = rows("good", 4, 1)
NO_ANSWER = [{"instruction": "uno", "input": "", "output": None}] * 3
WRONG = {
    "an empty file": ({"a": GOOD, "b": ""}, {}, "b: {}/b.jsonl is empty; write rows into it"),
    "a file of blank lines": ({"a": GOOD, "b": "\n \n"}, {}, "b: {}/b.jsonl is empty"),
    "no valid row": ({"a": GOOD, "b": NO_ANSWER}, {}, "b: no valid row; each needs a question and an answer"),
    "no trained token": ({"a": GOOD, "b": LONG}, CUT, "b: none of its 1 rows has a token to train on"),
    "no row": ({"a": GOOD}, {"max_samples": 0}, "a: no row"),
    "no JSON": ({"a": GOOD, "b": '{"instruction":\n'}, {}, "b: LLaMA-Factory cannot read this set (ArrowInvalid"),
    "other columns": ({"a": GOOD, "b": [{"q": "a"}]}, {}, "b: LLaMA-Factory cannot read this set (KeyError"),
    "no such set": ({"good": GOOD}, {"dataset": "good,god"}, 'god: no entry "god"; did you mean good?'),
    "a comma too many": ({"a": GOOD}, {"dataset": "a,"}, 'no entry ""; mend dataset or eval_dataset'),
    "no such file": ({"a": GOOD, "b": GOOD}, {"missing": "b.jsonl"}, "b: LLaMA-Factory cannot read this set"),
    "an evaluation set": ({"a": GOOD, "b": ""}, {"dataset": "a", "eval_dataset": "b"}, "b: {}/b.jsonl is empty"),
    "too much held out": ({"a": GOOD, "b": GOOD}, {"val_size": 7}, "val_size: 7 of 8 rows in 2 sets"),
    "a mix of tomorrow": ({"a": GOOD, "b": GOOD}, {"mix_strategy": "interleave_all"}, "mix_strategy: interleave_all"),
    "a tokenized_path that is a file": ({"a": GOOD}, {"tokenized_path": "r.yaml"}, "tokenized_path: r.yaml is a file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_set_is_one_line_that_names_it(case, recipe, commands, tmp_path):
    sets, keys, said = WRONG[case]
    keys = sets_of(recipe, tmp_path, sets) | keys
    if "missing" in keys:
        (tmp_path / "sets" / keys.pop("missing")).unlink()
    printed = commands.train(write_recipe(tmp_path / "r.yaml", keys), status=2)
    (line,) = [line for line in printed.splitlines() if "sdrrl:" in line]
    assert said.format(tmp_path / "sets") in line and "Traceback" not in printed
    assert not (tmp_path / "out/model.safetensors").exists()


def test_two_processes_stop_at_a_set_without_a_valid_row(recipe, commands, tmp_path):
    """LLaMA-Factory itself notices it on the first rank alone."""
    keys = sets_of(recipe, tmp_path, {"a": GOOD, "b": NO_ANSWER})
    printed = commands.train(write_recipe(tmp_path / "r.yaml", keys), processes=2, status=2)
    assert printed.count("b: no valid row") == 1 and "Traceback" not in printed


def test_nothing_to_train_stops(recipe, commands, tmp_path):
    blocks = {"a": {"subset": "a", "weight": 0}, "b": {"subset": "b", "weight": 0.0}}
    keys = sets_of(recipe, tmp_path, {"a": GOOD, "b": GOOD}, blocks)
    printed = commands.train(write_recipe(tmp_path / "r.yaml", keys), status=2)
    assert "sdrrl.weight is 0 for every training set" in printed and "Traceback" not in printed
