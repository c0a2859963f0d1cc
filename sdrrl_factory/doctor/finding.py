"""What the doctor finds: a line each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sdrrl_factory.errors import UserError
from sdrrl_factory.recipe import Recipe


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    state: "ok", "no" (it fails), "-" (not here, and not needed).
    what: its name. detail: what is there, or what is wrong. fix: the next step.
    """

    state: str
    what: str
    detail: str
    fix: str = ""


def failure(what: str, err: UserError) -> Finding:
    place = err.at or err.key
    detail = f"{place}: {err.what}" if place else err.what
    return Finding("no", what, " ".join(detail.split()), err.fix)


def attempt(recipe: Recipe, what: str, check: Callable[..., str], *args: Any) -> Finding:
    """What `check(*args)` returns, or the mistake it raises, with the line of the recipe's key."""
    try:
        with recipe.locating():
            return Finding("ok", what, check(*args))
    except UserError as err:
        return failure(what, err)
    except ImportError as err:
        return Finding("no", what, f"cannot be checked ({err})", "mend what is above")
