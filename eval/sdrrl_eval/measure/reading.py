"""What the tasks' readers share: a path with holes, the fields of a row, lines of parallel text, and prompts."""

import string
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from sdrrl_eval.measure.task import Item
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import read_text
from sdrrl_factory.languages import Language
from sdrrl_factory.rows import KINDS, read_rows, suffix

# A field of a row: "answers.text.0" goes into objects and lists. Of several, the first that the row has; "" says that
# it may have none.
Column = str | list[str]

_LANGUAGE_HOLES = ("lang", *(column.name for column in fields(Language)))
_AGAIN = "fetch the official file again, or mend the line"


def path_for(path: str, lang: Language) -> str:
    """`path` for one language: {lang} is its ISO 639-3 code, {flores}, {iso1}, ... the table's other columns."""
    path = path.replace("{lang}", lang.code)
    for column in fields(Language):
        hole = f"{{{column.name}}}"
        if hole in path:
            value = getattr(lang, column.name)
            if value is None:
                raise UserError(f"the data behind {hole} have no {lang.name}", f"remove {lang.code}", key="langs")
            path = path.replace(hole, str(value))
    return path


def has_language_hole(text: str) -> bool:
    return any(f"{{{name}}}" in text for name in _LANGUAGE_HOLES)


def file_for(path: str, name: str, lang: Language) -> str:
    """The file `name` in `path` if that is a folder, else `path` itself; both may have holes."""
    path = path_for(path, lang)
    return str(Path(path) / path_for(name, lang)) if Path(path).is_dir() else path


def files_for(path: str, name: str, langs: Sequence[Language]) -> list[str]:
    """The file of each language, as `file_for`; one file read as two languages is an error about `path`."""
    files = [file_for(path, name, lang) for lang in langs]
    if len(set(files)) < len({lang.code for lang in langs}):
        raise UserError(f"{path} has no {{lang}} for {len(langs)} languages", "write it in", key="path")
    return files


# --- a row


def cell(row: Any, column: str) -> Any:
    """What stands in a field of a row; None where there is no such field."""
    if isinstance(row, dict) and column in row:
        return row[column]
    value = row
    for part in column.split("."):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit():
            value = value[int(part)] if int(part) < len(value) else None
        elif isinstance(value, list):
            value = [one.get(part) for one in value if isinstance(one, dict)]
        else:
            return None
    return value


def field(row: dict, column: Column, at: str) -> str:
    """The text of a field; "" where it need not be there. `at` is where the row stands.

    Raises: UserError, where it must be there and say something, or is no text.
    """
    names = [column] if isinstance(column, str) else column
    name, value = first_of(row, names)
    if isinstance(value, str) and value.strip():
        return value
    if "" not in names:
        raise UserError(f"{names[0]} is missing or empty", _AGAIN, at=at)
    if isinstance(value, str) or value is None:
        return ""
    raise UserError(f"{name} is {type(value).__name__}", "write it as text", at=at)


def first_of(row: dict, names: Sequence[str]) -> tuple[str, Any]:
    """(name, value) of the first field that the row has something in; (first name, None) where it has none."""
    for name in names:
        value = cell(row, name) if name else None
        if value not in (None, "", []):
            return name, value
    return names[0], None


def keep(items: dict[str, Item], item: Item, at: str, id_is: str = "id", fix: str = "remove one") -> None:
    """Put the item among `items`; one whose id they have already is an error at `at`.

    id_is: what the ids are in the file.
    """
    if item.id in items:
        raise UserError(f"{id_is} {item.id!r} stands twice", fix, at=at)
    items[item.id] = item


# --- prompts


def checked_prompt(prompt: str | None, default: str, holes: Sequence[str], needed: str = "") -> str:
    """The prompt as the recipe has it.

    Args:
        holes: the names it may put in braces.
        needed: the one it must; "" is the last one.

    Raises: UserError about the key `prompt`.
    """
    if prompt is None:
        return default
    needed = needed or holes[-1]
    names = ", ".join(f"{{{name}}}" for name in holes)
    try:
        used = holes_of(prompt)
        prompt.format_map(dict.fromkeys(holes, ""))
    except (ValueError, KeyError, IndexError, AttributeError):
        what = f"{prompt!r} has a hole that is none of {names}"
        raise UserError(what, "write other braces twice", key="prompt") from None
    if needed not in used:
        raise UserError(f"{prompt!r} lacks {{{needed}}}", f"it takes {names}", key="prompt")
    return prompt


def holes_of(prompt: str) -> list[str]:
    """The names in its braces, each once, in their order."""
    return list(dict.fromkeys(name for _, name, _, _ in string.Formatter().parse(prompt) if name is not None))


def filled(prompt: str, values: dict[str, str]) -> str:
    """The prompt with the values in its holes; a line that is one hole and has nothing to say is left out."""
    empty = {f"{{{name}}}" for name, value in values.items() if not value}
    lines = [line for line in prompt.split("\n") if line not in empty] if empty else [prompt]
    return "\n".join(lines).format_map(values)


# --- parallel text: FLORES in its releases, and whatever has its shape

# In a folder: FLORES-200, FLORES+ (rows of {"id", "text"}), FLORES-101.
_NAMES = ("{flores}.{split}", "{flores}.jsonl", "{flores}.parquet", "{lang}.{split}")


def sentences_path(path: str, lang: Language) -> Path:
    """The file of a language: `path` with its holes filled or, in a folder, what a release of FLORES has there.

    Of a whole release, its folder devtest; `<code>.dev` in a folder named dev, else `<code>.devtest`.
    """
    here = Path(path_for(path, lang))
    if not here.is_dir() and (has_language_hole(path) or here.is_file()):
        return here
    if (here / "devtest").is_dir():
        here = here / "devtest"
    split = "dev" if here.name == "dev" else "devtest"
    # FLORES+ has a language's own code where FLORES-200 has its macrolanguage's: cmn_Hans, ekk_Latn.
    codes = [lang.flores, *(f"{code}_{lang.script}" for code in lang.also if len(code) == 3)]
    names = [
        name.replace("{split}", split).replace("{flores}", code).replace("{lang}", lang.code.split("_")[0])
        for name in _NAMES
        for code in codes
    ]
    return next((here / name for name in names if (here / name).is_file()), here / names[0])


def sentences(path: str, lang: Language, column: str = "text") -> list[str]:
    """The lines of the language's file, or of rows their field; a missing file, an empty file or line is a `UserError`.

    column: the field of rows, with holes for the language.
    """
    file = sentences_path(path, lang)
    if suffix(str(file)) in KINDS:
        lines = [field(row, path_for(column, lang), at) for at, row in _rows(str(file))]
        if not lines:
            raise UserError("0 sentences", "put one in each row", at=str(file))
        return [line.strip() for line in lines]
    # Only "\n" ends a line: a sentence may hold U+2028 and its like.
    lines = [line.strip() for line in read_text(file).removesuffix("\n").split("\n")]
    if lines == [""]:
        raise UserError("0 sentences", "put one sentence a line", at=str(file))
    if "" in lines:
        fix = "put one sentence a line, aligned with its siblings"
        raise UserError("empty line", fix, at=f"{file}:{lines.index('') + 1}")
    return lines


def _rows(file: str) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((at, row) for at, _, row in read_rows(file))
