"""A server that speaks OpenAI's chat completions: several requests at a time, each tried again while that can help."""

import importlib.util
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import cached_property
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sdrrl_factory.errors import UserError
from sdrrl_factory.models.lm import Generation

if TYPE_CHECKING:
    from openai import OpenAI

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds before the second try, doubled at each further one up to the longest
_IN_A_ROW = 3  # so many requests given up one after the other, and it is not they that are at fault
_NO_KEY = "none"  # servers of one's own ask for no key; the client wants one


class _Failure(Exception):
    """A try without an answer.

    Args:
        reason: short, the same for the same cause.
        again: whether another try may help.
        down: whether it is the server's doing, not the request's.
        fix: where the run cannot go on, what its user can do.
        wait: the seconds that the server asks for.
        message: the server's words.
    """

    def __init__(
        self,
        reason: str,
        *,
        again: bool = True,
        down: bool = False,
        fix: str = "",
        wait: float = 0.0,
        message: str = "",
    ):
        super().__init__(reason)
        self.reason, self.again, self.down, self.fix, self.wait, self.message = reason, again, down, fix, wait, message


def conversation(user: str, system: str = "") -> list[dict[str, str]]:
    """A question as OpenAI's messages, behind a system prompt where there is one."""
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": user}]


class Server:
    """A model behind an OpenAI-compatible server.

    Args:
        base_url: the address before /chat/completions, as a rule ending in /v1.
        model: the name the server knows it by.
        api_key_env: the environment variable that holds the key; unset where none is needed.
        concurrency: requests at a time.
        timeout: seconds without a sign from the server until a try is given up.
        retries: further tries after the first.

    Raises: UserError about the key "base_url" or "api_key_env", and, while it is asked, where the run cannot go on.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key_env: str,
        concurrency: int,
        timeout: float,
        retries: int,
    ):
        _check_address(base_url)
        if importlib.util.find_spec("openai") is None:
            fix = "run pip install 'sdrrl-factory[server]'"
            raise UserError("a server needs the package openai", fix, key="base_url")
        self._key = os.environ.get(api_key_env, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise UserError(f"${api_key_env} holds characters that no key has", "set it again", key="api_key_env")
        self.base_url, self.model, self._key_env = base_url, model, api_key_env
        self._concurrency, self._timeout, self._retries = concurrency, timeout, retries
        self._answered, self._in_a_row = False, 0

    @cached_property
    def _client(self) -> "OpenAI":
        import openai

        key = self._key or _NO_KEY
        return openai.OpenAI(base_url=self.base_url, api_key=key, timeout=self._timeout, max_retries=0)

    def chat(
        self,
        conversations: Sequence[list[dict]],
        max_tokens: int,
        temperature: float,
        seeds: Sequence[int] | None = None,
        progress: Callable[[int], None] = lambda count: None,
    ) -> list[Generation]:
        """As `stream`, but in the order of the conversations; `progress` is told how many more are done."""
        answers: dict[int, Generation] = {}
        for i, answer in self.stream(conversations, max_tokens, temperature, seeds):
            answers[i] = answer
            progress(1)
        return [answers[i] for i in range(len(conversations))]

    def stream(
        self,
        conversations: Sequence[list[dict]],
        max_tokens: int,
        temperature: float,
        seeds: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, Generation]]:
        """Answer each conversation ([{role, content}, ...]): (its index, its answer) as they come.

        A request that fails by its own fault has the finish "error: <reason>". A `UserError` ends the run where the
        server is at fault: not reached, the key refused, no such model, too many requests or errors to the last try.
        """
        requests = []
        for i, messages in enumerate(conversations):
            draw = {"seed": seeds[i]} if seeds is not None and temperature > 0 else {}
            requests.append({"messages": messages, "max_tokens": max_tokens, "temperature": temperature, **draw})
        failures: list[_Failure] = []
        for i, result in self._results(requests):
            if isinstance(result, _Failure):
                failures.append(result)
                self._count(result)
                result = Generation("", f"error: {result.reason}")
            else:
                self._answered, self._in_a_row = True, 0
            yield i, result
        if requests and len(failures) == len(requests) and any(f.down for f in failures):
            raise self._stop(next(f for f in failures if f.down))

    def _results(self, requests: list[dict[str, Any]]) -> Iterator[tuple[int, Generation | _Failure]]:
        """(index, answer or failure) as they come. Closing the generator ends the work."""
        todo: SimpleQueue[tuple[int, dict[str, Any]]] = SimpleQueue()
        done: SimpleQueue[tuple[int, Generation | _Failure]] = SimpleQueue()
        stop = threading.Event()
        for job in enumerate(requests):
            todo.put(job)
        client = self._client  # made here: the threads would make one each
        for _ in range(min(self._concurrency, len(requests))):
            # A daemon: a thread that waits for a silent server does not hold up the end of the program.
            threading.Thread(target=self._work, args=(client, todo, done, stop), daemon=True).start()
        try:
            for _ in requests:
                yield done.get()
        finally:
            stop.set()

    def _work(self, client: "OpenAI", todo: SimpleQueue, done: SimpleQueue, stop: threading.Event) -> None:
        """What one thread does: a request after the other, until there are no more."""
        while not stop.is_set():
            try:
                i, request = todo.get_nowait()
            except Empty:
                return
            done.put((i, self._answer(client, request, stop)))

    def _answer(self, client: "OpenAI", request: dict[str, Any], stop: threading.Event) -> Generation | _Failure:
        """The answer to one request, with its further tries: after 1, 2, 4, ... seconds, or when the server says."""
        attempt = 0
        while True:
            try:
                return self._ask(client, request)
            except _Failure as err:
                failure = err
            except Exception as err:
                # The type says enough; the text may hold the key.
                return _Failure(type(err).__name__, again=False)
            wait = min(max(FIRST_WAIT * 2 ** min(attempt, 20), failure.wait), LONGEST_WAIT)
            if not failure.again or attempt == self._retries or stop.wait(wait):
                return failure
            attempt += 1

    def _ask(self, client: "OpenAI", request: dict[str, Any]) -> Generation:
        """One try. Raises: _Failure."""
        import openai

        try:
            reply = client.chat.completions.with_raw_response.create(model=self.model, **request)
        except openai.APIConnectionError as err:
            raise self._no_reply(err) from None
        except openai.APIStatusError as err:
            raise self._status(err.status_code, err.response.headers, err.body) from None
        return _generation(reply.http_response.content)

    def _no_reply(self, err: Exception) -> _Failure:
        # By name: openai's HTTP library is httpx or httpx2, by its version, and neither is ours to import.
        if type(err.__cause__).__name__ in ("ConnectError", "ConnectTimeout"):
            return _Failure("cannot be reached", fix="start the server or mend the address")
        if "Timeout" in type(err).__name__:
            return _Failure(f"no answer within {self._timeout:g} s", down=True)
        return _Failure("connection broken", down=True)

    def _status(self, status: int, headers: Mapping[str, str], body: Any) -> _Failure:
        """What an answer with an error's status means: whose fault it is, and whether another try may help."""
        error = body.get("error", body) if isinstance(body, dict) else {}
        error = error if isinstance(error, dict) else {"message": error}
        message = " ".join(str(error.get("message") or error.get("detail") or "").split())[:200]
        if self._key:
            message = message.replace(self._key, "***")
        if status in (401, 403):
            fix = f"set ${self._key_env} to a key that it takes"
            return _Failure(f"{status}, the key is refused", again=False, fix=fix, message=message)
        if status == 404:
            fix = "mend the address (most end in /v1) or the model's name"
            return _Failure(f"404, no chat or no model {self.model}", again=False, fix=fix, message=message)
        if status == 429:
            fix = "lower concurrency or raise retries; what is done is kept"
            return _Failure("429, too many requests", fix=fix, wait=_retry_after(headers), message=message)
        if status >= 500 or status in (408, 409, 425):
            return _Failure(str(status), down=True, wait=_retry_after(headers), message=message)
        return _Failure(str(status), again=False, message=message)

    def _count(self, failure: _Failure) -> None:
        """Raises: UserError at a failure after which the others would fail too."""
        self._in_a_row += 1
        hopeless = self._in_a_row >= _IN_A_ROW and (failure.again or not self._answered)
        if failure.fix or hopeless:
            raise self._stop(failure)

    def _stop(self, failure: _Failure) -> UserError:
        why = f"{failure.reason}: {failure.message}" if failure.message else failure.reason
        if failure.again and self._retries:
            why += f", {self._retries + 1} tries"
        fix = failure.fix or "see what the server logs and try again; what is done is kept"
        return UserError(f"no answer from {self.base_url} ({why})", fix, key="base_url")


def _check_address(base_url: str) -> None:
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and base_url.isprintable()
    except ValueError:  # a port that is none
        good = False
    if not good or " " in base_url:
        fix = "write one like http://localhost:8000/v1"
        raise UserError(f"{base_url!r} is no address of a server", fix, key="base_url")
    if parts.username or parts.password:
        fix = "keep it in the variable that api_key_env names"
        raise UserError("the address holds a password", fix, key="base_url")


def _generation(content: bytes) -> Generation:
    """The answer in the body of a reply. Raises: _Failure."""
    try:
        choice = json.loads(content)["choices"][0]
        text, finish = choice["message"].get("content"), choice.get("finish_reason")
        text = "" if text is None else text.strip()
        text.encode("utf-8")  # JSON can hold half a surrogate pair, a file cannot
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise _Failure("the reply is no chat completion") from None
    if finish not in ("stop", "length", None):
        return Generation("", f"error: ended by {' '.join(str(finish).split())[:40]}")
    return Generation(text, finish or "stop")


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds; the header holds a number of them or a date."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
