"""G: the model's own answers in the source language (section 3.2.1), in process or from a server."""

from collections.abc import Callable

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.files import fingerprint
from sdrrl_factory.memory import Memory
from sdrrl_factory.models.checkpoint import check_checkpoint
from sdrrl_factory.models.lm import LM
from sdrrl_factory.models.remembered import RememberedModel
from sdrrl_factory.models.server import Server
from sdrrl_factory.transfer.draw import rng
from sdrrl_factory.transfer.recipe import Generator
from sdrrl_factory.transfer.store import Batch


def question(instruction: str, given: str) -> str:
    """The user turn as LLaMA-Factory's alpaca format joins it."""
    return f"{instruction}\n{given}" if given else instruction


class _Answers:
    """The stage; `progress` is told how many more records are done."""

    def __init__(self, config: Generator, seed: int, model: RememberedModel):
        self.config, self.seed, self.model = config, seed, model
        self.progress: Callable[[int], None] = lambda count: None

    def __call__(self, batch: Batch) -> Batch:
        """+ response, response_finish, for the records whose answer is to be the model's own; null for the others."""
        wanted = [i for i, origin in enumerate(batch["answer_origin"]) if origin == "G"]
        responses: list[str | None] = [None] * len(batch["id"])
        finishes: list[str | None] = [None] * len(batch["id"])
        self.progress(len(batch["id"]) - len(wanted))
        if wanted:
            with under("generator"):
                answers = self.model.generate(
                    [question(batch["instruction"][i], batch["input"][i]) for i in wanted],
                    self.config.max_new_tokens,
                    self.config.batch_size,
                    self.config.temperature,
                    seeds=[rng(self.seed, batch["id"][i], "generate").getrandbits(31) for i in wanted],
                    systems=[batch["system"][i] for i in wanted],
                    progress=self.progress,
                )
            for i, answer in zip(wanted, answers, strict=True):
                responses[i], finishes[i] = answer.text, answer.finish
        return {**batch, "response": responses, "response_finish": finishes}


class TransformersGenerator(_Answers):
    """Answers in process, in the form that is trained: LLaMA-Factory's own template by name."""

    def __init__(self, config: Generator, seed: int, memory: Memory):
        with under("model"):
            check_checkpoint(config.model)
        super().__init__(config, seed, RememberedModel(memory, config.model, config.template, load=self._load))

    def _load(self) -> LM:
        # At the first answer that is not known yet: a finished run loads nothing.
        return LM(self.config.model, self.config.template)

    def identity(self) -> str:
        """Tells one checkpoint from another under the same path."""
        return fingerprint(self.config.model)


class ServerGenerator(_Answers):
    """Answers from a server; the prompt's form is the server's. What it fails at has the finish "error: <reason>"."""

    def __init__(self, config: Generator, seed: int, memory: Memory):
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
        )
        super().__init__(config, seed, RememberedModel(memory, config.model, server=server))

    def identity(self) -> str:
        """What is known of the model behind the server: where it is and what it is called."""
        return f"{self.config.model} at {self.config.base_url}"


def make(config: Generator, seed: int, memory: Memory) -> TransformersGenerator | ServerGenerator:
    """The recipe's generator; what is wrong with the recipe is said here, the model is loaded when first asked."""
    with under("generator"):
        return (ServerGenerator if config.backend == "server" else TransformersGenerator)(config, seed, memory)
