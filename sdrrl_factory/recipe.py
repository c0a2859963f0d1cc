"""Recipe YAML to a typed, checked model; every mistake is one line: file:line, key, what is wrong, what is right.

`load` reads a recipe into a model made of `Group`s and tells all its mistakes at once. `read` gives the keys of one
as LLaMA-Factory reads its own.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import read_text
from sdrrl_factory.mistakes import mistakes
from sdrrl_factory.shipped import located


class Group(BaseModel):
    """Keys that stand together in a recipe. The docstring below a key is its description in the schema."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_groups_are_defaults(cls, values: Any) -> Any:
        """`generator:` with nothing below it, its keys all commented out, is as good as no `generator:`."""
        if not isinstance(values, dict):
            return values
        groups = {name for name, key in cls.model_fields.items() if is_group(key.annotation)}
        return {key: value for key, value in values.items() if value is not None or key not in groups}


def is_group(annotation: Any) -> bool:
    """Whether a key of this type is a group of keys."""
    return isinstance(annotation, type) and issubclass(annotation, Group)


# A `Group` for recipes of our own, a plain dict of keys for LLaMA-Factory's.
Config = TypeVar("Config")
G = TypeVar("G", bound=Group)


@dataclass(frozen=True)
class Recipe(Generic[Config]):
    """A recipe that has been read.

    config: its keys. path: its file. lines: where each dotted key stands, "file:line" or "command line: key=value".
    """

    config: Config
    path: str
    lines: dict[str, str] = field(default_factory=dict, repr=False)

    def line(self, key: str) -> str:
        """Where the key stands; of a key that is not in the recipe, where the group stands that it belongs to."""
        return next((self.lines[part] for part in reversed(_prefixes(key)) if part in self.lines), self.path)

    def locate(self, key: str) -> str:
        """Where the key stands, and the key: "file:line: key"."""
        return f"{self.line(key)}: {key}"

    @contextmanager
    def locating(self) -> Iterator[None]:
        """Errors raised inside that are about a key of the recipe get the place of the key."""
        try:
            yield
        except UserError as err:
            if err.key and not err.at:
                err.at = self.locate(err.key)
            raise


def load(model: type[G], path: str, overrides: Sequence[str] = ()) -> Recipe[G]:
    """Read the recipe at `path`, or of that name, and put `overrides` ("group.key=value") over it.

    Raises:
        Mistakes: all that is wrong with its keys, one line each.
        UserError: it cannot be read at all.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = located(path)
    tree, lines = _parse(path)
    for item in overrides:
        _override(tree, lines, item)
    recipe = Recipe[dict](config={}, path=path, lines=lines)
    try:
        values: Any = OmegaConf.to_container(tree, resolve=True)
    except OmegaConfBaseException as err:
        key = re.sub(r"\[(\d+)\]", r".\1", err.full_key or "")
        raise UserError(f"{key}: {str(err).splitlines()[0]}", "mend the ${...}", at=recipe.line(key)) from None
    try:
        return Recipe(model.model_validate(values), path, lines)
    except ValidationError as err:
        raise mistakes(err, model, values, recipe.line, list(lines.values())) from None


def read(path: str, overrides: Sequence[str] = ()) -> Recipe[dict[str, Any]]:
    """The recipe's keys with `overrides` over them, as `llamafactory-cli` reads them: unchecked and unresolved."""
    from omegaconf import OmegaConf

    path = located(path)
    tree, lines = _parse(path)
    for item in overrides:
        _override(tree, lines, item)
    keys: Any = OmegaConf.to_container(tree)
    return Recipe(keys, path, lines)


# The key that no other kind of recipe has.
_KINDS = {"backbones": "study", "instructions": "prepare", "tasks": "eval", "export_dir": "export", "dataset": "train"}


def kind_of(recipe: Recipe[dict[str, Any]], default: str = "") -> str:
    """study, prepare, eval, export or train, seen from the keys; `default`, if one is given, where none tells."""
    for key, kind in _KINDS.items():
        if key in recipe.config:
            return kind
    if default:
        return default
    keys = ", ".join(_KINDS)
    raise UserError(f"no recipe (none of the keys {keys})", "start from one of `sdrrl recipes`", at=recipe.path)


# --- YAML


def _parse(path: str) -> tuple[Any, dict[str, str]]:
    """(the file's keys as OmegaConf has them, the line of each dotted key)."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    text = read_text(path)
    try:
        # OmegaConf keeps no line numbers, and fails at what is no group of keys: the text is parsed for itself before.
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and not isinstance(node, yaml.MappingNode):
            raise UserError("a recipe is `key: value` lines", "start from one of `sdrrl recipes`", at=path)
        tree = OmegaConf.create(text) if node else OmegaConf.create({})
        lines = dict(_lines(node, path))
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        problem = getattr(err, "problem", None) or str(err).splitlines()[0]
        line = text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else ""
        # `path: {lang}.jsonl` is the beginning of a group to YAML.
        hole = re.search(r"\{\w+\}", re.sub(r"\"[^\"]*\"|'[^']*'", "", line))
        fix = f"put quotes around the value with {hole[0]}" if hole else "mend the line"
        raise UserError(f"not YAML ({problem})", fix, at=f"{path}:{mark.line + 1}" if mark else path) from None
    except OmegaConfBaseException as err:
        raise UserError(str(err).splitlines()[0], "mend the recipe", at=path) from None
    if not OmegaConf.is_dict(tree):
        raise UserError("a recipe is `key: value` lines", "start from one of `sdrrl recipes`", at=path)
    return tree, lines


def _lines(node: Any, path: str, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, "file:line") of everything below a node of the YAML."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        children = [(str(key.value), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = [(str(i), value, value) for i, value in enumerate(node.value)]
    else:
        return
    for name, start, value in children:
        yield f"{prefix}{name}", f"{path}:{start.start_mark.line + 1}"
        yield from _lines(value, path, f"{prefix}{name}.")


def _override(tree: Any, lines: dict[str, str], item: str) -> None:
    """Put `item` ("group.key=value") over the tree, and the command line over the lines of what it replaces."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    key, equals, text = item.partition("=")
    if not equals or not key:
        what = f"{item!r} is no override"
        raise UserError(what, "write key=value or group.key=value", at="command line")
    try:
        value = OmegaConf.from_dotlist([f"value={text}"]).value
        # Groups of the file that the override goes into, and does not replace, keep their line.
        groups = [
            part for part in _prefixes(key)[:-1] if part in lines and OmegaConf.is_config(OmegaConf.select(tree, part))
        ]
        OmegaConf.update(tree, key, value)
    except (OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, IndexError) as err:
        raise UserError(f"{item}: {str(err).splitlines()[0]}", "write group.key=value", at="command line") from None
    for part in [name for name in lines if name.startswith(f"{key}.")]:
        del lines[part]
    for part in _prefixes(key):
        if part not in groups:
            lines[part] = f"command line: {item}"


def _prefixes(key: str) -> list[str]:
    """a.b.c: a, a.b, a.b.c."""
    parts = key.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]
