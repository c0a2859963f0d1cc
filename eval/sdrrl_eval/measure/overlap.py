"""Whether an evaluation item stands in the training files: whole, nearly, or by a long run of its words."""

import csv
import io
import json
import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from sdrrl_eval.measure.task import Item, Part
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import atomic_write, dump_line, read_text, refuse_foreign
from sdrrl_factory.rows import KINDS, is_held_out, read_hub, read_lines, read_rows, suffix

DROPPED = "overlap:dropped"  # in the signature of a score without the items that overlap
_INFO = "data/dataset_info.json"  # LLaMA-Factory's own default
# Where LLaMA-Factory fetches a data set from that this check cannot read.
_ELSEWHERE = ("ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
# A choice, or the answer to a question, stands in other texts too ("The United States of America").
_FEWEST_WORDS_OF_ANSWER = 8
_CHOICES = frozenset(string.ascii_uppercase)
# Any of them makes a TSV's first line a header; else it is a sentence pair like the others.
_COLUMNS = {"instruction", "prompt", "question", "conversations", "messages", "held_out"}
_SHOWN, _WIDTH = 10, 80  # findings on the terminal, letters of each
_LISTS = (".jsonl", ".csv")

Texts = Iterator[tuple[str, str]]  # (where the row stands, its text)
Readers = dict[str, Callable[[], Iterator[tuple[str, Any]]]]  # what reads (where it stands, row or line)


@dataclass(frozen=True)
class Finding:
    """An item of the evaluation that stands in the training files: a line of the list of findings.

    Attributes:
        part: the part's name.
        item: the item's id.
        text: which of the item's texts (question, passage, source, ...).
        kind: exact, near or ngram, the best there is.
        similarity: 1 - Levenshtein distance / letters of the text; None of an ngram.
        place: file:line where it stands.
        also: the first place in each other file.
        item_text: the text.
        found: what stands there.
    """

    part: str
    item: str
    text: str
    kind: str
    similarity: float | None
    place: str
    also: list[str]
    item_text: str
    found: str


@dataclass
class Overlap:
    """What was found in which files.

    Attributes:
        findings: by (part's name, item's id), each item once.
        rows: how many were read.
        held_out: how many were left out, as `sdrrl prepare` leaves them out.
        short: how many items are too short to be looked for.
    """

    parts: Sequence[Part]
    files: list[str]
    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)
    rows: int = 0
    held_out: int = 0
    short: int = 0

    def kept(self, part: Part) -> list[int]:
        """The numbers of the part's items that do not overlap."""
        return [i for i, item in enumerate(part.items) if (part.name, item.id) not in self.findings]

    def kind(self, part: Part, item: str) -> str | None:
        """How an item overlaps, None where it does not."""
        finding = self.findings.get((part.name, item))
        return finding.kind if finding else None

    def counts(self, part: Part) -> dict[str, int]:
        """{"exact": ..., "near": ..., "ngram": ...}: the part's items."""
        from sdrrl_eval.measure.matching import KINDS

        counted = Counter(self.kind(part, item.id) for item in part.items)
        return {kind: counted[kind] for kind in KINDS}


def check_overlap(parts: Sequence[Part], names: Sequence[str], list_path: str | None = None) -> int:
    """Print which items of `parts` stand in the training files `names`; 1 if there are any, else 0."""
    check_list(list_path)
    overlap = find_overlap(parts, names)
    print_overlap(overlap)
    if list_path:
        write_list(list_path, overlap)
    return 1 if overlap.findings else 0


def find_overlap(parts: Sequence[Part], names: Sequence[str]) -> Overlap:
    """The items of `parts` that stand in the training files; sdrrl_eval.measure.matching says what is found.

    The files are streamed: memory holds the evaluation's texts alone. Rows with `held_out`, which `sdrrl prepare`
    leaves out, are left out here as well.

    Args:
        names: files of any kind that `sdrrl prepare` reads, plain text, folders of them; names of data sets in
            data/dataset_info.json, or FILE:NAME,NAME with another dataset_info.json, or that file for all of its sets.
    """
    from sdrrl_eval.measure.matching import FEWEST_WORDS, Index

    # 1. What reads each file; a name that is none is said before anything is read.
    sources = _sources(names)
    overlap = Overlap(parts, list(sources))
    # 2. Each distinct text once: parallel sentences are asked in both directions, passages for several questions.
    #    (text, fewest words) -> whose it is: (part, item, kind).
    owners: dict[tuple[str, int], list[tuple[str, str, str]]] = {}
    for name, item in _items(parts):
        for kind, text in texts(item).items():
            fewest = _FEWEST_WORDS_OF_ANSWER if _is_answer(kind, item) else FEWEST_WORDS
            owners.setdefault((text, fewest), []).append((name, item.id, kind))
    index = Index([text for text, _ in owners], [fewest for _, fewest in owners])
    long_enough = {text for (text, _), short in zip(owners, index.short, strict=True) if not short}
    overlap.short = sum(not own & long_enough for own in _distinct(parts))

    # 3. The files, streamed through the index.
    best = _search(index, sources, overlap)
    # 4. From texts to items: the worst of its texts stands for an item, exact copies before near ones.
    numbered = list(owners.items())
    for number, ((match, place), *others) in sorted(best.items(), key=lambda pair: _rank(pair[1][0][0])):
        (text, _), owned = numbered[number]
        similarity = match.similarity and round(match.similarity, 4)
        also = [elsewhere for _, elsewhere in others]
        for part, item_id, kind in owned:
            finding = Finding(part, item_id, kind, match.kind, similarity, place, also, text, match.found)
            overlap.findings.setdefault((part, item_id), finding)
    # 5. In the order of the items.
    keys = [(name, item.id) for name, item in _items(parts)]
    overlap.findings = {key: overlap.findings[key] for key in keys if key in overlap.findings}
    return overlap


def _search(index: Any, sources: Readers, overlap: Overlap) -> dict[int, list[tuple]]:
    """Number of a text -> its best (match, place) in each file that has it, the best file first."""
    from sdrrl_eval.measure.matching import batches

    best: dict[int, dict[str, tuple]] = {}
    for name, read in sources.items():
        # A text that stands in this file whole or nearly is looked for no more, but for an exact copy.
        known: set[int] = set()
        for places, rows in batches(_counted(read(), overlap)):
            for match in index.matches(rows, known):
                if match.similarity is not None:
                    known.add(match.text)
                in_files = best.setdefault(match.text, {})
                if name not in in_files or _rank(match) < _rank(in_files[name][0]):
                    in_files[name] = match, places[match.row]
    return {number: sorted(in_files.values(), key=lambda pair: _rank(pair[0])) for number, in_files in best.items()}


def _rank(match: Any) -> tuple[int, float]:
    """Exact before near, nearer before less near, n-grams last."""
    from sdrrl_eval.measure.matching import KINDS

    return KINDS.index(match.kind), -(match.similarity or 0)


def _items(parts: Iterable[Part]) -> Iterator[tuple[str, Item]]:
    """(the part's name, item) of all parts."""
    return ((part.name, item) for part in parts for item in part.items)


def texts(item: Item) -> dict[str, str]:
    """What an item is made of, by kind: its own words or, without them, its whole prompt; and its reference."""
    own = item.texts or {"prompt": item.prompt or ""}
    return {kind: text for kind, text in (own | {"reference": item.reference or ""}).items() if text}


def _is_answer(kind: str, item: Item) -> bool:
    """Whether the text is a choice or the answer to a question, and not the item's own matter."""
    return kind in _CHOICES or (kind == "reference" and "question" in item.texts)


def _distinct(parts: Iterable[Part]) -> dict[frozenset[str], list[tuple[str, str]]]:
    """Items by their texts: a sentence pair asked in both directions is one item."""
    by_texts: dict[frozenset[str], list[tuple[str, str]]] = {}
    for name, item in _items(parts):
        by_texts.setdefault(frozenset(texts(item).values()), []).append((name, item.id))
    return by_texts


# --- the training files ---


def _sources(names: Sequence[str]) -> Readers:
    """File or data set -> what reads it. Raises UserError for any other name."""
    readers: Readers = {}
    for name in names:
        path = Path(name)
        file, _, sets = name.rpartition(":")
        if path.name == "dataset_info.json" and path.is_file():
            readers |= _named(name, list(_info(name)))
        elif path.exists():
            readers |= _files(path, name)
        elif file and Path(file).is_file():
            readers |= _named(file, sets.split(","))
        elif Path(_INFO).is_file():
            readers |= _named(_INFO, name.split(","))
        else:
            hint = "name a file, or a data set as FOLDER/dataset_info.json:NAME"
            raise UserError(f"no such file, and no {_INFO} here that could name it", hint, at=name)
    return readers


def _files(path: Path, at: str) -> Readers:
    """The file, or the files of the folder; `at` is what named it, for errors."""
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} has no file in it", "name a training file", at=at)
    return {str(file): partial(_read_file, str(file)) for file in files}


def _read_file(path: str) -> Iterator[tuple[str, Any]]:
    """Rows of a format that has them; of any other file the lines."""
    if suffix(path) in KINDS and not _is_pairs(path):
        return ((at, row) for at, _, row in read_rows(path))
    return ((f"{path}:{number}", line) for number, line in read_lines(path))


def _is_pairs(path: str) -> bool:
    """Whether a TSV has sentences in its first line too, and quotes that quote nothing."""
    if suffix(path) != ".tsv":
        return False
    _, header = next(read_lines(path), (0, ""))
    return not _COLUMNS & set(header.strip().split("\t"))


def _info(path: str) -> dict[str, Any]:
    try:
        info = json.loads(read_text(path))
    except ValueError as err:
        raise UserError(f"not JSON ({err})", "mend it", at=path) from None
    if not isinstance(info, dict):
        raise UserError(f"a {type(info).__name__} instead of an object of data sets", "mend it", at=path)
    return info


def _named(path: str, names: Sequence[str]) -> Readers:
    """The files of data sets that a dataset_info.json names."""
    info = _info(path)
    readers: Readers = {}
    for name in map(str.strip, names):
        at, entry = f"{path}: {name}", info.get(name)
        if not isinstance(entry, dict):
            near = get_close_matches(name, info, n=1)
            hint = f"did you mean {near[0]}?" if near else "name a file, or a data set of that file"
            raise UserError(f"no such file, nor a data set in {path}", hint, at=name)
        if "hf_hub_url" in entry:
            readers[at] = partial(_read_hub, entry, at)
            continue
        for key in _ELSEWHERE:
            if key in entry:
                raise UserError(f"its rows are at its {key}, not in a file", "fetch them and name their file", at=at)
        if not isinstance(entry.get("file_name"), str):
            raise UserError("no file_name", "write it there, or name the file itself", at=at)
        file = Path(path).parent / entry["file_name"]
        if not file.exists():
            raise UserError(f"{file}: no such file", "mend its file_name, or make the data set first", at=at)
        readers |= _files(file, at)
    return readers


def _read_hub(entry: dict[str, Any], at: str) -> Iterator[tuple[str, Any]]:
    try:
        for row in read_hub(entry["hf_hub_url"], entry.get("subset"), entry.get("split") or "train"):
            yield row.at, row.values
    except UserError as err:
        raise UserError(err.what, err.fix, at=at) from None


def _counted(rows: Iterator, overlap: Overlap) -> Texts:
    """Each row as one text, counted; held-out ones are counted and left out."""
    for place, row in rows:
        if isinstance(row, dict) and is_held_out(row):
            overlap.held_out += 1
            continue
        overlap.rows += 1
        yield place, "\n".join(_strings(row))


def _strings(value: object) -> Iterator[str]:
    """Every text of a row. Question, input and answer follow one another: a completion's halves join to a sentence."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        in_order = ["instruction", "input", "output"]
        for key in in_order + [key for key in value if key not in in_order]:
            yield from _strings(value.get(key))
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)


# --- what is shown and written ---


def print_overlap(overlap: Overlap) -> None:
    """A line a part, the first findings, and the sum; on stdout."""
    from rich.table import Table

    from sdrrl_eval.measure.matching import KINDS, NGRAM_WORDS
    from sdrrl_eval.show import console

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("part")
    for name in ("items", "exact", "near", f"{NGRAM_WORDS} words"):
        table.add_column(name, justify="right")
    for part in overlap.parts:
        table.add_row(part.name, str(len(part.items)), *map(str, overlap.counts(part).values()))
    console().print(table)
    for finding in list(overlap.findings.values())[:_SHOWN]:
        shown = " ".join(finding.found.split())
        if len(shown) > _WIDTH:
            shown = f"{shown[:_WIDTH]}…"
        how = f"near {finding.similarity:.2f}" if finding.kind == "near" else finding.kind
        print(f"{finding.part} {finding.item} ({finding.text}, {how}) in {finding.place}: {shown}")
    if len(overlap.findings) > _SHOWN:
        print(f"and {len(overlap.findings) - _SHOWN} more; --overlap-list FILE.jsonl (or .csv) writes all")
    print(_sum(overlap, KINDS))


def _sum(overlap: Overlap, kinds: Sequence[str]) -> str:
    distinct = _distinct(overlap.parts)
    each = [[overlap.findings[key].kind for key in keys if key in overlap.findings] for keys in distinct.values()]
    counted = Counter(min(some, key=kinds.index) for some in each if some)
    how = ", ".join(f"{counted[kind]} {kind}" for kind in kinds if counted[kind])
    line = f"{counted.total() or 'no'} of {len(distinct)} items"
    if how:
        line += f" ({how})"
    files = len(overlap.files)
    line += f" in {overlap.rows} rows of {files} {'file' if files == 1 else 'files'}"
    if overlap.held_out:
        line += f" ({overlap.held_out} more are held out)"
    if overlap.short:
        line += f"; {overlap.short} items too short to tell"
    return line


def check_list(path: str | None) -> None:
    """Say before any work that a list cannot be written as this."""
    if path and Path(path).suffix not in _LISTS:
        raise UserError(f"--overlap-list {path}: neither .jsonl nor .csv; give the file one of these endings")
    if path and Path(path).is_dir():
        raise UserError(f"--overlap-list {path}: is a folder; name a file in it")
    if path:
        refuse_foreign(path, '"part": ', "part,item,")


def write_list(path: str | Path, overlap: Overlap) -> None:
    """The findings as JSONL or, by the path's ending, CSV: an item a line."""
    rows = [asdict(finding) for finding in overlap.findings.values()]
    if Path(path).suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(Finding.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | {"also": "; ".join(row["also"])} for row in rows)
        data = text.getvalue()
    else:
        data = "".join(map(dump_line, rows))
    try:
        atomic_write(path, data)
    except OSError as err:
        raise UserError(f"{path}: cannot be written ({err.strerror}); name another file") from None
    print(f"overlap: {path}")
