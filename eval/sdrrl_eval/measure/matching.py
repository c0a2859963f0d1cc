"""Finds many short texts (evaluation items) in a long stream of others (training rows): whole, nearly, or by a run.

All comparison is of letters alone: case, accents, punctuation and white space are taken out first. A batch of rows
becomes one array of letters, so that each step is a few numpy operations over half a million letters, not a Python
loop over rows.
"""

import unicodedata
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import regex

EXACT, NEAR, NGRAM = KINDS = ("exact", "near", "ngram")
FEWEST_WORDS = 4  # of a text that is looked for; three letters of a script without spaces count as a word
FEWEST_LETTERS = 8
MAX_DISTANCE = 0.2  # of a near copy: Levenshtein distance in letters / letters of the text
ONE_WORD = 7  # words of a text from which on one other word makes a near copy, though it be more than a fifth
NGRAM_WORDS = 13  # as usual since Brown et al. (2020); two letters of a script without spaces count as a word

_LETTERS_A_WORD, _LETTERS_A_NGRAM_WORD = 3, 2
_BATCH = 1 << 19  # letters; the arrays of a batch fit the processor's cache
_ROW = "\x1e"  # stands between the rows of a batch
# Combining marks that an accent becomes in NFKD. Japanese voicing marks and the vowel signs of Thai and Khmer are
# outside this block: they tell words apart and stay.
_ACCENTS = regex.compile("[\u0300-\u036f]+")
# Letters with a stroke or a missing dot have no decomposition; typed without a keyboard for them, they look like this.
_PLAIN = {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe"}

# --- letters ---

_SEPARATOR, _SPACED, _HANGUL, _UNSPACED, _IDEOGRAPH, _SKIPPED = range(6)
_CLASSES = {
    _SPACED: r"[\p{L}\p{M}\p{N}]",
    _HANGUL: r"\p{Hangul}",
    _UNSPACED: r"[\p{Thai}\p{Khmer}\p{Lao}\p{Myanmar}]",
    _IDEOGRAPH: r"[\p{Han}\p{Hiragana}\p{Katakana}ー]",
    _SKIPPED: "['’]",  # an apostrophe divides no word: don't, dont
}
# Letters of a window, by the class of its first letter: a syllable or an ideograph says more than a letter.
_WINDOW = np.array([0, 8, 4, 8, 4, 0])


def normalised(text: str) -> str:
    """NFKC without case and accents; punctuation and white space stay, and are passed over when letters are taken."""
    if text.isascii():
        return text.lower()
    text = _ACCENTS.sub("", unicodedata.normalize("NFKD", text).casefold())
    for letter, plain in _PLAIN.items():
        text = text.replace(letter, plain)
    return unicodedata.normalize("NFC", text)


@lru_cache(maxsize=1)
def _class_of_character() -> np.ndarray:
    """uint8[0x110000]: the class of every character; those beyond the first four planes are no letters."""
    table = np.full(0x110000, _SEPARATOR, np.uint8)
    characters = "".join(map(chr, range(0x40000)))
    for number, pattern in _CLASSES.items():
        for run in regex.finditer(f"(?:{pattern})+", characters):
            start, end = run.span()
            # Digits and marks of a script are letters of it only where they are letters at all.
            part = table[start:end]
            part[part > _SEPARATOR if number in (_HANGUL, _UNSPACED, _IDEOGRAPH) else slice(None)] = number
    return table


@dataclass(frozen=True)
class _Letters:
    """The letters of some rows, one behind the other.

    codes: uint32[n], code points. classes: uint8[n]. row: int32[n], which row a letter is of. starts: int64[w], where
    a word starts, in a script without spaces each letter.
    """

    codes: np.ndarray
    classes: np.ndarray
    row: np.ndarray
    starts: np.ndarray

    def text(self, start: int, end: int) -> str:
        return self.codes[start:end].tobytes().decode("utf-32-le", "surrogatepass")


def _letters(rows: Sequence[str]) -> _Letters:
    joined = normalised(_ROW.join(row.replace(_ROW, " ") for row in rows))
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    classes = _class_of_character()[codes]
    kept = classes != _SKIPPED
    codes, classes = codes[kept], classes[kept]
    row = np.cumsum(codes == ord(_ROW), dtype=np.int32)
    # A word starts behind what is no letter; without spaces, before and behind every letter.
    alone = classes >= _UNSPACED
    before = np.concatenate([[True], (classes[:-1] == _SEPARATOR) | alone[:-1]])
    letter = classes != _SEPARATOR
    starts = np.flatnonzero((before | alone)[letter])
    return _Letters(codes[letter], classes[letter], row[letter], starts)


# --- hashes ---

_BASE = 0x9E3779B97F4A7C15  # odd, hence with an inverse modulo 2^64
_BITS = 24


@lru_cache(maxsize=4)
def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """uint64[size] each: the powers of the base, and of its inverse, modulo 2^64."""
    both = []
    for base in (_BASE, pow(_BASE, -1, 1 << 64)):
        power = np.full(size, base, np.uint64)
        power[0] = 1
        both.append(np.cumprod(power, dtype=np.uint64))
    return both[0], both[1]


class _Hashes:
    """Hashes of any stretch of letters in constant time: differences of prefix sums (Karp and Rabin 1987)."""

    def __init__(self, codes: np.ndarray):
        power, self._inverse = _powers(1 << max(20, int(len(codes)).bit_length()))
        mixed = (codes.astype(np.uint64) + np.uint64(1)) * np.uint64(0xD6E8FEB86659FD93)
        mixed ^= mixed >> np.uint64(32)  # else the hash's low bits hang on the letters' low bits alone
        self._sums = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum(mixed * power[: len(codes)], out=self._sums[1:])

    def of(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """uint64, one a stretch; an end beyond the last letter is the last letter's."""
        ends = np.minimum(ends, len(self._sums) - 1)
        return (self._sums[ends] - self._sums[starts]) * self._inverse[starts]


class _Table:
    """Which texts, and where in them, have a hash: `lookup` is vectorised over many hashes."""

    def __init__(self, hashes: np.ndarray, texts: np.ndarray, offsets: np.ndarray):
        order = np.argsort(hashes, kind="stable")
        self._texts, self._offsets = texts[order], offsets[order]
        self._hashes, self._first, self._counts = np.unique(hashes[order], return_index=True, return_counts=True)
        # Most hashes of a training text are in no item: one look into a bitmap tells.
        self._bitmap = np.zeros(1 << _BITS, bool)
        self._bitmap[self._hashes >> np.uint64(64 - _BITS)] = True

    def lookup(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(index into `hashes`, text, offset in it) of every hit."""
        maybe = np.flatnonzero(self._bitmap[hashes >> np.uint64(64 - _BITS)])
        if not len(maybe) or not len(self._hashes):
            return (np.zeros(0, np.int64),) * 3
        at = np.minimum(np.searchsorted(self._hashes, hashes[maybe]), len(self._hashes) - 1)
        hit = self._hashes[at] == hashes[maybe]
        maybe, at = maybe[hit], at[hit]
        counts = self._counts[at]
        # Behind one another the members of each hit's group: first, first + 1, ...
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        member = np.repeat(self._first[at], counts) + within
        return np.repeat(maybe, counts), self._texts[member], self._offsets[member]


# --- the index ---

_COMMON = 32  # a window that more texts have than this tells none of them
_SHARE = 0.35  # of a text's windows that a near copy still has; a changed word spoils two or three
_TRIES = 100  # comparisons in vain after which a text's windows prove common in training; exact copies are found still
_SHIFT = 20  # letters of a word, by which another one may move what stands behind it, in a short text too


@dataclass(frozen=True)
class Match:
    """`text` (its number) stands in row `row` of the batch; `found` is what stands there, as written.

    similarity: 1 - Levenshtein distance / letters of the text; None of an n-gram.
    """

    text: int
    kind: str
    row: int
    similarity: float | None
    found: str


class Index:
    """Texts to be looked for.

    exact: the whole text stands in a row, between word boundaries, the same but for case, accents, punctuation and
    white space. near: a stretch of a row is at most MAX_DISTANCE away, or one word of ONE_WORD or more is another;
    candidates share windows of eight letters (four ideographs or Korean syllables) that few texts have. ngram:
    NGRAM_WORDS words in a row are the same.

    Args:
        texts: in any language and script.
        fewest_words: of each text, for it to be looked for as a whole; None is FEWEST_WORDS.

    Attributes:
        short: bool[texts], too short to be looked for as a whole.
    """

    def __init__(self, texts: Sequence[str], fewest_words: Sequence[int] | None = None):
        letters = _letters(texts)
        hashes = _Hashes(letters.codes)
        numbers = np.arange(len(texts))
        self._begin = np.searchsorted(letters.row, numbers)
        end = np.searchsorted(letters.row, numbers, "right")
        self._length = end - self._begin
        self._words = np.bincount(letters.row[letters.starts], minlength=len(texts))
        self._hash = hashes.of(self._begin, end)
        self._letters = letters

        alone = np.bincount(letters.row[letters.classes >= _UNSPACED], minlength=len(texts))
        self._unspaced = alone > 0
        words = self._words - alone + alone / _LETTERS_A_WORD
        fewest = np.full(len(texts), FEWEST_WORDS) if fewest_words is None else np.asarray(fewest_words)
        self.short = (words < fewest) | (self._length < FEWEST_LETTERS)

        self._tries = np.zeros(len(texts), np.int64)
        self._index_windows(hashes)
        starts, ends = _ngrams(letters)
        of = letters.row[starts]
        self._runs = _Table(hashes.of(starts, ends), of, starts - self._begin[of])

    def _index_windows(self, hashes: _Hashes) -> None:
        letters, begin = self._letters, self._begin
        starts = letters.starts
        of = letters.row[starts]
        ends = starts + _WINDOW[letters.classes[starts]]
        whole = (ends <= begin[of] + self._length[of]) & ~self.short[of]
        starts, of, ends = starts[whole], of[whole], ends[whole]
        values = hashes.of(starts, ends)
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        frequency = counts[inverse]

        # The rarest window of a text is where an exact copy of it is looked for.
        order = np.lexsort((starts, frequency, of))
        rarest = order[np.unique(of[order], return_index=True)[1]]
        self._anchors = _Table(values[rarest], of[rarest], (starts - begin[of])[rarest])

        rare = frequency <= _COMMON
        self._windows = _Table(values[rare], of[rare], (starts - begin[of])[rare])
        self._needed = np.maximum(np.ceil(np.bincount(of[rare], minlength=len(begin)) * _SHARE), 1).astype(np.int64)

    def matches(self, rows: Sequence[str], known: Set[int] = frozenset()) -> Iterator[Match]:
        """What of the texts stands in `rows`, each text once at its best.

        known: texts that need no second look for less than exact copies.
        """
        letters = _letters(rows)
        if not len(letters.codes):
            return
        hashes = _Hashes(letters.codes)
        windows = hashes.of(letters.starts, letters.starts + _WINDOW[letters.classes[letters.starts]])
        # text -> (kind, start, end, similarity) of its best stretch among the letters
        spans: dict[int, tuple[str, int, int, float | None]] = {}
        # 1. Whole copies, by the rarest window of each text.
        for text, start in self._exact(letters, hashes, windows):
            spans.setdefault(text, (EXACT, start, start + int(self._length[text]), 1.0))
        # 2. Near copies, of texts that have no whole one.
        known = known | spans.keys()
        for text, start, end, distance in self._near(letters, windows, known):
            kind = NEAR if distance or not _at_words(letters, start, end) else EXACT
            similarity = 1 - distance / int(self._length[text])
            if text not in spans or _quality(spans[text]) < (similarity, kind == EXACT):
                spans[text] = (kind, start, end, similarity)
        # 3. Runs of words, of texts that have neither.
        starts, ends = _ngrams(letters)
        at, texts, _ = self._runs.lookup(hashes.of(starts, ends))
        for text, i in zip(texts.tolist(), at.tolist(), strict=True):
            if text not in known and text not in spans:
                spans[text] = (NGRAM, int(starts[i]), int(ends[i]), None)
        # 4. What stands there, as it is written.
        for text, (kind, start, end, likeness) in spans.items():
            row = int(letters.row[start])
            first = int(np.searchsorted(letters.row, row))
            yield Match(text, kind, row, likeness, _written(rows[row], start - first, end - first))

    def _exact(self, letters: _Letters, hashes: _Hashes, windows: np.ndarray) -> Iterator[tuple[int, int]]:
        """(text, start) of whole copies between word boundaries."""
        at, texts, offsets = self._anchors.lookup(windows)
        starts = letters.starts[at] - offsets
        ends = starts + self._length[texts]
        inside = (starts >= 0) & (ends <= len(letters.codes))
        texts, starts, ends = texts[inside], starts[inside], ends[inside]
        same = hashes.of(starts, ends) == self._hash[texts]
        same &= letters.row[starts] == letters.row[ends - 1]
        same &= np.isin(starts, letters.starts) & (np.isin(ends, letters.starts) | (ends == len(letters.codes)))
        for text, start in zip(texts[same].tolist(), starts[same].tolist(), strict=True):
            if letters.text(start, start + int(self._length[text])) == self._text(text):  # no chance of a hash
                yield text, start

    def _near(self, letters: _Letters, windows: np.ndarray, known: Set[int]) -> Iterator[tuple[int, int, int, int]]:
        """(text, start, end, distance) of near copies."""
        # 1. Which rare windows of which texts stand in the rows.
        at, texts, offsets = self._windows.lookup(windows)
        new = (self._tries[texts] < _TRIES) & ~np.isin(texts, np.fromiter(known, np.int64, len(known)))
        at, texts, offsets = at[new], texts[new], offsets[new]
        # 2. Where the text would start if the hit were part of a copy: hits of one copy agree but for what was changed.
        middle = letters.starts[at]
        order = np.lexsort((middle - offsets, texts))
        middle, texts = middle[order], texts[order]
        starts = middle - offsets[order]
        # 3. Where so many of a text's windows as it needs agree, within the slack of what a change may move.
        slack = np.maximum(np.ceil(self._length[texts] * MAX_DISTANCE).astype(np.int64), _SHIFT)
        last = np.arange(len(texts)) + self._needed[texts] - 1
        enough = last < len(texts)
        last = np.minimum(last, len(texts) - 1)
        enough &= (texts[last] == texts) & (starts[last] - starts <= slack)
        chosen = np.flatnonzero(enough)
        # 4. There the distance is computed.
        previous: tuple[int, int] = (-1, 0)
        for i in chosen.tolist():
            text, start = int(texts[i]), int(starts[i])
            if text == previous[0] and start < previous[1]:
                continue  # the same copy, counted from its next window
            if self._tries[text] >= _TRIES:
                continue
            previous = (text, start + int(slack[i]))
            row = letters.row[middle[i]]
            first, last = (int(np.searchsorted(letters.row, row, side)) for side in ("left", "right"))
            left = max(start - int(slack[i]), first)
            right = min(previous[1] + int(self._length[text] + slack[i]), last)
            pattern, stretch = self._text(text), letters.text(left, right)
            distance, begin, end = closest(pattern, stretch)
            if distance <= len(pattern) * MAX_DISTANCE or self._one_word(text, pattern, stretch[begin:end]):
                yield text, left + begin, left + end, distance
            else:
                self._tries[text] += 1

    def _one_word(self, text: int, pattern: str, other: str) -> bool:
        """Whether `other` is the text but for one of its words; of a script without spaces, never."""
        if self._words[text] < ONE_WORD or self._unspaced[text]:
            return False
        shorter = min(len(pattern), len(other))
        head = next((i for i in range(shorter) if pattern[i] != other[i]), shorter)
        tail = next((i for i in range(shorter - head) if pattern[-1 - i] != other[-1 - i]), shorter - head)
        starts = self._letters.starts
        begin = int(self._begin[text])
        # No word starts inside what differs, but at its first letter.
        inside = np.searchsorted(starts, [begin + head + 1, begin + len(pattern) - tail])
        return bool(inside[0] == inside[1]) and len(other) - head - tail <= _SHIFT

    def _text(self, text: int) -> str:
        return self._letters.text(int(self._begin[text]), int(self._begin[text] + self._length[text]))


def _quality(span: tuple[str, int, int, float | None]) -> tuple[float, bool]:
    """Larger is better."""
    kind, _, _, similarity = span
    return similarity or 0.0, kind == EXACT


def batches(rows: Iterator[tuple[str, str]]) -> Iterator[tuple[list[str], list[str]]]:
    """(places, rows) in batches that are worth a numpy operation, whatever the length of a row."""
    places, texts, size = [], [], 0
    for place, text in rows:
        places.append(place)
        texts.append(text)
        size += len(text)
        if size >= _BATCH:
            yield places, texts
            places, texts, size = [], [], 0
    if texts:
        yield places, texts


def _ngrams(letters: _Letters) -> tuple[np.ndarray, np.ndarray]:
    """(starts, ends) in letters of every run of NGRAM_WORDS words that ends in its row."""
    starts = letters.starts
    words = np.where(letters.classes[starts] >= _UNSPACED, NGRAM_WORDS * _LETTERS_A_NGRAM_WORD, NGRAM_WORDS)
    last = np.arange(len(starts)) + words
    whole = last <= len(starts)
    begins = starts[whole]
    ends = np.append(starts, len(letters.codes))[last[whole]]
    same = letters.row[begins] == letters.row[ends - 1]
    return begins[same], ends[same]


def _at_words(letters: _Letters, start: int, end: int) -> bool:
    """Whether the stretch begins and ends at word boundaries."""
    return bool(np.isin(start, letters.starts) and (end == len(letters.codes) or np.isin(end, letters.starts)))


def _written(row: str, start: int, end: int) -> str:
    """The stretch of `row` from its letter number `start` up to number `end`, as it is written."""
    # Normalisation changes the number of characters, but never joins two clusters.
    clusters = regex.findall(r"\X", row)
    before = np.cumsum([0, *map(_letter_count, clusters)])
    first, last = np.searchsorted(before, start, "right") - 1, np.searchsorted(before, end)
    return "".join(clusters[first:last])


@lru_cache(maxsize=1 << 14)
def _letter_count(cluster: str) -> int:
    return len(_letters([cluster]).codes)


def closest(pattern: str, text: str) -> tuple[int, int, int]:
    """(distance, start, end) of the stretch of `text` nearest to `pattern` by Levenshtein distance; of several the last
    and longest, where a changed word at the stretch's end is whole.
    """
    distances = _ends(pattern, text)
    distance = min(distances)
    end = _last(distances, distance)
    return distance, end - _last(_ends(pattern[::-1], text[:end][::-1], anchored=True), distance), end


def _last(values: list[int], value: int) -> int:
    return len(values) - 1 - values[::-1].index(value)


def _ends(pattern: str, text: str, anchored: bool = False) -> list[int]:
    """The distance of `pattern` to its nearest stretch of `text` that ends before character 0, 1, ..., len(text).

    Myers (1999): a column of the dynamic programme is two integers of len(pattern) bits, the places where the distance
    rises and where it falls by one. anchored: stretches start where the text starts.
    """
    size = len(pattern)
    full, high = (1 << size) - 1, 1 << size - 1
    places: dict[str, int] = {}
    for i, character in enumerate(pattern):
        places[character] = places.get(character, 0) | 1 << i
    rises, falls, distance = full, 0, size
    distances = [distance]
    for character in text:
        same = places.get(character, 0)
        vertical = same | falls
        horizontal = (((same & rises) + rises) ^ rises) | same
        up, down = falls | (full & ~(horizontal | rises)), rises & horizontal
        distance += bool(up & high) - bool(down & high)
        up, down = (up << 1 | anchored) & full, (down << 1) & full
        rises, falls = down | (full & ~(vertical | up)), up & vertical
        distances.append(distance)
    return distances
