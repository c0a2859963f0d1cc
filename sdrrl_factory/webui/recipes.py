"""The recipes of the page: which there are, and what is wrong with one while it is typed.

The text comes from whoever opened the page, so it is looked at in an order in which nothing can go wrong: its size, its
YAML as a stream of events (no tree is built of it yet), its interpolations, then its keys, then its paths.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrrl_factory.errors import Mistakes, UserError
from sdrrl_factory.files import atomic_write, read_text
from sdrrl_factory.recipe import Group, Recipe, load, read
from sdrrl_factory.shipped import recipes as shipped
from sdrrl_factory.webui.folders import is_inside, refuse_outside

KINDS = ("prepare", "eval")
_MAX_BYTES, _MAX_DEPTH, _MAX_NODES = 100_000, 20, 20_000
# ${group.key} names another key of the recipe; ${oc.env:KEY} and its like would bring something else in.
_PLAIN = re.compile(r"\$\{[A-Za-z_][\w.]*\}")
# Keys whose text is what a model is asked, and no path; groups that are passed on to a server or a template.
_NO_PATHS = re.compile(r"(?:^|\.)(?:\w*prompt|base_url|extra_body|chat_template_kwargs)(?:\.|$)")


@dataclass(frozen=True)
class Problem:
    """A mistake in a recipe's text, at a line from 1."""

    line: int
    text: str


@dataclass(frozen=True)
class Checked:
    """A text with its recipe, or with what is wrong with it."""

    recipe: Recipe[Any] | None
    problems: list[Problem]


def model_of(kind: str) -> type[Group]:
    """The keys of a kind of recipe."""
    if kind == "prepare":
        from sdrrl_factory.transfer.recipe import PrepareConfig

        return PrepareConfig
    from sdrrl_eval.measure.recipe import EvalConfig

    return EvalConfig


def check(text: str, kind: str) -> Checked:
    """Read the text as a recipe of a kind; a recipe with mistakes has no config."""
    try:
        _refuse_bombs(text)
    except UserError as err:
        return Checked(None, [_problem(err)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "recipe.yaml")
        path.write_text(text, encoding="utf-8")
        try:
            raw = read(str(path))
            _refuse_interpolations(raw)
            recipe = load(model_of(kind), str(path))
            outside = list(_outside(recipe))
            return Checked(None if outside else recipe, outside)
        except Mistakes as err:
            return Checked(None, [_problem(mistake, folder) for mistake in err.mistakes])
        except UserError as err:
            return Checked(None, [_problem(err, folder)])
        except (ValueError, TypeError, OverflowError, RecursionError) as err:
            # What YAML's readers do not foresee: a number of a million digits, a list as a key.
            what = str(err).splitlines()[0] if str(err) else type(err).__name__
            return Checked(None, [Problem(1, f"not YAML ({what[:100]}); mend the recipe")])


def keys_of(text: str) -> dict[str, Any] | None:
    """The keys of a text as they stand, {} of an empty one; None where it is no YAML, or none that may be read."""
    import yaml

    try:
        _refuse_bombs(text)
        tree = yaml.safe_load(text)
    except (UserError, yaml.YAMLError, ValueError, TypeError, OverflowError):
        return None
    return {} if tree is None else tree if isinstance(tree, dict) else None


def require(text: str, kind: str) -> Recipe[Any]:
    """The recipe of a text. Raises: UserError, its first mistake."""
    checked = check(text, kind)
    if checked.recipe is None:
        first = checked.problems[0]
        raise UserError(f"line {first.line}: {first.text}")
    return checked.recipe


def _problem(err: UserError, folder: str = "") -> Problem:
    """The mistake without the temporary file's name, which says nothing to the reader."""
    line = re.search(r":(\d+)$", err.at)
    text = f"{err.what}; {err.fix}" if err.fix else err.what
    if err.key:
        text = f"{err.key}: {text}"
    if folder:
        text = text.replace(f"{folder}{os.sep}", "")
    return Problem(int(line[1]) if line else 1, " ".join(text.split())[:300])


def _refuse_bombs(text: str) -> None:
    """A text that is small, and as YAML neither deep nor made of references, which can stand for terabytes."""
    import yaml

    size = len(text.encode("utf-8", "replace"))
    if size > _MAX_BYTES:
        raise UserError(f"{size:,} bytes are no recipe", f"at most {_MAX_BYTES:,} are read")
    if not text.isprintable() and re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", text):
        raise UserError("control characters in it", "remove them")
    depth = nodes = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = f"recipe:{event.start_mark.line + 1}" if event.start_mark else ""
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            nodes += isinstance(event, yaml.NodeEvent)
            if isinstance(event, yaml.AliasEvent):
                raise UserError(f"*{event.anchor} refers to another place", "write it out", at=line)
            if tag := getattr(event, "tag", None):
                raise UserError(f"{tag} is a tag", "write the value without it", at=line)
            if depth > _MAX_DEPTH or nodes > _MAX_NODES:
                raise UserError("too deep or too long for a recipe", "take it apart", at=line)
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        problem = getattr(err, "problem", None) or str(err).splitlines()[0]
        raise UserError(
            f"not YAML ({problem})", "mend the line", at=f"recipe:{mark.line + 1}" if mark else ""
        ) from None


def _refuse_interpolations(recipe: Recipe[dict[str, Any]]) -> None:
    for key, text in _texts(recipe.config):
        if "${" in _PLAIN.sub("", text):
            fix = "secrets are read from the variable that api_key_env names"
            raise UserError("${...} may only name another key of the recipe", fix, key=key, at=recipe.line(key))


def _outside(recipe: Recipe[Group]) -> Iterator[Problem]:
    """Every text that, as a path, leads out of the folders; of most keys it is none, and then it lies within them."""
    for key, text in _texts(recipe.config.model_dump()):
        if _NO_PATHS.search(key):
            continue
        try:
            refuse_outside(text, key=key, at=recipe.line(key))
        except UserError as err:
            yield _problem(err)


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of everything below a value."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, below in value.items():
            yield from _texts(below, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for i, below in enumerate(value):
            yield from _texts(below, f"{key}.{i}")


# --- which there are


def listed(kind: str, folder: str) -> list[tuple[str, str]]:
    """(what is shown, what it stands for) of the shipped recipes of a kind and those in one's own folder."""
    paths = sorted(Path(folder).glob("*.yaml")) if folder and is_inside(folder) else []
    own = [path for path in paths if path.is_file() and is_inside(str(path))]
    carried = {name: path for name, path in shipped().items() if name.startswith(f"{kind}/")}
    real = {path.resolve() for path in carried.values()}
    return [(name, name) for name in carried] + [(str(path), str(path)) for path in own if path.resolve() not in real]


def text_of(name: str, kind: str) -> str:
    """The text of a recipe that `listed` names. Raises: UserError, also where it lies outside."""
    carried = shipped()
    if name in carried and name.startswith(f"{kind}/"):
        return read_text(carried[name])
    if not name.endswith((".yaml", ".yml")):
        raise UserError("no recipe", "name a .yaml file", at=name)
    refuse_outside(name)
    if Path(name).is_file() and Path(name).stat().st_size > _MAX_BYTES:
        raise UserError("too long for a recipe", f"at most {_MAX_BYTES:,} bytes are read", at=name)
    return read_text(name)


def save(text: str, file: str, kind: str) -> Path:
    """Write a recipe without mistakes to one's own folder. Raises: UserError where it may not be written."""
    require(text, kind)
    path = Path(file)
    if path.suffix != ".yaml" or not path.stem:
        raise UserError("a recipe's name ends in .yaml", "name it so", at=file)
    refuse_outside(file)
    if path.resolve() in {carried.resolve() for carried in shipped().values()}:
        raise UserError("is one of the shipped recipes", "choose another name", at=file)
    # What is no recipe is not replaced, whatever its name.
    if path.exists() and check(read_text(path), kind).recipe is None:
        raise UserError("is there already, and no recipe", "choose another name", at=file)
    try:
        atomic_write(path, text)
    except OSError as err:
        raise UserError(f"cannot be written ({err.strerror})", "choose another name", at=file) from None
    return path
