"""NLLB-200 (Costa-jussà et al., 2022) through transformers: beam search, the target's code forced as first token."""

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.files import fingerprint
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.models.decoding import generate_by
from sdrrl_factory.models.hub import is_hub_id
from sdrrl_factory.transfer.recipe import Translator as Config

DEFAULT_MODEL = "facebook/nllb-200-3.3B"  # the paper's
# A batch of this width has `batch_size` rows; wider ones have fewer, narrower ones more, up to so many times. A step of
# the search reads all weights, however many rows it is for.
_TOKENS_PER_ROW = 64
_TIMES = 4


class Nllb:
    """Args: config: the recipe's group; pairs: the directions that will be asked for.

    Raises: UserError about a key of the group.
    """

    def __init__(self, config: Config, pairs: Sequence[tuple[str, str]]):
        self.config, self.pairs = config, pairs
        self.model = config.model or DEFAULT_MODEL
        if config.compute_type == "int8":
            fix = "set another compute_type, or translator.backend: ctranslate2"
            raise UserError("the nllb backend has no int8", fix, key="compute_type")
        if not is_hub_id(self.model) and not (Path(self.model) / "config.json").is_file():
            what = f"no checkpoint at {self.model} (config.json not found)"
            raise UserError(what, "mend the path", key="model")
        self._batches = Batches(config.batch_size)

    @cached_property
    def name(self) -> str:
        return description("nllb", self.model, self._dtype, self.config)

    def signature(self, source: str, target: str) -> str:
        return self.name

    @cached_property
    def _dtype(self) -> str:
        import torch

        auto = "float16" if torch.cuda.is_available() else "float32"
        return auto if self.config.compute_type == "auto" else self.config.compute_type

    @cached_property
    def _tokens(self) -> "Tokens":
        with under("model"):
            return Tokens(self.model, self.pairs)

    @cached_property
    def _lm(self) -> Any:
        with under("model"):
            return _loaded(self.model, self._dtype)

    def translate(self, segments: Sequence[str], source: str, target: str) -> list[str]:
        """See `Translator`; "" too for a segment longer than the model reads, and a translation that found no end."""
        import torch

        tokens = self._tokens
        limit = min(tokens.limit, self._lm.config.max_position_embeddings)
        rows = tokens.encode(segments, source)
        left = longest_first(rows, limit)
        out = [""] * len(segments)
        while left:
            batch = next(self._batches.cut(left, rows))
            try:
                outputs = self._search([rows[i] for i in batch], target, min(self.config.max_new_tokens, limit - 1))
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                self._batches.halve()
                continue
            for i, ids in zip(batch, outputs, strict=True):
                out[i] = tokens.decode(ids)
            left = left[len(batch) :]
        return out

    def _search(self, rows: list[list[int]], target: str, max_new_tokens: int) -> list[list[int]]:
        from transformers import GenerationConfig

        tokens, lm = self._tokens, self._lm
        padded = tokens.tokenizer.pad({"input_ids": rows}, padding_side="right", return_tensors="pt").to(lm.device)
        config = GenerationConfig(
            num_beams=self.config.beam_size,
            # Ends with the beam_size-th finished hypothesis, as CTranslate2 does.
            early_stopping=self.config.beam_size > 1,
            max_new_tokens=max_new_tokens,
            forced_bos_token_id=tokens.code(target),
            decoder_start_token_id=lm.config.decoder_start_token_id,
            eos_token_id=tokens.tokenizer.eos_token_id,
            pad_token_id=tokens.tokenizer.pad_token_id,
        )
        ids = generate_by(config, lm, input_ids=padded["input_ids"], attention_mask=padded["attention_mask"])
        return ids[:, 1:].tolist()


# Every target language opens the translator anew; the model is loaded once.
@lru_cache(maxsize=1)
def _loaded(model: str, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForSeq2SeqLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        lm = AutoModelForSeq2SeqLM.from_pretrained(model, dtype=getattr(torch, dtype), trust_remote_code=False)
        return lm.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    except Exception as err:  # a checkpoint can be broken in many ways
        raise cannot_load(model, err) from None


class Tokens:
    """NLLB's tokenizer, as both backends use it.

    Raises: UserError without a key: it cannot be loaded, or lacks the code of a language of `pairs`.
    """

    def __init__(self, model: str, pairs: Sequence[tuple[str, str]]):
        from transformers import AutoTokenizer
        from transformers.utils import logging

        logging.set_verbosity_error()
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        except Exception as err:
            raise cannot_load(model, err) from None
        vocabulary = self.tokenizer.get_vocab()
        codes = [LANGUAGES[code].nllb for pair in pairs for code in pair]
        missing = [code for code in codes if code not in vocabulary]
        if missing or not hasattr(self.tokenizer, "src_lang"):
            lack = f"its tokenizer has no {missing[0]}" if missing else "its tokenizer takes no source language"
            raise UserError(f"{model} is no NLLB-200 model ({lack})", f"name one, e.g. {DEFAULT_MODEL}")
        self.limit = self.tokenizer.model_max_length

    def code(self, language: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(LANGUAGES[language].nllb)

    def encode(self, segments: Sequence[str], source: str) -> list[list[int]]:
        """Per segment `code tokens... </s>`; an empty one has no tokens at all."""
        self.tokenizer.src_lang = LANGUAGES[source].nllb
        rows = self.tokenizer(list(segments), truncation=False)["input_ids"] if segments else []
        return [row if segment.strip() else [] for segment, row in zip(segments, rows, strict=True)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text before </s>; "" where there is none: a translation cut off is no translation."""
        eos = self.tokenizer.eos_token_id
        if eos not in ids:
            return ""
        text = ids[: list(ids).index(eos)]
        # Blanks before "?" or "!" belong to French.
        return self.tokenizer.decode(text, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()


class Batches:
    """Batches of segments alike in length; when memory runs out, all that follow have half the rows."""

    def __init__(self, rows: int):
        self.rows, self._times = rows, _TIMES

    def cut(self, order: Sequence[int], rows: Sequence[list[int]]) -> Iterator[list[int]]:
        """Cut `order` (indices of `rows`, longest first) into batches."""
        start = 0
        while start < len(order):
            width = len(rows[order[start]])
            end = start + max(1, min(self._times * self.rows, self.rows * _TOKENS_PER_ROW // width))
            yield list(order[start:end])
            start = end

    def halve(self) -> None:
        if self._times > 1:
            self._times = 1
            print("out of memory: short segments have translator.batch_size rows a batch too", flush=True)
            return
        if self.rows == 1:
            raise UserError("out of memory with batch_size 1", "use a smaller model or fewer beams", key="batch_size")
        self.rows //= 2
        print(f"out of memory: translator.batch_size is now {self.rows}", flush=True)


def longest_first(rows: Sequence[list[int]], limit: int) -> list[int]:
    """The indices of the rows that have tokens and are within `limit`."""
    return sorted((i for i, row in enumerate(rows) if 0 < len(row) <= limit), key=lambda i: (-len(rows[i]), i))


def cannot_load(model: str, err: Exception) -> UserError:
    """The mistake, without a key, of a checkpoint that a library fails at."""
    reason = (str(err).strip().splitlines() or [type(err).__name__])[0].rstrip(". ")
    return UserError(f"{model} cannot be loaded ({reason})", "mend the path, or fetch the model anew")


def description(backend: str, model: str, compute_type: str, config: Config) -> str:
    """What a translation depends on, apart from segment and direction: a translator's name."""
    which = f"{Path(model).name} {fingerprint(model)}" if Path(model).is_dir() else model
    return f"{backend} {which} {compute_type} beam {config.beam_size} at most {config.max_new_tokens}"
