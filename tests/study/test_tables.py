"""The tables of a study, from kept runs that are written here: the paper's figures beside, seeds pooled."""

import gzip
import json
from pathlib import Path

import pytest
import yaml

from sdrrl_eval.resampling import exact_p, ratio
from sdrrl_factory.errors import UserError
from sdrrl_factory.interface import load_study
from sdrrl_factory.study.plan import plan
from sdrrl_factory.study.tables import Made, tables
from tests.conftest import ROOT

SIGNATURES = {"bleu": "tok:flores200|smooth:exp", "comet": "c", "accuracy": "shots:0"}
METRICS = {
    "belebele": ["accuracy"],
    "flores": ["bleu", "chrf++", "comet"],
    "xlsum": ["rouge1", "rougeL"],
    "mkqa": ["f1"],
    "off_target": ["off_target"],
}


def keep(folder: Path, one, scores: list[dict], items: dict) -> None:
    """A run as `sdrrl study --keep` writes it."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(one.record))
    (folder / "items.json.gz").write_bytes(gzip.compress(json.dumps(items).encode()))
    (folder / "results.json").write_text(json.dumps({"model": one.id, "model_hash": "0", "scores": scores}))


def score(task: str, metric: str, source: str | None, target: str, value: float) -> dict:
    entry = {"task": task, "metric": metric, "source_lang": source, "target_lang": target, "value": value, "n": 10}
    return entry | {"ci95": [value - 1, value + 1], "signature": SIGNATURES.get(metric, "x")}


def benchmark_scores(keys: dict, value: float) -> list[dict]:
    """What `sdrrl eval` gives for the tasks of an eval recipe, every value the same."""
    scores = []
    for task in keys["tasks"]:
        home = task.get("source_lang")
        sides = [(None, lang) for lang in task["langs"]]
        if home:
            sides = [pair for lang in task["langs"] for pair in ((home, lang), (lang, home))]
        for metric in METRICS[task["task"]]:
            scores += [score(task["task"], metric, *side, value) for side in sides]
    return scores


def kept_study(name: str, folder: Path, left_out: str = "nothing"):
    """A study of the paper whose runs are all kept: the value tells the system."""
    config = load_study(str(ROOT / f"yaml_recipes/study/{name}.yaml"), [f"kept={folder}"]).config
    values = {"base": 10.0, "sft": 11.0, "tsft": 12.0, "cit": 13.0, "xcot": 14.0, "sdrrl": 20.0}
    for one in plan(config, "").measured.values():
        if one.system != left_out:
            scores = benchmark_scores(one.record["eval"], values.get(one.system, 15.0))
            keep(config.kept_folder / one.id, one, scores, {})
    return config


@pytest.fixture(scope="module")
def papers_tables(tmp_path_factory) -> dict[str, Made]:
    """The tables of the paper's studies."""
    made = {}
    for name in ("paper_llama2", "paper_seallm", "paper_french"):
        config = kept_study(name, tmp_path_factory.mktemp(name))
        made[name] = tables(config, plan(config, ""))
    return made


@pytest.mark.parametrize(
    ("recipe", "numbers"),
    [("paper_llama2", [2, 3, 4, 5, 6]), ("paper_seallm", [8, 9, 10, 11, 7]), ("paper_french", [12])],
)
def test_every_table_of_the_paper_is_filled_beside_its_figures(papers_tables, recipe, numbers):
    made = papers_tables[recipe]
    assert made.missing == []
    papers = [table for table in made.shown if "the paper's Table" in table.title]
    assert [int(table.title.rpartition(" ")[2].strip(")")) for table in papers] == numbers
    for table in papers:
        assert not any("Not in the runs" in note for note in table.notes), table.title
        for block in table.blocks:
            # The paper's systems stand above ours, and none of our cells is empty.
            assert block.published and block.lines
            ours = {line.name: [cell.text for cell in line.cells] for line in block.lines}
            filled = [name for name, cells in ours.items() if "–" not in cells]
            assert "SDRRL" in filled, (table.title, block.name, ours)


def test_table_2_by_hand(papers_tables):
    (table,) = [table for table in papers_tables["paper_llama2"].shown if "Table 2)" in table.title]
    target = table.blocks[0]
    assert [line.name for line in target.published] == [
        f"{s} (paper)" for s in ("SFT", "T-SFT", "CIT", "XCOT", "SDRRL")
    ]
    assert [cell.text for cell in target.published[-1].cells][-1] == "50.58"
    ours = {line.name: {cell.text for cell in line.cells} for line in target.lines}
    assert ours["SDRRL"] == {"20.00"} and ours["SFT"] == {"11.00"} and ours["llama2_7b"] == {"10.00"}


def test_a_system_that_is_not_measured_is_said(tmp_path):
    config = kept_study("paper_seallm", tmp_path, left_out="cit")
    made = tables(config, plan(config, ""))
    assert made.missing == [f"seallm_7b, {name}: not measured yet: cit" for name in ("main", "averages")]
    assert "XCOT" in made.text


def test_nothing_measured_is_one_line(tmp_path):
    config = load_study(str(ROOT / "yaml_recipes/study/paper_french.yaml"), [f"kept={tmp_path}"]).config
    with pytest.raises(UserError, match=r"paper_french: nothing is measured yet; run the study first"):
        tables(config, plan(config, ""))


def test_seeds_are_pooled_and_an_item_is_swapped_in_all_of_them(tmp_path):
    """Three seeds, twelve items; by hand: the mean of the seeds, and the p-value over all 2^12 swaps of items."""
    table = "[{name: main, budget: epochs, seeds: [1, 2, 3], systems: [tsft, sdrrl], against: tsft}]"
    keys = [f"kept={tmp_path}", f"tables={table}", "eval.tasks=[{task: text_loss, path: x}]", "languages=[spa]"]
    config = load_study(str(ROOT / "yaml_recipes/study/small.yaml"), keys).config
    pairs: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for one in plan(config, "").measured.values():
        gain = {"base": 0.0, "tsft": 0.5, "sdrrl": 1.0}[one.system]
        # An item's difference between the systems has another size in each seed, and here and there another sign.
        rows = [(10.0 + i - gain * ((i * 7 + one.seed) % 5 - 1), 2.0) for i in range(12)]
        pairs[one.system, one.seed] = rows
        value = sum(nats for nats, _ in rows) / 24
        items = {"text_loss.spa text_loss": {"items": list(range(12)), "groups": None, "numbers": rows}}
        keep(config.kept_folder / one.id, one, [score("text_loss", "text_loss", None, "spa", round(value, 4))], items)
    made = tables(config, plan(config, ""))
    means = {
        system: sum(nats for seed in (1, 2, 3) for nats, _ in pairs[system, seed]) / 72 for system in ("tsft", "sdrrl")
    }
    # Every seed has the same number of tokens: the mean of the seeds' losses is the loss of their sums.
    summed = {
        system: ratio([(sum(pairs[system, s][i][0] for s in (1, 2, 3)), 6.0) for i in range(12)]) for system in means
    }
    exact = exact_p(summed["tsft"], summed["sdrrl"])
    assert exact is not None
    shown = {table.title: table for table in made.shown}
    (line,) = shown["main"].blocks[0].lines
    assert [cell.text for cell in line.cells][1:] == [f"{means['tsft']:.3f}", f"{means['sdrrl']:.3f}"]
    assert line.cells[2].p == pytest.approx(exact, abs=0.02)  # 10,000 random swaps of the 4,096
    seeds = shown["Each seed (1, 2, 3)"].blocks[0].lines[0].cells[2].text.split()
    assert seeds == [f"{sum(n for n, _ in pairs['sdrrl', seed]) / 24:.3f}" for seed in (1, 2, 3)]
