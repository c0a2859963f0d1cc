"""Questions with their answers out of one row, in the forms of LLaMA-Factory's data and of others.

Every column of LLaMA-Factory's formats is understood here, or is the reason why a row is left out.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sdrrl_factory.errors import UserError
from sdrrl_factory.rows import Row, is_held_out, type_name

QUESTIONS = ("instruction", "prompt", "question")
ANSWERS = ("output", "response", "completion", "answer")
INPUTS = ("input", "context")
SYSTEMS = ("system", "system_prompt")
TURNS = {"sharegpt": "conversations", "messages": "messages"}
_TITLES = {"sharegpt": "ShareGPT", "messages": "OpenAI messages"}
# Of a pair of answers the better one, where the row has no other.
_CHOSEN = "chosen"
_CHOSEN_TURNS = ("chosen_messages", _CHOSEN)
_USER = ("user", "human")
_ASSISTANT = ("assistant", "gpt", "chatgpt")
_SYSTEM = ("system", "developer")
_TOOLS = ("function_call", "function", "tool_call", "tool", "observation")
_MEDIA = {"image": "images", "images": "images", "video": "videos", "videos": "videos", "audio": "audios"}
_MEDIA |= {"audios": "audios"}
# Whether somebody liked the answer: LLaMA-Factory's `kto_tag`, and the column its own KTO data have for it.
_LIKED = ("kto_tag", "label")
_CALL = "calls a tool"
_SURROGATE = re.compile("[\ud800-\udfff]")
# What self-instruct, pandas and spreadsheets write where there is nothing. "None" or "N/A" may be an answer, though.
_NOTHING = ("<noinput>", "<no input>", "<nooutput>", "<no output>", "nan", "<na>")
_NO_INPUT = (*_NOTHING, "noinput", "no input", "none", "null", "n/a", "na", "<null>", "<none>")


@dataclass(frozen=True)
class Exchange:
    """A question and its answer; flaw: why it cannot be a record, or ""."""

    instruction: str
    input: str
    output: str
    system: str
    flaw: str = ""


@dataclass(frozen=True)
class Layout:
    """Which column is what; without an `output`, `instruction` holds a conversation's turns."""

    name: str
    instruction: str
    input: str | None
    output: str | None
    id: str = "id"
    system: str | None = None

    def exchanges(self, row: Row) -> list[Exchange]:
        """The row's exchanges, in their order; a row that is to be left out as a whole has one, which says why.

        Raises: UserError at the row, which is none that this layout has.
        """
        at, values = row.at, row.values
        for column in (self.instruction, self.output):
            if column and column not in values:
                raise UserError(f"no {column!r} (columns: {listed(list(values))})", "rename the column", at=at)
        if reason := "held out" if is_held_out(values) else _unfit(values):
            return [Exchange("", "", "", "", reason)]
        system = _text(values.get(self.system), self.system, at, _NO_INPUT) if self.system else ""
        answer = values[self.output] if self.output else None
        # 1. A conversation in one column; so are whole ones to choose from (UltraFeedback).
        if not self.output:
            turns = _with_chosen(values[self.instruction], values)
            return list(_exchanges(turns, self.instruction, system, at))
        if self.output == _CHOSEN and isinstance(answer, list):
            return list(_exchanges(answer, _CHOSEN, system, at))
        # 2. What was said before, in LLaMA-Factory's `history` column; the row's own question and answer come last.
        instruction = _text(values[self.instruction], self.instruction, at)
        given = _text(values.get(self.input), self.input, at, _NO_INPUT) if self.input else ""
        last = Exchange(instruction, given, _text(answer, self.output, at), system)
        return [*_history(values.get("history"), system, at), last]

    def id_of(self, row: Row) -> str:
        """The row's own id, or ""."""
        value = row.values.get(self.id)
        return str(value) if isinstance(value, int | float) and value == value else _text(value, "id", row.at)


def recognise(columns: list[str], named: dict[str, str], form: str) -> Layout | None:
    """The layout of rows with these columns; None where none is recognised.

    Args:
        named: columns that the recipe names, by what they are.
        form: the recipe's `format`.
    """
    layout = _pair(columns, named) if form in ("auto", "alpaca") else None
    return layout or _conversation(columns, named, form)


def question(instruction: str, given: str) -> str:
    """x: the user turn, as LLaMA-Factory's alpaca format joins it."""
    return f"{instruction}\n{given}" if given else instruction


def listed(columns: list[str]) -> str:
    """The columns on one line."""
    names = ", ".join(repr(column)[1:-1] for column in columns)
    return names if len(names) <= 200 else names[:200] + "..."


def _pair(columns: list[str], named: dict[str, str]) -> Layout | None:
    """Question and answer in columns of their own: both of Alpaca's names, or the only ones of their kind."""
    questions = [named["instruction"]] if "instruction" in named else [c for c in QUESTIONS if c in columns]
    taken = set(named.values())
    answers = [named["output"]] if "output" in named else [c for c in ANSWERS if c in columns and c not in taken]
    if not answers and _CHOSEN in columns:
        answers = [_CHOSEN]
    if not questions or not answers:
        return None
    # Two candidates for one part: which is meant cannot be guessed, unless Alpaca's names are among them.
    alpaca = questions[0] == "instruction" and answers[0] in ("output", "response")
    if not alpaca and (len(questions) > 1 or len(answers) > 1):
        return None
    question, answer = questions[0], answers[0]
    taken |= {question, answer}
    context = named.get("input") or next((c for c in INPUTS if c in columns and c not in taken), None)
    name = f"{question} and {answer}"
    if alpaca:
        name = "Dolly" if (answer, context) == ("response", "context") else "Alpaca"
    return Layout(name, question, context, answer)


def _conversation(columns: list[str], named: dict[str, str], form: str) -> Layout | None:
    """A conversation in one column; `columns.instruction` may give it another name when the format is given."""
    for name, usual in TURNS.items():
        column = named.get("instruction", usual) if form == name else usual
        if form in ("auto", name) and column in columns:
            return Layout(_TITLES[name], column, None, None)
    for column in _CHOSEN_TURNS:
        if form == "auto" and column in columns:
            return Layout(f"conversations in {column!r}", column, None, None)
    return None


def _unfit(values: dict[str, Any]) -> str:
    """Why nothing of the row can be a record of text alone that somebody found good, or ""."""
    if values.get("rejected") is True or any(values.get(column) is False for column in _LIKED):
        return "marked as rejected"
    for column, kind in _MEDIA.items():
        if _is_filled(values.get(column)):
            return f"with {kind}"
    return "with tools" if _is_filled(values.get("tools")) else ""


def _is_filled(value: Any) -> bool:
    """Whether a column that may hold anything holds something."""
    if isinstance(value, str):
        return value.strip().lower() not in ("", "[]", "{}", "null", "none", "nan")
    if isinstance(value, list):
        return any(map(_is_filled, value))
    if isinstance(value, dict):
        return any(map(_is_filled, value.values()))
    return value is not None and value == value


def _history(history: Any, system: str, at: str) -> Iterator[Exchange]:
    if isinstance(history, str) and not history.strip():  # an empty cell of a table
        return
    if isinstance(history, str):
        try:
            history = json.loads(history)
        except ValueError:
            raise UserError("'history' is text instead of a list of pairs", "mend the row", at=at) from None
    if history is None or history != history:
        return
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise UserError("'history' is no list of [question, answer]", "mend the row", at=at)
    for question, answer in history:
        yield Exchange(_text(question, "history", at), "", _text(answer, "history", at), system)


def _with_chosen(turns: Any, values: dict[str, Any]) -> Any:
    """The turns with the better answer behind them, where LLaMA-Factory's `chosen` column has it."""
    chosen = values.get(_CHOSEN)
    return [*turns, chosen] if isinstance(turns, list) and isinstance(chosen, dict) else turns


def _exchanges(turns: Any, column: str, system: str, at: str) -> Iterator[Exchange]:
    """Each user turn with the answer right after it; the conversation's own system prompt wins over the row's."""
    if turns is not None and not isinstance(turns, list):
        raise UserError(f"{column!r} is {type_name(turns)} instead of a list of turns", "mend the row", at=at)
    messages = [_message(turn, column, f"{at}: turn {number}") for number, turn in enumerate(turns or [], 1)]
    own = next((message.text for message in messages if message.role in _SYSTEM and message.text), "")
    asked = [number for number, message in enumerate(messages) if message.role in _USER]
    if not asked:
        yield Exchange("", "", "", "", "no user turn")
    for number in asked:
        question = messages[number]
        answer = messages[number + 1] if number + 1 < len(messages) else _Message("", "", "")
        flaw = question.flaw or answer.flaw
        if not flaw and answer.role in _TOOLS:
            flaw = _CALL
        elif not flaw and answer.role not in _ASSISTANT:
            flaw = "no answer to the first user turn" if number == asked[0] else "no answer to a later user turn"
        yield Exchange(question.text, "", answer.text, own or system, flaw)


@dataclass(frozen=True)
class _Message:
    role: str
    text: str
    flaw: str


def _message(turn: Any, column: str, at: str) -> _Message:
    if not isinstance(turn, dict):
        raise UserError(f"{type_name(turn)} instead of an object in {column!r}", "mend the row", at=at)
    role_key = "role" if "role" in turn else "from"
    role = turn.get(role_key)
    if not isinstance(role, str):
        raise UserError(f"{role_key!r} is {type_name(role)} instead of text", "mend the row", at=at)
    key = "content" if "content" in turn else "value"
    text, flaw = _content(turn.get(key), key, at)
    role = role.strip().lower()
    if _is_filled(turn.get("tool_calls")) or _is_filled(turn.get("function_call")):
        flaw = _CALL
    # LLaMA-Factory's newer files and OpenAI's say so of a turn that is not to be learned.
    elif role in _ASSISTANT and (turn.get("loss_weight") == 0 or turn.get("weight") == 0):
        flaw = flaw or "an answer of weight 0"
    return _Message(role, text, flaw)


def _content(content: Any, key: str, at: str) -> tuple[str, str]:
    """(text, flaw) of a turn; it may come in parts: OpenAI's have a `text`, LLaMA-Factory's newer a `value`."""
    if not isinstance(content, list):
        return _text(content, key, at), ""
    texts, flaw = [], ""
    for part in content:
        if not isinstance(part, dict):
            texts.append(_text(part, key, at))
            continue
        # Qwen's parts have no type: {"image": ...}, {"text": ...}.
        kind = str(part.get("type") or next((name for name in _MEDIA if part.get(name)), "text"))
        if kind.endswith("text"):
            texts.append(_text(part.get("value") if part.get("text") is None else part["text"], key, at))
        elif "tool" in kind or "function" in kind:
            flaw = _CALL
        elif kind not in ("reasoning", "thinking"):
            flaw = next((f"with {_MEDIA[name]}" for name in _MEDIA if name in kind), "with parts that are no text")
    return "".join(texts), flaw


def _text(value: Any, column: str, at: str, nothing: tuple[str, ...] = _NOTHING) -> str:
    """The value as text, composed (NFC); "" for `nothing`. Raises: UserError at the row for a list and its like."""
    if value is None or value != value:  # pandas writes NaN for an empty cell
        return ""
    if isinstance(value, bool | int | float):
        value = json.dumps(value)
    if not isinstance(value, str):
        raise UserError(f"{column!r} is {type_name(value)} instead of text", "mend the row", at=at)
    if _SURROGATE.search(value):
        raise UserError(f"{column!r} has half a surrogate pair (\\ud800 to \\udfff)", "mend the row", at=at)
    if value.strip().rstrip(".").lower() in nothing:
        return ""
    return unicodedata.normalize("NFC", value)
