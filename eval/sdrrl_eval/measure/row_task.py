"""A task whose items are the rows of a file: what a kind of task needs to be written in YAML, without code."""

from collections.abc import Sequence
from pathlib import Path

from sdrrl_eval.measure.reading import (
    Column,
    checked_prompt,
    field,
    files_for,
    filled,
    first_of,
    has_language_hole,
    holes_of,
    keep,
    path_for,
)
from sdrrl_eval.measure.task import Item, Part, PromptedTask
from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import Language
from sdrrl_factory.rows import read_rows

# Of `fields`, those that are no hole of the prompt.
ID, ANSWER = "id", "answer"


class RowTask(PromptedTask):
    """The keys that say which rows of which file are asked about, and how."""

    path: str
    """A file a language, JSON, JSONL, CSV, TSV or Parquet, gzipped too, with `{lang}` or another hole in its name; or
    its folder."""
    file: str = "{lang}.jsonl"
    """The file's name in a folder."""
    fields: dict[str, Column]
    """Hole of the prompt -> field of a row; `answer` is the reference, `id` the item's. `a.b.0` goes into objects and
    lists, a list names alternatives, "" one that may be missing; holes for the language too."""
    only: dict[str, str] = {}
    """Only rows with these values, field -> value, with holes for the language; a row without the field counts."""
    prompt: str
    """What is asked; its holes are the names in `fields`."""

    def zero_shot(self) -> list[Part]:
        """One part a language."""
        langs = self.languages()
        # One file may hold all languages, where the rows or the fields tell them apart.
        has_all = any(map(has_language_hole, [*self.only.values(), *_columns(self.fields)]))
        if has_all and not has_language_hole(self.path) and not Path(self.path).is_dir():
            files = [self.path] * len(langs)
        else:
            files = files_for(self.path, self.file, langs)
        return [self._part(lang, file) for lang, file in zip(langs, files, strict=True)]

    def template(self) -> str:
        """The prompt, checked, {language} and the fields its holes.

        Raises: UserError about the key `prompt`.
        """
        needed = [name for name in self.holes() if "" not in _alternatives(self.fields[name])]
        return checked_prompt(self.prompt, self.prompt, ["language", *self.holes()], (needed or [""])[-1])

    def holes(self) -> list[str]:
        """The fields that are holes of the prompt."""
        return [name for name in self.fields if name not in (ID, ANSWER)]

    def item(self, lang: Language, row: dict, at: str, number: int, prompt: str) -> Item:
        """The item that a row is.

        Raises: UserError at the row.
        """
        values = {name: self.value(name, lang, row, at) for name in self.holes()}
        reference = self.reference(lang, row, at)
        # The item's own words: its article or, as the prompt has them, all that is asked, as one text.
        asked = [name for name in holes_of(prompt) if name in values]
        if self.article in values:
            texts = {self.article: values[self.article]}
        elif len(asked) == 1:
            texts = {asked[0]: values[asked[0]]}
        else:
            texts = {"question": "\n".join(values[name] for name in asked if values[name])}
        return Item(self.item_id(lang, row, number), filled(prompt, values), reference, texts)

    def value(self, name: str, lang: Language, row: dict, at: str) -> str:
        """What stands in the field of that name."""
        return field(row, [path_for(column, lang) for column in _alternatives(self.fields[name])], at)

    def reference(self, lang: Language, row: dict, at: str) -> str | None:
        """What an answer is compared with; None where there need be nothing."""
        accepted = self.accepted(lang, row, at)
        return accepted[0] if accepted else None

    def accepted(self, lang: Language, row: dict, at: str) -> list[str]:
        """The answers that the field `answer` has: one, or a list of them; [] where there need be none."""
        if ANSWER not in self.fields:
            return []
        names = [path_for(column, lang) for column in _alternatives(self.fields[ANSWER])]
        name, value = first_of(row, names)
        accepted = value if isinstance(value, list) else [value]
        if all(isinstance(one, str | int | float) and str(one).strip() for one in accepted):
            return [str(one) for one in accepted]
        if not isinstance(value, str | None):
            raise UserError(f"{name} is {type(value).__name__}", "write it as text", at=at)
        if "" not in names:
            raise UserError(f"{name} is missing or empty", "write it as text", at=at)
        return []

    def item_id(self, lang: Language, row: dict, number: int) -> str:
        """From the field `id`, or from several: "{link} {question_number}"; the row's number where there is none."""
        column = self.fields.get(ID, ID)
        if isinstance(column, str) and "{" in column:
            parts = {name: str(row.get(name, "")) for name in holes_of(column)}
            return column.format_map(parts).strip() or str(number)
        _, value = first_of(row, [path_for(name, lang) for name in _alternatives(column)])
        return str(number if value is None else value)

    def _part(self, lang: Language, file: str) -> Part:
        prompt = self.template().replace("{language}", lang.name)
        conditions = {name: path_for(value, lang) for name, value in self.only.items()}
        column = self.fields.get(ID, ID)
        id_is = " and ".join(holes_of(column)) if isinstance(column, str) and "{" in column else ID
        items: dict[str, Item] = {}
        left_out: set[str] = set()  # what the rows have that do not count
        for at, number, row in read_rows(file):
            misses = [f"{name} {row[name]}" for name, value in conditions.items() if str(row.get(name, value)) != value]
            left_out.update(misses)
            if not misses:
                keep(items, self.item(lang, row, at, number, prompt), at, id_is, "make the ids distinct")
        if not items and left_out:
            what = f"0 rows with {', '.join(f'{name} {value}' for name, value in conditions.items())}"
            raise UserError(what, f"it has {', '.join(sorted(left_out)[:3])}: name the file of {lang.name}", at=file)
        if not items:
            raise UserError("0 rows", "fetch the official file again, or put one object a line in it", at=file)
        return Part(self, None, lang.code, list(items.values()), prompt, files=(file,))


def _alternatives(column: Column) -> list[str]:
    return [column] if isinstance(column, str) else column


def _columns(fields: dict[str, Column]) -> Sequence[str]:
    """All but the id's, whose holes are fields of the row."""
    return [name for key, column in fields.items() if key != ID for name in _alternatives(column)]
