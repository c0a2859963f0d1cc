"""Parallel corpora as they are published: TSV, Moses, TMX, JSONL and Parquet rows, folders of them, OPUS-100, gettext.

Each reader yields (source sentence, target sentence), one at a time. Errors are `UserError`s without a key where the
recipe names what is not there, at a file and line where a file is at fault.
"""

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any

from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import LANGUAGES, Language
from sdrrl_factory.rows import open_bytes, read_hub, read_lines, read_rows, suffix

OPUS = "Helsinki-NLP/opus-100"

Pairs = Iterator[tuple[str, str]]

_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
# What TMX 1.4b has for another program's codes inside a segment; their content is no text.
_CODES = ("bpt", "ept", "it", "ph", "ut")


def read_corpus(name: str, source: str, target: str) -> Pairs:
    """The sentence pairs of "opus-100", or of a path with {source} and {target} in it.

    A path is a .tsv, .tmx, .jsonl or .parquet file, a folder of the last two, or what stands before ".en" and ".es" in
    a Moses pair; all but Parquet may be gzipped.
    """
    one, two = LANGUAGES[source], LANGUAGES[target]
    if name == "opus-100":
        return _opus(one, two)
    kind = suffix(name)
    if kind == ".tsv":
        return _tsv(find_file(name, one, two))
    if kind == ".tmx":
        return _tmx(find_file(name, one, two), one, two)
    if kind in (".jsonl", ".parquet"):
        return _rows([find_file(name, one, two)], one, two)
    folder = next((path for path in _paths(name, one, two) if path.is_dir()), None)
    return _rows(_in_folder(folder, one, two), one, two) if folder else _moses(name, one, two)


def find_file(name: str, one: Language, two: Language) -> Path:
    """The file that `name` means, its {source} and {target} filled in by whichever codes it goes by."""
    paths = _paths(name, one, two)
    for path in paths:
        if path.is_file():
            return path
    raise UserError(f"{paths[0]} not found", "mend the path")


def _codes(language: Language) -> list[str]:
    """What files call the language; OPUS, as fastText, has Norwegian as "no" too."""
    return list(dict.fromkeys([language.iso1, language.code, language.flores, language.fasttext]))


def _paths(name: str, one: Language, two: Language) -> list[Path]:
    names = [name.replace("{source}", a).replace("{target}", b) for a in _codes(one) for b in _codes(two)]
    return [Path(name) for name in dict.fromkeys(names)]


# --- lines


def _tsv(path: Path) -> Pairs:
    for number, line in read_lines(path):
        columns = line.split("\t")
        if len(columns) >= 2:
            yield columns[0], columns[1]
        elif line.strip():
            what = "one column instead of two (source, tab, target)"
            raise UserError(what, "mend the line", at=f"{path}:{number}")


def _moses(prefix: str, one: Language, two: Language) -> Pairs:
    """Two files of aligned lines."""
    paths = [_side(prefix, language, one, two) for language in (one, two)]
    for left, right in zip_longest(*map(read_lines, paths)):
        if left is None or right is None:
            counts = [sum(1 for _ in read_lines(path)) for path in paths]
            what = f"{paths[0]} has {counts[0]} lines and {paths[1]} has {counts[1]}"
            raise UserError(what, "a Moses pair has as many on both sides, fetch it again")
        yield left[1], right[1]


def _side(prefix: str, language: Language, one: Language, two: Language) -> Path:
    """One language's file of a Moses pair."""
    stems = _paths(prefix, one, two)
    for stem in stems:
        for code in _codes(language):
            for end in ("", ".gz"):
                path = Path(f"{stem}.{code}{end}")
                if path.is_file():
                    return path
    hint = "name a .tsv, .tmx, .jsonl or .parquet file, a folder, or what stands before .<language> in a Moses pair"
    raise UserError(f"{stems[0]}.{language.iso1} not found", hint)


# --- rows


def _in_folder(folder: Path, one: Language, two: Language) -> list[Path]:
    """The training files of a folder, or of its subfolder of the pair, as hub data sets are laid out."""
    pairs = [f"{a}-{b}" for p, q in ((one, two), (two, one)) for a in _codes(p) for b in _codes(q)]
    folder = next((folder / pair for pair in pairs if (folder / pair).is_dir()), folder)
    files = sorted(path for end in ("parquet", "jsonl", "jsonl.gz") for path in folder.rglob(f"*.{end}"))
    files = [path for path in files if "train" in path.name] or files
    if not files:
        raise UserError(f"no .parquet or .jsonl file in {folder}", "name another folder")
    return files


def _rows(paths: Iterable[Path], one: Language, two: Language) -> Pairs:
    """Rows {"translation": {"en": ..., "es": ...}}, or their inner object alone."""
    for path in paths:
        for row in read_rows(path):
            sides = row.values.get("translation", row.values)
            left, right = (_side_in(sides, language) for language in (one, two))
            if not isinstance(left, str) or not isinstance(right, str):
                fix = f'rows are {{"translation": {{"{one.iso1}": ..., "{two.iso1}": ...}}}}'
                raise UserError(f"no {one.iso1} and {two.iso1} text", fix, at=row.at)
            yield left, right


def _side_in(sides: object, language: Language) -> object:
    """The side in the language: by its exact code, or else a regional variety of it (en-US); None: there is none."""
    if not isinstance(sides, dict):
        return None
    tags = {tag.lower().replace("_", "-"): text for tag, text in sides.items()}
    codes = [code.lower().replace("_", "-") for code in _codes(language)]
    exact = [tags[code] for code in codes if code in tags]
    varieties = [text for tag, text in tags.items() if tag.split("-")[0] in codes]
    return next(iter(exact + varieties), None)


def _opus(one: Language, two: Language) -> Pairs:
    """OPUS-100 (Zhang et al. 2020), which pairs every language with English."""
    if "eng" not in (one.code, two.code):
        what = f"opus-100 pairs languages with English alone, not {one.code} with {two.code}"
        raise UserError(what, "name a file")
    for row in read_hub(OPUS, "-".join(sorted((one.iso1, two.iso1))), "train"):
        sides = row.values["translation"]
        yield sides[one.iso1], sides[two.iso1]


# --- TMX


def _tmx(path: Path, one: Language, two: Language) -> Pairs:
    """The pairs of a TMX file, one translation unit in memory at a time.

    Entities of its own are refused: they can grow without bound, or name a file of this machine.
    """
    from lxml import etree

    with open_bytes(path) as f:
        # No entity is expanded, no DTD or other file opened, no text node longer than 10 MB taken.
        units = etree.iterparse(
            f,
            events=("start", "end"),
            tag="{*}tu",
            resolve_entities=False,
            load_dtd=False,
            no_network=True,
            huge_tree=False,
        )
        prolog_is_read = False
        try:
            for event, unit in units:
                if not prolog_is_read:
                    _refuse_entities(unit.getroottree(), path)
                    prolog_is_read = True
                if event == "start":
                    continue
                left, right = _unit(unit, one, two)
                if isinstance(left, str) and isinstance(right, str):
                    yield left, right
                # iterparse keeps what it has read as a tree: take the unit out of it, and the units before.
                unit.clear()
                while unit.getprevious() is not None:
                    del unit.getparent()[0]
        except etree.XMLSyntaxError as err:
            at = f"{path}:{err.lineno or 1}"
            raise UserError(f"not well-formed XML ({err.msg})", "mend the file or fetch it again", at=at) from None


def _refuse_entities(tree: Any, path: Path) -> None:
    dtd = tree.docinfo.internalDTD
    if dtd is not None and any(dtd.iterentities()):
        at = f"{path}:{tree.getroot().sourceline}"
        raise UserError("the document type above declares an entity", "remove the declaration", at=at)


def _unit(unit: Any, one: Language, two: Language) -> tuple[object, object]:
    """The two languages' segments of a translation unit, without the codes in them."""
    texts: dict[str, str] = {}
    for variant in unit.iterchildren("{*}tuv"):
        tag = variant.get(_XML_LANG) or variant.get("lang") or ""
        for segment in variant.iterchildren("{*}seg"):
            texts.setdefault(tag, " ".join("".join(_texts(segment)).split()))
    return _side_in(texts, one), _side_in(texts, two)


def _texts(element: Any) -> Iterator[str]:
    """The texts in an element, but for what stands in codes."""
    yield element.text or ""
    for child in element:
        if isinstance(child.tag, str) and child.tag.rpartition("}")[2] not in _CODES:
            yield from _texts(child)
        yield child.tail or ""


# --- gettext


def read_catalogues(source: str, target: str) -> dict[str, tuple[str, str]]:
    """English message -> (its text in `source`, in `target`), of all messages that both catalogues of Django have.

    The catalogues are written in English; for another source language two catalogues are joined by their message.
    """
    spec = find_spec("django")
    if spec is None or not spec.origin:
        raise UserError("django is not installed", "run `pip install django polib` or set parallel.size: 0")
    folder = Path(spec.origin).parent
    left, right = (_catalogue(folder, LANGUAGES[code].iso1) for code in (source, target))
    return {message: (text, right[message]) for message, text in left.items() if message in right}


def _catalogue(folder: Path, iso1: str) -> dict[str, str]:
    """Message -> its text in the language."""
    import polib

    catalogue: dict[str, str] = {}
    for path in sorted(folder.glob(f"**/locale/{iso1}/LC_MESSAGES/*.po")):
        for entry in polib.pofile(str(path)):
            text = entry.msgid if iso1 == "en" else entry.msgstr
            if text.strip() and not entry.obsolete and not entry.msgid_plural and "fuzzy" not in entry.flags:
                catalogue.setdefault(entry.msgid, text.strip())
    if not catalogue:
        raise UserError(f"Django has no message catalogue for {iso1!r}", "set parallel.size: 0")
    return catalogue
