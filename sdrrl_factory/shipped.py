"""The recipes the package carries: list them, copy one to edit."""

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import atomic_write, read_text

# In the order of a run.
KINDS = ("prepare", "train", "export", "eval")
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


def copy(name: str, file: str) -> list[Path]:
    """Copy the recipe `name` to `file`, and what it names and the package carries to where it names it.

    Paths in recipes are relative to the folder they are run from, hence to the current one. What is there stays as it
    is. Returns the files written, the recipe first.
    """
    source = _find(name)
    target = Path(file)
    if target.is_dir():
        raise UserError("is a folder", f"name a file, e.g. {target / source.name}", at=file)
    if target.exists():
        raise UserError("is there already", "name another file or remove it", at=file)
    # Its own name stands in its commands.
    text = read_text(source).replace(f"yaml_recipes/{source.parent.name}/{source.name}", file)
    parts = list(_carried(text))
    if schema := _SCHEMA_LINE.match(text):
        parts.append(Path("yaml_recipes/schema", schema[1]))
        # Editors resolve the path from the recipe's folder, not from the one it is run in.
        line = f"# yaml-language-server: $schema={os.path.relpath(parts[-1], target.parent)}\n"
        text = line + text[schema.end() :]
    contents = {target: text.encode("utf-8")}
    contents |= {part: (_home() / part).read_bytes() for part in parts if not part.exists()}
    try:
        for path, content in contents.items():
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
    files = recipes()
    short = name.removeprefix("yaml_recipes/").removesuffix(".yaml")
    matches = [full for full in files if short in (full, full.partition("/")[2])]
    if len(matches) == 1:
        return files[matches[0]]
    if matches:
        raise UserError(f"{name}: there are {', '.join(matches)}", "name one of them")
    without_kind = {full.partition("/")[2]: full for full in files}
    near = difflib.get_close_matches(short, files, n=1) or difflib.get_close_matches(short, without_kind, n=1)
    hint = f"did you mean {without_kind.get(near[0], near[0])}?" if near else "see `sdrrl recipes`"
    raise UserError(f"{name}: no such recipe", hint)


def _carried(text: str) -> Iterator[Path]:
    """The carried files that the recipe's keys name, relative; a folder means all that is in it."""
    for line in text.splitlines():
        for pattern in _CARRIED.findall(line.partition("#")[0]):
            for path in sorted(_home().glob(re.sub(r"\{\w+\}", "*", pattern))):
                for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                    if file.is_file():
                        yield file.relative_to(_home())
