import pickle
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from sdrrl_eval.measure.recipe import EvalConfig
from sdrrl_factory.errors import Mistakes, UserError
from sdrrl_factory.recipe import Group, load
from sdrrl_factory.transfer.recipe import PrepareConfig

RECIPES = Path(__file__).parents[1] / "yaml_recipes"


class Task(Group):
    path: str
    langs: list[str] = Field(min_length=1)
    size: int = 1


class Model(Group):
    kind: Literal["small", "large"] = "small"
    heat: float = Field(default=0.0, ge=0.0, le=1.0)
    steps: int = Field(default=8, ge=1)


class Recipe(Group):
    name: str
    tasks: list[Task] = Field(min_length=1)
    model: Model = Model()
    files: str | list[str] = "a"
    cap: int | None = Field(default=None, ge=1)
    shuffle: bool = False


class Circle(Group):
    shape: Literal["circle"]
    radius: float = Field(default=1.0, ge=0.0)


class Square(Group):
    shape: Literal["square"]
    side: float
    colour: Literal["red", "blue"] = "red"


class Drawing(Group):
    shapes: list[Annotated[Circle | Square, Field(discriminator="shape")]]


KEYS = "name, tasks, model, files, cap, shuffle"
GOOD = """\
# a recipe
name: demo
tasks:
  - path: p
    langs: [spa]
  - path: q
    langs:
      - eng
      - fra
model:
  kind: large
  heat: 0.5
"""


def recipe(tmp_path, text: str, *overrides: str):
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    loaded = load(Recipe, str(path), overrides)
    return loaded.config, loaded.locate


def mistakes(tmp_path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as err:
        recipe(tmp_path, text, *overrides)
    return str(err.value).replace(f"{tmp_path}/", "").split("\n")


def mistake(tmp_path, text: str, *overrides: str) -> str:
    (message,) = mistakes(tmp_path, text, *overrides)
    return message


@pytest.mark.parametrize(
    ("old", "new", "place", "key", "hint"),
    [
        ("name: demo", "name: demo\nnaem: x", "r.yaml:3", "unknown key naem", "did you mean name?"),
        ("name: demo", "name: demo\nzzzz: x", "r.yaml:3", "unknown key zzzz", "known keys: name, tasks, model"),
        ("  kind: large", "  kidn: large", "r.yaml:11", "unknown key model.kidn", "did you mean model.kind?"),
        ("  - path: q", "  - pth: q", "r.yaml:6", "unknown key tasks.1.pth", "did you mean tasks.1.path?"),
        ("name: demo", "name: 5", "r.yaml:2", "name is 5", "must be text"),
        ("name: demo", "name:", "r.yaml:2", "name is None", "must be text"),
        ("name: demo", "name: [a]", "r.yaml:2", "name is ['a']", "must be text"),
        ("heat: 0.5", "heat: hot", "r.yaml:12", "model.heat is 'hot'", "must be a number"),
        ("heat: 0.5", "heat: true", "r.yaml:12", "model.heat is True", "must be a number"),
        ("heat: 0.5", "steps: 1.5", "r.yaml:12", "model.steps is 1.5", "must be a whole number"),
        ("heat: 0.5", "steps: true", "r.yaml:12", "model.steps is True", "must be a whole number"),
        ("name: demo", "name: demo\nshuffle: 1", "r.yaml:3", "shuffle is 1", "true or false"),
        ("name: demo", "name: demo\nfiles: 5", "r.yaml:3", "files is 5", "text or a list of text"),
        ("name: demo", "name: demo\ncap: x", "r.yaml:3", "cap is 'x'", "a whole number"),
        ("name: demo", "name: demo\ncap: 0", "r.yaml:3", "cap is 0", "at least 1"),
        ("heat: 0.5", "heat: 1.01", "r.yaml:12", "model.heat is 1.01", "at least 0.0 and at most 1.0"),
        ("heat: 0.5", "heat: -0.01", "r.yaml:12", "model.heat is -0.01", "at least 0.0 and at most 1.0"),
        ("heat: 0.5", "heat: .nan", "r.yaml:12", "model.heat is nan", "at least 0.0"),
        ("heat: 0.5", "steps: 0", "r.yaml:12", "model.steps is 0", "at least 1"),
        ("kind: large", "kind: larg", "r.yaml:11", "model.kind is 'larg'", "small | large (did you mean large?)"),
        ("kind: large", "kind: 7", "r.yaml:11", "model.kind is 7", "small | large"),
        ("[spa]", "spa", "r.yaml:5", "tasks.0.langs is 'spa'", "a list of text"),
        ("[spa]", "[]", "r.yaml:5", "tasks.0.langs is []", "a list that is not empty"),
        ("- fra", "- 5", "r.yaml:9", "tasks.1.langs.1 is 5", "must be text"),
        ("name: demo\n", "", "r.yaml", "key name is missing", "add it"),
        ("    langs: [spa]\n", "", "r.yaml:4", "key tasks.0.langs is missing", "add it"),
        ("name: demo", "name: demo\nname: x", "r.yaml:3", "duplicate key name", "mend"),
        ("  heat: 0.5", "  kind: small", "r.yaml:12", "duplicate key kind", "mend"),
        ("name: demo", "name: [demo", "r.yaml:3", "not YAML", "mend"),
        ("name: demo", "name: 'demo", "r.yaml:13", "not YAML", "mend"),
        ("name: demo", "\tname: demo", "r.yaml:2", "not YAML", "mend"),
        ("name: demo", "name: de\x01mo", "r.yaml", "not YAML", "mend"),
        ("name: demo", "name: {lang}.x", "r.yaml:2", "not YAML", "put quotes around the value with {lang}"),
        ("name: demo", "cap: {a: x{flores}}", "r.yaml:2", "not YAML", "put quotes around the value with {flores}"),
        ("name: demo", "name: {lang}", "r.yaml:2", "name is {'lang': None}", 'must be text, in quotes: "{lang}"'),
        ("name: demo", "name: ${nope}", "r.yaml:2", "name", "nope"),
        ("  kind: large", "  kind: ${nope}", "r.yaml:11", "model.kind", "nope"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path, old, new, place, key, hint):
    assert old in GOOD
    message = mistake(tmp_path, GOOD.replace(old, new, 1))
    assert message.split(": ")[0] == place
    assert key in message and hint in message


@pytest.mark.parametrize("text", ["", "\n# only a comment\n"])
def test_an_empty_recipe_misses_all_that_has_no_default(tmp_path, text):
    assert mistakes(tmp_path, text) == ["r.yaml: key name is missing; add it", "r.yaml: key tasks is missing; add it"]


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path):
    text = GOOD.replace("name: demo", "naem: demo").replace("[spa]", "[]").replace("large", "larg") + "cap: 0\n"
    assert mistakes(tmp_path, text, "model.steps=0", "tasks.1.pth=x") == [
        "r.yaml:2: unknown key naem; did you mean name?",
        "r.yaml:5: tasks.0.langs is []; it must be a list that is not empty",
        "r.yaml:11: model.kind is 'larg'; it must be small | large (did you mean large?)",
        "r.yaml:13: cap is 0; it must be at least 1",
        "command line: model.steps=0: model.steps is 0; it must be at least 1",
        "command line: tasks.1.pth=x: unknown key tasks.1.pth; did you mean tasks.1.path?",
    ]


def test_mistakes_travel_between_processes():
    errors = Mistakes([UserError("a", "b", at="r.yaml:1"), UserError("c", "d", key="e")])
    assert str(pickle.loads(pickle.dumps(errors))) == str(errors) == "r.yaml:1: a; b\ne: c; d"


def test_a_key_that_is_no_text_is_unknown(tmp_path):
    assert mistake(tmp_path, GOOD + "5: 1\n") == "r.yaml:13: unknown key 5; known keys: " + KEYS


@pytest.mark.parametrize(
    ("instructions", "said"),
    [
        ("5", "instructions is 5; it must be text or a group of keys or a list of text or a group of keys"),
        ("", "instructions is None; it must be text or a group of keys or a list of text or a group of keys"),
        ("[]", "instructions is []; it must be a list that is not empty"),
        ("{pth: x}", "unknown key instructions.pth; did you mean instructions.path?"),
        ("{format: auto}", "key instructions.path is missing; add it"),
        ("[a, {path: 5}]", "instructions.1.path is 5; it must be text"),
        ("[a, 5]", "instructions.1 is 5; it must be text or a group of keys"),
        ("[{path: a, columns: {output: 5}}]", "instructions.0.columns.output is 5; it must be text"),
    ],
)
def test_of_a_key_of_several_types_what_is_meant_is_mended(tmp_path, instructions, said):
    path = tmp_path / "r.yaml"
    path.write_text(f"instructions: {instructions}\ntarget_lang: spa\n")
    with pytest.raises(UserError) as err:
        load(PrepareConfig, str(path))
    assert str(err.value).splitlines() == [f"{path}:1: {said}"]


@pytest.mark.parametrize("text", ["- a\n- b\n", "[]"])
def test_a_list_is_no_recipe(tmp_path, text):
    assert mistake(tmp_path, text).startswith("r.yaml: a recipe is `key: value` lines")


def test_a_missing_recipe_is_named():
    with pytest.raises(UserError, match="^nowhere.yaml: no such file"):
        load(Recipe, "nowhere.yaml")


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("shape: circel", "shapes.0.shape is 'circel'; it must be circle | square (did you mean circle?)"),
        ("shape: 5", "shapes.0.shape is '5'; it must be circle | square"),
        ("side: 1", "key shapes.0.shape is missing; add it"),
        ("{shape: square, sied: 1}", "unknown key shapes.0.sied; did you mean shapes.0.side?"),
        ("{shape: circle, side: 1}", "unknown key shapes.0.side; known keys: shape, radius"),
        ("{shape: circle, radius: -1}", "shapes.0.radius is -1; it must be at least 0.0"),
        ("{shape: square, side: x}", "shapes.0.side is 'x'; it must be a number"),
        (
            "{shape: square, side: 1, colour: bleu}",
            "shapes.0.colour is 'bleu'; it must be red | blue (did you mean blue?)",
        ),
        ("shape: square", "key shapes.0.side is missing; add it"),
        ("5", "shapes.0 is 5; it must be a group of keys"),
    ],
)
def test_of_groups_that_a_key_tells_apart_the_one_that_is_meant_is_mended(tmp_path, shape, said):
    path = tmp_path / "r.yaml"
    path.write_text(f"shapes:\n  - {shape}\n")
    with pytest.raises(UserError) as err:
        load(Drawing, str(path))
    assert str(err.value) == f"{path}:2: {said}"


@pytest.mark.parametrize(
    ("override", "key", "hint"),
    [
        ("name", "'name'", "write key=value"),
        ("=5", "'=5'", "write key=value"),
        ("naem=x", "unknown key naem", "did you mean name?"),
        ("model.hat=1", "unknown key model.hat", "did you mean model.heat?"),
        ("tasks.0.pth=x", "unknown key tasks.0.pth", "did you mean tasks.0.path?"),
        ("tasks.0.path=5", "tasks.0.path is 5", "text"),
        ("tasks.1.langs.0=5", "tasks.1.langs.0 is 5", "text"),
        ("tasks.7.path=x", "tasks.7.path", "out of range"),
        ("tasks.x.path=y", "tasks.x.path", "not an int"),
        ("tasks=[]", "tasks is []", "not empty"),
        ("tasks.0={path: 5, langs: [a]}", "tasks.0.path is 5", "text"),
        ("model.heat=2", "model.heat is 2;", "at most 1.0"),
        ("model.steps=x", "model.steps is 'x'", "a whole number"),
        ("model.kind=larg", "model.kind is 'larg'", "did you mean large?"),
        ("model=5", "model is 5", "a group of keys"),
        ("model={heat: 2}", "model.heat is 2;", "at most 1.0"),
        ("model={kind: larg}", "model.kind is 'larg'", "did you mean large?"),
        ("model={kidn: large}", "unknown key model.kidn", "did you mean model.kind?"),
        ("name.x=1", "name is {'x': 1}", "text"),
        ("name=null", "name is None", "text"),
        ("name=[a", "name=[a", "write group.key=value"),
        ("cap=0", "cap is 0", "at least 1"),
    ],
)
def test_a_mistake_in_an_override_is_one_line(tmp_path, override, key, hint):
    message = mistake(tmp_path, GOOD, override)
    assert message.startswith("command line: ")
    assert key in message and hint in message


@pytest.mark.parametrize(
    ("old", "new", "override", "said"),
    [
        ("heat: 0.5", "heat: 2", "model.kind=small", "r.yaml:12: model.heat is 2"),
        ("    langs: [spa]\n", "", "tasks.0.path=x", "r.yaml:4: key tasks.0.langs is missing"),
        ("  heat: 0.5", "  hat: 0.5", "model.kind=small", "r.yaml:12: unknown key model.hat"),
    ],
)
def test_an_override_is_not_blamed_for_its_neighbour(tmp_path, old, new, override, said):
    assert mistake(tmp_path, GOOD.replace(old, new), override).startswith(said)


def test_overrides_are_put_over_the_recipe(tmp_path):
    config, place = recipe(
        tmp_path,
        GOOD + "cap: 5\n",
        "name=a=b c",
        "tasks.0.path=other",
        "tasks.1.langs.1=ukr",
        "tasks.1.size=3",
        "model.heat=1",
        "model.steps=2",
        "files=[x, y]",
        "cap=null",
        "shuffle=true",
    )
    tasks = [Task(path="other", langs=["spa"]), Task(path="q", langs=["eng", "ukr"], size=3)]
    model = Model(kind="large", heat=1.0, steps=2)
    assert config == Recipe(name="a=b c", tasks=tasks, model=model, files=["x", "y"], cap=None, shuffle=True)
    assert type(config.model.heat) is float
    assert place("model.kind") == f"{tmp_path}/r.yaml:11: model.kind"
    assert place("model.steps") == "command line: model.steps=2: model.steps"


def test_the_last_override_wins(tmp_path):
    config, place = recipe(tmp_path, GOOD, "model.heat=0.1", "model.heat=0.2")
    assert config.model.heat == 0.2
    assert place("model.heat") == "command line: model.heat=0.2: model.heat"


@pytest.mark.parametrize(("given", "heat"), [("1e-3", 0.001), ("1", 1.0), ("0", 0.0), (".5", 0.5)])
def test_numbers_as_people_write_them(tmp_path, given, heat):
    assert recipe(tmp_path, GOOD.replace("0.5", given))[0].model.heat == heat
    assert recipe(tmp_path, GOOD, f"model.heat={given}")[0].model.heat == heat


def test_an_empty_group_and_an_absent_one_are_the_defaults(tmp_path):
    head = GOOD[: GOOD.index("model:")]
    assert recipe(tmp_path, head)[0].model == recipe(tmp_path, head + "model:\n")[0].model == Model()


def test_interpolation_takes_another_key(tmp_path):
    assert recipe(tmp_path, GOOD + "files: ${name}/x\n")[0].files == "demo/x"
    assert recipe(tmp_path, GOOD + "files: ${name}/x\n", "name=new")[0].files == "new/x"


def test_a_recipe_with_a_bom_loads(tmp_path):
    assert recipe(tmp_path, "\ufeff" + GOOD)[0].name == "demo"


SHIPPED = [(PrepareConfig, p) for p in sorted((RECIPES / "prepare").glob("*.yaml"))]
SHIPPED += [(EvalConfig, p) for p in sorted((RECIPES / "eval").glob("*.yaml"))]


@pytest.mark.parametrize(("cls", "path"), SHIPPED, ids=lambda v: getattr(v, "stem", None))
def test_shipped_recipes_load(cls, path):
    loaded = load(cls, str(path))
    assert isinstance(loaded.config, cls)
    assert loaded.locate("seed").startswith(f"{path}:")


def test_both_kinds_of_recipe_are_shipped():
    assert {cls for cls, _ in SHIPPED} == {PrepareConfig, EvalConfig}
