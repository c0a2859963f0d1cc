"""The recipes the package carries: list them, copy one to edit."""

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import atomic_write, looked_in, read_text

# In the order of a run.
KINDS = ("prepare", "train", "export", "eval", "study")
# What a recipe may name that the package carries too; {lang} in it stands for any.
_CARRIED = re.compile(r"\b(?:yaml_recipes/deepspeed|data/seeds|data/heldout)/[\w./{}-]+")
# The comment by which editors with a YAML language server find a recipe's schema, relative to the recipe.
_SCHEMA_LINE = re.compile(r"# yaml-language-server: \$schema=\.\./schema/(\w+\.json)\n")


def recipes() -> dict[str, Path]:
    """Name (`train/llama2_7b_full`) -> file, in the order of a run."""
    folder = _home() / "yaml_recipes"
    return {f"{kind}/{path.stem}": path for kind in KINDS for path in sorted((folder / kind).glob("*.yaml"))}


def opening(path: Path) -> str:
    """What a recipe does: its first line, after the one for editors, without its comment mark."""
    return _SCHEMA_LINE.sub("", read_text(path)).partition("\n")[0].removeprefix("#").strip()


def located(path: str) -> str:
    """The path of a recipe that was given by its path or, where there is no such file, by its name."""
    if os.path.lexists(path):
        return path
    files = recipes()
    names = _names(path)
    if len(names) > 1:
        raise UserError(f"no such file{looked_in(path)}, and recipes {', '.join(names)}", "name one of them", at=path)
    if not names:
        raise UserError(f"no such file{looked_in(path)}, and no recipe of that name", _hint(path), at=path)
    return _from_here(files[names[0]])


def shown_name(path: str) -> str:
    """What a recipe is called where others read it: a carried one by its name, another by its path from here."""
    real = Path(path).resolve()
    name = next((name for name, file in recipes().items() if file.resolve() == real), None)
    return name or (_from_here(real) if path else "")


def copy(name: str, file: str) -> list[Path]:
    """Copy the recipe `name` to `file`, and what it names and the package carries to where it names it.

    Paths in recipes are relative to the folder they are run from, hence to the current one. What is there stays as it
    is. Returns the files written, the recipe first.
    """
    source = _find(name)
    target = Path(file)
    if target.is_dir():
        raise UserError("is a folder", f"name a file, e.g. {target / source.name}", at=file)
    if os.path.lexists(target):
        raise UserError("is there already", "name another file or remove it", at=file)
    if blocking := next((folder for folder in target.parents if folder.exists() and not folder.is_dir()), None):
        raise UserError("is a file", "name a file in a folder", at=str(blocking))
    # Its own name stands in its commands.
    text = read_text(source).replace(f"yaml_recipes/{source.parent.name}/{source.name}", file)
    parts = list(_carried(text))
    if schema := _SCHEMA_LINE.match(text):
        parts.append(Path("yaml_recipes/schema", schema[1]))
        # Editors resolve the path from the recipe's folder, not from the one it is run in.
        line = f"# yaml-language-server: $schema={os.path.relpath(parts[-1], target.parent)}\n"
        text = line + text[schema.end() :]
    contents = {target: text.encode("utf-8")}
    contents |= {part: (_home() / part).read_bytes() for part in parts if not os.path.lexists(part)}
    try:
        # The recipe last: as long as it is not there, the same command goes on.
        for path, content in reversed(contents.items()):
            atomic_write(path, content)
    except OSError as err:
        what = f"cannot be written ({err.strerror})"
        raise UserError(what, "choose another place", at=str(err.filename or file)) from None
    return list(contents)


def _home() -> Path:
    """Where yaml_recipes/ and data/ are: in the package as installed, or beside it in a checkout."""
    package = Path(__file__).parent
    return package if (package / "yaml_recipes").is_dir() else package.parent


def _find(name: str) -> Path:
    """The file of a recipe by its name, with its kind before it or without, or by its path."""
    names = _names(name)
    if len(names) == 1:
        return recipes()[names[0]]
    if names:
        raise UserError(f"{name}: there are {', '.join(names)}", "name one of them")
    raise UserError(f"{name}: no such recipe", _hint(name))


def _names(name: str) -> list[str]:
    """The recipes that are meant by a name, with the kind before it or without, or by a path in yaml_recipes."""
    short = name.removeprefix("yaml_recipes/").removesuffix(".yaml")
    return [full for full in recipes() if short in (full, full.partition("/")[2])]


def _hint(name: str) -> str:
    """The next step after a name that no recipe has."""
    files = recipes()
    short = name.removeprefix("yaml_recipes/").removesuffix(".yaml")
    without_kind = {full.partition("/")[2]: full for full in files}
    near = difflib.get_close_matches(short, files, n=1) or difflib.get_close_matches(short, without_kind, n=1)
    return f"did you mean {without_kind.get(near[0], near[0])}?" if near else "see `sdrrl recipes`"


def _from_here(path: Path) -> str:
    """Relative where it lies below the current folder."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _carried(text: str) -> Iterator[Path]:
    """The carried files that the recipe's keys name, relative; a folder means all that is in it."""
    for line in text.splitlines():
        for pattern in _CARRIED.findall(line.partition("#")[0]):
            for path in sorted(_home().glob(re.sub(r"\{\w+\}", "*", pattern))):
                for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                    if file.is_file():
                        yield file.relative_to(_home())
