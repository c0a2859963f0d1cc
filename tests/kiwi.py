"""Small COMET checkpoints in the layout of the released ones, built on the spot: their scores mean nothing.

`build` and `predict` are for the tests; they run this file by the Python that has unbabel-comet, which may be another.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parent.parent


def build(**folders: Path) -> None:
    """Write a checkpoint of the kind of each name, `kiwi` or `comet`, into the folder."""
    _by_comet("build", {kind: str(folder) for kind, folder in folders.items()})


def predict(folder: Path, samples: list[dict]) -> list[float]:
    """What unbabel-comet's own `predict` gives, a sample at a time."""
    return _by_comet("predict", [str(folder / "checkpoints" / "model.ckpt"), samples])


def _by_comet(what: str, given):
    from sdrrl_factory.models.comet import installation

    command = [installation().python, "-P", __file__, what]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def _predict(path: str, samples: list[dict]) -> list[float]:
    from comet import load_from_checkpoint

    model = load_from_checkpoint(path)
    return model.predict(samples, batch_size=1, gpus=0, num_workers=0, progress_bar=False).scores


def _build(folder: Path, kind: Literal["kiwi", "comet"]) -> None:
    """Write hparams.yaml, checkpoints/model.ckpt and encoder/ (an XLM-R of two layers) into `folder`.

    kind: "kiwi" is of the class of wmt22-cometkiwi-da (segments mt, src), "comet" of wmt22-comet-da (src, mt, ref).
    """
    import pytorch_lightning
    import torch
    import yaml
    from comet.models import RegressionMetric, UnifiedMetric

    encoder = _encoder(folder / "encoder")
    common = {
        "encoder_model": "XLM-RoBERTa",
        "pretrained_model": str(encoder.resolve()),
        "layer_transformation": "sparsemax",
        "layer_norm": False,
        "hidden_sizes": [24, 12],
        "activations": "Tanh",
    }
    own = {"kiwi": {"sent_layer": "mix", "input_segments": ["mt", "src"]}, "comet": {"layer": "mix", "pool": "avg"}}
    hparams = common | own[kind]
    name = {"kiwi": "unified_metric", "comet": "regression_metric"}[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = {"kiwi": UnifiedMetric, "comet": RegressionMetric}[kind](**hparams, load_pretrained_weights=False)
        with torch.no_grad():  # most scores lie between 0 and 1, as the real ones
            last = model.estimator.ff[-1]
            last.weight.uniform_(-0.25, 0.25)
            last.bias.fill_(0.5)
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(
        {
            "state_dict": model.state_dict(),
            "hyper_parameters": hparams,
            "pytorch-lightning_version": pytorch_lightning.__version__,
        },
        folder / "checkpoints" / "model.ckpt",
    )
    (folder / "hparams.yaml").write_text(yaml.safe_dump({**hparams, "class_identifier": name}))


def _encoder(folder: Path) -> Path:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # in XLM-R's order
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel()
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    texts = (ROOT / "data/heldout/sentences/spa_Latn.devtest").read_text(encoding="utf-8").splitlines()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    bpe.post_processor = TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    XLMRobertaTokenizerFast(tokenizer_object=bpe, model_max_length=512).save_pretrained(folder)
    config = XLMRobertaConfig(
        vocab_size=bpe.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=514,
        type_vocab_size=1,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    given = json.load(sys.stdin)
    if sys.argv[1] == "build":
        print(json.dumps([_build(Path(folder), kind) for kind, folder in given.items()]))
    else:
        print(json.dumps(_predict(*given)))
