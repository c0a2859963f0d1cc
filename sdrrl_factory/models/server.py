"""A server that speaks OpenAI's completions: several requests at a time, each tried again while that can help."""

import importlib.util
import json
import os
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import cached_property
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.log import count, detail, say
from sdrrl_factory.models.lm import Generation
from sdrrl_factory.models.proxy import around_proxy, check_proxies, proxy_of, through_proxy

if TYPE_CHECKING:
    from openai import OpenAI

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds before the second try, doubled at each further one up to the longest
_PATIENCE = 3  # so many failures and no answer between them, and the server is asked what anyone could answer
_NO_KEY = "none"  # servers of one's own ask for no key; the client wants one

# Why an answer ended, in the words of vLLM, SGLang, TGI, Mistral, Gemini, DeepSeek, Zhipu and others. Any other reason
# ("stop", "eos", "eos_token", "end_turn", "COMPLETE", ...) ends one that is whole.
_CUT_OFF = {"length", "max_tokens", "max_length", "model_length", "max_output_tokens", "max_new_tokens", "token_limit"}
_BROKEN_OFF = {"error", "abort", "aborted", "cancelled", "canceled", "timeout", "network_error"}
_BROKEN_OFF |= {"insufficient_system_resource"}
_WITHHELD = {"content_filter", "content_filtered", "safety", "recitation", "blocklist", "prohibited_content", "spii"}
_WITHHELD |= {"sensitive", "refusal", "tool_calls", "tool_call", "tool_use", "function_call", "malformed_function_call"}

# What a model may refuse to be asked for; max_tokens is then asked for under its second name before it is left out.
_REFUSABLE = ("max_tokens", "max_completion_tokens", "temperature", "seed")
_SECOND_NAME = {"max_tokens": "max_completion_tokens"}
_LIMITS = ("max_tokens", "max_completion_tokens")
_REFUSAL = re.compile(
    r"unsupported|(not|n't) (be )?(support|compatib|permit|allow)|unrecogni[sz]ed|unknown|unexpected|forbidden"
    r"|extra (inputs|fields)|deprecated|no longer",
    re.IGNORECASE,
)
_LIKELIHOODS = re.compile(r"\b(echo|(prompt_)?logprobs)\b")
_WORDS = 100  # characters of the server's words in a record's reason


class _Failure(Exception):
    """A try without an answer.

    Args:
        reason: short, the same for the same cause.
        again: whether another try may help.
        down: whether it is the server's doing, not the request's.
        everywhere: whether any other request would fail just so.
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
        everywhere: bool = False,
        fix: str = "",
        wait: float = 0.0,
        message: str = "",
    ):
        super().__init__(reason)
        self.reason, self.again, self.down, self.everywhere = reason, again, down, everywhere
        self.fix, self.wait, self.message = fix, wait, message

    @property
    def finish(self) -> str:
        """The reason and the server's first sentence, its numbers taken out: the same cause is counted as one."""
        sentence = re.split(r"(?<=[.!?])\s", self.message, maxsplit=1)[0].rstrip(".")
        words = re.sub(r"\d+", "N", sentence)[:_WORDS].strip()
        return f"error: {self.reason}: {words}" if words else f"error: {self.reason}"


class ServerKeys(Protocol):
    """The group of a recipe that a server is made of."""

    @property
    def api_key_env(self) -> str: ...
    @property
    def concurrency(self) -> int: ...
    @property
    def timeout(self) -> float: ...
    @property
    def retries(self) -> int: ...
    @property
    def extra_body(self) -> Mapping[str, Any]: ...


def from_keys(
    keys: ServerKeys,
    base_url: str,
    model: str,
    enable_thinking: bool | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> "Server":
    """The server that a recipe's group describes. Raises: UserError about one of its keys."""
    return Server(
        base_url,
        model,
        api_key_env=keys.api_key_env,
        concurrency=keys.concurrency,
        timeout=keys.timeout,
        retries=keys.retries,
        extra_body=keys.extra_body,
        enable_thinking=enable_thinking,
        chat_template_kwargs=chat_template_kwargs,
    )


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
        extra_body: further keys of each request, as they are.
        enable_thinking, chat_template_kwargs: for the chat template there, as vLLM, SGLang and llama.cpp take them.

    A model that refuses max_tokens, temperature or seed is asked without, which is said once.

    Raises: UserError about the key "base_url", "api_key_env" or "extra_body", and, while it is asked, where the run
    cannot go on.
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
        extra_body: Mapping[str, Any] | None = None,
        enable_thinking: bool | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ):
        _check_address(base_url)
        self.extra_body = _extra_body(extra_body or {}, enable_thinking, chat_template_kwargs or {})
        with under("base_url"):
            check_proxies()
        if importlib.util.find_spec("openai") is None:
            fix = "run pip install 'sdrrl-factory[server]'"
            raise UserError("a server needs the package openai", fix, key="base_url")
        self._key = os.environ.get(api_key_env, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise UserError(f"${api_key_env} holds characters that no key has", "set it again", key="api_key_env")
        self.base_url, self.model, self._key_env = base_url, model, api_key_env
        self.concurrency, self._timeout, self._retries = concurrency, timeout, retries
        self._answered, self._in_a_row, self._patience = False, 0, _PATIENCE
        # A key that the model refuses -> the one that is asked for in its place, or None.
        self._instead: dict[str, str | None] = {}
        self._lock = threading.Lock()

    @cached_property
    def _client(self) -> "OpenAI":
        import openai

        key = self._key or _NO_KEY
        return openai.OpenAI(base_url=self.base_url, api_key=key, timeout=self._timeout, max_retries=0)

    def connect(self) -> None:
        """Make the client, which all threads share."""
        self._client  # noqa: B018

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
        server answers nothing: it is not reached, refuses the key, has no such model, or fails at one request after the
        other and at a greeting too. All that it had answered until then has been given.
        """
        requests = []
        for i, messages in enumerate(conversations):
            draw = {"seed": seeds[i]} if seeds is not None and temperature > 0 else {}
            requests.append({"messages": messages, "max_tokens": max_tokens, "temperature": temperature, **draw})
        failures: list[_Failure] = []
        crew = _Crew(self, requests)
        waiting: deque[tuple[int, Any]] = deque()
        try:
            for _ in requests:
                i, result = waiting.popleft() if waiting else crew.done.get()
                if not isinstance(result, _Failure):
                    self._answered, self._in_a_row = True, 0
                    yield i, result
                    continue
                failures.append(result)
                count("failures")
                detail(f"{self.base_url}: {result.finish}")
                self._in_a_row += 1
                all_failed = len(failures) == len(requests) and any(failure.down for failure in failures)
                if self._is_alarming(result) or all_failed:
                    blamed = result if result.fix or not all_failed else next(f for f in failures if f.down)
                    is_alive = not (blamed.everywhere and not self._answered) and self._greets_back(crew.stop)
                    # Answers that came meanwhile are not lost, and show that it lives as well.
                    while not crew.done.empty():
                        waiting.append(crew.done.get())
                    if not is_alive and all(isinstance(later, _Failure) for _, later in waiting):
                        raise self._stop(blamed)
                    self._in_a_row, self._patience = 0, self._patience * 2
                yield i, Generation("", result.finish)
        finally:
            crew.stop.set()

    def left_out(self) -> set[str]:
        """The keys of a chat's request that the model has refused under all their names: it answers without them."""
        return {key for key in ("max_tokens", "temperature") if not _renamed({key: 0}, self._instead)}

    def leave_out(self, keys: Iterable[str]) -> None:
        """Do not ask for these: an earlier run has learnt that the model refuses them."""
        for key in keys:
            second = _SECOND_NAME.get(key)
            self._learn({key: second, second: None} if second else {key: None})

    def complete(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """What OpenAI's older completions answer to each request: the first of its choices, as JSON has it.

        Raises: UserError where one has no answer after all its tries; `Refusal` where it was not to its taste.
        """
        crew = _Crew(self, requests)
        choices: dict[int, dict[str, Any]] = {}
        try:
            while len(choices) < len(requests):
                i, result = crew.done.get()
                if isinstance(result, _Failure):
                    is_missing = result.reason.startswith("404")  # a server of chats only has no such address
                    if result.again or (result.fix and not is_missing):
                        raise self._stop(result)
                    raise Refusal(f"{result.reason}: {result.message}" if result.message else result.reason)
                choices[i] = result
        finally:
            crew.stop.set()
        return [choices[i] for i in range(len(requests))]

    def _is_alarming(self, failure: _Failure) -> bool:
        """Whether it may be the server that is at fault, not the requests."""
        if failure.fix and not self._answered:
            return True
        # Fast refusals come before slow answers, and of a second run only what fails may be left: that many in a row
        # prove nothing, so the server is asked something else.
        return self._in_a_row >= self._patience and bool(failure.again or failure.fix or not self._answered)

    def _greets_back(self, stop: threading.Event) -> bool:
        """Whether the server answers what no model refuses and no limit cuts off."""
        request = {"messages": conversation("Hi"), "max_tokens": 16, "temperature": 0.0}
        is_alive = isinstance(self.answer(request, stop), Generation)
        self._answered |= is_alive
        return is_alive

    def answer(self, request: dict[str, Any], stop: threading.Event) -> Any:
        """The answer to one request or its `_Failure`, with its further tries: after 1, 2, 4, ... seconds, or when the
        server says."""
        attempt = 0
        while True:
            try:
                return self._ask(request)
            except _Failure as err:
                failure = err
            except Exception as err:
                # The type says enough; the text may hold the key.
                return _Failure(type(err).__name__, again=False)
            wait = min(max(FIRST_WAIT * 2 ** min(attempt, 20), failure.wait), LONGEST_WAIT)
            if not failure.again or attempt == self._retries:
                return failure
            count("retries")
            detail(f"{self.base_url}: {failure.finish}; another try in {wait:.0f} s")
            if stop.wait(wait):
                return failure
            attempt += 1

    def _ask(self, request: dict[str, Any], instead: dict[str, str | None] | None = None) -> Any:
        """One try; where the model refuses a key, one more without it. Raises: _Failure."""
        import openai

        is_chat = "messages" in request
        asked = _renamed(request, self._instead if instead is None else instead)
        extra = dict(self.extra_body)
        if not is_chat:
            extra.pop("chat_template_kwargs", None)
            extra |= asked.pop("extra_body", {})
        if extra:
            asked["extra_body"] = extra
        endpoint: Any = self._client.chat.completions if is_chat else self._client.completions
        try:
            reply = endpoint.with_raw_response.create(model=self.model, **asked)
        except openai.APIConnectionError as err:
            raise self._no_reply(err) from None
        except openai.APIStatusError as err:
            status, headers, error = err.status_code, err.response.headers, err.body
        else:
            content, headers = reply.http_response.content, reply.http_response.headers
            body = _parsed(content)
            error = _error_in(body)
            if error is None:
                return _generation(body) if is_chat else _choice(body)
            status = _status_in(error, body)
        refused = _refused(error, asked) if status in (400, 422) else []
        if not refused and not is_chat and _LIKELIHOODS.search(_message(error)):
            # llama.cpp's status is 500 where it says that it has no echo: no other try would help.
            raise _Failure(str(status), again=False, message=_message(error))
        if not refused:
            raise self._status(status, headers, error)
        # What it refuses is left out from now on only if that helps: a message may name a key for another reason.
        changes = {key: _SECOND_NAME.get(key) for key in refused}
        known = self._instead if instead is None else instead
        answer = self._ask(request, known | changes)
        self._learn(changes)
        return answer

    def _learn(self, changes: dict[str, str | None]) -> None:
        with self._lock:
            for key in changes.keys() - self._instead.keys():
                substitute = f"with {changes[key]}" if changes[key] else "without, by its own default"
                say(f"{self.model} at {self.base_url} refuses {key}: asked {substitute}")
            self._instead = self._instead | changes

    def _no_reply(self, err: Exception) -> _Failure:
        # By name: openai's HTTP library is httpx or httpx2, by its version, and neither is ours to import.
        if type(err.__cause__).__name__ in ("ConnectError", "ConnectTimeout"):
            return _Failure("cannot be reached", everywhere=True, fix="start the server or mend the address")
        if "Timeout" in type(err).__name__:
            return _Failure(f"no answer within {self._timeout:g} s", down=True)
        return _Failure("connection broken", down=True)

    def _status(self, status: int, headers: Mapping[str, str], body: Any) -> _Failure:
        """What an answer with an error's status means: whose fault it is, and whether another try may help."""
        message = _message(body)
        if self._key:
            message = message.replace(self._key, "***")
        if status in (401, 403):
            fix = f"set ${self._key_env} to a key that it takes"
            # Some moderate by 403: another request may pass.
            return _Failure(
                f"{status}, the key is refused", again=False, everywhere=status == 401, fix=fix, message=message
            )
        if status == 404:
            fix = "mend the address (most end in /v1) or the model's name"
            reason = f"404, no chat or no model {self.model}"
            return _Failure(reason, again=False, everywhere=True, fix=fix, message=message)
        if status == 429:
            fix = "lower concurrency or raise retries; what is done is kept"
            return _Failure("429, too many requests", fix=fix, wait=_retry_after(headers), message=message)
        if not status:
            return _Failure("no answer", message=message)
        if status >= 500 or status in (408, 409, 425):
            return _Failure(str(status), down=True, wait=_retry_after(headers), message=message)
        return _Failure(str(status), again=False, message=message)

    def _stop(self, failure: _Failure) -> UserError:
        why = f"{failure.reason}: {failure.message}" if failure.message else failure.reason
        if failure.again and self._retries:
            why += f", {self._retries + 1} tries"
        fix = failure.fix or "see what the server logs and try again; what is done is kept"
        what = f"no answer from {self.base_url}{through_proxy(self.base_url)} ({why})"
        return UserError(what, f"{fix}{around_proxy(self.base_url)}", key="base_url")


class Refusal(Exception):
    """A request that the server will not answer, in its words."""


class _Crew:
    """Threads that put the requests to a server one by one.

    done: (index of a request, its answer or its `_Failure`), as they come. stop: ends the work.
    """

    def __init__(self, server: Server, requests: Sequence[dict[str, Any]]):
        self.done: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        self.stop = threading.Event()
        self._server = server
        self._todo: SimpleQueue[tuple[int, dict[str, Any]]] = SimpleQueue()
        for job in enumerate(requests):
            self._todo.put(job)
        server.connect()  # here: the threads would make a client each
        for _ in range(min(server.concurrency, len(requests))):
            # A daemon: one that waits for a silent server does not hold up the end of the program.
            threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        """What one thread does: a request after the other, until there are no more."""
        while not self.stop.is_set():
            try:
                i, request = self._todo.get_nowait()
            except Empty:
                return
            self.done.put((i, self._server.answer(request, self.stop)))


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


def check_listens(base_url: str) -> str:
    """Whether anyone is there, or the proxy on the way to it; says so. Nothing is asked of the model.

    Raises: UserError, without a key.
    """
    proxy, parts = proxy_of(base_url), urlsplit(base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = (proxy.host, proxy.port) if proxy else (parts.hostname or "", port)
    try:
        socket.create_connection(address, timeout=5).close()
    except OSError as err:
        what = f"{base_url}: nobody answers{through_proxy(base_url)} ({err.strerror or err})"
        raise UserError(what, f"start the server, or mend the address{around_proxy(base_url)}") from None
    return f"{base_url} answers{through_proxy(base_url)}"


def _extra_body(
    extra: Mapping[str, Any], enable_thinking: bool | None, chat_template_kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The keys of a request that OpenAI's have not."""
    own = sorted({"messages", "model", "stream", "n"} & extra.keys())
    if own:
        raise UserError(f"{own[0]} is not yours to set", "remove it", key="extra_body")
    body = dict(extra)
    thinking = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
    given = body.get("chat_template_kwargs")
    if thinking or chat_template_kwargs:
        body["chat_template_kwargs"] = {
            **(given if isinstance(given, dict) else {}),
            **thinking,
            **chat_template_kwargs,
        }
    return body


def _renamed(request: dict[str, Any], instead: Mapping[str, str | None]) -> dict[str, Any]:
    """The request without the keys that the model refuses, or under the names it takes."""
    asked = {}
    for name, value in request.items():
        key: str | None = name
        while key is not None and key in instead:
            key = instead[key]
        if key:
            asked[key] = value
    return asked


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise _Failure("the reply is no chat completion") from None


def _error_in(body: Any) -> Any:
    """The error that a body under status 200 is about; None where it is an answer."""
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(first, dict):
        return first.get("error")  # OpenRouter's, where an answer broke off
    return body.get("error") or (body if body.get("object") == "error" or {"message", "detail"} & body.keys() else None)


def _status_in(error: Any, body: Any) -> int:
    """The status that a body under status 200 means; 0 where it says none."""
    for group in (error, body):
        for name in ("code", "status", "status_code") if isinstance(group, dict) else ():
            value = str(group.get(name))
            status = int(value) if value.isdecimal() else 0
            if status >= 10000:  # FastChat's: 42901 is too many requests, 40303 a text that is too long
                status = 429 if status // 100 == 429 else status // 10000 * 100
            if 400 <= status < 600:
                return status
    words = json.dumps(error).lower().replace("_", " ")
    if any(sign in words for sign in ("rate limit", "ratelimit", "too many requests", "resource exhausted")):
        return 429
    return 400 if any(sign in words for sign in ("invalid request", "bad request", "badrequest")) else 0


def _message(error: Any) -> str:
    """A server's words, on one line; a page of a proxy is none."""
    if isinstance(error, dict):
        return _message(next((error[name] for name in ("error", "message", "detail", "msg") if error.get(name)), ""))
    if isinstance(error, list):
        return ", ".join(dict.fromkeys(filter(None, map(_message, error))))[:200]
    words = " ".join(str(error).split())[:200]
    return "" if words.startswith("<") else words


def _refused(error: Any, asked: Mapping[str, Any]) -> list[str]:
    """The keys of the request that an error of status 400 or 422 says the model does not take."""
    names = [name for name in _REFUSABLE if name in asked]
    # FastAPI's list says which key, and repeats the whole request beside it.
    details = error
    while isinstance(details, dict):
        details = details.get("error") or details.get("detail") or details.get("message")
    if isinstance(details, list):
        rows = [row for row in details if isinstance(row, dict) and isinstance(row.get("loc"), list)]
        return [name for name in names if any(name in row["loc"] for row in rows)]
    message = _message(error)
    if isinstance(error, dict) and error.get("param") in names:
        named = [error["param"]]
    else:
        named = [name for name in names if re.search(rf"\b{name}\b", message)]
    # A text that is too long is told with the limit's name as well.
    return [name for name in named if name not in _LIMITS or _REFUSAL.search(message)]


def _generation(body: Any) -> Generation:
    """The answer in the body of a reply. Raises: _Failure."""
    try:
        choice = body["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text = _text(message.get("content")).strip()
        thought = message.get("reasoning_content") or message.get("reasoning")
        refusal = message.get("refusal")
        text.encode("utf-8")  # JSON can hold half a surrogate pair, a file cannot
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise _Failure("the reply is no chat completion") from None
    reason = " ".join(str(finish).split())[:40]
    if refusal and not text:
        reason = "refusal"
    kind = reason.lower().rsplit(".", 1)[-1]
    if kind in _BROKEN_OFF:
        raise _Failure(f"ended by {reason}", down=True)
    if kind in _WITHHELD:
        return Generation("", f"error: ended by {reason}")
    # Thoughts and no answer behind them: it did not come to one.
    return Generation(text, "length" if kind in _CUT_OFF or (thought and not text) else "stop")


def _choice(body: Any) -> dict[str, Any]:
    """The one choice in a reply of the older completions. Raises: _Failure."""
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _Failure("the reply is no completion")
    return choices[0]


def _text(content: Any) -> str:
    """The content of a message, which may come as a list of parts; thoughts and pictures among them are left out."""
    if content is None:
        return ""
    if isinstance(content, list):
        parts = [{"text": part} if isinstance(part, str) else part for part in content]
        return "".join(part["text"] for part in parts if part.get("type", "text") in ("text", "output_text"))
    if not isinstance(content, str):
        raise TypeError("no text")
    return content


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
