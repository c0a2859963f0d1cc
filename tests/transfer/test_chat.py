from pathlib import Path
from types import SimpleNamespace

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.memory import Memory
from sdrrl_factory.models.lm import LM, Generation
from sdrrl_factory.transfer.recipe import Translator
from sdrrl_factory.transfer.translate.chat import Chat
from sdrrl_factory.transfer.translate.engine import Engine, NoTranslation

SERVED = Translator(backend="chat", model="m", base_url="http://127.0.0.1:9/v1", max_new_tokens=7)


def served(config=SERVED):
    pytest.importorskip("openai", reason="openai is not installed: pip install 'sdrrl-factory[server]'")
    return Chat(config, Memory(Path(":memory:")))


def answering(*answers):
    """A translator whose server gives these, and what it was asked."""
    chat, asked = served(), []

    def stream(turns, max_tokens, temperature, seeds):
        asked.append(([t[0]["content"] for t in turns], max_tokens, temperature))
        yield from enumerate(answers)

    chat._model._server = SimpleNamespace(stream=stream, base_url=SERVED.base_url, left_out=set, leave_out=list)
    return chat, asked


def test_the_prompt_names_the_languages():
    chat, asked = answering(Generation("Hola", "stop"), Generation("{text}", "stop"))
    assert chat.translate(["Hi", "{source}"], "eng", "spa") == ["Hola", "{text}"]
    begin = "Translate the following sentence from English to Spanish.\n"
    assert asked == [([begin + "Hi", begin + "{source}"], 7, 0.0)]


def test_what_is_cut_off_or_failed_is_empty():
    chat, _ = answering(Generation("Ho", "length"), Generation("", "error: 400"), Generation("Sí", "stop"))
    assert chat.translate(["a", "b", "c"], "eng", "spa") == [
        NoTranslation("cut off"), NoTranslation("error: 400"), "Sí",
    ]  # fmt: skip


def test_a_rejection_says_what_the_server_said():
    chat, asked = answering(Generation("", "error: 400: too long"), Generation("Sí", "stop"), Generation("S", "length"))
    out = Engine(chat, Memory(Path(":memory:"))).texts(["One.", "Yes.", "Two."], "eng", "spa")
    assert out == [(None, "error: 400: too long"), ("Sí", ""), (None, "cut off")]
    assert [len(prompts) for prompts, _, _ in asked] == [3]  # none of them once more, alone


@pytest.mark.parametrize("thought", ["<think>\nShort.\n</think>\n\n", "It is a greeting.\n</think>\n\n"])
def test_a_thought_is_no_part_of_a_translation(thought):
    chat, _ = answering(Generation(f"{thought}Hola.<|im_end|>", "stop"), Generation("<think>Hm", "stop"))
    assert chat.translate(["Hi.", "Ho."], "eng", "spa") == ["Hola.", NoTranslation("cut off")]


@pytest.mark.parametrize("keys", [{"enable_thinking": False}, {"extra_body": {"top_k": 1}}])
def test_keys_that_shape_the_answers_change_the_name(keys):
    assert served(SERVED.model_copy(update=keys)).name != served().name


@pytest.mark.parametrize(
    ("segment", "answer", "translation"),
    [
        ("Hi.", '"Hola."', "Hola."),
        ("Hi.", "« Salut. »", "Salut."),
        ("Hi.", "「こんにちは」", "こんにちは"),
        ("Hi.", "„Ahoj.“", "Ahoj."),
        ('"Hi."', '"Hola."', '"Hola."'),
        ('"Hi."', "«Hola.»", "«Hola.»"),
        ("Hi, he said.", '"Hola", dijo. "Adiós"', '"Hola", dijo. "Adiós"'),
        ("Hi.", '"Hola.', '"Hola.'),
        ("Hi.", '"', '"'),
        ("Hi.", '""', '""'),
        ("Don't say 'no'", "'No'", "No"),
        ("Hi.", "It's Tom's", "It's Tom's"),
    ],
)
def test_added_quotation_marks_go(segment, answer, translation):
    chat, _ = answering(Generation(answer, "stop"))
    assert chat.translate([segment], "eng", "spa") == [translation]


def test_the_model_itself_translates(tiny):
    config = Translator(backend="chat", model=str(tiny), template="smollm2", batch_size=2, max_new_tokens=40)
    chat = Chat(config, Memory(Path(":memory:")))
    assert chat.name.startswith(f"chat {tiny} ") and "model" not in vars(chat._model)
    segments = [f"Tengo {n} años." for n in range(6)]
    prompts = [f"Translate the following sentence from Spanish to English.\n{s}" for s in segments]
    plain = LM(str(tiny), template="smollm2").generate(prompts, 40, 1)
    out = chat.translate(segments, "spa", "eng")
    assert {type(text) for text in out} == {str, NoTranslation}  # one ends by itself
    for text, answer in zip(out, plain, strict=True):
        if answer.finish == "length":
            assert text == NoTranslation("cut off")
            continue
        assert text.strip('"“”') == answer.text.strip('"“”')


def test_the_name_changes_with_what_shapes_a_translation_only(monkeypatch):
    name = served().name
    for change in [
        {"model": "n"},
        {"prompt": "{text} in {target}"},
        {"base_url": "http://a/v1"},
        {"max_new_tokens": 8},
    ]:
        assert served(SERVED.model_copy(update=change)).name != name, change
    monkeypatch.setenv("ANOTHER", "sk-secret")
    for change in [{"api_key_env": "ANOTHER"}, {"concurrency": 1}, {"timeout": 1.0}, {"retries": 0}, {"batch_size": 1}]:
        assert served(SERVED.model_copy(update=change)).name == name, change


def test_the_name_changes_with_the_weights_and_the_template(tmp_path):
    def name(**keys):
        return Chat(Translator(backend="chat", model=str(tmp_path), **keys), Memory(Path(":memory:"))).name

    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = name()
    assert first == name() != name(template="smollm2")
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert name() != first


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"prompt": "Say {text}"}, "^prompt: the prompt has no {target}; add it"),
        ({"prompt": "Say it in {target}"}, "^prompt: the prompt has no {text}; add it"),
        ({"prompt": "{text} {target} {lang}"}, "^prompt: unknown placeholder {lang} in the prompt; known:"),
        ({"prompt": "{text} {target} {}"}, "^prompt: unknown placeholder {} in the prompt; known:"),
        ({"prompt": "{text.x} {target}"}, "^prompt: unknown placeholder {text.x} in the prompt; known:"),
        ({"prompt": "{text} {target"}, "^prompt: .* in the prompt; write a brace that is meant as {{ or }}"),
        ({"model": None}, "^model: backend chat needs a model; name one"),
        ({"base_url": None, "model": "./nowhere"}, "^model: no checkpoint at ./nowhere"),
        ({"base_url": "nowhere"}, "^base_url: 'nowhere' is no address"),
    ],
)
def test_a_mistake_is_said_at_once(config, expected):
    with pytest.raises(UserError, match=expected) as caught:
        Chat(SERVED.model_copy(update=config), Memory(Path(":memory:")))
    assert "\n" not in str(caught.value)
