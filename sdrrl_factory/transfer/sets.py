"""The one table of sets: SDRRL's six (sections 3.2.2 to 3.2.4) and the baselines' (section 4.1).

A record gives a set one row for each of its forms, which are written as the paper writes them:

    x, T(x)    the question, and its translation
    a, T(a)    the answer drawn for D_synth (equation 4), the ground truth or the model's own, and its translation
    y, T(y)    the ground truth, and its translation

A form whose translation was rejected gives no row. Whatever depends on the sets a recipe asks for, asks here: which
texts have to be translated, whether a model has to answer, what is in which language. Another baseline is another row.
What each baseline is, and why it was built so: docs/baselines.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sdrrl_factory import pages

# What is translated of a record -> its columns; those of the translation have "_mt" behind their names.
SIDES = {"question": ("instruction", "input"), "answer": ("answer",), "output": ("output",)}


@dataclass(frozen=True)
class Form:
    """A (question, answer) pair.

    switched: the set by whose draws of equation 5 the question is code-switched; "": it stays as it is.
    """

    question: str
    answer: str
    switched: str = ""

    @property
    def languages(self) -> tuple[str, str]:
        """Which language the question and the answer are in: "source" or "target"."""
        return _language(self.question), _language(self.answer)

    @property
    def needs(self) -> tuple[str, ...]:
        """The sides whose translations it needs."""
        sides = {"T(x)": "question", "T(a)": "answer", "T(y)": "output"}
        return tuple(sides[part] for part in (self.question, self.answer) if part in sides)

    @property
    def is_drawn(self) -> bool:
        """Whether its answer is the one drawn for D_synth."""
        return self.answer in ("a", "T(a)")

    @property
    def question_columns(self) -> tuple[str, str]:
        """A record's columns of its question."""
        if self.switched:
            suffix = f"_{self.switched.lower()}_cs"
        else:
            suffix = "_mt" if _language(self.question) == "target" else ""
        return f"instruction{suffix}", f"input{suffix}"

    @property
    def answer_column(self) -> str:
        """A record's column of its answer."""
        side = "answer" if self.is_drawn else "output"
        return f"{side}_mt" if _language(self.answer) == "target" else side


def _language(part: str) -> str:
    return "target" if part.startswith("T(") else "source"


@dataclass(frozen=True)
class Set:
    """
    Args:
        name: of the file and the entry in dataset_info.json (there in small letters), and of the loss of equation 6.
        system: what asks for it in a recipe's `systems`.
        forms: of the rows a record gives; () for rows of natural text, which come out of P (section 3.2.4).
        description: a line; {source} and {target} stand for the languages' names.
        wish: whether the question asks for the answer's language: "recipe", as its `answer_language` says, or a value
            of that key.
    """

    name: str
    system: str
    forms: tuple[Form, ...]
    description: str
    wish: str = "none"

    @property
    def needs(self) -> tuple[str, ...]:
        """The sides whose translations its rows need, in the order of `SIDES`."""
        needs = {side for form in self.forms for side in form.needs}
        return tuple(side for side in SIDES if side in needs)

    @property
    def is_natural(self) -> bool:
        """Whether its rows are natural text, not made of records."""
        return not self.forms

    @property
    def is_weighted(self) -> bool:
        """Whether equation 6 weights it; the baselines are trained as LLaMA-Factory trains."""
        return self.system == "sdrrl"

    @property
    def colour(self) -> str:
        """In reports, the one that the set's loss has in `sdrrl compare`; "" for the baselines, which have none."""
        return pages.SET_COLOURS.get(self.name, "")


# fmt: off
_ROWS = (
    #   name    system   (question, answer) of its rows
    Set("LL",   "sdrrl", (Form("x",    "a",    switched="LL"),), "{source} question, {source} answer", wish="recipe"),
    Set("TL",   "sdrrl", (Form("T(x)", "a",    switched="TL"),), "{target} question, {source} answer", wish="recipe"),
    Set("LT",   "sdrrl", (Form("x",    "T(a)", switched="LT"),), "{source} question, {target} answer", wish="recipe"),
    Set("TT",   "sdrrl", (Form("T(x)", "T(a)", switched="TT"),), "{target} question, {target} answer", wish="recipe"),
    Set("mt",   "sdrrl", (), "natural sentence pairs, to be translated both ways"),
    Set("comp", "sdrrl", (), "natural {target} sentences, to be completed"),
    Set("sft",  "sft",   (Form("x",    "y"),),    "the {source} ground truth"),
    Set("tsft", "tsft",  (Form("T(x)", "T(y)"),), "the ground truth in {target}"),
    Set("cit",  "cit",   (Form("x",    "T(y)"),), "{source} question that asks for {target}, {target} ground truth",
        wish="all"),
    Set("xcot", "xcot",  (Form("x",    "y",    switched="LL"),
                          Form("T(x)", "T(y)", switched="TT")),
        "code-switched questions in {source} and {target}, the ground truth of each"),
)
# fmt: on
SETS = {row.name: row for row in _ROWS}
# "sdrrl" and the baselines, as a recipe's `systems` names them.
SYSTEMS = tuple(dict.fromkeys(row.system for row in _ROWS))
BASELINES = tuple(system for system in SYSTEMS if system != "sdrrl")
# Set -> its question: every draw of equation 5 that some form uses.
SWITCHED = {form.switched: form.question for row in _ROWS for form in row.forms if form.switched == row.name}


def sets_of(systems: Iterable[str]) -> list[Set]:
    """The sets of some systems, system by system."""
    return [row for system in systems for row in _ROWS if row.system == system]


def sides(systems: Iterable[str]) -> tuple[str, ...]:
    """Which of "question", "answer" and "output" have to be translated for the systems."""
    needs = {side for row in sets_of(systems) for side in row.needs}
    return tuple(side for side in SIDES if side in needs)


def has_own_answers(systems: Iterable[str]) -> bool:
    """Whether some set holds the model's own answers, so that it has to answer."""
    return any(form.is_drawn for row in sets_of(systems) for form in row.forms)


def has_switched(systems: Iterable[str]) -> bool:
    """Whether some set has code-switched questions."""
    return any(form.switched for row in sets_of(systems) for form in row.forms)


def has_natural(systems: Iterable[str]) -> bool:
    """Whether some set is made of natural text."""
    return any(row.is_natural for row in sets_of(systems))
