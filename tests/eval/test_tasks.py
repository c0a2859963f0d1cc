"""A task is one file: found by lying in tasks/, with its own keys, and in the docs."""

import json
import subprocess
import sys

from sdrrl_eval.measure import task_docs
from sdrrl_eval.measure.recipe import task_models
from sdrrl_eval.measure.task_files import task_name
from tests.conftest import ROOT, write_rows

SHOUT = '''\
"""Whether the model shouts."""

from typing import Any, Literal

from sdrrl_eval.measure.metrics.score import ratio
from sdrrl_eval.measure.task import Item, Part, Scored, Task
from sdrrl_factory.rows import read_rows


class Shout(Task):
    """Percent of answers in capitals."""

    task: Literal["shout"]
    path: str
    """Lines of {"say"}."""
    loudness: Literal["loud", "louder"] = "loud"

    def read(self) -> list[Part]:
        items = [Item(str(row.number), f"Shout: {row.values['say']}", None) for row in read_rows(self.path)]
        return [Part(self, None, lang.code, items, "Shout: {say}") for lang in self.languages()]

    def likelihoods(self, part: Part, model: Any, batch_size: int) -> list[Any]:
        return model.text_loss([item.prompt or "" for item in part.items], batch_size)

    def score(self, part: Part, answers: Any, likelihoods: Any, seed: int) -> Scored:
        rows = [
            item.row(answer, shouted=answer.text.isupper(), nats=nats)
            for item, answer, (nats, _) in zip(part.items, answers, likelihoods, strict=True)
        ]
        rate = ratio([(float(row["shouted"]), 1.0) for row in rows], f"loudness:{self.loudness}", seed, scale=100)
        return rows, [part.score("shouted", rate)]
'''
# The file lies in a folder of its own, which is added to the places of tasks/.
RUN = (
    "import sys, sdrrl_eval.measure.tasks as tasks\n"
    "tasks.__path__.append('mine')\n"
    "from sdrrl_factory.cli import main\n"
    "sys.exit(main(['eval', 'r.yaml', *sys.argv[1:]]))"
)


def test_a_benchmark_is_one_file(checkpoint, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/shout.py").write_text(SHOUT, encoding="utf-8")
    write_rows(tmp_path / "say.jsonl", [{"say": "hello"}, {"say": "good morning"}, {"say": "bye"}])
    task = {"task": "shout", "path": "say.jsonl", "langs": ["spa"], "loudness": "louder", "max_new_tokens": 5}
    recipe = {"model": checkpoint, "output_dir": "out", "batch_size": 2, "tasks": [task]}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe), encoding="utf-8")

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-c", RUN, *arguments], cwd=tmp_path, capture_output=True, text=True)

    done = run()
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    assert [(s["task"], s["metric"], s["target_lang"], s["n"]) for s in results["scores"]] == [
        ("shout", "shouted", "spa", 3)
    ]
    assert all(score["signature"] == "loudness:louder" for score in results["scores"])
    lines = (tmp_path / "out/predictions/shout.spa.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["prompt"] for row in rows] == ["Shout: hello", "Shout: good morning", "Shout: bye"]
    assert all(row["nats"] > 0 and row["shouted"] == row["output"].isupper() for row in rows)
    assert results["parts"]["shout.spa"]["max_new_tokens"] == 5
    # Its keys are its own: known, checked, and no other task's.
    wrong = run("tasks.0.loudness=loudest", "tasks.0.shots=3")
    assert wrong.returncode == 2
    assert "tasks.0.loudness is 'loudest'; it must be loud | louder" in wrong.stderr
    assert "unknown key tasks.0.shots; known keys: task, path, langs" in wrong.stderr


def test_a_file_has_one_task_of_its_name():
    names = [task_name(model) for model in task_models()]
    folder = ROOT / "eval/sdrrl_eval/measure/tasks"
    files = sorted(path.stem for suffix in ("py", "yaml") for path in folder.glob(f"*.{suffix}"))
    assert names == [name for name in files if name != "__init__"]
    for name, model in zip(names, task_models(), strict=True):
        assert model.model_json_schema()["properties"]["task"]["const"] == name
        assert model.model_fields["path"].description and model.__doc__


def test_the_docs_have_one_table_of_tasks_and_it_is_the_tasks():
    path = ROOT / "docs/evaluation.md"
    text = path.read_text(encoding="utf-8")
    assert task_docs.written(text) == text, "run python -m sdrrl_eval.measure.task_docs docs/evaluation.md"
    others = [p for p in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"] if p != path]
    assert not [p.name for p in others if "| `belebele`" in p.read_text(encoding="utf-8")]
