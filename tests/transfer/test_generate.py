from types import SimpleNamespace

import pytest

from sdrrl_factory.lm import Generation
from sdrrl_factory.transfer.generate import TransformersGenerator, question
from sdrrl_factory.transfer.recipe import Generator


@pytest.mark.parametrize(("given", "asked"), [("", "Do it."), ("this", "Do it.\nthis")])
def test_question(given, asked):
    assert question("Do it.", given) == asked


def test_only_the_drawn_records_are_asked():
    generator = TransformersGenerator(Generator(max_new_tokens=9, batch_size=3), 5, "r")
    asked, done = [], []

    def generate(users, **settings):
        asked.append((users, settings["max_new_tokens"], settings["batch_size"], settings["seed"]))
        return [Generation(u.upper(), "stop") for u in users]

    generator.lm, generator.progress = SimpleNamespace(generate=generate), done.append
    batch = {"id": list("abc"), "instruction": list("xyz"), "input": ["", "", "i"], "answer_origin": list("GDG")}
    out = generator(batch)
    assert asked == [(["x", "z\ni"], 9, 3, 5)]
    assert out["response"] == ["X", None, "Z\nI"] and out["response_finish"] == ["stop", None, "stop"]
    generator({**batch, "answer_origin": list("DDD")})
    assert len(asked) == 1


def test_a_finished_run_loads_no_model():
    generator = TransformersGenerator(Generator(model="/nowhere"), 5, "r")
    batch = {"id": ["a"], "instruction": ["x"], "input": [""], "answer_origin": ["D"]}
    assert generator(batch)["response"] == [None]


def test_identity_tells_checkpoints_apart(tmp_path):
    def identity():
        return TransformersGenerator(Generator(model=str(tmp_path)), 5, "r").identity()

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
