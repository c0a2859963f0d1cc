"""The same recipe through a server on this machine that speaks OpenAI's chat completions."""

import csv
import json
import random
import threading
from collections import Counter
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from sdrrl_eval.compare.command import compare
from sdrrl_eval.measure import runner
from sdrrl_eval.measure.recipe import EvalConfig, ServerConfig
from sdrrl_eval.measure.runner import has_missing_answers
from sdrrl_factory.cli import main
from sdrrl_factory.errors import UserError
from sdrrl_factory.models import server as client
from sdrrl_factory.models.lm import LM
from tests.conftest import ROOT
from tests.eval.conftest import task_of
from tests.serving import JSONHandler
from tests.test_served import Completions

pytest.importorskip("openai", reason="needs openai: pip install 'sdrrl-factory[server]'")
KEY = "sk-very-secret-0123456789"


class Fake(ThreadingHTTPServer):
    """Answers with `answer(prompt, limit)` -> (text, finish), or a status."""

    daemon_threads = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.requests, self.lock = answer, [], threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(JSONHandler):
    def do_POST(self):
        request = self.read()
        with self.server.lock:
            self.server.requests.append(request)
            found = self.server.answer(request["messages"][-1]["content"], request["max_tokens"])
        status, body = found, {"error": {"message": "as told"}}
        if isinstance(found, tuple):
            message = {"role": "assistant", "content": found[0]}
            status, body = 200, {"choices": [{"message": message, "finish_reason": found[1]}]}
        self.answer(status, body)


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(client, "FIRST_WAIT", 0.002)
    monkeypatch.setenv("THE_KEY", KEY)
    started = []

    def serve(answer):
        started.append(Fake(answer))
        threading.Thread(target=started[-1].serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return started[-1]

    yield serve
    for fake in started:
        fake.shutdown()
        fake.server_close()


def recipe(files, url, *tasks, **keys) -> EvalConfig:
    flores, questions = str(files / "flores"), str(files / "instructions.{lang}.jsonl")
    tasks = tasks or (
        task_of(task="translation", path=flores, langs=["spa"], max_new_tokens=12),
        task_of(task="instructions", path=questions, langs=["spa", "eng"], metrics=["chrf"]),
        task_of(task="off_target", path=questions, langs=["spa"]),
    )
    server = ServerConfig(base_url=url, api_key_env="THE_KEY", concurrency=2, timeout=5.0, retries=2)
    base = dict(model="some-model", tasks=list(tasks), output_dir=str(files / "out"), server=server, max_new_tokens=6)
    return EvalConfig(**base | keys)


def predictions(files) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (files / "out" / "predictions").iterdir()}


def test_a_server_that_runs_the_checkpoint_gives_its_numbers(files, checkpoint, serve, tmp_path):
    lm = LM(checkpoint)

    def answer(prompt, limit):
        one = lm.generate([prompt], limit, 1)[0]
        return one.text, one.finish

    fake = serve(answer)
    remote = runner.run(recipe(files, fake.url), "r.yaml")
    by_server = predictions(files)
    local = runner.run(recipe(files, fake.url, model=checkpoint, server=None), "r.yaml")
    assert remote["scores"] == local["scores"] and remote["parts"] == local["parts"]
    assert by_server == predictions(files)
    assert len(fake.requests) == 12  # each distinct question once
    assert {(r["model"], r["temperature"]) for r in fake.requests} == {("some-model", 0.0)}
    assert Counter(r["max_tokens"] for r in fake.requests) == {12: 6, 6: 6}
    assert remote["model"] == "some-model" and remote["model_hash"] is None
    assert remote["decoding"]["server"] == fake.url and "openai" in remote["versions"]
    assert KEY not in "".join(p.read_text() for p in (files / "out").rglob("*.json*"))
    asked = len(fake.requests)
    again = runner.run(recipe(files, fake.url), "r.yaml")
    assert again | {"times": remote["times"]} == remote and len(fake.requests) == asked


def test_what_fails_is_counted_told_and_asked_again(files, serve, capsys):
    broken = {"now": True}

    def answer(prompt, limit):
        return 400 if broken["now"] and "manzanas" in prompt else ("Sí, claro que sí, mañana por la tarde.", "stop")

    fake = serve(answer)
    questions = str(files / "instructions.{lang}.jsonl")
    tasks = [task_of(task="off_target", path=questions, langs=["spa"])]
    results = runner.run(recipe(files, fake.url, *tasks), "r.yaml")
    said = capsys.readouterr().out
    assert "off_target.spa: 3 items, 1 without an answer (400: as told)" in said
    about = results["parts"]["off_target.spa"]
    assert about["finish"] == {"error: 400: as told": 1, "stop": 2} and about["empty"] == 1
    [score] = results["scores"]
    assert score["value"] == pytest.approx(100 / 3, abs=1e-4) and score["confusion"] == {"spa": 2, "": 1}
    assert score["remarks"] == {"missing": 1} and has_missing_answers(results)
    assert "33.3%ᵐ" in said and "1 of 3 without an answer" in said
    assert "1 answers did not come and are scored as empty; the same command asks for them again" in said
    rows = [json.loads(line) for line in predictions(files)["off_target.spa.jsonl"].splitlines()]
    assert [r["finish"] for r in rows] == ["stop", "error: 400: as told", "stop"] and rows[1]["output"] == ""
    broken["now"], asked = False, len(fake.requests)
    results = runner.run(recipe(files, fake.url, *tasks), "r.yaml")
    assert results["scores"][0]["value"] == 0 and "remarks" not in results["scores"][0]
    assert not has_missing_answers(results)
    assert len(fake.requests) == asked + 1


def test_every_fifth_request_fails_and_every_table_says_so(files, serve, capsys):
    """As issue 12 has it: 40 questions without retries, status 3; `compare` marks the score and counts the answers."""
    rows = [{"id": f"q{i}", "instruction": f"Pregunta {i}"} for i in range(40)]
    (files / "q.spa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def answer(prompt, limit):
        if int(prompt.split()[-1]) % 5 == 0 and failing["now"]:
            return 400
        return "Sí, claro que sí, mañana por la tarde.", "length" if prompt == "Pregunta 3" else "stop"

    failing, fake = {"now": True}, serve(answer)
    keys = {"model": "m", "server": {"base_url": fake.url, "api_key_env": "THE_KEY", "retries": 0}}
    keys["tasks"] = [{"task": "off_target", "path": str(files / "q.spa.jsonl"), "langs": ["spa"]}]
    (files / "r.yaml").write_text(json.dumps(keys | {"output_dir": str(files / "broken")}))
    assert main(["eval", str(files / "r.yaml")]) == 3
    assert "8 of 40 without an answer, 1 of 40 cut off" in " ".join(capsys.readouterr().out.split())
    failing["now"] = False
    assert main(["eval", str(files / "r.yaml"), f"output_dir={files / 'whole'}"]) == 0
    folders = [str(files / "broken"), str(files / "whole")]
    tables = {"markdown_file": files / "t.md", "latex_file": files / "t.tex", "csv_file": files / "t.csv"}
    capsys.readouterr()
    comparison = compare(folders)
    report = comparison.write(**tables)
    comparison.print()
    told = capsys.readouterr().out
    assert "20.0%ᵐᶜ" in told and "0.0%ᶜ" in told
    assert "ᵐ answers that did not come, scored as if nothing had been said: broken off target spa 8 of 40" in told
    assert "ᶜ answers cut off at the limit of new tokens: broken off target spa 1 of 40; whole off target" in told
    page = report.read_text(encoding="utf-8")
    assert "<sup>m</sup><sup>c</sup>" in page
    assert "8 of 40 without an answer, 1 of 40 cut off" in page
    assert "ᵐᶜ" in (files / "t.md").read_text() and r"$^{\mathrm{m}}$$^{\mathrm{c}}$" in (files / "t.tex").read_text()
    by_system = {row["system"]: row for row in csv.DictReader((files / "t.csv").open(encoding="utf-8"))}
    assert (by_system["broken"]["missing"], by_system["broken"]["cut_off"]) == ("8", "1")
    assert (by_system["whole"]["missing"], by_system["whole"]["cut_off"]) == ("0", "1")


def test_a_server_that_goes_down_is_one_line_and_what_is_done_is_kept(files, serve):
    rows = [{"instruction": f"Pregunta {i}"} for i in range(24)]
    (files / "many.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    up = {"left": 13}

    def answer(prompt, limit):
        up["left"] -= 1
        return ("Respuesta", "stop") if up["left"] >= 0 else 503

    fake = serve(answer)
    task = task_of(task="off_target", path=str(files / "many.jsonl"), langs=["spa"])
    with pytest.raises(UserError, match=r"^server.base_url: no answer from .* \(503: as told, 3 tries\)") as told:
        runner.run(recipe(files, fake.url, task), "r.yaml")
    assert "\n" not in str(told.value) and not (files / "out" / "results.json").exists()
    up["left"], asked = 99, len(fake.requests)
    runner.run(recipe(files, fake.url, task), "r.yaml")
    # All 13 were kept. A last try of the first run may come late, hence no count of the requests themselves.
    assert len({request["messages"][-1]["content"] for request in fake.requests[asked:]}) == 24 - 13


def test_a_reasoning_model_is_scored_by_its_answer(files, serve):
    """Thoughts that name wrong letters, before the right one; one that never ends."""
    data = Path(__file__).parents[1] / "data/belebele"
    rows = [json.loads(line) for line in (data / "spa_Latn.jsonl").read_text(encoding="utf-8").splitlines()]

    def answer(prompt, limit):
        [row] = [r for r in rows if r["flores_passage"] in prompt and r["question"].strip() in prompt]
        right = "ABCD"[int(row["correct_answer_num"]) - 1]
        if row is rows[0]:
            return f"<think>The answer is ({right}).", "stop"
        return f"<think>\n(A)? (B)?\n</think>\n\n**{right}**<|im_end|>", "eos"

    fake = serve(answer)
    task = task_of(task="belebele", path=str(data), langs=["spa"], mode="generate")
    results = runner.run(recipe(files, fake.url, task, enable_thinking=True), "r.yaml")
    [score] = results["scores"]
    assert score["value"] == pytest.approx(100 * (len(rows) - 1) / len(rows), abs=1e-4)
    assert results["parts"]["belebele.spa"]["finish"] == {"length": 1, "stop": len(rows) - 1}
    assert {request["chat_template_kwargs"]["enable_thinking"] for request in fake.requests} == {True}
    assert results["decoding"]["enable_thinking"] is True
    assert b"think>" not in predictions(files)["belebele.spa.jsonl"]


@pytest.mark.parametrize("kind", ["vllm", "old-vllm"])
def test_likelihoods_from_a_server_are_those_in_process(files, checkpoint, kind, tmp_path):
    """200 questions and the losses, by two of its dialects; a second run asks nothing."""
    lines = (ROOT / "data/heldout/sentences/spa_Latn.devtest").read_text(encoding="utf-8").splitlines()
    draw = random.Random(5)
    with (files / "spa_Latn.jsonl").open("w", encoding="utf-8") as f:
        for i in range(200 if kind == "vllm" else 8):
            row = {"link": f"p{i // 2}", "question_number": i % 2 + 1, "flores_passage": lines[i // 2 % len(lines)]}
            row |= {"question": draw.choice(lines)[:30], "correct_answer_num": str(draw.randint(1, 4))}
            row |= {f"mc_answer{k}": draw.choice(draw.choice(lines).split()) for k in range(1, 5)}
            f.write(json.dumps(row) + "\n")
    tasks = [
        task_of(task="belebele", path=str(files / "spa_Latn.jsonl"), langs=["spa"]),
        task_of(task="text_loss", path=str(files / "flores"), langs=["spa"]),
        task_of(task="instructions", path=str(files / "instructions.{lang}.jsonl"), langs=["spa"]),
    ]
    fake = Completions(kind, Path(checkpoint), lambda prompt: ("Sí.", "stop"))
    with fake.serving():
        keys = ServerConfig(base_url=fake.url, concurrency=4, tokenizer=checkpoint)
        remote = runner.run(recipe(files, fake.url, *tasks, server=keys), "r.yaml")
        letters = [json.loads(line) for line in predictions(files)["belebele.spa.jsonl"].splitlines()]
        asked = len(fake.requests)
        assert runner.run(recipe(files, fake.url, *tasks, server=keys), "r.yaml")["scores"] == remote["scores"]
        assert len(fake.requests) == asked
    local = runner.run(recipe(files, "", *tasks, model=checkpoint, server=None), "r.yaml")
    own = [json.loads(line) for line in predictions(files)["belebele.spa.jsonl"].splitlines()]
    assert [row["letter"] for row in letters] == [row["letter"] for row in own]
    assert len({row["letter"] for row in own}) > 1
    for ours, theirs in zip(letters, own, strict=True):
        assert ours["logprobs"] == pytest.approx(theirs["logprobs"], abs=1e-4)
    by_metric = {score["metric"]: score["value"] for score in local["scores"]}
    for score in remote["scores"]:
        if score["metric"] != "chrf":  # of what the server says, which is not the model's
            assert score["value"] == pytest.approx(by_metric[score["metric"]], rel=1e-4)
    assert remote["decoding"]["tokenizer"] == checkpoint


@pytest.mark.parametrize(
    ("kind", "task", "expected"),
    [
        ("llama.cpp", dict(task="text_loss", path="flores"),
         "^tasks.0: text_loss needs the likelihoods of texts, and the server tells those of next tokens; remove"),
        ("llama.cpp", dict(task="instructions", path="instructions.{lang}.jsonl"), r".*; set metrics: \[chrf\]$"),
        ("chat", dict(task="text_loss", path="flores"), r"^server.base_url: .* gives no likelihoods \(echo: 404.*; ev"),
    ],
)  # fmt: skip
def test_likelihoods_that_a_server_has_not_are_one_line_before_anything_is_asked(
    files, checkpoint, kind, task, expected
):
    fake = Completions(kind, Path(checkpoint), lambda prompt: pytest.fail("asked"))
    with fake.serving():
        keys = ServerConfig(base_url=fake.url, tokenizer=checkpoint)
        path = str(files / task.pop("path"))
        with pytest.raises(UserError, match=expected) as caught:
            runner.run(recipe(files, fake.url, task_of(path=path, langs=["spa"], **task), server=keys), "r.yaml")
    assert "\n" not in str(caught.value)


def test_no_server_is_one_line(files):
    with pytest.raises(UserError, match="^server.base_url: no answer from http://127.0.0.1:9/v1 .cannot be reached"):
        runner.run(recipe(files, "http://127.0.0.1:9/v1"), "r.yaml")


@pytest.mark.parametrize(
    ("keys", "server", "expected"),
    [
        (dict(task="text_loss", path="flores"), {}, "^server.tokenizer: the tokenizer .* cannot be loaded from some-m"),
        (dict(), dict(template="smollm2"), "^template: a server has its own template; remove it, or"),
        (
            dict(),
            dict(server=None, model="m/m", template="smollm2", chat_template_kwargs={"a": 1}),
            "^chat_template_kwargs: LLaMA-Factory's template smollm2 takes none: .*; remove them, or set template",
        ),
        (dict(), dict(adapter="a"), "^adapter: a server has its own adapter;"),
        (dict(), dict(server=ServerConfig(base_url="localhost")), "^server.base_url: 'localhost' is no address"),
    ],
)
def test_what_a_server_cannot_do_is_one_line(files, keys, server, expected):
    base = dict(task="off_target", path="instructions.{lang}.jsonl", langs=["spa"]) | keys
    task = task_of(**base | {"path": str(files / base["path"])})
    with pytest.raises(UserError, match=expected) as caught:
        runner.run(recipe(files, "http://127.0.0.1:9/v1", task, **server), "r.yaml")
    assert "\n" not in str(caught.value)
