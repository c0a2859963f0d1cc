"""A causal language model as the generator and the evaluator use it: prompts in, answers or losses out."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdrrl_factory.errors import UserError


@dataclass(frozen=True)
class Generation:
    """`finish`: "stop" (ended by itself), "length" (cut off at the limit) or, of a server, "error: <why>"."""

    text: str
    finish: str


def check_checkpoint(path: str, place: str) -> None:
    """Say at once, before anything is loaded, that a local checkpoint is not there; a hub id passes."""
    hub_id = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) and not Path(path.split("/")[0]).exists() and path[0] != "."
    if hub_id and path.split("/")[0] not in ("models", "runs", "saves"):
        return
    if not (Path(path) / "config.json").is_file():
        hint = "run `sdrrl unpack-model`" if Path(path).name == "smollm2-135m" else "train and export it first"
        raise UserError(f"{place}: no checkpoint at {path} (config.json not found); {hint} or mend the path")


class LM:
    """A checkpoint with its prompt format, on the GPU if there is one, in the checkpoint's own precision.

    Args:
        path: a checkpoint folder or a hub id.
        template: a LLaMA-Factory template by name; None takes the checkpoint's own chat template.
        adapter: a LoRA folder put over it.
        place: the recipe key, for errors.
    """

    def __init__(self, path: str, template: str | None = None, adapter: str | None = None, place: str = "model"):
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        check_checkpoint(path, place)
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
            self.model, found = AutoModelForCausalLM.from_pretrained(path, dtype="auto", output_loading_info=True)
        except (OSError, ValueError, SafetensorError) as err:
            why = str(err).splitlines()[0]
            raise UserError(f"{place}: {path} cannot be loaded ({why}); mend the path or export it again") from None
        if found["missing_keys"]:  # they would be drawn at random
            lack = sorted(found["missing_keys"])[0]
            raise UserError(f"{place}: {path} lacks weights ({lack}); export or fetch it again")
        if adapter:
            from peft import PeftModel

            try:
                self.model = PeftModel.from_pretrained(self.model, adapter)
            except (OSError, ValueError) as err:
                raise UserError(
                    f"adapter: {adapter} cannot be loaded ({str(err).splitlines()[0]}); train it again"
                ) from None
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu" and self.model.dtype == torch.float16:
            self.model = self.model.float()  # half precision is slow, or missing, on CPUs
        self.model = self.model.to(device).eval()
        self.place, self._largest = place, None
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self._encode = self._factory_format(template, place) if template else self._chat_format(path, place)
        stops = {self.tokenizer.eos_token_id, *_as_list(self.model.generation_config.eos_token_id)}
        self.stops = sorted(s for s in stops if s is not None)

    def _chat_format(self, path: str, place: str) -> Callable[[str, str], list[int]]:
        from jinja2 import TemplateError

        if not self.tokenizer.chat_template:
            raise UserError(f"{place}: {path} has no chat template; set `template:` to its LLaMA-Factory template")

        def encode(user: str, system: str) -> list[int]:
            turns = [{"role": "system", "content": system}] * bool(system) + [{"role": "user", "content": user}]
            try:
                return self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
            except TemplateError as err:
                why = " ".join(str(err).split())
                hint = "set `template:` to its LLaMA-Factory template"
                raise UserError(f"{place}: the chat template of {path} fails ({why}); {hint}") from None

        return encode

    def _factory_format(self, name: str, place: str) -> Callable[[str, str], list[int]]:
        import difflib

        from llamafactory.data.template import TEMPLATES, get_template_and_fix_tokenizer
        from llamafactory.hparams import DataArguments

        if name not in TEMPLATES:
            near = difflib.get_close_matches(name, TEMPLATES, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"{place}: LLaMA-Factory has no template {name!r}{hint}")
        template = get_template_and_fix_tokenizer(self.tokenizer, DataArguments(template=name))

        def encode(user: str, system: str) -> list[int]:
            pair = [{"role": "user", "content": user}, {"role": "assistant", "content": ""}]
            return template.encode_oneturn(self.tokenizer, pair, system or None)[0]

        return encode

    def encode(self, user: str, system: str = "") -> list[int]:
        """The token ids of the prompt up to where the answer begins; "" leaves the template its own system prompt."""
        return self._encode(user, system)

    def generate(
        self,
        users: Sequence[str],
        max_new_tokens: int,
        batch_size: int,
        temperature: float = 0.0,
        seed: int = 0,
        progress: Callable[[int], None] = lambda n: None,
        seeds: Sequence[int] | None = None,
        systems: Sequence[str] | None = None,
    ) -> list[Generation]:
        """Answer each of `users`, in their order; `progress` is told how many more are done.

        Batches are sorted by length (less padding), padded on the left, let go of answers that have ended, and halve
        themselves, for good, when memory runs out. With a temperature an answer depends on its prompt and its one of
        `seeds` alone, whatever stands in the batch beside it (but for the rounding of sums); without `seeds` they are
        counted up from `seed`.
        """
        prompts = [self.encode(u, s) for u, s in zip(users, systems or [""] * len(users), strict=True)]
        seeds = range(seed, seed + len(prompts)) if seeds is None else seeds
        order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
        out: list[Generation | None] = [None] * len(prompts)
        start = 0
        while start < len(order):
            batch = order[start : start + min(batch_size, self._largest or batch_size)]
            noise = _Gumbel(temperature, [seeds[i] for i in batch]) if temperature > 0 else None
            rows = self._unless_out_of_memory(self._generate_batch, [prompts[i] for i in batch], max_new_tokens, noise)
            if rows is None:
                self._halve(len(batch))
                continue
            for i, row in zip(batch, rows, strict=True):
                out[i] = row
            start += len(batch)
            progress(len(batch))
        return out

    def _unless_out_of_memory(self, run: Callable, *batch):
        # The except block ends before memory is asked for again: the error holds the batch's tensors.
        try:
            return run(*batch)
        except (RuntimeError, MemoryError) as err:
            if not _out_of_memory(err):
                raise
            return None

    def _halve(self, size: int) -> None:
        import torch

        if size == 1:
            raise UserError(f"{self.place}: out of memory with one prompt; use a smaller model or fewer max_new_tokens")
        torch.cuda.empty_cache()
        self._largest = size // 2
        print(f"out of memory: batch_size is now {self._largest}", flush=True)

    def _generate_batch(self, prompts: list[list[int]], max_new_tokens: int, noise) -> list[Generation]:
        from sdrrl_factory.models.decoding import continuations

        pad = self.tokenizer.pad_token_id
        rows = []
        for row in continuations(self.model, prompts, max_new_tokens, self.stops, pad, noise):
            ended = row[-1] in self.stops
            text = self.tokenizer.decode(row[: len(row) - ended], skip_special_tokens=True).strip()
            rows.append(Generation(text, "stop" if ended else "length"))
        return rows

    def answer_loss(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> list[tuple[float, int]]:
        """Per (question, answer): the summed cross-entropy of the answer's tokens in nats, and how many they are."""
        rows = []
        for user, answer in pairs:
            prompt = self.encode(user)
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
            raise UserError(f"{self.place}: the model answers NaN: its weights are damaged; export it again")
        return out

    def _choose_token(self, rows: list[list[int]], tokens: list[list[int]], batch_size: int) -> list[list[float]]:
        import torch

        from sdrrl_factory.models.choices import NextToken

        out: list[list[float]] = [[]] * len(rows)
        start = 0
        with torch.inference_mode():
            scorer = NextToken(self.model, rows, batch_size)
            while start < len(scorer.groups):
                size = min(batch_size, self._largest or batch_size)
                batch = scorer.groups[start : start + scorer.take(start, size)]
                some = [i for _, group in batch for i in group]
                found = self._unless_out_of_memory(scorer, batch)
                if found is None:
                    self._halve(len(some))
                    if len(batch) == 1:  # a group larger than what memory holds
                        scorer = NextToken(self.model, rows, self._largest)
                        start = 0
                    continue
                for i, row in zip(some, found, strict=True):
                    out[i] = row[tokens[i]].tolist()
                start += len(batch)
        return out

    def _loss(self, rows: list[tuple[list[int], list[int]]], batch_size: int) -> list[tuple[float, int]]:
        import torch

        order = sorted(range(len(rows)), key=lambda i: (-len(rows[i][0]) - len(rows[i][1]), i))
        out: list[tuple[float, int]] = [(0.0, 0)] * len(rows)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            width = max(len(rows[i][0]) + len(rows[i][1]) for i in batch)
            ids = torch.full((len(batch), width), self.tokenizer.pad_token_id)
            mask = torch.zeros_like(ids)
            for k, i in enumerate(batch):
                both = rows[i][0] + rows[i][1]
                ids[k, : len(both)] = torch.tensor(both)
                mask[k, : len(both)] = 1
            ids, mask = ids.to(self.model.device), mask.to(self.model.device)
            with torch.inference_mode():
                logits = self.model(input_ids=ids, attention_mask=mask).logits
            for k, i in enumerate(batch):
                begin, end = len(rows[i][0]), len(rows[i][0]) + len(rows[i][1])
                loss = torch.nn.functional.cross_entropy(
                    logits[k, begin - 1 : end - 1].float(), ids[k, begin:end], reduction="sum"
                )
                out[i] = (float(loss), end - begin)
        return out


class _Gumbel:
    """Makes the greedy choice a draw from softmax(logits / temperature): its argmax under Gumbel noise (Gumbel 1954).

    One noise generator a row, so that no row's draw depends on the others.
    """

    def __init__(self, temperature: float, seeds: Sequence[int]):
        self.temperature, self.seeds, self._generators = temperature, seeds, None

    def __call__(self, rows: Sequence[int], scores):
        """scores: (rows, vocabulary) of the prompts at these places."""
        import torch

        if self._generators is None:
            self._generators = [torch.Generator(scores.device).manual_seed(seed) for seed in self.seeds]
        # In float64: float32's uniform numbers have steps that show in the tail of a large vocabulary.
        noise = torch.empty(scores.shape, dtype=torch.float64, device=scores.device)
        for row, values in zip(rows, noise, strict=True):
            values.exponential_(generator=self._generators[row])
        return scores.double() / self.temperature - noise.log_()


def _out_of_memory(err: Exception) -> bool:
    import torch

    known = isinstance(err, torch.OutOfMemoryError | MemoryError)
    return known or "can't allocate memory" in str(err) or "out of memory" in str(err)


def _as_list(value) -> list:
    return value if isinstance(value, list) else [value]
