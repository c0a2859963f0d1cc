"""A causal language model as the generator and the evaluator use it: prompts in, answers or losses out."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdrrl_factory.errors import UserError


@dataclass(frozen=True)
class Generation:
    """`finish` is "stop" (the end token was written) or "length" (cut off at max_new_tokens)."""

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
    """A checkpoint with its prompt format.

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
            self.model = AutoModelForCausalLM.from_pretrained(path, dtype="auto")
        except (OSError, ValueError, SafetensorError) as err:
            why = str(err).splitlines()[0]
            raise UserError(f"{place}: {path} cannot be loaded ({why}); mend the path or export it again") from None
        if adapter:
            from peft import PeftModel

            try:
                self.model = PeftModel.from_pretrained(self.model, adapter)
            except (OSError, ValueError) as err:
                raise UserError(f"adapter: {adapter} cannot be loaded ({str(err).splitlines()[0]})") from None
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = self.model.to(device).eval()
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self._encode = self._factory_format(template, place) if template else self._chat_format(path, place)
        stops = {self.tokenizer.eos_token_id, *_as_list(self.model.generation_config.eos_token_id)}
        self.stops = sorted(s for s in stops if s is not None)

    def _chat_format(self, path: str, place: str) -> Callable[[str], list[int]]:
        if not self.tokenizer.chat_template:
            raise UserError(f"{place}: {path} has no chat template; set `template:` to its LLaMA-Factory template")
        return lambda user: self.tokenizer.apply_chat_template(
            [{"role": "user", "content": user}], add_generation_prompt=True, return_dict=False
        )

    def _factory_format(self, name: str, place: str) -> Callable[[str], list[int]]:
        import difflib

        from llamafactory.data.template import TEMPLATES, get_template_and_fix_tokenizer
        from llamafactory.hparams import DataArguments

        if name not in TEMPLATES:
            near = difflib.get_close_matches(name, TEMPLATES, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"{place}: LLaMA-Factory has no template {name!r}{hint}")
        template = get_template_and_fix_tokenizer(self.tokenizer, DataArguments(template=name))

        def encode(user: str) -> list[int]:
            pair = [{"role": "user", "content": user}, {"role": "assistant", "content": ""}]
            return template.encode_oneturn(self.tokenizer, pair)[0]

        return encode

    def encode(self, user: str) -> list[int]:
        """The token ids of the prompt that asks `user`, up to where the answer begins."""
        return self._encode(user)

    def generate(
        self,
        users: Sequence[str],
        max_new_tokens: int,
        batch_size: int,
        temperature: float = 0.0,
        seed: int = 0,
        progress: Callable[[int], None] = lambda n: None,
    ) -> list[Generation]:
        """Answer each of `users`, in their order; `progress` is told how many more are done.

        Batches are sorted by length (less padding), padded on the left, and halve themselves when memory runs out.
        """
        import torch

        prompts = [self.encode(u) for u in users]
        order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
        out: list[Generation | None] = [None] * len(prompts)
        start = 0
        torch.manual_seed(seed)
        while start < len(order):
            batch = order[start : start + batch_size]
            try:
                rows = self._generate_batch([prompts[i] for i in batch], max_new_tokens, temperature)
            except torch.cuda.OutOfMemoryError:
                if batch_size == 1:
                    raise UserError(
                        "model: out of memory with batch_size 1; use a smaller model or fewer tokens"
                    ) from None
                torch.cuda.empty_cache()
                batch_size = max(1, batch_size // 2)
                print(f"out of memory: batch_size is now {batch_size}", flush=True)
                continue
            for i, row in zip(batch, rows, strict=True):
                out[i] = row
            start += len(batch)
            progress(len(batch))
        return out

    def _generate_batch(self, prompts: list[list[int]], max_new_tokens: int, temperature: float) -> list[Generation]:
        import torch
        from transformers import GenerationConfig

        padded = self.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        padded = padded.to(self.model.device)
        # A fresh config: the checkpoint's own may sample or penalise.
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=temperature > 0,
            temperature=temperature if temperature > 0 else None,
            eos_token_id=self.stops,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        with torch.inference_mode():
            ids = self.model.generate(
                input_ids=padded["input_ids"], attention_mask=padded["attention_mask"], generation_config=config
            )
        rows = []
        for row in ids[:, padded["input_ids"].shape[1] :].tolist():
            end = next((k for k, token in enumerate(row) if token in self.stops), None)
            text = self.tokenizer.decode(row[:end], skip_special_tokens=True).strip()
            rows.append(Generation(text, "length" if end is None else "stop"))
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


def _as_list(value) -> list:
    return value if isinstance(value, list) else [value]
