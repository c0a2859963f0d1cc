"""What the tasks' readers share: a path with holes, the fields of a row, sentences, questions, and prompts."""

import string
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from sdrrl_eval.measure.task import Item
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import read_text
from sdrrl_factory.languages import Language
from sdrrl_factory.rows import read_rows


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


def file_for(path: str, name: str, lang: Language) -> str:
    """The file `name` in `path` if that is a folder, else `path` itself; both may have holes."""
    path = path_for(path, lang)
    return str(Path(path) / path_for(name, lang)) if Path(path).is_dir() else path


def field(row: dict, key: str, at: str) -> str:
    """A field that must be there and say something; `at` is where the row stands."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{key} is missing or empty", "fetch the official file again, or mend the line", at=at)
    return value


def keep(items: dict[str, Item], item: Item, at: str, id_is: str = "id", fix: str = "remove one") -> None:
    """Put the item among `items`; one whose id they have already is an error at `at`.

    id_is: what the ids are in the file.
    """
    if item.id in items:
        raise UserError(f"{id_is} {item.id!r} stands twice", fix, at=at)
    items[item.id] = item


def checked_prompt(prompt: str | None, default: str, holes: Sequence[str]) -> str:
    """The prompt as the recipe has it; `holes` are the names it may put in braces, the last one it must.

    Raises: UserError about the key `prompt`.
    """
    if prompt is None:
        return default
    names = ", ".join(f"{{{name}}}" for name in holes)
    try:
        used = {name for _, name, _, _ in string.Formatter().parse(prompt) if name is not None}
        prompt.format_map(dict.fromkeys(holes, ""))
    except (ValueError, KeyError, IndexError, AttributeError):
        what = f"{prompt!r} has a hole that is none of {names}"
        raise UserError(what, "write other braces twice", key="prompt") from None
    if holes[-1] not in used:
        raise UserError(f"{prompt!r} lacks {{{holes[-1]}}}", f"it takes {names}", key="prompt")
    return prompt


# --- a folder of FLORES-200's shape


def sentences_path(folder: str, lang: Language) -> Path:
    """`<FLORES code>.devtest`, or .dev in a folder named dev; of the whole release, its folder devtest."""
    here = Path(folder)
    if (here / "devtest").is_dir():
        here = here / "devtest"
    return here / f"{lang.flores}.{'dev' if here.name == 'dev' else 'devtest'}"


def sentences(folder: str, lang: Language) -> list[str]:
    """The file's lines; a missing file, an empty file or an empty line is a `UserError`."""
    path = sentences_path(folder, lang)
    # Only "\n" ends a line: a sentence may hold U+2028 and its like.
    lines = [line.strip() for line in read_text(path).removesuffix("\n").split("\n")]
    if lines == [""]:
        raise UserError("0 sentences", "put one sentence a line", at=str(path))
    if "" in lines:
        fix = "put one sentence a line, aligned with its siblings"
        raise UserError("empty line", fix, at=f"{path}:{lines.index('') + 1}")
    return lines


# --- instructions

QUESTION = "{instruction}\n{input}"  # as LLaMA-Factory's alpaca format joins them


def questions(path: str, langs: Sequence[Language], answered: bool) -> list[list[Item]]:
    """For each language its questions, from `path` with the language in its holes.

    A row is {"instruction"[, "id", "input" or "context", "output"]} as in Alpaca, Bactrian-X or Dolly.

    Args:
        answered: whether every row must have an output.
    """
    paths = [path_for(path, lang) for lang in langs]
    if len(set(paths)) < len({lang.code for lang in langs}):
        raise UserError(f"{path} has no {{lang}} for {len(langs)} languages", "write it in", key="path")
    return [_questions_of(path, answered) for path in paths]


def _questions_of(path: str, answered: bool) -> list[Item]:
    items: dict[str, Item] = {}
    for at, number, row in read_rows(path):
        for key in ["instruction", "output"] if answered else ["instruction"]:
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise UserError(f"{key} is missing or empty", "write it as text", at=at)
        context = next((row[key] for key in ("input", "context") if row.get(key)), "")
        output = row.get("output")
        for key, value in (("input", context), ("output", output or "")):
            if not isinstance(value, str):
                raise UserError(f"{key} is {type(value).__name__}", "write it as text", at=at)
        question = "\n".join(filter(None, [row["instruction"], context]))
        item = Item(str(row.get("id", number)), question, output, {"question": question})
        keep(items, item, at, fix="make the ids distinct")
    if not items:
        fix = 'put {"id", "instruction", "input", "output"} objects in it, one a line'
        raise UserError("0 rows", fix, at=path)
    return list(items.values())
