"""What the model under evaluation says: each answer and loss is kept as it comes, so a killed evaluation goes on."""

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from sdrrl_eval.measure import checkpoint
from sdrrl_eval.measure.limits import Cut
from sdrrl_eval.measure.recipe import EvalConfig
from sdrrl_factory.engine import Engine
from sdrrl_factory.errors import UserError, under
from sdrrl_factory.log import say
from sdrrl_factory.memory import Memory
from sdrrl_factory.models.likelihoods import Likelihoods
from sdrrl_factory.models.lm import computed_in
from sdrrl_factory.models.remembered import RememberedModel, set_keys
from sdrrl_factory.models.served import ServedLikelihoods
from sdrrl_factory.models.server import from_keys

_AT_A_TIME = 256  # texts whose lengths are kept together


class Answers(RememberedModel):
    """The recipe's model, or the server in its place; what is wrong with its files or its address is said here.

    A model that cannot be loaded, or a server that cannot answer, is a UserError when first asked.

    engine: as of `RememberedModel`.
    """

    def __init__(self, config: EvalConfig, engine: Engine | None = None):
        memory = Memory(config.memory_path())
        self._config, server = config, None
        settings = set_keys(enable_thinking=config.enable_thinking, chat_template_kwargs=config.chat_template_kwargs)
        if config.server:
            with under("server"):
                server = from_keys(config.server, config.server.base_url, config.model, **settings)
                settings = set_keys(extra_body=server.extra_body)
        else:
            checkpoint.check(config)
            settings |= set_keys(precision=computed_in(config.precision))
        memory.open()
        super().__init__(
            memory,
            config.model,
            config.template,
            config.adapter,
            load=self._load,
            server=server,
            server_run=config.output_dir,
            report=_progress,
            settings=settings,
            engine=engine,
            tokenizer=config.server.tokenizer if config.server else None,
        )

    def _load(self) -> Likelihoods:
        config = self._config
        if not self._server or not config.server:
            return checkpoint.load(config)
        tokenizer = config.server.tokenizer or config.model
        return ServedLikelihoods(self._server, tokenizer, config.enable_thinking, config.chat_template_kwargs)

    def check_likelihoods(self) -> None:
        """Ask a server how it tells likelihoods before it is asked for hours of answers, where a task needs them.

        Raises: UserError about the key "server", or about a task that needs others.
        """
        for i, task in enumerate(self._config.tasks if self._server else []):
            fix = task.without_likelihoods()
            if fix:
                [way] = self.remember("way of likelihoods", self._asked_by(), "", [""], self._ways, 1)
                if way == "next" and task.needs_losses():
                    what = f"{task.task} needs the likelihoods of texts, and the server tells those of next tokens"
                    raise UserError(what, fix, key=f"tasks.{i}")

    def _ways(self, _: list[str]) -> list[str]:
        assert isinstance(self.likelihoods, ServedLikelihoods)
        return [self.likelihoods.way]

    def remember(self, *args: Any, **settings: Any) -> list:
        """As `RememberedModel.remember`; what is wrong with a server is said under its group."""
        with under("server") if self._server else nullcontext():
            return super().remember(*args, **settings)

    def release(self) -> None:
        """Let go of the model, if it was loaded: memory is free for COMET, or for the next checkpoint."""
        self.__dict__.pop("model", None)
        gc.collect()
        # Nothing was computed by torch where a server answers, or the memory.
        if torch := sys.modules.get("torch"):
            torch.cuda.empty_cache()

    # --- room in the context; remembered, so that a whole evaluation is repeated without the model

    def window(self) -> tuple[int | None, int]:
        """(tokens of prompt and answer together, None without a limit; how many the prompt format adds to a prompt).

        A server knows its own: it refuses what is too long, and that is counted as an answer that did not come.
        """
        if self._server:
            return None, 0
        context, added = self.remember("window", {}, "", [""], self._window, 1)[0]
        return context, added

    def lengths(self, texts: Sequence[str], system: str | None) -> list[int]:
        """How many tokens each prompt has: with the prompt format and this system prompt, or, None, as plain text."""
        return self.remember("tokens", {"system": system}, "", texts, partial(self._lengths, system), _AT_A_TIME)

    def letters_that_fit(self, cuts: Sequence[Cut]) -> list[int]:
        """How many letters of each article may stay; -1 where not even the prompt without it fits."""
        inputs = [[cut.before, cut.article, cut.after, cut.room, cut.system] for cut in cuts]
        return self.remember("letters that fit", {}, "", inputs, self._letters_that_fit, _AT_A_TIME)

    def _window(self, _: list[str]) -> list[tuple[int | None, int]]:
        return [(checkpoint.context_length(self.model.model.config), len(self.model.encode("")))]

    def _lengths(self, system: str | None, texts: list[str]) -> list[int]:
        if system is None:
            return [len(ids) for ids in self.model.tokenizer(texts)["input_ids"]]
        return [len(self.model.encode(text, system)) for text in texts]

    def _letters_that_fit(self, cuts: list[list]) -> list[int]:
        letters = []
        for before, article, after, room, system in cuts:
            # Bisection: so many letters fit, so many do not.
            fits, too_many = -1, len(article)
            while too_many - fits > 1:
                middle = (fits + too_many) // 2
                if self._lengths(system, [before + article[:middle] + after])[0] <= room:
                    fits = middle
                else:
                    too_many = middle
            letters.append(fits)
        return letters

    def _ask_server(self, max_new_tokens: int, temperature: float, prompts: list) -> Iterator[tuple[list, list]]:
        with under("server"):
            yield from super()._ask_server(max_new_tokens, temperature, prompts)


@contextmanager
def _progress(what: str, total: int, remembered: int) -> Iterator[Callable[[int], None]]:
    """How many there are, and then how far they are."""
    from sdrrl_factory.progress import progress

    say(f"{total} {what}, {remembered} known" if remembered else f"{total} {what}")
    with progress(what, total, "", remembered) as meter:
        yield meter.advance
