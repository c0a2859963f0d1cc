"""The case study (the paper's Table 13): the same question, the answers of several systems side by side."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import regex

from sdrrl_eval import show
from sdrrl_eval.compare.runs import Row, Run, predictions, stem
from sdrrl_factory.errors import UserError
from sdrrl_factory.language_id import Identifier
from sdrrl_factory.languages import Language

_SAMPLES, _CASES = 10, 6
# Tasks whose answers are worth reading, and the item's own score that tells better from worse.
_SCORES = {"instructions": "chrf", "translation": "chrf", "flores": "chrf", "xlsum": "rougeL", "mkqa": "f1"}

# Of a window of so many words, the letters and the probability it takes to be in another language.
_WINDOW, _MIN_LETTERS, _SURE = 6, 12, 0.7


def first(runs: Sequence[Run], rows: Sequence[Row]) -> list[dict]:
    """The first items that every run answered, taken in turn from each file: nobody picks the pretty ones."""
    files = [_items(runs, score)[:_SAMPLES] for score in _files(rows)]
    longest = max(map(len, files), default=0)
    return [items[i] for i in range(longest) for items in files if i < len(items)][:_SAMPLES]


def pick(runs: Sequence[Run], rows: Sequence[Row], ids: list[str] | None = None) -> list[dict]:
    """The case study: the items named by `ids`, or those whose own score changed most from the base to the last run.

    Of the most changed, at most one better and one worse a file, six of each in all; the better ones come first.
    """
    if ids is not None:
        return _by_id(runs, rows, ids)
    better, worse = [], []
    for score in _files(rows):
        changed = [item for item in _items(runs, score) if item["change"]]
        changed.sort(key=lambda item: -item["change"])
        if len(runs) > 1 and changed:
            better += [changed[0]] * (changed[0]["change"] > 0)
            worse += [changed[-1]] * (changed[-1]["change"] < 0)
    better.sort(key=lambda item: -item["change"])
    worse.sort(key=lambda item: item["change"])
    return better[:_CASES] + worse[:_CASES]


def _by_id(runs: Sequence[Run], rows: Sequence[Row], ids: list[str]) -> list[dict]:
    items = [item for score in _files(rows) for item in _items(runs, score)]
    missing = [wanted for wanted in ids if not any(wanted in (item["id"], item["file"]) for item in items)]
    if missing:
        raise UserError(f"--cases {missing[0]}: no such item in every run's predictions; name an id, or FILE:id")
    return [item for wanted in ids for item in items if wanted in (item["id"], item["file"])]


def _files(rows: Sequence[Row]) -> list[dict]:
    """One score of each predictions file worth reading."""
    return list({stem(s): s for s in (row.scores[0] for row in reversed(rows)) if s["task"] in _SCORES}.values())[::-1]


def _items(runs: Sequence[Run], score: dict) -> list[dict]:
    """The items that every run answered: question, reference, each run's answer, the change of its score."""
    name = stem(score)
    folders = [_folder(run, score) for run in runs]
    answers = [predictions(folder, name) if folder else {} for folder in folders]
    off_target = f"off_target.{score['target_lang']}"
    flags = [
        predictions(folder, off_target) if folder and score["task"] == "instructions" else {} for folder in folders
    ]
    shared = [item for item in answers[0] if all(item in given for given in answers)]
    return [
        _item(score, item, [a[item] | _flag(f.get(item, {})) for a, f in zip(answers, flags, strict=True)])
        for item in shared
    ]


def _flag(row: dict) -> dict:
    return {name: row.get(name) for name in ("off_target", "language")}


def _item(score: dict, item: tuple[str, str], answers: list[dict]) -> dict:
    metric = _SCORES[score["task"]]
    base, last = (row.get(metric) for row in (answers[0], answers[-1]))
    known = isinstance(base, int | float) and isinstance(last, int | float)
    return {
        "id": item[0],
        "file": f"{stem(score)}:{item[0]}",
        "task": f"{show.task(score['task'])}, {show.direction(score)}",
        "lang": score["target_lang"],
        "metric": metric,
        "question": answers[0].get("prompt"),
        "reference": answers[0].get("reference"),
        "answers": answers,
        "change": last - base if known else 0.0,
    }


def _folder(run: Run, score: dict) -> Path | None:
    """Where the run's predictions for the file of `score` lie."""
    return next((s["folder"] for s in run.scores.values() if stem(s) == stem(score)), None)


def foreign(text: str, lang: Language) -> list[tuple[str, bool]]:
    """`text` in pieces that join to it: (piece, whether it looks like another language than `lang`).

    No dictionary is asked. A word is marked for a letter outside the language's script or, in languages with spaces,
    for standing in runs of six words most of which fastText surely takes for another language. So a borrowed word
    may be marked, a misspelt or a short foreign one may not: a hint for the eye, not a verdict.
    """
    # Where no blank divides words, a run of letters of another script is one.
    pieces = regex.split(r"(\s+)" if lang.spaced else rf"(\s+|{_alien(lang)}+)", text, flags=regex.V1)
    words = [i for i, piece in enumerate(pieces) if piece and not piece.isspace()]
    marked = {i for i in words if _other_script(pieces[i], lang)}
    if lang.spaced:
        marked |= {words[k] for k in _foreign_runs([pieces[i] for i in words], lang)}
    out: list[tuple[str, bool]] = []
    for i, piece in enumerate(pieces):
        # A gap between two marked words is marked with them.
        flag = i in marked or (piece.isspace() and i - 1 in marked and i + 1 in marked)
        if out and out[-1][1] == flag:
            out[-1] = (out[-1][0] + piece, flag)
        elif piece:
            out.append((piece, flag))
    return out


def _alien(lang: Language) -> str:
    """A letter of a script that `lang` is not written in; Common and Inherited are everyone's."""
    own = "".join(rf"\p{{Script={script}}}" for script in sorted(lang.scripts))
    return rf"[\p{{L}}--[{own}\p{{Script=Common}}\p{{Script=Inherited}}]]"


def _other_script(word: str, lang: Language) -> bool:
    abbreviation = regex.fullmatch(r"[\W\d]*\p{Lu}[\p{Lu}\d]*[\W\d]*", word)  # DNA is everyone's
    return not abbreviation and bool(regex.search(_alien(lang), word, flags=regex.V1))


def _foreign_runs(words: list[str], lang: Language) -> set[int]:
    """The places of words that at least half of the windows around them tell to be of another language."""
    votes, over = [0] * len(words), [0] * len(words)
    for start in range(len(words) - _WINDOW + 1):
        flag = _identifier().off_target(" ".join(words[start : start + _WINDOW]), lang.code)
        for k in range(start, start + _WINDOW):
            votes[k] += flag
            over[k] += 1
    return {k for k, vote in enumerate(votes) if vote and 2 * vote >= over[k]}


@cache
def _identifier() -> Identifier:
    return Identifier(min_letters=_MIN_LETTERS, min_probability=_SURE, place="compare")
