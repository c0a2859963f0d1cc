"""The one table of languages: ISO 639-3 code -> the names and codes every backend and benchmark uses.

languages.tsv holds it: the paper's 16 target languages (section 4.1 and appendix B), its two source languages and
Spanish, the demo's; then what FLORES-200 and NLLB-200 have besides, by name. docs/languages.md shows it.
"""

from dataclasses import dataclass
from pathlib import Path

from sdrrl_factory.errors import UserError

# FLORES-200's script subtags (ISO 15924) -> the Unicode scripts a text may be written in.
SCRIPTS = {
    "Latn": {"Latin"},
    "Cyrl": {"Cyrillic"},
    "Jpan": {"Han", "Hiragana", "Katakana"},
    "Hang": {"Hangul", "Han"},
    "Hans": {"Han"},
    "Hant": {"Han"},
    "Arab": {"Arabic"},
    "Armn": {"Armenian"},
    "Beng": {"Bengali"},
    "Deva": {"Devanagari"},
    "Ethi": {"Ethiopic"},
    "Geor": {"Georgian"},
    "Grek": {"Greek"},
    "Gujr": {"Gujarati"},
    "Guru": {"Gurmukhi"},
    "Hebr": {"Hebrew"},
    "Khmr": {"Khmer"},
    "Knda": {"Kannada"},
    "Laoo": {"Lao"},
    "Mlym": {"Malayalam"},
    "Mymr": {"Myanmar"},
    "Olck": {"Ol_Chiki"},
    "Orya": {"Oriya"},
    "Sinh": {"Sinhala"},
    "Taml": {"Tamil"},
    "Telu": {"Telugu"},
    "Tfng": {"Tifinagh"},
    "Thai": {"Thai"},
    "Tibt": {"Tibetan"},
}


@dataclass(frozen=True)
class Language:
    """One language in one script, a line of languages.tsv; None: the data or the tool has none of it.

    flores: FLORES-200 and BELEBELE. iso1: ISO 639-1, or ISO 639-3 where that has none: gettext, OPUS-100, web pages.
    fasttext: lid.176. mkqa: MKQA's keys. xlsum: XL-SUM's file names (`spanish_test.jsonl`). muse, bactrian: MUSE's and
    Bactrian-X's file names. apertium, freedict: the language's part in a pair's name, whichever pairs there are.
    spaced: words are divided by spaces. also: what else it is called; a recipe is told the code.
    """

    code: str
    name: str
    flores: str
    iso1: str
    apertium: str
    freedict: str | None
    fasttext: str | None
    cld3: str | None
    mkqa: str | None
    xlsum: str | None
    muse: str | None
    bactrian: str | None
    spaced: bool
    also: tuple[str, ...]

    @property
    def script(self) -> str:
        return self.flores.split("_")[1]

    @property
    def scripts(self) -> frozenset[str]:
        """The Unicode scripts (their long names) that a text of it uses."""
        return frozenset(SCRIPTS[self.script])

    @property
    def nllb(self) -> str:
        """NLLB-200's token: it has Santali by the name of a script that it is not written in."""
        return "sat_Beng" if self.flores == "sat_Olck" else self.flores

    @property
    def files(self) -> list[str]:
        """What a file of the language may go by, the likeliest first; OPUS, as fastText, has Norwegian as "no" too."""
        names = [self.iso1, self.code, self.flores, self.fasttext, *self.also]
        return list(dict.fromkeys(name for name in names if name))


def _read() -> dict[str, Language]:
    """The table by code, in its order. By hand: csv costs more to import than the whole table to read."""
    _, *lines = Path(__file__).with_name("languages.tsv").read_text(encoding="utf-8").splitlines()
    table = {}
    for line in lines:
        code, name, flores, iso1, apertium, *rest, spaced, also = line.split("\t")
        freedict, fasttext, cld3, mkqa, xlsum, muse, bactrian = (cell or None for cell in rest)
        table[code] = Language(
            code, name, flores, iso1, apertium, freedict, fasttext, cld3, mkqa, xlsum, muse, bactrian,
            spaced == "yes", tuple(also.split()),
        )  # fmt: skip
    return table


LANGUAGES = _read()


def language(code: str) -> Language:
    """The row of `code` (ISO 639-3, with a script where a language has several). Raises UserError without a key for an
    unknown one."""
    if code in LANGUAGES:
        return LANGUAGES[code]
    # Imported late: every command imports this module, few have a mistake in it.
    import difflib

    near = _by_other_name(code.lower()) or next(iter(difflib.get_close_matches(code, LANGUAGES, n=1)), None)
    first = " ".join(list(LANGUAGES)[:19])
    known = f"known: {first}, and {len(LANGUAGES) - 19} more in docs/languages.md"
    raise UserError(f"unknown language {code!r}", f"did you mean {near}?" if near else known)


def _by_other_name(name: str) -> str | None:
    """The code of the first language that any column of the table calls `name`: "es", "spanish", "spa_latn"."""
    for row in LANGUAGES.values():
        names = [row.name, row.flores, row.iso1, row.apertium, row.freedict, row.fasttext, row.cld3, row.mkqa]
        names += [row.xlsum, row.muse, row.bactrian, row.nllb, *row.also]
        if name in {text.lower() for text in names if text}:
            return row.code
    return None
