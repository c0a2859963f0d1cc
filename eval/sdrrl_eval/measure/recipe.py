"""The keys of an evaluation recipe."""

import difflib
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Literal

from sdrrl_factory.errors import UserError

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


@dataclass
class TaskConfig:
    """One entry under `tasks`. `path`: a FLORES-200 shaped folder, or files with `{lang}` in their name.

    `{lang}` is the ISO 639-3 code; the table's other columns can stand there as well ({flores}, {iso1}, {bactrian}).
    mode, shots, prompt, tokenizer, metrics: None is the task's own choice. examples: where the shots are drawn from.
    comet_model: a folder or a hub id.
    """

    task: Literal["belebele", "flores", "xlsum", "mkqa", "translation", "off_target", "instructions", "text_loss"]
    path: str
    langs: list[str]
    source_lang: str = "eng"
    max_new_tokens: int | None = field(default=None, metadata={"min": 1})
    mode: str | None = None
    shots: int | None = field(default=None, metadata={"min": 0})
    examples: str | None = None
    prompt: str | None = None
    tokenizer: str | None = None
    metrics: list[str] | None = None
    comet_model: str = "Unbabel/wmt22-comet-da"
    identifier: Literal["fasttext", "cld3"] = "fasttext"


@dataclass
class ServerConfig:
    """An OpenAI-compatible server; `model` is then the name it knows the checkpoint by."""

    base_url: str
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = field(default=8, metadata={"min": 1})
    timeout: float = field(default=120.0, metadata={"min": 0.1})
    retries: int = field(default=6, metadata={"min": 0})


@dataclass
class EvalConfig:
    """`max_samples` takes the first so many items of every file; `seed` draws the bootstrap intervals."""

    model: str
    tasks: list[TaskConfig]
    output_dir: str
    adapter: str | None = None
    template: str | None = None
    server: ServerConfig | None = None
    max_samples: int | None = field(default=None, metadata={"min": 1})
    max_new_tokens: int = field(default=64, metadata={"min": 1})
    batch_size: int = field(default=16, metadata={"min": 1})
    seed: int = field(default=42, metadata={"min": 0})


def check(config: EvalConfig, place: Callable[[str], str]) -> None:
    """Say at once which keys do not go together."""
    for i, task in enumerate(config.tasks):
        for f in fields(TaskConfig):
            if f.default is MISSING or f.name == "max_new_tokens" or f.name in _TAKES[task.task]:
                continue
            if getattr(task, f.name) != f.default:
                takes = ", ".join(_TAKES[task.task]) or "no further keys"
                raise UserError(f"{place(f'tasks.{i}.{f.name}')}: not for {task.task}, which takes {takes}; remove it")
    for key in ("adapter", "template"):
        if config.server and getattr(config, key):
            raise UserError(f"{place(key)}: a server has its own {key}; remove it, or remove server")


def metrics(task: TaskConfig, known: tuple[str, ...], default: tuple[str, ...], place: str) -> tuple[str, ...]:
    """The metrics asked for, in the order of `known`."""
    for name in task.metrics or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
            raise UserError(f"{place}.metrics: {task.task} has no metric {name!r}; {hint}")
    return tuple(m for m in known if m in (task.metrics or default))
