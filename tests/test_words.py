import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import pytest
import regex

from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.text import words
from sdrrl_factory.words import joins, segmenter

PACKAGES = {"jpn": "janome", "tha": "pythainlp", "khm": "khmernltk"}
# Text -> its words, as a reader of the language cuts them; the digits, marks and blanks between are no words.
BY_HAND = {
    "jpn": ("日本の首都は、Pythonで123 don't！", ["日本", "の", "首都", "は", "Python", "で", "don't"]),
    "tha": ("ประเทศไทยมีเมืองหลวง ใช้Python 12๓", ["ประเทศ", "ไทย", "มี", "เมืองหลวง", "ใช้", "Python"]),
    "khm": ("ប្រទេស  កម្ពុជា\nមាន\u200bរាជធានី ok។ 5", ["ប្រទេស", "កម្ពុជា", "មាន", "រាជធានី", "ok"]),
}


def need(code: str) -> None:
    if importlib.util.find_spec(PACKAGES[code]) is None:
        pytest.skip(f"needs {PACKAGES[code]}: pip install 'sdrrl-factory[{code}]'")


@pytest.mark.parametrize("code", PACKAGES)
def test_words_of_text_without_blanks(code):
    need(code)
    text, expected = BY_HAND[code]
    assert [text[a:b] for a, b in segmenter(code)(text)] == expected
    assert segmenter(code)(text) == segmenter(code)(text)


@pytest.mark.parametrize("code", PACKAGES)
def test_spans_are_in_order_in_any_text(code):
    need(code)
    draw = random.Random(5)
    alphabet = BY_HAND[code][0] + "ab é'- \n\t\u200b🙂ー゛ๆំ"
    for _ in range(100):
        text = "".join(draw.choice(alphabet) for _ in range(draw.randrange(40)))
        spans = segmenter(code)(text)
        flat = [edge for span in spans for edge in span]
        assert flat == sorted(flat) and all(a < b for a, b in spans)
        assert not any(c.isspace() or c in "、！。🙂" for a, b in spans for c in text[a:b])


@pytest.mark.parametrize(
    ("code", "text", "dictionary", "expected"),
    [
        # The longest word from the left; what begins none is one character, and other scripts are cut by their blanks.
        (
            "zho",
            "我喜欢吃苹果派，Python很好 123。",
            {"喜欢", "苹果", "苹果派", "派"},
            ["我", "喜欢", "吃", "苹果派", "Python", "很", "好"],
        ),
        ("zho_Hant", "圖書館開門", {"圖書", "圖書館"}, ["圖書館", "開", "門"]),
        ("yue", "唔該晒你", {"唔該"}, ["唔該", "晒", "你"]),
        ("lao", "ສະບາຍດີ ok", {"ສະບາຍ"}, ["ສະບາຍ", "ດີ", "ok"]),
        ("mya", "ဗုဒ္ဓ", set(), ["ဗု", "ဒ္ဓ"]),  # never between a letter and what is stacked on it
        ("bod", "བོད་སྐད་ཡག་པོ།", {"བོད་སྐད"}, ["བོད་སྐད", "ཡག", "པོ"]),
        ("dzo", "བོད་སྐད", {"བོ"}, ["བོད", "སྐད"]),  # never inside a syllable
    ],
)
def test_words_by_the_dictionary_alone(code, text, dictionary, expected):
    assert [text[a:b] for a, b in segmenter(code, dictionary)(text)] == expected


def test_every_language_without_blanks_is_cut_somehow():
    codes = [code for code, row in LANGUAGES.items() if not row.spaced]
    for code in codes:
        if code in PACKAGES:
            continue
        with pytest.raises(UserError, match="written without blanks .*; name a MUSE or TSV dictionary") as err:
            segmenter(code)
        assert "\n" not in str(err.value)
    assert {*PACKAGES, "zho", "yue", "lao", "mya", "bod", "dzo"} <= set(codes)


def test_marks_belong_to_the_words_of_their_script():
    texts = {"मैं हिन्दी लिखता हूँ।": 4, "আমি বাংলা লিখি।": 3, "நான் தமிழ் எழுதுகிறேன்": 3, "مُحَمَّدٌ رسول": 2, "שָׁלוֹם עולם": 2}
    for text, count in texts.items():
        assert words(text) == text.rstrip("।").split() and len(words(text)) == count


@pytest.mark.parametrize("code", ["eng", "ces", "ukr", "kor", "vie"])
def test_spaced_languages_are_cut_as_text_does(code):
    text = "It's a_b, 1a aa a: Žluťoučký кінь, п’ять; 한국어는 tiếng Việt! don't\n"
    assert [text[a:b] for a, b in segmenter(code)(text)] == words(text)


def test_words_run_together_between_letters_of_spaced_scripts_only():
    letters = {
        "a": True,
        "é": True,
        "д": True,
        "本": False,
        "カ": False,
        "ก": False,
        "ក": False,
        "1": False,
        " ": False,
    }
    for left, one in letters.items():
        for right, two in letters.items():
            assert joins(left, right) == (one and two), (left, right)


@pytest.mark.parametrize("code", PACKAGES)
def test_a_missing_package_is_one_line(code, tmp_path):
    # -S -E: an interpreter without any installed package but `regex`.
    (tmp_path / "regex").symlink_to(Path(regex.__file__).parent)
    run = subprocess.run(
        [sys.executable, "-S", "-E", "-c", f"import sys; sys.path[:0] = ['.', {str(tmp_path)!r}]\n{CALL}", code],
        capture_output=True,
        text=True,
    )
    line = run.stdout.strip()
    assert line.startswith("target_lang: ") and "\n" not in line, run.stderr
    assert f"pip install 'sdrrl-factory[{code}]'" in line


CALL = """
from sdrrl_factory.errors import UserError, under
from sdrrl_factory.words import segmenter
try:
    with under("target_lang"):
        segmenter(sys.argv[1])
except UserError as err:
    print(err)
"""


@pytest.mark.parametrize("code", ["tha", "khm"])
def test_segmenters_are_quiet_and_write_nothing(code, tmp_path):
    need(code)
    run = subprocess.run(
        [sys.executable, "-c", f"from sdrrl_factory.words import segmenter; segmenter({code!r})('กขคកខគ')"],
        capture_output=True,
        text=True,
        env={"HOME": str(tmp_path), "PATH": ""},
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
