"""G: the model's own answers in the source language (section 3.2.1), in process or from a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

from sdrrl_factory.engine import Need, weights_of
from sdrrl_factory.errors import UserError, under
from sdrrl_factory.files import fingerprint
from sdrrl_factory.log import detail
from sdrrl_factory.memory import Memory
from sdrrl_factory.models.checkpoint import check_checkpoint
from sdrrl_factory.models.lm import LM, Generation
from sdrrl_factory.models.prompt_format import check_format
from sdrrl_factory.models.remembered import RememberedModel, set_keys
from sdrrl_factory.models.server import from_keys
from sdrrl_factory.transfer.draw import rng
from sdrrl_factory.transfer.exchanges import question
from sdrrl_factory.transfer.filters import looping
from sdrrl_factory.transfer.recipe import Generator
from sdrrl_factory.transfer.stage import Batch, Progress, Stage, running, unseen

_LONGEST = 8  # times max_new_tokens, where the recipe does not say how long an answer may become


class Answering(NamedTuple):
    """A model that answers, and who is told how far it is."""

    model: RememberedModel
    progress: Progress


@dataclass(frozen=True)
class Generate(Stage):
    """+ response, response_finish: M_theta(x) where it was drawn as the answer; null for the other records.

    What is cut off at `max_new_tokens` goes on up to `longest_answer`, or until it loops: otherwise the own answers
    that are kept would be the short ones, and fewer than equation 4 draws.

    generator: None where no set holds the model's own answers.
    checkpoint: what tells the model from any other (`identity`).
    memory: the file that keeps what the model has answered.
    """

    generator: Generator | None
    checkpoint: str
    seed: int
    memory: Path = running()
    version: ClassVar[int] = 4

    @contextmanager
    def open(self, progress: Progress = unseen) -> Iterator[Answering | None]:
        if self.generator is None:
            yield None
            return
        with Memory(self.memory) as memory:
            yield Answering(make(self.generator, memory), progress)

    def __call__(self, batch: Batch, tool: Answering | None = None) -> Batch:
        drawn = [i for i, origin in enumerate(batch["answer_origin"]) if origin == "G"]
        answers: dict[int, Generation] = {}
        if drawn:
            assert self.generator and tool, "no record is drawn for a model's answer where there is no model"
            tool.progress(len(batch["id"]) - len(drawn))
            after: int | None = None
            going_on, steps = drawn, limits(self.generator)
            for limit, longer in zip(steps, [*steps[1:], None], strict=True):
                answers |= self._ask(batch, tool.model, going_on, limit, after, tool.progress)
                going_on = [i for i in going_on if answers[i].finish == "length" and not looping(answers[i].text)]
                if not going_on or not longer:
                    break
                # They are not done after all.
                tool.progress(-len(going_on))
                detail(f"generate  {len(going_on)} answers are cut off at {limit} tokens and go on up to {longer}")
                after = limit
        responses = [answers[i].text if i in answers else None for i in range(len(batch["id"]))]
        finishes = [answers[i].finish if i in answers else None for i in range(len(batch["id"]))]
        return {**batch, "response": responses, "response_finish": finishes}

    def _ask(
        self, batch: Batch, model: RememberedModel, rows: list[int], limit: int, after: int | None, progress: Progress
    ) -> dict[int, Generation]:
        """The answers to these rows of the batch, up to `limit` tokens; after: the limit before."""
        assert self.generator
        with under("generator"):
            answers = model.generate(
                [question(batch["instruction"][i], batch["input"][i]) for i in rows],
                limit,
                self.generator.batch_size,
                self.generator.temperature,
                seeds=[rng(self.seed, batch["id"][i], "generate").getrandbits(31) for i in rows],
                systems=[batch["system"][i] for i in rows],
                progress=progress,
                after=after,
            )
        return dict(zip(rows, answers, strict=True))

    def need(self) -> Need:
        if self.generator is None:
            return Need()
        if self.generator.backend == "server":
            return Need(workers=1)  # with `concurrency` requests at a time
        return Need(gpus=1, memory=weights_of(self.generator.model))

    def kept_in(self) -> Path | None:
        return self.memory if self.generator else None

    def is_final(self, batch: Batch) -> bool:
        return not any(finish and finish.startswith("error: ") for finish in batch["response_finish"])


def limits(config: Generator) -> list[int]:
    """The tokens an answer may have, first, and then if it was cut off there.

    In process the limit doubles, so that one that has begun to loop is let go of early. A server begins an answer anew
    each time, hence is asked once more only.
    """
    longest = config.longest_answer or _LONGEST * config.max_new_tokens
    steps = [config.max_new_tokens]
    while config.backend != "server" and steps[-1] * 2 < longest:
        steps.append(steps[-1] * 2)
    return [*steps, longest] if longest > steps[-1] else steps


def identity(config: Generator) -> str:
    """Tells one model from another under the same path; of a server, what is known: where it is, and the name there."""
    return f"{config.model} at {config.base_url}" if config.backend == "server" else fingerprint(config.model)


def knows(config: Generator, memory: Memory) -> bool:
    """Whether the memory has answers of the recipe's generator."""
    with memory:
        return make(config, memory).has_answered(config.max_new_tokens, config.temperature)


def make(config: Generator, memory: Memory) -> RememberedModel:
    """The recipe's generator; a checkpoint is loaded at the first question that the memory does not know.

    A server forms the prompt itself; in process it is LLaMA-Factory's own template, as it is trained.

    Raises: UserError about a key of the recipe's `generator`.
    """
    with under("generator"):
        if config.backend == "transformers":
            with under("model"):
                check_checkpoint(config.model)
            check_format(config.template, config.chat_template_kwargs)
            thinking = set_keys(
                enable_thinking=config.enable_thinking, chat_template_kwargs=config.chat_template_kwargs
            )
            load = partial(LM, config.model, config.template, **thinking)
            return RememberedModel(memory, config.model, config.template, load=load, settings=thinking)
        if not config.base_url:
            fix = "write one like http://localhost:8000/v1"
            raise UserError("backend server needs an address", fix, key="base_url")
        server = from_keys(config, config.base_url, config.model, config.enable_thinking, config.chat_template_kwargs)
        return RememberedModel(memory, config.model, server=server, settings=set_keys(extra_body=server.extra_body))
