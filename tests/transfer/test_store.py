from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from sdrrl_factory.transfer import store as module
from sdrrl_factory.transfer import translate
from sdrrl_factory.transfer.recipe import Generator, Translator
from sdrrl_factory.transfer.stage import Stage, running
from sdrrl_factory.transfer.store import Store, columns, read_rows, rows_of
from sdrrl_factory.transfer.translate import Translate

ROWS = [{"id": f"r{i}", "n": i, "text": f"línea\u2028{i}"} for i in range(10)]


@dataclass(frozen=True)
class Add(Stage):
    """`calls` notes the shards it is given."""

    calls: list = running()
    by: int = 1

    def __call__(self, batch, tool=None):
        self.calls.append(list(batch["id"]))
        return {**batch, "n": [n + self.by for n in batch["n"]]}


@dataclass(frozen=True)
class Low(Stage):
    calls: list = running()
    tau: int = 20

    def __call__(self, batch, tool=None):
        self.calls.append(list(batch["id"]))
        return {**batch, "ok": [n < self.tau for n in batch["n"]]}


@dataclass(frozen=True)
class End(Stage):
    calls: list = running()

    def __call__(self, batch, tool=None):
        self.calls.append(list(batch["id"]))
        return {**batch, "end": [str(value) for value in batch["ok"]]}


@dataclass(frozen=True)
class Same(Stage):
    """Gives back what it gets, by `function`."""

    function: object = running()

    def __call__(self, batch, tool=None):
        return self.function(batch)


@pytest.fixture
def stages():
    return Add(calls=[]), Low(calls=[]), End(calls=[])


def run(root: Path, stages, size: int = 3, rows=ROWS, **changed):
    """The joined bytes of the last stage's shards; `changed`: stage name -> new settings."""
    store = Store(root)
    shards = store.write_shards(rows, size)
    for stage in stages:
        stage.calls.clear()
        shards = store.run(replace(stage, **changed.get(stage.name, {})), shards, lambda rows, reused: None)
    return b"".join(path.read_bytes() for path in shards)


def test_a_second_run_computes_nothing(tmp_path, stages):
    first = run(tmp_path, stages)
    assert [len(s.calls) for s in stages] == [4, 4, 4]
    assert stages[0].calls == [["r0", "r1", "r2"], ["r3", "r4", "r5"], ["r6", "r7", "r8"], ["r9"]]
    assert run(tmp_path, stages) == first
    assert [len(s.calls) for s in stages] == [0, 0, 0]


@pytest.mark.parametrize(
    ("changed", "calls"),
    [
        ({"low": {"tau": 5}}, [0, 4, 3]),  # the first shard of `low` comes out as before
        ({"low": {"tau": 50}}, [0, 4, 0]),
        ({"add": {"by": 2}}, [4, 4, 4]),
        ({"add": {"by": 1}}, [0, 0, 0]),
    ],
)
def test_changed_settings_run_again_what_depends_on_them(tmp_path, stages, changed, calls):
    run(tmp_path, stages)
    again = run(tmp_path, stages, **changed)
    assert [len(s.calls) for s in stages] == calls
    assert again == run(tmp_path / "fresh", stages, **changed)


def test_settings_put_back_find_their_old_shards(tmp_path, stages):
    first = run(tmp_path, stages)
    run(tmp_path, stages, low={"tau": 5})
    assert run(tmp_path, stages, low={"tau": 20}) == first
    assert [len(s.calls) for s in stages] == [0, 0, 0]


def test_a_new_version_runs_again(tmp_path, monkeypatch):
    store, calls = Store(tmp_path), []
    shards = store.write_shards(ROWS, 5)
    for version in (1, 1, 2):

        def counting(batch):
            calls.append(1)
            return batch

        stage = Same(counting)
        monkeypatch.setattr(Same, "version", version)
        store.run(stage, shards, lambda rows, reused: None)
    assert len(calls) == 4


def test_a_changed_row_runs_only_its_shard(tmp_path, stages):
    run(tmp_path, stages)
    run(tmp_path, stages, rows=[*ROWS[:4], {**ROWS[4], "n": 99}, *ROWS[5:]])
    assert [s.calls for s in stages] == [[["r3", "r4", "r5"]]] * 3


@pytest.mark.parametrize("size", [1, 2, 4, 10, 1000])
def test_shard_size_does_not_change_the_bytes(tmp_path, stages, size):
    assert run(tmp_path / "a", stages, size) == run(tmp_path / "b", stages, 3)


def test_a_stage_that_raises_leaves_no_shard_and_keeps_the_finished(tmp_path):
    store = Store(tmp_path)
    shards = store.write_shards(ROWS, 3)
    calls = []

    def breaks(batch):
        calls.append(batch["id"][0])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return batch

    with pytest.raises(KeyboardInterrupt):
        store.run(Same(breaks), shards, lambda rows, reused: None)
    assert sorted(p.name[:5] for p in (tmp_path / "same").iterdir()) == ["00000", "00001"]
    done = []
    paths = store.run(Same(breaks), shards, lambda rows, reused: done.append((rows, reused)))
    assert calls == ["r0", "r3", "r6", "r6", "r9"]
    assert done == [(3, True), (3, True), (3, False), (1, False)]
    assert b"".join(p.read_bytes() for p in paths) == b"".join(p.read_bytes() for p in shards)


def test_columns_and_rows():
    assert columns([{"id": 1, "a": 2}, {"id": 3, "a": None}]) == {"id": [1, 3], "a": [2, None]}
    assert columns([]) == {"id": []}
    assert rows_of(columns(ROWS)) == ROWS


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(ValueError):
        rows_of({"id": [1, 2], "a": [1]})


def test_memory_does_not_grow_with_the_rows(tmp_path):
    import tracemalloc

    def rows(n):
        return ({"id": f"r{i}", "text": "x" * 1000} for i in range(n))

    peaks = []
    for n in (300, 3000):
        store = Store(tmp_path / str(n))
        tracemalloc.start()
        shards = store.write_shards(rows(n), 50)
        shards = store.run(Same(lambda batch: batch), shards, lambda rows, reused: None)
        assert sum(1 for _ in read_rows(shards)) == n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] + 50_000


@dataclass(frozen=True)
class Opens(Stage):
    """`opened` notes each opening and closing of its tool."""

    opened: list = running()

    @contextmanager
    def open(self, progress=None):
        self.opened.append("open")
        yield "tool"
        self.opened.append("close")

    def __call__(self, batch, tool=None):
        assert tool == "tool"
        return batch


def test_a_tool_is_opened_once_and_only_where_a_shard_is_missing(tmp_path):
    store, opened = Store(tmp_path), []
    shards = store.write_shards(ROWS, 3)
    for _ in range(2):
        store.run(Opens(opened), shards, lambda rows, reused: None)
        assert opened == ["open", "close"]


@dataclass(frozen=True)
class Asks(Stage):
    generator: Generator
    path: Path = running()
    version: ClassVar[int] = 3

    def __call__(self, batch, tool=None):
        return batch


def test_a_fingerprint_has_every_setting_but_how_it_is_run():
    first = Asks(Generator(), Path("a")).fingerprint()
    assert Asks(Generator(), Path("b")).fingerprint() == first
    for keys in ({"batch_size": 1}, {"concurrency": 1}, {"timeout": 1.0}, {"retries": 0}, {"api_key_env": "KEY"}):
        assert Asks(Generator(**keys), Path("a")).fingerprint() == first, keys
    others = [{"model": "m"}, {"template": None}, {"max_new_tokens": 1}, {"temperature": 0.5}, {"base_url": "u"}]
    assert len({first, *(Asks(Generator(**keys), Path("a")).fingerprint() for keys in others)}) == 1 + len(others)


# --- shards in parts, as an engine makes them whose workers die


class Parts:
    """Its pool."""

    workers = 1

    def __init__(self, tool, fatal):
        self.tool, self.fatal = tool, fatal

    def map(self, items):
        # The last first: results come as they come.
        for i in reversed(range(len(items))):
            yield i, self.done(items[i])

    def done(self, item):
        if halves := item.halves():
            return item.joined([self.done(half) for half in halves])
        fatal = [row for row in list(read_rows([item.source]))[item.start : item.stop] if row["id"] in self.fatal]
        return (item.rejected("its worker died 3 times") if fatal else item).work(self.tool)


class InPartsEngine:
    """Halves every item down to its records, and gives up on those of `fatal`."""

    def __init__(self, *fatal):
        self.fatal = fatal

    @contextmanager
    def pool(self, opener, need, progress):
        with opener(progress) as tool:
            yield Parts(tool, self.fatal)


def test_a_shard_made_in_parts_is_the_same_shard(tmp_path, stages):
    whole = run(tmp_path / "whole", stages)
    store = Store(tmp_path / "parts")
    shards = store.write_shards(ROWS, 3)
    for stage in stages:
        shards = store.run(stage, shards, lambda rows, reused: None, engine=InPartsEngine())
    assert b"".join(path.read_bytes() for path in shards) == whole
    # The parts are gone.
    assert sorted(len(list(folder.iterdir())) for folder in store.root.iterdir()) == [4, 4, 4, 4]


def test_a_record_its_worker_does_not_survive_is_left_out_counted_and_tried_again(tmp_path):
    store = Store(tmp_path)
    shards = store.write_shards(ROWS, 3)
    done = []
    out = store.run(
        Same(lambda batch: batch), shards, lambda *told: done.append(told), engine=InPartsEngine("r4", "r9")
    )
    assert [row["id"] for row in read_rows(out)] == [f"r{i}" for i in range(10) if i not in (4, 9)]
    assert store.rejected == {"same: its worker died 3 times": 2}
    # The next stage takes what is left, a shard without rows too.
    again = store.run(Low(calls=[]), out, lambda rows, reused: None)
    assert sum(1 for _ in read_rows(again)) == 8
    # The next run finds the two whole shards, and makes the others anew.
    done.clear()
    whole = store.run(Same(lambda batch: batch), shards, lambda *told: done.append(told))
    assert sorted(done) == [(1, False), (3, False), (3, True), (3, True)]
    assert list(read_rows(whole)) == ROWS


# --- the sentences of a whole corpus


TEXTS = ["One cat. A much longer sentence about two cats.", "One cat. Bye {name}.", "Two cats. One cat.", "12"]


@pytest.fixture
def corpus(tmp_path, fake_translator, monkeypatch):
    """(the translator, a function that runs Translate over TEXTS in shards of two)."""
    translator = fake_translator(
        lambda segment: "" if segment == "Two cats." else segment.upper().replace("{NAME}", "")
    )
    monkeypatch.setattr(translate, "make", lambda keys, hops, memory: translator)

    def translate_all(folder: str = "a", size: int = 2) -> list[dict]:
        store = Store(tmp_path / folder)
        rows = [{"id": str(i), "output": text} for i, text in enumerate(TEXTS)]
        stage = Translate(("output",), "eng", "spa", "fake", Translator(), store.root / "memory.sqlite")
        shards = store.run(stage, store.write_shards(rows, size), lambda rows, reused: None)
        assert not list(store.root.glob("**/.questions"))
        return list(read_rows(shards))

    return translator, translate_all


def test_each_distinct_sentence_is_asked_once_the_longest_first_in_units(corpus, monkeypatch):
    translator, translate_all = corpus
    monkeypatch.setattr(module, "UNIT", 2)
    rows = translate_all()
    assert [row["output_mt"] for row in rows] == [
        "ONE CAT. A MUCH LONGER SENTENCE ABOUT TWO CATS.", "ONE CAT. BYE {name}.", None, "12",
    ]  # fmt: skip
    assert [row["output_why"] for row in rows] == ["", "", "empty", ""]
    # The placeholder was lost: the part around it is a question of the next round. What is empty is asked once, alone.
    assert [segments for segments, _, _ in translator.asked] == [
        ["A much longer sentence about two cats.", "Bye {name}."], ["Two cats.", "One cat."], ["Two cats."], ["Bye"],
    ]  # fmt: skip
    assert translate_all("b", 4) == rows == translate_all("c", 1)


def test_a_killed_run_cuts_the_units_that_are_left_as_they_were(corpus, monkeypatch):
    translator, translate_all = corpus
    monkeypatch.setattr(module, "UNIT", 1)
    whole = translate_all("whole")
    units = [segments for segments, _, _ in translator.asked]
    translator.asked.clear()
    function = translator.function

    def killed(segment):
        if segment.startswith("Bye {"):
            raise KeyboardInterrupt
        return function(segment)

    translator.function = killed
    with pytest.raises(KeyboardInterrupt):
        translate_all("killed")
    translator.function = function
    assert translate_all("killed") == whole
    # All but the unit in work were asked once.
    asked = [segments for segments, _, _ in translator.asked]
    assert asked == [units[0], units[1], *units[1:]]
