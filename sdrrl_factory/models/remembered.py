"""A language model behind the memory: it is asked what no run has asked it yet, and each answer is kept as it comes.

The generator, the chat translator and the evaluator all ask through it, so they share what one model has answered.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from os.path import commonprefix
from typing import Any, NamedTuple, cast
from uuid import uuid4

from sdrrl_factory.engine import Engine, Local, Need, weights_of
from sdrrl_factory.errors import UserError
from sdrrl_factory.memory import Memory, key_of, kind_of
from sdrrl_factory.models import checkpoint
from sdrrl_factory.models.hub import local_folder
from sdrrl_factory.models.likelihoods import Likelihoods, Question
from sdrrl_factory.models.lm import LM, Generation
from sdrrl_factory.models.scaffolding import without_scaffolding
from sdrrl_factory.models.server import Server, conversation
from sdrrl_factory.models.stops import cut

# (what is counted, of how many, how many the memory has) -> a context whose value is told how many more are done.
Report = Callable[[str, int, int], AbstractContextManager[Callable[[int], None]]]
# Inputs and their values, some at a time.
_Batches = Iterator[tuple[list[Any], list[Any]]]

_CHUNK = 1024  # inputs whose sizes are found at a time
_KEPT = 4  # batches that are computed and kept together: where an answer ends, the next prompt of the four begins
_ALIKE = 80  # letters in common, beyond what all have: about as many as are worth a pass of their own


class _Prompt(NamedTuple):
    """seed: of the draw, where there is one."""

    system: str
    user: str
    seed: int | None


def set_keys(**keys: Any) -> dict[str, Any]:
    """Those that are set: answers remembered before a key was there stay valid without it."""
    return {name: value for name, value in keys.items() if value is not None and value != {}}


def silent(what: str, total: int, remembered: int) -> AbstractContextManager[Callable[[int], None]]:
    """A report of nothing."""
    return nullcontext(lambda count: None)


def unsized(one: Any) -> int:
    """The size of inputs that are alike."""
    return 0


def unread(one: Any) -> str:
    """The text of inputs that have nothing in common."""
    return ""


def unseen(count: int) -> None:
    """The progress of a pool, which is told by its batches."""


def _counted(progress: Callable[[int], None], what: str, total: int, remembered: int) -> AbstractContextManager:
    progress(remembered)
    return nullcontext(progress)


class RememberedModel:
    """An `LM`, or a server in its place, which is asked each distinct input once; not even loaded if all are known.

    Some batches of an `LM`, or a single answer of a server, are kept before more is asked. They are cut from all
    inputs, longest first, hence are the same after a kill: not even a rounding differs. What a server failed at (finish
    "error: ...") is not kept: the next run asks it again.

    Args:
        memory: where the answers are kept.
        model, template, adapter: as of `LM`; with a server only `model` counts, its name there.
        load: gives the `LM`, or with a server its `ServedLikelihoods`, when they are first needed.
        server: answers in its place.
        server_run: the answers of a server are shared among runs of this name only. Nothing tells whether it still has
            the same checkpoint behind the same name, so evaluations, which compare checkpoints, share none.
        report: shows what is done, where something has to be asked.
        settings: the keys of a recipe that shape the answers beside these, where they are set (`set_keys`).
        engine: who computes the batches; on a cluster each worker has the model, which is not loaded here.
        tokenizer: the one that a server's likelihoods are asked by.
    """

    # Who is told of answers within a batch, where it is computed in this process; and of how many they were.
    _advance: Callable[[int], None] | None = None
    _early = 0

    def __init__(
        self,
        memory: Memory,
        model: str,
        template: str | None = None,
        adapter: str | None = None,
        *,
        load: Callable[[], Likelihoods] | None = None,
        server: Server | None = None,
        server_run: str | None = None,
        report: Report = silent,
        settings: Mapping[str, Any] | None = None,
        engine: Engine | None = None,
        tokenizer: str | None = None,
    ):
        # A server is asked from here: it has workers of its own.
        self._engine, self._id = engine if engine and not server else Local(), uuid4().hex
        self.memory, self._load, self._server, self._report = memory, load, server, report
        self._server_run = server_run
        self._checkpoint = (model, template, adapter)
        self._settings = dict(settings or {})
        self._tokenizer = tokenizer

    def __reduce__(self) -> tuple:
        """To a worker it travels with every batch, as a method or in a function; there it arrives once."""
        here = ("model", "_engine", "_report", "_advance", "_early")
        state = {name: value for name, value in vars(self).items() if name not in here}
        # A subclass's own method: it comes with the class.
        if getattr(self._load, "__self__", None) is self:
            del state["_load"]
        return _arrived, (type(self), self._id, state)

    @cached_property
    def model(self) -> LM:
        """The checkpoint in process; with a server, no more than its `likelihoods`."""
        assert self._load, "nobody was named who has likelihoods"
        return cast(LM, self._load())

    @property
    def likelihoods(self) -> Likelihoods:
        """Who is asked how likely a text is."""
        return self.model

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What tells this model from any other, in every kind of the memory."""
        model, template, adapter = self._checkpoint
        if self._server:
            return {"server": self._server.base_url, "model": model, "run": self._server_run, **self._settings}
        if local_folder(model) is None:
            self.model  # noqa: B018  # downloads it: only then it is clear what stands behind a hub id
        return checkpoint.identity(model, template, adapter) | self._settings

    def generate(
        self,
        users: Sequence[str],
        max_new_tokens: int,
        batch_size: int,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
        systems: Sequence[str] | None = None,
        progress: Callable[[int], None] | None = None,
        after: int | None = None,
        stop: Sequence[str] = (),
    ) -> list[Generation]:
        """As `LM.generate`, without thoughts and control tokens. With a temperature, `seeds` are needed.

        Of a server, `batch_size` is of no account. The memory keeps what the model wrote, thoughts too.

        progress: is told how many more are done, in place of a report.
        after: the lower limit up to which these were asked before: an `LM` goes on from where an answer was cut off.
        stop: strings that end an answer, and are no part of it. A server is not told: it might end a thought by them.
        """
        # At temperature 0 nothing is drawn: the answers under all seeds are one.
        draws = seeds if seeds is not None and temperature > 0 else [None] * len(users)
        prompts = list(map(_Prompt, systems or [""] * len(users), users, draws))
        kind = partial(self._kind_of_answers, max_new_tokens, temperature, () if self._server else stop)
        what = f"answers of at most {max_new_tokens} tokens"
        if self._server:
            ask = partial(self._ask_server, max_new_tokens, temperature)
        else:
            begun = self._begun(prompts, after, temperature) if after else {}
            ask = partial(self._ask_lm, max_new_tokens, temperature, batch_size, begun, stop, prompts)
        report = partial(_counted, progress) if progress else self._report
        answers = self._values(kind, what, prompts, ask, report)
        generations = [without_scaffolding(Generation(*answer)) for answer in answers]
        return [cut(generation, stop) for generation in generations] if stop else generations

    def has_answered(self, max_new_tokens: int, temperature: float) -> bool:
        """Whether the memory has any answer that `generate` with these settings gave."""
        return self.memory.knows(self._kind_of_answers(max_new_tokens, temperature))

    def left_out(self) -> set[str]:
        """Which of max_new_tokens and temperature a server refuses, so that it answers by its own."""
        if not self._server:
            return set()
        # An earlier run may have learnt it.
        self._server.leave_out(self.memory.get(self._refusals(), ["keys"]).get("keys", []))
        names = {"max_tokens": "max_new_tokens", "temperature": "temperature"}
        return {names[key] for key in self._server.left_out()}

    def _refusals(self) -> str:
        """The kind under which is kept what the server refuses: the next run looks its answers up accordingly."""
        return kind_of("refused", **self.identity)

    def _kind_of_answers(self, max_new_tokens: int, temperature: float, stop: Sequence[str] = ()) -> str:
        settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature}
        # What a server refuses shapes no answer: under its own temperature they are others than at 0.
        settings |= dict.fromkeys(self.left_out())
        return kind_of("generate", **self.identity, **settings, **set_keys(stop=list(stop) or None))

    def _begun(self, prompts: list[_Prompt], limit: int, temperature: float) -> dict[_Prompt, list[int]]:
        """The tokens of the remembered answers that were cut off at `limit`."""
        kind = kind_of("generate", **self.identity, max_new_tokens=limit, temperature=temperature)
        keys = {key_of(prompt): prompt for prompt in prompts}
        values = self.memory.get(kind, keys)
        return {keys[key]: value[2] for key, value in values.items() if len(value) > 2}

    def _ask_lm(
        self,
        max_new_tokens: int,
        temperature: float,
        batch_size: int,
        begun: Mapping[_Prompt, list[int]],
        stop: Sequence[str],
        prompts: list[_Prompt],
        missing: list[_Prompt],
    ) -> _Batches:
        portions = self._portions(prompts, missing, _KEPT * batch_size, self._tokens_of_prompt, _text_of_prompt)
        # The tokens that are there go with their prompts: a portion is all that a worker is given.
        batches = [[(prompt, begun.get(prompt, [])) for prompt in portion] for portion in portions]
        compute = partial(self._generations, max_new_tokens, temperature, batch_size, stop)
        for batch, generations in self._computed(compute, batches, lost=["", "error: "]):
            yield [prompt for prompt, _ in batch], generations

    def _generations(
        self, max_new_tokens: int, temperature: float, batch_size: int, stop: Sequence[str], batch: list[tuple]
    ) -> list[list]:
        prompts, starts = zip(*batch, strict=True)
        generations = self.model.generate(
            [prompt.user for prompt in prompts],
            max_new_tokens,
            batch_size,
            temperature=temperature,
            seeds=[prompt.seed or 0 for prompt in prompts],
            systems=[prompt.system for prompt in prompts],
            begun=list(starts),
            stop=stop,
            progress=self._tell,
        )
        return [_remembered(generation) for generation in generations]

    def _ask_server(self, max_new_tokens: int, temperature: float, prompts: list[_Prompt]) -> _Batches:
        assert self._server
        conversations = [conversation(prompt.user, prompt.system) for prompt in prompts]
        seeds = [prompt.seed or 0 for prompt in prompts]
        known = self._server.left_out()
        for i, generation in self._server.stream(conversations, max_new_tokens, temperature, seeds):
            if self._server.left_out() != known:
                known = self._server.left_out()
                self.memory.put(self._refusals(), {"keys": sorted(known)})
            yield [prompts[i]], [[generation.text, generation.finish]]

    def answer_loss(
        self, pairs: Sequence[tuple[str, str]], batch_size: int, system: str = ""
    ) -> list[tuple[float, int]]:
        """As `LM.answer_loss`."""
        what = "losses of reference answers"
        compute = partial(self._answer_losses, system, batch_size)
        settings = set_keys(system=system or None, **self._asked_by())
        size, text = self._tokens_of_pair, _text_of_pair
        rows = self.remember("answer_loss", settings, what, pairs, compute, _KEPT * batch_size, size, text)
        return [(nats, tokens) for nats, tokens in rows]

    def text_loss(self, texts: Sequence[str], batch_size: int) -> list[tuple[float, int]]:
        """As `LM.text_loss`."""
        what = "losses of sentences"
        compute = partial(self._text_losses, batch_size)
        size = self._tokens_of_text
        rows = self.remember("text_loss", self._asked_by(), what, texts, compute, _KEPT * batch_size, size)
        return [(nats, tokens) for nats, tokens in rows]

    def choose(self, questions: Sequence[Question], batch_size: int, what: str = "questions") -> list[list[float]]:
        """As `LM.choose`, rounded to six digits behind the point. what: the questions' name in the report."""
        compute = partial(self._choices, batch_size)
        size, text = _letters_of_question, _text_of_pair
        return self.remember("choose", self._asked_by(), what, questions, compute, _KEPT * batch_size, size, text)

    def _asked_by(self) -> dict[str, Any]:
        """What a server's likelihoods depend on besides the server."""
        return {"tokenizer": self._tokenizer} if self._server else {}

    def conditions(self) -> dict[str, str]:
        """What the answers were made with: the prompt's format, the precision, the device."""
        return self.remember("conditions", {}, "", [""], self._conditions, 1)[0]

    # What a batch is asked for, and how long an input is: methods, so that the model is loaded only when one is called.

    def _answer_losses(self, system: str, batch_size: int, pairs: list[tuple[str, str]]) -> list[tuple[float, int]]:
        return self.likelihoods.answer_loss(pairs, batch_size, system)

    def _text_losses(self, batch_size: int, texts: list[str]) -> list[tuple[float, int]]:
        return self.likelihoods.text_loss(texts, batch_size)

    def _choices(self, batch_size: int, questions: list[Question]) -> list[list[float]]:
        return [[round(value, 6) for value in row] for row in self.likelihoods.choose(questions, batch_size)]

    def _conditions(self, _: list[str]) -> list[dict[str, str]]:
        form = self.model.tokenizer.decode(self.model.encode("{prompt}"))
        weights = self.model.model
        return [{"format": form, "precision": str(weights.dtype)[6:], "device": weights.device.type}]

    def _tokens_of_text(self, text: str) -> int:
        # A server needs no order.
        return len(text) if self._server else len(self.likelihoods.encode(text))

    def _tokens_of_pair(self, pair: tuple[str, str]) -> int:
        return self._tokens_of_text(pair[0]) + self._tokens_of_text(pair[1])

    def _tokens_of_prompt(self, prompt: _Prompt) -> int:
        return len(self.likelihoods.encode(prompt.user, prompt.system))

    def remember(
        self,
        kind: str,
        settings: dict[str, Any],
        what: str,
        inputs: Sequence[Any],
        compute: Callable[[list], list],
        at_a_time: int,
        size: Callable[[Any], int] = unsized,
        text: Callable[[Any], str] = unread,
    ) -> list:
        """`compute` of every input, in order, some at a time; inputs and values are what JSON can hold.

        Args:
            kind, settings: what else than the input and the model the value depends on.
            what: the values' name in the report; "" is not reported.
            at_a_time: how many are computed and kept together.
            size, text: of an input; the largest come first, and those whose texts begin alike together.
        """

        def ask(missing: list) -> _Batches:
            return self._computed(compute, self._portions(inputs, missing, at_a_time, size, text))

        whole_kind = partial(kind_of, kind, **self.identity, **settings)
        return self._values(whole_kind, what, inputs, ask, self._report if what else silent)

    def _computed(self, compute: Callable[[list], list], batches: Sequence[list], lost: list | None = None) -> _Batches:
        """(batch, `compute` of it), by the engine's workers, as they come; lost: as of `_Batch`."""
        need = Need(gpus=1, memory=weights_of(self._checkpoint[0]))
        with self._engine.pool(_nothing, need, unseen) as pool:
            for i, values in pool.map([_Batch(compute, batch, lost) for batch in batches]):
                yield batches[i], values

    def _portions(
        self,
        inputs: Sequence[Any],
        missing: list,
        at_a_time: int,
        size: Callable[[Any], int],
        text: Callable[[Any], str],
    ) -> list[list]:
        """What is missing of `inputs`, cut as they would be cut if all were.

        The largest first: what memory does not hold is known at once. Those whose texts begin alike are together, so
        that this is read once; what all texts begin with does not make them alike.
        """
        distinct = list({key_of(one): one for one in inputs}.values())
        # Measured where the batches are computed: only there is the model's tokenizer.
        chunks = [distinct[start : start + _CHUNK] for start in range(0, len(distinct), _CHUNK)]
        sizes: dict[str, int] = {}
        for chunk, values in self._computed(partial(_sizes, size), chunks):
            sizes |= zip(map(key_of, chunk), values, strict=True)
        # Sorted, texts that begin alike are neighbours, and the first and the last one have the least in common.
        by_text = sorted(distinct, key=text)
        common = len(commonprefix([text(by_text[0]), text(by_text[-1])]))
        groups: list[list[Any]] = []
        for one in by_text:
            if groups and len(commonprefix([text(groups[-1][0]), text(one)])) >= common + _ALIKE:
                groups[-1].append(one)
            else:
                groups.append([one])
        groups.sort(key=lambda group: -max(sizes[key_of(one)] for one in group))
        order = [one for group in groups for one in group]
        asked = {key_of(one) for one in missing}
        portions = [order[start : start + at_a_time] for start in range(0, len(order), at_a_time)]
        portions = [[one for one in portion if key_of(one) in asked] for portion in portions]
        return [portion for portion in portions if portion]

    def _tell(self, count: int) -> None:
        """Of answers within a batch that is not kept yet."""
        if self._advance:
            self._advance(count)
            self._early += count

    def _values(
        self, kind: Callable[[], str], what: str, inputs: Sequence[Any], ask: Callable[[list], _Batches], report: Report
    ) -> list:
        """The value of each input; those that the memory does not know come from `ask`.

        kind: asked again for each batch, since a server may refuse a setting while it is asked.
        """
        keys = [key_of(one) for one in inputs]
        distinct = dict(zip(keys, inputs, strict=True))
        values = self.memory.get(kind(), distinct)
        missing = [one for key, one in distinct.items() if key not in values]
        if missing:
            with report(what, len(distinct), len(values)) as self._advance:
                for batch, computed in ask(missing):
                    fresh = {key_of(one): value for one, value in zip(batch, computed, strict=True)}
                    self.memory.put(kind(), {key: value for key, value in fresh.items() if not _failed(value)})
                    values |= fresh
                    self._advance(len(batch) - self._early)
                    self._early = 0
            self._advance = None
        return [values[key] for key in keys]


@dataclass(frozen=True)
class _Batch:
    """A batch as the engine's item. lost: in place of the value of an input that its worker does not survive."""

    compute: Callable[[list], list]
    inputs: list
    lost: list | None
    reason: str = ""

    def work(self, tool: None) -> list:
        if not self.reason:
            return self.compute(self.inputs)
        if self.lost is None:
            raise UserError(f"{self.reason} ({str(self.inputs[0])[:80]})", "see the workers' logs", key="engine")
        return [[*self.lost[:-1], f"{self.lost[-1]}{self.reason}"]]

    def halves(self) -> "list[_Batch]":
        middle = len(self.inputs) // 2
        parts = (self.inputs[:middle], self.inputs[middle:])
        return [replace(self, inputs=part) for part in parts] if middle else []

    def joined(self, results: list[list]) -> list:
        return [value for values in results for value in values]

    def rejected(self, reason: str) -> "_Batch":
        return replace(self, reason=reason)


def _nothing(progress: Callable[[int], None]) -> AbstractContextManager[None]:
    """The tool of a pool whose batches bring their model along."""
    return nullcontext()


# Of this process, where it is a worker: the model it works for, which arrives with every batch.
_here: dict[str, RememberedModel] = {}


def _arrived(kind: type[RememberedModel], name: str, state: dict[str, Any]) -> RememberedModel:
    if name not in _here:
        # Another evaluation's model makes room.
        _here.clear()
        _here[name] = kind.__new__(kind)
        vars(_here[name]).update(state, _engine=Local(), _report=silent)
    return _here[name]


def _sizes(size: Callable[[Any], int], inputs: list) -> list[int]:
    return [size(one) for one in inputs]


def _text_of_prompt(prompt: _Prompt) -> str:
    return f"{prompt.system}\n{prompt.user}"


def _text_of_pair(pair: tuple[str, Any]) -> str:
    return pair[0]


def _letters_of_question(question: Question) -> int:
    """Letters stand for tokens, near enough: nothing is tokenized twice."""
    return len(question[0])


def _remembered(generation: Generation) -> list[Any]:
    """As the memory keeps it: with its tokens where it was cut off, so that it can go on."""
    tokens = [list(generation.tokens)] if generation.tokens else []
    return [generation.text, generation.finish, *tokens]


def _failed(value: Any) -> bool:
    """Whether it is a generation that a server did not give."""
    return isinstance(value, list) and isinstance(value[-1], str) and value[-1].startswith("error: ")
