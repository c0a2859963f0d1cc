"""Catalogues of packages written here, as .po and as .mo; the oracle is what was written."""

import pytest

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.transfer.gettext_catalogues import is_gettext, is_sentence, read_catalogues

polib = pytest.importorskip("polib", reason="needs `pip install polib`")


def catalogue(path, messages, compiled=False, **flags):
    po = polib.POFile()
    po.metadata = {"Content-Type": "text/plain; charset=UTF-8"}
    for message, text in messages.items():
        po.append(polib.POEntry(msgid=message, msgstr=text, flags=flags.get(message, [])))
    path.parent.mkdir(parents=True, exist_ok=True)
    po.save_as_mofile(str(path)) if compiled else po.save(str(path))


@pytest.fixture
def packages(tmp_path, monkeypatch):
    for name in ("garden_shop", "boats"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    shop, boats = tmp_path / "garden_shop/locale", tmp_path / "boats/translations"
    catalogue(
        shop / "es/LC_MESSAGES/django.po",
        {"Save": "Guardar", "The order was sent.": "El pedido fue enviado.", "Draft": "Borrador"},
        Draft=["fuzzy"],
    )
    catalogue(shop / "es/LC_MESSAGES/django.mo", {"Save": "old"}, compiled=True)
    catalogue(shop / "fr/LC_MESSAGES/django.po", {"The order was sent.": "La commande a été envoyée.", "Save": ""})
    catalogue(shop / "pt_BR/LC_MESSAGES/django.mo", {"Save": "Salvar"}, compiled=True)
    catalogue(shop / "zh_CN/LC_MESSAGES/django.po", {"Save": "保存 (简)"})
    catalogue(shop / "zh_TW/LC_MESSAGES/django.po", {"Save": "保存 (繁)"})
    catalogue(shop / "sr@latin/LC_MESSAGES/django.po", {"Save": "Sačuvaj"})
    catalogue(shop / "sr/LC_MESSAGES/django.po", {"Save": "Сачувај"})
    catalogue(shop / "en_GB/LC_MESSAGES/django.po", {"Save": "Save, please"})
    catalogue(boats / "es/LC_MESSAGES/messages.mo", {"Save": "Amarrar", "Row on.": "Rema."}, compiled=True)
    catalogue(boats / "en/LC_MESSAGES/messages.po", {"Save": "", "Row on.": "Row on!"})
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("name", "source", "target", "pairs"),
    [
        ("garden-shop", "eng", "spa", {("Save", "Guardar"), ("The order was sent.", "El pedido fue enviado.")}),
        ("garden_shop", "spa", "eng", {("Guardar", "Save"), ("El pedido fue enviado.", "The order was sent.")}),
        ("garden_shop", "fra", "spa", {("La commande a été envoyée.", "El pedido fue enviado.")}),
        ("garden_shop", "eng", "por", {("Save", "Salvar")}),
        ("garden_shop", "eng", "zho", {("Save", "保存 (简)")}),
        ("garden_shop", "eng", "zho_Hant", {("Save", "保存 (繁)")}),
        ("garden_shop", "eng", "srp", {("Save", "Сачувај")}),
        ("boats", "eng", "spa", {("Save", "Amarrar"), ("Row on!", "Rema.")}),
        (
            "garden_shop, boats",
            "eng",
            "spa",
            {("Save", "Guardar"), ("The order was sent.", "El pedido fue enviado."), ("Row on!", "Rema.")},
        ),
    ],
)
def test_what_both_catalogues_of_a_package_have(packages, name, source, target, pairs):
    assert set(read_catalogues(f"gettext:{name}", source, target).values()) == pairs


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("gettext:boats", "deu", "boats has no message catalogue for 'de'; name other packages"),
        ("gettext:no-such-package", "spa", "no-such-package is not installed; run `pip install no-such-package polib`"),
        ("gettext:../x", "spa", "../x is not installed; run"),
        ("gettext:", "spa", "gettext: names no package; write gettext, or gettext:django,wagtail"),
    ],
)
def test_what_is_not_there_is_one_line(packages, name, target, message):
    with pytest.raises(UserError) as err, under("source"):
        read_catalogues(name, "eng", target)
    assert str(err.value).startswith(f"source: {message}") and "\n" not in str(err.value)


def test_a_broken_catalogue_is_named(packages, tmp_path):
    path = tmp_path / "boats/translations/es/LC_MESSAGES/messages.mo"
    path.write_bytes(b"not a catalogue")
    with pytest.raises(UserError, match="messages.mo: not a gettext catalogue"):
        read_catalogues("gettext:boats", "eng", "spa")


def test_sentences_come_before_labels(packages, tmp_path):
    from sdrrl_factory.transfer.parallel import load
    from sdrrl_factory.transfer.recipe import Filters, Parallel

    sentences = {f"The boat {name} is here.": f"El barco {name} está aquí." for name in ("Ana", "Eva", "Ida")}
    labels = {f"Harbour of {name} town": f"Puerto de la villa {name}" for name in ("Ana", "Eva", "Ida", "Uma", "Zoe")}
    catalogue(tmp_path / "boats/translations/es/LC_MESSAGES/z.po", labels | sentences)
    catalogue(tmp_path / "boats/translations/en/LC_MESSAGES/z.po", dict.fromkeys(labels | sentences, ""))
    drawn = [load(Parallel(source="gettext:boats", size=size), "eng", "spa", 42, Filters(), None) for size in (2, 5)]
    few, more = ([tuple(row[1:]) for row in d.rows] for d in drawn)
    assert set(few) < set(sentences.items()) and few == more[:2]
    assert set(more[:3]) == set(sentences.items()) and set(more[3:]) < set(labels.items())


def test_which_sources_are_catalogues_and_which_messages_sentences():
    assert is_gettext("gettext") and is_gettext("gettext:boats") and not is_gettext("gettext.tsv")
    assert is_sentence("Row on.") and is_sentence('He said "no!"') and not is_sentence("Save as")
