"""How many tokens an answer may have, and what is done with a prompt that leaves it no room in the model's context."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from sdrrl_eval.measure.task import Item, Part, Task
from sdrrl_factory.languages import LANGUAGES

if TYPE_CHECKING:
    from sdrrl_eval.measure.answers import Answers
    from sdrrl_eval.measure.checkpoint import Lengths

# How many times the tokens of a Latin script the same text takes, for a model made for English. All references of
# FLORES-200's devtest in 19 languages fit into 256 times this with SmolLM2's vocabulary: Vietnamese takes 252 tokens,
# Korean 367, Thai 604, Khmer 933. Those in Thai and Khmer fit at a byte a token too.
_SCRIPTS = {"Latn": 1.0} | dict.fromkeys(
    ("Cyrl", "Grek", "Armn", "Geor", "Arab", "Hebr", "Hang", "Jpan", "Hans", "Hant"), 1.5
)
_SCRIPTS |= dict.fromkeys(("Khmr", "Mymr", "Tibt", "Laoo"), 6.0)
_OTHERS = 4.0  # the scripts of India, Thai, Ethiopic: three bytes a letter
_TAIL = 40  # so many letters back a blank is looked for, to cut an article between words

Policy = Literal["cut", "leave_out"]


def answer_limit(task: Task, lang: str, general: int | None) -> int:
    """The longest answer in that language: the task's `max_new_tokens`, else the recipe's, else by task and script."""
    return task.max_new_tokens or general or round(task.answer_tokens * _SCRIPTS.get(LANGUAGES[lang].script, _OTHERS))


@dataclass(frozen=True)
class Cut:
    """A prompt in three pieces, and how many tokens it may have in all.

    system: the system prompt before it; None where it is plain text, without the prompt format.
    """

    before: str
    article: str
    after: str
    room: int
    system: str | None


@dataclass(frozen=True)
class Fit:
    """A part of which every prompt fits into the context of `context` tokens (None: it has no limit).

    cut: the ids of the items whose article was cut. left_out: of those that are no longer in the part.
    """

    part: Part
    context: int | None
    cut: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()


def fit(part: Part, model: "Answers", policy: Policy) -> Fit:
    """The part as the model can be asked it: prompt and answer together within its context.

    The field cuts the article (a news text, a passage) at its end, never the instruction or the question. What no
    cutting makes fit is left out, and with "leave_out" whatever is too long; it may be all.
    """
    context, _ = model.window()
    if context is None:
        return Fit(part, None)
    reserves = too_long(part, model)
    system = part.system_prompt if part.is_asked else None
    # Their articles, cut as little as possible.
    cuts = {}
    for i in reserves:
        article = part.items[i].texts.get(part.config.article, "")
        before, is_there, after = _asked(part, part.items[i]).rpartition(article) if article else ("", "", "")
        if is_there and policy == "cut":
            cuts[i] = Cut(before, article, after, context - reserves[i], system)
    letters = dict(zip(cuts, model.letters_that_fit(list(cuts.values())), strict=True))
    items: list[Item] = []
    cut: set[str] = set()
    left_out: set[str] = set()
    for i, item in enumerate(part.items):
        if i in reserves and letters.get(i, -1) <= 0:
            left_out.add(item.id)
            continue
        if i in reserves:
            item = _shortened(item, part.config.article, cuts[i], letters[i])
            cut.add(item.id)
        items.append(item)
    return Fit(replace(part, items=items), context, frozenset(cut), frozenset(left_out))


def too_long(part: Part, model: "Answers | Lengths") -> dict[int, int]:
    """Index of each item that does not fit -> how many tokens must be free behind its prompt."""
    context, added = model.window()
    if context is None:
        return {}
    system = part.system_prompt if part.is_asked else None
    added += len((system or "").encode())
    # 1. Those that may be too long. A token is at least a byte, so a short text need not be cut into tokens.
    prompts = [_asked(part, item) for item in part.items]
    suspects = [
        i
        for i, (item, prompt) in enumerate(zip(part.items, prompts, strict=True))
        if len(prompt.encode()) + added + max(_answer_tokens(part), len(_scored(part, item).encode())) > context
    ]
    # 2. Those that are. Behind a prompt there must be room for the longest answer, and for a text that is scored.
    lengths = model.lengths([prompts[i] for i in suspects], system)
    scored = model.lengths([_scored(part, part.items[i]) for i in suspects], None)
    reserves = {i: max(_answer_tokens(part), n) for i, n in zip(suspects, scored, strict=True)}
    return {i: reserves[i] for i, n in zip(suspects, lengths, strict=True) if n + reserves[i] > context}


def _asked(part: Part, item: Item) -> str:
    """What the model reads of the item: the prompt of an answer, of likelihoods, or the text itself."""
    if item.prompt is not None:
        return item.prompt
    return part.prompt.format_map(item.texts) if part.prompt else (item.reference or "")


def _answer_tokens(part: Part) -> int:
    """What must be free behind a prompt; where no answer is written, a letter or the start token of a text."""
    return part.max_new_tokens if part.is_asked else 1


def _scored(part: Part, item: Item) -> str:
    """The longest text behind the prompt whose likelihood is taken; "" where there is none, or a letter."""
    if part.is_asked:
        return item.reference or "" if "answer_loss" in getattr(part.config, "metrics", ()) else ""
    if getattr(part.config, "by", "") != "text":
        return ""
    return max((text for name, text in item.texts.items() if len(name) == 1), key=len, default="")  # "A", "B", ...


def _shortened(item: Item, name: str, cut: Cut, letters: int) -> Item:
    """The item with so many letters of its article, between words where a blank is near."""
    article = cut.article[:letters]
    blank = article.rfind(" ", max(1, letters - _TAIL))
    if blank > 0 and not cut.article[letters].isspace():
        article = article[:blank]
    prompt = None if item.prompt is None else cut.before + article + cut.after
    return replace(item, prompt=prompt, texts=item.texts | {name: article})
