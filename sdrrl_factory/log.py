"""What a command says of its work: on the terminal, and, with the time, in the log file of its run.

with log_file(folder / "prepare.log", "sdrrl prepare demo.yaml"):
    say("reading   197 records")               # on the terminal, unless -q
    detail("another try in 2 s (429)")         # with -v; in the file always
    count("retries")                           # so far, for the lines of progress.py
"""

import io
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sdrrl_factory.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

_logger = logging.getLogger("sdrrl_factory")
_PRINTED = {"is_printed": True}  # marks a record that is on the terminal already
_counts: Counter[str] = Counter()
_lock = threading.Lock()


class _Terminal(logging.Handler):
    """Prints to the standard output of the moment: a test or a bar may have put another in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        if not hasattr(record, "is_printed"):
            print(record.getMessage(), flush=True)


_terminal = _Terminal(logging.INFO)
_logger.addHandler(_terminal)
_logger.setLevel(logging.DEBUG)
_logger.propagate = False


def set_verbosity(quiet: bool = False, verbose: bool = False) -> None:
    """quiet: the terminal is told warnings alone; verbose: details too. The log file has everything always."""
    _terminal.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)


def is_quiet() -> bool:
    """Whether the terminal is told warnings alone."""
    return _terminal.level > logging.INFO


def say(line: str) -> None:
    """What every user wants to know."""
    _logger.info("%s", line)


def warn(line: str) -> None:
    """What has to be known under -q too."""
    _logger.warning("%s", line)


def detail(line: str) -> None:
    """What explains a run that did not go as it should."""
    _logger.debug("%s", line)


def show(table: "Table") -> None:
    """A table: as wide as the terminal, and plain in 120 columns elsewhere."""
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=120).print(table)
    console = Console()
    if console.is_terminal and not is_quiet():
        console.print(table)
        _logger.info("%s", text.getvalue().rstrip(), extra=_PRINTED)
    else:
        say(text.getvalue().rstrip())


def count(what: str, number: int = 1) -> None:
    """Add to what is counted; threads may."""
    with _lock:
        _counts[what] += number


def counted() -> Counter[str]:
    """All that was counted in this process so far."""
    with _lock:
        return _counts.copy()


@contextmanager
def log_file(path: Path, title: str) -> Iterator[None]:
    """All that is said inside is added to the file, and what ended it, with the traceback of a fault of ours."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    _logger.addHandler(handler)
    try:
        detail(title)
        yield
        detail("done")
    except UserError as err:
        _logger.debug("%s", err, extra=_PRINTED)
        raise
    except BaseException as err:
        _logger.debug("ended by %s", type(err).__name__, exc_info=isinstance(err, Exception), extra=_PRINTED)
        raise
    finally:
        _logger.removeHandler(handler)
        handler.close()
