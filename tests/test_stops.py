"""Where a stop string ends an answer: in the text, and while it is generated."""

import pytest

from sdrrl_factory.models import decoding
from sdrrl_factory.models.lm import LM, Generation
from sdrrl_factory.models.stops import cut


@pytest.mark.parametrize(
    ("text", "finish", "stop", "expected"),
    [
        ("Madrid.\nQ: And", "length", ["\n"], ("Madrid.", "stop")),
        ("\n\nMadrid.\n\nQ:", "length", ["\n\n"], ("Madrid.", "stop")),
        ("Madrid. END more", "length", ["###", "END"], ("Madrid.", "stop")),
        ("one ### two END", "stop", ["END", "###"], ("one", "stop")),
        ("Madrid", "length", ["\n"], ("Madrid", "length")),
        ("", "error: 500", ["\n"], ("", "error: 500")),
    ],
)
def test_cut(text, finish, stop, expected):
    generation = cut(Generation(text, finish), stop)
    assert (generation.text, generation.finish) == expected


def test_an_answer_stops_being_generated_where_it_ends(tiny, monkeypatch):
    lm = LM(str(tiny))
    users = ["one", "two", "three and four", "five"]
    whole = lm.generate(users, 40, 4)
    # Something of two letters that stands within an answer: it may begin in one token and end in another.
    stop = next(text[i : i + 2] for text in (answer.text for answer in whole) for i in range(4, len(text) - 8)
                if not set(text[i : i + 2]) & set(" �\n"))  # fmt: skip
    computed, continue_prompts = [], decoding.continue_prompts

    def counted(model, prompts, limits, stops, pad, batch_size, done, *rest):
        def counting(i, tokens):
            computed.append(tokens)
            done(i, tokens)

        continue_prompts(model, prompts, limits, stops, pad, batch_size, counting, *rest)

    monkeypatch.setattr(decoding, "continue_prompts", counted)
    stopped = lm.generate(users, 40, 4, stop=[stop])
    for answer, full in zip(stopped, whole, strict=True):
        assert cut(answer, [stop]).text == cut(full, [stop]).text
        if stop in full.text:
            assert answer.finish == "stop" and answer.text.index(stop) + len(stop) > len(answer.text) - 4
    assert any(stop in full.text for full in whole)
    assert sum(map(len, computed)) < 40 * len(users)
