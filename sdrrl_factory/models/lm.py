"""A causal language model as the generator and the evaluator use it: prompts in, answers or losses out."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.models.checkpoint import check_checkpoint
from sdrrl_factory.models.likelihoods import Likelihoods
from sdrrl_factory.models.prompt_format import PromptFormat, check_format
from sdrrl_factory.models.prompts import lacking_token, no_chat_template

if TYPE_CHECKING:
    import torch

    from sdrrl_factory.models.beginnings import Beginnings

T = TypeVar("T")
CPUINFO = Path("/proc/cpuinfo")
_BF16 = re.compile(r"\b(avx512_bf16|amx_bf16|bf16)\b")
_TAIL = 16  # tokens at a prompt's end among which the word that opens a thought would be


@dataclass(frozen=True)
class Generation:
    """`finish`: "stop" (ended by itself), "length" (cut off at the limit) or, of a server, "error: <why>".

    tokens: of an `LM`'s answer that was cut off, from which it can go on.
    """

    text: str
    finish: str
    tokens: Sequence[int] = field(default=(), compare=False, repr=False)


class LM(Likelihoods):
    """A checkpoint with its prompt format, on the GPU if there is one.

    Args:
        path: a checkpoint folder or a hub id.
        adapter: a LoRA folder put over it.
        precision: that it computes in, as `computed_in` says.
        template, enable_thinking, chat_template_kwargs: as of `PromptFormat`.

    Raises: UserError about the key "model", "template", "chat_template_kwargs" or "adapter", here and wherever memory
    runs out.
    """

    def __init__(
        self,
        path: str,
        template: str | None = None,
        adapter: str | None = None,
        *,
        enable_thinking: bool | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        precision: str | None = None,
    ):
        import torch

        check_format(template, chat_template_kwargs)
        with under("model"):
            check_checkpoint(path)
        self.path = path
        tokenizer, self.model = _load(path)
        if adapter:
            self.model = _with_adapter(self.model, adapter)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        precision = computed_in(precision)
        if precision:
            self.model = self.model.to(getattr(torch, precision))
        elif device == "cpu" and self.model.dtype == torch.float16:
            self.model = self.model.float()  # half precision is slow, or missing, on CPUs
        self.model = self.model.to(device).eval()
        self.prompt_format = PromptFormat(tokenizer, path, template, enable_thinking, chat_template_kwargs)
        if not template and not tokenizer.chat_template:
            raise no_chat_template(path)
        if template:
            # LLaMA-Factory gives the tokenizer what the template needs; the model has no embedding of it.
            unknown = [i for i in self.encode("?") if i >= self.model.get_input_embeddings().num_embeddings]
            if unknown:
                raise lacking_token(path, template, tokenizer.convert_ids_to_tokens(unknown[0]))
        # A checkpoint may end its answers by more tokens than its tokenizer knows of (Llama 3's <|eot_id|>).
        ends = self.model.generation_config.eos_token_id
        ends = [*self.prompt_format.stops, tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])]
        self.stops = sorted({stop for stop in ends if stop is not None})
        self._largest: int | None = None  # the most rows that memory holds, once it has run out

    def generate(
        self,
        users: Sequence[str],
        max_new_tokens: int,
        batch_size: int,
        temperature: float = 0.0,
        progress: Callable[[int], None] = lambda count: None,
        seeds: Sequence[int] | None = None,
        systems: Sequence[str] | None = None,
        begun: Sequence[Sequence[int]] | None = None,
        stop: Sequence[str] = (),
    ) -> list[Generation]:
        """Answer each of `users`, in their order; `progress` is told how many more are done.

        stop: strings that end an answer; what was generated of them still stands in it.
        begun: the tokens of each answer that are there already: it goes on behind them, up to `max_new_tokens` in all,
            and is what one generation up to there would have given.

        What a model thinks before it answers stands in the text, between the words of `scaffolding.THOUGHTS`.

        A batch takes the next prompt as soon as an answer has ended, and halves itself, for good, when memory runs out.
        With a temperature an answer depends on its prompt and its one of `seeds` alone, whatever stands in the batch
        beside it (but for the rounding of sums); without `seeds` they are 0, 1, 2, ...
        """
        from sdrrl_factory.models.scaffolding import opened_thought
        from sdrrl_factory.models.stops import stopper

        prompts = [self.encode(u, s) for u, s in zip(users, systems or [""] * len(users), strict=True)]
        starts = [list(tokens) for tokens in begun] if begun else [[] for _ in prompts]
        seeds = range(len(prompts)) if seeds is None else seeds
        is_over = None
        # A prompt that opens a thought is answered from within it: what would end an answer ends nothing there.
        if stop and not any(opened_thought(self.tokenizer.decode(prompt[-_TAIL:])) for prompt in prompts):
            is_over = stopper(self.tokenizer, stop)
        answers: dict[int, Generation] = {}
        while len(answers) < len(prompts):
            # All of them; or those that are left, once memory has run out.
            left = [i for i in range(len(prompts)) if i not in answers]
            size = min(batch_size, self._largest or batch_size, len(left))

            def done(k: int, tokens: list[int], left: list[int] = left) -> None:
                i = left[k]
                answers[i] = self._answer(prompts[i], starts[i] + tokens, is_over)
                progress(1)

            noise = None
            if temperature > 0:
                noise = Gumbel(temperature, [seeds[i] for i in left], [len(starts[i]) for i in left])
            heads = [prompts[i] + starts[i] for i in left]
            limits = [max_new_tokens - len(starts[i]) for i in left]
            if self._unless_out_of_memory(self._continue, heads, limits, size, done, noise, is_over) is None:
                self._halve(size)
        return [answers[i] for i in range(len(prompts))]

    def _continue(
        self,
        heads: list[list[int]],
        limits: list[int],
        batch_size: int,
        done: Callable[[int, list[int]], None],
        noise: "Gumbel | None",
        is_over: Callable[[Sequence[int]], bool] | None,
    ) -> bool:
        from sdrrl_factory.models.decoding import continue_prompts

        pad = self.tokenizer.pad_token_id
        continue_prompts(self.model, heads, limits, self.stops, pad, batch_size, done, noise, is_over)
        return True

    def _answer(
        self, prompt: list[int], tokens: list[int], is_over: Callable[[Sequence[int]], bool] | None
    ) -> Generation:
        if tokens[-1] in self.stops:
            return Generation(self._text(prompt, tokens[:-1]), "stop")
        if is_over and is_over(tokens):
            return Generation(self._text(prompt, tokens), "stop")
        return Generation(self._text(prompt, tokens), "length", tokens)

    def _unless_out_of_memory(self, compute: Callable[..., T], *inputs: Any) -> T | None:
        from sdrrl_factory.models.forward import out_of_memory

        # The except block ends before memory is asked for again: the error holds the batch's tensors.
        try:
            return compute(*inputs)
        except (RuntimeError, MemoryError) as err:
            if not out_of_memory(err):
                raise
            return None

    def _halve(self, rows: int) -> None:
        import torch

        if rows == 1:
            fix = "use a smaller model or fewer max_new_tokens"
            raise UserError("out of memory with one prompt", fix, key="model")
        torch.cuda.empty_cache()
        self._largest = rows // 2
        print(f"out of memory: batch_size is now {self._largest}", flush=True)

    def _text(self, prompt: list[int], row: list[int]) -> str:
        """The text of an answer's tokens; the words around a thought stay in it, wherever they are special tokens."""
        from sdrrl_factory.models.scaffolding import THOUGHTS, has_thought, opened_thought

        # A chat template may begin the thought itself, at the prompt's end (DeepSeek-R1).
        text = opened_thought(self.tokenizer.decode(prompt[-_TAIL:])) + self.tokenizer.decode(row)
        if not has_thought(text):
            return self.tokenizer.decode(row, skip_special_tokens=True).strip()
        for token in self.tokenizer.all_special_tokens:
            if not any(token in word for words in THOUGHTS for word in words):
                text = text.replace(token, "")
        return text.strip()

    def losses(self, rows: Sequence[tuple[list[int], list[int]]], batch_size: int) -> list[tuple[float, int]]:
        """Per (context ids, ids): the summed cross-entropy of `ids` behind the context in nats, and how many they are.

        What contexts begin with alike is computed once. Batches halve themselves, for good, when memory runs out.
        """
        import torch

        def compute(batch: list[int]) -> list[tuple[float, int]]:
            # Position p foretells token p + 1, so the last `last` logits [batch, last, vocabulary] foretell the ids.
            last = max(own[i] for i in batch)
            logits, _ = read(batch, last)
            out = []
            # Row by row, so that only one row's logits are held in float32.
            for row, i in zip(logits, batch, strict=True):
                ids = torch.tensor(rows[i][1], dtype=torch.long, device=row.device)
                loss = torch.nn.functional.cross_entropy(row[last - len(ids) :].float(), ids, reduction="sum")
                out.append((float(loss), len(ids)))
            return out

        own = [max(1, len(ids)) for _, ids in rows]
        with torch.inference_mode():
            read = self._beginnings([context + ids[:-1] for context, ids in rows], own)
            return self._in_batches(read.order, batch_size, compute)

    def next_token(self, rows: Sequence[list[int]], tokens: Sequence[list[int]], batch_size: int) -> list[list[float]]:
        """Per row, the log-probability of each of its `tokens` as the next one."""
        import torch

        def compute(batch: list[int]) -> list[list[float]]:
            logits, _ = read(batch)
            scores = logits[:, -1].float().log_softmax(-1)
            return [row[tokens[i]].tolist() for i, row in zip(batch, scores, strict=True)]

        with torch.inference_mode():
            read = self._beginnings(rows)
            return self._in_batches(read.order, batch_size, compute)

    def _beginnings(self, rows: Sequence[list[int]], own: Sequence[int] | None = None) -> "Beginnings":
        from sdrrl_factory.models.beginnings import Beginnings

        return Beginnings(self.model, rows, own)

    def _in_batches(
        self, order: Sequence[int], batch_size: int, compute: Callable[[list[int]], Sequence[T]]
    ) -> list[T]:
        """`compute` of every row (given a batch of their indexes), in their own order; memory that runs out is met."""
        out: dict[int, T] = {}
        while len(out) < len(order):
            batch = list(order[len(out) : len(out) + min(batch_size, self._largest or batch_size)])
            values = self._unless_out_of_memory(compute, batch)
            if values is None:
                self._halve(len(batch))
                continue
            out |= zip(batch, values, strict=True)
        return [out[i] for i in range(len(order))]


def _load(path: str) -> tuple[Any, Any]:
    """(tokenizer, model), in the checkpoint's own precision."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
        model, info = AutoModelForCausalLM.from_pretrained(path, dtype="auto", output_loading_info=True)
    except (OSError, ValueError, SafetensorError) as err:
        what = f"{path} cannot be loaded ({str(err).splitlines()[0]})"
        raise UserError(what, "mend the path or export it again", key="model") from None
    # transformers (4.57) draws weights that are missing at random, and only warns.
    if info["missing_keys"]:
        name = min(info["missing_keys"])
        raise UserError(f"{path} lacks weights ({name})", "export or fetch it again", key="model")
    return tokenizer, model


def _with_adapter(model: Any, adapter: str) -> Any:
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, adapter)
    except (OSError, ValueError) as err:
        what = f"{adapter} cannot be loaded ({str(err).splitlines()[0]})"
        raise UserError(what, "train it again", key="adapter") from None


def computed_in(precision: str | None) -> str | None:
    """The type of torch's that a checkpoint is turned into; None leaves it its own (float32 of float16 on a CPU).

    "auto" is bfloat16 on a CPU that multiplies in it, and None elsewhere.
    """
    if precision != "auto":
        return precision
    import torch

    if torch.cuda.is_available():
        return None
    # AVX-512's and AMX's instructions, and ARM's. Without them bfloat16 is computed in float32, in more steps.
    multiplies = CPUINFO.is_file() and bool(_BF16.search(CPUINFO.read_text(encoding="utf-8", errors="replace")))
    return "bfloat16" if multiplies else None


class Gumbel:
    """Makes the greedy choice a draw from softmax(logits / temperature): its argmax under Gumbel noise (Gumbel 1954).

    One noise generator a prompt, so that no prompt's draw depends on the others.

    drawn: how many tokens of each prompt's answer were drawn before; their noise is passed over.
    """

    def __init__(self, temperature: float, seeds: Sequence[int], drawn: Sequence[int]):
        self.temperature, self.seeds, self.drawn = temperature, seeds, drawn
        self._generators: dict[int, torch.Generator] = {}

    def __call__(self, rows: Sequence[int], scores: "torch.Tensor") -> "torch.Tensor":
        """scores: [rows, vocabulary], of the prompts with these indexes; so is what comes back, in float64."""
        import torch

        # In float64: float32's uniform numbers have steps that show in the tail of a large vocabulary.
        noise = torch.empty(scores.shape, dtype=torch.float64, device=scores.device)
        for row, values in zip(rows, noise, strict=True):
            if row not in self._generators:
                # On the device of the scores, whose generators draw other numbers than the CPU's.
                self._generators[row] = torch.Generator(scores.device).manual_seed(self.seeds[row])
                for _ in range(self.drawn[row]):
                    values.exponential_(generator=self._generators[row])
            values.exponential_(generator=self._generators[row])
        # Of an exponential variable, minus the logarithm is a Gumbel one.
        return scores.double() / self.temperature - noise.log_()
