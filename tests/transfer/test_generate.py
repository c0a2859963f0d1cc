from types import SimpleNamespace

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.models.lm import Generation
from sdrrl_factory.transfer.generate import ServerGenerator, TransformersGenerator, make, question
from sdrrl_factory.transfer.recipe import Generator


def place(key):
    return f"r.yaml:3: {key}"


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


def test_only_the_drawn_records_are_asked(tiny):
    generator = make(Generator(model=str(tiny), max_new_tokens=9, batch_size=3), 5, place)
    assert isinstance(generator, TransformersGenerator)
    asked, done = [], []

    def generate(users, **settings):
        settings["progress"](len(users))
        asked.append((users, settings["systems"], settings["max_new_tokens"], settings["batch_size"]))
        return [Generation(u.upper(), "stop") for u in users]

    generator.lm, generator.progress = SimpleNamespace(generate=generate), done.append
    out = generator(batch_of("GDG"))
    assert asked == [(["x", "z\ni"], ["", "s"], 9, 3)] and done == [1, 2]
    assert out["response"] == ["X", None, "Z\nI"] and out["response_finish"] == ["stop", None, "stop"]
    generator(batch_of("DDD"))
    assert len(asked) == 1


def test_a_finished_run_loads_no_model(tiny):
    generator = make(Generator(model=str(tiny)), 5, place)
    assert generator(batch_of("DDD"))["response"] == [None] * 3
    assert "lm" not in vars(generator)


def test_a_draw_depends_on_seed_and_id_alone(tiny):
    def responses(seed, batch, **settings):
        config = Generator(model=str(tiny), max_new_tokens=8, temperature=1.0, **settings)
        out = make(config, seed, place)(batch)
        return dict(zip(out["id"], out["response"], strict=True))

    batch = {**batch_of("G" * 8, 8), "instruction": ["Hola"] * 8, "input": [""] * 8, "system": [""] * 8}
    whole = responses(5, batch)
    assert len(set(whole.values())) > 4
    parts = [{k: v[a:b] for k, v in batch.items()} for a, b in ((5, 8), (0, 5))]
    assert responses(5, parts[0], batch_size=2) | responses(5, parts[1], batch_size=3) == whole
    assert responses(6, batch) != whole


def test_identity_tells_checkpoints_apart(tmp_path):
    def identity():
        return make(Generator(model=str(tmp_path)), 5, place).identity()

    (tmp_path / "config.json").write_text("{}")
    weights = bytearray(3 << 20)
    seen = []
    for at in (0, len(weights) - 1):
        weights[at] ^= 1
        (tmp_path / "model.safetensors").write_bytes(weights)
        seen += [identity(), identity()]
    (tmp_path / "README.md").write_text("of no account")
    seen.append(identity())
    (tmp_path / "config.json").write_text('{"a": 1}')
    seen.append(identity())
    assert [seen.index(s) for s in seen] == [0, 0, 2, 2, 2, 5]


def test_a_server_is_asked_the_same_way():
    pytest.importorskip("openai", reason="openai is not installed: pip install 'sdrrl-factory[server]'")
    config = Generator(backend="server", model="m", base_url="http://127.0.0.1:9/v1", max_new_tokens=9, temperature=0.5)
    generator = make(config, 5, place)
    assert isinstance(generator, ServerGenerator) and generator.identity() == "m at http://127.0.0.1:9/v1"
    asked, done = [], []

    def chat(conversations, max_tokens, temperature, seeds, progress):
        asked.append((conversations, max_tokens, temperature))
        drawn.append(list(seeds))
        progress(len(conversations))
        return [Generation("A", "stop"), Generation("", "error: 400")]

    drawn = []
    generator._server, generator.progress = SimpleNamespace(chat=chat), done.append
    out = generator(batch_of("GDG"))
    user, system = {"role": "user", "content": "z\ni"}, {"role": "system", "content": "s"}
    assert asked == [([[{"role": "user", "content": "x"}], [system, user]], 9, 0.5)]
    assert out["response"] == ["A", None, ""] and out["response_finish"] == ["stop", None, "error: 400"]
    assert done == [1, 2] and len(set(drawn[0])) == 2
    generator({k: v[::-1] for k, v in batch_of("GDG").items()})
    assert drawn[1] == drawn[0][::-1]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (Generator(backend="server"), "^r.yaml:3: generator.base_url: backend server needs an address; write one like"),
        (Generator(backend="server", base_url="nowhere"), "^r.yaml:3: generator.base_url: 'nowhere' is no address"),
        (Generator(model="./nowhere"), "^r.yaml:3: generator.model: no checkpoint at ./nowhere"),
    ],
)
def test_a_mistake_is_said_at_once(config, expected):
    with pytest.raises(UserError, match=expected) as caught:
        make(config, 5, place)
    assert "\n" not in str(caught.value)
