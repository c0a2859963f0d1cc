"""The sets of a run: what is left out, split, packed, kept, and said."""

import itertools
import json
from types import SimpleNamespace

import pytest
from datasets import Dataset, DatasetDict, load_from_disk
from llamafactory.data.processor.processor_utils import greedy_knapsack

from sdrrl_factory.errors import UserError
from sdrrl_factory.training.blocks import Block
from sdrrl_factory.training.packing import ENTRY, LENGTHS, pack, unpack
from sdrrl_factory.training.rows import apportion, count_entries, rows_to_train, split
from sdrrl_factory.training.sets import Sets, describe_sets
from sdrrl_factory.training.tokenized import NOTE, load_sets, save_sets
from sdrrl_factory.training.weights import Entry


def rows(*entries: int, labels=(-100, 7)) -> Dataset:
    one = {"input_ids": [1] * len(labels), "attention_mask": [1] * len(labels), "labels": list(labels)}
    return Dataset.from_list([one | {ENTRY: entry} for entry in entries])


# --- rows without a trained token


def test_rows_without_a_token_to_train_on_are_found():
    """The first label is no target: nothing stands before it."""
    labels = [[-100, 5], [-100, -100], [5, -100], [5], [], [-100, -100, 0], [-100] * 400 + [3], [3] + [-100] * 400]
    assert rows_to_train(Dataset.from_dict({"labels": labels})) == [0, 5, 6]
    shuffled = Dataset.from_dict({"labels": labels}).select([6, 1, 0])
    assert rows_to_train(shuffled) == [0, 2]
    assert rows_to_train(Dataset.from_dict({"labels": labels * 700})) == [i for i in range(5600) if i % 8 in (0, 5, 6)]


def test_entries_count_the_rows_of_each_set():
    blocks = {"a": Block("LL", 2.0), "b": None, "c": Block("TT")}
    found = count_entries(blocks, rows(3, 4, 3), first=3)
    assert found == [Entry("a", "LL", 2.0, 2), Entry("b", "other", 1.0, 1), Entry("c", "TT", 1.0, 0)]


# --- val_size


def nearest(sizes: list[int], asked: int) -> float:
    """By trying all: the least sum of squared distances from the exact shares, one row of each set left."""
    total = sum(sizes)
    ways = itertools.product(*(range(size) for size in sizes))
    fitting = [way for way in ways if sum(way) == asked]
    return min(off(way, sizes, asked / total) for way in fitting)


def off(held, sizes: list[int], share: float) -> float:
    return sum((h - share * size) ** 2 for h, size in zip(held, sizes, strict=True))


@pytest.mark.parametrize("sizes", [[5, 3, 2], [9, 2, 5], [1, 1, 8], [7], [1, 2], [4, 4, 4, 1], [20, 1, 3]])
def test_a_number_of_rows_is_held_out_exactly_and_as_evenly_as_whole_rows_allow(sizes):
    for asked in range(1, sum(sizes) - len(sizes) + 1):
        held = apportion(sizes, float(asked))
        assert sum(held) == asked and all(0 <= h < size for h, size in zip(held, sizes, strict=True))
        assert off(held, sizes, asked / sum(sizes)) == pytest.approx(nearest(sizes, asked))
    with pytest.raises(UserError, match=f"at most {sum(sizes) - len(sizes)} can be"):
        apportion(sizes, sum(sizes) - len(sizes) + 1)


@pytest.mark.parametrize(
    ("sizes", "share", "held"),
    [
        ([9, 5, 4], 0.3, 5),  # 5.4
        ([9, 5, 4], 0.5, 9),
        ([9, 5, 4], 0.01, 1),  # 0.18: at least one
        ([9, 5, 4], 0.99, 15),  # 17.8, but a row of each set stays
        ([100, 1, 1], 0.1, 10),
        ([26001, 913, 1000], 0.1, 2791),  # 2791.4
    ],
)
def test_a_share_is_met_as_near_as_whole_rows_allow(sizes, share, held):
    assert sum(apportion(sizes, share)) == held


@pytest.mark.parametrize(("sizes", "val_size"), [([1, 1], 0.5), ([1], 1), ([5, 3, 2], 8), ([5], 7)])
def test_a_val_size_that_no_set_can_give_stops(sizes, val_size):
    with pytest.raises(UserError, match=f"^val_size: {val_size} of {sum(sizes)} rows in {len(sizes)} sets cannot"):
        apportion(sizes, val_size)


def test_a_split_takes_each_row_once_and_the_same_ones_each_time():
    sets = [Dataset.from_dict({"row": range(10 * k, 10 * k + size)}) for k, size in enumerate((9, 5, 1))]
    training, held = split(sets, 0.3, seed=7)
    assert [len(part) for part in training] == [6, 4, 1] and [len(part) for part in held] == [3, 1]
    assert sorted(row for part in training + held for row in part["row"]) == [*range(9), *range(10, 15), 20]
    again = split(sets, 0.3, seed=7)[1]
    assert [part["row"][:] for part in again] == [part["row"][:] for part in held]
    assert [part["row"][:] for part in split(sets, 0.3, seed=8)[1]] != [part["row"][:] for part in held]


# --- packs


def test_a_pack_is_taken_apart_again():
    single = [{"input_ids": [n] * n, "attention_mask": [1] * n, "labels": [n] * n, ENTRY: n} for n in (5, 3, 4, 2, 8)]
    packs = pack(Dataset.from_list([row | {"images": None} for row in single]), 8, greedy_knapsack, seed=1)
    assert all(len(p["input_ids"]) == sum(p[LENGTHS]) <= 8 for p in packs) and len(packs) == 3
    found = [sample for p in packs for sample in unpack(p)]
    assert sorted(found, key=lambda s: s[ENTRY]) == sorted(single, key=lambda s: s[ENTRY])


def test_a_sample_longer_than_a_pack_stops():
    with pytest.raises(UserError, match="a sample has 9 tokens, and a pack holds 8; raise cutoff_len"):
        pack(rows(0, labels=[1] * 9), 8, greedy_knapsack, seed=None)


def test_packing_refuses_images():
    with pytest.raises(UserError, match="packing: true cannot be weighted where a set has images"):
        pack(rows(0).add_column("images", [["a.png"]]), 8, greedy_knapsack, seed=None)


# --- kept sets


@pytest.fixture
def sets():
    return Sets(
        {"train": rows(0, 1, 0), "validation": rows(2, 2)},
        train=[Entry("a", "LL", 1.0, 2), Entry("b", "TT", 0.5, 1)],
        evaluation=[Entry("c", "LL", 1.0, 2)],
        pack_to=8,
        remarks=["3 rows of b are left out"],
    )


def load(folder) -> Sets:
    """Kept sets, where dataset_info.json is not: they have the blocks they were kept with."""
    return load_sets(SimpleNamespace(tokenized_path=str(folder), dataset_dir=str(folder / "none")), do_train=True)


def test_kept_sets_come_back_as_they_were(sets, tmp_path):
    save_sets(sets, str(tmp_path / "kept"))
    again = load(tmp_path / "kept")
    assert {name: part.to_list() for name, part in again.rows.items()} == {n: p.to_list() for n, p in sets.rows.items()}
    assert (again.train, again.evaluation, again.each, again.pack_to) == (sets.train, sets.evaluation, False, 8)
    assert describe_sets(again) == describe_sets(sets)


def test_kept_sets_are_rows_of_llamafactory(sets, tmp_path):
    """With the plugin off it hands every column to the model."""
    save_sets(sets, str(tmp_path / "kept"))
    plain = load_from_disk(str(tmp_path / "kept"))
    assert isinstance(plain, DatasetDict) and set(plain) == {"train", "validation"}
    assert all(part.column_names == ["input_ids", "attention_mask", "labels"] for part in plain.values())


@pytest.mark.parametrize(
    "broken",
    ["{", "[]", '{"train": 3}', '{"train": [], "evaluation": [], "each": false}'],  # the last one: of version 0.9
)
def test_a_note_that_cannot_be_read_stops(broken, sets, tmp_path):
    save_sets(sets, str(tmp_path / "kept"))
    (tmp_path / "kept" / NOTE).write_text(broken)
    with pytest.raises(UserError, match="kept cannot be read, or an older sdrrl-factory wrote it; remove it"):
        load(tmp_path / "kept")


def test_rows_and_entries_that_do_not_match_stop(sets, tmp_path):
    save_sets(sets, str(tmp_path / "kept"))
    DatasetDict({"train": rows(0).select_columns(ENTRY)}).save_to_disk(str(tmp_path / "kept/sdrrl"))
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "kept")


def test_a_folder_that_cannot_be_written_stops(sets, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        save_sets(sets, str(tmp_path / "file/kept"))


def test_todays_blocks_are_taken(sets):
    blocks = {"a": Block("LL", 1.0), "b": Block("TT", 4.0), "c": None}
    assert sets.take_blocks(blocks) == ["b is now TT x 4, was TT x 0.5", "c is now other x 1, was LL x 1"]
    assert sets.weights == [0.75, 6.0, 1.0]
    assert not sets.take_blocks({}) and not sets.take_blocks({"b": Block("TT", 4.0)})


# --- the line


def test_the_line_says_what_is_weighted_and_what_is_not(sets):
    line = describe_sets(sets)
    assert line.startswith("subset-weighted loss (equation 6) is on: LL 2 rows x 0.75, TT 1 rows x 0.75; ")
    assert "; evaluation: LL 2 rows x 1" in line and "3 rows of b are left out" in line and "\n" not in line
    sets.train.append(Entry("d", "other", 1.0, 3))
    sets.train.append(Entry("e", "mt", 1.0, 0))
    line = describe_sets(sets)
    assert "together one more subset of weight 1, other: d" in line and "no row of it was drawn: e" in line
    json.dumps(line)


def test_the_line_of_a_weighted_evaluation_alone(sets):
    sets.train, sets.remarks = [], ["the training is LLaMA-Factory's own"]
    assert describe_sets(sets) == (
        "subset-weighted loss (equation 6) is on in evaluation: LL 2 rows x 1; the training is LLaMA-Factory's own"
    )
