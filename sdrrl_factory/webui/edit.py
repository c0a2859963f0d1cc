"""Changes one key in a recipe's text, and leaves every other character: comments, order and blank lines stay."""

from typing import Any

import yaml


def set_key(text: str, key: str, value: Any) -> str:
    """The text with `value` at a dotted key, in YAML; a key that is not there is put below its group, or at the end.

    Raises: ValueError where the text is no mapping, or something that is no group stands at the key's group.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        return _appended(text, key.split("."), value)
    node, parts = root, key.split(".")
    for i, part in enumerate(parts):
        if not isinstance(node, yaml.MappingNode):
            raise ValueError(f"{'.'.join(parts[:i])} is no group of keys")
        found = next(((name, below) for name, below in node.value if name.value == part), None)
        if found is None:
            return _inserted(text, root, node, parts[i:], value)
        name, below = found
        if i == len(parts) - 1 or _is_empty(below):
            return _replaced(text, name, below, parts[i + 1 :], value)
        node = below
    raise AssertionError("a key has parts")


def _replaced(text: str, name: yaml.Node, node: yaml.Node, rest: list[str], value: Any) -> str:
    """The value behind `name` anew; `rest` are the keys below it, where it is a group without any."""
    colon = text.index(":", name.end_mark.index) + 1
    start = colon if _is_empty(node) else node.start_mark.index
    # A block of text ends behind its last line's end.
    end = start + len(text[start : _end(node)].rstrip())
    indent = " " * (name.start_mark.column + 2)
    new = f"\n{indent}{_nested(rest, value, indent)}" if rest else f" {_yaml(value)}"
    # A list below its key goes up beside it, unless a comment stands between.
    if text[colon:start].strip():
        return text[:start] + new.lstrip() + text[end:]
    return text[:colon] + new + text[end:]


def _inserted(text: str, root: yaml.Node, group: yaml.MappingNode, rest: list[str], value: Any) -> str:
    """A key that its group has not."""
    if group.flow_style:
        end = _end(group) - 1
        comma = ", " if group.value else ""
        return text[:end].rstrip() + comma + _flow(rest, value) + text[end:]
    if group is root:
        return _appended(text, rest, value)
    # Behind the line in which the group's last value ends; a comment on that line stays there.
    last = _end(group.value[-1][1])
    newline = text.find("\n", last)
    end = len(text) if newline < 0 else newline
    indent = " " * group.value[0][0].start_mark.column
    return text[:end] + f"\n{indent}" + _nested(rest, value, indent) + text[end:]


def _appended(text: str, rest: list[str], value: Any) -> str:
    return (text.rstrip("\n") + "\n" if text.strip() else text) + _nested(rest, value, "") + "\n"


def _nested(parts: list[str], value: Any, indent: str) -> str:
    """`a:` and below it `b: value`; the first line is not indented."""
    if len(parts) == 1:
        return f"{parts[0]}: {_yaml(value)}"
    return f"{parts[0]}:\n{indent}  " + _nested(parts[1:], value, indent + "  ")


def _flow(parts: list[str], value: Any) -> str:
    return f"{parts[0]}: {_yaml(value)}" if len(parts) == 1 else f"{parts[0]}: {{{_flow(parts[1:], value)}}}"


def _yaml(value: Any) -> str:
    """The value on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**9).strip()
    return text.removesuffix("...").strip()


def _is_empty(node: yaml.Node) -> bool:
    """Nothing behind the colon."""
    return isinstance(node, yaml.ScalarNode) and node.start_mark.index == node.end_mark.index


def _end(node: yaml.Node) -> int:
    """Where a value's text ends; PyYAML's own mark of a block stands behind the comments that follow it."""
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return node.end_mark.index
