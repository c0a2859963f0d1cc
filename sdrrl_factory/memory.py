"""The one memory: what a translator, a server or a model has answered is never asked again, by any run.

    with Memory(beside(config.work_dir)) as memory:
        kind = kind_of("generate", model=model_hash, max_new_tokens=64)
        answers = memory.get(kind, prompts)                     # those that are known
        memory.put(kind, {prompt: answer for ... in a_batch})   # as each batch is done

A `kind` holds everything but the input that an answer depends on: the checkpoint and its prompt format, the decoding
settings, the device. The `key` is the input itself. So `sdrrl prepare` and `sdrrl eval` of one model share answers, and
whatever changes an answer changes its kind. What failed is not put: the next run asks it again.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from sdrrl_factory.errors import UserError

_WAIT = 600  # seconds for another run's write to end; each takes milliseconds


def kind_of(what: str, **settings: Any) -> str:
    """`what` was asked, under `settings` (what JSON can hold): the same text for the same settings."""
    return f"{what} {key_of(settings)}"


def key_of(value: Any) -> str:
    """An input (what JSON can hold) as text that people can read too: the same text for the same input."""
    return _json(value, sort_keys=True)


def _json(value: Any, sort_keys: bool = False) -> str:
    text = json.dumps(value, sort_keys=sort_keys, ensure_ascii=False)
    # Half a surrogate pair, which JSON can write and UTF-8 cannot, goes back to JSON's way of writing it.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def beside(folder: str) -> Path:
    """The memory of a run that writes to `folder`: in the `runs` it lies in, which all runs share, else beside it."""
    path = Path(folder)
    return next((p for p in path.parents if p.name == "runs"), path.parent) / "memory.sqlite"


class Memory:
    """(kind, key) -> answer, in an SQLite file that several runs may use at once; not for network disks.

    Each `put` is kept whole or not at all: a kill loses the batch in work. An answer is what JSON can hold.

    Raises: UserError, from its first use on, where the file is no memory, or cannot be written.
    """

    # In a worker of a cluster: asks the one process that has the file open, (path, method, its arguments) -> result.
    # SQLite's locks do not hold over the file systems that machines share.
    served: ClassVar[Callable[..., Any] | None] = None

    def __init__(self, path: Path):
        self.path = path
        self._noted: dict[tuple[str, str], Any] = {}

    @cached_property
    def _db(self) -> sqlite3.Connection:
        # Opened at first use, so that a memory can travel to another process, where the file is opened anew.
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self.path, timeout=_WAIT)
            db.execute("PRAGMA journal_mode=WAL")
            # A kill loses nothing that was put; a power cut may lose the last batches, and breaks nothing.
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute(
                "CREATE TABLE IF NOT EXISTS memory (kind TEXT, key TEXT, answer TEXT, PRIMARY KEY (kind, key))"
                " WITHOUT ROWID"
            )
            return db
        except (OSError, sqlite3.Error) as err:
            what = f"no memory of answers ({err})"
            raise UserError(what, "move the file away, or name another in `memory:`", at=str(self.path)) from None

    def __reduce__(self) -> tuple[type["Memory"], tuple[Path]]:
        return Memory, (self.path,)

    def __enter__(self) -> "Memory":
        self.open()
        return self

    def open(self) -> None:
        """Say before any work that the file is no memory, or cannot be written."""
        if not Memory.served:
            self._db  # noqa: B018

    def __exit__(self, *error: object) -> None:
        self.close()

    def get(self, kind: str, keys: Iterable[str]) -> dict[str, Any]:
        """The answers to those of `keys` that are known."""
        if Memory.served:
            return Memory.served(self.path, "get", kind, list(keys))
        answers = {}
        with self._mistakes("read"):
            for key in keys:
                row = self._db.execute("SELECT answer FROM memory WHERE kind=? AND key=?", (kind, key)).fetchone()
                if row:
                    answers[key] = json.loads(row[0])
        return answers

    def knows(self, kind: str) -> bool:
        """Whether there is any answer of the kind."""
        if Memory.served:
            return Memory.served(self.path, "knows", kind, None)
        with self._mistakes("read"):
            return self._db.execute("SELECT 1 FROM memory WHERE kind=? LIMIT 1", (kind,)).fetchone() is not None

    def put(self, kind: str, answers: Mapping[str, Any]) -> None:
        """Keep answers, for good."""
        if answers and Memory.served:
            Memory.served(self.path, "put", kind, dict(answers))
        elif answers:
            rows = [(kind, key, _json(answer)) for key, answer in answers.items()]
            with self._mistakes("written"), self._db:
                self._db.executemany("INSERT OR REPLACE INTO memory VALUES (?, ?, ?)", rows)

    def note(self, kind: str, answers: Mapping[str, Any]) -> None:
        """Keep answers until this memory is closed: why something failed, which the next run should ask again."""
        if answers and Memory.served:
            Memory.served(self.path, "note", kind, dict(answers))
        else:
            self._noted |= {(kind, key): answer for key, answer in answers.items()}

    def noted(self, kind: str, keys: Iterable[str]) -> dict[str, Any]:
        """What was noted of those of `keys`."""
        if Memory.served:
            return Memory.served(self.path, "noted", kind, list(keys))
        return {key: self._noted[kind, key] for key in keys if (kind, key) in self._noted}

    def take_translations(self, old: Path) -> None:
        """Copy, once, the translations of a `translations.sqlite`, as they were kept before there was this file."""
        mark = str(old.absolute())
        if not old.is_file() or self.get("taken over", [mark]):
            return
        with suppress(sqlite3.Error), closing(sqlite3.connect(old)) as db:  # a broken one: what it held is asked anew
            rows = db.execute("SELECT translator, source, target, segment, translation FROM memory")
            while batch := rows.fetchmany(10_000):
                by_kind: dict[str, dict[str, str]] = {}
                for translator, source, target, segment, translation in batch:
                    by_kind.setdefault(translation_kind(translator, source, target), {})[segment] = translation
                for kind, translations in by_kind.items():
                    self.put(kind, translations)
        self.put("taken over", {mark: True})

    def __len__(self) -> int:
        return self._db.execute("SELECT count(*) FROM memory").fetchone()[0]

    def close(self) -> None:
        self._noted.clear()
        if db := self.__dict__.pop("_db", None):
            db.close()

    @contextmanager
    def _mistakes(self, done: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as err:
            raise UserError(f"cannot be {done} ({err})", "make room and run it again", at=str(self.path)) from None


def translation_kind(translator: str, source: str, target: str) -> str:
    """Of one segment by the translator of that name."""
    return kind_of("translate", translator=translator, source=source, target=target)
