"""The client against a real server on this machine that misbehaves as told, a reply a script line."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.memory import Memory, key_of, kind_of
from sdrrl_factory.models import server as module
from sdrrl_factory.models.lm import LM, Generation
from sdrrl_factory.models.remembered import RememberedModel
from sdrrl_factory.models.server import Server
from sdrrl_factory.transfer.generate import Generate, identity
from sdrrl_factory.transfer.recipe import Generator, Translator
from sdrrl_factory.transfer.store import Store, read_rows
from sdrrl_factory.transfer.translate.chat import Chat
from tests.conftest import BIN

pytest.importorskip("openai", reason="openai is not installed: pip install 'sdrrl-factory[server]'")
KEY = "sk-very-secret-0123456789"


def completion(text, finish="stop"):
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]}


class Fake(ThreadingHTTPServer):
    """`answer(request, n)` is called with each request's JSON and how many had its text before it; it returns
    (status, body, headers), or one of "half", "close", "hang".
    """

    daemon_threads = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.asked, self.times, self.headers_seen = answer, [], [], []
        self.lock, self.now, self.most, self.end = threading.Lock(), 0, 0, threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        fake = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = request["messages"][-1]["content"]
        with fake.lock:
            n = [r["messages"][-1]["content"] for r in fake.asked].count(text)
            fake.asked.append(request)
            fake.times.append(time.monotonic())
            fake.headers_seen.append((self.path, self.headers["Authorization"]))
            fake.now += 1
            fake.most = max(fake.most, fake.now)
        try:
            self.reply(fake.answer(request, n))
        finally:
            with fake.lock:
                fake.now -= 1

    def reply(self, answer):
        self.close_connection = True
        if answer == "hang":
            self.server.end.wait(20)
        if answer in ("hang", "close"):
            return
        status, body, headers = (200, json.dumps(completion("x")), {}) if answer == "half" else answer
        raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(raw))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw[: len(raw) // 2] if answer == "half" else raw)

    def log_message(self, *args):
        pass


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT", 0.002)
    monkeypatch.setenv("THE_KEY", KEY)
    started = []

    def serve(answer):
        started.append(Fake(answer))
        threading.Thread(target=started[-1].serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return started[-1]

    yield serve
    for fake in started:
        fake.end.set()
        fake.shutdown()
        fake.server_close()


def client(url, **settings):
    base = dict(api_key_env="THE_KEY", concurrency=2, timeout=5.0, retries=3)
    return Server(url, "some-model", **base | settings)


def users(*texts):
    return [[{"role": "user", "content": text}] for text in texts]


def echo(request, n):
    return 200, completion(request["messages"][-1]["content"].upper()), {}


def good(text="A"):
    return [Generation(text, "stop")]


def test_what_is_sent_and_in_which_order_it_comes_back(serve):
    def answer(request, n):
        text = request["messages"][-1]["content"]
        time.sleep(0.001 * (20 - int(text)))  # the first are the last to be ready
        return 200, completion(f" {text} \n", "length" if text == "3" else "stop"), {}

    fake, done = serve(answer), []
    server = client(fake.url, concurrency=4)
    turns = users(*map(str, range(20)))
    turns[1].insert(0, {"role": "system", "content": "Be brief."})
    out = server.chat(turns, 9, 0.0, seeds=range(20), progress=done.append)
    assert out == [Generation(str(i), "length" if i == 3 else "stop") for i in range(20)]
    assert done == [1] * 20 and 2 <= fake.most <= 4
    by_text = {r["messages"][-1]["content"]: r for r in fake.asked}
    assert by_text["1"] == {"model": "some-model", "messages": turns[1], "max_tokens": 9, "temperature": 0.0}
    assert set(fake.headers_seen) == {("/v1/chat/completions", f"Bearer {KEY}")}
    assert server.chat([], 9, 0.0) == []


def test_seeds_go_with_a_temperature_only(serve):
    fake = serve(echo)
    client(fake.url).chat(users("a", "b"), 9, 0.7, seeds=[5, 6])
    assert {(r["messages"][0]["content"], r["seed"], r["temperature"]) for r in fake.asked} == {
        ("a", 5, 0.7), ("b", 6, 0.7),
    }  # fmt: skip


def test_without_a_key_a_placeholder_is_sent(serve, monkeypatch):
    monkeypatch.delenv("THE_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    fake = serve(echo)
    assert client(fake.url).chat(users("a"), 9, 0.0) == good()
    assert fake.headers_seen == [("/v1/chat/completions", "Bearer none")]


def spoilt(*before):
    """These replies first, then the right one."""
    return lambda request, n: before[n] if n < len(before) else echo(request, n)


@pytest.mark.parametrize(
    "before",
    [
        [(429, {"error": {"message": "slow down"}}, {})] * 2,
        [(500, {"error": "crash"}, {}), (503, "<html>", {"Content-Type": "text/html"})],
        [(200, "<html>Sign in</html>", {"Content-Type": "text/html"}), (200, "nonsense", {})],
        [(200, {"choices": []}, {}), (200, [1], {}), (200, completion(7), {})],
        [(200, '{"choices": [{"message": {"content": "\\ud800"}, "finish_reason": "stop"}]}', {})],
        ["half", "close"],
        ["hang"],
    ],
    ids=["429", "5xx", "html", "json", "surrogate", "broken", "hang"],
)
def test_a_passing_fault_is_tried_again(serve, before):
    fake = serve(spoilt(*before))
    assert client(fake.url, timeout=0.4 if before == ["hang"] else 5).chat(users("a"), 9, 0.0) == good()
    assert len(fake.asked) == len(before) + 1


def test_the_wait_doubles_up_to_the_longest(serve, monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT", 0.1)
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.25)
    fake = serve(spoilt(*[(500, {}, {})] * 4))
    client(fake.url, retries=4).chat(users("a"), 9, 0.0)
    waits = [b - a for a, b in zip(fake.times, fake.times[1:], strict=False)]
    for wait, least in zip(waits, [0.1, 0.2, 0.25, 0.25], strict=True):
        assert least <= wait < 0.75  # unlimited, the last would be 0.8


@pytest.mark.parametrize("date", [False, True])
def test_retry_after_is_honoured_and_capped(serve, monkeypatch, date):
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.3)
    fake = serve(spoilt((429, {}, {"Retry-After": formatdate(time.time() + 90, usegmt=True) if date else "90"})))
    client(fake.url).chat(users("a"), 9, 0.0)
    assert 0.3 <= fake.times[1] - fake.times[0] < 9
    fake = serve(spoilt((503, {}, {"Retry-After": "0.15"})))
    client(fake.url).chat(users("a"), 9, 0.0)
    assert fake.times[1] - fake.times[0] >= 0.15


@pytest.mark.parametrize(
    ("bad", "finish", "tries"),
    [
        (
            (400, {"error": {"message": "too long\nby 12 tokens", "code": None}}, {}),
            "error: 400: too long by N tokens",
            1,
        ),
        ((422, {"detail": [{"loc": ["body"]}]}, {}), "error: 422", 1),
        ((200, "<html></html>", {"Content-Type": "text/html"}), "error: the reply is no chat completion", 4),
        ((200, {"choices": []}, {}), "error: the reply is no chat completion", 4),
        ((200, {"error": {"message": "no"}}, {}), "error: no answer: no", 4),
        ((200, {"error": {"message": "Too long. You sent 9.", "code": 400}}, {}), "error: 400: Too long", 1),
        ((200, {"object": "error", "message": "too long", "code": 40303}, {}), "error: 400: too long", 1),
        ((200, {"error": {"message": "slow down", "code": "503"}}, {}), "error: 503: slow down", 4),
        ((200, completion("half of", "error"), {}), "error: ended by error", 4),
        ((200, completion(None, "content_filter"), {}), "error: ended by content_filter", 1),
        ((500, {}, {}), "error: 500", 4),
        ((500, {"error": "crash"}, {}), "error: 500: crash", 4),
        ("half", "error: connection broken", 4),
        ("hang", "error: no answer within 0.5 s", 4),
    ],
)
def test_a_request_that_fails_for_itself_leaves_the_others_be(serve, bad, finish, tries):
    fake = serve(lambda request, n: bad if request["messages"][0]["content"] == "b" else echo(request, n))
    out = client(fake.url, timeout=0.5 if bad == "hang" else 5).chat(users(*"abc"), 9, 0.0)
    assert out == [Generation("A", "stop"), Generation("", finish), Generation("C", "stop")]
    assert [r["messages"][0]["content"] for r in fake.asked].count("b") == tries


def test_refused_and_odd_replies_alone(serve):
    fake = serve(lambda request, n: (400, {"message": "too long"}, {}))
    assert client(fake.url).chat(users("a"), 9, 0.0) == [Generation("", "error: 400: too long")]
    fake = serve(lambda request, n: (200, completion(None, None), {}))
    assert client(fake.url).chat(users("a"), 9, 0.0) == [Generation("", "stop")]
    fake = serve(echo)
    assert client(fake.url).chat(users("half a pair \ud800"), 9, 0.0)[0].finish.startswith("error: ")


def closed_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


HTML = "<html>\n<body>gone</body></html>", {"Content-Type": "text/html"}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, "cannot be reached, 4 tries.; start the server or mend the address"),
        ((401, {"error": {"message": f"Bad key {KEY}\nsee"}}, {}), r"401, .*: Bad key \*\*\* see.; set \$THE_KEY"),
        ((403, *HTML), r"403, the key is refused.; set \$THE_KEY to a key that it takes"),
        ((404, {"detail": "Not Found"}, {}), "404, no chat or no model some-model: Not Found.; mend the address"),
        ((429, {"error": {"message": "quota"}}, {}), "429, too many requests: quota, 4 tries.; lower concurrency"),
        ((500, *HTML), "500, 4 tries.; see what the server logs"),
        ("close", "connection broken, 4 tries.; see"),
        ("half", "connection broken, 4 tries.; see"),
        ("hang", "no answer within 0.2 s, 4 tries.; see"),
    ],
    ids=["refused", "401", "403", "404", "429", "500", "close", "half", "hang"],
)  # fmt: skip
@pytest.mark.parametrize("n", [1, 6])
def test_a_server_that_is_no_good_is_one_line(serve, answer, expected, n):
    url = serve(lambda request, n: answer).url if answer else f"http://127.0.0.1:{closed_port()}/v1"
    with pytest.raises(UserError, match=f"^base_url: no answer from {url} .{expected}") as caught:
        client(url, timeout=0.2 if answer == "hang" else 5).chat(users(*"abcdef"[:n]), 9, 0.0)
    assert "\n" not in str(caught.value) and KEY not in str(caught.value) and "html" not in str(caught.value)


@pytest.mark.parametrize("answer", [(200, *HTML), (400, {"error": {"message": "no model"}}, {})], ids=["html", "400"])
def test_a_server_that_never_made_sense_does_not_eat_the_whole_run(serve, answer):
    fake = serve(lambda request, n: answer)
    with pytest.raises(UserError, match="no answer from .*; see what the server logs"):
        client(fake.url, concurrency=1).chat(users(*"abcdefghij"), 9, 0.0)
    assert len(fake.asked) <= 5 * 4  # three, the fourth behind them, and the greeting


def test_refusals_in_a_row_are_the_requests_own_once_the_server_has_answered(serve):
    fake = serve(lambda request, n: (400, {}, {}) if request["messages"][0]["content"] != "a" else echo(request, n))
    out = client(fake.url, concurrency=1).chat(users(*"abcdefg"), 9, 0.0)
    assert [g.finish for g in out] == ["stop"] + ["error: 400"] * 6


@pytest.mark.parametrize(
    ("finish", "expected"),
    [("eos", "stop"), ("end_turn", "stop"), ("COMPLETE", "stop"), (None, "stop"), ("stop_sequence", "stop"),
     ("max_tokens", "length"), ("FinishReason.MAX_TOKENS", "length"), ("model_length", "length"),
     ("SAFETY", "error: ended by SAFETY")],
)  # fmt: skip
def test_only_reasons_known_to_be_bad_void_a_text(serve, finish, expected):
    fake = serve(lambda request, n: (200, completion("Hola.", finish), {}))
    text = "" if expected.startswith("error") else "Hola."
    assert client(fake.url).chat(users("a"), 9, 0.0) == [Generation(text, expected)]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": [{"type": "text", "text": "Ho"}, {"type": "text", "text": "la."}]}, ("Hola.", "stop")),
        ({"content": ["Ho", "la."]}, ("Hola.", "stop")),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
                         {"type": "text", "text": "Hola."}]},
            ("Hola.", "stop"),
        ),
        ({"content": "Hola.", "reasoning_content": "Hm"}, ("Hola.", "stop")),
        ({"content": None, "reasoning_content": "Hm"}, ("", "length")),
        ({"content": None, "refusal": "I cannot"}, ("", "error: ended by refusal")),
    ],
)  # fmt: skip
def test_the_forms_of_a_message(serve, message, expected):
    fake = serve(lambda request, n: (200, {"choices": [{"message": message, "finish_reason": "stop"}]}, {}))
    assert client(fake.url).chat(users("a"), 9, 0.0) == [Generation(*expected)]


def test_too_many_requests_under_status_200(serve):
    body = {"error": {"message": "Rate limit reached", "type": "rate_limit_error"}}
    fake = serve(spoilt((200, body, {})))
    assert client(fake.url).chat(users("a"), 9, 0.0) == good() and len(fake.asked) == 2
    fake = serve(lambda request, n: (200, body, {}))
    with pytest.raises(UserError, match="429, too many requests: Rate limit reached, 4 tries.; lower concurrency"):
        client(fake.url).chat(users("a"), 9, 0.0)


def picky(*refusals):
    """A server whose model takes a request only without these keys: (key, the message, or the body, that says so)."""

    def answer(request, n):
        for key, body in refusals:
            if key in request:
                return 400, {"error": {"message": body}} if isinstance(body, str) else body, {}
        return echo(request, n)

    return answer


@pytest.mark.parametrize(
    ("refusals", "left"),
    [
        (
            [("max_tokens", "Unsupported parameter: 'max_tokens' is not supported with this model. "
                            "Use 'max_completion_tokens' instead.")],
            {"max_completion_tokens", "temperature", "seed"},
        ),
        (
            [("temperature", "Unsupported value: 'temperature' does not support 0.5 with this model.")],
            {"max_tokens", "seed"},
        ),
        (
            [("seed", {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"],
                                   "msg": "Extra inputs are not permitted", "input": {"temperature": 1}}]})],
            {"max_tokens", "temperature"},
        ),
        (
            [("max_tokens", "Unrecognized request argument supplied: max_tokens"),
             ("max_completion_tokens", "Unrecognized request argument supplied: max_completion_tokens"),
             ("temperature", "`temperature` must be strictly positive"), ("seed", "unknown field seed")],
            set(),
        ),
    ],
    ids=["max_tokens", "temperature", "seed", "all"],
)  # fmt: skip
def test_what_a_model_refuses_is_left_out_and_said_once(serve, capsys, refusals, left):
    fake = serve(picky(*refusals))
    server = client(fake.url, concurrency=1, retries=0)
    assert [g.text for g in server.chat(users(*"abc"), 9, 0.5, seeds=[1, 2, 3])] == ["A", "B", "C"]
    assert set(fake.asked[-1]) - {"model", "messages"} == left
    assert len(fake.asked) == 3 + len(refusals)  # learned at the first one
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" refuses ")[1].split(":")[0] for line in said] == [key for key, _ in reversed(refusals)]


def test_a_key_named_for_another_reason_stays(serve):
    message = "'max_tokens' is too large: 9. The model's maximum context length is 4 tokens."
    fake = serve(lambda request, n: (400, {"error": {"message": message}}, {}))
    [answer] = client(fake.url).chat(users("a"), 9, 0.0)
    assert answer.finish == "error: 400: 'max_tokens' is too large: N" and len(fake.asked) == 1
    # Named in vain: what does not help is not learned.
    fake = serve(
        lambda request, n: (
            (400, {"error": {"message": "bad temperature or text"}}, {})
            if request["messages"][0]["content"] == "b"
            else echo(request, n)
        )
    )
    out = client(fake.url, concurrency=1).chat(users(*"abc"), 9, 0.0)
    assert [g.finish for g in out] == ["stop", "error: 400: bad temperature or text", "stop"]
    assert ["temperature" in request for request in fake.asked] == [True, True, False, True]


def test_further_keys_go_with_every_request(serve):
    fake = serve(echo)
    settings = dict(extra_body={"top_k": 3, "chat_template_kwargs": {"a": 1}}, enable_thinking=False)
    client(fake.url, **settings, chat_template_kwargs={"b": 2}).chat(users("a"), 9, 0.0)
    assert fake.asked[0]["top_k"] == 3
    assert fake.asked[0]["chat_template_kwargs"] == {"a": 1, "b": 2, "enable_thinking": False}
    with pytest.raises(UserError, match="^extra_body: messages is not yours to set; remove it$"):
        client(fake.url, extra_body={"messages": []})


def test_three_that_are_too_long_are_refused_before_the_first_good_answer(serve):
    """24 texts, three of them refused at once, while the others take their time."""

    def answer(request, n):
        if request["messages"][0]["content"].startswith("long"):
            return 400, {"error": {"message": "too long"}}, {}
        time.sleep(0.15)
        return echo(request, n)

    fake = serve(answer)
    texts = ["long a", "long b", "long c", *(f"t{i}" for i in range(21))]
    out = client(fake.url, concurrency=8).chat(users(*texts), 9, 0.0)
    assert [g.finish for g in out] == ["error: 400: too long"] * 3 + ["stop"] * 21
    assert [g.text for g in out[3:]] == [text.upper() for text in texts[3:]]


def test_errors_at_the_same_few_texts_do_not_end_this_run_nor_the_next(serve, tmp_path):
    """A 500 for the same three each time; the next run has nothing else left to ask."""
    bad = ["t3", "t4", "t5"]
    fake = serve(lambda request, n: (500, {}, {}) if request["messages"][0]["content"] in bad else echo(request, n))
    texts = [f"t{i}" for i in range(24)]
    for _ in range(2):
        memory = Memory(tmp_path / "memory.sqlite")
        model = RememberedModel(memory, "m", server=client(fake.url, retries=1))
        out = model.generate(texts, 9, 1)
        assert [text for text, g in zip(texts, out, strict=True) if g.finish == "error: 500"] == bad
        assert [g.text for g in out if g.finish == "stop"] == [text.upper() for text in texts if text not in bad]
    asked = [request["messages"][0]["content"] for request in fake.asked]
    assert all(asked.count(text) == (4 if text in bad else 1) for text in texts)


def test_answers_that_come_while_the_run_ends_are_given(serve):
    """The key is refused from the second request on; the first one's answer is late."""
    refused = threading.Event()

    def answer(request, n):
        if request["messages"][0]["content"] == "a":
            refused.wait(5)
            return echo(request, n)
        refused.set()
        time.sleep(0.05 if request["messages"][0]["content"] == "Hi" else 0)
        return 403, {}, {}

    given = []
    with pytest.raises(UserError, match="403, the key is refused"):
        for i, generation in client(serve(answer).url, concurrency=2, retries=0).stream(users(*"abcdefgh"), 9, 0.0):
            given.append((i, generation.text))
    assert (0, "A") in given


def test_a_stop_does_not_wait_for_silent_requests(serve):
    def answer(request, n):
        return "hang" if request["messages"][0]["content"] == "a" else (401, {}, {})

    began = time.monotonic()
    with pytest.raises(UserError, match="401"):
        client(serve(answer).url, timeout=15).chat(users(*"ab"), 9, 0.0)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("url", ["", "localhost:8000/v1", "ftp://a/v1", "http:///v1", "http://a:b/v1", "http://a\n/v1"])
def test_an_address_that_is_none(url):
    with pytest.raises(UserError, match="^base_url: .* is no address of a server; write") as caught:
        client(url)
    assert "\n" not in str(caught.value)


def test_secrets_stay_where_they_belong(monkeypatch):
    with pytest.raises(UserError, match="holds a password") as caught:
        client(f"http://me:{KEY}@127.0.0.1/v1")
    assert KEY not in str(caught.value)
    monkeypatch.setenv("THE_KEY", f"{KEY}\nx")
    with pytest.raises(UserError, match=r"\$THE_KEY holds characters that no key has") as caught:
        client("http://127.0.0.1/v1")
    assert KEY not in str(caught.value)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r"run pip install 'sdrrl-factory\[server\]'$"):
        client("http://127.0.0.1/v1")


def test_nothing_heavy_is_imported_before_the_first_request():
    code = (
        "import sys; from sdrrl_factory.models.server import Server\n"
        "Server('http://a/v1', 'm', api_key_env='K', concurrency=1, timeout=1, retries=0)\n"
        "print({'openai', 'torch', 'httpx'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_the_next_run_asks_again_what_a_server_failed_at_and_no_more(serve, tmp_path):
    """The shard of a failure is there for this run; the next one makes it anew, from what was answered and the rest."""
    well = []
    fake = serve(
        lambda request, n: (400, {}, {}) if request["messages"][0]["content"] == "b" and not well else echo(request, n)
    )
    config = Generator(backend="server", base_url=fake.url, model="m", api_key_env="THE_KEY", retries=0, concurrency=1)
    stage, store = Generate(config, identity(config), 1, tmp_path / "memory.sqlite"), Store(tmp_path)
    rows = [
        {"id": text, "instruction": text, "input": "", "system": "", "answer_origin": "G"}
        for text in ("a", "b", "c", "d")
    ]
    shards = store.write_shards(rows, 2)

    def run() -> tuple[list, list]:
        reused = []
        out = store.run(stage, shards, lambda count, there: reused.append(there))
        return [(row["response"], row["response_finish"]) for row in read_rows(out)], sorted(reused)

    good = [(text, "stop") for text in "ABCD"]
    assert run() == ([good[0], ("", "error: 400"), *good[2:]], [False, False])
    well.append(True)
    before = len(fake.asked)
    assert run() == (good, [False, True])
    assert [request["messages"][0]["content"] for request in fake.asked[before:]] == ["b"]
    assert run() == (good, [True, True]) and len(fake.asked) == before + 1


@pytest.fixture
def llamafactory_api(tiny, tmp_path):
    """`llamafactory-cli api` with the tiny checkpoint; its address."""
    port, log = closed_port(), tmp_path / "api.log"
    command = [BIN / "llamafactory-cli", "api", "--model_name_or_path", tiny, "--template", "smollm2"]
    environment = {"API_HOST": "127.0.0.1", "API_PORT": str(port), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with open(log, "wb") as out:
        api = subprocess.Popen(
            [*map(str, command), "--infer_backend", "huggingface"],
            env=os.environ | environment,
            stdout=out,
            stderr=out,
            cwd=tmp_path,
            start_new_session=True,
        )
    try:
        for _ in range(600):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert api.poll() is None, log.read_text()[-4000:]
            time.sleep(0.5)
        else:
            pytest.fail(f"no answer in five minutes:\n{log.read_text()[-4000:]}")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.killpg(api.pid, signal.SIGKILL)
        api.wait()


@pytest.mark.slow
def test_llamafactorys_own_server_says_what_the_model_says_in_process(llamafactory_api, tiny, memory):
    """Greedy answers, through HTTP and one by one there, in one left-padded batch here."""
    keys = {"max_new_tokens": 12, "longest_answer": 12, "concurrency": 3, "retries": 2}
    config = Generator(backend="server", base_url=llamafactory_api, model="tiny", **keys)
    instructions, systems = ["Hola.", "¿Qué hora es?", "Cuenta hasta diez.", "Sol", "x"], ["", "Sé breve.", "", "", ""]
    batch = {
        "id": list("abcde"),
        "instruction": instructions,
        "input": ["", "En Madrid.", "", "y luna", ""],
        "system": systems,
        "answer_origin": list("GGGGD"),
    }
    stage = Generate(config, identity(config), 1, memory.path)
    with stage.open() as tool:
        out = stage(batch, tool)
    lm = LM(str(tiny), template="smollm2")
    asked = ["Hola.", "¿Qué hora es?\nEn Madrid.", "Cuenta hasta diez.", "Sol\ny luna"]
    expected = lm.generate(asked, 12, 4, systems=systems[:4])
    assert out["response"] == [g.text for g in expected] + [None]
    assert out["response_finish"] == [g.finish for g in expected] + [None]
    assert len(set(out["response"])) > 2

    keys = dict(backend="chat", max_new_tokens=40, retries=2)
    here = Chat(Translator(model=str(tiny), template="smollm2", **keys), memory)
    there = Chat(Translator(model="tiny", base_url=llamafactory_api, **keys), memory)
    segments = [f"Tengo {n} años." for n in range(6)]
    assert there.translate(segments, "spa", "eng") == here.translate(segments, "spa", "eng")
    draws = there._model._server.chat(users("Hola."), 12, 1.0, seeds=[3])
    assert draws[0].finish in ("stop", "length")


def test_a_refused_temperature_shapes_no_answer_and_no_key(serve, tmp_path):
    """Answers under the server's own temperature are not kept as those at 0, and the next run finds them."""

    def answer(request, n):
        if "temperature" in request:
            return 400, {"error": {"message": "Unsupported parameter: 'temperature'", "param": "temperature"}}, {}
        return echo(request, n)

    fake = serve(answer)

    def ask():
        with Memory(tmp_path / "memory.sqlite") as memory:
            model = RememberedModel(memory, "some-model", server=client(fake.url))
            answers = model.generate(["a", "b", "c"], 9, 2)
            kind = kind_of("generate", **model.identity, max_new_tokens=9, temperature=0.0)
            keys = [key_of(["", text, None]) for text in "abc"]
            return answers, memory.get(kind, keys), model.left_out()

    first = ask()
    assert first == ([Generation(text, "stop") for text in "ABC"], {}, {"temperature"})
    asked = len(fake.asked)
    assert ask() == first and len(fake.asked) == asked
