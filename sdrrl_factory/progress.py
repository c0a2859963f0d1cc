"""How far a long step is: a bar on a terminal, elsewhere a line every 30 seconds.

with progress("generate", 197) as meter:
    meter.advance(32)

generate  120 of 197 records, 3.2/s, 0:24 left, 2 retries, 1 failures

Who watches from another process, as the page does, names a file in the environment: there the same stands every second.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from sdrrl_factory import log

SECONDS = 30.0  # between two lines
VARIABLE = "SDRRL_PROGRESS"  # names the file
_ALWAYS = ("retries", "failures")  # told in a line even where there are none


class Meter:
    """What a step has done, and how fast.

    Args:
        what: the step's name.
        total: 0 where nobody knows.
        unit: what is counted.
        known: those that were done before, by another run; they say nothing of the speed.
    """

    def __init__(
        self, what: str, total: int, unit: str = "records", known: int = 0, clock: Callable[[], float] = time.monotonic
    ):
        self.what, self.total, self.unit, self.known = what, total, unit, known
        self.done, self.note = known, ""  # note: stands behind the last line
        self.aside = ""  # stands behind what is done: who does it, what else has to be done before
        self._clock, self._began, self._before = clock, clock(), log.counted()

    @property
    def seconds(self) -> float:
        """Since the step began."""
        return self._clock() - self._began

    def advance(self, number: int) -> None:
        """So many more are done; fewer where what seemed done has to go on."""
        self.done += number

    def know(self, number: int) -> None:
        """So many more were done before."""
        self.done, self.known = self.done + number, self.known + number

    def state(self, always: tuple[str, ...] = ()) -> str:
        """Done, total, rate, time left, and what was counted meanwhile; always: what is told even if it is 0."""
        rate = (self.done - self.known) / max(self.seconds, 1e-3)
        if not self.total and not self.done:
            parts = [f"{_clock_time(self.seconds)} so far"]
        else:
            of = f" of {self.total:,}" if self.total else ""
            parts = [f"{self.done:,}{of} {self.unit}".rstrip(), f"{rate:.1f}/s"]
        if rate > 0 and self.total:
            parts.append(f"{_clock_time((self.total - self.done) / rate)} left")
        if self.aside:
            parts.append(self.aside)
        counted = log.counted() - self._before
        for name in dict.fromkeys([*always, *counted]):
            parts.append(f"{counted[name]:,} {name}")
        return ", ".join(parts)

    def line(self) -> str:
        return f"{self.what:9} {self.state(_ALWAYS)}"


@contextmanager
def progress(what: str, total: int, unit: str = "records", known: int = 0) -> Iterator[Meter]:
    """Show how far a step is for as long as the `with` lasts. Args: as of `Meter`."""
    meter = Meter(what, total, unit, known)
    has_bar = Console().is_terminal and not log.is_quiet()
    tell = log.detail if has_bar else log.say
    ended = threading.Event()
    # A thread, as nothing may come back for minutes: a model is loading, a batch is large, a server is silent.
    ticker = threading.Thread(target=_tell, args=(meter, ended, tell), daemon=True)
    ticker.start()
    watcher = _Watcher(meter, os.environ.get(VARIABLE, ""))
    watcher.start()
    try:
        with Progress(TextColumn("{task.description:9}"), BarColumn(), _State(meter), disable=not has_bar) as bar:
            # The bar draws itself anew ten times a second; its last column looks at the meter.
            bar.add_task(what, total=total or None)
            yield meter
        if total or meter.done:
            tell(f"{what:9} {f'{meter.done:,} {unit}'.rstrip()} in {meter.seconds:.1f} s{meter.note}")
    finally:
        ended.set()
        watcher.end()


def _tell(meter: Meter, ended: threading.Event, say: Callable[[str], None]) -> None:
    while not ended.wait(SECONDS):
        say(meter.line())


class _Watcher:
    """Writes the meter to a file, every second and at the end; nothing without a file."""

    def __init__(self, meter: Meter, file: str):
        self._meter, self._file, self._ended = meter, file, threading.Event()
        self._thread = threading.Thread(target=self._write_on, daemon=True)

    def start(self) -> None:
        if self._file:
            self._thread.start()

    def end(self) -> None:
        if self._file:
            self._ended.set()
            self._thread.join()
            self._write()

    def _write_on(self) -> None:
        while True:
            self._write()
            if self._ended.wait(1.0):
                return

    def _write(self) -> None:
        meter = self._meter
        facts = {"what": meter.what, "done": meter.done, "total": meter.total, "state": meter.state()}
        # A reader sees the old file or the new one. Not on the disk at once: it is of use for a second only.
        part = f"{self._file}.{os.getpid()}.part"
        with suppress(OSError):  # nobody's work fails because nobody can watch it
            with open(part, "w", encoding="utf-8") as f:
                json.dump(facts, f)
            os.replace(part, self._file)


class _State(ProgressColumn):
    """The meter's words, behind the bar that it moves."""

    def __init__(self, meter: Meter):
        self._meter = meter
        super().__init__()

    def render(self, task: Task) -> Text:
        task.completed = self._meter.done
        return Text(self._meter.state())


def _clock_time(seconds: float) -> str:
    """0:24, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
