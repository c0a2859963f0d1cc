"""Bilingual dictionaries for code-switching: word -> its translations, in both directions."""

import gzip
import re
import string
from pathlib import Path

from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import LANGUAGES

Dictionary = dict[str, list[str]]

_DICTD = Path("/usr/share/dictd")
_BASE64 = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
_NOTE = re.compile(r"\s*(\([^)]*\)|\[[^\]]*\]|<[^>]*>)\s*")
_NUMBERING = re.compile(r"^\d+\.\s*")


def freedict(source: str, target: str, place: str, folder: Path = _DICTD) -> Dictionary:
    """FreeDict's source-target dictionary as dictd files."""
    stem = f"freedict-{LANGUAGES[source].freedict}-{LANGUAGES[target].freedict}"
    index, body = folder / f"{stem}.index", folder / f"{stem}.dict.dz"
    if not index.is_file() or not body.is_file():
        raise UserError(
            f"{place}: {index} not found; run `apt-get install dict-{stem}` or set code_switch.probability: 0"
        )
    return _read_dictd(index, body)


def _read_dictd(index: Path, body: Path) -> Dictionary:
    with gzip.open(body) as f:  # .dz is gzip with a seek table
        data = f.read()
    out: Dictionary = {}
    best: dict[str, tuple] = {}
    for number, line in enumerate(index.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split("\t")
        if len(fields) < 3:
            raise UserError(f"{index}:{number}: not a dictd index line; reinstall the dictionary package")
        head = fields[0]
        if head.startswith("00database") or " " in head:
            continue
        begin, size = _number(fields[1]), _number(fields[2])
        entry = data[begin : begin + size].decode("utf-8", "replace").splitlines()
        first, *entry = entry or [""]
        # One entry a headword: FreeDict files cut "house of worship" down to "house" as well, but keep how the whole
        # phrase is said. The plain word is the one said shortest, without a phrase's stress mark.
        said = re.search(r"/(.*)/", first)
        rank = ("ˈ" in first, len(said.group(1)) if said else 0)
        if head.lower() in best and best[head.lower()] <= rank:
            continue
        glosses = [
            g.strip() for row in entry for g in re.split("[,;]", _NOTE.sub(" ", _NUMBERING.sub("", row.strip())))
        ]
        glosses = [g for g in dict.fromkeys(glosses) if g and len(g.split()) <= 3 and not g.startswith("-")]
        if glosses:
            out[head.lower()] = glosses
            best[head.lower()] = rank
    return out


def _number(text: str) -> int:
    value = 0
    for char in text:
        value = value * 64 + _BASE64.index(char)
    return value


def inverted(dictionary: Dictionary) -> Dictionary:
    """The dictionary turned round, so that one package serves both questions and their translations."""
    out: Dictionary = {}
    for head, glosses in dictionary.items():
        for gloss in glosses:
            out.setdefault(gloss.lower(), []).append(head)
    return out
