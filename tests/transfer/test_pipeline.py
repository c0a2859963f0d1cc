import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from sdrrl_factory.errors import UserError
from sdrrl_factory.files import dump_line
from sdrrl_factory.memory import Memory, beside
from sdrrl_factory.models.lm import Generation
from sdrrl_factory.rows import read_rows
from sdrrl_factory.transfer import dictionaries, generate, inputs, parallel, plan, run, translate
from sdrrl_factory.transfer.draw import rng
from sdrrl_factory.transfer.recipe import (
    CodeSwitch,
    Filters,
    Generator,
    LanguageId,
    Parallel,
    PrepareConfig,
    Quality,
    Sampling,
    Translator,
)

SPANISH = {"river": "río", "small": "pequeño", "names": "nombra", "question": "pregunta"}
ENGLISH = {v: k for k, v in SPANISH.items()}


class WordByWord:
    name = "word by word"
    segments = 0

    def __init__(self, keys, hops, memory):
        self.hops = hops

    def signature(self, source, target):
        return self.name

    def translate(self, segments, source, target):
        assert (source, target) in self.hops
        WordByWord.segments += len(segments)
        table = ENGLISH if target == "eng" else SPANISH
        return ["" if "untold" in s else re.sub(r"[^\W\d_]+", lambda m: table.get(m[0], m[0]), s) for s in segments]


class Answers:
    """Answers with the question turned round; every fifth is cut off."""

    asked: list[str] = []
    finish = "stop"

    def __init__(self, config, memory):
        self.memory = memory

    def generate(self, users, *settings, progress, **more):
        numbers = [re.search(r"\d+", user)[0] for user in users]
        # As the real one: what the memory knows is not asked again.
        there = self.memory.get("asked", numbers)
        Answers.asked += [number for number in numbers if number not in there]
        self.memory.put("asked", {number: True for number in numbers})
        progress(len(users))
        return [
            Generation(f"{user[::-1]} river.", "length" if int(number) % 5 == 0 else Answers.finish)
            for user, number in zip(users, numbers, strict=True)
        ]


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(translate, "make", WordByWord)
    monkeypatch.setattr(generate, "make", Answers)
    monkeypatch.setattr(inputs, "check_access", lambda *a: "on the hub")
    words = [{k: [v] for k, v in table.items()} for table in (SPANISH, ENGLISH)]
    monkeypatch.setattr(dictionaries, "load", lambda *a: dictionaries.Loaded(*words, Counter({"odd lines": 2})))
    pairs = [("p0", "A small river.", "Un río pequeño.")]
    monkeypatch.setattr(parallel, "load", lambda *a: parallel.Drawn(pairs, Counter({"not in Spanish": 16})))
    Answers.asked, WordByWord.segments = [], 0
    source = tmp_path / "in.jsonl"
    rows = [
        {
            "id": i,
            "instruction": f"question {i} names a small river" + (" untold" if i == 3 else ""),
            "output": f"river {i}" + (" untold" if i == 4 else ""),
        }
        for i in range(1, 41)
    ]
    source.write_text("".join(map(dump_line, rows)), encoding="utf-8")

    def make(folder: str, **keys) -> PrepareConfig:
        defaults = {
            "generator": Generator(model="org/model", longest_answer=1),
            "quality": Quality(threshold=0.4),
            "language_id": LanguageId(backend="none"),
            # Word by word, most words stay as they are.
            "filters": Filters(max_source_words=None),
            "dataset_dir": str(tmp_path / folder / "data"),
            "work_dir": str(tmp_path / folder / "work"),
            "shard_size": 7,
            "target_lang": "spa",
        }
        return PrepareConfig(instructions=str(source), **(defaults | keys))

    return make


def written(config) -> dict[str, bytes]:
    folder = Path(config.dataset_dir)
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.suffix in (".json", ".jsonl", ".md")
    }


def prepare(config) -> dict[str, bytes]:
    run.prepare(config)
    return written(config)


def test_six_subsets_come_out(recipe, tmp_path):
    config = recipe("a")
    names = run.prepare(config)
    assert names == [f"sdrrl_spa_{s}" for s in ("ll", "tl", "lt", "tt", "mt", "comp")]
    rows = {
        s: [r.values for r in read_rows(f"{config.dataset_dir}/sdrrl_spa/{s}.jsonl")]
        for s in ("ll", "tl", "lt", "tt", "mt")
    }
    ids = {s: {r["id"] for r in rows[s]} for s in rows}
    assert len(ids["ll"]) == 40 and "3" not in ids["tl"] and "3" not in ids["tt"]
    assert ids["tt"] == ids["tl"] & ids["lt"] and len(rows["mt"]) == 2
    for r in rows["ll"]:
        assert r["answer_origin"] == ("G" if r["output"].endswith(" river.") else "D")
        assert not (r["answer_origin"] == "G" and int(r["id"]) % 5 == 0)


def test_the_share_of_own_answers_is_the_one_drawn_and_said(recipe, capsys):
    config = recipe("a")
    run.prepare(config)
    rows = [r.values for r in read_rows(f"{config.dataset_dir}/sdrrl_spa/ll.jsonl")]
    ids = [str(i) for i in range(1, 41)]
    drawn = [i for i in ids if rng(config.seed, i, "sample").random() >= 0.5]
    flawed = [i for i in drawn if int(i) % 5 == 0]
    own = [r["id"] for r in rows if r["answer_origin"] == "G"]
    # As many as were drawn: others stand in for the flawed ones.
    assert flawed and len(own) == len(drawn) and set(own) > set(drawn) - set(flawed)
    assert len(Answers.asked) == len(set(Answers.asked)) >= len(drawn) + len(flawed)
    out = capsys.readouterr().out
    assert f"({len(own) / 40:.0%} own; equation 4 draws 50%)" in out and "warning" not in out
    assert out.count("further records are asked in their place") >= 1


def test_only_flawed_answers_leave_every_record_its_ground_truth(recipe, capsys, monkeypatch):
    monkeypatch.setattr(Answers, "finish", "length")
    config = recipe("a")
    run.prepare(config)
    rows = [r.values for r in read_rows(f"{config.dataset_dir}/sdrrl_spa/ll.jsonl")]
    assert {r["answer_origin"] for r in rows} == {"D"} and len(Answers.asked) == 40
    assert "warning: 0% own answers, where equation 4 draws 50%: 40 cut off of 40 asked: " in (capsys.readouterr().out)


@pytest.mark.parametrize("size", [1, 40])
def test_shard_size_does_not_change_the_files(recipe, size):
    assert prepare(recipe("a")) == prepare(recipe("b", shard_size=size))


def test_a_raised_threshold_asks_no_model_and_no_translator_again(recipe):
    low = prepare(recipe("a", quality=Quality(threshold=0.0)))
    asked, segments = len(Answers.asked), WordByWord.segments
    assert asked and segments
    high = prepare(recipe("a", quality=Quality(threshold=1.0)))
    assert (len(Answers.asked), WordByWord.segments) == (asked, segments)
    assert len(high["sdrrl_spa/tt.jsonl"]) <= len(low["sdrrl_spa/tt.jsonl"])
    assert prepare(recipe("fresh", quality=Quality(threshold=1.0))) == high


def test_a_killed_run_goes_on_and_ends_the_same(recipe, monkeypatch):
    whole = prepare(recipe("whole"))
    Answers.asked = []
    translate = WordByWord.translate

    def killed(self, segments, source, target):
        if any("question 20 " in s for s in segments):
            raise KeyboardInterrupt
        return translate(self, segments, source, target)

    monkeypatch.setattr(WordByWord, "translate", killed)
    config = recipe("a")
    with pytest.raises(KeyboardInterrupt):
        run.prepare(config)
    assert written(config) == {}
    monkeypatch.setattr(WordByWord, "translate", translate)
    asked = len(Answers.asked)
    assert prepare(config) == whole
    assert len(Answers.asked) == asked


def test_code_switching_leaves_answers_alone(recipe):
    configs = [recipe(str(p), code_switch=CodeSwitch(probability=p), parallel=Parallel(size=0)) for p in (0.0, 1.0)]
    plain, switched = (
        {s: [r.values for r in read_rows(f"{c.dataset_dir}/sdrrl_spa/{s}.jsonl")] for s in ("ll", "lt")}
        for c in configs
        if prepare(c)
    )
    for subset in ("ll", "lt"):
        assert [r["output"] for r in plain[subset]] == [r["output"] for r in switched[subset]]
        assert all("río" not in r["instruction"] for r in plain[subset])
        assert all("río" in r["instruction"] and "river" not in r["instruction"] for r in switched[subset])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"target_lang": "eng"}, "target_lang: eng is the source language; choose another"),
        ({"target_lang": "es"}, "target_lang: unknown language 'es'; did you mean spa?"),
        ({"source_lang": "english"}, "source_lang: unknown language 'english'; did you mean eng?"),
        ({"target_lang": ["spa", "spa"]}, "target_lang.1: spa stands twice; remove one"),
        ({"target_lang": ["spa", "esp"]}, "target_lang.1: unknown language 'esp'"),
        ({"systems": ["sft", "sft"]}, "systems: a system stands twice"),
        ({"translator": Translator(via=["xx"])}, "translator.via.0: unknown language 'xx'"),
        ({"name": "a/b"}, "name: 'a/b' cannot be a folder's name"),
        ({"name": ".."}, "name: '..' cannot be a folder's name"),
        ({"name": "."}, "name: '.' cannot be a folder's name"),
        ({"name": "ñ" * 120}, "name: 'ññññ"),
        ({"dataset_dir": "/dev/null/x"}, "dataset_dir: /dev/null/x cannot be written to"),
        ({"work_dir": "/proc/x"}, "work_dir: /proc/x cannot be written to"),
    ],
)
def test_a_mistake_is_told_before_any_work(recipe, keys, said):
    config = recipe("a").model_copy(update=keys)
    with pytest.raises(UserError) as err:
        run.prepare(config)
    assert str(err.value).startswith(said)
    assert Answers.asked == [] and written(config) == {}


def test_a_trial_on_fewer_records_is_told_before_the_model_is_asked(recipe, capsys):
    config = recipe("a", max_samples=3)
    before = prepare(recipe("a"))
    asked = len(Answers.asked)
    for step in (run.prepare, plan.dry_run):
        with pytest.raises(UserError, match=r"^overwrite: sdrrl_spa is registered with more rows \(ll 40 -> at most 3"):
            step(config)
    assert written(config) == before and len(Answers.asked) == asked
    after = prepare(recipe("a", max_samples=3, overwrite=True))
    assert after["sdrrl_spa/ll.jsonl"].count(b"\n") == 3
    assert "replaced  sdrrl_spa: ll 40 -> 3 rows" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["data/sdrrl_spa/README.md", "data/sdrrl_spa/tl.jsonl", "work/sdrrl_spa/report.html"])
def test_files_of_others_stand_in_the_way_before_any_work(recipe, tmp_path, file):
    path = tmp_path / "a" / file
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(UserError, match=f"{path}: is there already"):
        run.prepare(recipe("a"))
    assert path.read_text() == "mine" and Answers.asked == []


def test_two_runs_at_once_are_refused(recipe):
    from filelock import FileLock

    config = recipe("a")
    prepare(config)
    with FileLock(f"{config.work_dir}/sdrrl_spa/.lock"), pytest.raises(UserError, match="another `sdrrl prepare`"):
        run.prepare(config)


def test_baselines_come_from_the_same_records_and_the_same_memory(recipe):
    prepare(recipe("a"))
    segments, asked = WordByWord.segments, len(Answers.asked)
    config = recipe("a", systems=["sdrrl", "sft", "tsft", "cit", "xcot"])
    files = prepare(config)
    again = WordByWord.segments - segments
    assert len(Answers.asked) == asked
    # Only the ground truths that gave way to the model's own answers are new to the translator, there and back.
    assert 0 < again <= 2 * asked
    six = {k: v for k, v in prepare(recipe("fresh")).items() if k.endswith(".jsonl")}
    assert {k: files[k] for k in six} == six
    info = json.loads(files["dataset_info.json"])
    assert [n for n, e in info.items() if "sdrrl" not in e] == [
        f"sdrrl_spa_{s}" for s in ("sft", "tsft", "cit", "xcot")
    ]
    rows = {s: files[f"sdrrl_spa/{s}.jsonl"].decode().splitlines() for s in ("sft", "tsft", "cit", "xcot")}
    assert len(rows["sft"]) == 40 and len(rows["xcot"]) == 40 + len(rows["tsft"])
    assert all(json.loads(line)["output"].startswith("river") for line in rows["sft"])


def test_a_baseline_alone_asks_no_model(recipe):
    prepare(recipe("a", systems=["sft"]))
    assert Answers.asked == [] and WordByWord.segments == 0
    prepare(recipe("b", systems=["cit"]))
    assert Answers.asked == [] and WordByWord.segments > 0


def test_several_targets_share_the_generation(recipe):
    one = {code: prepare(recipe(code, target_lang=code)) for code in ("spa", "por")}
    Answers.asked = []
    both = recipe("both", target_lang=["spa", "por"])
    names = run.prepare(both)
    assert len(names) == 12 and len(set(Answers.asked)) == len(Answers.asked)
    files = written(both)
    for code in ("spa", "por"):
        mine = {k: v for k, v in one[code].items() if k.endswith(".jsonl")}
        assert mine and {k: files[k] for k in mine} == mine
    assert list(json.loads(files["dataset_info.json"])) == names


def test_shuffled_rows_give_the_same_rows(recipe, tmp_path):
    lines = (tmp_path / "in.jsonl").read_text().splitlines()
    straight = prepare(recipe("a"))
    random.Random(3).shuffle(lines)
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    shuffled = prepare(recipe("b", shard_size=11))
    assert straight.keys() == shuffled.keys()
    for name in (n for n in straight if n.endswith("jsonl")):
        assert sorted(straight[name].splitlines()) == sorted(shuffled[name].splitlines()), name


def test_a_dry_run_counts_what_the_run_then_does(recipe, capsys):
    config = recipe("a", sampling=Sampling(keep_ground_truth=1.0))
    counts = plan.dry_run(config)
    assert written(config) == {} and WordByWord.segments == 0 and not list(Path(config.work_dir).glob("*"))
    prepare(config)
    assert counts["records"] == 40
    memory = Memory(beside(config.work_dir))
    forward = memory._db.execute('SELECT count(*) FROM memory WHERE kind LIKE \'%"target": "spa"%\'').fetchone()[0]
    memory.close()
    assert counts["spa calls"] == counts["distinct segments"] == forward + 2  # two could not be translated
    assert plan.dry_run(config)["spa calls"] == 2


def test_the_report_and_the_card_are_there(recipe):
    config = recipe("a")
    files = prepare(config)
    page = (Path(config.work_dir) / "sdrrl_spa/report.html").read_text(encoding="utf-8")
    assert "cut off" in page and "sdrrl_spa_tt" in page
    assert "sdrrl_spa_tt" in files["sdrrl_spa/README.md"].decode()


def test_what_was_left_out_of_p_is_counted_everywhere_and_an_empty_set_is_said(recipe, capsys):
    config = recipe("a", translator=Translator(backend="none"), systems=["sdrrl"])
    run.prepare(config)
    out = capsys.readouterr().out
    folder = Path(config.work_dir)
    pages = [out, (Path(config.dataset_dir) / "sdrrl_spa/README.md").read_text(encoding="utf-8")]
    pages.append((folder / "sdrrl_spa/report.html").read_text(encoding="utf-8"))
    assert all("1 pairs; left out: 16 not in Spanish" in page and "left out: 2 odd lines" in page for page in pages)
    assert re.search(r"^TL has no row: ", out, re.MULTILINE) and "LL has no row" not in out


def test_instructions_in_another_language_are_said(recipe, capsys, tmp_path):
    rows = [
        {"id": i, "instruction": f"¿Dónde está el río número {i} de la lista?", "output": "Aquí."} for i in range(9)
    ]
    (tmp_path / "spanish.jsonl").write_text("".join(map(dump_line, rows)), encoding="utf-8")
    config = recipe("a", language_id=LanguageId(), translator=Translator(backend="none"))
    config = config.model_copy(update={"instructions": str(tmp_path / "spanish.jsonl")})
    plan.dry_run(config)
    run.prepare(config)
    line = "9 of the first 9 instructions are not in English, most of them in Spanish: see source_lang"
    assert capsys.readouterr().out.count(line) >= 2


def test_a_pivot_and_its_round_trip_come_with_a_warning(recipe, capsys):
    run.prepare(recipe("a", translator=Translator(backend="apertium", via=["fra"])))
    assert "quality estimate: chrF of a round trip through French: a word left in French" in capsys.readouterr().out


def test_without_a_translator_there_is_what_needs_none(recipe):
    config = recipe("a", translator=Translator(backend="none"), systems=["sdrrl", "sft", "cit"])
    names = run.prepare(config)
    assert [n.removeprefix("sdrrl_spa_") for n in names] == ["ll", "mt", "comp", "sft"]
    assert WordByWord.segments == 0
    rows = [row.values for row in read_rows(f"{config.dataset_dir}/sdrrl_spa/ll.jsonl")]
    assert len(rows) == 40 and any("río" in row["instruction"] for row in rows)


def test_answers_are_the_same_bytes_in_ll_and_tl_and_in_lt_and_tt(recipe):
    config = recipe("a")
    files = prepare(config)
    answers = {
        s: {row["id"]: row["output"] for row in map(json.loads, files[f"sdrrl_spa/{s}.jsonl"].splitlines())}
        for s in ("ll", "tl", "lt", "tt")
    }
    for one, other in (("ll", "tl"), ("lt", "tt")):
        shared = answers[one].keys() & answers[other].keys()
        assert len(shared) > 30 and all(answers[one][i].encode() == answers[other][i].encode() for i in shared)
