"""What a stage of the pipeline is: a batch of columns in, a batch of columns out, and nothing else that counts."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from sdrrl_factory.engine import Need
from sdrrl_factory.files import sha256
from sdrrl_factory.transfer.recipe import Running

# The columns of some records: every list has an item a record.
Batch = dict[str, list]
# Is told how many more records of a batch are done, while it is in work.
Progress = Callable[[int], None]
# A direction a translator is asked for: (source, target).
Hop = tuple[str, str]


def running() -> Any:
    """A field that says how a stage is run, and changes nothing of what comes out: a path, a batch size."""
    return dataclasses.field(metadata={"running": True})


def unseen(count: int) -> None:
    """The progress nobody looks at."""


class Stage:
    """Base of the stages, each a frozen dataclass whose fields are its settings.

    A stage travels to other processes (it pickles) as its settings alone. What cannot travel, a model or a database, is
    opened where the stage runs:

        with stage.open() as tool:
            for batch in batches:
                stage(batch, tool)

    The same settings and the same batch give the same result, on any machine, in any order, at any time.
    """

    # Goes up with every change of the code that changes what comes out.
    version: ClassVar[int] = 1

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    @contextmanager
    def open(self, progress: Progress = unseen) -> Iterator[Any]:
        """The tool that `__call__` works with, for as long as the `with` lasts; None where it needs none."""
        yield None

    def __call__(self, batch: Batch, tool: Any = None) -> Batch:
        """The batch with further columns."""
        raise NotImplementedError

    def need(self) -> Need:
        """What a worker needs that runs it, and how many workers make sense."""
        return Need()

    def kept_in(self) -> Path | None:
        """The memory that keeps what the stage asks of a model; None for one that asks nothing it keeps."""
        return None

    def segments(self, batch: Batch, tool: Any) -> dict[Hop, list[str]]:
        """What `__call__` would ask a translator about the batch and nobody has asked yet, by direction.

        Asked first of the whole corpus, so that each distinct sentence is translated once, beside others of its length.
        """
        return {}

    def answer(self, segments: Sequence[str], hop: Hop, tool: Any, reason: str = "") -> None:
        """Ask the translator what `segments` of all batches came to, a unit at a time.

        reason: why they are not asked, and have no translation; "" for those that are.
        """
        raise NotImplementedError

    def is_final(self, batch: Batch) -> bool:
        """Whether nothing in what came out failed for a passing reason, which the next run should try again."""
        return True

    def fingerprint(self) -> str:
        """A hash of all that the result depends on but the batch: the stage, its version, its settings."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]  # every subclass is a dataclass
        settings = {f.name: _plain(getattr(self, f.name)) for f in fields if not f.metadata.get("running")}
        return sha256(json.dumps([self.name, self.version, settings], sort_keys=True))


def _plain(value: Any) -> Any:
    """A setting as JSON can hold it; of a recipe's group, the keys that change an answer."""
    if isinstance(value, BaseModel):
        keys = type(value).model_fields
        return {name: _plain(getattr(value, name)) for name, key in keys.items() if Running not in key.metadata}
    return value
