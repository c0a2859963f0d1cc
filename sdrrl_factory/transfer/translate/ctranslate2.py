"""NLLB-200 through CTranslate2: the same search on a converted, perhaps quantized, model."""

import os
import tempfile
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from sdrrl_factory.engine import threads
from sdrrl_factory.errors import UserError, under
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.models.hub import check_access, is_hub_id
from sdrrl_factory.transfer.recipe import Translator as Config
from sdrrl_factory.transfer.translate.nllb import (
    DEFAULT_MODEL,
    Batches,
    Tokens,
    cannot_load,
    description,
    longest_first,
)


class CTranslate2:
    """Args: as `Nllb`'s; config.model is a folder written by `convert`. compute_type auto: as it was converted."""

    def __init__(self, config: Config, pairs: Sequence[tuple[str, str]]):
        self.config, self.pairs = config, pairs
        how = f"run `sdrrl convert-model {DEFAULT_MODEL} FOLDER --quantization int8`"
        if config.model is None:
            raise UserError("the ctranslate2 backend needs a converted model", how, key="model")
        self.model = config.model
        for file in ("model.bin", "tokenizer_config.json"):
            if not (Path(self.model) / file).is_file():
                what = f"no converted model at {self.model} ({file} not found)"
                raise UserError(what, f"{how}, or mend the path", key="model")
        self._compute_type = "default" if config.compute_type == "auto" else config.compute_type
        self._batches = Batches(config.batch_size)

    @cached_property
    def name(self) -> str:
        return description("ctranslate2", self.model, self._compute_type, self.config)

    def signature(self, source: str, target: str) -> str:
        return self.name

    @cached_property
    def _tokens(self) -> Tokens:
        with under("model"):
            return Tokens(self.model, self.pairs)

    @cached_property
    def _lm(self) -> Any:
        with under("backend"):
            _library()
        with under("model"):
            return _loaded(self.model, self._compute_type)

    def translate(self, segments: Sequence[str], source: str, target: str) -> list[str]:
        """See `Translator`; "" too for a segment longer than the model reads, and a translation that found no end."""
        tokens = self._tokens
        rows = tokens.encode(segments, source)
        left = longest_first(rows, tokens.limit)
        out = [""] * len(segments)
        while left:
            batches = list(self._batches.cut(left, rows))
            pending = [self._search([rows[i] for i in batch], target) for batch in batches]
            left = []
            for batch, results in zip(batches, pending, strict=True):
                try:
                    hypotheses = [result.result().hypotheses[0] for result in results]
                except RuntimeError as err:
                    if "out of memory" not in str(err):
                        raise
                    left += batch
                    continue
                for i, words in zip(batch, hypotheses, strict=True):
                    out[i] = tokens.decode(tokens.tokenizer.convert_tokens_to_ids(words))
            if left:
                self._batches.halve()
        return out

    def _search(self, rows: list[list[int]], target: str) -> list:
        """Start the search over one batch; what comes back is awaited with `result()`.

        transformers' beam search with early_stopping and length penalty 1 counts the target's code and </s> as part of
        the length; so does CTranslate2 where it returns the end token, and not otherwise.
        """
        return self._lm.translate_batch(
            [self._tokens.tokenizer.convert_ids_to_tokens(row) for row in rows],
            target_prefix=[[LANGUAGES[target].nllb]] * len(rows),
            beam_size=self.config.beam_size,
            length_penalty=1,
            return_end_token=True,
            min_decoding_length=0,
            max_decoding_length=min(self.config.max_new_tokens, self._tokens.limit - 1),
            max_input_length=0,  # what is too long never comes here
            asynchronous=True,
        )


# Every target language opens the translator anew; the model is loaded once.
@lru_cache(maxsize=1)
def _loaded(model: str, compute_type: str) -> Any:
    ctranslate2 = _library()
    cuda = ctranslate2.get_cuda_device_count() > 0
    try:
        # On CPU, a batch a core: threads within a batch gain less than batches side by side.
        return ctranslate2.Translator(
            model,
            device="cuda" if cuda else "cpu",
            compute_type=compute_type,
            inter_threads=1 if cuda else threads(),
            intra_threads=1,
        )
    except (RuntimeError, ValueError) as err:
        raise cannot_load(model, err) from None


def convert(model: str, folder: str, quantization: str) -> None:
    """Write `model` (a path or hub id of an NLLB-200 checkpoint) in CTranslate2's form as `folder`, with its tokenizer.

    quantization: float32, float16, bfloat16, int16, int8, or int8 with another type for the rest (int8_float16).
    """
    # What is wrong is said before the libraries load.
    if os.path.lexists(folder):
        raise UserError("is there already", "remove it or name another folder", at=folder)
    with under("convert-model"):
        if is_hub_id(model):
            check_access(model, "config.json")
        elif not (Path(model) / "config.json").is_file():
            raise UserError("no checkpoint there (config.json not found)", "mend the path", at=model)
        ctranslate2 = _library()
    from ctranslate2.converters import TransformersConverter
    from ctranslate2.specs.model_spec import ACCEPTED_MODEL_TYPES
    from transformers import AutoConfig

    if quantization not in ACCEPTED_MODEL_TYPES:
        fix = f"known: {', '.join(ACCEPTED_MODEL_TYPES)}"
        raise UserError("unknown", fix, at=f"--quantization {quantization}")
    with under("convert-model"):
        tokens = Tokens(model, [("eng", "spa")])
    Path(folder).parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: written beside the folder, then renamed.
    with tempfile.TemporaryDirectory(dir=Path(folder).parent, prefix=f".{Path(folder).name}.") as beside:
        part = Path(beside) / "part"
        try:
            longest = AutoConfig.from_pretrained(model, trust_remote_code=False).max_position_embeddings
            TransformersConverter(model).convert(str(part), quantization=quantization)
        except Exception as err:  # a checkpoint can be broken in many ways
            with under("convert-model"):
                raise cannot_load(model, err) from None
        # The converted config.json does not tell how much the model reads; the tokenizer's does.
        tokens.tokenizer.model_max_length = min(tokens.limit, longest)
        tokens.tokenizer.save_pretrained(part)
        part.rename(folder)
    print(f"{folder}: {quantization}, {ctranslate2.__name__} {ctranslate2.__version__}")


def _library() -> Any:
    try:
        import ctranslate2
    except ImportError:
        raise UserError("ctranslate2 is not installed", "run `pip install 'sdrrl-factory[ctranslate2]'`") from None
    return ctranslate2
