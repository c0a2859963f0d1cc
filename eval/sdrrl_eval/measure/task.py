"""What a task is: its keys in the recipe, the items it reads, and how the model's answers become scores.

A benchmark is one file in tasks/: a YAML (task_files.py), or a module with one class derived from `Task` or
`PromptedTask`, whose `task` is the file's name. The class's fields are the task's own keys, in recipes, in the schema
and in the docs; its docstring says what is measured, the file's is the paragraph in docs/evaluation.md. The runner
knows no task by name.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from pydantic import Field, model_validator

from sdrrl_eval.measure.metrics.score import Score
from sdrrl_factory.errors import under
from sdrrl_factory.languages import Language, language
from sdrrl_factory.models.lm import Generation
from sdrrl_factory.models.remembered import RememberedModel
from sdrrl_factory.recipe import Group

# (an item's line in predictions/, for each item; entries of results.json)
Scored = tuple[list[dict[str, Any]], list[dict[str, Any]]]


class Task(Group):
    """An entry under `tasks`: the keys that every task takes. A key that is null is the task's own choice."""

    task: str
    """Which benchmark."""
    path: str
    """Where the benchmark lies; each task says below which file or folder it takes."""
    langs: list[str] = Field(min_length=1)
    """ISO 639-3 codes."""
    name: str | None = Field(default=None, pattern=r"^[\w+-]+$")
    """What it is called in results.json and predictions/, to tell two entries of one task apart; null: as the task."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """The longest answer; null: as below `tasks`, else by task and script."""

    # The scores' names, in the order in which they are given; a task that lets one choose has the key `metrics`.
    scores: ClassVar[tuple[str, ...]]
    # The longest answer by default, in tokens of a Latin script; a script that takes more tokens has more (limits.py).
    answer_tokens: ClassVar[int] = 64
    # Which of an item's `texts` is cut at its end where the prompt is longer than the model's context; "": none may be.
    article: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, values: Any) -> Any:
        return (
            {key: value for key, value in values.items() if value is not None} if isinstance(values, dict) else values
        )

    @property
    def label(self) -> str:
        """What the task is called in results.json and predictions/."""
        return self.name or self.task

    def languages(self) -> list[Language]:
        """Of `langs`, in their order."""
        with under("langs"):
            return [language(code) for code in self.langs]

    def without_likelihoods(self) -> str:
        """What to change in the recipe for a model that gives no likelihoods, as a server; "" if none are asked."""
        return ""

    def needs_losses(self) -> bool:
        """Whether the likelihoods are of texts, and not of the next token alone."""
        return bool(self.without_likelihoods())

    def libraries(self) -> dict[str, str]:
        """Name -> version of the libraries that its numbers depend on, besides those of every evaluation."""
        return {}

    def check(self) -> None:
        """Say before anything runs what the scores lack (a tokenizer, COMET): a `UserError` about one of the keys."""

    def read(self) -> list["Part"]:
        """A part for each language or direction, every file read and every item checked, without a model.

        Raises: UserError about one of the keys, or at a line of a file.
        """
        raise NotImplementedError

    def likelihoods(self, part: "Part", model: RememberedModel, batch_size: int) -> list[Any]:
        """What the model is asked besides answers, one an item: losses, log-probabilities; [] where nothing is."""
        return []

    def score(self, part: "Part", answers: list[Generation], likelihoods: list[Any], seed: int) -> Scored:
        """The part's predictions and scores; no model is needed any more.

        Args:
            answers: to the prompts of the part's items, in their order; [] where the items have no prompt.
            likelihoods: as `likelihoods` gave them, in the items' order.
            seed: of the intervals.

        Raises: UserError about one of the keys.
        """
        raise NotImplementedError


class PromptedTask(Task):
    """A task that asks the model something: the keys that shape the question, whatever the benchmark."""

    system_prompt: str | None = None
    """Before every question; null: as below `tasks`, "": none."""
    stop: list[str] | None = None
    """Strings that end an answer, and are no part of it; null: none, but for `template: empty` as the prompt has it."""
    shots: int = Field(default=0, ge=0)
    """Solved examples before every question, the same in every language and for every system."""
    examples: str | None = None
    """Where the shots are drawn from: of the shape of `path`, and not the test."""
    shots_seed: int = Field(default=0, ge=0)
    """Draws them, by the hash of the seed and the id."""

    # Whether the shots come from the test itself where no examples are named; what they show is then not asked.
    examples_in_test: ClassVar[bool] = False

    def read(self) -> list["Part"]:
        """What `zero_shot` gives, behind the examples that the recipe asks for."""
        from sdrrl_eval.measure.shots import with_shots

        return with_shots(self, self.zero_shot()) if self.shots else self.zero_shot()

    def zero_shot(self) -> list["Part"]:
        """As `Task.read`, without any examples."""
        raise NotImplementedError

    def default_examples(self) -> str | None:
        """Where the shots are drawn from if no examples are named and the benchmark has a place for them."""
        return None

    def question(self, part: "Part", item: "Item") -> str:
        """What an item asks, before any examples."""
        return item.prompt or ""

    def solution(self, item: "Item") -> str:
        """The answer that an example shows; "" of an item that cannot be one."""
        return item.reference or ""

    def stops(self, prompt: str) -> tuple[str, ...]:
        """What ends an answer of a model that goes on with the text of the prompt, without a chat format.

        Such a model goes on with a question of its own. Where the prompt ends within a line ("Answer:"), the answer is
        the rest of it; examples end in an empty line, and so does the answer behind them.
        """
        if prompt.rstrip(" ").endswith(":"):
            return ("\n",)
        return ("\n\n",) if self.shots else ()


@dataclass(frozen=True)
class Item:
    """One question, sentence or text of a benchmark.

    Attributes:
        prompt: what the model is asked to answer; None where nothing is generated.
        reference: what the answer is compared to, if anything.
        texts: the item's own words by what they are (question, source, passage), without what the task wraps around
            them: the overlap check looks for these. In a prompt they stand as they are.
        group: items that share one (a passage) are resampled together: they are no independent draws; "" of none.
    """

    id: str
    prompt: str | None
    reference: str | None
    texts: dict[str, str] = field(default_factory=dict)
    group: str = ""

    def row(self, answer: Generation | None = None, **scores: Any) -> dict[str, Any]:
        """The item's line in predictions/."""
        return {
            "id": self.id,
            **({"group": self.group} if self.group else {}),
            "prompt": self.prompt,
            "output": answer.text if answer else None,
            "reference": self.reference,
            "finish": answer.finish if answer else None,
            **scores,
        }


class Asking(NamedTuple):
    """How a prompt is asked: what of it, beside the prompt, shapes the answer."""

    max_new_tokens: int
    system_prompt: str
    stop: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """One task in one language or direction, read and checked before any model is loaded.

    Attributes:
        config: the entry under `tasks` it was read for.
        source_lang: None where a single language is at work.
        prompt: what the items' prompts are made by, examples included, with {holes}; "" where nothing is asked.
        files: what the items were read from.
        max_new_tokens, system_prompt, stop: the longest answer, what stands before the prompts, what ends the answers;
            set by the runner.
    """

    config: Task
    source_lang: str | None
    target_lang: str
    items: list[Item]
    prompt: str = ""
    files: tuple[str, ...] = ()
    max_new_tokens: int = 0
    system_prompt: str = ""
    stop: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file stem of its predictions: translation.eng-spa, instructions.spa."""
        pair = f"{self.source_lang}-{self.target_lang}" if self.source_lang else self.target_lang
        return f"{self.config.label}.{pair}"

    @property
    def is_asked(self) -> bool:
        """Whether the model writes answers to its items."""
        return any(item.prompt is not None for item in self.items)

    @property
    def asking(self) -> Asking:
        return Asking(self.max_new_tokens, self.system_prompt, self.stop)

    @property
    def references(self) -> list[str]:
        """Of items that all have one."""
        return [item.reference or "" for item in self.items]

    def score(self, metric: str, score: Score, **more: Any) -> dict[str, Any]:
        """One entry of results.json. Rounded: the digits past the fourth are the machine's, not the model's."""
        shots = self.config.shots if isinstance(self.config, PromptedTask) else 0
        # Scores with examples compare with each other alone.
        more_signature = f"|shots:{shots}" if shots and "shots:" not in score.signature else ""
        return {
            "task": self.config.label,
            "metric": metric,
            "source_lang": self.source_lang,
            "target_lang": self.target_lang,
            "value": round(score.value, 4),
            "n": len(self.items),
            "ci95": [round(bound, 4) for bound in score.ci95],
            "signature": score.signature + more_signature,
            **more,
        }
