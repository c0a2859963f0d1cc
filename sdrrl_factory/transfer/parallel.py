"""P: natural parallel text between source and target language, made into D_mt and D_comp (section 3.2.4, Table 1)."""

import re
from importlib.util import find_spec
from pathlib import Path

from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.transfer.draw import rng

# Interface strings with holes, markup or accelerators in them are not sentences.
_NOT_TEXT = re.compile(r"[%{}<>\\|_\n]|&\w")


def gettext(source: str, target: str, size: int, seed: int, place: str) -> list[tuple[str, str, str]]:
    """At most `size` (id, source sentence, target sentence) from Django's message catalogues, drawn by seed.

    The catalogues are written in English; for another source language two catalogues are joined by their message.
    """
    spec = find_spec("django")
    if spec is None or not spec.origin:
        raise UserError(f"{place}: django is not installed; run `pip install django polib` or set parallel.size: 0")
    sides = [_catalogue(Path(spec.origin).parent, LANGUAGES[code].iso1, place) for code in (source, target)]
    pairs = {}
    for message in sides[0].keys() & sides[1].keys():
        a, b = sides[0][message], sides[1][message]
        if all(len(t.split()) >= 3 and not _NOT_TEXT.search(t) for t in (message, a)) and not _NOT_TEXT.search(b):
            pairs[message] = (a, b)
    order = sorted(pairs, key=lambda message: (rng(seed, message, "parallel").random(), message))
    return [(f"gettext-{i:04d}", *pairs[message]) for i, message in enumerate(order[:size])]


def _catalogue(root: Path, iso1: str, place: str) -> dict[str, str]:
    """Message -> its text in the language."""
    import polib

    folders = "**/locale/en/LC_MESSAGES/*.po" if iso1 == "en" else f"**/locale/{iso1}/LC_MESSAGES/*.po"
    out = {}
    for path in sorted(root.glob(folders)):
        for entry in polib.pofile(str(path)):
            text = entry.msgid if iso1 == "en" else entry.msgstr
            if text.strip() and not entry.obsolete and not entry.msgid_plural and "fuzzy" not in entry.flags:
                out.setdefault(entry.msgid, text.strip())
    if not out:
        raise UserError(f"{place}: Django has no message catalogue for {iso1!r}; set parallel.size: 0")
    return out


def translation_rows(pairs: list[tuple[str, str, str]], source: str, target: str) -> list[dict]:
    """D_mt, both directions."""
    names = LANGUAGES[source].name, LANGUAGES[target].name
    rows = []
    for pid, a, b in pairs:
        for way, (given, wanted), (from_, to) in (("st", (a, b), names), ("ts", (b, a), names[::-1])):
            ask = f"Translate the following sentence from {from_} to {to}."
            rows.append({"id": f"{pid}-{way}", "instruction": ask, "input": given, "output": wanted})
    return rows


def completion_rows(pairs: list[tuple[str, str, str]], target: str, seed: int) -> list[dict]:
    """D_comp: target sentences cut between two words at a random place; one-word sentences cannot be cut."""
    ask = f"Complete the following sentence in {LANGUAGES[target].name} according to its context."
    rows = []
    for pid, _, sentence in pairs:
        words = sentence.split(" ")
        if len(words) < 2:
            continue
        at = rng(seed, pid, "completion").randrange(1, len(words))
        rows.append({"id": f"{pid}-c", "instruction": ask, "input": " ".join(words[:at]), "output": sentence})
    return rows
