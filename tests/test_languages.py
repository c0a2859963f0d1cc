import importlib.util
import re
from pathlib import Path

import pytest

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.languages import LANGUAGES, language

DOCS = Path(__file__).parent.parent / "docs/languages.md"
# A sentence of each language, written for this test.
SENTENCES = {
    "eng": "The children walked along the river and watched the boats come home.",
    "fra": "Les enfants marchaient le long de la rivière et regardaient rentrer les bateaux.",
    "spa": "Los niños caminaban junto al río y miraban cómo volvían los barcos.",
    "ces": "Děti šly podél řeky a dívaly se, jak se lodě vracejí domů.",
    "dan": "Børnene gik langs floden og så bådene komme hjem igen, mens det blev aften.",
    "ukr": "Діти йшли вздовж річки й дивилися, як човни повертаються додому.",
    "bul": "Децата вървяха край реката и гледаха как лодките се прибират вкъщи.",
    "fin": "Lapset kävelivät joen vartta ja katselivat, kuinka veneet palasivat kotiin.",
    "hun": "A gyerekek a folyó mentén sétáltak, és nézték, ahogy a hajók hazatérnek.",
    "nob": "Barna gikk langs elva og så på båtene som kom hjem igjen etter en lang dag på jobb.",
    "ind": "Anak-anak berjalan di sepanjang sungai dan melihat perahu-perahu pulang.",
    "jpn": "子どもたちは川に沿って歩き、船が帰ってくるのを見ていました。",
    "kor": "아이들은 강을 따라 걸으며 배들이 돌아오는 것을 바라보았습니다.",
    "por": "As crianças caminhavam ao longo do rio e viam os barcos voltarem para casa.",
    "slv": "Otroci so hodili ob reki in gledali, kako se čolni vračajo domov, ker se je že delala noč.",
    "vie": "Bọn trẻ đi dọc bờ sông và ngắm những con thuyền trở về nhà.",
    "pol": "Dzieci szły wzdłuż rzeki i patrzyły, jak łodzie wracają do domu.",
    "tha": "เด็ก ๆ เดินเลียบแม่น้ำและมองดูเรือกลับบ้าน",
    "khm": "ក្មេងៗដើរតាមដងទន្លេ ហើយមើលទូកត្រឡប់មកផ្ទះវិញ។",
}


PAPERS = list(LANGUAGES)[:19]


def test_the_papers_languages_are_there():
    first, second = "ces dan ukr bul fin hun nob ind jpn kor por slv vie pol", "ind tha khm"
    assert set(PAPERS) == {*first.split(), *second.split(), "eng", "fra", "spa"}
    assert all(row.flores.startswith(code) for code, row in LANGUAGES.items())


def test_every_name_stands_once_and_every_script_is_known():
    rows = list(LANGUAGES.values())
    assert len(rows) == 209
    for column in ("name", "flores", "nllb", "mkqa", "xlsum", "muse", "bactrian", "freedict"):
        names = [getattr(row, column) for row in rows if getattr(row, column)]
        assert len(set(names)) == len(names), column
    for row in rows:
        assert row.scripts and row.iso1 and row.apertium and "-" not in row.iso1, row
        # A code is what no other row is called.
        assert not [other.code for other in rows if row.code in other.also]


# Of the codes that are easily mistaken: code, a column, its value there.
FACTS = [
    ("als", "fasttext", "sq"),  # Albanian; lid.176's "als" is Alemannic
    ("als", "iso1", "sq"),
    ("sat", "flores", "sat_Olck"),
    ("sat", "nllb", "sat_Beng"),
    ("heb", "cld3", "iw"),
    ("heb", "fasttext", "he"),
    ("tgl", "cld3", "fil"),
    ("tgl", "fasttext", "tl"),
    ("jav", "iso1", "jv"),
    ("nno", "fasttext", "nn"),
    ("nno", "cld3", "no"),
    ("zho", "mkqa", "zh_cn"),
    ("zho_Hant", "mkqa", "zh_tw"),
    ("yue", "mkqa", "zh_hk"),
    ("zho", "xlsum", "chinese_simplified"),
    ("zho", "flores", "zho_Hans"),
    ("arb", "flores", "arb_Arab"),
    ("arb", "freedict", "ara"),
    ("arb", "iso1", "ar"),
    ("swh", "iso1", "sw"),
    ("swh", "flores", "swh_Latn"),
    ("pes", "iso1", "fa"),
    ("prs", "fasttext", None),  # Dari has no label of its own
    ("zsm", "mkqa", "ms"),
    ("lvs", "iso1", "lv"),
    ("npi", "iso1", "ne"),
    ("ory", "iso1", "or"),
    ("khk", "iso1", "mn"),
    ("gaz", "xlsum", "oromo"),
    ("run", "xlsum", "kirundi"),
    ("kmr", "fasttext", "ku"),
    ("ckb", "fasttext", "ckb"),
    ("srp", "flores", "srp_Cyrl"),
    ("srp", "xlsum", "serbian_cyrillic"),
    ("ydd", "fasttext", "yi"),
    ("hau", "fasttext", None),  # CLD3 alone has it
    ("hau", "cld3", "ha"),
    ("deu", "spaced", True),
    ("mya", "spaced", False),
    ("lao", "spaced", False),
    ("dzo", "iso1", "dz"),
]


@pytest.mark.parametrize(("code", "column", "value"), FACTS)
def test_codes_that_are_easily_mistaken(code, column, value):
    assert getattr(LANGUAGES[code], column) == value


def test_nllb_has_the_tables_tokens():
    """The oracle is transformers' list of the tokenizer's codes."""
    nllb = pytest.importorskip("transformers.models.nllb.tokenization_nllb", reason="needs transformers")
    tokens = set(nllb.FAIRSEQ_LANGUAGE_CODES)
    assert {row.nllb for row in LANGUAGES.values()} >= tokens
    # FLORES-200 and BELEBELE have these besides.
    romanised = {f"{code}_Latn" for code in ("arb", "ben", "hin", "npi", "sin", "urd")}
    assert {row.nllb for row in LANGUAGES.values()} - tokens == romanised | {"min_Arab"}


def test_every_label_of_the_table_is_one_of_lid_176():
    from sdrrl_factory.language_id import default_model

    labels = {name.decode() for name in re.findall(rb"__label__([a-z]{2,3})\0", Path(default_model()).read_bytes())}
    assert len(labels) == 176
    assert {row.fasttext for row in LANGUAGES.values()} - labels == {None}
    # Of its other labels none is a language of the table by its name there, but for Norwegian's and Serbo-Croatian's.
    unused = labels - {row.fasttext for row in LANGUAGES.values()}
    assert [row.code for row in LANGUAGES.values() if row.fasttext is None and {row.iso1, row.code} & unused] == []


def test_benchmarks_have_the_languages_of_the_papers_tables():
    targets = {code: LANGUAGES[code] for code in PAPERS if code not in ("eng", "fra", "spa")}
    summed, asked = "ind jpn kor por vie ukr tha", "nob dan fin hun jpn kor por vie pol tha khm"
    assert {code for code, row in targets.items() if row.xlsum} == set(summed.split())  # tables 4 and 9
    assert {code for code, row in targets.items() if row.mkqa} == set(asked.split())  # tables 5 and 11


@pytest.mark.parametrize("code", PAPERS)
def test_fasttext_and_cld3_say_the_tables_labels(code):
    from sdrrl_factory.language_id import default_model

    if importlib.util.find_spec("fasttext") is None:
        pytest.skip("needs fasttext: pip install fasttext-predict")
    import fasttext

    assert fasttext.load_model(default_model()).predict(SENTENCES[code])[0] == (f"__label__{LANGUAGES[code].fasttext}",)
    if importlib.util.find_spec("gcld3") is None:
        pytest.skip("needs CLD3: pip install 'sdrrl-factory[cld3]'")
    import gcld3

    assert gcld3.NNetLanguageIdentifier(0, 1000).FindLanguage(SENTENCES[code]).language == LANGUAGES[code].cld3


@pytest.mark.parametrize("code", PAPERS)
def test_scripts_and_blanks_are_those_of_a_text(code):
    regex = pytest.importorskip("regex", reason="needs regex, which transformers brings")
    for letter in regex.findall(r"\p{L}", SENTENCES[code]):
        assert any(regex.match(rf"\p{{Script={script}}}", letter) for script in LANGUAGES[code].scripts), letter
    # Thai and Khmer put blanks between phrases, not words.
    longest = max(len(part) for part in SENTENCES[code].split())
    assert LANGUAGES[code].spaced == (longest < 14)


def test_gettext_has_each_language():
    spec = importlib.util.find_spec("django")
    if spec is None:
        pytest.skip("needs Django: pip install django")
    locales = Path(spec.origin).parent / "conf/locale"
    assert [row.iso1 for row in map(LANGUAGES.get, PAPERS) if not (locales / row.iso1).is_dir()] == []


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("es", "did you mean spa?"),
        ("Norwegian", "did you mean nob?"),
        ("no", "did you mean nob?"),
        ("spa_Latn", "did you mean spa?"),
        ("jpm", "did you mean jpn?"),
        ("ara", "did you mean arb?"),
        ("ar", "did you mean arb?"),
        ("swa", "did you mean swh?"),
        ("sw", "did you mean swh?"),
        ("zh", "did you mean zho?"),
        ("zh_TW", "did you mean zho_Hant?"),
        ("Chinese", "did you mean zho?"),
        ("ger", "did you mean deu?"),
        ("fa", "did you mean pes?"),
        ("iw", "did you mean heb?"),
        ("none", "known: eng fra "),
        ("zzzz", "known: eng fra "),
    ],
)
def test_an_unknown_language_is_one_line_with_a_hint(code, hint):
    with pytest.raises(UserError) as caught, under("target_lang"):
        language(code)
    assert str(caught.value).startswith(f"target_lang: unknown language '{code}'; {hint}")
    assert "\n" not in str(caught.value)


def test_the_page_shows_the_table():
    rows = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert rows == [table_row(row) for row in LANGUAGES.values()]


def table_row(row) -> str:
    cells = [f"`{row.code}`", row.name, row.flores, row.iso1, row.fasttext, row.cld3, row.mkqa, row.xlsum, row.muse]
    cells += [row.bactrian, row.freedict, row.apertium, ", ".join(sorted(row.scripts)), "yes" if row.spaced else "no"]
    return f"| {' | '.join(cell or '–' for cell in cells)} |"
