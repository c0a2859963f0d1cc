"""What a training prints of the plugin: a line, or the one line that ends it."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

from sdrrl_factory.errors import UserError


def say(line: str) -> None:
    """One line, from the first rank of all."""
    if os.environ.get("RANK", "0") == "0":
        print(f"sdrrl: {line}", flush=True)


def stop(line: str) -> NoReturn:
    """Ends the command with status 2 and one line, from the first rank of each machine: others may be well."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"sdrrl: {' '.join(line.split())}", file=sys.stderr, flush=True)
    sys.exit(2)


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """A mistake the user can mend ends the command with its line."""
    try:
        yield
    except UserError as error:
        stop(str(error))
