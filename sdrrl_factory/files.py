"""Whole files: written all at once or not at all, hashed, read as text."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from sdrrl_factory.errors import UserError

_encode = json.JSONEncoder(ensure_ascii=False).encode
_paths_read: ContextVar[set[str] | None] = ContextVar("_paths_read", default=None)


def atomic_write(path: str | Path, data: str | bytes) -> None:
    """Write `data` so that a reader, or a kill, sees the old file or the new one, never a part.

    Where `path` is a link, the file it leads to is written; a file that is replaced keeps its mode.
    """
    raw = data.encode("utf-8") if isinstance(data, str) else data
    if is_device(path):
        Path(path).write_bytes(raw)
        return
    path = real_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(raw)
            # Without it a power failure can leave the new name on an empty file.
            f.flush()
            os.fsync(f.fileno())
        move(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def move(part: str | Path, path: Path) -> None:
    """Put a finished temporary file in the place of `path`, no link, with the mode of the file that it replaces."""
    # mkstemp makes files that only their owner can read; data sets are read by others.
    os.chmod(part, path.stat().st_mode & 0o7777 if path.is_file() else 0o644)
    os.replace(part, path)


def real_path(path: str | Path) -> Path:
    """Where a file is written: a link's own place stays a link, as data sets are often kept on another disk."""
    return Path(os.path.realpath(path))


def is_device(path: str | Path) -> bool:
    """Whether it is a terminal, a pipe or a device (/dev/stdout, /dev/null): that is written to, never replaced."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def refuse_foreign(path: str | Path, *marks: str) -> None:
    """Say before any work that a file stands in the way that the command did not write: it is not replaced.

    marks: what every file of this name that the command writes has in its first 4 KiB, one of them at least.

    Raises: UserError at the file, which asks for another name.
    """
    if not os.path.lexists(path) or is_device(path):
        return
    if os.path.isdir(path):
        raise UserError("cannot be written, it is a folder", "name a file in it", at=str(path))
    if not os.path.exists(path):
        return  # a link to a file that is still to be written
    with naming_errors(path), open(path, "rb") as f:
        head = f.read(4096)
    if head and not any(mark.encode("utf-8") in head for mark in marks):
        raise UserError("is there already, written by something else", "move it or choose another name", at=str(path))


def dump_line(row: dict) -> str:
    """One JSON object as a JSONL line: UTF-8 as it is, keys in the order given."""
    return _encode(row) + "\n"


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> None:
    """Write one object a line; a file that holds these bytes already keeps its time of change."""
    raw = "".join(map(dump_line, rows)).encode("utf-8")
    path = Path(path)
    if not (path.is_file() and path.stat().st_size == len(raw) and path.read_bytes() == raw):
        atomic_write(path, raw)


def looked_in(path: str | Path) -> str:
    """For the message about a path that is not there: what it is relative to, "" where it is absolute."""
    return "" if Path(path).is_absolute() else f" (looked in {Path.cwd()})"


@contextmanager
def recording() -> Iterator[set[str]]:
    """The paths of the files that are read inside, by whichever reader: what a result stands on."""
    paths: set[str] = set()
    token = _paths_read.set(paths)
    try:
        yield paths
    finally:
        _paths_read.reset(token)


@contextmanager
def naming_errors(path: str | Path) -> Iterator[None]:
    """What the system says against reading the file becomes a `UserError` that names it."""
    paths = _paths_read.get()
    if paths is not None:
        paths.add(str(path))
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"no such file{looked_in(path)}", "check the path", at=str(path)) from None
    except IsADirectoryError:
        raise UserError("is a folder", "name a file in it", at=str(path)) from None
    except PermissionError:
        raise UserError("may not be read", "check its permissions", at=str(path)) from None
    except OSError as err:
        raise UserError(f"cannot be read ({err.strerror or err})", "check the file", at=str(path)) from None


def read_text(path: str | Path) -> str:
    """The file's text, without a byte order mark; a missing or non-UTF-8 file is a `UserError` that names it."""
    try:
        with naming_errors(path):
            return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        raise UserError(f"not UTF-8 (byte {err.start})", "convert it, e.g. with iconv -t UTF-8", at=str(path)) from None


def sha256(data: str | bytes) -> str:
    return hashlib.sha256(data.encode("utf-8") if isinstance(data, str) else data).hexdigest()


def sha256_file(path: str | Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def count_lines(path: str | Path) -> int:
    with open(path, "rb") as f:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: f.read(1 << 20), b""))


def fingerprint(folder: str | Path) -> str:
    """Tells one model from another under the same path, without reading gigabytes: 12 hexadecimal digits."""
    parts = []
    for path in sorted(Path(folder).glob("*")):
        if path.suffix in (".json", ".jinja", ".safetensors", ".bin", ".model"):
            with open(path, "rb") as f:
                # Of a file of weights the first and the last MiB: its header, and the weights written last.
                head = f.read(1 << 20)
                f.seek(max(0, path.stat().st_size - (1 << 20)))
                parts.append(f"{path.name} {path.stat().st_size} {sha256(head + f.read())}")
    return sha256("\n".join(parts))[:12]
