"""Reads a FLORES-200 shaped folder: line-aligned `<FLORES code>.devtest` files, one sentence a line."""

from pathlib import Path

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import read_text
from sdrrl_factory.languages import Language


def path_of(folder: str, lang: Language) -> Path:
    return Path(folder) / f"{lang.flores}.devtest"


def sentences(folder: str, lang: Language) -> list[str]:
    """The file's lines; a missing file, an empty file or an empty line is a `UserError`."""
    path = path_of(folder, lang)
    # Only "\n" ends a line: a sentence may hold U+2028 and its like.
    lines = [line.strip() for line in read_text(path).removesuffix("\n").split("\n")]
    if lines == [""]:
        raise UserError(f"{path}: 0 sentences; put one sentence a line")
    if "" in lines:
        raise UserError(f"{path}:{lines.index('') + 1}: empty line; put one sentence a line, aligned with its siblings")
    return lines
