import base64
import gzip
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.language_id import Identifier
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.transfer.dictionaries import freedict, induced, load, named

SHARED = Path(__file__).parents[3] / "shared" / "data"


def number(value: int) -> str:
    """dictd's base64 number, by way of the base64 of bytes: 6 bits a digit, the highest first."""
    return base64.b64encode(value.to_bytes(6, "big")).decode().lstrip("A") or "A"


def write_dictd(folder: Path, entries: list[tuple[str, str]], padding: int = 0, pair: str = "eng-spa") -> None:
    data, index = b"\n" * padding, []
    for head, body in entries:
        raw = body.encode()
        index.append(f"{head}\t{number(len(data))}\t{number(len(raw))}\n")
        data += raw
    (folder / f"freedict-{pair}.index").write_text("".join(index), encoding="utf-8")
    (folder / f"freedict-{pair}.dict.dz").write_bytes(gzip.compress(data))


def refusal(call, *args) -> str:
    """The one line a user sees."""
    with pytest.raises(UserError) as err, under("code_switch.dictionary"):
        call(*args)
    assert "\n" not in str(err.value)
    return str(err.value)


def grouped(pairs) -> dict[str, list[str]]:
    out = {}
    for left, right in pairs:
        out.setdefault(left, []).append(right)
    return out


# FreeDict

ENTRIES = [
    ("00databaseinfo", "about\nthis is, no word\n"),
    ("house", "house /haʊs/ <n>\n1. casa, hogar (familiar)\n2. vivienda; casa\n"),
    ("house", "house /haʊsəvwɜːʃɪp/\niglesia\n"),
    ("ice cream", "ice cream\nhelado\n"),
    ("spain", "Spain\nEspaña\n"),
    ("home", "home\nhogar [m], un sitio para vivir bien, -ito, casita-\n"),
    ("void", "void\n(no gloss)\n"),
    ("year", "year\naño\n"),
    ("to go", "to go <v>\n 1.  ir\nto move away\n 2.  [lit]  ¡irse!\nto leave 3.\n 3.\nto vanish\n"),
    ("quatrevingt", "quatre-vingt <num>\nochenta 2.\nnumber\n"),
]
FORWARD = {
    "house": ["casa", "hogar", "vivienda"],
    "Spain": ["España"],
    "home": ["hogar"],
    "year": ["año"],
    "go": ["ir"],
    "quatre-vingt": ["ochenta"],
}


@pytest.mark.parametrize("padding", [0, 63, 64, 5_000, 300_000])
def test_dictd_files_by_hand(tmp_path, padding):
    write_dictd(tmp_path, ENTRIES, padding)
    assert grouped(freedict("eng", "spa", tmp_path)) == FORWARD


def test_offsets_agree_with_the_dictd_manual():
    # "A" is 0, "/" 63, "BA" 64.
    assert [number(n) for n in (0, 1, 63, 64, 64**2)] == ["A", "B", "/", "BA", "BAA"]


@pytest.mark.parametrize(
    ("pair", "source", "target", "entry", "glosses"),
    [
        # One entry a translation, with and without grammar, notes and fields; phrases give way to words.
        ("eng-ces", "eng", "ces", "run <v>\n [neprav] běžet\n         Note: run/ran/run\n", ["běžet"]),
        ("eng-ces", "eng", "ces", "run\nurčitý člen, běh (n:)\n", ["běh"]),
        ("eng-ces", "eng", "ces", "run\nhnát se\n", ["hnát se"]),
        # WikDict's: translations, then the definition, in the source language.
        (
            "eng-jpn",
            "eng",
            "jpn",
            "run //ɹʌn// <n>\n1. 走る 2.\nmove fast\n 3.\nto move\n2. ラン\npen\n",
            ["走る", "ラン"],
        ),
        ("eng-jpn", "eng", "jpn", "run <n>\n（羊が）鳴く, 引用「いん」, adj + れば, ＯＢか, DNA鎖\n", ["鳴く", "引用"]),
        ("eng-bul", "eng", "bul", "run <n>\nбе́бе, йод\npastry, bread\n", ["бебе", "йод"]),
        ("eng-hun", "eng", "hun", "run /ɹ/\n1. mûsor\n2. csôr\n", ["műsor", "csőr"]),
        (
            "eng-pol",
            "eng",
            "pol",
            "run /r/\nI.  <Adj>  [form]  bieg, kurs (to sb - dla kogoś)\nII.  <N>  rejs\n",
            ["bieg", "kurs", "rejs"],
        ),
        ("eng-nor", "eng", "nob", "run <n>\nløp\n", ["løp"]),
        ("hun-eng", "hun", "eng", "run /r/\nto wilt\n", ["wilt"]),
    ],
)
def test_entry_formats(tmp_path, pair, source, target, entry, glosses):
    write_dictd(tmp_path, [("run", entry)], pair=pair)
    assert freedict(source, target, tmp_path) == [("run", gloss) for gloss in glosses]


def test_a_reversed_dictionary_serves_too_and_both_are_joined(tmp_path):
    write_dictd(tmp_path, [("casa", "casa\nhouse, to dwell\n")], pair="spa-eng")
    assert freedict("eng", "spa", tmp_path) == [("house", "casa"), ("dwell", "casa")]
    assert freedict("spa", "eng", tmp_path) == [("casa", "house"), ("casa", "dwell")]
    write_dictd(tmp_path, [("house", "house\nhogar\n")])
    assert freedict("eng", "spa", tmp_path) == [("house", "hogar"), ("house", "casa"), ("dwell", "casa")]


@pytest.mark.parametrize("missing", ["index", "dict.dz"])
def test_a_missing_dictionary_names_its_package(tmp_path, missing):
    write_dictd(tmp_path, ENTRIES)
    (tmp_path / f"freedict-eng-spa.{missing}").unlink()
    message = refusal(freedict, "eng", "spa", tmp_path)
    assert message.startswith("code_switch.dictionary: ")
    assert "apt-get install dict-freedict-eng-spa dict-freedict-spa-eng" in message


@pytest.mark.parametrize(
    ("source", "target", "packages"),
    [
        ("eng", "nob", "dict-freedict-eng-nor`"),
        ("eng", "slv", "dict-freedict-slv-eng`"),
        ("fra", "jpn", "dict-freedict-fra-jpn`"),
        ("jpn", "fra", "dict-freedict-fra-jpn`"),
        ("ukr", "eng", None),
        ("fra", "kor", None),
        ("eng", "khm", None),
    ],
)
def test_what_to_do_for_each_language(tmp_path, source, target, packages):
    message = refusal(freedict, source, target, tmp_path)
    assert "code_switch.dictionary: induced" in message
    assert (f"apt-get install {packages}" in message) if packages else ("MUSE" in message and "apt" not in message)


def test_broken_dictd_files_are_named(tmp_path):
    write_dictd(tmp_path, ENTRIES)
    index, body = tmp_path / "freedict-eng-spa.index", tmp_path / "freedict-eng-spa.dict.dz"
    index.write_text(index.read_text(encoding="utf-8") + "broken\n", encoding="utf-8")
    assert f"index:{len(ENTRIES) + 1}: " in refusal(freedict, "eng", "spa", tmp_path)
    body.write_bytes(body.read_bytes()[:40])
    assert str(body) in refusal(freedict, "eng", "spa", tmp_path)


COMMON = {
    "ces": {"house": "dům", "water": "voda", "good": "dobrý", "book": "kniha", "three": "tři", "go": "jít"},
    "jpn": {"house": "家", "water": "水", "good": "良い", "book": "本", "red": "赤い", "go": "行く"},
    "spa": {"house": "casa", "water": "agua", "the": "el", "good": "bueno", "day": "día", "three": "tres"},
}


@pytest.mark.parametrize(("target", "size"), [("ces", 50_000), ("jpn", 20_000), ("spa", 4_000)])
def test_common_words_of_the_installed_dictionaries(target, size):
    if not Path(f"/usr/share/dictd/freedict-eng-{target}.index").is_file():
        pytest.skip(f"needs `apt-get install dict-freedict-eng-{target}`")
    forward, backward, _ = load("freedict", "eng", target, [])
    assert len(forward) > size and len(backward) > 0.5 * size
    common = COMMON[target]
    assert {word: common[word] in forward[word] for word in common} == dict.fromkeys(common, True)
    assert all(word in map(str.lower, backward[common[word].lower()]) for word in common)
    for translations in forward.values():
        assert len(set(translations)) == len(translations)
        assert not any(c in "()[]<>{}/;,+=" for t in translations for c in t)


def test_a_phrase_cut_down_to_its_first_word_is_no_entry_of_the_word(tmp_path):
    """ "be wrong" and "for example" stand in eng-spa as "be" and "for", and only how they are said tells."""
    entries = [
        ("be", "be /brɔŋ/\nnotenerrazón\n"),
        ("be", "be /bsɔriːəbaut/\ndeplorar\n"),
        ("for", "for /fər/\npara\n"),
        ("for", "for /fərigzɑːmpl/\nporejemplo\n"),
        ("wrench", "adjustable /ədʒʌstəblrentʃ/\nllave\n"),
        ("extraordinary", "extraordinary /ɪkˈstrɔːdɪnəɹi/\nextraordinario\n"),
    ]
    write_dictd(tmp_path, entries)
    assert freedict("eng", "spa", tmp_path) == [("for", "para"), ("extraordinary", "extraordinario")]


def test_phrases_whose_blanks_got_lost_are_left_out(tmp_path):
    words = [
        "mesa",
        "libro",
        "salida",
        "maleta",
        "mano",
        "puesto",
        "confirmar",
        "detener",
        "adelante",
        "ellos",
        "verde",
    ]
    words += ["contador", "público", "cantora", "quedar", "suelo", "caro", "otro", "cerca", "gris", "nieve", "lluvia"]
    joined = ["maletademano", "puestoque", "hacerlascompras", "contadorpúblico", "salidadelsol"]
    small = [("the", "el, la, las, los"), ("of", "de"), ("that", "que"), ("for", "por, para")]
    entries = [*small, *((f"x{i}", word) for i, word in enumerate([*words, *joined, "hacer", "del", "sol"]))]
    write_dictd(tmp_path, [(head, f"{head}\n{gloss}\n") for head, gloss in [*entries, ("confirm", "confirmar")]])
    glosses = {gloss for _, gloss in freedict("eng", "spa", tmp_path)}
    assert glosses >= set(words) and not glosses & set(joined)
    # Where phrases are written with their blanks, as the same words are here, nothing is left out.
    write_dictd(
        tmp_path, [(head, f"{head}\n{gloss}\n") for head, gloss in [*entries, ("y", "a veces"), ("z", "por fin")]]
    )
    assert {gloss for _, gloss in freedict("eng", "spa", tmp_path)} >= set(joined)


def test_the_installed_spanish_dictionary_has_no_joined_words():
    if not Path("/usr/share/dictd/freedict-eng-spa.index").is_file():
        pytest.skip("needs `apt-get install dict-freedict-eng-spa`")
    forward = load("freedict", "eng", "spa", []).forward
    assert "notenerrazón" not in forward.get("be", []) and "puestoque" not in forward["for"]
    assert "porlotocantea" not in forward["on"] and "tenerque" not in forward.get("must", [])
    kept = {"because": "porque", "they": "ellos", "green": "verde", "ground": "suelo", "include": "contener"}
    assert {word: kept[word] in forward[word] for word in kept} == dict.fromkeys(kept, True)


# MUSE and TSV files

MUSE = "was bylo\nwas byl\nPrague\tPraha\nok ok\nbyl\twas\n"


def test_muse_in_both_directions(tmp_path):
    (tmp_path / "d.txt").write_text("\ufeff" + MUSE, encoding="utf-8")
    forward, backward, _ = load(f"{tmp_path}/d.txt", "eng", "ces", [])
    assert forward == {"was": ["bylo", "byl"], "prague": ["Praha"], "byl": ["was"]}
    assert backward == {"bylo": ["was"], "byl": ["was"], "praha": ["Prague"], "was": ["byl"]}


def test_tsv_with_several_translations(tmp_path):
    (tmp_path / "d.tsv").write_text("house\tcasa; hogar,vivienda\thogar\r\n\nice cream\thelado\n", encoding="utf-8")
    forward, backward, _ = load(f"{tmp_path}/d.tsv", "eng", "spa", [])
    assert forward == {"house": ["casa", "hogar", "vivienda"]}
    assert backward["helado"] == ["ice cream"] and backward["hogar"] == ["house"]


def test_further_columns_and_notes_are_no_translations(tmp_path):
    text = "# EN-ES vocabulary database\nhouse {n}\tcasa {f}\tnoun\t[archi.]\nold\tviejo [m], anciano (m)\tadj\n"
    (tmp_path / "d.tsv").write_text(text, encoding="utf-8")
    forward, backward, left_out = load(f"{tmp_path}/d.tsv", "eng", "spa", [])
    assert forward == {"house": ["casa"], "old": ["viejo", "anciano"]} and not left_out
    assert backward == {"casa": ["house"], "viejo": ["old"], "anciano": ["old"]}


def test_an_odd_line_is_skipped_and_counted(tmp_path):
    (tmp_path / "d.txt").write_text("was byl\nis\nto be byl jsem\n\tx\nhas\tm\0\nhouse dům\n", encoding="utf-8")
    forward, _, left_out = load(f"{tmp_path}/d.txt", "eng", "ces", [])
    assert forward == {"was": ["byl"], "house": ["dům"]} and left_out == {"odd lines": 4}


def test_decomposed_letters_are_composed(tmp_path):
    (tmp_path / "d.tsv").write_text("year\tan\u0303o\n", encoding="utf-8")
    assert load(f"{tmp_path}/d.tsv", "eng", "spa", []).forward == {"year": ["a\u00f1o"]}


def test_a_dictionary_of_other_languages_is_refused_or_turned_round(tmp_path):
    if not SHARED.is_dir():
        pytest.skip("needs the shared data beside the checkout")
    muse, tool = str(SHARED / "dictionaries/en-cs.muse.txt"), Identifier()
    right = load(muse, "eng", "ces", [], tool)
    assert len(right.forward) > 25_000
    message = refusal(load, muse, "eng", "spa", [], tool)
    assert message.startswith(f"{muse}: most words (bylo, byl, byla ...) are not Spanish but Czech; ")
    assert "are not French but English" in refusal(load, muse, "fra", "ces", [], tool)
    assert load(muse, "ces", "eng", [], tool)[:2] == (right.backward, right.forward)


def test_each_language_can_have_its_own(tmp_path):
    assert named("freedict", "spa") == named({"spa": "freedict", "por": "none"}, "spa") == "freedict"
    assert load("none", "eng", "por", [])[:2] == ({}, {})
    message = refusal(named, {"spa": "freedict"}, "por")
    assert message.startswith("code_switch.dictionary: no dictionary for por (named are: spa); add `por: freedict`")


@pytest.mark.parametrize(
    ("name", "turned"),
    [("en-cs.txt", False), ("eng-ces.txt", False), ("cs-en.txt", True), ("ces-eng.txt", True), ("en-cs.txt.gz", False)],
)
def test_placeholders(tmp_path, name, turned):
    raw = b"was byl\n"
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    pattern = f"{tmp_path}/{{source}}-{{target}}.txt{'.gz' if name.endswith('gz') else ''}"
    one, two = {"was": ["byl"]}, {"byl": ["was"]}
    assert load(pattern, "eng", "ces", [])[:2] == ((two, one) if turned else (one, two))


@pytest.mark.parametrize(
    ("raw", "place", "said"),
    [
        (b"is\nwas\n", ":1: ", "one column"),
        (b"was\t \n", ":1: ", "one column"),
        (b"\tbyl\n", ":1: ", "one column"),
        (b"was byl jsem\n", ":1: ", "tab"),
        (b"", ": ", "no entries"),
        (b" \n\n", ": ", "no entries"),
        (b"was byl\nm\xfbsor b\n", ":2: ", "not UTF-8"),
        (b"was\0 byl\n", ":1: ", "NUL"),
        (gzip.compress(b"was byl\n" * 1000)[:30], ": ", "gzip"),
    ],
)
def test_wrong_files_are_one_line(tmp_path, raw, place, said):
    path = tmp_path / "d.txt"
    path.write_bytes(raw)
    message = refusal(load, str(path), "eng", "ces", [])
    assert message.startswith(f"{path}{place}") and said in message


def test_a_missing_file_names_the_recipe_and_the_path(tmp_path):
    message = refusal(load, f"{tmp_path}/{{source}}.txt", "eng", "ces", [])
    assert message.startswith(f"code_switch.dictionary: {tmp_path}/en.txt: no such file")
    assert "is a folder" in refusal(load, str(tmp_path), "eng", "ces", [])


def test_the_shared_muse_file():
    if not SHARED.is_dir():
        pytest.skip("needs the shared data beside the checkout")
    forward, backward, _ = load(f"{SHARED}/dictionaries/{{source}}-{{target}}.muse.txt", "eng", "ces", [])
    assert forward["was"] == ["bylo", "byl", "byla"] and len(forward) > 25_000 and "was" in backward["byl"]


# Induced

needs_nltk = pytest.mark.skipif(
    importlib.util.find_spec("nltk") is None, reason="needs nltk: pip install 'sdrrl-factory[align]'"
)
# Word for word, in another order: what an aligner must find out.
LEXICON = {
    "the": "il",
    "cat": "gat",
    "dog": "can",
    "sees": "vid",
    "eats": "mang",
    "a": "un",
    "fish": "pex",
    "big": "gro",
}


def toy() -> list[tuple[str, str]]:
    nouns, verbs = ("cat", "dog", "fish"), ("sees", "eats")
    texts = [
        f"The {adjective}{one} {verb} {article} {two}."
        for one in nouns for verb in verbs for two in nouns for article in ("the", "a") for adjective in ("", "big ")
    ]  # fmt: skip
    return [(t, " ".join(LEXICON[w] for w in reversed(t.lower().strip(".").split()))) for t in texts]


@needs_nltk
def test_induced_finds_a_lexicon():
    forward, backward, _ = load("induced", "eng", "spa", toy())
    told = LEXICON.items() - {("the", "il")}  # "the" opens every sentence: it may as well be what nothing stands for
    assert forward == {word: [other] for word, other in told}
    assert backward == {other: [word] for word, other in told}


@needs_nltk
def test_induced_is_the_same_whatever_the_hash_seed():
    code = (
        "from tests.transfer.test_dictionaries import toy; from sdrrl_factory.transfer.dictionaries import induced;"
        "print(induced(toy()[:30], 'eng', 'spa'))"
    )
    outs = {
        subprocess.check_output(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        )
        for seed in "01"
    }
    assert len(outs) == 1 and b"cat" in outs.pop()


@needs_nltk
@pytest.mark.parametrize("pairs", [[], [("One.", "Uno.")], [("...", "")] * 3])
def test_nothing_to_induce_from_is_one_line(pairs):
    message = refusal(induced, pairs, "eng", "spa")
    assert message.startswith("code_switch.dictionary: ") and "parallel.size" in message


@needs_nltk
def test_induced_from_europarl_agrees_with_muse():
    if not SHARED.is_dir():
        pytest.skip("needs the shared data beside the checkout")
    sides = [
        (SHARED / f"parallel/europarl.en-cs.{code}").read_text(encoding="utf-8").split("\n") for code in ("en", "cs")
    ]
    forward, _, _ = load("induced", "eng", "ces", list(zip(*sides, strict=True))[:600])
    muse, back, _ = load(f"{SHARED}/dictionaries/en-cs.muse.txt", "eng", "ces", [])
    judged = [c in map(str.lower, muse[e]) for e, cs in forward.items() for c in cs if e in muse and c in back]
    assert len(judged) > 50 and sum(judged) / len(judged) > 0.6


def test_every_language_has_a_way(tmp_path):
    for source in ("eng", "fra"):
        for target in LANGUAGES.keys() - {source}:
            assert refusal(freedict, source, target, tmp_path).startswith("code_switch.dictionary: ")
