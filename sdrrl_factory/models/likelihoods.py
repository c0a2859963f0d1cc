"""How likely a model finds answers, texts and choices: which tokens are asked about, whoever computes them.

An `LM` computes them in process, `ServedLikelihoods` asks a server; both are asked for the same tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from sdrrl_factory.errors import UserError
from sdrrl_factory.models.prompt_format import PromptFormat

# (a prompt, what may stand behind it)
Question = tuple[str, Sequence[str]]


class Likelihoods(ABC):
    """What a model says of given texts."""

    prompt_format: PromptFormat

    @property
    def tokenizer(self) -> Any:
        return self.prompt_format.tokenizer

    def encode(self, user: str, system: str = "") -> list[int]:
        """As `PromptFormat.encode`."""
        return self.prompt_format.encode(user, system)

    @abstractmethod
    def losses(self, rows: Sequence[tuple[list[int], list[int]]], batch_size: int) -> list[tuple[float, int]]:
        """Per (context ids, ids): the summed cross-entropy of `ids` in nats behind the context, and their number."""

    @abstractmethod
    def next_token(self, rows: Sequence[list[int]], tokens: Sequence[list[int]], batch_size: int) -> list[list[float]]:
        """Per row, the log-probability of each of its `tokens` as the next one, in nats."""

    def answer_loss(
        self, pairs: Sequence[tuple[str, str]], batch_size: int, system: str = ""
    ) -> list[tuple[float, int]]:
        """Per (question, answer): the summed cross-entropy of the answer's tokens in nats, and how many they are.

        system: the system prompt of all questions, as of `encode`.
        """
        rows = []
        for user, answer in pairs:
            rows.append((self.encode(user, system), self.tokenizer(answer, add_special_tokens=False)["input_ids"]))
        return self.losses(rows, batch_size)

    def text_loss(self, texts: Sequence[str], batch_size: int) -> list[tuple[float, int]]:
        """Per text: the summed cross-entropy of its tokens in nats after one start token, and how many they are."""
        first = self.tokenizer.bos_token_id
        first = self.tokenizer.eos_token_id if first is None else first
        rows = [([first], self.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        return self.losses(rows, batch_size)

    def choose(self, questions: Sequence[Question], batch_size: int) -> list[list[float]]:
        """Per (prompt, choices) the log-probability of each choice right behind the prompt, in nats.

        The prompt is plain text, without the chat format; each choice has its leading blank. Where every choice is one
        token, all come out of one forward pass.
        """
        heads, tails = encode_choices(self.tokenizer, questions)
        if all(len(ids) == 1 for row in tails for ids in row):
            out = self.next_token(heads, [[ids[0] for ids in row] for row in tails], batch_size)
        else:
            pairs = [(head, ids) for head, row in zip(heads, tails, strict=True) for ids in row]
            flat = iter(self.losses(pairs, batch_size))
            out = [[-next(flat)[0] for _ in row] for row in tails]
        if any(value != value for row in out for value in row):
            raise UserError("the model answers NaN: its weights are damaged", "export it again", key="model")
        return out


def encode_choices(tokenizer: Any, questions: Sequence[Question]) -> tuple[list[list[int]], list[list[list[int]]]]:
    """(ids of each prompt; per prompt the ids of each choice behind it), the two tokenized as one text."""
    heads = tokenizer([prompt for prompt, _ in questions])["input_ids"]
    whole = iter(tokenizer([prompt + choice for prompt, choices in questions for choice in choices])["input_ids"])
    tails = [[next(whole)[len(head) :] for _ in choices] for head, (_, choices) in zip(heads, questions, strict=True)]
    return heads, tails
