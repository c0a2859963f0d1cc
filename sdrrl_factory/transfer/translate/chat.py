"""A chat model as translator: any OpenAI-compatible server, or a checkpoint in process.

With the model that is taught itself, this is self-translation, the paper's future work (section 5).
"""

import json
import string
from collections.abc import Callable, Sequence
from functools import cached_property

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import fingerprint, sha256
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.models.lm import Generation, check_checkpoint
from sdrrl_factory.models.server import Server
from sdrrl_factory.transfer.recipe import Translator

_QUOTES = {'""', "''", "``", "“”", "„“", "„”", "‘’", "«»", "»«", "「」", "『』"}


class Chat:
    """Args: place: where a recipe key stands, for errors. The model is loaded at the first segment."""

    def __init__(self, config: Translator, place: Callable[[str], str]):
        _check_prompt(config.prompt, place("translator.prompt"))
        if not config.model:
            raise UserError(f"{place('translator.model')}: backend chat needs a model; name one")
        self._config, self._place = config, place("translator.model")
        self._server = None
        if config.base_url:
            self._server = Server(
                config.base_url,
                config.model,
                api_key_env=config.api_key_env,
                concurrency=config.concurrency,
                timeout=config.timeout,
                retries=config.retries,
                place=place("translator.base_url"),
            )
        else:
            check_checkpoint(config.model, self._place)

    @cached_property
    def name(self) -> str:
        """The model, and a hash of all that shapes a translation."""
        config = self._config
        model = [config.base_url] if config.base_url else [fingerprint(config.model), config.template]
        settings = json.dumps([*model, config.prompt, config.max_new_tokens])
        return f"chat {config.model} {sha256(settings)[:16]}"

    @cached_property
    def _lm(self):
        from sdrrl_factory.models.lm import LM

        return LM(self._config.model, template=self._config.template, place=self._place)

    def translate(self, segments: Sequence[str], source: str, target: str) -> list[str]:
        names = {"source": LANGUAGES[source].name, "target": LANGUAGES[target].name}
        answers = self._answers([self._config.prompt.format(**names, text=s) for s in segments])
        pairs = zip(segments, answers, strict=True)
        return [_unquoted(a.text, segment) if a.finish == "stop" else "" for segment, a in pairs]

    def _answers(self, prompts: list[str]) -> list[Generation]:
        if self._server:
            turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
            return self._server.chat(turns, self._config.max_new_tokens, temperature=0.0)
        return self._lm.generate(prompts, self._config.max_new_tokens, self._config.batch_size)


def _check_prompt(prompt: str, place: str) -> None:
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(prompt) if name is not None}
    except ValueError as err:
        raise UserError(f"{place}: {err} in the prompt; write a brace that is meant as {{{{ or }}}}") from None
    if unknown := sorted(fields - {"source", "target", "text"}):
        known = "known: {source} {target} {text}; write a brace that is meant as {{ or }}"
        raise UserError(f"{place}: unknown placeholder {{{unknown[0]}}} in the prompt; {known}")
    if missing := sorted({"target", "text"} - fields):
        raise UserError(f"{place}: the prompt has no {{{missing[0]}}}; add it")


def _unquoted(text: str, segment: str) -> str:
    """`text` without the quotation marks around it, where `segment` has none around it."""
    inner = text[1:-1]
    ends, given = text[:1] + text[-1:], segment[:1] + segment[-1:]
    whole = len(text) > 2 and ends in _QUOTES and not any(mark in inner for mark in ends)
    return inner.strip() if whole and given not in _QUOTES else text
