"""The one table of languages: ISO 639-3 code -> the names and codes every backend and benchmark uses.

The paper's 16 target languages (section 4.1 and appendix B), its two source languages, and Spanish, the demo's.
"""

import difflib
from dataclasses import dataclass

from sdrrl_factory.errors import UserError


@dataclass(frozen=True)
class Language:
    """`flores` is the FLORES-200/NLLB/BELEBELE code, `iso1` what fastText, gettext and CLD3 say."""

    code: str
    name: str
    flores: str
    iso1: str
    apertium: str
    freedict: str
    spaced: bool = True  # words are divided by spaces

    @property
    def script(self) -> str:
        return self.flores.split("_")[1]


_ROWS = [
    Language("eng", "English", "eng_Latn", "en", "eng", "eng"),
    Language("fra", "French", "fra_Latn", "fr", "fra", "fra"),
    Language("spa", "Spanish", "spa_Latn", "es", "spa", "spa"),
    Language("ces", "Czech", "ces_Latn", "cs", "ces", "ces"),
    Language("dan", "Danish", "dan_Latn", "da", "dan", "dan"),
    Language("ukr", "Ukrainian", "ukr_Cyrl", "uk", "ukr", "ukr"),
    Language("bul", "Bulgarian", "bul_Cyrl", "bg", "bul", "bul"),
    Language("fin", "Finnish", "fin_Latn", "fi", "fin", "fin"),
    Language("hun", "Hungarian", "hun_Latn", "hu", "hun", "hun"),
    Language("nob", "Norwegian", "nob_Latn", "nb", "nob", "nor"),
    Language("ind", "Indonesian", "ind_Latn", "id", "ind", "ind"),
    Language("jpn", "Japanese", "jpn_Jpan", "ja", "jpn", "jpn", spaced=False),
    Language("kor", "Korean", "kor_Hang", "ko", "kor", "kor"),
    Language("por", "Portuguese", "por_Latn", "pt", "por", "por"),
    Language("slv", "Slovenian", "slv_Latn", "sl", "slv", "slv"),
    Language("vie", "Vietnamese", "vie_Latn", "vi", "vie", "vie"),
    Language("pol", "Polish", "pol_Latn", "pl", "pol", "pol"),
    Language("tha", "Thai", "tha_Thai", "th", "tha", "tha", spaced=False),
    Language("khm", "Khmer", "khm_Khmr", "km", "khm", "khm", spaced=False),
]
LANGUAGES = {row.code: row for row in _ROWS}


def language(code: str, place: str) -> Language:
    """The row of `code`; `place` (file and key) stands in the error for an unknown one."""
    if code in LANGUAGES:
        return LANGUAGES[code]
    by_other = {r.iso1: r.code for r in _ROWS} | {r.name.lower(): r.code for r in _ROWS}
    near = by_other.get(code.lower()) or next(iter(difflib.get_close_matches(code, LANGUAGES, n=1)), None)
    hint = f"did you mean {near}?" if near else f"known: {' '.join(LANGUAGES)}"
    raise UserError(f"{place}: unknown language {code!r}; {hint}")
