"""Recipes as they are typed: the mistakes with their lines, and what hostile texts come to."""

import time

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.shipped import recipes as shipped
from sdrrl_factory.webui import recipes
from sdrrl_factory.webui.folders import VARIABLE, is_inside

DEMO = shipped()["prepare/demo_spa"].read_text(encoding="utf-8")
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
SCRIPT = "</style><script>alert(1)</script><img src=x onerror=alert(1)>"

# What is typed, and a part of the one line that comes of it.
HOSTILE = {
    "a bomb": (BOMB, "refers to another place"),
    "a bomb of depth": ("x: " + "[" * 5000, "too deep"),
    "five megabytes": ("x: y\n" * 1_000_000, "bytes are no recipe"),
    "code in a tag": ("name: !!python/object/apply:os.system ['touch gotcha']", "is a tag"),
    "a secret of the environment": (DEMO.replace("name: demo", "name: ${oc.env:SDRRL_TEST_KEY}"), "api_key_env"),
    "the same, written in another way": (DEMO.replace("name: demo", r'name: "\x24{oc.env:SDRRL_TEST_KEY}"'), "${...}"),
    "a secret in a secret": (DEMO.replace("name: demo", "name: ${${oc.env:SDRRL_TEST_KEY}}"), "${...}"),
    "a path upwards": (DEMO.replace("data/seeds", "../../outside"), "outside the folder"),
    "a path upwards in disguise": (DEMO.replace("data/seeds", "data/{source}/../../../outside"), "outside the folder"),
    "a path from the root": (f"{DEMO}work_dir: /tmp\n", "outside the folder"),
    "somebody's home": (f"{DEMO}dataset_dir: ~/data\n", "outside the folder"),
    "a list of sources": (DEMO.replace("data/seeds/english_instructions.jsonl", "[a, {path: /etc/passwd}]"), "outside"),
    "a map of dictionaries": (f"{DEMO}".replace("probability: 0.15", "dictionary: {spa: ../x}"), "outside the folder"),
    "a number without end": ("seed: " + "1" * 9000, "not YAML"),
    "a list as a key": ("? [a]\n: b", "not YAML"),
    "a null byte": ("name: \x00", "control characters"),
    "half a letter": ("name: \ud800", "control characters"),
    "no mapping": ("- a\n- b", "key: value"),
    "scripts": (DEMO.replace("seed: 42", f"seed: '{SCRIPT}'"), "it must be a whole number"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_one_line(name, folder, monkeypatch):
    monkeypatch.setenv("SDRRL_TEST_KEY", "sk-very-secret")
    text, part = HOSTILE[name]
    before = sorted(folder.parent.rglob("*"))
    began = time.monotonic()
    checked = recipes.check(text, "prepare")
    assert time.monotonic() - began < 5
    assert checked.recipe is None
    lines = [problem.text for problem in checked.problems]
    assert any(part in line for line in lines), lines
    assert all("\n" not in line and len(line) <= 300 and "sk-very-secret" not in line for line in lines)
    with pytest.raises(UserError):
        recipes.require(text, "prepare")
    assert sorted(folder.parent.rglob("*")) == before


def test_mistakes_stand_at_their_lines(folder):
    text = DEMO.replace("max_new_tokens", "max_new_token").replace("seed: 42", "seed: many")
    lines = {problem.line: problem.text for problem in recipes.check(text, "prepare").problems}
    numbers = {
        word: i for i, line in enumerate(text.splitlines(), 1) for word in ("max_new_token", "seed:") if word in line
    }
    assert set(lines) == set(numbers.values())
    assert "did you mean generator.max_new_tokens" in lines[numbers["max_new_token"]]


def test_shipped_recipes_have_no_mistakes(folder):
    for kind in recipes.KINDS:
        names = [value for _, value in recipes.listed(kind, "")]
        assert names
        for name in names:
            assert recipes.check(recipes.text_of(name, kind), kind).problems == [], name


def test_a_prompt_is_no_path(folder):
    text = f'{DEMO}translator: {{backend: chat, model: m, prompt: "/no_think {{text}} {{source}} {{target}}"}}\n'
    assert recipes.check(text, "prepare").problems == []


def test_a_link_out_of_the_folder_is_outside(folder, monkeypatch):
    (folder / "link").symlink_to(folder.parent / "outside")
    assert not is_inside("link/secret.yaml") and is_inside("data/../data/x")
    assert not is_inside(f"{folder}-2/x")  # its name begins alike
    with pytest.raises(UserError, match="outside the folder"):
        recipes.text_of("link/secret.yaml", "prepare")
    monkeypatch.setenv(VARIABLE, str(folder.parent / "outside"))
    assert is_inside("link/secret.yaml") and recipes.text_of("link/secret.yaml", "prepare") == "name: secret\n"


@pytest.mark.parametrize("name", ["../outside/secret.yaml", "/etc/passwd", "data/dataset_info.json", "", "prepare/x"])
def test_only_recipes_are_opened(name, folder):
    with pytest.raises(UserError):
        recipes.text_of(name, "prepare")


@pytest.mark.parametrize("folder_", ["../outside", "link", "/etc", "~", "", "none", "data/../../outside"])
def test_no_folder_of_outside_is_listed(folder, folder_):
    (folder / "link").symlink_to(folder.parent / "outside")
    assert all(value.startswith("prepare/") for _, value in recipes.listed("prepare", folder_))


def test_a_recipe_is_saved_among_ones_own(folder):
    assert recipes.save(DEMO, "mine/a.yaml", "prepare").read_text() == DEMO
    assert ("mine/a.yaml", "mine/a.yaml") in recipes.listed("prepare", "mine")
    (folder / "other.yaml").write_text("something: else\n")
    shipped_one = str(shipped()["prepare/demo_spa"])
    for file in (
        "../outside/x.yaml",
        "other.yaml",
        "a.txt",
        ".yaml",
        shipped_one,
        "data/seeds/english_instructions.jsonl",
    ):
        with pytest.raises(UserError):
            recipes.save(DEMO, file, "prepare")
    with pytest.raises(UserError):
        recipes.save(DEMO.replace("seed: 42", "seed: x"), "mine/b.yaml", "prepare")
    assert not (folder / "mine/b.yaml").exists() and (folder / "other.yaml").read_text() == "something: else\n"
