"""The keys of an evaluation recipe."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class TaskConfig:
    """One entry under `tasks`. `path` is a FLORES-200 shaped folder, or question files with `{lang}` in their name."""

    task: Literal["translation", "off_target", "instructions", "text_loss"]
    path: str
    langs: list[str]
    source_lang: str = "eng"
    max_new_tokens: int | None = field(default=None, metadata={"min": 1})


@dataclass
class EvalConfig:
    """`max_samples` takes the first so many items of every file; `seed` draws the bootstrap intervals."""

    model: str
    tasks: list[TaskConfig]
    output_dir: str
    adapter: str | None = None
    template: str | None = None
    max_samples: int | None = field(default=None, metadata={"min": 1})
    max_new_tokens: int = field(default=64, metadata={"min": 1})
    batch_size: int = field(default=16, metadata={"min": 1})
    seed: int = field(default=42, metadata={"min": 0})
