"""The one error a user is meant to see."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class UserError(Exception):
    """A mistake the user can mend, told in one line: where it is, what is wrong, the next step.

    The code that finds a mistake knows which key of the recipe it is about, not where the key stands; the command line
    and the Python interface know the recipe and put file:line before it. A mistake in a file of data has `at` instead.

    Args:
        what: what is wrong.
        fix: the next step.
        key: the dotted key of the recipe that has to change, relative to what the raiser was given (see `under`).
        at: where in a file of data, as "file" or "file:line".
    """

    def __init__(self, what: str, fix: str = "", *, key: str = "", at: str = ""):
        super().__init__(what)
        self.what, self.fix, self.key, self.at = what, fix, key, at

    def __str__(self) -> str:
        where = self.at or self.key
        line = f"{where}: {self.what}" if where else self.what
        return f"{line}; {self.fix}" if self.fix else line

    def __reduce__(self) -> tuple:
        return _rebuild, (type(self), self.what, self.fix, self.key, self.at)


class Mistakes(UserError):
    """All that is wrong with a recipe, a line each."""

    def __init__(self, mistakes: Sequence[UserError]):
        super().__init__(mistakes[0].what, mistakes[0].fix, key=mistakes[0].key, at=mistakes[0].at)
        self.mistakes = list(mistakes)

    def __str__(self) -> str:
        return "\n".join(map(str, self.mistakes))

    def __reduce__(self) -> tuple:
        return type(self), (self.mistakes,)


def _rebuild(cls: type[UserError], what: str, fix: str, key: str, at: str) -> UserError:
    return cls(what, fix, key=key, at=at)


@contextmanager
def under(key: str) -> Iterator[None]:
    """Errors raised inside are about `key` of the recipe, or about a key below it."""
    try:
        yield
    except UserError as err:
        if not err.at:
            err.key = f"{key}.{err.key}" if err.key else key
        raise
