"""A causal language model as the generator and the evaluator use it: prompts in, answers or losses out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.models.checkpoint import check_checkpoint
from sdrrl_factory.models.prompts import lacking_token, no_chat_template, no_end

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_TAIL = 16  # tokens at a prompt's end among which the word that opens a thought would be


@dataclass(frozen=True)
class Generation:
    """`finish`: "stop" (ended by itself), "length" (cut off at the limit) or, of a server, "error: <why>".

    tokens: of an `LM`'s answer that was cut off, from which it can go on.
    """

    text: str
    finish: str
    tokens: Sequence[int] = field(default=(), compare=False, repr=False)


def check_format(template: str | None, chat_template_kwargs: Mapping[str, Any] | None) -> None:
    """Raises: UserError, where LLaMA-Factory's template would not look at what its prompt is to be made with."""
    if template and chat_template_kwargs:
        what = f"LLaMA-Factory's template {template} takes none: they are for the checkpoint's own chat template"
        raise UserError(what, "remove them, or set template: null", key="chat_template_kwargs")


class LM:
    """A checkpoint with its prompt format, on the GPU if there is one, in the checkpoint's own precision.

    Args:
        path: a checkpoint folder or a hub id.
        template: a LLaMA-Factory template by name; None takes the checkpoint's own chat template.
        adapter: a LoRA folder put over it.
        enable_thinking: whether a model that can think first does so; None: as the template has it.
        chat_template_kwargs: what the checkpoint's own chat template is given besides.

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
    ):
        import torch

        check_format(template, chat_template_kwargs)
        thinking = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        self._chat_template_kwargs = {**thinking, **(chat_template_kwargs or {})}
        with under("model"):
            check_checkpoint(path)
        self.path = path
        self.tokenizer, self.model = _load(path)
        if adapter:
            self.model = _with_adapter(self.model, adapter)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu" and self.model.dtype == torch.float16:
            self.model = self.model.float()  # half precision is slow, or missing, on CPUs
        self.model = self.model.to(device).eval()
        if self.tokenizer.pad_token_id is None:
            if self.tokenizer.eos_token_id is None and not template:
                raise no_end(path)
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self._encode_prompt: Callable[[str, str], list[int]] = self._by_chat_template
        stops: list[int] = []
        if template:
            from sdrrl_factory.factory import prompt_format

            with under("template"):
                self._encode_prompt, stops = prompt_format(self.tokenizer, template, enable_thinking)
            # LLaMA-Factory gives the tokenizer what the template needs; the model has no embedding of it.
            unknown = [i for i in self.encode("?") if i >= self.model.get_input_embeddings().num_embeddings]
            if unknown:
                raise lacking_token(path, template, self.tokenizer.convert_ids_to_tokens(unknown[0]))
        elif not self.tokenizer.chat_template:
            raise no_chat_template(path)
        # A checkpoint may end its answers by more tokens than its tokenizer knows of (Llama 3's <|eot_id|>).
        ends = self.model.generation_config.eos_token_id
        ends = [*stops, self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])]
        self.stops = sorted({stop for stop in ends if stop is not None})
        self._largest: int | None = None  # the most rows that memory holds, once it has run out

    def _by_chat_template(self, user: str, system: str) -> list[int]:
        from jinja2 import TemplateError

        turns = [{"role": "user", "content": user}]
        if system:
            turns.insert(0, {"role": "system", "content": system})
        try:
            return self.tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, return_dict=False, **self._chat_template_kwargs
            )
        except TemplateError as err:
            what = f"the chat template of {self.path} fails ({' '.join(str(err).split())})"
            raise UserError(what, "set `template:` to its LLaMA-Factory template", key="model") from None

    def encode(self, user: str, system: str = "") -> list[int]:
        """The token ids of the prompt up to where the answer begins; "" leaves the template its own system prompt."""
        return self._encode_prompt(user, system)

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
        begun: the tokens of each answer that are there already, as many of each: it goes on behind them, up to
        `max_new_tokens` in all, and is what one generation up to there would have given.

        What a model thinks before it answers stands in the text, between the words of `scaffolding.THOUGHTS`.

        Batches are sorted by length (less padding), padded on the left, let go of answers that have ended, and halve
        themselves, for good, when memory runs out. With a temperature an answer depends on its prompt and its one of
        `seeds` alone, whatever stands in the batch beside it (but for the rounding of sums); without `seeds` they are
        0, 1, 2, ...
        """
        prompts = [self.encode(u, s) for u, s in zip(users, systems or [""] * len(users), strict=True)]
        seeds = range(len(prompts)) if seeds is None else seeds

        starts = [list(tokens) for tokens in begun] if begun else [[] for _ in prompts]

        def answer(batch: list[int]) -> list[Generation]:
            drawn = len(starts[batch[0]])
            noise = Gumbel(temperature, [seeds[i] for i in batch], drawn) if temperature > 0 else None
            heads, begun = [prompts[i] for i in batch], [starts[i] for i in batch]
            return self._generate_batch(heads, begun, max_new_tokens, noise, stop)

        return self._in_batches([len(prompt) for prompt in prompts], batch_size, answer, progress)

    def _in_batches(
        self,
        lengths: Sequence[int],
        batch_size: int,
        compute: Callable[[list[int]], Sequence[T]],
        progress: Callable[[int], None] = lambda count: None,
    ) -> list[T]:
        """`compute` of every row (given a batch of their indexes), in their order; memory that runs out is met."""
        # The longest first: what does not fit is known at once, and rows alike in length share a batch.
        order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
        out: dict[int, T] = {}
        while len(out) < len(order):
            batch = order[len(out) : len(out) + min(batch_size, self._largest or batch_size)]
            values = self._unless_out_of_memory(compute, batch)
            if values is None:
                self._halve(len(batch))
                continue
            out |= zip(batch, values, strict=True)
            progress(len(batch))
        return [out[i] for i in range(len(lengths))]

    def _unless_out_of_memory(self, compute: Callable[[Any], T], batch: Any) -> T | None:
        from sdrrl_factory.models.forward import out_of_memory

        # The except block ends before memory is asked for again: the error holds the batch's tensors.
        try:
            return compute(batch)
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

    def _generate_batch(
        self,
        prompts: list[list[int]],
        starts: list[list[int]],
        max_new_tokens: int,
        noise: "Gumbel | None",
        stop: Sequence[str] = (),
    ) -> list[Generation]:
        from sdrrl_factory.models.decoding import continuations
        from sdrrl_factory.models.scaffolding import opened_thought
        from sdrrl_factory.models.stops import stopper

        # A prompt that opens a thought is answered from within it: what would end an answer ends nothing there.
        thinks = any(opened_thought(self.tokenizer.decode(prompt[-_TAIL:])) for prompt in prompts) if stop else False
        is_over = stopper(self.tokenizer, stop) if stop and not thinks else None
        pad = self.tokenizer.pad_token_id
        generations = []
        heads = [prompt + start for prompt, start in zip(prompts, starts, strict=True)]
        rows = continuations(self.model, heads, max_new_tokens - len(starts[0]), self.stops, pad, noise, is_over)
        for prompt, start, row in zip(prompts, starts, rows, strict=True):
            tokens = start + row
            if tokens[-1] in self.stops:
                generations.append(Generation(self._text(prompt, tokens[:-1]), "stop"))
            elif is_over and is_over(tokens):
                generations.append(Generation(self._text(prompt, tokens), "stop"))
            else:
                generations.append(Generation(self._text(prompt, tokens), "length", tokens))
        return generations

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

    def answer_loss(
        self, pairs: Sequence[tuple[str, str]], batch_size: int, system: str = ""
    ) -> list[tuple[float, int]]:
        """Per (question, answer): the summed cross-entropy of the answer's tokens in nats, and how many they are.

        system: the system prompt of all questions, as of `encode`.
        """
        rows = []
        for user, answer in pairs:
            prompt = self.encode(user, system)
            rows.append((prompt, self.tokenizer(answer, add_special_tokens=False)["input_ids"]))
        return self._loss(rows, batch_size)

    def text_loss(self, texts: Sequence[str], batch_size: int) -> list[tuple[float, int]]:
        """Per text: the summed cross-entropy of its tokens in nats after one start token, and how many they are."""
        first = self.tokenizer.bos_token_id
        first = self.tokenizer.eos_token_id if first is None else first
        rows = [([first], self.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        return self._loss(rows, batch_size)

    def choose(self, prompts: Sequence[str], choices: Sequence[str], batch_size: int) -> list[list[float]]:
        """Per prompt the log-probability of each of `choices` right behind it, in nats.

        The prompt is plain text, without the chat format; each choice has its leading blank. Batches halve themselves
        when memory runs out.
        """
        from sdrrl_factory.models.choices import encode

        heads, tails = encode(self.tokenizer, prompts, choices)
        if any(len(ids) != 1 for row in tails for ids in row):
            pairs = [(head, ids) for head, row in zip(heads, tails, strict=True) for ids in row]
            flat = [-nats for nats, _ in self._loss(pairs, batch_size)]
            out = [flat[k : k + len(choices)] for k in range(0, len(flat), len(choices))]
        else:
            out = self._choose_token(heads, [[ids[0] for ids in row] for row in tails], batch_size)
        if any(value != value for row in out for value in row):
            raise UserError("the model answers NaN: its weights are damaged", "export it again", key="model")
        return out

    def _choose_token(self, rows: list[list[int]], tokens: list[list[int]], batch_size: int) -> list[list[float]]:
        """Per row, the log-probability of each of its `tokens` as the next one."""
        import torch

        from sdrrl_factory.models.choices import NextToken

        out: list[list[float]] = [[]] * len(rows)
        start = 0
        with torch.inference_mode():
            scorer = NextToken(self.model, rows, batch_size)
            while start < len(scorer.groups):
                size = min(batch_size, self._largest or batch_size)
                batch = scorer.groups[start : start + scorer.take(start, size)]
                indexes = [i for _, group in batch for i in group]
                scores = self._unless_out_of_memory(scorer, batch)
                if scores is None:
                    self._halve(len(indexes))
                    if len(batch) == 1:  # a group larger than what memory holds: all are cut anew
                        scorer = NextToken(self.model, rows, self._largest or 1)
                        start = 0
                    continue
                for i, row in zip(indexes, scores, strict=True):
                    out[i] = row[tokens[i]].tolist()
                start += len(batch)
        return out

    def _loss(self, rows: list[tuple[list[int], list[int]]], batch_size: int) -> list[tuple[float, int]]:
        """Per (context ids, ids): the summed cross-entropy of `ids` behind the context in nats, and how many they are.

        Batches halve themselves, for good, when memory runs out.
        """

        def losses(batch: list[int]) -> list[tuple[float, int]]:
            return self._loss_batch([rows[i] for i in batch])

        return self._in_batches([len(context) + len(ids) for context, ids in rows], batch_size, losses)

    def _loss_batch(self, rows: list[tuple[list[int], list[int]]]) -> list[tuple[float, int]]:
        import torch

        # 1. Context and ids as one row each, [batch, length], padded on the right.
        whole = [context + ids for context, ids in rows]
        length = max(map(len, whole))
        ids = torch.full((len(rows), length), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for k, row in enumerate(whole):
            ids[k, : len(row)] = torch.tensor(row)
            mask[k, : len(row)] = 1
        ids, mask = ids.to(self.model.device), mask.to(self.model.device)
        # 2. The logits [batch, length, vocabulary]; position p foretells token p + 1.
        with torch.inference_mode():
            logits = self.model(input_ids=ids, attention_mask=mask).logits
        # 3. Row by row, so that only one row's logits are held in float32.
        out = []
        for k, (context, answer) in enumerate(rows):
            begin, end = len(context), len(context) + len(answer)
            loss = torch.nn.functional.cross_entropy(
                logits[k, begin - 1 : end - 1].float(), ids[k, begin:end], reduction="sum"
            )
            out.append((float(loss), end - begin))
        return out


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


class Gumbel:
    """Makes the greedy choice a draw from softmax(logits / temperature): its argmax under Gumbel noise (Gumbel 1954).

    One noise generator a row, so that no row's draw depends on the others.

    drawn: how many tokens of each row were drawn before; their noise is passed over.
    """

    def __init__(self, temperature: float, seeds: Sequence[int], drawn: int = 0):
        self.temperature, self.seeds, self.drawn = temperature, seeds, drawn
        self._generators: list[torch.Generator] | None = None

    def __call__(self, rows: Sequence[int], scores: "torch.Tensor") -> "torch.Tensor":
        """scores: [rows, vocabulary], of the prompts with these indexes; so is what comes back, in float64."""
        import torch

        # Made at the first step: on the device of the scores, whose generators draw other numbers than the CPU's.
        if self._generators is None:
            self._generators = [torch.Generator(scores.device).manual_seed(seed) for seed in self.seeds]
            past = torch.empty(scores.shape[1], dtype=torch.float64, device=scores.device)
            for generator in self._generators:
                for _ in range(self.drawn):
                    past.exponential_(generator=generator)
        # In float64: float32's uniform numbers have steps that show in the tail of a large vocabulary.
        noise = torch.empty(scores.shape, dtype=torch.float64, device=scores.device)
        for row, values in zip(rows, noise, strict=True):
            values.exponential_(generator=self._generators[row])
        # Of an exponential variable, minus the logarithm is a Gumbel one.
        return scores.double() / self.temperature - noise.log_()
