import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.language_id import Identifier, code_of, default_model, letters, script_share
from sdrrl_factory.languages import LANGUAGES

SENTENCES = {
    "eng": "The committee decided yesterday that the new library will open in the summer.",
    "fra": "Le comité a décidé hier que la nouvelle bibliothèque ouvrira ses portes cet été.",
    "spa": "El comité decidió ayer que la nueva biblioteca se abrirá durante el verano.",
    "ces": "Výbor včera rozhodl, že nová knihovna bude otevřena v létě příštího roku.",
    "dan": "Udvalget besluttede i går, at det nye bibliotek skal åbne til sommer, efter at byggeriet blev færdigt.",
    "ukr": "Комітет учора вирішив, що нова бібліотека відкриється влітку наступного року.",
    "bul": "Комитетът реши вчера, че новата библиотека ще отвори врати през лятото.",
    "fin": "Komitea päätti eilen, että uusi kirjasto avataan ensi kesänä.",
    "hun": "A bizottság tegnap úgy döntött, hogy az új könyvtár nyáron nyílik meg.",
    "nob": "Utvalget bestemte i går at det nye biblioteket skal åpne til sommeren, og jeg gleder meg veldig.",
    "ind": "Panitia memutuskan kemarin bahwa perpustakaan baru akan dibuka untuk anak-anak yang belajar di sekolah.",
    "jpn": "委員会は昨日、新しい図書館を夏に開館することを決定しました。",
    "kor": "위원회는 어제 새 도서관을 여름에 열기로 결정했습니다.",
    "por": "O comitê decidiu ontem que a nova biblioteca não será aberta antes do verão.",
    "slv": "Odbor je včeraj odločil, da bo nova knjižnica odprta poleti prihodnje leto.",
    "vie": "Hôm qua ủy ban đã quyết định rằng thư viện mới sẽ mở cửa vào mùa hè.",
    "pol": "Komitet zdecydował wczoraj, że nowa biblioteka zostanie otwarta latem.",
    "tha": "คณะกรรมการตัดสินใจเมื่อวานนี้ว่าห้องสมุดใหม่จะเปิดในฤดูร้อน",
    "khm": "គណៈកម្មាធិការបានសម្រេចកាលពីម្សិលមិញថាបណ្ណាល័យថ្មីនឹងបើកនៅរដូវក្តៅ",
}
# The most closely related pairs, which a short text may not tell apart.
KIN = [{"nob", "dan"}]
needs_cld3 = pytest.mark.skipif(
    find_spec("gcld3") is None,
    reason="needs gcld3: apt install protobuf-compiler libprotobuf-dev, pip install 'sdrrl-factory[cld3]'",
)
BACKENDS = ["fasttext", pytest.param("cld3", marks=needs_cld3)]


@pytest.fixture(scope="module")
def fasttext():
    return Identifier()


def test_the_table_is_covered():
    assert list(SENTENCES) == list(LANGUAGES)[:19]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("code", SENTENCES)
def test_every_language_is_known_by_its_code(backend, code):
    identifier = Identifier(backend)
    found, probability = identifier.identify(SENTENCES[code])
    assert found == code or (backend == "cld3" and {found, code} in KIN)
    assert 0.3 < probability <= 1.0
    for other in SENTENCES:
        kin = {code, other} in KIN
        if not kin:
            assert identifier.off_target(SENTENCES[other], code) is (other != code), other


@pytest.mark.parametrize(
    ("label", "code"),
    [
        ("__label__es", "spa"),
        ("__label__no", "nob"),
        ("__label__nn", "nno"),
        ("__label__spa_Latn", "spa"),
        ("__label__nob_Latn", "nob"),
        ("__label__nno_Latn", "nno"),
        ("__label__jpn_Jpan", "jpn"),
        ("__label__jpn_Latn", "jpn_Latn"),
        ("__label__ukr_Cyrl", "ukr"),
        ("__label__zho_Hans", "zho"),
        ("__label__zho_Hant", "zho_Hant"),
        ("__label__hin_Latn", "hin_Latn"),
        ("__label__als", "gsw"),  # lid.176 means Alemannic
        ("__label__als_Latn", "als"),
        ("__label__sq", "als"),
        ("en", "eng"),
        ("iw", "heb"),
        ("zh-Latn", "zh-Latn"),
        ("bg-Latn", "bg-Latn"),
        ("xx", "xx"),
    ],
)
def test_label_schemes(label, code):
    assert code_of(label) == code


def test_every_code_of_the_table_is_mapped():
    # One label for two languages, or for two scripts of one, is the first one's.
    shared = {"nno": "no", "zho_Hant": "zh"}
    for code, row in LANGUAGES.items():
        for label in {row.fasttext, row.cld3, row.flores} - {None, shared.get(code)}:
            assert code_of(f"__label__{label}") == code
    assert code_of("__label__no") == "nob" and code_of("__label__zh") == "zho"


OTHERS = {
    "deu": "Der Ausschuss hat gestern beschlossen, dass die neue Bibliothek im Sommer öffnet.",
    "zho": "委员会昨天决定，新的图书馆将在夏天开放，孩子们都非常高兴，大家都在等待那一天。",
    "zho_Hant": "委員會昨天決定，新的圖書館將在夏天開放，孩子們都非常高興，大家都在等待那一天。",
    "arb": "قررت اللجنة أمس أن المكتبة الجديدة سوف تفتح أبوابها في الصيف القادم.",
    "hin": "समिति ने कल तय किया कि नया पुस्तकालय अगली गर्मियों में खुलेगा।",
    "swh": "Maktaba mpya ya mji wetu itafunguliwa katika mwezi wa Juni, kwa mujibu wa kamati.",
    "als": "Komiteti vendosi dje që biblioteka e re do të hapet gjatë verës së ardhshme.",
    "ell": "Η επιτροπή αποφάσισε χθες ότι η νέα βιβλιοθήκη θα ανοίξει το καλοκαίρι.",
    "heb": "הוועדה החליטה אתמול כי הספרייה החדשה תיפתח בקיץ הקרוב לכל הילדים.",
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("code", OTHERS)
def test_languages_beyond_the_papers_are_told_apart(backend, code):
    identifier = Identifier(backend)
    # The identifiers have one label for Chinese in both scripts.
    assert identifier.identify(OTHERS[code])[0] == code.removesuffix("_Hant")
    for other in OTHERS.keys() | {"eng"}:
        is_other = other.removesuffix("_Hant") != code.removesuffix("_Hant")
        assert identifier.off_target({**SENTENCES, **OTHERS}[other], code) is is_other, other


@pytest.mark.parametrize("text", [SENTENCES["eng"], OTHERS["zho"], SENTENCES["tha"]])
def test_of_a_language_that_it_does_not_know_nothing_is_sure(fasttext, text):
    assert not fasttext.off_target(text, "ace")
    fasttext.require(["eng", "deu", "zho_Hant"], "")
    with pytest.raises(UserError, match=r"^lid.176 does not know Acehnese \(ace\).*; set none$"):
        fasttext.require(["eng", "ace"], "set none")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text", ["", " \n", "1 + 1 = 2", "...", "😀", "\0", "\ud800", "\x0b"])
def test_no_letter_no_language(backend, text):
    identifier = Identifier(backend)
    assert identifier.identify(text) == ("", 0.0)
    assert not identifier.off_target(text, "spa")


@pytest.mark.parametrize("backend", BACKENDS)
def test_odd_characters_do_no_harm(backend):
    text = SENTENCES["spa"].replace(" ", " \ud800\0\n\x0b", 1) + "\r\n😀"
    assert Identifier(backend).identify(text)[0] == "spa"


@pytest.mark.parametrize(
    ("text", "code", "off"),
    [
        ("Yes, of course.", "spa", False),  # short
        ("New York, Sony, IBM, Toyota, Nissan", "spa", False),  # names: doubtful
        ("สวัสดี", "tha", False),
        ("สวัสดี", "spa", True),  # short, but no other language of the table is written so
        ("안녕", "jpn", True),
        ("ខ្មែរ", "khm", False),
        ("こんにちは", "jpn", False),
        ("こんにちは", "kor", True),
        ("東京", "jpn", False),
        ("Python は面白いです", "jpn", False),
        ("Windows でファイルを開きます", "eng", True),
        ('The word "สวัสดี" is a greeting that people in Thailand say to one another', "eng", False),
        ("这个新的图书馆将在夏天开放，委员会昨天作出了决定。我们都很高兴。", "jpn", True),
        ("Hello", "tha", False),
        ("The committee decided yesterday", "tha", True),
    ],
)
def test_off_target(fasttext, text, code, off):
    assert fasttext.off_target(text, code) is off


def test_bounds():
    text = "The new library is open"  # 19 letters
    assert letters(text) == 19
    assert not Identifier(min_letters=20).off_target(text, "spa")
    assert Identifier(min_letters=19).off_target(text, "spa")
    assert not Identifier(min_letters=19, min_probability=1.0).off_target(text, "spa")


@pytest.mark.skipif(
    find_spec("django") is None or find_spec("polib") is None,
    reason="needs Django's catalogues: pip install 'sdrrl-factory[embedded]'",
)
def test_short_texts_are_not_rejected_at_random(fasttext):
    """Django's Norwegian strings of 20 to 60 letters: few are rejected, English ones in their place mostly are."""
    import django
    import polib

    root = Path(django.__file__).parent
    entries = [e for path in sorted(root.glob("**/locale/nb/LC_MESSAGES/*.po")) for e in polib.pofile(str(path))]
    entries = [e for e in entries if e.msgstr and not e.fuzzy]
    own = [e.msgstr for e in entries if 20 <= letters(e.msgstr) <= 60]
    english = [e.msgid for e in entries if 20 <= letters(e.msgid) <= 60]
    assert len(own) > 150 < len(english)
    assert sum(fasttext.off_target(t, "nob") for t in own) < 0.04 * len(own)
    naive = [fasttext.identify(t) for t in own]
    assert sum(code != "nob" and p >= 0.5 for code, p in naive) > 0.15 * len(own)  # what the margin is for
    assert sum(fasttext.off_target(t, "nob") for t in english) > 0.7 * len(english)


def test_script_share():
    assert script_share("Привет, мир!", "Cyrl") == 1.0
    assert script_share("Привет abc", "Cyrl") == pytest.approx(6 / 9)
    assert script_share("Привет abc", "Latn") == pytest.approx(3 / 9)
    assert script_share("Ở đây “có” Ωμ", "Latn") == pytest.approx(6 / 8)
    assert script_share("12 !", "Thai") == 1.0


def test_the_name_tells_the_model(tmp_path):
    copy = tmp_path / "other.ftz"
    copy.write_bytes(Path(default_model()).read_bytes())
    name = Identifier().name
    assert name.startswith("fasttext:lid.176.ftz:")
    assert Identifier(model=str(copy)).name == name.replace("lid.176.ftz", "other.ftz")
    with copy.open("ab") as f:
        f.write(b"x")
    assert Identifier(model=str(copy)).name.split(":")[2] != name.split(":")[2]


@needs_cld3
def test_cld3_has_a_name():
    assert Identifier("cld3").name.startswith("cld3:")


def test_a_model_by_path(tmp_path):
    copy = tmp_path / "mine.ftz"
    copy.write_bytes(Path(default_model()).read_bytes())
    assert Identifier(model=str(copy)).identify(SENTENCES["pol"])[0] == "pol"


@pytest.mark.parametrize("cut", [0, 3, 70, 100, 20_000, 500_000])
def test_a_broken_model_is_one_line(tmp_path, cut):
    path = tmp_path / "half.bin"
    path.write_bytes(Path(default_model()).read_bytes()[:cut])
    with pytest.raises(UserError, match=f"^(language_id: )?.*{path}") as error, under("language_id"):
        Identifier(model=str(path)).identify(SENTENCES["spa"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nowhere.bin", ".", "text.bin"])
def test_a_wrong_path_is_told_at_once(tmp_path, name):
    (tmp_path / "text.bin").write_text("no model")
    with pytest.raises(UserError, match="^language_id: "), under("language_id"):
        Identifier(model=str(tmp_path / name))


def test_cld3_missing_is_told_at_once():
    code = (
        "import importlib.metadata as m\n"
        "real = m.version\n"
        "def version(name):\n"
        "    if name == 'gcld3': raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
        "from sdrrl_factory.errors import under\n"
        "from sdrrl_factory.language_id import Identifier\n"
        "try:\n"
        "    with under('language_id'): Identifier('cld3')\n"
        "except Exception as e: print(type(e).__name__, e)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert out.startswith("UserError language_id: CLD3 is not installed") and "sdrrl-factory[cld3]" in out
    assert "protobuf-compiler and libprotobuf-dev" in out and "\n" not in out
