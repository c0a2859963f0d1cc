"""The keys of an evaluation recipe."""

import difflib
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from sdrrl_factory.errors import UserError
from sdrrl_factory.recipe import Group

# What each task takes besides task, path, langs and max_new_tokens.
_TAKES = {
    "translation": ("source_lang", "prompt", "metrics", "comet_model"),
    "flores": ("source_lang", "prompt", "metrics", "comet_model", "tokenizer"),
    "belebele": ("prompt", "metrics", "mode", "shots", "examples"),
    "xlsum": ("prompt", "metrics", "tokenizer"),
    "mkqa": ("prompt", "metrics"),
    "instructions": ("metrics",),
    "off_target": ("identifier",),
    "text_loss": (),
}


class TaskConfig(Group):
    """One entry under `tasks`; null is the task's own choice."""

    task: Literal["belebele", "flores", "xlsum", "mkqa", "translation", "off_target", "instructions", "text_loss"]
    path: str
    """The official files: a FLORES-200 shaped folder, or files with {lang} in their name: the ISO 639-3 code; the other
    columns of the table of languages can stand there as well ({flores}, {iso1}, {bactrian})."""
    langs: list[str] = Field(min_length=1)
    """ISO 639-3 codes."""
    source_lang: str = "eng"
    """The other language of a translation."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    mode: str | None = None
    """belebele: generate has the model write the letter."""
    shots: int | None = Field(default=None, ge=0)
    """belebele: examples before the question."""
    examples: str | None = None
    """belebele: where the shots are drawn from."""
    prompt: str | None = None
    tokenizer: str | None = None
    """flores, translation: sacrebleu's; xlsum: xlsum or rouge-score."""
    metrics: list[str] | None = Field(default=None, min_length=1)
    comet_model: str = "Unbabel/wmt22-comet-da"
    """A folder or a hub id."""
    identifier: Literal["fasttext", "cld3"] = "fasttext"
    """off_target: what tells an answer's language."""


class ServerConfig(Group):
    """An OpenAI-compatible server; `model` is then the name it knows the checkpoint by."""

    base_url: str
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the server's key."""
    concurrency: int = Field(default=8, ge=1)
    """Requests at a time."""
    timeout: float = Field(default=120.0, ge=0.1)
    """Seconds a request may take."""
    retries: int = Field(default=6, ge=0)
    """Tries after 429, 5xx, timeouts and broken connections, with growing waits."""


class EvalConfig(Group):
    """An evaluation recipe: a checkpoint, and what is measured of it."""

    model: str
    """A checkpoint's folder, a hub id, or its name on the server."""
    tasks: list[TaskConfig] = Field(min_length=1)
    output_dir: str
    """Gets results.json, predictions/ and answers/."""
    adapter: str | None = None
    """A LoRA folder put over the model."""
    template: str | None = None
    """The LLaMA-Factory template; null: the checkpoint's own chat template."""
    server: ServerConfig | None = None
    max_samples: int | None = Field(default=None, ge=1)
    """The first so many items of every file."""
    max_new_tokens: int = Field(default=64, ge=1)
    """A task may set its own."""
    batch_size: int = Field(default=16, ge=1)
    """A batch halves itself when memory runs out."""
    seed: int = Field(default=42, ge=0)
    """Draws the bootstrap intervals."""


def check(config: EvalConfig, place: Callable[[str], str]) -> None:
    """Say at once which keys do not go together."""
    for i, task in enumerate(config.tasks):
        for name, key in TaskConfig.model_fields.items():
            if key.is_required() or name == "max_new_tokens" or name in _TAKES[task.task]:
                continue
            if getattr(task, name) != key.default:
                takes = ", ".join(_TAKES[task.task]) or "no further keys"
                raise UserError(f"{place(f'tasks.{i}.{name}')}: not for {task.task}, which takes {takes}; remove it")
    for name in ("adapter", "template"):
        if config.server and getattr(config, name):
            raise UserError(f"{place(name)}: a server has its own {name}; remove it, or remove server")


def metrics(task: TaskConfig, known: tuple[str, ...], default: tuple[str, ...], place: str) -> tuple[str, ...]:
    """The metrics asked for, in the order of `known`."""
    for name in task.metrics or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
            raise UserError(f"{place}.metrics: {task.task} has no metric {name!r}; {hint}")
    return tuple(m for m in known if m in (task.metrics or default))
