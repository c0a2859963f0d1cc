"""Likelihoods from a server: how likely the model behind OpenAI's older `/completions` finds given tokens.

Prompts go as tokens, made here by the checkpoint's own tokenizer, so that the server is asked what `LM` computes. Three
ways to answer are known, and the first that the server has is taken:

    echo             the prompt comes back with the log-probability of each of its tokens (vLLM, SGLang, OpenAI's form)
    prompt_logprobs  vLLM's own form of the same
    next             no word about the prompt, but the likeliest next tokens (llama.cpp, whose server refuses echo: its
                     issues 8942 and 27174): letters can be chosen, texts have no loss
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from sdrrl_factory.errors import UserError
from sdrrl_factory.models.likelihoods import Likelihoods
from sdrrl_factory.models.prompt_format import PromptFormat
from sdrrl_factory.models.server import Refusal, Server

_LIKELIEST = 1000  # of the next tokens, where a server gives no more than these


class ServedLikelihoods(Likelihoods):
    """The model behind `server`, asked about the tokens that `tokenizer` (a folder or a hub id) makes.

    Raises: UserError about the key "tokenizer", and about "base_url" where the server gives no likelihoods.
    """

    def __init__(
        self,
        server: Server,
        tokenizer: str,
        enable_thinking: bool | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ):
        self._server = server
        self.prompt_format = PromptFormat(_tokenizer(tokenizer), tokenizer, None, enable_thinking, chat_template_kwargs)

    @cached_property
    def way(self) -> str:
        """How the server tells likelihoods: echo, prompt_logprobs or next."""
        row = self.tokenizer("A B", add_special_tokens=False)["input_ids"]
        refusals = []
        for way in ("echo", "prompt_logprobs", "next"):
            try:
                [choice] = self._server.complete([_request(way, row)])
                if way == "next":
                    _next_tokens(choice)
                else:
                    _prompt_logprobs(choice, row)
                return way
            except Refusal as err:
                refusals.append(f"{way}: {err}")
        raise UserError(
            f"{self._server.base_url} gives no likelihoods ({'; '.join(refusals)})",
            "evaluate the checkpoint itself, or leave out what needs them",
            key="base_url",
        )

    def losses(self, rows: Sequence[tuple[list[int], list[int]]], batch_size: int) -> list[tuple[float, int]]:
        if self.way == "next":
            what = f"{self._server.base_url} tells how likely the next token is, and nothing about those of a prompt"
            raise UserError(what, "evaluate the checkpoint itself, or leave out the losses", key="base_url")
        whole = [context + ids for context, ids in rows]
        choices = self._complete([_request(self.way, row) for row in whole])
        out = []
        for (context, ids), row, choice in zip(rows, whole, choices, strict=True):
            logprobs = self._read(_prompt_logprobs, choice, row)[len(context) :]
            out.append((-sum(logprobs), len(ids)))
        return out

    def next_token(self, rows: Sequence[list[int]], tokens: Sequence[list[int]], batch_size: int) -> list[list[float]]:
        if self.way != "next":
            pairs = [(row, [token]) for row, of_row in zip(rows, tokens, strict=True) for token in of_row]
            flat = iter(self.losses(pairs, batch_size))
            return [[-next(flat)[0] for _ in of_row] for of_row in tokens]
        out = []
        choices = self._complete([_request(self.way, row) for row in rows])
        for of_row, choice in zip(tokens, choices, strict=True):
            likeliest = self._read(_next_tokens, choice)
            # A server that gives no ids names a token by its text.
            names = [token if token in likeliest else self.tokenizer.decode([token]) for token in of_row]
            if not likeliest.keys() >= set(names):
                what = f"{self._server.base_url} names {len(likeliest)} next tokens, and not all that are asked about"
                raise UserError(what, "evaluate the checkpoint itself", key="base_url")
            out.append([likeliest[name] for name in names])
        return out

    def _complete(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            return self._server.complete(requests)
        except Refusal as err:
            what = f"{self._server.base_url} does not answer how likely a text is ({err})"
            raise UserError(what, "mend what it says; what is done is kept", key="base_url") from None

    def _read(self, read: Any, *inputs: Any) -> Any:
        try:
            return read(*inputs)
        except Refusal as err:
            what = f"{self._server.base_url} tells likelihoods once and then not ({err})"
            raise UserError(what, "see what the server logs; what is done is kept", key="base_url") from None


def _tokenizer(path: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path)
    except Exception as err:  # the hub, the files and their formats each have their own
        why = " ".join(str(err).split())[:100]
        what = f"the tokenizer of the served checkpoint cannot be loaded from {path} ({why})"
        raise UserError(what, "name its folder or hub id, likelihoods need it", key="tokenizer") from None


def _request(way: str, row: list[int]) -> dict[str, Any]:
    # One new token: not every server takes none.
    request: dict[str, Any] = {"prompt": row, "max_tokens": 1, "temperature": 0.0}
    if way == "echo":
        return {**request, "echo": True, "logprobs": 1}
    if way == "prompt_logprobs":
        return {**request, "extra_body": {"prompt_logprobs": 0}}
    return {**request, "logprobs": _LIKELIEST}


def _prompt_logprobs(choice: dict[str, Any], row: list[int]) -> list[float]:
    """The log-probability of each token of the prompt, the first one's 0. Raises: Refusal, where there are none."""
    try:
        if choice.get("prompt_logprobs"):
            # vLLM: {token id: {"logprob": ...}, ...} a position, the prompt's own token always among them.
            values = [
                at[str(token)]["logprob"] for at, token in zip(choice["prompt_logprobs"][1:], row[1:], strict=True)
            ]
        else:
            # Behind the prompt may stand the token that was generated.
            values = choice["logprobs"]["token_logprobs"]
            if not len(row) <= len(values) <= len(row) + 1:
                raise Refusal(f"{len(values)} log-probabilities of {len(row)} tokens")
            values = values[1 : len(row)]
        return [0.0, *(float(value) for value in values)]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Refusal("no log-probabilities of the prompt's tokens") from None


def _next_tokens(choice: dict[str, Any]) -> dict[int | str, float]:
    """{the token's id or text: its log-probability}. Raises: Refusal, where there are none."""
    try:
        logprobs = choice["logprobs"]
        if "content" in logprobs:
            # llama.cpp, in the form of chat completions.
            top = logprobs["content"][0]["top_logprobs"]
            return {one.get("id", one["token"]): float(one["logprob"]) for one in top}
        return {token: float(value) for token, value in logprobs["top_logprobs"][0].items()}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise Refusal("no likeliest tokens") from None
