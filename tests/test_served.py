"""Likelihoods from servers of three kinds, each with the same tiny model behind it, beside those in process."""

import threading
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from sdrrl_factory.errors import UserError
from sdrrl_factory.memory import Memory
from sdrrl_factory.models import server as client
from sdrrl_factory.models.remembered import RememberedModel
from sdrrl_factory.models.served import ServedLikelihoods
from sdrrl_factory.models.server import Server
from tests.serving import JSONHandler
from tests.test_beginnings import among, random_prompts

pytest.importorskip("openai", reason="needs openai: pip install 'sdrrl-factory[server]'")


class Completions(ThreadingHTTPServer):
    """OpenAI's older completions as one of these servers has them, computed by transformers alone, token by token.

    kind: vllm and sglang echo the prompt; old-vllm refuses that and has prompt_logprobs; llama.cpp has the likeliest
    next tokens; silent-llama.cpp takes no notice of echo; chat has no such address.
    chat: answers chat completions: prompt -> (text, finish).
    """

    daemon_threads = True

    def __init__(self, kind: str, checkpoint: Path, chat: Callable[[str], tuple[str, str]] | None = None):
        super().__init__(("127.0.0.1", 0), Handler)
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.kind, self.chat, self.requests, self.lock = kind, chat, [], threading.Lock()
        self.model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    @contextmanager
    def serving(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()

    def reply(self, request: dict) -> tuple[int, dict]:
        if "messages" in request:
            text, finish = self.chat(request["messages"][-1]["content"])
            return 200, {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]}
        if self.kind == "chat":
            return 404, {"detail": "Not Found"}
        if request.get("echo") and self.kind in ("llama.cpp", "old-vllm"):
            status = 500 if self.kind == "llama.cpp" else 400
            return status, {"error": {"code": status, "message": "Only no echo is supported"}}
        ids = request["prompt"]
        with torch.no_grad(), self.lock:
            logprobs = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        own = [None, *(float(logprobs[k, token]) for k, token in enumerate(ids[1:]))]
        text = [self.tokenizer.decode([token]) for token in ids]
        best = int(logprobs[-1].argmax())
        choice: dict = {"index": 0, "text": self.tokenizer.decode([best]), "finish_reason": "length"}
        if request.get("echo") and self.kind in ("vllm", "sglang"):
            new = [float(logprobs[-1, best])] if request["max_tokens"] else []
            values = {"tokens": text, "token_logprobs": own + new, "top_logprobs": None}
            values["text_offset"] = [-1] * len(text) if self.kind == "sglang" else [0] * len(text)
            choice["logprobs"] = values
        elif "prompt_logprobs" in request and self.kind == "old-vllm":
            rest = [{str(token): {"logprob": own[k]}, "399": {"logprob": -9.0}} for k, token in enumerate(ids) if k]
            choice["prompt_logprobs"] = [None, *rest]
        elif "llama.cpp" in self.kind and request.get("logprobs"):
            some = logprobs[-1].topk(min(request["logprobs"], logprobs.shape[1]))
            top = [
                {"id": token, "token": self.tokenizer.decode([token]), "logprob": value}
                for token, value in zip(some.indices.tolist(), some.values.tolist(), strict=True)
            ]
            choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
        return 200, {"object": "text_completion", "choices": [choice]}


class Handler(JSONHandler):
    def do_POST(self):
        request = self.read()
        with self.server.lock:
            self.server.requests.append(self.path)
        status, body = self.server.reply(request)
        self.answer(status, body)


@pytest.fixture
def serve(monkeypatch, tiny):
    monkeypatch.setattr(client, "FIRST_WAIT", 0.002)
    with ExitStack() as stack:

        def serve(kind: str) -> tuple[Completions, ServedLikelihoods]:
            fake = stack.enter_context(Completions(kind, tiny).serving())
            server = Server(fake.url, "tiny", api_key_env="THE_KEY", concurrency=4, timeout=20.0, retries=1)
            return fake, ServedLikelihoods(server, str(tiny))

        yield serve


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("vllm", "echo"),
        ("sglang", "echo"),
        ("old-vllm", "prompt_logprobs"),
        ("llama.cpp", "next"),
        ("silent-llama.cpp", "next"),
    ],
)
def test_the_same_letters_as_in_process(serve, lm, kind, way):
    fake, served = serve(kind)
    prompts = random_prompts(11)
    expected = lm.choose(among(prompts, ["A", "B", "C"]), 4)  # one token each
    values = served.choose(among(prompts, ["A", "B", "C"]), 4)
    for row, own in zip(values, expected, strict=True):
        assert row == pytest.approx(own, abs=1e-4) and row.index(max(row)) == own.index(max(own))
    assert served.way == way and set(fake.requests) == {"/v1/completions"}


@pytest.mark.parametrize("kind", ["vllm", "old-vllm"])
def test_losses_and_longer_choices_as_in_process(serve, lm, kind):
    _, served = serve(kind)
    pairs = [(prompt, "Sí, señor — 日本") for prompt in random_prompts(12)[:4]]
    texts = ["El río es ancho.", "Año nuevo: ¡ñandú!"]
    prompts = random_prompts(13)[:3]
    for ours, own in [
        (served.answer_loss(pairs, 4), lm.answer_loss(pairs, 4)),
        (served.text_loss(texts, 4), lm.text_loss(texts, 4)),
    ]:
        assert [n for _, n in ours] == [n for _, n in own]
        assert [nats for nats, _ in ours] == pytest.approx([nats for nats, _ in own], rel=1e-4)
    for row, own in zip(
        served.choose(among(prompts, [" A", " B"]), 4), lm.choose(among(prompts, [" A", " B"]), 4), strict=True
    ):
        assert row == pytest.approx(own, abs=1e-4)


def test_what_a_server_cannot_is_one_line(serve):
    _, served = serve("llama.cpp")
    with pytest.raises(UserError, match=r"^base_url: .* tells how likely the next token is, and nothing .*; evaluate"):
        served.text_loss(["Hola."], 4)
    _, served = serve("chat")
    expected = r"^base_url: .*/v1 gives no likelihoods \(echo: 404.*; prompt_logprobs: 404.*; next: 404.*\); evaluate"
    with pytest.raises(UserError, match=expected) as caught:
        served.choose(among(["P: x\nAnswer:"], ["A", "B"]), 4)
    assert "\n" not in str(caught.value)
    server = Server("http://127.0.0.1:9/v1", "m", api_key_env="K", concurrency=1, timeout=1.0, retries=0)
    with pytest.raises(UserError, match="^tokenizer: the tokenizer of the served checkpoint cannot be loaded from m"):
        ServedLikelihoods(server, "m")


def test_a_server_that_is_gone_is_told_as_such(tiny):
    server = Server("http://127.0.0.1:9/v1", "m", api_key_env="K", concurrency=1, timeout=1.0, retries=0)
    with pytest.raises(UserError, match="^base_url: no answer from http://127.0.0.1:9/v1 .cannot be reached"):
        ServedLikelihoods(server, str(tiny)).text_loss(["Hola."], 4)


def test_the_memory_keeps_a_servers_likelihoods(serve, tiny, tmp_path):
    fake, served = serve("vllm")
    prompts = random_prompts(14)[:5]

    def remembered(tokenizer):
        memory = Memory(tmp_path / "memory.sqlite")
        server = Server(fake.url, "tiny", api_key_env="K", concurrency=2, timeout=20.0, retries=0)
        return RememberedModel(memory, "tiny", load=lambda: served, server=server, tokenizer=tokenizer)

    first = remembered("a").choose(among(prompts, ["A", "B"]), 2)
    asked = len(fake.requests)
    assert remembered("a").choose(among(prompts, ["A", "B"]), 2) == first and len(fake.requests) == asked
    assert remembered("b").choose(among(prompts, ["A", "B"]), 2) == first and len(fake.requests) > asked
