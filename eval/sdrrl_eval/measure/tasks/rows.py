"""The rows of a benchmark's file: JSONL, a JSON array, either of them gzipped."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import read_jsonl, read_text


def rows(path: str | Path) -> Iterator[tuple[int, dict]]:
    """Yield (line, or place in the array, from 1; object)."""
    text = _unpacked(Path(path)) if str(path).endswith(".gz") else None
    if text is None and not str(path).endswith(".json"):
        yield from read_jsonl(path)
        return
    text = read_text(path) if text is None else text
    for number, one in _listed(text, path):
        if not isinstance(one, dict):
            raise UserError(f"{path}:{number}: {type(one).__name__} instead of an object {{...}}; mend it")
        yield number, one


def _unpacked(path: Path) -> str:
    try:
        return gzip.decompress(path.read_bytes()).decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path") from None
    except UnicodeDecodeError as err:
        raise UserError(f"{path}: not UTF-8 (byte {err.start} unpacked); fetch it again") from None
    except (OSError, EOFError, zlib.error) as err:
        why = getattr(err, "strerror", None) or "not a whole gzip file"
        raise UserError(f"{path}: {why}; fetch it again") from None


def _listed(text: str, path: str | Path) -> Iterator[tuple[int, object]]:
    if text.lstrip()[:1] == "[":
        try:
            yield from enumerate(json.loads(text), 1)
        except ValueError as err:
            raise UserError(f"{path}: not JSON ({err}); fetch it again") from None
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as err:
                raise UserError(f"{path}:{number}: not JSON ({err}); mend or remove the line") from None
