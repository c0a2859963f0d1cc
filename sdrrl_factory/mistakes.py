"""What pydantic finds wrong with a recipe's values, in plain words: a mistake a key, with what would be right.

pydantic says which key and which sort of mistake; the words ("a whole number", "small | large") are read off the JSON
schema of the model, the same that editors check a recipe against.
"""

import difflib
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sdrrl_factory.errors import Mistakes, UserError

_UNKNOWN = ("extra_forbidden", "invalid_key")
_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "object": "a group of keys",
}
_BOUNDS = {"minimum": "at least", "maximum": "at most"}


def mistakes(
    err: ValidationError, model: type[BaseModel], values: Any, line: Callable[[str], str], order: list[str]
) -> Mistakes:
    """All mistakes in `values`, one a key, in the order of their lines.

    Args:
        line: where a dotted key stands.
        order: all lines as they follow each other.
    """
    schema = Schema(model, values)
    errors: dict[str, ErrorDetails] = {}
    for error in err.errors(include_url=False):
        key, error = _located(error, values)
        # Of `str | list[str]` every branch has an error. The one whose type fits says more: an empty list is too short.
        if key not in errors or errors[key]["type"].endswith("_type"):
            errors[key] = error
    misspelt = {key: schema.near(key) for key, error in errors.items() if error["type"] in _UNKNOWN}
    # A group or a list can only be meant as one: where something below it is wrong, that is what to mend. And what is
    # misspelt is not missing.
    to_mend = [
        key
        for key in errors
        if not any(other.startswith(f"{key}.") for other in errors) and key not in misspelt.values()
    ]
    lines = {}
    for key in to_mend:
        error, group = errors[key], key.rpartition(".")[0]
        if error["type"] == "missing":
            lines[key] = UserError(f"key {key} is missing", "add it", at=line(group))
        elif key in misspelt:
            known = f"known keys: {', '.join(schema.keys(group))}"
            fix = f"did you mean {misspelt[key]}?" if misspelt[key] else known
            lines[key] = UserError(f"unknown key {key}", fix, at=line(key))
        else:
            fix = f"it must be {schema.right(key, error)}"
            value = error["input"]
            if isinstance(value, dict) and value and not any(one is not None for one in value.values()):
                # What YAML makes of `path: {lang}`.
                fix += f', in quotes: "{{{next(iter(value))}}}"'
            lines[key] = UserError(f"{key} is {error['input']!r}", fix, at=line(key))
    return Mistakes(sorted(lines.values(), key=lambda mistake: order.index(mistake.at) if mistake.at in order else -1))


def _located(error: ErrorDetails, values: Any) -> tuple[str, ErrorDetails]:
    """(dotted key, error).

    pydantic's location has the branches of unions in it, which are no keys: ("instructions", "list[union[str,Source]]",
    0, "Source", "path").
    """
    parts: list[str] = []
    *path, last = error["loc"]
    for part in path:
        if isinstance(part, int) or (isinstance(values, dict) and part in values):
            parts.append(str(part))
            values = values[part]
    if (
        error["type"] in ("missing", *_UNKNOWN)
        or isinstance(last, int)
        or (isinstance(values, dict) and last in values)
    ):
        parts.append(str(last))
    # Where a key tells which group is meant (`task: flores`), the mistake is that key's.
    if error["type"].startswith("union_tag_"):
        parts.append(error["ctx"]["discriminator"].strip("'"))
        missing = error["type"] == "union_tag_not_found"
        error = {**error, "type": "missing" if missing else "literal_error", "input": error["ctx"].get("tag")}
    return ".".join(parts), error


class Schema:
    """A model's JSON schema, asked about the dotted keys of a recipe's values."""

    def __init__(self, model: type[BaseModel], values: Any = None):
        self._schema = model.model_json_schema()
        self._values = values

    def branches(self, key: str) -> list[dict[str, Any]]:
        """The schemas that a key's value may follow: one, or several for `str | list[str]`."""
        branches, value = [self._schema], self._values
        for part in filter(None, key.split(".")):
            number = part.isdigit()
            try:
                value = value[int(part) if number else part]
            except (KeyError, TypeError, IndexError):  # a key that is not there, or of something that is no group
                value = None
            # Of a group whose keys are names of the user's, every key has one schema.
            nodes = [
                branch.get("items")
                if number
                else branch.get("properties", {}).get(part) or branch.get("additionalProperties")
                for branch in branches
            ]
            branches = [branch for node in nodes if isinstance(node, dict) for branch in self._expanded(node, value)]
        return branches

    def _expanded(self, node: dict[str, Any], value: Any = None) -> list[dict[str, Any]]:
        """The node without references and alternatives; of groups that a key tells apart, the one `value` names."""
        if "$ref" in node:
            return [self._schema["$defs"][node["$ref"].rpartition("/")[2]]]
        if "oneOf" in node:
            tags = node["discriminator"]
            tag = value.get(tags["propertyName"]) if isinstance(value, dict) else None
            node = {"anyOf": [{"$ref": tags["mapping"][tag]}] if tag in tags["mapping"] else node["oneOf"]}
        if "anyOf" in node:
            return [branch for option in node["anyOf"] for branch in self._expanded(option, value)]
        return [node]

    def keys(self, group: str) -> list[str]:
        return list(dict.fromkeys(name for branch in self.branches(group) for name in branch.get("properties", ())))

    def near(self, key: str) -> str:
        """The known key that is spelt most like an unknown one, if any is."""
        group, dot, name = key.rpartition(".")
        return next((group + dot + near for near in difflib.get_close_matches(name, self.keys(group), n=1)), "")

    def right(self, key: str, error: ErrorDetails) -> str:
        """What the value of the key must be."""
        branches = self.branches(key)
        if error["type"] == "too_short":
            return "a list that is not empty"
        if error["type"] == "string_pattern_mismatch":
            return "letters, digits, - and _, as the name of a folder"
        if error["type"] == "string_pattern_mismatch":
            return f"text of the form {error['ctx']['pattern']}"
        if error["type"] in ("greater_than_equal", "less_than_equal"):
            return _bounds(branches)
        near = difflib.get_close_matches(str(error["input"]), _choices(branches), n=1)
        phrase = self._phrase(branches)
        return f"{phrase} (did you mean {near[0]}?)" if near else phrase

    def takes(self, key: str) -> str:
        """What the key takes, with the bounds: "a number, at least 0.0 and at most 1.0"."""
        branches = self.branches(key)
        return ", ".join(filter(None, [self._phrase(branches), _bounds(branches)]))

    def _phrase(self, branches: list[dict[str, Any]]) -> str:
        """The branches in words; that null is right too goes without saying."""
        choices = _choices(branches)
        phrases = [" | ".join(choices)] if choices else []
        for branch in branches:
            if branch.get("type") == "array":
                phrases.append(f"a list of {self._phrase(self._expanded(branch['items']))}")
            elif branch.get("type") in _TYPES and not _choices([branch]):
                phrases.append(_TYPES[branch["type"]])
        return " or ".join(dict.fromkeys(phrases))


def _bounds(branches: list[dict[str, Any]]) -> str:
    """Of the branch that is a number with bounds; "" where none is."""
    number: dict[str, Any] = next((branch for branch in branches if _BOUNDS.keys() & branch.keys()), {})
    return " and ".join(f"{words} {number[bound]}" for bound, words in _BOUNDS.items() if bound in number)


def _choices(branches: list[dict[str, Any]]) -> list[str]:
    """The values that a `Literal` allows; one of a single value is a `const`."""
    return [
        str(choice)
        for branch in branches
        for choice in branch.get("enum", [branch["const"]] if "const" in branch else [])
    ]
