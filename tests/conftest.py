"""Shared by all tests: a tiny real checkpoint, the commands as a user types them, and the order: fast ones first."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # read at import: no test may wait for a hub

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: starts whole programs; runs after the fast ones")
    config.addinivalue_line("markers", "exhaustive: takes minutes; run by `make test-all` only")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: "slow" in item.keywords)


def command(*args, cwd: Path = ROOT, check: bool = True, **environment) -> subprocess.CompletedProcess:
    """Run a program of this environment; its stdout and stderr come back as text."""
    # What the plugin and a launcher read, and what `sdrrl_factory.cli.main` sets when a test calls it in this process.
    unset = ("SDRRL_FACTORY_DISABLE", "LOCAL_RANK", "RANK", "WORLD_SIZE")
    env = {k: v for k, v in os.environ.items() if k not in unset and not k.endswith("_VERBOSITY")}
    env |= {"PATH": f"{BIN}{os.pathsep}{env['PATH']}", "HF_HUB_OFFLINE": "1", **environment}
    done = subprocess.run([str(a) for a in args], cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    if check and done.returncode:
        raise AssertionError(f"{args} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def build_tiny(folder: Path) -> Path:
    """A Llama of two layers that knows nothing, with a byte-level BPE tokenizer and the smollm2 chat format."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    texts = (ROOT / "data/heldout/sentences/spa_Latn.devtest").read_text().splitlines()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=special[1], eos_token=special[2], pad_token=special[0], model_max_length=2048
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="session")
def comet_models(tmp_path_factory) -> dict[str, Path]:
    """`kiwi` scores without references, `comet` against them."""
    from tests.kiwi import build

    folder = tmp_path_factory.mktemp("comet")
    folders = {kind: folder / kind for kind in ("kiwi", "comet")}
    build(**folders)
    return folders


@pytest.fixture(scope="module")
def lm(tiny):
    from sdrrl_factory.models.lm import LM

    return LM(str(tiny))


@pytest.fixture(scope="module")
def exact(tiny):
    """The same weights in float64, apart from LM."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny).double().eval()
