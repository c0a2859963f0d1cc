"""P: natural parallel text between source and target language, made into D_mt and D_comp (section 3.2.4, Table 1)."""

import heapq
import html
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.files import sha256
from sdrrl_factory.language_id import Identifier
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.rows import read_lines
from sdrrl_factory.text import normal
from sdrrl_factory.transfer.corpora import find_file, read_corpus
from sdrrl_factory.transfer.draw import rng
from sdrrl_factory.transfer.filters import pair_flaw
from sdrrl_factory.transfer.gettext_catalogues import is_gettext, is_sentence, read_catalogues
from sdrrl_factory.transfer.recipe import Filters, Parallel

_MAX_CHARS = 1000
# Of P a shorter text is judged than of a translation: on Europarl's 2,000 lines English-Czech, 49 more that are in
# another language, and 2 that are not; a pair too few costs nothing.
_MIN_LETTERS = 10
_ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]*|#\d+|#[xX][0-9A-Fa-f]+);")
_SPLIT = re.compile(r" @([-–,.:/])@ ")
_BRACKETS = {"LRB": "(", "RRB": ")", "LSB": "[", "RSB": "]", "LCB": "{", "RCB": "}"}
_BRACKET = re.compile(rf"-({'|'.join(_BRACKETS)})-")
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


class Drawn(NamedTuple):
    """What was drawn of a corpus: (id, sentence of each side), and why others were left out, by reason.

    Of a long corpus only the rows that the draw came to look at are judged and counted.
    """

    rows: list[tuple[str, ...]]
    left_out: Counter[str]


class Check(NamedTuple):
    """What the sentences of a corpus must be, side by side.

    codes: the language of each side. rules: of the filter; for a single side none holds. tool: None: languages are not
    looked at.
    """

    codes: tuple[str, ...]
    rules: Filters
    tool: Identifier | None

    def flaw(self, row: tuple[str, ...]) -> str:
        """Why the row is no pair of these languages, or no sentence of this one; ""."""
        if not all(row):
            return "with an empty side"
        if any(len(part) > _MAX_CHARS for part in row):
            return "too long"
        if any(_BROKEN.search(part) for part in row):
            return "with broken characters"
        if len(set(row)) < len(row):
            return "copies"
        for part, code in zip(row, self.codes, strict=True):
            if self.tool and self.tool.off_target(part, code, _MIN_LETTERS):
                return f"not in {LANGUAGES[code].name}"
        return pair_flaw(row[0], row[1], self.rules, *self.codes) if len(row) == 2 else ""


def load(config: Parallel, source: str, target: str, seed: int, rules: Filters, tool: Identifier | None) -> Drawn:
    """P: at most `config.size` (id, source sentence, target sentence), drawn by seed whatever the order of the file.

    A corpus is streamed: memory grows with `size` alone. Left out: what `Check` finds; of a sentence that stands twice,
    one. Entities and the escapes of tokenisers are undone.
    """
    if not config.size:
        return Drawn([], Counter())
    check = Check((source, target), rules, tool)
    with under("source"):
        if is_gettext(config.source):
            drawn = _draw_messages(config.source, source, target, config.size, seed, check)
        else:
            corpus = read_corpus(config.source, source, target, config.columns, tool)
            drawn = _draw(corpus, config.size, seed, check, "pair")
        if not drawn.rows:
            what = f"no usable pair of {source} and {target} in {config.source}{_counts(drawn.left_out)}"
            raise UserError(what, "name another corpus or set parallel.size: 0")
    return drawn


def monolingual(config: Parallel, target: str, seed: int, rules: Filters, tool: Identifier | None) -> Drawn:
    """At most `config.monolingual_size` (id, sentence) of `config.monolingual`, drawn as `load` draws."""
    if not config.monolingual or not config.monolingual_size:
        return Drawn([], Counter())
    with under("monolingual"):
        path = find_file(config.monolingual, LANGUAGES[target], LANGUAGES[target])
        lines = ((line,) for _, line in read_lines(path))
        drawn = _draw(lines, config.monolingual_size, seed, Check((target,), rules, tool), "mono")
        if not drawn.rows:
            what = f"no usable sentence in {path}{_counts(drawn.left_out)}"
            raise UserError(what, "name another file or set parallel.monolingual: null")
    return drawn


def _counts(left_out: Counter[str]) -> str:
    counts = ", ".join(f"{n} {reason}" for reason, n in left_out.most_common())
    return f" ({counts})" if counts else ""


def _draw_messages(name: str, source: str, target: str, size: int, seed: int, check: Check) -> Drawn:
    """Pairs out of message catalogues: of three words or more; of packages named, those that end as sentences first."""
    spaced = LANGUAGES[source].spaced
    pairs = {}
    left_out: Counter[str] = Counter()
    for message, texts in read_catalogues(name, source, target).items():
        a, b = map(_clean, texts)
        # Three words or more; in a language without blanks the English message's are counted.
        long = all(len(text.split()) >= 3 for text in ([message, a] if spaced else [message]))
        if not long or a == b or any(_NOT_TEXT.search(text) for text in (message, *texts)):
            continue
        if reason := check.flaw((a, b)):
            left_out[reason] += 1
        else:
            pairs[message] = (a, b)
    order = sorted(pairs, key=lambda message: (rng(seed, message, "parallel").random(), message))
    if name != "gettext":
        order.sort(key=lambda message: not is_sentence(message))
    return Drawn([(f"gettext-{i:04d}", *pairs[message]) for i, message in enumerate(order[:size])], left_out)


def _draw(rows: Iterable[tuple[str | None, ...]], size: int, seed: int, check: Check, prefix: str) -> Drawn:
    """The `size` usable rows of lowest hash, by distinct first sentence; their ids are of the content.

    A row's hash depends on its content and the seed: the same rows are drawn from a shuffled file, and a larger size
    keeps those of a smaller one.
    """
    best: dict[str, tuple[str, ...]] = {}  # first sentence -> its row, of those in the heap
    heap: list[tuple[int, str]] = []  # (-hash, first sentence): the highest hash is on top, to be replaced first
    left_out: Counter[str] = Counter()
    for texts in rows:
        first = _clean(texts[0] or "")
        # The hash that seeds draw.rng, bare: a generator for each of 50 million rows would cost minutes.
        rank = -int(sha256(f"{seed}\x00{first}\x00parallel")[:16], 16)
        if len(heap) == size and rank < heap[0][0]:
            continue
        row = (first, *(_clean(text or "") for text in texts[1:]))
        if reason := check.flaw(row):
            left_out[reason] += 1
            continue
        if first in best:
            # Of two translations of one sentence the one of lower hash, whichever comes first in the file.
            row = min(best[first], row, key=lambda r: sha256(f"{seed}\x00{r[-1]}\x00parallel"))
            left_out["duplicates"] += 1
        elif len(heap) < size:
            heapq.heappush(heap, (rank, first))
        else:
            _, dropped = heapq.heapreplace(heap, (rank, first))
            del best[dropped]
        best[first] = row
    order = [first for _, first in sorted(heap, reverse=True)]
    return Drawn([(f"{prefix}-{sha256(chr(9).join(best[first]))[:12]}", *best[first]) for first in order], left_out)


def _clean(text: str) -> str:
    """A sentence as people write it: on one line, composed, without entities and the escapes of tokenisers."""
    text = text.replace("\n", " ")
    # Twice: what was escaped twice ("&amp;quot;") is common in OPUS.
    for _ in range(2 if "&" in text else 0):
        text = _ENTITY.sub(lambda entity: html.unescape(entity.group()), text)
    # "co @-@ operation" of Moses' tokenizer, "-LRB-" of the Penn Treebank's.
    if "@" in text or "-" in text:
        text = _BRACKET.sub(lambda name: _BRACKETS[name.group(1)], _SPLIT.sub(r"\1", text))
    return normal(text).strip()


# --- D_mt and D_comp


def translation_rows(pairs: Sequence[tuple[str, ...]], source: str, target: str, prompt: str) -> list[dict[str, Any]]:
    """D_mt, both directions: -st asks for the target sentence, -ts for the source sentence."""
    names = LANGUAGES[source].name, LANGUAGES[target].name
    forward, backward = (prompt.replace("{source}", a).replace("{target}", b) for a, b in (names, reversed(names)))
    rows = []
    for pid, a, b in pairs:
        rows.append({"id": f"{pid}-st", "instruction": forward, "input": a, "output": b})
        rows.append({"id": f"{pid}-ts", "instruction": backward, "input": b, "output": a})
    return rows


def completion_rows(sentences: Sequence[tuple[str, ...]], target: str, seed: int, prompt: str) -> list[dict[str, Any]]:
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
