from types import SimpleNamespace

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.models.lm import LM, Generation
from sdrrl_factory.transfer.exchanges import question
from sdrrl_factory.transfer.generate import Generate, identity, limits, make
from sdrrl_factory.transfer.recipe import Generator


@pytest.mark.parametrize(("given", "asked"), [("", "Do it."), ("this", "Do it.\nthis")])
def test_question(given, asked):
    assert question("Do it.", given) == asked


def batch_of(origins, n=3):
    return {
        "id": list("abcdefgh")[:n],
        "instruction": list("xyzXYZuv")[:n],
        "input": ["", "", "i", "", "", "", "", ""][:n],
        "system": ["", "", "s", "", "", "", "", ""][:n],
        "answer_origin": list(origins),
    }


@pytest.fixture
def stage(tmp_path):
    def make_stage(seed=5, **keys) -> Generate:
        config = Generator(**{"longest_answer": 1, **keys})  # nothing goes on
        return Generate(config, identity(config), seed, tmp_path / "generate.sqlite")

    return make_stage


def test_only_the_drawn_records_are_asked(stage, tiny):
    asked, done = [], []

    def generate(users, max_new_tokens, batch_size, temperature, seeds, systems, **further):
        asked.append((users, systems, max_new_tokens, batch_size))
        return [Generation(u.upper(), "stop") for u in users]

    work = stage(model=str(tiny), max_new_tokens=9, batch_size=3)
    with work.open(done.append) as tool:
        tool.model.model = SimpleNamespace(generate=generate, encode=str.__add__)
        out = work(batch_of("GDG"), tool)
        assert asked == [(["z\ni", "x"], ["s", ""], 9, 3)] and sum(done) == 3  # the longest first
        assert out["response"] == ["X", None, "Z\nI"] and out["response_finish"] == ["stop", None, "stop"]
        work(batch_of("DDD"), tool)
        assert len(asked) == 1
    # What was answered once is not asked again, nor is the model loaded.
    with work.open() as tool:
        assert work(batch_of("GDG"), tool) == out and "model" not in vars(tool.model)


def test_a_run_without_own_answers_loads_no_model(stage, tiny):
    work = stage(model=str(tiny))
    with work.open() as tool:
        assert work(batch_of("DDD"), tool)["response"] == [None] * 3
        assert "model" not in vars(tool.model)


def test_the_answers_are_the_models(stage, tiny):
    work = stage(model=str(tiny), max_new_tokens=9, batch_size=2)
    with work.open() as tool:
        out = work(batch_of("GDG"), tool)
    lm = LM(str(tiny), template="smollm2")
    expected = [lm.generate([user], 9, 1, systems=[system])[0] for user, system in [("x", ""), ("z\ni", "s")]]
    assert out["response"] == [expected[0].text, None, expected[1].text]
    assert out["response_finish"] == [expected[0].finish, None, expected[1].finish]


def test_a_draw_depends_on_seed_and_id_alone(tiny, tmp_path):
    def responses(seed, batch, memory, **settings):
        config = Generator(model=str(tiny), max_new_tokens=8, temperature=1.0, **settings)
        work = Generate(config, identity(config), seed, tmp_path / memory)
        with work.open() as tool:
            out = work(batch, tool)
        return dict(zip(out["id"], out["response"], strict=True))

    batch = {**batch_of("G" * 8, 8), "instruction": ["Hola"] * 8, "input": [""] * 8, "system": [""] * 8}
    whole = responses(5, batch, "whole")
    assert len(set(whole.values())) > 4
    parts = [{k: v[a:b] for k, v in batch.items()} for a, b in ((5, 8), (0, 5))]
    assert responses(5, parts[0], "parts", batch_size=2) | responses(5, parts[1], "parts", batch_size=3) == whole
    assert responses(6, batch, "whole") != whole


def drawn_batch(n: int) -> dict[str, list]:
    questions = [f"Why is {word} here?" for word in ("water", "Sol", "so much", "¿qué?", "rain", "a river", "it", "he")]
    return {**batch_of("G" * n, n), "instruction": questions[:n], "input": [""] * n, "system": [""] * n}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("batch_size", [4])
def test_what_is_cut_off_goes_on_as_one_longer_generation(tiny, tmp_path, monkeypatch, temperature, batch_size):
    monkeypatch.setattr("sdrrl_factory.transfer.generate.looping", lambda text: False)
    asked, batch = [], drawn_batch(6)

    def run(name, **keys):
        config = Generator(model=str(tiny), temperature=temperature, batch_size=batch_size, **keys)
        work = Generate(config, identity(config), 5, tmp_path / name)
        with work.open() as tool:
            whole = tool.model.model.generate

            def generate(users, limit, *args, begun=None, **settings):
                asked.append((len(users), limit, len(begun[0]) if begun else 0))
                return whole(users, limit, *args, begun=begun, **settings)

            tool.model.model.generate = generate
            return work(batch, tool)

    out = run("parts", max_new_tokens=5, longest_answer=30)
    # 5, then 10 and 20 and 30 for those alone that are not at their end, from where they stopped.
    assert {(limit, begun) for _, limit, begun in asked} == {(5, 0), (10, 5), (20, 10), (30, 20)}
    assert out == run("whole", max_new_tokens=30, longest_answer=1)
    # Another run knows all of it.
    asked.clear()
    assert run("parts", max_new_tokens=5, longest_answer=30) == out and not asked


def test_only_the_cut_off_go_on_and_not_those_that_loop(stage, tiny):
    asked = []
    replies = {
        ("x", 4): Generation("one", "length", [1, 2, 3, 4]),
        ("y", 4): Generation("done", "stop"),
        ("z\ni", 4): Generation("so it goes on " * 4, "length", [5, 6, 7, 8]),
        ("x", 7): Generation("one two.", "stop"),
    }

    def generate(users, max_new_tokens, batch_size, begun=None, **settings):
        asked.append((users, max_new_tokens, begun))
        return [replies[user, max_new_tokens] for user in users]

    work, done = stage(model=str(tiny), max_new_tokens=4, longest_answer=7), []
    with work.open(done.append) as tool:
        tool.model.model = SimpleNamespace(generate=generate, encode=str.__add__)
        out = work(batch_of("GGG"), tool)
    assert out["response"] == ["one two.", "done", "so it goes on " * 4]
    assert out["response_finish"] == ["stop", "stop", "length"]
    assert asked[1:] == [(["x"], 7, [[1, 2, 3, 4]])] and sum(done) == 3


@pytest.mark.parametrize(
    ("keys", "steps"),
    [
        ({"max_new_tokens": 96}, [96, 192, 384, 768]),
        ({"max_new_tokens": 100, "longest_answer": 250}, [100, 200, 250]),
        ({"max_new_tokens": 100, "longest_answer": 100}, [100]),
        ({"max_new_tokens": 100, "longest_answer": 1}, [100]),
        ({"max_new_tokens": 96, "backend": "server"}, [96, 768]),
    ],
)
def test_the_limits_of_an_answer(keys, steps):
    assert limits(Generator(**keys)) == steps


def test_a_server_is_asked_once_more_for_what_was_cut_off(stage):
    pytest.importorskip("openai", reason="openai is not installed: pip install 'sdrrl-factory[server]'")
    keys = {"max_new_tokens": 9, "longest_answer": 50}
    work, asked = stage(backend="server", model="m", base_url="http://127.0.0.1:9/v1", **keys), []

    def stream(conversations, max_tokens, temperature, seeds):
        for i, turns in enumerate(conversations):
            asked.append((turns[-1]["content"], max_tokens))
            is_cut = turns[-1]["content"] == "x" and max_tokens == 9
            yield i, Generation(f"at {max_tokens}", "length" if is_cut else "stop")

    with work.open() as tool:
        tool.model._server = SimpleNamespace(
            stream=stream, base_url="http://127.0.0.1:9/v1", left_out=set, leave_out=list
        )
        out = work(batch_of("GDG"), tool)
    assert asked == [("x", 9), ("z\ni", 9), ("x", 50)]
    assert out["response"] == ["at 50", None, "at 9"] and out["response_finish"] == ["stop", None, "stop"]


def test_identity_tells_checkpoints_apart(tmp_path):
    def identity_now():
        return identity(Generator(model=str(tmp_path)))

    (tmp_path / "config.json").write_text("{}")
    weights = bytearray(3 << 20)
    seen = []
    for at in (0, len(weights) - 1):
        weights[at] ^= 1
        (tmp_path / "model.safetensors").write_bytes(weights)
        seen += [identity_now(), identity_now()]
    (tmp_path / "README.md").write_text("of no account")
    seen.append(identity_now())
    (tmp_path / "config.json").write_text('{"a": 1}')
    seen.append(identity_now())
    assert [seen.index(s) for s in seen] == [0, 0, 2, 2, 2, 5]


def test_a_server_is_asked_the_same_way(stage):
    pytest.importorskip("openai", reason="openai is not installed: pip install 'sdrrl-factory[server]'")
    work = stage(backend="server", model="m", base_url="http://127.0.0.1:9/v1", max_new_tokens=9, temperature=0.5)
    assert work.checkpoint == "m at http://127.0.0.1:9/v1"
    asked, done, drawn = [], [], []

    def stream(conversations, max_tokens, temperature, seeds):
        asked.append((conversations, max_tokens, temperature))
        drawn.append(list(seeds))
        replies = {"x": Generation("A", "stop"), "z\ni": Generation("", "error: 400")}
        for i, turns in reversed(list(enumerate(conversations))):
            yield i, replies[turns[-1]["content"]]

    with work.open(done.append) as tool:
        tool.model._server = SimpleNamespace(
            stream=stream, base_url="http://127.0.0.1:9/v1", left_out=set, leave_out=list
        )
        out = work(batch_of("GDG"), tool)
        user, system = {"role": "user", "content": "z\ni"}, {"role": "system", "content": "s"}
        assert asked == [([[{"role": "user", "content": "x"}], [system, user]], 9, 0.5)]
        assert out["response"] == ["A", None, ""] and out["response_finish"] == ["stop", None, "error: 400"]
        assert sum(done) == 3 and len(set(drawn[0])) == 2
        # What failed is asked again, with the seed of its record, and nothing else is.
        assert work({k: v[::-1] for k, v in batch_of("GDG").items()}, tool)["response"] == ["", None, "A"]
        assert asked[1:] == [([[system, user]], 9, 0.5)] and drawn[1] == drawn[0][1:]


def test_a_thought_is_no_training_answer(stage):
    pytest.importorskip("openai", reason="openai is not installed: pip install 'sdrrl-factory[server]'")
    keys = dict(enable_thinking=True, extra_body={"top_k": 1}, chat_template_kwargs={"a": 1})
    work = stage(backend="server", model="m", base_url="http://127.0.0.1:9/v1", **keys)
    replies = ["<think>\nHm.\n</think>\n\nA<|im_end|>", "<think>\nHm."]

    def stream(conversations, max_tokens, temperature, seeds):
        yield from enumerate([Generation(text, "stop") for text in replies])

    with work.open() as tool:
        sent = tool.model._server.extra_body
        assert sent == {"top_k": 1, "chat_template_kwargs": {"enable_thinking": True, "a": 1}}
        tool.model._server = SimpleNamespace(
            stream=stream, base_url="http://127.0.0.1:9/v1", left_out=set, leave_out=list
        )
        out = work(batch_of("GDG"), tool)
    assert out["response"] == ["A", None, ""] and out["response_finish"] == ["stop", None, "length"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (Generator(backend="server"), "^generator.base_url: backend server needs an address; write one like"),
        (Generator(backend="server", base_url="nowhere"), "^generator.base_url: 'nowhere' is no address"),
        (
            Generator(model="./nowhere"),
            "^generator.model: no checkpoint at ./nowhere .looked in /.*; mend the path, or name",
        ),
    ],
)
def test_a_mistake_is_said_at_once(config, expected, memory):
    with pytest.raises(UserError, match=expected) as caught:
        make(config, memory)
    assert "\n" not in str(caught.value)
