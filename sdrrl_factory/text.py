"""Cutting text into what a translator should see and what must come back untouched; small and pure.

By hand: no library keeps code, placeholders and markup from a translator. Sentences too: where this splitter and
sentencex 1.0.32 differ, sentencex is right less often on instructions and cuts file names and code at their dots
(docs/measurements.md). The patterns are `re`'s, with ranges of characters: `regex`, which has Unicode's scripts by
name, takes more than twice as long for the same spans.
"""

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator

# Words: letters with their marks (decomposed Latin, Arabic, the scripts of India, Thai, Khmer) and joiners, inner
# apostrophes kept.
_LETTER = r"[^\W\d_]"
_MARKS = "".join(chr(code) for code in range(0x0300, 0x1800) if unicodedata.category(chr(code))[0] == "M")
_MARKS += "\u200c\u200d"
_RUN = rf"{_LETTER}(?:{_LETTER}|[{_MARKS}])*"
_WORD = re.compile(rf"{_RUN}(?:['’]{_RUN})*")

# A sentence ends at .!?…؟ with its closing quotes when a blank and something that can open a sentence follow; at the
# full stops of Japanese, Khmer, Hindi, Urdu, Burmese and Amharic always; in Thai, which has none, at a blank between
# two long runs.
_LATIN_END = r"[.!?…؟](?<![.!?…؟]{2})[.!?…؟]*+[\"'”’»)\]]*+(?=(\s+)[\"'“‘«(\[¿¡]*([^\W_]))"
_END = re.compile(
    rf"{_LATIN_END}|[。！？｡។៕।॥۔။።]++[”’」』）»]*+\s*+|(?<=[\u0e00-\u0e7f]{{20}})[ \u3000]++(?=[\u0e00-\u0e7f]{{20}})"
)
_ASCII_END = re.compile(_LATIN_END)  # the same for a line of ASCII, and faster
# What stands before a capital without ending a sentence: titles, mostly.
# fmt: off
_ABBREVIATIONS = {
    "mr", "mrs", "ms", "dr", "prof", "st", "vs", "etc", "e.g", "i.e", "fig", "sr", "jr", "u.s", "sra", "srta", "dra",
    "dña", "ud", "uds", "mme", "mlle", "gen", "col", "gov", "sen", "rep", "rev", "hon", "capt", "lt", "sgt", "ing",
    "mgr", "judr", "mudr", "phdr",
}
# fmt: on
# Longer sentences (characters) are cut at a clause mark: translators drop what is in the middle of a paragraph.
_LONG = 400
_STRONG = re.compile(r"[;:—–]\s+|[；：]\s*")
_WEAK = re.compile(r",\s+|[，、،]\s*")

# Indentation and quote marks, then bullets ("- "), numbers ("1. ", "2) ", "1.2. "), letters ("a) "), headings ("## ").
_LIST = r"(?:[-*+•‣◦▪●○·–—]|#{1,6}|\(?\d{1,3}[.)]|(?:\d{1,3}\.){2,}(?:\d{1,3})?|\(?[A-Za-z]\)|\[[ xX]\])"
_LEAD = re.compile(rf"[\s>]*(?:{_LIST}\s+)*")
# A fence closes with as many marks of its kind, or more, and nothing behind them.
_FENCE = re.compile(rf"[\s>]*(?:{_LIST}\s+)?(`{{3,}}(?=[^`]*$)|~{{3,}})")
_FENCE_END = re.compile(r"[\s>]*(`{3,}|~{3,})\s*$")
_BLOCKS = {"$$": "$$", "\\[": "\\]", "<script": "</script>", "<style": "</style>"}
_LINE_ENDS = "\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"

_INLINE = r"(?P<tick>`+)(?!`).+?(?<!`)(?P=tick)(?!`)"
_QUOTED = re.compile(_INLINE)
_BAR = re.compile(rf"{_INLINE}|\\\||(?P<bar>(?<!\|)\|(?!\|))")
# Attributes need a value, lest "<insert name here>" be a tag.
_TAG = (
    r"</?[A-Za-z][\w:-]*(?:\s+[\w:@.-]+\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'<>]+))*\s*/?>"
    r"|<!--(?:(?!<!--).)*?-->|<![A-Za-z][^<>]*>"
)
_TAGS_BEFORE = re.compile(rf"\s*(?:(?:{_TAG})\s*)+")
_TAGS_AFTER = re.compile(rf"(?:(?:{_TAG})\s*)+$")

# Lines that are clearly program text.
_CODE = re.compile(
    r"from [\w.]+ import [\w*, ]+|import [\w.]+ as \w+|#include\b.*|#!/.*|>>> .*|\$ [a-z][\w-]*(?: .*)?"
    r"|(?:async )?def \w+\(.*|class \w+(?:\(.*\))?:|(?:public|private|protected|static) .*[;{]|return \S+;"
    r"|(?:let|const|var|int|float|double|char|String) \w+(?:\[\])? ?= ?.*"
    r"|(?:if|else if|while|for|switch) ?\(.*[;{:]|\\(?:begin|end)\{.*"
    r"|SELECT .*\bFROM\b.*|INSERT INTO .*|CREATE TABLE .*"
    r"|[A-Za-z_][\w.]*(?:\[[^\]]*\])* ?[-+*/:]?= ?(?:[\[{\"'(]|\w+(?:\.\w+)*\().*"
    r"|(?:print|printf|[A-Za-z]\w*[._]\w[\w.]*)\(.*\);?"
    r"|[\[{\s]*\"[^\"]+\" ?: ?(?:[\[{\"\d-].*|true|false|null),?"
)
_CODE_SIGN = re.compile(r"[=({\">;#\\]|^\$ |import |\bFROM\b|INTO|TABLE")
_CALL = re.compile(r"=|\w\(.*\)")
_OPERATOR = re.compile(r"[=≤≥≈≠^√×÷∑∫]|\s[<>]\s")
_FUNCTIONS = {"sin", "cos", "tan", "log", "exp", "sqrt", "lim", "max", "min", "mod", "det", "arcsin", "arccos"}
_TWO_WORDS = re.compile(rf"{_LETTER}\s+{_LETTER}")
_LETTERS = re.compile(rf"{_LETTER}+")

_SUFFIXES = "py|js|ts|java|cpp|sh|txt|csv|tsv|jsonl?|ya?ml|toml|html|css|md|pdf|xml|sql|docx|xlsx|png|jpg|zip|gz"
_NUMBER = r"(?>\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?!\d)(?:[.,]\d+)?|\d+(?:[.,'’٫٬]\d+)*)"
_DIGITS = re.compile(_NUMBER)
# A digit beside one of these is part of a word: 3rd, H2O.
_ALPHABET = r"A-Za-z\u00c0-\u024f\u0370-\u052f_"
_SPAN = re.compile(
    rf"{_INLINE}|\$\$.+?\$\$|\\\((?:(?!\\\().)+?\\\)|\\\[(?:(?!\\\[).)+?\\\]|\$[^\s$](?:[^$]*[^\s$])?\$(?!\d)"
    # URLs and e-mail addresses, without the punctuation behind them
    r"|(?:(?:https?|ftp)://|\bwww\.)[!#-;=?-_a-~]*[#&+/-9=@-Z\\^_a-z~-]"
    r"|(?<![A-Za-z0-9_.+%-])[A-Za-z0-9_.+%-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"
    # markup and placeholders
    rf"|{_TAG}|&(?:[a-zA-Z]+|\#\d+);|\$\{{[^{{}}\s]+\}}|\{{\{{[^{{}}]+\}}\}}|\{{[\w.:!\[\]-]*\}}"
    r"|%\(\w+\)[a-z]|(?<![\d%])%(?:\d+\$)?[sdif](?![A-Za-z])|\[[A-Z][A-Z0-9_ ]+\]|__[A-Z][A-Z0-9_]*__"
    r"|(?<![A-Za-z0-9])@[A-Za-z_]\w*"
    # names of programs: snake_case, call(), paths, files, hosts
    r"|(?<![A-Za-z0-9_.])[A-Za-z]\w*_[A-Za-z0-9]\w*|(?<![\w.])[A-Za-z_][\w.]*\(\)"
    r"|(?<![\w./~])(?:~|\.{1,2})?(?:/[\w.+-]*\w){2,}/?|(?<!\w)[A-Za-z]:\\[\w\\.-]*\w"
    rf"|(?<![\w./-])[\w-]+(?:\.[\w-]+)*\.(?:{_SUFFIXES}|com|org|net|edu|io)(?!\w)"
    # numbers, dates, times, ranges, with their sign, currency and unit sign
    rf"|(?P<number>(?:(?<!\S)[-+−])?[$€£¥₩฿]?(?<![{_ALPHABET}\d]){_NUMBER}(?:[-/:–]{_NUMBER})*"
    rf"(?:\s?[%‰]|\s?°[CF]?)?(?![{_ALPHABET}\d]))"
)

# Every span holds one of these; most sentences hold none.
_SIGN = re.compile(r"[\d`$<\\{\[_/@%&]|\.\w|\(\)")


def normal(text: str) -> str:
    """The text in NFC: every letter composed with its marks, as dictionaries, translators and references have it."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def sentences(line: str) -> list[str]:
    """Cut one line into sentences, each with the blanks that follow it; joined, they are the line.

    A sentence of more than 400 characters is cut at its clause marks.
    """
    quoted = [match.span() for match in _QUOTED.finditer(line)] if "`" in line else []
    out: list[str] = []
    start = 0
    for match in (_ASCII_END if line.isascii() else _END).finditer(line):
        # A full stop in inline code ends no sentence.
        if any(a < match.start() < b for a, b in quoted):
            continue
        # Of a Latin full stop, what follows and what stands before it say whether it ends a sentence.
        if match.group(1):
            word = (line[start : match.start()].split()[-1:] or [""])[0].lstrip("(\"'")
            # An initial ("J. Smith") or an abbreviation.
            if word.lower() in _ABBREVIATIONS or (len(word) == 1 and word.isupper()):
                continue
            # A small letter begins a sentence where nobody writes capitals ("hello. how are you."), behind a word.
            if match.group(2).islower() and (not _ends_small_sentence(word, match.group()) or line != line.lower()):
                continue
        end = match.end() + len(match.group(1) or "")
        out += _clauses(line[start:end])
        start = end
    return out + _clauses(line[start:])


def _ends_small_sentence(word: str, mark: str) -> bool:
    """Whether the mark ends a sentence in a line without capitals: not behind a number or an initial, nor a pause."""
    return len(word) > 1 and word[-1].isalpha() and "..." not in mark and "…" not in mark


def with_case(translation: str, source: str, keeps_capitals: bool, may_grow: bool = True) -> str:
    """The translation, its first letter small or capital as the source's first letter is.

    What is capital wherever it stands stays so: "I", an acronym, a name of the source, any word where
    `keeps_capitals`, as German nouns are written.

    may_grow: whether a small letter may become a capital one: the source begins a sentence.
    """
    first, word = _WORD.search(source), _WORD.search(translation)
    if not first or not word:
        return translation
    letter, text, at = first.group()[0], word.group(), word.start()
    if letter.islower() and text[0].isupper():
        always_capital = text[1:] != text[1:].lower() or text.split("'")[0] == "I" or text in words(source)
        if keeps_capitals or always_capital:
            return translation
        return translation[:at] + text[0].lower() + translation[at + 1 :]
    if may_grow and letter.isupper() and text[0].islower():
        return translation[:at] + text[0].upper() + translation[at + 1 :]
    return translation


def _clauses(sentence: str) -> list[str]:
    """Parts of at most 400 characters where clause marks allow: the last strong one, or else the last weak one."""
    if len(sentence) <= _LONG:
        return [sentence] if sentence else []
    # Never inside what must come back as it is: a number's comma, a URL's semicolon.
    protected = {cut for a, b, _ in spans(sentence) for cut in range(a + 1, b + 1)}
    strong, weak = ([m.end() for m in mark.finditer(sentence) if m.end() not in protected] for mark in (_STRONG, _WEAK))
    out: list[str] = []
    start = 0
    while len(sentence) - start > _LONG:
        # Where no cut makes a part of 400 characters, the first one after them makes a longer part.
        end = _last(strong, start) or _last(weak, start) or _next(sorted(strong + weak), start + _LONG)
        if not end or end == len(sentence):
            break
        out.append(sentence[start:end])
        start = end
    return [*out, sentence[start:]]


def _last(cuts: list[int], start: int) -> int:
    """The last cut that leaves a part of neither more than 400 nor less than 100 characters; 0: there is none."""
    index = bisect_right(cuts, start + _LONG) - 1
    return cuts[index] if index >= 0 and cuts[index] >= start + _LONG // 4 else 0


def _next(cuts: list[int], start: int) -> int:
    """The first cut behind `start`; 0: there is none."""
    index = bisect_right(cuts, start)
    return cuts[index] if index < len(cuts) else 0


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Yield (piece, translate?); joined, the pieces are `text` byte for byte.

    Line ends, indentation, list markers, table borders, tags around a line, blank lines, fenced code, formulas and
    program text are not for the translator; sentences are, trimmed, if a word stands in them.
    """
    close, end = "", 0  # what closes the block we are in ("": none), and where the line ends in the text
    for line in text.splitlines(keepends=True):
        end += len(line)
        body = line.rstrip(_LINE_ENDS)
        # 1. Blocks of code and formulas, from the line that opens them to the one that closes them.
        if close:
            close = "" if _closes(body, close) else close
            yield line, False
            continue
        close = _opened(body, text, end)
        if close or not _WORD.search(body):
            yield line, False
            continue
        # 2. Indentation and list marks; behind them a line of code may stand.
        mark = _LEAD.match(body)
        lead = mark.end() if mark else 0
        if _is_code(body[lead:].strip()):
            yield line, False
            continue
        # 3. What is left is prose: its lead, its sentences, its end.
        if lead:
            yield body[:lead], False
        yield from _line(body[lead:])
        if len(line) > len(body):
            yield line[len(body) :], False


def _opened(body: str, text: str, end: int) -> str:
    """What closes the block this line opens, or ""; an unclosed fence lasts to the end, other blocks must close.

    end: where the line ends in the text.
    """
    if "```" in body or "~~~" in body:
        fence = _FENCE.match(body)
        if fence:
            return fence.group(1)
    start = body.strip().lower()
    if not start.startswith(("$", "\\", "<")):
        return ""
    for opening, close in _BLOCKS.items():
        is_tag = opening[0] == "<" and start.startswith(opening) and close not in start
        if (start == opening or is_tag) and close in text[end:].lower():
            return close
    return ""


def _closes(body: str, close: str) -> bool:
    if close[0] not in "`~":
        return close in body.lower()
    mark = _FENCE_END.match(body)
    return mark is not None and mark.group(1).startswith(close)


def _is_code(line: str) -> bool:
    """Whether a whole line is clearly a formula or program text."""
    if not _CODE_SIGN.search(line) and not _OPERATOR.search(line):
        return False
    if line.endswith("{") or (line.endswith(";") and _CALL.search(line)) or _CODE.fullmatch(line):
        return True
    if not _OPERATOR.search(line) or _TWO_WORDS.search(line):
        return False
    # A formula: every word is a variable, a function or an acronym, in Latin or Greek letters.
    return all(
        (len(w) <= 2 or w in _FUNCTIONS or (len(w) == 3 and w.isupper())) and all(c < "\u0400" for c in w)
        for w in _LETTERS.findall(line)
    )


def _line(body: str) -> Iterator[tuple[str, bool]]:
    """The pieces of a line without its lead: tags around it, table cells, sentences."""
    before = _TAGS_BEFORE.match(body) if "<" in body else None
    if before:
        after = _TAGS_AFTER.search(body, before.end())
        end = after.start() if after else len(body)
        yield body[: before.end()], False
        yield from _cells(body[before.end() : end])
        if after:
            yield body[end:], False
    else:
        yield from _cells(body)


def _cells(body: str) -> Iterator[tuple[str, bool]]:
    """Cut a table row at its bars: it opens with one, or they have blanks around and no bracket is open: P(A | B)."""
    row = body.lstrip().startswith("|")
    start = seen = depth = 0
    for match in _BAR.finditer(body) if "|" in body else ():
        if not match.group("bar"):
            continue
        bar = match.start()
        depth += sum(body.count(c, seen, bar) for c in "([{") - sum(body.count(c, seen, bar) for c in ")]}")
        seen = bar
        if row or (depth <= 0 and body[bar - 1 : bar].isspace() and body[bar + 1 : bar + 2].isspace()):
            yield from _trimmed(body[start:bar])
            yield "|", False
            start = bar + 1
    yield from _trimmed(body[start:])


def _trimmed(text: str) -> Iterator[tuple[str, bool]]:
    """The sentences of a text, the blanks around each as pieces of their own: translators drop them."""
    for sentence in sentences(text):
        core = sentence.strip()
        left = len(sentence) - len(sentence.lstrip())
        if left:
            yield sentence[:left], False
        if core:
            yield core, _has_words(core)
        if left + len(core) < len(sentence):
            yield sentence[left + len(core) :], False


def _has_words(text: str) -> bool:
    """Whether a word stands outside the protected spans."""
    return bool(_WORD.search(_SPAN.sub(" ", text) if _SIGN.search(text) else text))


def spans(segment: str) -> list[tuple[int, int, bool]]:
    """What must come back as it is, in order: (start, end, whether it is a number).

    Inline code and formulas, URLs, e-mail addresses, tags, placeholders ({name}, %s, ${x}, [NAME]), file paths,
    names_like_this; and numbers, dates and times, of which only the digits count.
    """
    if not _SIGN.search(segment):
        return []
    return [(*match.span(), match.group("number") is not None) for match in _SPAN.finditer(segment)]


def around(segment: str) -> list[tuple[str, bool]]:
    """Cut a segment at its spans into (part, translate?); joined, the parts are the segment."""
    out: list[tuple[str, bool]] = []
    start = 0
    # An empty span at the end, so that what stands behind the last one is a part like the others.
    for begin, end, _ in [*spans(segment), (len(segment), len(segment), False)]:
        part = segment[start:begin]
        core = part.strip()
        left = len(part) - len(part.lstrip())
        if _WORD.search(core):
            out += [(part[:left], False), (core, True), (part[left + len(core) :], False)]
        else:
            out.append((part, False))
        out.append((segment[begin:end], False))
        start = end
    return [(part, is_prose) for part, is_prose in out if part]


def kept(segment: str, translation: str) -> bool:
    """Whether every span came through: its text as often as before; of a number the digits, at least as often.

    1,000 may become 1.000, 2020-01-31 may become 31/01/2020, and digits may be those of another script.
    """
    texts = {segment[a:b] for a, b, is_number in spans(segment) if not is_number}
    if any(segment.count(text) != translation.count(text) for text in texts):
        return False
    numbers = _span_numbers(segment)
    # "3rd" is no span, but its 3 may be what became of a 3.
    return not numbers or numbers <= (Counter(_numbers(translation)) | _span_numbers(translation))


def _span_numbers(text: str) -> Counter[str]:
    """How often each number stands in a span of its own, as ASCII digits."""
    return Counter(n for a, b, is_number in spans(text) if is_number for n in _numbers(text[a:b]))


def _numbers(text: str) -> list[str]:
    """The digits of each number, as ASCII."""
    return ["".join(str(unicodedata.digit(c)) for c in n if c.isdecimal()) for n in _DIGITS.findall(text)]


def words(text: str) -> list[str]:
    """The words of `text`: runs of letters, inner apostrophes kept."""
    return _WORD.findall(text)
