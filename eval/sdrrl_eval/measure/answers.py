"""What the model under evaluation says, kept on disk as it comes: a killed evaluation goes on where it stopped."""

import json
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import sha256
from sdrrl_factory.models.lm import LM, Generation
from sdrrl_factory.models.server import Server


class Answers:
    """An `LM` with a memory: each distinct answer and loss is computed once, and none at all if the file has it.

    A line of the file is a batch, so a half-written one is a batch that was never done. Batches are cut from what is
    missing, longest first, hence are the same after a kill: not even a rounding differs.

    Args:
        folder: of the files, one for each `identity`.
        identity: all that shapes an answer but its prompt: the checkpoint, its prompt format.
        load: gives the model when it is first needed.
        server: answers in its place, and knows no likelihoods; each answer is kept as it comes.
    """

    def __init__(self, folder: Path, identity: str, load: Callable[[], LM] | None, server: Server | None = None):
        self.path, self._load, self._server = folder / f"{sha256(identity)[:16]}.jsonl", load, server
        self._known = _read(self.path)

    @cached_property
    def model(self) -> LM:
        return self._load()

    def generate(self, users: Sequence[str], max_new_tokens: int, batch_size: int) -> list[Generation]:
        """As `LM.generate`, greedy. What a server failed at is not kept: the next run asks it again."""

        def answer(batch: list[str]) -> list[list[str]]:
            return [[a.text, a.finish] for a in self.model.generate(batch, max_new_tokens, batch_size)]

        def ask(missing: list[str]) -> Iterator[tuple[list[str], list[list[str]]]]:
            turns = [[{"role": "user", "content": user}] for user in missing]
            for i, a in self._server.stream(turns, max_new_tokens, 0.0):
                yield [missing[i]], [[a.text, a.finish]]

        kind, what = ("generate", max_new_tokens), f"answers of at most {max_new_tokens} tokens"
        if self._server:
            rows = self._remember(kind, what, users, ask)
        else:
            rows = self.remember(kind, what, users, answer, batch_size, self._tokens)
        return [Generation(*row) for row in rows]

    def answer_loss(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> list[tuple[float, int]]:
        """As `LM.answer_loss`."""
        rows = self.remember(
            "answer_loss",
            "losses of reference answers",
            [tuple(pair) for pair in pairs],
            lambda batch: self.model.answer_loss(batch, batch_size),
            batch_size,
            lambda pair: self._tokens(pair[0]) + self._tokens(pair[1]),
        )
        return [(nats, n) for nats, n in rows]

    def text_loss(self, texts: Sequence[str], batch_size: int) -> list[tuple[float, int]]:
        """As `LM.text_loss`."""
        rows = self.remember(
            "text_loss", "losses of sentences", texts, lambda b: self.model.text_loss(b, batch_size), batch_size,
            self._tokens,
        )  # fmt: skip
        return [(nats, n) for nats, n in rows]

    def facts(self) -> dict[str, str]:
        """What the answers were made with: the prompt's format, the precision, the device."""
        return self.remember("facts", "", [""], lambda _: [_facts(self.model)], 1)[0]

    def _tokens(self, user: str) -> int:
        return len(self.model.encode(user))

    def remember(
        self,
        kind: Any,
        what: str,
        inputs: Sequence[Hashable],
        compute: Callable[[list], list],
        batch_size: int,
        size: Callable[[Any], int] = lambda one: 0,
    ) -> list:
        """`compute` of every input, in order, a batch at a time; values are what JSON can hold.

        Args:
            kind: what else than the input the value depends on (JSON).
            what: the values' name on the terminal.
            size: of an input; the largest come first.
        """

        def batches(missing: list) -> Iterator[tuple[list, list]]:
            missing.sort(key=lambda one: -size(one))
            for start in range(0, len(missing), batch_size):
                batch = missing[start : start + batch_size]
                yield batch, compute(batch)

        return self._remember(kind, what, inputs, batches)

    def _remember(
        self, kind: Any, what: str, inputs: Sequence[Hashable], compute: Callable[[list], Iterator[tuple[list, list]]]
    ) -> list:
        """compute: of the inputs that are not known, (some of them, their values) as they come."""
        keys = {one: sha256(json.dumps([kind, one]))[:32] for one in inputs}
        missing = [one for one, key in keys.items() if key not in self._known]
        values = {key: self._known.get(key) for key in keys.values()}
        if missing:
            with _progress(what, len(keys), len(keys) - len(missing)) as advance:
                for some, found in compute(missing):
                    done = {keys[one]: value for one, value in zip(some, found, strict=True)}
                    values |= done
                    self._keep({key: value for key, value in done.items() if not _failed(value)})
                    advance(len(some))
        return [values[keys[one]] for one in inputs]

    def _keep(self, done: dict) -> None:
        if not done:
            return
        self._known |= done
        line = json.dumps(done, ensure_ascii=False)
        try:
            with open(self.path, "a", encoding="utf-8") as f:
                # Behind a line that a kill cut off, a new one.
                f.write(f"\n{line}" if f.tell() else line)
        except OSError as err:
            raise UserError(f"{self.path}: cannot be written ({err.strerror}); make room and run it again") from None


def _facts(model: LM) -> dict[str, str]:
    form = model.tokenizer.decode(model.encode("{prompt}"))
    return {"format": form, "precision": str(model.model.dtype)[6:], "device": model.model.device.type}


def _read(path: Path) -> dict:
    known = {}
    try:
        raw = path.read_bytes() if path.exists() else b""
    except OSError as err:
        raise UserError(f"{path}: cannot be read ({err.strerror}); remove it") from None
    for line in raw.split(b"\n"):
        try:
            known |= json.loads(line)
        except (ValueError, TypeError):  # cut off by a kill
            continue
    return known


def _failed(value) -> bool:
    return isinstance(value, list) and str(value[-1]).startswith("error: ")


@contextmanager
def _progress(what: str, total: int, known: int):
    """A bar on a terminal, one plain line elsewhere."""
    if not what:
        yield lambda n: None
        return
    if not sys.stdout.isatty():
        print(f"{total} {what}" + f", {known} known" * bool(known), flush=True)
        yield lambda n: None
        return
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress(*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(what, total=total, completed=known)
        yield lambda n: bar.advance(task, n)
