"""What the model under evaluation says: each answer and loss is kept as it comes, so a killed evaluation goes on."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sdrrl_eval.measure import checkpoint
from sdrrl_eval.measure.recipe import EvalConfig
from sdrrl_factory.errors import under
from sdrrl_factory.memory import Memory, beside
from sdrrl_factory.models.lm import LM
from sdrrl_factory.models.remembered import RememberedModel, set_keys
from sdrrl_factory.models.server import Server


class Answers(RememberedModel):
    """The recipe's model, or the server in its place; what is wrong with its files or its address is said here.

    A model that cannot be loaded, or a server that cannot answer, is a UserError when first asked.
    """

    def __init__(self, config: EvalConfig):
        memory = Memory(Path(config.memory) if config.memory else beside(config.output_dir))
        self._config, server = config, None
        settings = set_keys(enable_thinking=config.enable_thinking, chat_template_kwargs=config.chat_template_kwargs)
        if config.server:
            with under("server"):
                server = Server(
                    config.server.base_url,
                    config.model,
                    api_key_env=config.server.api_key_env,
                    concurrency=config.server.concurrency,
                    timeout=config.server.timeout,
                    retries=config.server.retries,
                    extra_body=config.server.extra_body,
                    **settings,
                )
                settings = set_keys(extra_body=server.extra_body)
        else:
            checkpoint.check(config)
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
        )

    def _load(self) -> LM:
        return checkpoint.load(self._config)

    def _ask_server(self, max_new_tokens: int, temperature: float, prompts: list) -> Iterator[tuple[list, list]]:
        with under("server"):
            yield from super()._ask_server(max_new_tokens, temperature, prompts)


@contextmanager
def _progress(what: str, total: int, remembered: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, one plain line elsewhere."""
    if not sys.stdout.isatty():
        print(f"{total} {what}, {remembered} known" if remembered else f"{total} {what}", flush=True)
        yield lambda count: None
        return
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress(*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(what, total=total, completed=remembered)
        yield lambda count: bar.advance(task, count)
