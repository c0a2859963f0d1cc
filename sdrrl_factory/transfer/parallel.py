"""P: natural parallel text between source and target language, made into D_mt and D_comp (section 3.2.4, Table 1)."""

import heapq
import re
from collections.abc import Iterable
from typing import Any

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.files import sha256
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.rows import read_lines
from sdrrl_factory.transfer.corpora import find_file, read_catalogues, read_corpus
from sdrrl_factory.transfer.draw import rng
from sdrrl_factory.transfer.recipe import Parallel

_MAX_CHARS = 1000
# Interface strings with holes, markup or accelerators in them are not sentences.
_NOT_TEXT = re.compile(r"[%{}<>\\|_\n]|&\w")
_BROKEN = re.compile("[\x00-\x08\x0e-\x1f\ufffd\ud800-\udfff]")
_HOLE = re.compile(r"\{[^{}]*\}")
_HOLES = {
    "source": ("{source}", "{target}"),
    "monolingual": ("{target}",),
    "translation_prompt": ("{source}", "{target}"),
    "completion_prompt": ("{target}",),
}


def check(config: Parallel) -> None:
    """Say at once that a path or a template has a placeholder nothing fills."""
    for key, holes in _HOLES.items():
        unknown = [hole for hole in _HOLE.findall(getattr(config, key) or "") if hole not in holes]
        if unknown:
            raise UserError(f"unknown placeholder {unknown[0]}", f"{' and '.join(holes)} can stand here", key=key)


# --- P


def load(config: Parallel, source: str, target: str, seed: int) -> list[tuple[str, str, str]]:
    """P: at most `config.size` (id, source sentence, target sentence), drawn by seed whatever the order of the file.

    A corpus is streamed: memory grows with `size` alone. Left out: empty sides, copies, duplicates of a source
    sentence, more than 1,000 characters, control characters.
    """
    if not config.size:
        return []
    with under("source"):
        if config.source == "gettext":
            pairs = _draw_messages(source, target, config.size, seed)
        else:
            rows = _draw(read_corpus(config.source, source, target), config.size, seed)
            pairs = [(f"pair-{key}", a, b) for key, (a, b) in rows]
        if not pairs:
            what = f"no usable pair of {source} and {target} in {config.source}"
            raise UserError(what, "name another corpus or set parallel.size: 0")
    return pairs


def monolingual(config: Parallel, target: str, seed: int) -> list[tuple[str, str]]:
    """At most `config.monolingual_size` (id, sentence) of `config.monolingual`, drawn as `load` draws."""
    if not config.monolingual or not config.monolingual_size:
        return []
    with under("monolingual"):
        path = find_file(config.monolingual, LANGUAGES[target], LANGUAGES[target])
        rows = _draw(((line,) for _, line in read_lines(path)), config.monolingual_size, seed)
        if not rows:
            raise UserError(f"no usable sentence in {path}", "name another file or set parallel.monolingual: null")
    return [(f"mono-{key}", sentence) for key, (sentence,) in rows]


def _draw_messages(source: str, target: str, size: int, seed: int) -> list[tuple[str, str, str]]:
    """Pairs out of Django's message catalogues: of their messages only what reads as a sentence."""
    spaced = LANGUAGES[source].spaced
    pairs = {}
    for message, (a, b) in read_catalogues(source, target).items():
        # Three words or more; in a language without blanks the English message's are counted.
        long = all(len(text.split()) >= 3 for text in ([message, a] if spaced else [message]))
        if long and a != b and not any(_NOT_TEXT.search(text) for text in (message, a, b)):
            pairs[message] = (a, b)
    order = sorted(pairs, key=lambda message: (rng(seed, message, "parallel").random(), message))
    return [(f"gettext-{i:04d}", *pairs[message]) for i, message in enumerate(order[:size])]


def _draw(rows: Iterable[tuple[str, ...]], size: int, seed: int) -> list[tuple[str, tuple[str, ...]]]:
    """The `size` usable rows of lowest hash, by distinct first sentence, as (id from the content, row).

    A row's hash depends on its content and the seed: the same rows are drawn from a shuffled file, and a larger size
    keeps those of a smaller one.
    """
    best: dict[str, tuple[str, ...]] = {}  # first sentence -> its row, of those in the heap
    heap: list[tuple[int, str]] = []  # (-hash, first sentence): the highest hash is on top, to be replaced first
    for row in rows:
        first = _clean(row[0])
        # The hash that seeds draw.rng, bare: a generator for each of 50 million rows would cost minutes.
        rank = -int(sha256(f"{seed}\x00{first}\x00parallel")[:16], 16)
        if len(heap) == size and rank < heap[0][0]:
            continue
        row = (first, *map(_clean, row[1:]))
        if not _is_usable(row):
            continue
        if first in best:
            # Of two translations of one sentence the one of lower hash, whichever comes first in the file.
            row = min(best[first], row, key=lambda r: sha256(f"{seed}\x00{r[-1]}\x00parallel"))
        elif len(heap) < size:
            heapq.heappush(heap, (rank, first))
        else:
            _, dropped = heapq.heapreplace(heap, (rank, first))
            del best[dropped]
        best[first] = row
    return [(sha256("\t".join(best[first]))[:12], best[first]) for _, first in sorted(heap, reverse=True)]


def _clean(text: str) -> str:
    return text.replace("\n", " ").strip()


def _is_usable(row: tuple[str, ...]) -> bool:
    sound = all(part and len(part) <= _MAX_CHARS and not _BROKEN.search(part) for part in row)
    return sound and (len(row) == 1 or row[0] != row[1])


# --- D_mt and D_comp


def translation_rows(pairs: list[tuple[str, str, str]], source: str, target: str, prompt: str) -> list[dict[str, Any]]:
    """D_mt, both directions: -st asks for the target sentence, -ts for the source sentence."""
    names = LANGUAGES[source].name, LANGUAGES[target].name
    forward, backward = (prompt.replace("{source}", a).replace("{target}", b) for a, b in (names, reversed(names)))
    rows = []
    for pid, a, b in pairs:
        rows.append({"id": f"{pid}-st", "instruction": forward, "input": a, "output": b})
        rows.append({"id": f"{pid}-ts", "instruction": backward, "input": b, "output": a})
    return rows


def completion_rows(sentences: list[tuple[str, str]], target: str, seed: int, prompt: str) -> list[dict[str, Any]]:
    """D_comp: each (id, sentence) cut at a place drawn uniformly, to be given back whole; some cannot be cut."""
    instruction = prompt.replace("{target}", LANGUAGES[target].name)
    rows = []
    for pid, sentence in sentences:
        cuts = _cuts(sentence, LANGUAGES[target].spaced)
        if cuts:
            cut = rng(seed, pid, "completion").choice(cuts)
            rows.append({"id": f"{pid}-c", "instruction": instruction, "input": sentence[:cut], "output": sentence})
    return rows


def _cuts(sentence: str, spaced: bool) -> list[int]:
    """Where a prefix may end: before a blank between words, or after any character of a script without them.

    Never inside a grapheme cluster, nor between the Khmer sign that subscribes a letter and that letter.
    """
    import regex

    first, last = len(sentence) - len(sentence.lstrip()), len(sentence.rstrip())
    ends = [match.end() for match in regex.finditer(r"\X", sentence)]
    ends = [e for e in ends if first < e < last and not sentence[e - 1].isspace()]
    if spaced:
        return [e for e in ends if sentence[e] == " "]
    return [e for e in ends if sentence[e - 1] != "\u17d2"]
