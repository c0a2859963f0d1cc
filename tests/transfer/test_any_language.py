"""Languages beyond the paper's, from prepare to eval: a tiny checkpoint, a translator that knows these sentences."""

import json
import socket

import pytest

from sdrrl_eval.measure import runner
from sdrrl_eval.measure.recipe import EvalConfig
from sdrrl_factory.errors import UserError
from sdrrl_factory.language_id import code_of
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.transfer import inputs, run, translate
from sdrrl_factory.transfer.recipe import (
    CodeSwitch,
    Generator,
    LanguageId,
    Parallel,
    PrepareConfig,
    Quality,
    Translator,
)
from tests.conftest import write_rows
from tests.eval.conftest import task_of

# Questions and answers in turn, written for this test.
TEXTS = {
    "eng": [
        "Why is the sky blue over our heads?", "Because the air scatters blue light more than red light.",
        "Which animal gives us milk every day?", "The cow gives us milk every morning.",
        "Where do the children play?", "The children play in the garden behind the house.",
    ],
    "deu": [
        "Warum ist der Himmel über uns blau?", "Weil die Luft blaues Licht stärker streut als rotes Licht.",
        "Welches Tier gibt uns jeden Tag Milch?", "Die Kuh gibt uns jeden Morgen Milch.",
        "Wo spielen die Kinder?", "Die Kinder spielen im Garten hinter dem Haus.",
    ],
    "zho": [
        "为什么我们头上的天空是蓝色的？", "因为空气散射的蓝光比红光多。",
        "哪种动物每天给我们牛奶？", "奶牛每天早上给我们牛奶。",
        "孩子们在哪里玩？", "孩子们在房子后面的花园里玩。",
    ],
    "arb": [
        "لماذا السماء زرقاء فوق رؤوسنا؟", "لأن الهواء يشتت الضوء الأزرق أكثر من الضوء الأحمر.",
        "أي حيوان يعطينا الحليب كل يوم؟", "تعطينا البقرة الحليب كل صباح.",
        "أين يلعب الأطفال؟", "يلعب الأطفال في الحديقة خلف المنزل.",
    ],
    "hin": [
        "हमारे ऊपर आसमान नीला क्यों है?", "क्योंकि हवा लाल प्रकाश से ज़्यादा नीला प्रकाश बिखेरती है।",
        "कौन सा जानवर हमें हर दिन दूध देता है?", "गाय हमें हर सुबह दूध देती है।",
        "बच्चे कहाँ खेलते हैं?", "बच्चे घर के पीछे बगीचे में खेलते हैं।",
    ],
    "swh": [
        "Kwa nini anga ni la buluu juu yetu?", "Kwa sababu hewa hutawanya mwanga wa buluu kuliko mwanga mwekundu.",
        "Mnyama gani hutupa maziwa kila siku?", "Ng'ombe hutupa maziwa kila asubuhi.",
        "Watoto wanacheza wapi?", "Watoto wanacheza katika bustani nyuma ya nyumba.",
    ],
}  # fmt: skip
MILK = {"deu": "Milch", "zho": "牛奶", "arb": "الحليب", "hin": "दूध", "swh": "maziwa"}
WISHES = {"deu": "Englisch", "zho": "英语", "arb": "الإنجليزية", "hin": "अंग्रेज़ी", "swh": "Kiingereza"}


class ByTable:
    """A translator that knows the sentences above; what else it is asked comes back as it is."""

    name = "table"

    def __init__(self, keys, hops, memory):
        pass

    def signature(self, source, target):
        return self.name

    def translate(self, segments, source, target):
        table = dict(zip(TEXTS[source], TEXTS[target], strict=True))
        return [table.get(segment.strip(), segment) for segment in segments]


# Somebody has to be there before any work; what `make` gives in its place asks nobody.
LISTENING = socket.create_server(("127.0.0.1", 0))
ADDRESS = f"http://127.0.0.1:{LISTENING.getsockname()[1]}/v1"


def recipe(tmp_path, tiny, targets, **keys) -> PrepareConfig:
    english = TEXTS["eng"]
    rows = [{"id": f"r{i}", "instruction": english[i], "output": english[i + 1]} for i in range(0, 6, 2)]
    untranslated = "This sentence is not in the table of the translator, so it stays what it is."
    write_rows(tmp_path / "in.jsonl", [*rows, {"id": "r6", "instruction": untranslated, "output": english[1]}])
    for code in targets:
        iso1 = LANGUAGES[code].iso1
        pairs = zip(english, TEXTS.get(code, TEXTS["swh"]), strict=True)
        lines = "".join(f"{left}\t{right}\n" for left, right in pairs)
        (tmp_path / f"pairs.en-{iso1}.tsv").write_text(lines, encoding="utf-8")
        (tmp_path / f"words.en-{iso1}.tsv").write_text(f"milk\t{MILK.get(code, 'maziwa')}\n", encoding="utf-8")
    defaults = {
        "generator": Generator(model=str(tiny), max_new_tokens=4),
        "translator": Translator(backend="chat", model="m", base_url=ADDRESS),
        "quality": Quality(backend="none"),
        "code_switch": CodeSwitch(dictionary=str(tmp_path / "words.{source}-{target}.tsv"), probability=1.0),
        "parallel": Parallel(source=str(tmp_path / "pairs.{source}-{target}.tsv")),
        "dataset_dir": str(tmp_path / "data"),
        "work_dir": str(tmp_path / "work"),
    }
    return PrepareConfig(instructions=str(tmp_path / "in.jsonl"), target_lang=targets, **defaults | keys)


def test_five_languages_from_prepare_to_eval(tmp_path, tiny, monkeypatch, capsys):
    monkeypatch.setattr(translate, "make", ByTable)
    run.prepare(recipe(tmp_path, tiny, list(MILK)))
    assert "none are worded" not in capsys.readouterr().out
    info = json.loads((tmp_path / "data/dataset_info.json").read_text(encoding="utf-8"))
    for code in MILK:
        sets = {}
        for name in ("ll", "tl", "lt", "tt", "mt", "comp"):
            path = tmp_path / "data" / info[f"sdrrl_{code}_{name}"]["file_name"]
            sets[name] = [json.loads(line) for line in path.open(encoding="utf-8")]
        # Three records are translated; the English "translation" of the fourth is rejected.
        assert {name: len(rows) for name, rows in sets.items() if name in ("tl", "lt", "tt")} == dict(tl=3, lt=4, tt=3)
        assert len(sets["mt"]) == 12 and sets["comp"]
        # Equation 5: the word of the other language stands in the question, whole.
        (asked,) = [row["instruction"] for row in sets["ll"] if row["id"] == "r2"]
        assert asked == f"Which animal gives us {MILK[code]} every day?"
        (asked,) = [row["instruction"] for row in sets["tt"] if row["id"] == "r2"]
        # In the case of the word, as German writes its nouns.
        assert asked == TEXTS[code][2].replace(MILK[code], "Milk" if code == "deu" else "milk")
        # The wish for the answer's language, in the question's.
        assert all(WISHES[code] in row["instruction"] for row in sets["tl"])
        assert all(WISHES[code] not in row["instruction"] for row in sets["tt"])
        # A cut sentence is the beginning of the whole one, in the language's script.
        for row in sets["comp"]:
            assert row["output"].startswith(row["input"]) and row["output"] in TEXTS[code]

    questions = [
        write_rows(
            tmp_path / f"q.{code}.jsonl",
            [{"instruction": TEXTS[code][i], "output": TEXTS[code][i + 1]} for i in (0, 2)],
        )
        for code in MILK
    ]
    assert len(questions) == 5
    path = str(tmp_path / "q.{lang}.jsonl")
    tasks = [task_of(task=task, path=path, langs=list(MILK)) for task in ("instructions", "off_target")]
    keys = dict(model=str(tiny), tasks=tasks, output_dir=str(tmp_path / "out"), max_new_tokens=4, batch_size=4)
    scores = runner.run(EvalConfig(**keys), "some.yaml")["scores"]
    measured = {score["target_lang"] for score in scores if score["task"] == "off_target"}
    assert measured == set(MILK) and all(score["value"] is not None for score in scores)
    assert all(code_of(LANGUAGES[code].fasttext) == code for code in MILK)


def test_a_language_without_wishes_or_identifier_is_one_line(tmp_path, tiny, monkeypatch, capsys):
    monkeypatch.setattr(translate, "make", ByTable)
    config = recipe(tmp_path, tiny, ["ace"])
    with pytest.raises(UserError, match=r"^language_id: lid.176 does not know Acehnese \(ace\).*; set another") as err:
        run.prepare(config)
    assert "\n" not in str(err.value)
    config = config.model_copy(update={"language_id": LanguageId(backend="none")})
    assert inputs.remarks(config) == ["wishes    none are worded for eng-ace: as with answer_language: none"]
    assert inputs.remarks(config.model_copy(update={"answer_language": "none"})) == []
    assert inputs.remarks(config.model_copy(update={"target_lang": ["spa", "swh"]})) == []


def test_the_rate_of_a_language_that_the_identifier_does_not_know_is_refused(tmp_path):
    task = task_of(task="off_target", path=str(tmp_path / "q.{lang}.jsonl"), langs=["deu", "hau"])
    with pytest.raises(
        UserError, match=r"^identifier: lid.176 does not know Hausa \(hau\).*; take the other identifier"
    ):
        task.check()
