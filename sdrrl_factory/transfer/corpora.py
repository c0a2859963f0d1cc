"""Parallel corpora as they are published: TSV, Moses, TMX, JSONL and Parquet rows, folders of them, OPUS-100.

Each reader yields (source sentence, target sentence), one at a time; None stands for a side that a row has not. Which
columns of a table are the two sides is told by a sample. Errors are `UserError`s without a key where the recipe names
what is not there, at a file and line where a file is at fault.
"""

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import looked_in
from sdrrl_factory.language_id import Identifier
from sdrrl_factory.languages import LANGUAGES, Language
from sdrrl_factory.rows import open_bytes, read_hub, read_lines, read_rows, suffix
from sdrrl_factory.transfer.recipe import PairColumns

OPUS = "Helsinki-NLP/opus-100"

Pairs = Iterator[tuple[str | None, str | None]]

# Rows that tell which columns are the two sides, and how much text of a column is looked at, in characters.
_SAMPLE, _SAMPLE_CHARS = 200, 4000
_HEADERS = ("source", "target", "src", "tgt", "trg", "sentence", "translation")
_LETTER = re.compile(r"[^\W\d_]")
_ADDRESS = re.compile(r"\s*\w+://\S*\s*")

_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
# What TMX 1.4b has for another program's codes inside a segment; their content is no text.
_CODES = ("bpt", "ept", "it", "ph", "ut")


def read_corpus(name: str, source: str, target: str, columns: PairColumns, tool: Identifier | None) -> Pairs:
    """The sentence pairs of "opus-100", or of a path with {source} and {target} in it.

    A path is a .tsv, .csv, .tmx, .jsonl or .parquet file, a folder of the last two, or what stands before ".en" and
    ".es" in a Moses pair; all but Parquet may be gzipped.

    columns: which columns of a table are the sides; what it leaves open is told by the columns' names or by `tool`.
    """
    one, two = LANGUAGES[source], LANGUAGES[target]
    if name == "opus-100":
        return _opus(one, two)
    kind = suffix(name)
    if kind == ".tsv":
        return _tsv(find_file(name, one, two), one, two, columns, tool)
    if kind == ".tmx":
        return _tmx(find_file(name, one, two), one, two)
    if kind in (".jsonl", ".csv", ".parquet"):
        return _rows([find_file(name, one, two)], one, two, columns, tool)
    folder = next((path for path in _paths(name, one, two) if path.is_dir()), None)
    return _rows(_in_folder(folder, one, two), one, two, columns, tool) if folder else _moses(name, one, two)


def find_file(name: str, one: Language, two: Language) -> Path:
    """The file that `name` means, its {source} and {target} filled in by whichever codes it goes by."""
    paths = _paths(name, one, two)
    for path in paths:
        if path.is_file():
            return path
    raise UserError(f"{paths[0]} not found{looked_in(paths[0])}", "mend the path")


def _codes(language: Language) -> list[str]:
    """What files call the language; OPUS, as fastText, has Norwegian as "no" too."""
    return language.files


def _paths(name: str, one: Language, two: Language) -> list[Path]:
    names = [name.replace("{source}", a).replace("{target}", b) for a in _codes(one) for b in _codes(two)]
    return [Path(name) for name in dict.fromkeys(names)]


# --- lines


def _tsv(path: Path, one: Language, two: Language, columns: PairColumns, tool: Identifier | None) -> Pairs:
    """The two sides' columns of a table without a header, or with one that names them."""
    rows = (dict(enumerate(line.split("\t"), 1)) for _, line in read_lines(path) if line.strip())
    sample = list(islice(rows, _SAMPLE))
    if sample and max(map(len, sample)) < 2:
        raise UserError("one column instead of two (source, tab, target)", "mend the line", at=f"{path}:1")
    header = {str(cell).strip(): number for number, cell in sample[0].items()} if sample else {}
    keys: list[Hashable | None] = [_numbered(key, header, path) for key in (columns.source, columns.target)]
    named = [_side_in(header, language) for language in (one, two)]
    # A first line that names both languages ("en", "es"), or a column of the recipe, is a header.
    if None not in named or isinstance(columns.source, str) or isinstance(columns.target, str):
        keys = [key or number for key, number in zip(keys, named, strict=True)]
        sample = sample[1:]
    left, right = _sides(sample, keys, one, two, tool, str(path))
    # "source", "target" over a table are no pair.
    names = {*_HEADERS, one.name.lower(), two.name.lower()}
    if sample and {sample[0].get(key, "").strip().lower() for key in (left, right)} <= names:
        sample = sample[1:]
    for row in chain(sample, rows):
        yield row.get(left), row.get(right)


def _numbered(key: str | int | None, header: Mapping[str, int], path: Path) -> int | None:
    """The number of a TSV file's column that the recipe names by its number or by its header."""
    if key is None or isinstance(key, int):
        return key
    if key not in header:
        what = f"no column {key!r} (the first line: {', '.join(header)[:100]!r})"
        raise UserError(what, "name another in parallel.columns", at=str(path))
    return header[key]


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
    raise UserError(f"{stems[0]}.{language.iso1} not found{looked_in(stems[0])}", hint)


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


def _rows(paths: Iterable[Path], one: Language, two: Language, columns: PairColumns, tool: Identifier | None) -> Pairs:
    """Rows {"translation": {"en": ..., "es": ...}}, their inner object alone, or columns of any names."""
    for path in paths:
        rows = (_inner(row.values) for row in read_rows(path))
        sample = list(islice(rows, _SAMPLE))
        keys: list[Hashable | None] = []
        for key, language in ((columns.source, one), (columns.target, two)):
            if isinstance(key, int):
                names = list(sample[0]) if sample else []
                key = names[key - 1] if key <= len(names) else None
            tags = [tag for row in sample for tag in row if _side_in({tag: True}, language)]
            keys.append(key or (_exact(dict.fromkeys(tags), language) if tags else None))
        left, right = _sides(sample, keys, one, two, tool, str(path))
        for row in chain(sample, rows):
            sides = [row.get(key) for key in (left, right)]
            yield tuple(side if isinstance(side, str) else None for side in sides)  # type: ignore[misc]  # two of them


def _inner(values: dict[str, Any]) -> dict[str, Any]:
    sides = values.get("translation", values)
    return sides if isinstance(sides, dict) else values


def _exact(tags: Iterable[str], language: Language) -> str:
    """Of the keys that mean the language the one of its exact code, or else the first."""
    tags = list(tags)
    return str(_side_in({tag: tag for tag in tags}, language) or tags[0])


# --- which columns are the two sides


def _sides(
    sample: Sequence[Mapping[Any, Any]],
    keys: Sequence[Hashable | None],
    one: Language,
    two: Language,
    tool: Identifier | None,
    path: str,
) -> tuple[Any, Any]:
    """The columns of the source and of the target language.

    keys: what is known of the two; None is told by the sample: a column is text in most rows, is not surely in another
    language, and of several the one that is identified as the language is taken, or the first.

    Raises: UserError at the file, with what its columns look like, where no two columns can be these languages.
    """
    columns: dict[Hashable, str] = {}  # of those that are text in at least half of the rows: what they hold
    for key in dict.fromkeys(key for row in sample for key in row):
        cells = [row[key] for row in sample if isinstance(row.get(key), str) and _is_prose(row[key])]
        if 2 * len(cells) >= len(sample):
            columns[key] = "\n".join(cells)[:_SAMPLE_CHARS]
    candidates = []
    for key, language in zip(keys, (one, two), strict=True):
        fitting = [c for c, text in columns.items() if not (tool and tool.off_target(text, language.code))]
        candidates.append(fitting if key is None else [key])
    pairs = [(left, right) for left in candidates[0] for right in candidates[1] if left != right]
    missing = [key for key in keys if key is not None and not any(key in row for row in sample)]
    if sample and (missing or not pairs):
        what = f"no column {missing[0]!r}" if missing else f"no columns in {one.name} and {two.name}"
        fix = "name the two in parallel.columns, or another file"
        raise UserError(f"{what} (the columns: {_shown(sample[0])})", fix, at=path)
    # Of pairs that are as sure as each other max takes the first: a file has the source before the target.
    return max(pairs, key=lambda pair: _sure_sides(pair, columns, (one, two), tool), default=(1, 2))


def _sure_sides(
    pair: tuple[Hashable, Hashable],
    columns: Mapping[Hashable, str],
    languages: tuple[Language, Language],
    tool: Identifier | None,
) -> int:
    """How many of the pair's two columns are identified as their language."""
    if not tool:
        return 0
    return sum(tool.surely(columns.get(key, ""), language.code) for key, language in zip(pair, languages, strict=True))


def _is_prose(cell: str) -> bool:
    """Whether a cell may be a sentence: it has a letter, and is no address."""
    return bool(_LETTER.search(cell)) and not _ADDRESS.fullmatch(cell)


def _shown(row: Mapping[Any, Any]) -> str:
    """A row's columns in a message: each key with the beginning of what it holds."""
    cells = [f"{key}: {str(value)[:30]!r}" for key, value in list(row.items())[:6]]
    return ", ".join([*cells, *(["..."] if len(row) > 6 else [])])


def _side_in(sides: Mapping[str, Any], language: Language) -> Any:
    """The side in the language: by its exact code, or else a regional variety of it (en-US); None: there is none."""
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
                yield _unit(unit, one, two)
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


def _unit(unit: Any, one: Language, two: Language) -> tuple[str | None, str | None]:
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
