"""Which folders the page may read and write: the one the server was started in, and those its starter named."""

import os
from pathlib import Path

from sdrrl_factory.errors import UserError

# Further folders, divided as in PATH: set where the server is started, never from the page.
VARIABLE = "SDRRL_WEBUI_FOLDERS"


def folders() -> list[str]:
    """The real paths of the folders, the working folder first."""
    named = os.environ.get(VARIABLE, "").split(os.pathsep)
    return [os.path.realpath(folder) for folder in [".", *filter(None, named)]]


def is_inside(path: str) -> bool:
    """Whether a path, or what it leads to as a link, lies in one of the folders."""
    # The shell's ~ is nobody's folder here, but some library might expand it.
    if path.startswith("~") or "\x00" in path:
        return False
    real = os.path.realpath(path)
    return any(real == folder or real.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders())


def refuse_outside(path: str, *, key: str = "", at: str = "") -> None:
    """Raises: UserError where the path leads out of the folders."""
    if not is_inside(path):
        shown = path if len(path) <= 80 else f"{path[:80]}..."
        fix = f"name one in it, or start the server with {VARIABLE}=FOLDER"
        raise UserError(f"{shown} lies outside the folder of the server", fix, key=key, at=at)


def files_below(folder: str, name: str, depth: int) -> list[Path]:
    """The files of a name, at most `depth` folders below `folder`, newest first; links out of the folders are left."""
    root = Path(folder)
    levels = ("/".join(["*"] * level + [name]) for level in range(depth + 1))
    paths = [path for pattern in levels for path in root.glob(pattern) if path.is_file() and is_inside(str(path))]
    return sorted(paths, key=lambda path: -path.stat().st_mtime)
