"""Sentence pairs out of the gettext catalogues that installed packages carry: P without a network.

Catalogues are written in English: a message, and its text in a language. For another source language two catalogues are
joined by their message.
"""

import re
from importlib.metadata import PackageNotFoundError, files
from importlib.util import find_spec
from pathlib import Path

from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import LANGUAGES, Language

# A locale's name: es, pt_BR, zh_Hans, sr@latin.
_LOCALE = re.compile(r"([a-z]{2,3})(?:[-_]([A-Za-z]{4}))?(?:[-_]([A-Za-z]{2}|\d{3}))?(?:@(\w+))?")
_VARIANTS = {"latin": "Latn", "cyrillic": "Cyrl", "devanagari": "Deva", "arabic": "Arab"}
_SENTENCE = re.compile(r".*[.!?…][\"'”’)]*", re.DOTALL)


def is_gettext(source: str) -> bool:
    """Whether `parallel.source` names catalogues: "gettext", or "gettext:django,wagtail"."""
    return source.partition(":")[0] == "gettext"


def read_catalogues(name: str, source: str, target: str) -> dict[str, tuple[str, str]]:
    """English message -> (its text in `source`, in `target`), of all messages that both catalogues of a package have.

    name: "gettext" is Django's; behind a colon stand the packages, by the name they are installed or imported by; of a
    message that two of them have, the first one's texts are taken. Raises UserError without a key for a package that is
    not there, and where none has the languages.
    """
    packages = [package.strip() for package in name.partition(":")[2].split(",") if package.strip()]
    if not packages and ":" in name:
        raise UserError(f"{name} names no package", "write gettext, or gettext:django,wagtail")
    messages: dict[str, tuple[str, str]] = {}
    missing: dict[str, str] = {}
    for package in packages or ["django"]:
        catalogues = _catalogues(package)
        left, right = (_texts(catalogues, LANGUAGES[code]) for code in (source, target))
        for code, texts in ((source, left), (target, right)):
            if texts == {}:
                missing.setdefault(code, package)
        # English without a catalogue of its own: the messages are its texts.
        left = left if left is not None else {message: message for message in right or {}}
        right = right if right is not None else {message: message for message in left}
        for message, text in left.items():
            if message in right:
                messages.setdefault(message, (text, right[message]))
    if not messages:
        names = ", ".join(packages or ["Django"])
        code = next(iter(missing), target)
        what = f"{names} has no message catalogue for {LANGUAGES[code].iso1!r}"
        raise UserError(what, "name other packages (gettext:NAME,NAME) or set parallel.size: 0")
    return messages


def is_sentence(message: str) -> bool:
    """Whether the message ends as a sentence does; others are labels."""
    return bool(_SENTENCE.fullmatch(message))


def _catalogues(package: str) -> list[Path]:
    """The .po and .mo files of an installed package, sorted; of one that is there as both, the .po."""
    module = package.replace("-", "_")
    try:
        spec = find_spec(module) if module.isidentifier() else None
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.submodule_search_locations:
        folders = [Path(folder) for folder in spec.submodule_search_locations]
        paths = [path for folder in folders for end in ("po", "mo") for path in folder.glob(f"**/*.{end}")]
    else:
        # Not every package is imported by the name that it is installed by.
        try:
            paths = [Path(str(file.locate())) for file in files(package) or [] if file.suffix in (".po", ".mo")]
        except (PackageNotFoundError, ValueError):
            fix = f"run `pip install {package} polib` or set parallel.size: 0"
            raise UserError(f"{package} is not installed", fix) from None
    return sorted(path for path in paths if path.suffix == ".po" or not path.with_suffix(".po").exists())


def _texts(paths: list[Path], language: Language) -> dict[str, str] | None:
    """Message -> its text in the language; None for English where no catalogue of it is there."""
    ranks = {path: _rank(_locale(path), language) for path in paths}
    # The plain locale before its varieties: es, else es_AR and es_MX; English varieties are no translations.
    best = min((rank for rank in ranks.values() if rank is not None), default=None)
    is_english = language.iso1 == "en"
    if is_english and best != 0:
        return None
    texts: dict[str, str] = {}
    for path in paths:
        for message, text in _entries(path) if best is not None and ranks[path] == best else []:
            # What an English catalogue says of most messages is nothing: they are its texts.
            text = (text or message if is_english else text).strip()
            if text:
                texts.setdefault(message, text)
    return texts


def _locale(path: Path) -> str:
    """es of locale/es/LC_MESSAGES/django.po, or of po/es.po."""
    return path.parent.parent.name if path.parent.name == "LC_MESSAGES" else path.stem


def _rank(locale: str, language: Language) -> int | None:
    """0: the locale is the language's own name; 1: another name, or a variety of it; None: another language."""
    parts = _LOCALE.fullmatch(locale)
    if parts is None:
        return None
    base, script, region, variant = parts.groups()
    names = {language.iso1, language.flores.split("_")[0], language.fasttext, *language.also}
    written = script.title() if script else _VARIANTS.get(variant or "")
    if base == "zh" and not written:
        written = "Hant" if (region or "").upper() in ("TW", "HK", "MO") else "Hans"
    if base not in names or (written and written != language.script):
        return None
    return 0 if locale == language.iso1 else 1


def _entries(path: Path) -> list[tuple[str, str]]:
    """(message, text), without obsolete ones, fuzzy ones and plurals."""
    try:
        import polib
    except ImportError:
        raise UserError("polib is not installed", "run `pip install polib` or set parallel.size: 0") from None
    try:
        catalogue = polib.pofile(str(path)) if path.suffix == ".po" else polib.mofile(str(path))
    except (OSError, UnicodeError, ValueError) as err:
        why = str(err).splitlines()[0] if str(err) else "broken"
        raise UserError(f"not a gettext catalogue ({why})", "reinstall its package", at=str(path)) from None
    good = [
        entry for entry in catalogue if not entry.obsolete and not entry.msgid_plural and "fuzzy" not in entry.flags
    ]
    return [(entry.msgid, entry.msgstr) for entry in good]
