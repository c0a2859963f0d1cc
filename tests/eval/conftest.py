"""A tiny random checkpoint and tiny files in the official shapes."""

import json
from pathlib import Path

import pytest

ENGLISH = ["The river is wide and deep near the old town.", "She bought three red apples.", "Nobody knew the answer."]
SPANISH = [
    "El río es ancho y profundo cerca del casco antiguo.",
    "Ella compró tres manzanas rojas.",
    "Nadie sabía la respuesta.",
]
_CHAT = "{% for m in messages %}<u>{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> str:
    """A Llama of 2 layers that knows nothing, with a byte-level BPE tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>", "<u>", "<a>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        ENGLISH + SPANISH, trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = _CHAT
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        initializer_range=0.5,
    )
    folder = tmp_path_factory.mktemp("checkpoint")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def files(tmp_path) -> Path:
    return _write_files(tmp_path)


@pytest.fixture(scope="session")
def shared_files(tmp_path_factory) -> Path:
    return _write_files(tmp_path_factory.mktemp("shared"))


def _write_files(tmp_path: Path) -> Path:
    """Fill the folder with flores/ (3 sentences) and instructions.{eng,spa}.jsonl (3 rows, one with an input)."""
    (tmp_path / "flores").mkdir()
    for code, lines in {"eng_Latn": ENGLISH, "spa_Latn": SPANISH}.items():
        (tmp_path / "flores" / f"{code}.devtest").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for lang, lines in {"eng": ENGLISH, "spa": SPANISH}.items():
        rows = [
            {"id": f"q{i}", "instruction": f"{i}? {line}", "input": "x <script>" if i == 1 else "", "output": line}
            for i, line in enumerate(lines)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"instructions.{lang}.jsonl").write_text(text, encoding="utf-8")
    return tmp_path
