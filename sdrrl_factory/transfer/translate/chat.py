"""A chat model as translator: any OpenAI-compatible server, or a checkpoint in process.

With the model that is taught itself, this is self-translation, the paper's future work (section 5).
"""

import json
import string
from collections.abc import Sequence
from functools import cached_property, lru_cache, partial

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.files import fingerprint, sha256
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.memory import Memory
from sdrrl_factory.models.checkpoint import check_checkpoint
from sdrrl_factory.models.lm import LM, Generation
from sdrrl_factory.models.prompt_format import check_format
from sdrrl_factory.models.remembered import RememberedModel, set_keys
from sdrrl_factory.models.server import from_keys
from sdrrl_factory.transfer.recipe import Translator
from sdrrl_factory.transfer.translate.engine import NoTranslation

_VERSION = 2  # goes up with every change of what becomes of an answer
_QUOTES = {'""', "''", "``", "“”", "„“", "„”", "‘’", "«»", "»«", "「」", "『』"}


class Chat:
    """Each answer of the model is kept in `memory` as it comes. The model is loaded at the first segment.

    Raises: UserError about a key of the translator's group.
    """

    def __init__(self, config: Translator, memory: Memory):
        _check_prompt(config.prompt)
        if not config.model:
            raise UserError("backend chat needs a model", "name one", key="model")
        self._config, self._checkpoint = config, config.model
        server = None
        thinking = set_keys(enable_thinking=config.enable_thinking, chat_template_kwargs=config.chat_template_kwargs)
        if config.base_url:
            server = from_keys(
                config, config.base_url, config.model, config.enable_thinking, config.chat_template_kwargs
            )
            self._settings = set_keys(extra_body=server.extra_body)
        else:
            with under("model"):
                check_checkpoint(config.model)
            check_format(config.template, config.chat_template_kwargs)
            self._settings = thinking
        load = partial(_loaded, config.model, config.template, json.dumps(thinking))
        self._model = RememberedModel(
            memory, config.model, config.template, load=load, server=server, settings=self._settings
        )

    @cached_property
    def name(self) -> str:
        """The model, and a hash of all that shapes a translation."""
        config = self._config
        model = [config.base_url] if config.base_url else [fingerprint(self._checkpoint), config.template]
        settings = json.dumps([_VERSION, *model, config.prompt, config.max_new_tokens, self._settings])
        return f"chat {config.model} {sha256(settings)[:16]}"

    def signature(self, source: str, target: str) -> str:
        return self.name

    def translate(self, segments: Sequence[str], source: str, target: str) -> list[str | NoTranslation]:
        names = {"source": LANGUAGES[source].name, "target": LANGUAGES[target].name}
        prompts = [self._config.prompt.format(**names, text=segment) for segment in segments]
        answers = self._model.generate(prompts, self._config.max_new_tokens, self._config.batch_size)
        return [_translation(answer, segment) for segment, answer in zip(segments, answers, strict=True)]


# Every target language opens the translator anew; the model is loaded once.
@lru_cache(maxsize=1)
def _loaded(model: str, template: str | None, thinking: str) -> LM:
    return LM(model, template, **json.loads(thinking))


def _translation(answer: Generation, segment: str) -> str | NoTranslation:
    """What was cut off, or was not had, is no translation."""
    if answer.finish == "length":
        return NoTranslation("cut off")
    if answer.finish != "stop":
        return NoTranslation(answer.finish)
    return _unquoted(answer.text, segment)


def _check_prompt(prompt: str) -> None:
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(prompt) if name is not None}
    except ValueError as err:
        fix = "write a brace that is meant as {{ or }}"
        raise UserError(f"{err} in the prompt", fix, key="prompt") from None
    unknown = sorted(fields - {"source", "target", "text"})
    if unknown:
        fix = "known: {source} {target} {text}; write a brace that is meant as {{ or }}"
        raise UserError(f"unknown placeholder {{{unknown[0]}}} in the prompt", fix, key="prompt")
    missing = sorted({"target", "text"} - fields)
    if missing:
        raise UserError(f"the prompt has no {{{missing[0]}}}", "add it", key="prompt")


def _unquoted(text: str, segment: str) -> str:
    """`text` without the quotation marks around it, where `segment` has none around it."""
    inner = text[1:-1]
    ends, segment_ends = text[:1] + text[-1:], segment[:1] + segment[-1:]
    is_quoted = len(text) > 2 and ends in _QUOTES and not any(mark in inner for mark in ends)
    return inner.strip() if is_quoted and segment_ends not in _QUOTES else text
