"""Cutting text into what a translator should see and what must come back untouched; small and pure."""

import re
from collections.abc import Iterator

_FENCE = re.compile(r"^\s*(```|~~~)")
# Indentation, then a bullet ("- ", "* ") or a number ("1. ", "2) ") or a heading ("## ").
_LEAD = re.compile(r"\s*(?:(?:[-*+•–]|#{1,6}|\(?\d{1,3}[.)])\s+)?")
# A sentence ends at .!?… with its closing quotes when a blank and something that can open a sentence follow.
_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=(\s+)[\"'“‘«(\[¿¡]*([^\W_]))|[。！？]+[”’」』）]*")
_ABBREVIATIONS = {"mr", "mrs", "ms", "dr", "prof", "st", "vs", "etc", "e.g", "i.e", "fig", "sr", "jr", "u.s"}
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def sentences(line: str) -> list[str]:
    """Cut one line into sentences, each with the blanks that follow it; joined, they are the line."""
    out, start = [], 0
    for match in _END.finditer(line):
        last = line[start : match.start()].split()[-1:] or [""]
        if match.group(1) and match.group(2).islower():
            continue
        word = last[0].lstrip("(\"'")
        if match.group(1) and (word.lower() in _ABBREVIATIONS or (len(word) == 1 and word.isupper())):
            continue
        end = match.end() + len(match.group(1) or "")
        out.append(line[start:end])
        start = end
    if start < len(line):
        out.append(line[start:])
    return out


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Yield (piece, translate?); joined, the pieces are `text` byte for byte.

    Line ends, indentation, list markers, blank lines and fenced code are not for the translator; sentences are.
    """
    fence = ""
    for line in text.splitlines(keepends=True):
        body = line.rstrip("\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029")
        mark = _FENCE.match(body)
        if mark and fence in ("", mark.group(1)):
            fence = "" if fence else mark.group(1)
            yield line, False
            continue
        if fence or not _WORD.search(body):
            yield line, False
            continue
        lead = _LEAD.match(body).end()
        if lead:
            yield body[:lead], False
        for sentence in sentences(body[lead:]):
            core = sentence.strip()
            before = sentence[: len(sentence) - len(sentence.lstrip())]
            after = sentence[len(sentence.rstrip()) :]
            if before:
                yield before, False
            if core:
                yield core, bool(_WORD.search(core))
            if after:
                yield after, False
        if len(line) > len(body):
            yield line[len(body) :], False


def words(text: str) -> list[str]:
    """The words of `text`: runs of letters, inner apostrophes kept."""
    return _WORD.findall(text)


def replace_words(text: str, replace) -> str:
    """`text` with each word w put through `replace(w)`; everything between words stays."""
    return _WORD.sub(lambda match: replace(match.group()), text)
