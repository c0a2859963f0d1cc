import base64
import gzip
from pathlib import Path

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.transfer.dictionaries import freedict, inverted


def number(value: int) -> str:
    """dictd's base64 number, by way of the base64 of bytes: 6 bits a digit, the highest first."""
    return base64.b64encode(value.to_bytes(6, "big")).decode().lstrip("A") or "A"


def write_dictd(folder: Path, entries: list[tuple[str, str]], padding: int = 0) -> None:
    data, index = b"\n" * padding, []
    for head, body in entries:
        raw = body.encode()
        index.append(f"{head}\t{number(len(data))}\t{number(len(raw))}\n")
        data += raw
    (folder / "freedict-eng-spa.index").write_text("".join(index), encoding="utf-8")
    (folder / "freedict-eng-spa.dict.dz").write_bytes(gzip.compress(data))


ENTRIES = [
    ("00databaseinfo", "about\nthis is, no word\n"),
    ("house", "house /haʊs/ <n>\n1. casa, hogar (familiar)\n2. vivienda; casa\n"),
    ("house", "house /haʊsəvwɜːʃɪp/\niglesia\n"),
    ("ice cream", "ice cream\nhelado\n"),
    ("Spain", "Spain\nEspaña\n"),
    ("home", "home\nhogar [m], un sitio para vivir bien, -ito\n"),
    ("void", "void\n(no gloss)\n"),
    ("year", "year\naño\n"),
]
FORWARD = {
    "house": ["casa", "hogar", "vivienda"],
    "spain": ["España"],
    "home": ["hogar"],
    "year": ["año"],
}


@pytest.mark.parametrize("padding", [0, 63, 64, 5_000, 300_000])
def test_dictd_files_by_hand(tmp_path, padding):
    write_dictd(tmp_path, ENTRIES, padding)
    forward = freedict("eng", "spa", "r", tmp_path)
    backward = inverted(forward)
    assert forward == FORWARD
    assert backward == {
        "casa": ["house"],
        "hogar": ["house", "home"],
        "vivienda": ["house"],
        "españa": ["spain"],
        "año": ["year"],
    }


def test_offsets_agree_with_the_dictd_manual():
    # "A" is 0, "/" 63, "BA" 64.
    assert [number(n) for n in (0, 1, 63, 64, 64**2)] == ["A", "B", "/", "BA", "BAA"]


def test_inverted_twice_keeps_every_pair():
    pairs = {(head, gloss.lower()) for head, glosses in FORWARD.items() for gloss in glosses}
    back = inverted(inverted(FORWARD))
    assert {(head, gloss) for head, glosses in back.items() for gloss in glosses} == pairs


@pytest.mark.parametrize("missing", ["index", "dict.dz"])
def test_a_missing_dictionary_names_its_package(tmp_path, missing):
    write_dictd(tmp_path, ENTRIES)
    (tmp_path / f"freedict-eng-spa.{missing}").unlink()
    with pytest.raises(UserError) as err:
        freedict("eng", "spa", "r.yaml:7: code_switch.dictionary", tmp_path)
    message = str(err.value)
    assert message.startswith("r.yaml:7: code_switch.dictionary: ") and "\n" not in message
    assert "apt-get install dict-freedict-eng-spa" in message and "code_switch.probability: 0" in message


def test_norwegian_is_looked_for_under_freedicts_code(tmp_path):
    with pytest.raises(UserError, match="dict-freedict-eng-nor`"):
        freedict("eng", "nob", "r", tmp_path)


def test_a_broken_index_line_is_named(tmp_path):
    write_dictd(tmp_path, ENTRIES)
    index = tmp_path / "freedict-eng-spa.index"
    index.write_text(index.read_text(encoding="utf-8") + "broken\n", encoding="utf-8")
    with pytest.raises(UserError, match="index:9: "):
        freedict("eng", "spa", "r", tmp_path)


COMMON = {
    "house": "casa",
    "water": "agua",
    "the": "el",
    "good": "bueno",
    "book": "libro",
    "red": "rojo",
    "day": "día",
    "time": "tiempo",
    "three": "tres",
}


def test_common_words_of_the_installed_dictionary():
    if not Path("/usr/share/dictd/freedict-eng-spa.index").is_file():
        pytest.skip("needs `apt-get install dict-freedict-eng-spa`")
    forward = freedict("eng", "spa", "r")
    backward = inverted(forward)
    assert len(forward) > 3_000 and "house" in backward["casa"]
    assert {word: COMMON[word] in forward[word] for word in COMMON} == dict.fromkeys(COMMON, True)
