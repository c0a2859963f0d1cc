import gzip
import itertools
import json
import random
import re
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
import regex

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.language_id import Identifier
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.transfer.parallel import check, completion_rows, load, monolingual, translation_rows
from sdrrl_factory.transfer.recipe import Filters, Parallel
from tests.conftest import command

SHARED = Path(__file__).parents[3] / "shared" / "data"
PAIRS = [("p0", "The quick fox.", "Rubah yang cepat."), ("p1", "Yes.", "Ya.")]
MT, COMP = Parallel().translation_prompt, Parallel().completion_prompt
TEXTS = [(f"Sentence number {i} is here.", f"La frase número {i} está aquí.") for i in range(50)]


# Most texts here are too short or too alike for the rules; what checks them stands under "Checks".
LAX = Filters(numbers=False, max_length_ratio=None, repeats=False, script=False, markup=False)


def drawn(source, a="eng", b="spa", size=1000, seed=42, rules=LAX, tool=None, columns=None):
    with under("parallel"):
        return load(Parallel(source=str(source), size=size, columns=columns or {}), a, b, seed, rules, tool)


def read(*args, **keys):
    return drawn(*args, **keys).rows


def texts(rows):
    return sorted((a, b) for _, a, b in rows)


def tmx(pairs, langs=("en-US", "es"), head='<!DOCTYPE tmx SYSTEM "tmx14.dtd">'):
    units = "".join(
        f'<tu><tuv xml:lang="{langs[0]}"><seg>{a}</seg></tuv><tuv xml:lang="{langs[1]}"><seg>{b}</seg></tuv></tu>\n'
        for a, b in pairs
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head}<tmx version="1.4"><header/><body>{units}</body></tmx>'


# --- gettext


@pytest.fixture(scope="module")
def pairs():
    pytest.importorskip("polib", reason="needs `pip install django polib`")
    pytest.importorskip("django", reason="needs `pip install django polib`")
    return read("gettext", size=10_000)


def test_pairs_are_sentences_without_holes(pairs):
    assert len(pairs) > 150
    for _, english, spanish in pairs:
        for text in (english, spanish):
            assert not re.search(r"[%{}<>|\\\n]", text) and text == text.strip() and text
        assert len(english.split()) >= 3 and english != spanish
    assert len({pid for pid, _, _ in pairs}) == len({english for _, english, _ in pairs}) == len(pairs)


def test_pairs_are_the_catalogues_own(pairs):
    import django
    import polib

    root = django.__path__[0]
    entries = {e.msgid: e.msgstr for e in polib.pofile(f"{root}/conf/locale/es/LC_MESSAGES/django.po")}
    mine = {english: spanish for _, english, spanish in pairs}
    common = entries.keys() & mine.keys()
    assert len(common) > 50 and all(mine[key] == entries[key] for key in common)


@pytest.mark.parametrize("size", [0, 1, 50])
def test_the_size_is_a_cap_and_the_draw_is_the_seeds(pairs, size):
    assert read("gettext", size=size) == pairs[:size]


def test_another_seed_draws_others(pairs):
    other = read("gettext", size=50, seed=43)
    assert len(other) == 50 and {e for _, e, _ in other} != {e for _, e, _ in pairs[:50]}


def test_another_source_language_is_joined_by_message(pairs):
    french = read("gettext", "fra", size=10_000)
    spanish = {s for _, _, s in pairs}
    assert len(french) > 100 and sum(s in spanish for _, _, s in french) > 100


# The paper's languages; most others have a catalogue too, shorter ones among them.
PAPER = [
    "fra",
    "spa",
    "ces",
    "dan",
    "ukr",
    "bul",
    "fin",
    "hun",
    "nob",
    "ind",
    "jpn",
    "kor",
    "por",
    "slv",
    "vie",
    "pol",
    "tha",
    "khm",
]


@pytest.mark.parametrize("code", PAPER)
def test_every_language_has_a_catalogue_in_its_script(pairs, code):
    rows = read("gettext", "eng", code, size=10_000)
    script = regex.compile("|".join(rf"\p{{{name}}}" for name in LANGUAGES[code].scripts))
    inside = sum(bool(script.search(text)) for _, _, text in rows)
    assert len(rows) >= 30 and inside > 0.95 * len(rows)


def test_a_source_written_without_spaces_gives_pairs_too(pairs):
    assert len(read("gettext", "jpn", size=10_000)) > 100


def test_a_language_without_a_catalogue_is_one_line(pairs, monkeypatch):
    with pytest.raises(UserError) as err:
        monkeypatch.setattr("pathlib.Path.glob", lambda self, pattern: iter(()))
        read("gettext", size=5)
    assert str(err.value).startswith("parallel.source: ") and "parallel.size: 0" in str(err.value)


def test_a_missing_django_is_one_line(monkeypatch):
    monkeypatch.setattr("sdrrl_factory.transfer.gettext_catalogues.find_spec", lambda name: None)
    monkeypatch.setattr("sdrrl_factory.transfer.gettext_catalogues.files", lambda name: distribution("no such package"))
    with pytest.raises(UserError, match="^parallel.source: django is not installed; run `pip install django polib`"):
        read("gettext", size=5)


# --- Files


def write_tsv(folder):
    (folder / "c.en-es.tsv").write_text("\ufeff" + "".join(f"{a}\t{b}\r\n" for a, b in TEXTS), encoding="utf-8")
    return folder / "c.{source}-{target}.tsv"


def write_tsv_gz(folder):
    (folder / "c.tsv.gz").write_bytes(gzip.compress("".join(f"{a}\t{b}\t0.9\n" for a, b in TEXTS).encode()))
    return folder / "c.tsv.gz"


def write_tmx(folder):
    (folder / "c.tmx").write_text(tmx(TEXTS), encoding="utf-8")
    return folder / "c.tmx"


def write_tmx_utf16(folder):
    text = tmx(TEXTS, ("eng", "spa-MX")).replace("UTF-8", "UTF-16")
    (folder / "c.tmx.gz").write_bytes(gzip.compress(text.encode("utf-16")))
    return folder / "c.tmx.gz"


def write_moses(folder):
    for k, code in enumerate(("en", "es")):
        (folder / f"c.en-es.{code}").write_text("".join(p[k] + "\n" for p in TEXTS), encoding="utf-8")
    return folder / "c.{source}-{target}"


def write_moses_gz(folder):
    for k, code in enumerate(("eng", "spa_Latn")):
        (folder / f"c.{code}.gz").write_bytes(gzip.compress("".join(p[k] + "\n" for p in TEXTS).encode()))
    return folder / "c"


def write_jsonl(folder):
    rows = [json.dumps({"translation": {"en": a, "es": b}}) for a, b in TEXTS]
    (folder / "c.jsonl").write_text("\n".join(rows) + "\n\n", encoding="utf-8")
    return folder / "c.jsonl"


def write_folder(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pa.Table.from_pylist([{"translation": {"en": a, "es": b}} for a, b in TEXTS])
    (folder / "opus" / "en-es").mkdir(parents=True)
    pq.write_table(rows.slice(0, 20), folder / "opus/en-es/train-00000-of-00002.parquet")
    pq.write_table(rows.slice(20), folder / "opus/en-es/train-00001-of-00002.parquet")
    pq.write_table(
        pa.Table.from_pylist([{"translation": {"en": "No.", "es": "Ni."}}]), folder / "opus/en-es/test-0.parquet"
    )
    return folder / "opus"


FORMATS = [
    *(write_tsv, write_tsv_gz, write_tmx, write_tmx_utf16, write_moses, write_moses_gz, write_jsonl, write_folder),
]


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_gives_the_same_draw(tmp_path, write):
    path = write(tmp_path)
    assert texts(read(path)) == sorted(TEXTS)
    assert read(path, size=7) == read(write_jsonl(tmp_path), size=7)


@pytest.mark.parametrize("write", [write_tmx, write_moses, write_folder])
def test_the_other_direction_turns_the_pairs_round(tmp_path, write):
    path = str(write(tmp_path)).replace("{source}-{target}", "en-es")
    assert texts(read(path, "spa", "eng")) == sorted((b, a) for a, b in TEXTS)


def test_the_draw_knows_no_order_and_ids_come_from_the_content(tmp_path):
    lines = [f"{a}\t{b}\n" for a, b in TEXTS]
    (tmp_path / "a.tsv").write_text("".join(lines))
    (tmp_path / "b.tsv").write_text("".join(random.Random(3).sample(lines, 50)) + lines[4] + lines[9])
    ten = read(tmp_path / "a.tsv", size=10)
    assert read(tmp_path / "b.tsv", size=10) == ten and len(ten) == 10
    assert read(tmp_path / "a.tsv", size=20)[:10] == ten
    assert read(tmp_path / "a.tsv", size=10, seed=43) != ten
    everything = {pair: pid for pid, *pair in map(tuple, read(tmp_path / "a.tsv", seed=7)) for pair in [tuple(pair)]}
    assert all(everything[a, b] == pid for pid, a, b in ten) and len(set(everything.values())) == 50


def test_the_draw_is_uniform(tmp_path):
    (tmp_path / "a.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in TEXTS))
    counts = dict.fromkeys((a for a, _ in TEXTS), 0)
    for seed in range(400):
        for _, a, _ in read(tmp_path / "a.tsv", size=10, seed=seed):
            counts[a] += 1
    chi2 = sum((n - 80) ** 2 / 80 for n in counts.values())
    assert sum(counts.values()) == 4000 and chi2 < 85.4  # 49 degrees of freedom, p = 0.001


def test_unusable_pairs_are_left_out(tmp_path):
    bad = [
        ("", "a"),
        ("a", " "),
        ("same", "same"),
        ("x" * 1001, "y"),
        ("nul\x00", "y"),
        ("z", "w" * 1001),
        ("q", "\ufffd"),
    ]
    twice = [("Twice said.", "Dos."), ("Twice said.", "Doble."), ("  Twice said.  ", "Dos.")]
    (tmp_path / "a.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in [*bad, *twice, ("Good.", "Bueno.")]))
    rows = texts(read(tmp_path / "a.tsv"))
    assert len(rows) == 2 and rows[0] == ("Good.", "Bueno.") and rows[1] in (twice[0], twice[1])
    (tmp_path / "b.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in [*bad, *twice[::-1], ("Good.", "Bueno.")]))
    assert texts(read(tmp_path / "b.tsv")) == rows


def test_only_a_line_feed_ends_a_line(tmp_path):
    (tmp_path / "c.en").write_bytes("One\u2028two.\nThree\x0cfour.\n".encode())
    (tmp_path / "c.es").write_bytes(b"Uno dos.\nTres cuatro.\n")
    assert [b for _, b in texts(read(tmp_path / "c"))] == ["Uno dos.", "Tres cuatro."]


def test_norwegian_is_found_under_its_older_code(tmp_path):
    for code, text in (("en", "Good day.\n"), ("no", "God dag.\n")):
        (tmp_path / f"c.{code}").write_text(text)
    assert texts(read(tmp_path / "c", "eng", "nob")) == [("Good day.", "God dag.")]


def test_tmx_takes_text_not_codes_and_the_exact_language_first(tmp_path):
    units = (
        '<tu><tuv xml:lang="EN"><seg>Press <bpt i="1">&lt;b&gt;</bpt>the <hi>red</hi><ept i="1">x</ept>\n  key '
        '&amp; wait.</seg></tuv><tuv xml:lang="pt-BR"><seg>Brasil.</seg></tuv>'
        '<tuv xml:lang="pt"><seg>Espere.</seg></tuv></tu>'
        '<tu><tuv xml:lang="en"><seg>Alone.</seg></tuv><tuv xml:lang="de"><seg>Allein.</seg></tuv></tu>'
    )
    (tmp_path / "c.tmx").write_text(f"<tmx><body>{units}</body></tmx>")
    assert texts(read(tmp_path / "c.tmx", "eng", "por")) == [("Press the red key & wait.", "Espere.")]


def test_a_long_corpus_needs_little_memory(tmp_path):
    import tracemalloc

    def peak(lines):
        for code in ("en", "es"):
            with open(tmp_path / f"{lines}.{code}", "w") as f:
                f.writelines(f"{code} line {i} with some words in it\n" for i in range(lines))
        tracemalloc.start()
        assert len(read(tmp_path / str(lines), size=100)) == 100
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(2_000)
    assert peak(16_000) < 1.2 * peak(2_000)


BOMB = '<!DOCTYPE t [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
MISTAKES = {
    "a.tsv": ("No tab here\n", r"a\.tsv:1: one column instead of two"),
    "b.tsv": (b"caf\xe9\tcoffee\n", r"b\.tsv:1: not UTF-8 \(byte 3 of the line\); convert"),
    "c.tsv.gz": (gzip.compress(b"One two.\tUno dos.\n" * 999)[:-9], r"c\.tsv\.gz: broken gzip"),
    "d.tsv.gz": (b"\x1f\x8bplain\ttext\n", r"d\.tsv\.gz: broken gzip"),
    "e.tsv": ("", r"parallel\.source: no usable pair of eng and spa in .*parallel\.size: 0"),
    "f.tmx": ("<tmx><body><tu>", r"f\.tmx:1: not well-formed XML"),
    "g.tmx": (tmx([("&b;", "x")], head=BOMB), r"g\.tmx:2: the document type above declares an entity"),
    "h.tmx": ("", r"h\.tmx:1: not well-formed XML"),
    "i.tmx": ('<?xml version="1.0" encoding="klingon"?><tmx/>', r"i\.tmx:1: not well-formed XML"),
    "j.jsonl": (
        '{"translation": {"en": "a"}}\n',
        r"j\.jsonl: no columns in English and Spanish \(the columns: en: 'a'\); name the two in ",
    ),
    "k.jsonl": (
        '{"translation": {"en": "a", "es": 5}}\n',
        r"parallel\.source: no usable pair .*k\.jsonl \(1 with an empty side\)",
    ),
    "l.jsonl": ('{"en": "a", "es": "b"}\n[1]\n', r"l\.jsonl:2: list instead of an object"),
    "m.jsonl": ("{half\n", r"m\.jsonl:1: not JSON"),
    "n.parquet": ("PAR1 no", r"n\.parquet: not Parquet from row 1 on"),
    "o.tmx": (tmx(TEXTS, ("en", "de")), r"parallel\.source: no usable pair .*\(50 with an empty side\)"),
    "p.tsv": (tmx(TEXTS).encode("utf-16"), r"p\.tsv: UTF-16 or binary"),
    "q.tsv": ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", r"q\.tsv: a Git LFS pointer"),
    "r.tmx": (tmx(TEXTS)[:-40], r"r\.tmx:\d+: not well-formed XML"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_malformed_file_is_one_line(tmp_path, name):
    content, message = MISTAKES[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as err:
        read(tmp_path / name)
    assert "\n" not in str(err.value)


def test_gzip_is_known_by_its_bytes(tmp_path):
    (tmp_path / "a.tsv.gz").write_text("One two.\tUno dos.\n")
    (tmp_path / "b.tsv").write_bytes(gzip.compress(b"One two.\tUno dos.\n"))
    assert texts(read(tmp_path / "a.tsv.gz")) == texts(read(tmp_path / "b.tsv")) == [("One two.", "Uno dos.")]


# Each level ten times the one below: 10 GB at the end.
LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (f'<!DOCTYPE tmx [<!ENTITY l0 "ha"><!-- -->{LAUGHS}]>', "&l9;"),
        ('<!DOCTYPE tmx [<!ENTITY secret SYSTEM "SECRET">]>', "&secret;"),
        ('<!DOCTYPE tmx [<!ENTITY % secret SYSTEM "SECRET"> %secret;]>', "No."),
        ('<!DOCTYPE tmx [<!ENTITY secret "harmless">]>', "&secret;"),
    ],
)
def test_entities_are_refused_before_they_are_expanded(tmp_path, head, text):
    """A billion laughs, a file of this machine, the same by a parameter entity, and one that would do no harm."""
    import tracemalloc

    (tmp_path / "secret.txt").write_text("Secret text.")
    path = tmp_path / "c.tmx"
    path.write_text(
        tmx([("One.", "Uno."), (text, "Dos.")], head=head.replace("SECRET", f"file://{tmp_path}/secret.txt"))
    )
    tracemalloc.start()
    with pytest.raises(UserError, match=r"c\.tmx:2: the document type above declares an entity; remove") as err:
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000 and "Secret" not in str(err.value)
    tracemalloc.stop()


def test_a_billion_laughs_in_an_attribute_is_not_expanded(tmp_path):
    """An attribute's entities are expanded while the first tag is read, before anything can be refused."""
    laughs = f'<!DOCTYPE tmx [<!ENTITY l0 "ha">{LAUGHS}]>'
    (tmp_path / "c.tmx").write_text(f'{laughs}\n<tmx a="&l9;"><body><tu/></body></tmx>')
    with pytest.raises(UserError, match=r"c\.tmx:\d+: (not well-formed XML|the document type above)") as err:
        read(tmp_path / "c.tmx")
    assert "\n" not in str(err.value)


def test_tmx_with_a_namespace(tmp_path):
    text = tmx(TEXTS[:3]).replace("<tmx ", '<tmx xmlns="http://www.lisa.org/tmx14" ')
    (tmp_path / "c.tmx").write_text(text)
    assert texts(read(tmp_path / "c.tmx")) == sorted(TEXTS[:3])


def test_a_long_tmx_needs_little_memory(tmp_path):
    """In kB, of the whole process: libxml2's memory is not Python's; ru_maxrss counts pytest too, before the exec."""
    code = (
        "import re, sys\n"
        "from sdrrl_factory.transfer.corpora import read_corpus\n"
        "from sdrrl_factory.transfer.recipe import PairColumns\n"
        "n = sum(1 for _ in read_corpus(sys.argv[1], 'eng', 'spa', PairColumns(), None))\n"
        "print(n, re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])\n"
    )
    peaks = []
    for size in (100, 40_000):
        (tmp_path / f"{size}.tmx").write_text(tmx(TEXTS * (size // 50)))
        n, peak = map(int, command(sys.executable, "-c", code, tmp_path / f"{size}.tmx").stdout.split())
        assert n == size
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 8_000


@pytest.mark.parametrize("name", ["none.tsv", "none.tmx", "none.jsonl", "none.parquet", "none", "no/folder/"])
def test_a_missing_file_is_one_line(tmp_path, name):
    with pytest.raises(UserError, match=r"^parallel\.source: .*none|folder.* not found; "):
        read(f"{tmp_path}/{name}")


def test_an_empty_folder_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"^parallel\.source: no \.parquet or \.jsonl file in "):
        read(tmp_path)


@pytest.mark.parametrize(("one", "other"), [(3, 2), (2, 3), (0, 4)])
def test_unequal_moses_files_are_one_line_with_both_counts(tmp_path, one, other):
    (tmp_path / "c.en").write_text("A sentence.\n" * one)
    (tmp_path / "c.es").write_text("Una frase.\n" * other)
    with pytest.raises(UserError, match=rf"c\.en has {one} lines and .*c\.es has {other}; ") as err:
        read(tmp_path / "c")
    assert str(err.value).startswith("parallel.source: ") and "\n" not in str(err.value)


def test_opus_100_is_english_centred():
    with pytest.raises(UserError, match="^parallel.source: opus-100 pairs languages with English alone"):
        read("opus-100", "fra", "jpn")


@pytest.mark.slow
def test_opus_100_out_of_reach_is_one_line():
    code = (
        "from sdrrl_factory.errors import under\n"
        "from sdrrl_factory.transfer import parallel, recipe\n"
        "with under('parallel'): parallel.load("
        "recipe.Parallel(source='opus-100'), 'spa', 'eng', 1, recipe.Filters(), None)"
    )
    done = command(sys.executable, "-c", code, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert "UserError: parallel.source: Helsinki-NLP/opus-100 en-es cannot be loaded (" in last


def test_monolingual_text_is_drawn_by_content(tmp_path):
    sentences = [f"Frase {i} de muestra." for i in range(30)]
    (tmp_path / "m.es.txt").write_text("\n".join([*sentences, "", sentences[3], "x" * 1001]) + "\n")
    (tmp_path / "r.txt.gz").write_bytes(gzip.compress("\n".join(sentences[::-1]).encode()))

    def draw(path, size):
        with under("parallel"):
            return monolingual(Parallel(monolingual=str(path), monolingual_size=size), "spa", 42, LAX, None).rows

    rows = draw(tmp_path / "m.{target}.txt", 1000)
    assert sorted(s for _, s in rows) == sorted(sentences) and len({sid for sid, _ in rows}) == 30
    assert draw(tmp_path / "r.txt.gz", 8) == rows[:8]
    assert draw(tmp_path / "m.{target}.txt", 0) == [] == monolingual(Parallel(), "spa", 42, LAX, None).rows
    with pytest.raises(UserError, match=r"^parallel\.monolingual: .*absent\.txt not found"):
        draw(tmp_path / "absent.txt", 5)
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(UserError, match=r"^parallel\.monolingual: no usable sentence"):
        draw(tmp_path / "empty.txt", 5)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("source", "c.{src}-{target}.tsv", r"unknown placeholder \{src\}; \{source\} and \{target\} can stand here"),
        ("monolingual", "c.{source}.txt", r"unknown placeholder \{source\}; \{target\} can stand here"),
        ("translation_prompt", "From {source} to {}.", r"unknown placeholder \{\}; "),
        ("completion_prompt", "Go on in {language}.", r"unknown placeholder \{language\}; \{target\} can stand here"),
    ],
)
def test_an_unknown_placeholder_is_one_line(key, value, message):
    check(Parallel())
    with pytest.raises(UserError, match=rf"^parallel\.{key}: {message}"), under("parallel"):
        check(Parallel(**{key: value}))


# --- Checks

ENGLISH = [
    "The committee will meet again on Thursday morning.",
    "She has lived in this small village for many years.",
    "Please close the window before you leave the room.",
    "Our train was late because of the heavy snow.",
    "He wants to know where the nearest hospital is.",
    "They are building a new bridge across the river.",
]
SPANISH = [
    "La comisión se reunirá de nuevo el jueves por la mañana.",
    "Ella vive en este pequeño pueblo desde hace muchos años.",
    "Por favor, cierre la ventana antes de salir de la habitación.",
    "Nuestro tren llegó tarde por culpa de la nieve.",
    "Quiere saber dónde está el hospital más cercano.",
    "Están construyendo un puente nuevo sobre el río.",
]
TRUE_PAIRS = sorted(zip(ENGLISH, SPANISH, strict=True))


@pytest.fixture(scope="module")
def tool():
    return Identifier()


def write(path, rows):
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_lines_of_another_language_are_left_out_and_counted(tmp_path, tool):
    wrong = [
        ("This line has not been translated.", "Diese Zeile ist auf Deutsch geschrieben worden."),
        ("The sitting was closed.", "La séance est levée à 23h25"),
        ("Cette ligne est en français.", "Esta línea está en español."),
        ("This one was never translated at all.", "That is left in English too, as you see."),
    ]
    path = write(tmp_path / "c.tsv", [*TRUE_PAIRS, *wrong])
    rows, left_out = drawn(path, tool=tool, rules=Filters())
    assert texts(rows) == TRUE_PAIRS
    assert left_out == {"not in Spanish": 3, "not in English": 1}
    # Without an identifier nobody can tell.
    assert len(read(path)) == 10


def test_the_filters_rules_hold_for_pairs_too(tmp_path, tool):
    wrong = [
        ("There were 12 of them in the room.", "Había 15 de ellos en la habitación."),
        ("Yes, that is quite right, I think so too.", "Sí" + ", y además otra cosa muy distinta" * 6 + "."),
    ]
    rows, left_out = drawn(write(tmp_path / "c.tsv", [*TRUE_PAIRS, *wrong]), tool=tool, rules=Filters())
    assert texts(rows) == TRUE_PAIRS and left_out == {"lost number": 1, "length ratio": 1}


def test_monolingual_text_is_checked(tmp_path, tool):
    (tmp_path / "m.txt").write_text(
        "\n".join([*SPANISH, *ENGLISH[:2], "Wir haben heute keine Zeit."]), encoding="utf-8"
    )
    config = Parallel(monolingual=str(tmp_path / "m.txt"))
    rows, left_out = monolingual(config, "spa", 42, Filters(), tool)
    assert sorted(s for _, s in rows) == sorted(SPANISH) and left_out == {"not in Spanish": 3}


TABLES = {
    "Tatoeba": lambda i, a, b: (str(1276 + i), a, str(2481 + i), b),
    "turned round": lambda i, a, b: (b, a),
    "ManyThings": lambda i, a, b: (a, b, f"CC-BY 2.0 (France) Attribution: tatoeba.org #{i} (CM) & #{i + 7} (Alma)"),
    "scored": lambda i, a, b: (f"0.{i}", b, a),
    "ParaCrawl": lambda i, a, b: (f"http://a.example/{i}", f"http://b.example/{i}", a, b),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_columns_of_a_table_are_told_by_what_stands_in_them(tmp_path, tool, name):
    rows = [TABLES[name](i, a, b) for i, (a, b) in enumerate(TRUE_PAIRS)]
    path = write(tmp_path / "c.tsv", rows)
    assert texts(read(path, tool=tool, rules=Filters())) == TRUE_PAIRS
    assert texts(read(path, "spa", "eng", tool=tool, rules=Filters())) == sorted((b, a) for a, b in TRUE_PAIRS)


@pytest.mark.parametrize("columns", [{"source": 4, "target": 2}, {"source": "b", "target": "a"}])
def test_the_columns_of_a_table_can_be_named(tmp_path, columns):
    rows = [("1", b, "2", a) for a, b in TRUE_PAIRS]
    path = write(tmp_path / "c.tsv", [("n", "a", "m", "b"), *rows])
    wanted = TRUE_PAIRS if columns["source"] == "b" else sorted([*TRUE_PAIRS, ("b", "a")])
    assert texts(read(path, columns=columns)) == wanted


@pytest.mark.parametrize("header", [("en", "es"), ("source", "target"), ("English", "Spanish"), ("eng", "spa_Latn")])
def test_a_header_is_no_pair(tmp_path, tool, header):
    assert texts(read(write(tmp_path / "c.tsv", [header, *TRUE_PAIRS]), tool=tool)) == TRUE_PAIRS


def test_rows_of_any_names_are_told_and_can_be_named(tmp_path, tool):
    rows = [{"id": i, "tgt": b, "src": a, "url": f"http://x.example/{i}"} for i, (a, b) in enumerate(TRUE_PAIRS)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert texts(read(tmp_path / "c.jsonl", tool=tool)) == TRUE_PAIRS
    assert texts(read(tmp_path / "c.jsonl", columns={"source": "src", "target": "tgt"})) == TRUE_PAIRS
    lines = "".join(f'{i},"{b}","{a}"\n' for i, (a, b) in enumerate(TRUE_PAIRS))
    (tmp_path / "c.csv").write_text(f"id,one,two\n{lines}", encoding="utf-8")
    assert texts(read(tmp_path / "c.csv", tool=tool)) == TRUE_PAIRS


NO_PAIRS = {
    "one language": [(str(i), a, str(2481 + i)) for i, a in enumerate(ENGLISH)],
    "the wrong language": [(a, f"{a} Das ist ein deutscher Satz, und noch ein zweiter dazu.") for a in ENGLISH],
}


@pytest.mark.parametrize("name", NO_PAIRS)
def test_what_is_no_pair_of_the_languages_is_one_line_with_its_columns(tmp_path, tool, name):
    path = write(tmp_path / "c.tsv", NO_PAIRS[name])
    with pytest.raises(UserError, match=r"c\.tsv: no columns in English and Spanish \(the columns: 1: '") as err:
        read(path, tool=tool)
    assert str(err.value).endswith("; name the two in parallel.columns, or another file")
    assert "The committee will meet" in str(err.value) and "\n" not in str(err.value)


@pytest.mark.parametrize("columns", [{"source": 9}, {"source": "src"}, {"target": "Spanish"}])
def test_a_column_that_is_not_there_is_one_line(tmp_path, columns):
    with pytest.raises(UserError, match=r"c\.tsv: no column (9|'src'|'Spanish') \("):
        read(write(tmp_path / "c.tsv", TRUE_PAIRS), columns=columns)


def test_a_moses_pair_of_another_language_is_refused_with_counts(tmp_path, tool):
    (tmp_path / "c.en").write_text("\n".join(ENGLISH) + "\n")
    (tmp_path / "c.es").write_text("Das ist ein deutscher Satz, und noch ein zweiter dazu.\n" * 6)
    with pytest.raises(UserError, match=r"no usable pair of eng and spa in .* \(6 not in Spanish\); name another"):
        read(tmp_path / "c", tool=tool)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Tom &amp; Ann said &quot;no&quot;.", 'Tom & Ann said "no".'),
        ("It &amp;quot;is&amp;quot; &#39;so&#x27;.", "It \"is\" 'so'."),
        ("A well @-@ known fact and @/@ or two", "A well-known fact and/or two"),
        ("See -LRB- page one -RRB- and -LSB- note -RSB-", "See ( page one ) and [ note ]"),
        ("a &#124; b and AT&T; no entity & none", "a | b and AT&T; no entity & none"),
        ("Cafe\u0301 con leche", "Caf\u00e9 con leche"),
    ],
)
def test_entities_and_escapes_are_undone(tmp_path, raw, clean):
    path = write(tmp_path / "c.tsv", [(raw, "Otra cosa distinta"), ("Another one", raw)])
    assert texts(read(path)) == sorted([(clean, "Otra cosa distinta"), ("Another one", clean)])


def test_a_null_side_drops_its_pair(tmp_path, tool):
    rows = [{"translation": {"en": a, "es": b}} for a, b in TRUE_PAIRS]
    rows[2:2] = [{"translation": {"en": "Nothing here.", "es": None}}, {"translation": {"en": "Nor here."}}]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, left_out = drawn(tmp_path / "c.jsonl", tool=tool)
    assert texts(found) == TRUE_PAIRS and left_out == {"with an empty side": 2}
    path = write(tmp_path / "c.tsv", [*TRUE_PAIRS[:3], ("Alone in its line.",), *TRUE_PAIRS[3:]])
    found, left_out = drawn(path, tool=tool)
    assert texts(found) == TRUE_PAIRS and left_out == {"with an empty side": 1}


def test_real_europarl_has_lines_in_other_languages(tool):
    prefix = SHARED / "parallel" / "europarl.{source}-{target}"
    if not (SHARED / "parallel").is_dir():
        pytest.skip("needs the shared Europarl sample")
    rows, left_out = drawn(prefix, "eng", "ces", 5000, tool=tool, rules=Filters())
    foreign = re.compile(r"\b(séance|seduta|Sitzung|sesión|Posiedzenie|sessão|closed|votes|Nous)\b")
    assert len(rows) > 800 and left_out["not in Czech"] > 80
    assert sum(bool(foreign.search(czech)) for _, _, czech in rows) <= 3


# --- Data sets


def test_translation_rows_are_worded_as_in_table_1():
    assert translation_rows(PAIRS[:1], "eng", "ind", MT) == [
        {
            "id": "p0-st",
            "instruction": "Translate the following sentence from English to Indonesian.",
            "input": "The quick fox.",
            "output": "Rubah yang cepat.",
        },
        {
            "id": "p0-ts",
            "instruction": "Translate the following sentence from Indonesian to English.",
            "input": "Rubah yang cepat.",
            "output": "The quick fox.",
        },
    ]


def test_completion_rows_are_worded_as_in_table_1():
    ask = "Complete the following sentence in Indonesian according to its context."
    (row,) = completion_rows([(pid, b) for pid, _, b in PAIRS], "ind", 42, COMP)  # one word cannot be cut
    assert row["id"] == "p0-c" and (row["instruction"], row["output"]) == (ask, "Rubah yang cepat.")
    assert row["input"] in ("Rubah", "Rubah yang")


def test_templates_are_the_recipes():
    (one, other) = translation_rows(PAIRS[:1], "eng", "ind", "{target} please, not {source}:")
    assert one["instruction"] == "Indonesian please, not English:" and other["instruction"].startswith("English please")
    (row,) = completion_rows([("a", "satu dua")], "ind", 42, "{target}? {target}!")
    assert row["instruction"] == "Indonesian? Indonesian!"


def chi_square(counts):
    expected = sum(counts) / len(counts)
    return sum((n - expected) ** 2 / expected for n in counts)


def test_a_cut_is_a_proper_prefix_at_a_word_and_uniform():
    many = [(f"s{i}", " ".join(f"w{k}" for k in range(11))) for i in range(5_000)]
    counts = [0] * 11
    for row in completion_rows(many, "spa", 42, COMP):
        assert row["output"].startswith(row["input"] + " ") and row["input"]
        counts[len(row["input"].split())] += 1
    assert counts[0] == 0 and sum(counts) == 5_000
    assert chi_square(counts[1:]) < 27.9  # 9 degrees of freedom, p = 0.001


@pytest.mark.parametrize(
    ("code", "clusters"),
    [("tha", ["ก", "ำ", "ลั", "ง", "ที่", "น้ำ", "ไ", "ป"]), ("jpn", list("今日は雨が降る") + ["か\u3099"])],
)
def test_without_spaces_a_cut_is_between_clusters_and_uniform(code, clusters):
    # By hand: where a mark or SARA AM hangs on the letter before it, no cut.
    if code == "tha":
        clusters = ["กำ", *clusters[2:]]
    places = list(itertools.accumulate(map(len, clusters)))[:-1]
    many = [(f"s{i}", "".join(clusters)) for i in range(4_000)]
    counts = dict.fromkeys(places, 0)
    for row in completion_rows(many, code, 42, COMP):
        assert row["output"].startswith(row["input"])
        counts[len(row["input"])] += 1
    assert set(counts) == set(places) and sum(counts.values()) == 4_000
    assert chi_square(list(counts.values())) < 24.3  # 7 degrees of freedom or fewer, p = 0.001


def test_a_cut_leaves_emoji_and_subscribed_khmer_letters_whole():
    def cuts(sentence, code):
        rows = completion_rows([(f"s{i}", sentence) for i in range(300)], code, 42, COMP)
        return {row["input"] for row in rows}

    assert cuts("ស្រី", "khm") == set()
    assert cuts("ខ្មែរ", "khm") == {"ខ្មែ"}
    assert cuts("👩‍👩‍👧🇯🇵え", "jpn") == {"👩‍👩‍👧", "👩‍👩‍👧🇯🇵"}
    assert cuts("a  b\u00a0c d", "spa") == {"a", "a  b\u00a0c"}
    assert cuts("あ い", "jpn") == {"あ"}


def test_what_cannot_be_cut_is_left_out():
    assert completion_rows([("a", ""), ("b", "Ya."), ("c", "   "), ("d", " Ya. ")], "ind", 42, COMP) == []
    assert completion_rows([("a", "雨")], "jpn", 42, COMP) == []


def test_a_cut_depends_on_seed_and_id_alone():
    many = [(f"s{i}", "a b c d e f g h") for i in range(100)]
    rows = completion_rows(many, "spa", 42, COMP)
    shuffled = random.Random(1).sample(many, 60)
    assert all(row in rows for row in completion_rows(shuffled, "spa", 42, COMP))
    assert completion_rows(many, "spa", 43, COMP) != rows
