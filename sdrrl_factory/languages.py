"""The one table of languages: ISO 639-3 code -> the names and codes every backend and benchmark uses.

The paper's 16 target languages (section 4.1 and appendix B), its two source languages, and Spanish, the demo's.
docs/languages.md shows the table.
"""

import difflib
from dataclasses import dataclass, fields

from sdrrl_factory.errors import UserError

# FLORES-200's script subtags -> the Unicode scripts a text may be written in.
_SCRIPTS = {
    "Latn": {"Latin"},
    "Cyrl": {"Cyrillic"},
    "Jpan": {"Han", "Hiragana", "Katakana"},
    "Hang": {"Hangul", "Han"},
    "Thai": {"Thai"},
    "Khmr": {"Khmer"},
}


@dataclass(frozen=True)
class Language:
    """One language; None: the data or the tool has none of it.

    flores: FLORES-200, NLLB-200 and BELEBELE. iso1: gettext and OPUS-100. fasttext: lid.176. mkqa: MKQA's keys.
    xlsum: XL-SUM's file names (`spanish_test.jsonl`). muse, bactrian: MUSE's and Bactrian-X's file names. apertium,
    freedict: the language's part in a pair's name, whichever pairs there are.
    """

    code: str
    name: str
    flores: str
    iso1: str
    apertium: str
    freedict: str | None
    fasttext: str
    cld3: str
    mkqa: str | None
    xlsum: str | None
    muse: str | None
    bactrian: str | None
    spaced: bool = True  # words are divided by spaces

    @property
    def script(self) -> str:
        return self.flores.split("_")[1]

    @property
    def scripts(self) -> frozenset[str]:
        """The Unicode scripts (their long names) that a text of it uses."""
        return frozenset(_SCRIPTS[self.script])


# fmt: off
_ROWS = [
    #        code   name          flores     iso1  apert. freed. fastT. cld3  mkqa  xlsum         muse  bactrian
    Language("eng", "English",    "eng_Latn", "en", "eng", "eng", "en", "en", "en", "english",    "en", "en"),
    Language("fra", "French",     "fra_Latn", "fr", "fra", "fra", "fr", "fr", "fr", "french",     "fr", "fr"),
    Language("spa", "Spanish",    "spa_Latn", "es", "spa", "spa", "es", "es", "es", "spanish",    "es", "es"),
    Language("ces", "Czech",      "ces_Latn", "cs", "ces", "ces", "cs", "cs", None, None,         "cs", "cs"),
    Language("dan", "Danish",     "dan_Latn", "da", "dan", "dan", "da", "da", "da", None,         "da", None),
    Language("ukr", "Ukrainian",  "ukr_Cyrl", "uk", "ukr", None,  "uk", "uk", None, "ukrainian",  "uk", "uk"),
    Language("bul", "Bulgarian",  "bul_Cyrl", "bg", "bul", "bul", "bg", "bg", None, None,         "bg", None),
    Language("fin", "Finnish",    "fin_Latn", "fi", "fin", "fin", "fi", "fi", "fi", None,         "fi", "fi"),
    Language("hun", "Hungarian",  "hun_Latn", "hu", "hun", "hun", "hu", "hu", "hu", None,         "hu", None),
    Language("nob", "Norwegian",  "nob_Latn", "nb", "nob", "nor", "no", "no", "no", None,         "no", None),
    Language("ind", "Indonesian", "ind_Latn", "id", "ind", "ind", "id", "id", None, "indonesian", "id", "id"),
    Language("jpn", "Japanese",   "jpn_Jpan", "ja", "jpn", "jpn", "ja", "ja", "ja", "japanese",   "ja", "ja", False),
    Language("kor", "Korean",     "kor_Hang", "ko", "kor", None,  "ko", "ko", "ko", "korean",     "ko", "ko"),
    Language("por", "Portuguese", "por_Latn", "pt", "por", "por", "pt", "pt", "pt", "portuguese", "pt", "pt"),
    Language("slv", "Slovenian",  "slv_Latn", "sl", "slv", "slv", "sl", "sl", None, None,         "sl", "sl"),
    Language("vie", "Vietnamese", "vie_Latn", "vi", "vie", None,  "vi", "vi", "vi", "vietnamese", "vi", "vi"),
    Language("pol", "Polish",     "pol_Latn", "pl", "pol", "pol", "pl", "pl", "pl", None,         "pl", "pl"),
    Language("tha", "Thai",       "tha_Thai", "th", "tha", None,  "th", "th", "th", "thai",       "th", "th", False),
    Language("khm", "Khmer",      "khm_Khmr", "km", "khm", None,  "km", "km", "km", None,         None, "km", False),
]
# fmt: on
LANGUAGES = {row.code: row for row in _ROWS}


def language(code: str) -> Language:
    """The row of `code` (ISO 639-3). Raises UserError without a key for an unknown one."""
    if code in LANGUAGES:
        return LANGUAGES[code]
    near = _by_other_name(code.lower()) or next(iter(difflib.get_close_matches(code, LANGUAGES, n=1)), None)
    raise UserError(f"unknown language {code!r}", f"did you mean {near}?" if near else f"known: {' '.join(LANGUAGES)}")


def _by_other_name(name: str) -> str | None:
    """The code of the language that any column of the table calls `name`: "es", "spanish", "spa_latn"."""
    for row in _ROWS:
        texts = (getattr(row, column.name) for column in fields(row))
        if name in {text.lower() for text in texts if isinstance(text, str)}:
            return row.code
    return None
