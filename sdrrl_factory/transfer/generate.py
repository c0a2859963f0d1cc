"""G: the model's own answers in the source language (section 3.2.1)."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from sdrrl_factory.files import sha256
from sdrrl_factory.transfer.recipe import Generator
from sdrrl_factory.transfer.store import Batch


def question(instruction: str, given: str) -> str:
    """The user turn as LLaMA-Factory's alpaca format joins it."""
    return f"{instruction}\n{given}" if given else instruction


class TransformersGenerator:
    """Answers in process, in the form that is trained: LLaMA-Factory's own template by name."""

    def __init__(self, config: Generator, seed: int, place: str):
        self.config, self.seed, self.place = config, seed, place
        self.progress: Callable[[int], None] = lambda n: None

    @cached_property
    def lm(self):
        # Loaded at the first shard that is not there yet: a finished run loads nothing.
        from sdrrl_factory.lm import LM

        return LM(self.config.model, template=self.config.template, place=self.place)

    def identity(self) -> str:
        """Tells one checkpoint from another under the same path, without reading gigabytes."""
        parts = []
        for path in sorted(Path(self.config.model).glob("*")):
            if path.suffix in (".json", ".safetensors", ".jinja"):
                with open(path, "rb") as f:
                    head = f.read(1 << 20)
                    f.seek(max(0, path.stat().st_size - (1 << 20)))
                    parts.append(f"{path.name} {path.stat().st_size} {sha256(head + f.read())}")
        return sha256("\n".join(parts))

    def __call__(self, batch: Batch) -> Batch:
        """+ response, response_finish, for the records whose answer is to be the model's own; null for the others."""
        wanted = [i for i, origin in enumerate(batch["answer_origin"]) if origin == "G"]
        responses: list[str | None] = [None] * len(batch["id"])
        finishes: list[str | None] = [None] * len(batch["id"])
        self.progress(len(batch["id"]) - len(wanted))
        if wanted:
            answers = self.lm.generate(
                [question(batch["instruction"][i], batch["input"][i]) for i in wanted],
                max_new_tokens=self.config.max_new_tokens,
                batch_size=self.config.batch_size,
                temperature=self.config.temperature,
                seed=self.seed,
                progress=self.progress,
            )
            for i, answer in zip(wanted, answers, strict=True):
                responses[i], finishes[i] = answer.text, answer.finish
        return {**batch, "response": responses, "response_finish": finishes}
