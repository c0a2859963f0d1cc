"""G: the model's own answers in the source language (section 3.2.1), in process or from a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.files import fingerprint
from sdrrl_factory.memory import Memory
from sdrrl_factory.models.checkpoint import check_checkpoint
from sdrrl_factory.models.lm import LM, check_format
from sdrrl_factory.models.remembered import RememberedModel, set_keys
from sdrrl_factory.models.server import Server
from sdrrl_factory.transfer.draw import rng
from sdrrl_factory.transfer.recipe import Generator
from sdrrl_factory.transfer.stage import Batch, Progress, Stage, running, unseen


class Answering(NamedTuple):
    """A model that answers, and who is told how far it is."""

    model: RememberedModel
    progress: Progress


@dataclass(frozen=True)
class Generate(Stage):
    """+ response, response_finish: M_theta(x) where it was drawn as the answer; null for the other records.

    generator: None where no set holds the model's own answers.
    checkpoint: what tells the model from any other (`identity`).
    memory: the file that keeps what the model has answered.
    """

    generator: Generator | None
    checkpoint: str
    seed: int
    memory: Path = running()
    version: ClassVar[int] = 3

    @contextmanager
    def open(self, progress: Progress = unseen) -> Iterator[Answering | None]:
        if self.generator is None:
            yield None
            return
        with Memory(self.memory) as memory:
            yield Answering(make(self.generator, memory), progress)

    def __call__(self, batch: Batch, tool: Answering | None = None) -> Batch:
        drawn = [i for i, origin in enumerate(batch["answer_origin"]) if origin == "G"]
        responses: list[str | None] = [None] * len(batch["id"])
        finishes: list[str | None] = [None] * len(batch["id"])
        if drawn:
            assert self.generator and tool, "no record is drawn for a model's answer where there is no model"
            tool.progress(len(batch["id"]) - len(drawn))
            with under("generator"):
                answers = tool.model.generate(
                    [question(batch["instruction"][i], batch["input"][i]) for i in drawn],
                    self.generator.max_new_tokens,
                    self.generator.batch_size,
                    self.generator.temperature,
                    seeds=[rng(self.seed, batch["id"][i], "generate").getrandbits(31) for i in drawn],
                    systems=[batch["system"][i] for i in drawn],
                    progress=tool.progress,
                )
            for i, answer in zip(drawn, answers, strict=True):
                responses[i], finishes[i] = answer.text, answer.finish
        return {**batch, "response": responses, "response_finish": finishes}

    def is_final(self, batch: Batch) -> bool:
        return not any(finish and finish.startswith("error: ") for finish in batch["response_finish"])


def question(instruction: str, given: str) -> str:
    """x: the user turn, as LLaMA-Factory's alpaca format joins it."""
    return f"{instruction}\n{given}" if given else instruction


def identity(config: Generator) -> str:
    """Tells one model from another under the same path; of a server, what is known: where it is, and the name there."""
    return f"{config.model} at {config.base_url}" if config.backend == "server" else fingerprint(config.model)


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
        server = Server(
            config.base_url,
            config.model,
            api_key_env=config.api_key_env,
            concurrency=config.concurrency,
            timeout=config.timeout,
            retries=config.retries,
            extra_body=config.extra_body,
            enable_thinking=config.enable_thinking,
            chat_template_kwargs=config.chat_template_kwargs,
        )
        return RememberedModel(memory, config.model, server=server, settings=set_keys(extra_body=server.extra_body))
