"""G: the model's own answers in the source language (section 3.2.1), in process or from a server."""

from collections.abc import Callable, Sequence
from functools import cached_property

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import fingerprint
from sdrrl_factory.models.lm import Generation, check_checkpoint
from sdrrl_factory.models.server import Server
from sdrrl_factory.transfer.draw import rng
from sdrrl_factory.transfer.recipe import Generator
from sdrrl_factory.transfer.store import Batch


def question(instruction: str, given: str) -> str:
    """The user turn as LLaMA-Factory's alpaca format joins it."""
    return f"{instruction}\n{given}" if given else instruction


class _Answers:
    """The stage; `progress` is told how many more records are done."""

    def __init__(self, config: Generator, seed: int):
        self.config, self.seed = config, seed
        self.progress: Callable[[int], None] = lambda n: None

    def __call__(self, batch: Batch) -> Batch:
        """+ response, response_finish, for the records whose answer is to be the model's own; null for the others."""
        wanted = [i for i, origin in enumerate(batch["answer_origin"]) if origin == "G"]
        responses: list[str | None] = [None] * len(batch["id"])
        finishes: list[str | None] = [None] * len(batch["id"])
        self.progress(len(batch["id"]) - len(wanted))
        if wanted:
            answers = self._answers(
                [question(batch["instruction"][i], batch["input"][i]) for i in wanted],
                [batch["system"][i] for i in wanted],
                [rng(self.seed, batch["id"][i], "generate").getrandbits(31) for i in wanted],
            )
            for i, answer in zip(wanted, answers, strict=True):
                responses[i], finishes[i] = answer.text, answer.finish
        return {**batch, "response": responses, "response_finish": finishes}


class TransformersGenerator(_Answers):
    """Answers in process, in the form that is trained: LLaMA-Factory's own template by name."""

    def __init__(self, config: Generator, seed: int, place: Callable[[str], str]):
        super().__init__(config, seed)
        self._place = place("generator.model")
        check_checkpoint(config.model, self._place)

    @cached_property
    def lm(self):
        # Loaded at the first shard that is not there yet: a finished run loads nothing.
        from sdrrl_factory.models.lm import LM

        return LM(self.config.model, template=self.config.template, place=self._place)

    def identity(self) -> str:
        """Tells one checkpoint from another under the same path."""
        return fingerprint(self.config.model)

    def _answers(self, users: Sequence[str], systems: Sequence[str], seeds: Sequence[int]) -> list[Generation]:
        return self.lm.generate(
            users,
            max_new_tokens=self.config.max_new_tokens,
            batch_size=self.config.batch_size,
            temperature=self.config.temperature,
            seeds=seeds,
            systems=systems,
            progress=self.progress,
        )


class ServerGenerator(_Answers):
    """Answers from a server; the prompt's form is the server's. What it fails at has the finish "error: <reason>"."""

    def __init__(self, config: Generator, seed: int, place: Callable[[str], str]):
        super().__init__(config, seed)
        if not config.base_url:
            where = place("generator.base_url")
            raise UserError(f"{where}: backend server needs an address; write one like http://localhost:8000/v1")
        self._server = Server(
            config.base_url,
            config.model,
            api_key_env=config.api_key_env,
            concurrency=config.concurrency,
            timeout=config.timeout,
            retries=config.retries,
            place=place("generator.base_url"),
        )

    def identity(self) -> str:
        """What is known of the model behind the server: where it is and what it is called."""
        return f"{self.config.model} at {self.config.base_url}"

    def _answers(self, users: Sequence[str], systems: Sequence[str], seeds: Sequence[int]) -> list[Generation]:
        conversations = [
            [{"role": "system", "content": system}] * bool(system) + [{"role": "user", "content": user}]
            for user, system in zip(users, systems, strict=True)
        ]
        limit, temperature = self.config.max_new_tokens, self.config.temperature
        return self._server.chat(conversations, limit, temperature, seeds, self.progress)


def make(config: Generator, seed: int, place: Callable[[str], str]) -> TransformersGenerator | ServerGenerator:
    """The recipe's generator; what is wrong with the recipe is said here, the model is loaded when first asked."""
    return (ServerGenerator if config.backend == "server" else TransformersGenerator)(config, seed, place)
