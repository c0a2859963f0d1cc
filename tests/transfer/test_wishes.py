import random
import unicodedata
from collections import Counter

import pytest

from sdrrl_factory.language_id import default_model
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.transfer.draw import rng
from sdrrl_factory.transfer.wishes import are_worded, joined, wish, wordings

# What each language calls itself, in the form its wordings ask for.
OWN = {
    "eng": "English", "fra": "français", "spa": "español", "ces": "česky", "dan": "dansk", "ukr": "українською",
    "bul": "български", "fin": "suomeksi", "hun": "magyarul", "nob": "norsk", "ind": "bahasa Indonesia",
    "jpn": "日本語", "kor": "한국어", "por": "português", "slv": "slovenščini", "vie": "tiếng Việt", "pol": "polsku",
    "tha": "ภาษาไทย", "khm": "ភាសាខ្មែរ",
}  # fmt: skip
STOPS = {"jpn": "。", "zho": "。", "hin": "।", "khm": "។", "tha": "กขคงจชซญดตถทธนบปผพฟภมยรลวศษสหอะาิีึืุู์ัำ"}
# The first words of a letter's Unicode name -> its script.
SCRIPTS = {
    "LATIN": "Latin", "CYRILLIC": "Cyrillic", "CJK": "Han", "HIRAGANA": "Hiragana", "KATAKANA": "Katakana",
    "KATAKANA-HIRAGANA": "Katakana", "HANGUL": "Hangul", "THAI": "Thai", "KHMER": "Khmer",
    "ARABIC": "Arabic", "DEVANAGARI": "Devanagari",
}  # fmt: skip


PAPERS = list(LANGUAGES)[:19]
# Worded with English alone.
OTHERS = {"deu": "Deutsch", "zho": "中文", "arb": "العربية", "hin": "हिन्दी", "swh": "Kiswahili"}


def answers(asked: str) -> list[str]:
    """The languages that wishes in `asked` name."""
    return ["eng", asked] if asked in OTHERS else PAPERS + (list(OTHERS) if asked == "eng" else [])


def every(asked: str) -> list[str]:
    return [text for answered in answers(asked) for text in wordings(asked, answered)]


@pytest.mark.parametrize("asked", [*PAPERS, *OTHERS])
def test_wordings_are_whole_sentences_and_distinct(asked):
    texts = every(asked)
    assert len(set(texts)) == len(texts) == 4 * len(answers(asked))
    for text in texts:
        assert text[-1] in STOPS.get(asked, "."), text
        assert text == unicodedata.normalize("NFC", text) == " ".join(text.split())
        assert "{" not in text and (text[0].isupper() or text[0].lower() == text[0].upper())


@pytest.fixture(scope="module")
def lid():
    import fasttext

    return fasttext.load_model(default_model())


# lid.176 is unsure of Swahili.
@pytest.mark.parametrize("asked", [*PAPERS, *sorted(OTHERS.keys() - {"swh"})])
def test_wordings_are_in_the_questions_language_and_script(asked, lid):
    labels, probabilities = lid.predict(" ".join(every(asked)), k=3)
    # lid.176 finds Swedish in short Danish and Norwegian; the two it tells apart.
    kin = {"__label__sv"} if asked in ("dan", "nob") else set()
    best, sure = next((label, p) for label, p in zip(labels, probabilities, strict=True) if label not in kin)
    assert best == f"__label__{LANGUAGES[asked].fasttext}" and (kin or sure > 0.5)
    letters = {c for text in every(asked) for c in text if unicodedata.category(c)[0] == "L"}
    assert {SCRIPTS[unicodedata.name(c).split()[0]] for c in letters} <= LANGUAGES[asked].scripts


def test_names_stand_for_the_right_languages():
    for code in PAPERS:
        assert wordings("eng", code)[0] == f"Answer in {LANGUAGES[code].name}."
        assert all(OWN[code] in text for text in wordings(code, code))
    for code, name in OTHERS.items():
        assert all(name in text for text in wordings(code, code))
        # The table says which Chinese and which Arabic.
        english = wordings("eng", code)[0].removeprefix("Answer in ").removesuffix(".")
        assert english in LANGUAGES[code].name.split()


def test_a_pair_is_worded_both_ways_or_not_at_all():
    assert all(are_worded(a, b) for a in PAPERS for b in PAPERS)
    for code in OTHERS:
        assert are_worded("eng", code) and are_worded(code, "eng")
        assert not are_worded("spa", code) and not are_worded(code, "spa") and not are_worded(code, "ace")
    assert not are_worded("eng", "ace") and not are_worded("ace", "eng")


@pytest.mark.parametrize(
    ("asked", "answered", "text"),
    [
        ("eng", "spa", "Answer in Spanish."),
        ("spa", "eng", "Responde en inglés."),
        ("spa", "spa", "Responde en español."),
        ("fra", "spa", "Répondez en espagnol."),
        ("por", "spa", "Responda em espanhol."),
        ("dan", "spa", "Svar på spansk."),
        ("nob", "spa", "Vennligst svar på spansk."),
        ("ind", "spa", "Jawablah dalam bahasa Spanyol."),
        ("vie", "spa", "Hãy trả lời bằng tiếng Tây Ban Nha."),
        ("ces", "spa", "Odpovězte španělsky."),
        ("ces", "jpn", "Odpovězte japonsky."),
        ("fin", "spa", "Vastaa espanjaksi."),
        ("hun", "spa", "Válaszoljon spanyolul."),
        ("ukr", "spa", "Відповідайте іспанською."),
        ("bul", "spa", "Отговорете на испански."),
        ("pol", "spa", "Odpowiedz po hiszpańsku."),
        ("slv", "spa", "Odgovorite v španščini."),
        ("kor", "spa", "스페인어로 답해 주세요."),
        ("jpn", "spa", "スペイン語で答えてください。"),
        ("khm", "spa", "ឆ្លើយជាភាសាអេស្ប៉ាញ។"),
        ("tha", "spa", "ตอบเป็นภาษาสเปน"),
    ],
)
def test_names_take_the_form_their_slot_asks_for(asked, answered, text):
    assert text in wordings(asked, answered)


@pytest.mark.parametrize(
    ("answer_language", "due"),
    [("none", set()), ("cross", {"eng spa", "spa eng"}), ("all", {"eng eng", "eng spa", "spa eng", "spa spa"})],
)
def test_a_wish_is_due_where_the_recipe_says(answer_language, due):
    pairs = [(a, b) for a in ("eng", "spa") for b in ("eng", "spa")]
    assert {f"{a} {b}" for a, b in pairs if wish(a, b, answer_language, random.Random(0))} == due


def test_wordings_are_drawn_evenly_and_by_the_record():
    drawn = [wish("jpn", "eng", "all", rng(42, str(i), "wish TL")) for i in range(4000)]
    counts = Counter(drawn)
    assert counts.keys() == set(wordings("jpn", "eng"))
    assert all(900 < n < 1100 for n in counts.values()), counts
    assert drawn == [wish("jpn", "eng", "all", rng(42, str(i), "wish TL")) for i in range(4000)]


@pytest.mark.parametrize(
    ("asked", "instruction", "text"),
    [
        ("eng", "Why?", "Why? W"),
        ("eng", "Name three fruits", "Name three fruits W"),
        ("eng", "Sort:\n- b\n- a", "Sort:\n- b\n- a\nW"),
        ("eng", "Why?\n", "Why?\nW"),
        ("eng", "", "W"),
        ("jpn", "なぜですか？", "なぜですか？W"),
        ("jpn", "猫について書く", "猫について書く W"),
        ("zho", "为什么？", "为什么？W"),
        ("hin", "क्यों?", "क्यों? W"),
        ("kor", "왜 그런가요?", "왜 그런가요? W"),
        ("tha", "ทำไม", "ทำไม W"),
        ("khm", "ហេតុអ្វី?", "ហេតុអ្វី? W"),
    ],
)
def test_the_wish_stands_behind_the_instruction(asked, instruction, text):
    assert joined(instruction, "W", asked) == text
    assert joined(instruction, "", asked) == instruction
