"""Bilingual dictionaries for code-switching: word -> its translations, in both directions."""

import gzip
import re
import string
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import looked_in
from sdrrl_factory.language_id import Identifier
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.rows import read_lines
from sdrrl_factory.words import segmenter

Dictionary = dict[str, list[str]]
Entries = Iterable[tuple[str, str]]

_DICTD = Path("/usr/share/dictd")
# FreeDict's dictionaries in Debian between languages of the table. Not here: those from Japanese, whose glosses run
# into their grammar notes; eng-jpn and fra-jpn serve both directions.
_DEBIAN = {
    "afr": "deu eng",
    "ara": "eng",
    "ces": "eng",
    "cym": "eng",
    "dan": "eng",
    "deu": "bul ell eng fin fra ind ita kur nld pol por rus spa swe tur",
    "ell": "bul eng fin fra ind ita jpn lit nld nor pol por rus spa swe",
    "eng": "afr ara bul ces cym dan deu ell fin fra gle hin hrv hun ind ita jpn lit nld nor pol por rus spa srp swe "
    "swh tur",
    "epo": "eng",
    "fin": "bul deu ell eng fra ind ita jpn lit nld nor pol por swe",
    "fra": "bul deu ell eng fin ita jpn lit nld pol por rus spa swe tur",
    "gla": "deu",
    "gle": "eng pol",
    "hrv": "eng",
    "hun": "eng",
    "isl": "eng",
    "ita": "bul deu ell eng fin ind jpn lit nor pol por rus spa swe tur",
    "kur": "deu eng tur",
    "lit": "eng",
    "mkd": "bul",
    "nld": "bul deu ell eng fin fra ind ita lit pol por rus spa swe",
    "pol": "bul deu ell eng fin fra gle ind ita jpn nld nor por rus spa swe tur",
    "por": "deu eng fra spa",
    "san": "deu",
    "slk": "eng",
    "slv": "eng",
    "spa": "deu eng por",
    "srp": "eng",
    "swe": "bul deu ell eng fin fra ita jpn nld nor pol por rus spa tur",
    "swh": "eng pol",
    "tur": "deu eng",
    "wol": "fra",
}
_BASE64 = {char: i for i, char in enumerate(string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/")}
_NOTE = re.compile(r"\s*(\([^)]*\)|（[^）]*）|\[[^\]]*\]|<[^>]*>|「[^」]*」|\{[^}]*\})\s*")
_SENSE = re.compile(r"\s*(?:\d+|[IVX]+)\.(?:\s+|$)")
_NO_SENSE = re.compile(r"\s+\d+\.\s*$")  # "water 2.": the next sense has a definition, but no gloss
_NO_SOUND = re.compile("[ːˈˌ'.ˑ -]")  # length, stress and blanks in how a word is said
# Translations of these are the small words that hold phrases together; a dictionary has lost its blanks where fewer of
# its translations have one (eng-spa 0.5%; eng-por 2.6%, eng-ces 5.7%, fra-eng 2.1%).
# fmt: off
_SMALL_WORDS = {
    "a", "about", "all", "already", "an", "and", "as", "at", "by", "for", "from", "he", "her", "his", "i", "if", "in",
    "my", "no", "not", "of", "on", "or", "out", "she", "so", "than", "that", "the", "their", "there", "they", "this",
    "to", "up", "us", "very", "we", "what", "when", "who", "you", "your",
}
# fmt: on
_FEW_PHRASES = 0.015
_GLOSS = re.compile(r"[^\W\d_][\w\u0300-\u036f'’ -]*")
# How the languages of a file are told: at most so many samples, of so many words each.
_SAMPLES, _SAMPLE_WORDS = 40, 25
_LATIN = re.compile("[A-Za-zＡ-Ｚａ-ｚ]")

# The induced dictionary: rounds of EM, the longest sentence in words, and how sure both directions must be of a pair.
# On 2,000 Europarl pairs en-cs: 414 words, 42% of the tokens (MUSE: 64%); of the pairs whose words MUSE has, 81% are in
# it; chosen on the same pairs.
_ROUNDS, _LONGEST, _SURE = 10, 40, 0.3


class Loaded(NamedTuple):
    """The dictionaries source -> target and target -> source, keyed by lower-cased word, and what was left out."""

    forward: Dictionary
    backward: Dictionary
    left_out: Counter[str]


def named(dictionary: str | dict[str, str], target: str) -> str:
    """What serves the target language: the recipe's one dictionary, or the language's own in its map."""
    if isinstance(dictionary, str):
        return dictionary
    if target not in dictionary:
        fix = f"add `{target}: freedict`, induced, a path, or none to leave its questions as they are"
        raise UserError(f"no dictionary for {target} (named are: {', '.join(dictionary) or 'none'})", fix)
    return dictionary[target]


def load(
    dictionary: str, source: str, target: str, pairs: Sequence[tuple[str, str]], tool: Identifier | None = None
) -> Loaded:
    """The dictionaries of a language pair.

    dictionary: "freedict" (Debian's dictd files), "induced" (from `pairs`, sentences of source and target), "none", or
    the path of a MUSE or TSV file. A word that translates to itself is left out.
    tool: tells a file whose words are of other languages, or turned round; None: nobody looks.

    Raises UserError without a key when there is none, at a file for one without a usable line or of other languages.
    """
    left_out: Counter[str] = Counter()
    entries: Entries
    if dictionary == "none":
        entries = []
    elif dictionary == "freedict":
        entries = freedict(source, target)
    elif dictionary == "induced":
        entries = induced(pairs, source, target)
    else:
        entries = _checked(*_from_path(dictionary, source, target, left_out), source, target, tool)
    forward, backward = _by_word(entries), _by_word((right, left) for left, right in entries)
    if not forward and not backward and dictionary not in ("none", "freedict", "induced"):
        raise UserError("no entry is a word and another one for it", "name a bilingual dictionary", at=dictionary)
    return Loaded(forward, backward, left_out)


def _checked(
    path: Path, entries: list[tuple[str, str]], source: str, target: str, tool: Identifier | None
) -> list[tuple[str, str]]:
    """The entries, turned round if their languages are; a file of other languages is refused."""
    if tool is None:
        return entries
    words, translations = ([entry[side] for entry in entries] for side in (0, 1))
    if _foreign(words, source, tool) and not _foreign(words, target, tool) and not _foreign(translations, source, tool):
        return [(right, left) for left, right in entries]
    for side, code in ((words, source), (translations, target)):
        if other := _foreign(side, code, tool):
            name = LANGUAGES[other].name if other in LANGUAGES else other
            what = f"most words ({', '.join(side[:3])} ...) are not {LANGUAGES[code].name} but {name}"
            raise UserError(what, f"name a dictionary of {source} and {target}", at=str(path))
    return entries


def _foreign(words: Sequence[str], code: str, tool: Identifier) -> str:
    """The language most of the words are in, where it is surely another; "".

    A word alone tells little, samples of words side by side do. Of MUSE's and five of FreeDict's dictionaries none is
    in another language by its own; by any other, a third at least are, and mostly nine of ten.
    """
    step = max(len(words) // (_SAMPLES * _SAMPLE_WORDS), 1)
    taken = words[::step]
    samples = [" ".join(taken[i : i + _SAMPLE_WORDS]) for i in range(0, len(taken), _SAMPLE_WORDS)][:_SAMPLES]
    foreign = Counter(tool.identify(sample)[0] for sample in samples if tool.off_target(sample, code))
    return foreign.most_common(1)[0][0] if foreign.total() > 0.3 * len(samples) else ""


def _by_word(entries: Entries) -> Dictionary:
    out: dict[str, dict[str, None]] = {}
    for word, translation in entries:
        if " " not in word and word.lower() != translation.lower():
            out.setdefault(word.lower(), {})[translation] = None
    return {word: list(translations) for word, translations in out.items()}


# FreeDict


def freedict(source: str, target: str, folder: Path = _DICTD) -> list[tuple[str, str]]:
    """Word pairs of FreeDict's source-target and target-source dictionaries, whichever are installed."""
    one, two = LANGUAGES[source].freedict, LANGUAGES[target].freedict
    names: list[str] = []
    pairs: list[tuple[str, str]] = []
    for left, right in ((one, two), (two, one)):
        if left is None or right not in _DEBIAN.get(left, "").split():
            continue
        names.append(f"freedict-{left}-{right}")
        index, body = folder / f"{names[-1]}.index", folder / f"{names[-1]}.dict.dz"
        if not index.is_file() or not body.is_file():
            continue
        if left == one:
            pairs += _read_dictd(index, body, source, target)
        else:
            pairs += [(word, head) for head, word in _read_dictd(index, body, target, source)]
    if names and not pairs:
        packages = " ".join(f"dict-{name}" for name in names)
        hint = f"run `apt-get install {packages}` (or one of them), or set code_switch.dictionary: induced, or none"
        raise UserError(f"{folder} has no {' or '.join(names)}", hint)
    if not pairs:
        hint = "set code_switch.dictionary: induced, the path of a MUSE or TSV file, or none"
        raise UserError(f"Debian has no FreeDict for {source}-{target}", hint)
    return pairs


def _read_dictd(index: Path, body: Path, source: str, target: str) -> list[tuple[str, str]]:
    """(word, translation) of a dictd dictionary; its index has a line of word, offset and size for each entry."""
    try:
        with gzip.open(body) as f:  # .dz is gzip with a seek table
            data = f.read()
    except (OSError, EOFError, zlib.error) as err:
        raise UserError(f"not a dictzip file ({err})", "reinstall the dictionary package", at=str(body)) from None
    entries: dict[str, list[tuple[bool, int, str, list[str]]]] = {}
    for number, line in enumerate(index.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split("\t")
        try:
            begin, size = map(_number, fields[1:3])
        except (KeyError, ValueError):
            at = f"{index}:{number}"
            raise UserError("not a dictd index line", "reinstall the dictionary package", at=at) from None
        if fields[0].startswith("00database"):
            continue
        title, *rows = data[begin : begin + size].decode("utf-8", "replace").splitlines() or [""]
        head = _clean(_headword(title), source)
        glosses = _glosses(rows, target)
        if head and " " not in head and glosses:
            spoken = re.search(r"/(.*)/", title)
            # "be" said /brɔŋ/ is "be wrong": a word is not said in many more sounds than it has letters.
            sounds = _NO_SOUND.sub("", spoken.group(1)) if spoken else ""
            if "<" in title or len(sounds) <= len(head) + max(len(head) // 5, 1):
                length = len(spoken.group(1)) if spoken else 0
                entries.setdefault(head.lower(), []).append(("<" in title, length, head, glosses))
    return _without_joined([pair for same in entries.values() for pair in _merged(same)], source)


def _merged(entries: list[tuple[bool, int, str, list[str]]]) -> list[tuple[str, str]]:
    """The pairs of one headword. FreeDict files without grammar cut "house of worship" down to "house", but keep how
    the whole phrase is said: of those, the plain word is the one said shortest."""
    shortest = min(length for _, length, _, _ in entries)
    pairs = [
        (head, gloss) for tagged, length, head, glosses in entries for gloss in glosses if tagged or length == shortest
    ]
    # A phrase beside single words is more often an explanation ("the": "určitý člen", "ten", "ta").
    return [pair for pair in pairs if " " not in pair[1]] or pairs


def _without_joined(pairs: list[tuple[str, str]], source: str) -> list[tuple[str, str]]:
    """The pairs without translations that are phrases whose blanks got lost (eng-spa has "porlotocantea").

    Only where a dictionary has next to no blank in its translations, as none has that was written so. A translation is
    a joined phrase if it can be cut into other translations and small words; but not one that looks like the word it
    translates ("confirm": "confirmar").
    """
    phrases = [gloss.lower().split() for _, gloss in pairs if " " in gloss]
    if source != "eng" or not pairs or len(phrases) > _FEW_PHRASES * len(pairs):
        return pairs
    words = {gloss.lower() for _, gloss in pairs if " " not in gloss}
    in_phrases = Counter(word for phrase in phrases for word in phrase)
    small = {gloss.lower() for word, gloss in pairs if word.lower() in _SMALL_WORDS and len(gloss) <= 4}
    small |= {word for word, n in in_phrases.items() if len(word) <= (4 if n > 1 else 2)}
    links = {gloss.lower() for word, gloss in pairs if word.lower() in ("the", "of") and len(gloss) <= 4}
    known = {word for word in words | set(in_phrases) if len(word) >= 3} | small

    def cuts(text: str) -> Iterator[list[str]]:
        if text in known:
            yield [text]
        for end in range(1, len(text)):
            if text[:end] in known:
                yield from ([text[:end], *rest] for rest in cuts(text[end:]))
                # Behind an article or "of" anything may follow: "hacer-las-compras".
                link = next((a for a in links if text.startswith(a, end) and len(text) - end - len(a) > 3), "")
                if link and end > 2 and len(text) > 11:
                    yield [text[:end], link, text[end + len(link) :]]

    def is_phrase(parts: list[str]) -> bool:
        # Words begin ("de-tener", "a-delante") and end ("cantor-a") like small ones: those are not taken for any.
        edges = len(parts[0]) == 1 or len(parts[-1]) == 1 or (len(parts) == 2 and len(parts[0]) == 2)
        are_joined = any(p in small for p in parts) or min(map(len, parts)) > 4
        return len(parts) > 1 and not edges and are_joined and max(map(len, parts)) > 3

    joined = {gloss for _, gloss in pairs if any(map(is_phrase, cuts(gloss.lower())))} - set(in_phrases)
    return [(word, gloss) for word, gloss in pairs if gloss not in joined or word[:4].lower() == gloss[:4].lower()]


def _headword(title: str) -> str:
    """The index is folded ("xrow"); the entry's first line has the word as it is written ("x-row <n>")."""
    return re.split(r"\s+[/<\[(]", title, maxsplit=1)[0].strip()


def _glosses(rows: list[str], language: str) -> list[str]:
    """The translations of an entry: on its first line and on each numbered one; definitions stand between them."""
    out: dict[str, None] = {}
    for i, row in enumerate(rows):
        sense = _SENSE.match(row)
        if i and not sense:
            continue
        plain = _NO_SENSE.sub("", _NOTE.sub(" ", row[sense.end() :] if sense else row))
        for gloss in re.split("[,;、，；]", plain):
            gloss = _clean(gloss.strip(" !?"), language)
            if gloss and len(gloss.split()) <= 3:
                out[gloss] = None
    return list(out)


def _clean(word: str, language: str) -> str:
    """`word` without what FreeDict adds to it; "" when it is no word of the language."""
    script = LANGUAGES[language].script
    if language == "eng":
        word = word.removeprefix("to ")
    if language == "hun":  # encoded as Latin-1 once
        word = word.translate(str.maketrans("ôõûÔÕÛ", "őőűŐŐŰ"))
    if script == "Cyrl":  # stress marks
        word = word.replace("\u0301", "").replace("\u0300", "")
    if not _GLOSS.fullmatch(word) or word.endswith("-") or (script != "Latn" and _LATIN.search(word)):
        return ""
    return word


def _number(text: str) -> int:
    value = 0
    for char in text:
        value = value * 64 + _BASE64[char]
    return value


# MUSE and TSV files


def _from_path(pattern: str, source: str, target: str, left_out: Counter[str]) -> tuple[Path, list[tuple[str, str]]]:
    """{source} and {target} are the two-letter codes, or the three-letter ones, or turned round."""
    one, two = LANGUAGES[source], LANGUAGES[target]
    for left, right, is_forward in ((one, two, True), (two, one, False)):
        for a, b in ((left.iso1, right.iso1), (left.muse, right.muse), (left.code, right.code)):
            if not (a and b):
                continue
            path = Path(pattern.replace("{source}", a).replace("{target}", b))
            if path.is_file():
                entries = _read_columns(path, left_out)
                return path, entries if is_forward else [(y, x) for x, y in entries]
    path = Path(pattern.replace("{source}", str(one.iso1)).replace("{target}", str(two.iso1)))
    if path.is_dir():
        raise UserError(f"{path}: is a folder", "name a file in it, or set freedict or induced")
    raise UserError(f"{path}: no such file{looked_in(path)}", "check the path, or set freedict or induced")


def _read_columns(path: Path, left_out: Counter[str]) -> list[tuple[str, str]]:
    """MUSE: `word translation`, by a blank or tab; TSV: the first two columns, translations divided by , or ;

    Notes in brackets ("casa {f}") are taken off; further columns are about the word (its class, its field). A line that
    is no entry is left out and counted; only a file without any stops, at the first of them.
    """
    entries: list[tuple[str, str]] = []
    first_mistake: UserError | None = None
    for number, line in read_lines(path):
        if not line.strip() or line.startswith("#"):
            continue
        mistake = _odd_line(line)
        if mistake:
            mistake.at = f"{path}:{number}"
            first_mistake = first_mistake or mistake
            left_out["odd lines"] += 1
            continue
        word, translations = (line.split("\t") if "\t" in line else line.split())[:2]
        for translation in re.split("[,;]", _NOTE.sub(" ", translations)):
            # Two blanks are left where a note was.
            pair = " ".join(_NOTE.sub(" ", word).split()), " ".join(translation.split())
            if all(pair):
                entries.append(pair)
    if not entries:
        raise first_mistake or UserError("no entries", "write `word translation` lines", at=str(path))
    return entries


def _odd_line(line: str) -> UserError | None:
    """Why the line is no entry of a dictionary; None: it is one."""
    if "\0" in line:
        return UserError("a NUL byte", "this is no text file, name another")
    columns = line.split("\t") if "\t" in line else line.split()
    # Three words by blanks: which of them is the phrase is anyone's guess.
    if "\t" not in line and len(columns) > 2:
        return UserError(f"{len(columns)} words", "divide the columns by a tab")
    if len(columns) < 2 or not columns[0].strip() or not columns[1].strip(" ,;"):
        return UserError("one column", "write `word translation`, divided by a blank or tab")
    return None


# Induced


def induced(pairs: Sequence[tuple[str, str]], source: str, target: str) -> list[tuple[str, str]]:
    """Word pairs of parallel sentences: IBM model 1 (Brown et al. 1993) in both directions, their alignments' common
    links that occur twice and that both directions believe in."""
    try:
        from nltk.translate import AlignedSent, IBMModel1
    except ImportError:
        raise UserError("induced needs nltk", "run `pip install 'sdrrl-factory[align]'`") from None
    empty = UserError(f"no word pairs in {len(pairs)} parallel sentences", "raise parallel.size or name a dictionary")
    sentences = _sentences(pairs, source, target)
    if not sentences:
        raise empty
    # nltk's model learns p(word of the first | word of the second) of each AlignedSent, and aligns it by that.
    forward = [AlignedSent(right, left) for left, right in sentences]
    backward = [AlignedSent(left, right) for left, right in sentences]
    given_left = IBMModel1(forward, _ROUNDS).translation_table
    given_right = IBMModel1(backward, _ROUNDS).translation_table
    # A link that both directions draw: each alone links every word to something.
    links: Counter[tuple[str, str]] = Counter()
    for (left, right), there, back in zip(sentences, forward, backward, strict=True):
        both = {(i, j) for j, i in there.alignment} & set(back.alignment)
        links.update((left[i], right[j]) for i, j in sorted(both, key=str) if i is not None and j is not None)
    entries = [
        (left, right)
        for (left, right), count in sorted(links.items(), key=lambda item: (-item[1], item[0]))
        if count > 1 and min(given_left[right][left], given_right[left][right]) >= _SURE
    ]
    if not entries:
        raise empty
    return entries


def _sentences(pairs: Sequence[tuple[str, str]], source: str, target: str) -> list[tuple[list[str], list[str]]]:
    """The pairs as words, lower-cased; a word that occurs once tells nothing, a long sentence takes long."""
    sides = []
    for side, code in enumerate((source, target)):
        spans = segmenter(code)
        texts = [pair[side].lower() for pair in pairs]
        sides.append([[text[a:b] for a, b in spans(text)] for text in texts])
    common = [{word for word, n in Counter(w for words in side for w in words).items() if n > 1} for side in sides]
    sentences = []
    for left, right in zip(*sides, strict=True):
        if max(len(left), len(right)) <= _LONGEST:
            kept = [w for w in left if w in common[0]], [w for w in right if w in common[1]]
            if all(kept):
                sentences.append(kept)
    return sentences
