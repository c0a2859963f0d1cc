"""One key of a recipe's text is changed; PyYAML says what the text means before and after."""

import copy

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sdrrl_factory.shipped import recipes
from sdrrl_factory.webui.edit import set_key

VALUES = [
    "spa",
    "",
    "x: y # z",
    "007",
    "null",
    None,
    3,
    0.5,
    True,
    ["spa", "ind"],
    [],
    "ü\u202e'\"",
    "a\nb",
    "- a",
    "*a",
]
KEYS = ["name", "target_lang", "systems", "max_samples", "generator.model", "generator.new", "new", "new.one", "a.b.c"]
SHIPPED = [path.read_text() for name, path in recipes().items() if name.startswith(("prepare/", "eval/"))]
TEXTS = [
    *SHIPPED,
    "",
    "# only a comment\n",
    "systems:\n  - sdrrl\n  - sft   # why\n\n# between\nname: x\n",
    "systems:   # why\n  - sdrrl\nname: x\n",
    "generator: {model: m, template: t}  # flow\nname: x\n",
    "generator: {}\n",
    "generator:\nname: x\n",
    "generator:\n  # all commented out\nname:\n",
    "name: |\n  two\n  lines\ntarget_lang: 'spa'   # c\n",
    "name: x",
    '"name": "x"\n',
]


def wanted(keys: dict | None, key: str, value: object) -> dict:
    tree = copy.deepcopy(keys) or {}
    node, parts = tree, key.split(".")
    for part in parts[:-1]:
        node[part] = node.get(part) or {}
        node = node[part]
    node[parts[-1]] = value
    return tree


def comments(text: str) -> list[str]:
    return [line.partition("#")[2] for line in text.splitlines() if "#" in line]


@pytest.mark.parametrize("text", TEXTS)
def test_the_key_is_set_and_nothing_else_changes(text):
    old = yaml.load(text, Loader=yaml.CSafeLoader)
    for key in KEYS:
        for value in VALUES if key == "name" else VALUES[:4]:
            new = set_key(text, key, value)
            assert yaml.load(new, Loader=yaml.CSafeLoader) == wanted(old, key, value), (key, value)


@pytest.mark.parametrize("text", TEXTS)
def test_comments_and_the_other_lines_stay(text):
    new = set_key(text, "target_lang", "ind")
    assert comments(new) == comments(text)
    old = [line for line in text.splitlines() if not line.startswith("target_lang")]
    assert [line for line in new.splitlines() if not line.startswith("target_lang")] == old


@given(st.recursive(st.none() | st.integers() | st.text(), lambda v: st.lists(v, max_size=3), max_leaves=4))
def test_any_value_comes_back(value):
    assert yaml.safe_load(set_key("a: 1  # one\ngroup:\n  b: 2\nc: 3\n", "group.b", value)) == {
        "a": 1,
        "group": {"b": value},
        "c": 3,
    }


def test_what_is_no_group_has_no_keys_below():
    with pytest.raises(ValueError, match="name is no group"):
        set_key("name: x\n", "name.y", 1)
