"""Prompts and the model's context: counted against a tokenizer that is written out, and on real checkpoints."""

import json
import shutil
from pathlib import Path

import pytest

from sdrrl_eval.measure import runner
from sdrrl_eval.measure.checkpoint import context_length
from sdrrl_eval.measure.limits import fit
from sdrrl_eval.measure.recipe import EvalConfig
from sdrrl_eval.measure.task import Item, Part
from sdrrl_factory.errors import UserError
from sdrrl_factory.rows import read_rows
from tests.conftest import ROOT
from tests.eval.conftest import FakeLM, task_of, without_torch

XLSUM = str(ROOT / "tests/data/xlsum")


class Letters:
    """A model whose tokens are letters, with two more around a prompt in its chat format."""

    def __init__(self, context: int | None):
        self.context = context

    def window(self):
        return self.context, 2

    def lengths(self, texts, system):
        return [len(text) if system is None else len(system) + len(text) + 2 for text in texts]

    def letters_that_fit(self, cuts):
        return [
            max(
                (
                    k
                    for k in range(len(cut.article))
                    if self.lengths([cut.before + cut.article[:k] + cut.after], cut.system)[0] <= cut.room
                ),
                default=-1,
            )
            for cut in cuts
        ]


def summaries(texts: list[str], limit: int, system: str = "") -> Part:
    task = task_of(task="xlsum", path=XLSUM, langs=["spa"])
    items = [Item(str(i), f"Summarize: {text}\nIn a word?", "ref", {"text": text}) for i, text in enumerate(texts)]
    return Part(task, None, "spa", items, "Summarize: {text}\nIn a word?", (), limit, system)


def test_the_article_alone_is_cut_and_as_little_as_possible():
    texts = ["short", "a" * 200, "one two three four " * 10, "b" * 58]
    fitting = fit(summaries(texts, 10), Letters(92), "cut")
    # 92 - 10 of the answer - 2 of the format - 22 of the instruction leave 58 letters.
    assert fitting.cut == {"1", "2"} and not fitting.left_out and fitting.context == 92
    assert [item.texts["text"] for item in fitting.part.items] == ["short", "a" * 58, texts[2][:56], "b" * 58]
    assert texts[2][:56].endswith(" four") or texts[2][56] == " "  # between words
    for item in fitting.part.items:
        assert item.prompt == f"Summarize: {item.texts['text']}\nIn a word?"
    # A system prompt takes its room.
    fitting = fit(summaries(texts, 10, "Be brief."), Letters(92), "cut")
    assert fitting.cut == {"1", "2", "3"} and len(fitting.part.items[3].texts["text"]) == 49


def test_what_is_too_long_is_left_out_where_nothing_may_be_cut():
    texts = ["short", "a" * 200]
    fitting = fit(summaries(texts, 10), Letters(92), "leave_out")
    assert fitting.left_out == {"1"} and [item.id for item in fitting.part.items] == ["0"] and not fitting.cut
    # The instruction itself does not fit.
    fitting = fit(summaries(texts, 10), Letters(30), "cut")
    assert fitting.left_out == {"0", "1"} and fitting.part.items == []
    question = task_of(task="off_target", path="q.jsonl", langs=["spa"])
    part = Part(question, None, "spa", [Item("q", "x" * 90, None, {"question": "x" * 90})], "", (), 10)
    assert fit(part, Letters(92), "cut").left_out == {"q"}
    assert fit(part, Letters(102), "cut").part == part == fit(part, Letters(None), "cut").part


def test_a_scored_reference_needs_room_too():
    task = task_of(task="instructions", path="q.jsonl", langs=["spa"])
    items = [Item(str(n), "x" * 20, "r" * n, {"question": "x" * 20}) for n in (5, 30, 31)]
    part = Part(task, None, "spa", items, "", (), 10)
    assert fit(part, Letters(52), "cut").left_out == {"31"}
    chrf = task.model_copy(update={"metrics": ["chrf"]})
    assert not fit(Part(chrf, None, "spa", items, "", (), 10), Letters(52), "cut").left_out


@pytest.mark.parametrize(("context", "policy"), [(110, "cut"), (110, "leave_out"), (10_000, "cut")])
def test_what_does_not_fit_is_counted_beside_every_score(tmp_path, monkeypatch, capsys, context, policy):
    """Articles of 5, 105 and 305 words, answers of 10 tokens: the runner with a model whose tokens are words."""
    rows = [
        {"id": str(n), "title": "t", "text": " ".join(f"w{i}" for i in range(n)), "summary": f"w{n}"}
        for n in (5, 105, 305)
    ]
    (tmp_path / "spanish_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    without_torch(monkeypatch, lambda config: FakeLM(context))
    task = task_of(task="xlsum", path=str(tmp_path), langs=["spa"], max_new_tokens=10)
    keys = dict(model="some/model", tasks=[task], output_dir=str(tmp_path / "out"), long_prompts=policy)
    results = runner.run(EvalConfig(**keys), "r.yaml")
    said = capsys.readouterr().out
    written = list(read_rows(tmp_path / "out/predictions/xlsum.spa.jsonl"))
    if context == 10_000:
        assert [len(row.values["prompt"].split()) for row in written] == [14, 114, 314]
        assert not any({"cut_prompts", "left_out"} & score.get("remarks", {}).keys() for score in results["scores"])
        return
    counts = {"cut": {"cut_prompts": 2}, "leave_out": {"left_out": 2}}[policy]
    for score in results["scores"]:
        assert counts.items() <= score["remarks"].items() and score["n"] == len(written)
    # 9 words of the instruction, 2 tokens of the format and 10 of the answer leave 89 words of the article.
    lengths = {"cut": [14, 98, 98], "leave_out": [14]}[policy]
    assert [len(row.values["prompt"].split()) for row in written] == lengths
    assert [row.values.get("prompt_cut", False) for row in written] == [n == 98 for n in lengths]
    assert f"2 prompts {'cut' if policy == 'cut' else 'left out'}: longer than the context of 110 tokens" in said
    about = results["parts"]["xlsum.spa"]
    assert (about["context"], about["cut"]) == (110, 2 if policy == "cut" else 0)
    assert about["left_out"] == ([] if policy == "cut" else ["105", "305"])


def shortened(checkpoint: str, folder: Path, context: int) -> str:
    shutil.copytree(checkpoint, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": context}))
    return str(folder)


def learned_positions(checkpoint: str, folder: Path, context: int) -> str:
    """A GPT-2 with the tiny model's tokenizer: a token behind the last position is an error of torch."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    shutil.copytree(checkpoint, folder)
    (folder / "model.safetensors").unlink()
    torch.manual_seed(0)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=400, n_positions=context, n_embd=16, n_layer=1, n_head=2, eos_token_id=2)
    ).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("build", [shortened, learned_positions])
def test_a_context_of_96_tokens(checkpoint, tmp_path, build, capsys):
    from transformers import AutoTokenizer

    model = build(checkpoint, tmp_path / "model", 96)
    task = task_of(task="xlsum", path=XLSUM, langs=["spa"], max_new_tokens=8)
    keys = dict(model=model, tasks=[task], output_dir=str(tmp_path / "out"), batch_size=4)
    results = runner.run(EvalConfig(**keys), "r.yaml")
    said = capsys.readouterr().out
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    rows = [json.loads(line) for line in (tmp_path / "out/predictions/xlsum.spa.jsonl").open(encoding="utf-8")]
    originals = [row.values for row in read_rows(Path(XLSUM, "spanish_test.jsonl"))]
    cut = [row for row in rows if row.get("prompt_cut")]
    assert cut and f"{len(cut)} prompts cut: longer than the context of 96 tokens" in said
    for row, original in zip(rows, originals, strict=True):
        head, _, text = row["prompt"].partition("\n")
        assert head == "Summarize the following text in one sentence in Spanish." and original["text"].startswith(text)

        def tokens(prompt: str) -> int:
            chat = [{"role": "user", "content": prompt}]
            return len(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))

        assert tokens(row["prompt"]) + 8 <= 96
        if row.get("prompt_cut"):  # a few words more would not fit
            assert tokens(f"{head}\n{original['text'][: len(text) + 40]}") + 8 > 96
    for score in results["scores"]:
        assert score["n"] == len(rows) and score["remarks"]["cut_prompts"] == len(cut)
    about = results["parts"]["xlsum.spa"]
    assert (about["context"], about["cut"], about["left_out"]) == (96, len(cut), [])
    # The same without the model: its lengths are remembered.
    shutil.move(model, tmp_path / "moved")
    keys |= {"model": str(tmp_path / "moved")}
    assert runner.run(EvalConfig(**keys), "r.yaml")["scores"] == results["scores"]
    # An answer as long as the context leaves nothing to ask.
    keys |= {"tasks": [task.model_copy(update={"max_new_tokens": 96})]}
    with pytest.raises(
        UserError, match="^tasks.0: xlsum.spa: no prompt leaves room for its answer in the context of 96"
    ):
        runner.run(EvalConfig(**keys), "r.yaml")


def test_the_passage_of_a_question_is_cut(checkpoint, tmp_path):
    from transformers import AutoTokenizer

    task = task_of(task="belebele", path=str(ROOT / "tests/data/belebele"), langs=["eng"])
    keys = dict(tasks=[task], output_dir=str(tmp_path / "out"), batch_size=4)

    def asked(model: str, **more) -> tuple[dict, list[dict]]:
        [score] = runner.run(EvalConfig(model=model, **keys, **more), "r.yaml")["scores"]
        return score, [row.values for row in read_rows(tmp_path / "out/predictions/belebele.eng.jsonl")]

    score, rows = asked(checkpoint)
    assert "remarks" not in score and len(rows) == 6
    # Room for the shorter prompts, and the letter behind them.
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    lengths = sorted(len(tokenizer(row["prompt"])["input_ids"]) for row in rows)
    context = lengths[2] + 1
    longer = sum(length + 1 > context for length in lengths)
    model = shortened(checkpoint, tmp_path / "model", context)
    score, cut = asked(model)
    assert 0 < longer == score["remarks"]["cut_prompts"] == sum(bool(row.get("prompt_cut")) for row in cut)
    assert all(row["prompt"].startswith("P: ") and row["prompt"].endswith("\nAnswer:") for row in cut)
    assert all(len(tokenizer(row["prompt"])["input_ids"]) + 1 <= context for row in cut)
    for whole, row in zip(rows, cut, strict=True):
        assert whole["prompt"].split("\nQ: ")[1] == row["prompt"].split("\nQ: ")[1]
    score, left = asked(model, long_prompts="leave_out")
    assert len(left) == score["n"] == 6 - longer and score["remarks"] == {"left_out": longer}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        # Llama 3.1: the factor is in it already. Qwen 2.5's YaRN, linear scaling: it is not.
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072),
        (
            {
                "max_position_embeddings": 32768,
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {"type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096},
            },
            131072,
        ),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2.0}}, 8192),
        ({"alibi": True, "max_position_embeddings": 2048}, None),
        ({}, None),
    ],
)
def test_the_context_of_a_checkpoint(keys, expected):
    class Config:
        def get_text_config(self):
            return self

    config = Config()
    vars(config).update(keys)
    assert context_length(config) == expected


def test_doctor_counts_them(checkpoint, tmp_path):
    from sdrrl_factory.doctor.needs import needs
    from sdrrl_factory.recipe import read

    task = {"task": "xlsum", "path": XLSUM, "langs": ["spa"], "max_new_tokens": 8}
    recipe = {"model": shortened(checkpoint, tmp_path / "model", 96), "output_dir": str(tmp_path), "tasks": [task]}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))

    def detail(*overrides: str) -> str:
        found = needs("eval", read(str(tmp_path / "r.yaml"), overrides), overrides)
        return next(finding.detail for finding in found if finding.what == "task xlsum")

    assert " prompts longer than the context of 96 tokens: cut at the article's end or left out" in detail()
    assert detail(f"model={checkpoint}").endswith(" items")
