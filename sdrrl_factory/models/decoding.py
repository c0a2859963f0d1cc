"""Continues prompts token by token, a batch at a time; where an answer ends, the next prompt takes its row.

transformers' own loop computes every row until the last one has ended, and only then begins the next batch. Here a row
costs what its answer is long, and the batch stays full until no prompt is left.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdrrl_factory.models.beginnings import Beginnings
from sdrrl_factory.models.forward import Past, base_model, forward, keeps_all_keys, padded

if TYPE_CHECKING:
    import torch

    # (indexes of the prompts, their scores [rows, vocabulary]) -> the scores to choose from.
    Noise = Callable[[Sequence[int], torch.Tensor], torch.Tensor]

# (index of a prompt, the tokens it is continued with: a stop token last, where one came)
Done = Callable[[int, list[int]], None]

# Whether an answer, by its tokens, ends without a stop token.
IsOver = Callable[[Sequence[int]], bool]

# Rows leave, and others come, once an eighth of the batch is free: each time the whole cache is copied.
_SHARE = 8


def continue_prompts(
    model: Any,
    prompts: Sequence[list[int]],
    limits: Sequence[int],
    stops: Sequence[int],
    pad: int,
    batch_size: int,
    done: Done,
    noise: "Noise | None" = None,
    is_over: IsOver | None = None,
) -> None:
    """Continue each prompt with the likeliest tokens, until a stop token comes or its limit is reached.

    Args:
        prompts: token ids.
        limits: the most tokens for each.
        stops: tokens that end an answer.
        batch_size: rows computed at a time.
        done: told each answer as it ends.
        noise: put on the scores before the likeliest token is taken, which makes it a draw.
        is_over: asked of each answer at each token; transformers' loop does not ask it.
    """
    if keeps_all_keys(model):
        _by_refilling(model, prompts, limits, set(stops), batch_size, done, noise, is_over)
    else:
        _by_transformers(model, prompts, limits, set(stops), pad, batch_size, done, noise)


def _by_refilling(
    model: Any,
    prompts: Sequence[list[int]],
    limits: Sequence[int],
    stops: set[int],
    batch_size: int,
    done: Done,
    noise: "Noise | None",
    is_over: IsOver | None,
) -> None:
    import torch

    answers: list[list[int]] = [[] for _ in prompts]
    whole: set[int] = set()  # the indexes of the answers that have ended

    def choose(indexes: Sequence[int], logits: "torch.Tensor") -> "torch.Tensor":
        """The next token of each row [rows, 1]; one whose answer is whole is computed, and not looked at."""
        scores = logits[:, -1].float()
        chosen = (noise(indexes, scores) if noise else scores).argmax(-1)
        for i, token in zip(indexes, chosen.tolist(), strict=True):
            if i in whole:
                continue
            answers[i].append(token)
            if token in stops or len(answers[i]) == limits[i] or (is_over and is_over(answers[i])):
                whole.add(i)
                done(i, answers[i])
        return chosen[:, None]

    with torch.inference_mode():
        read = Beginnings(model, prompts)
        waiting = deque(read.order)
        rows: list[int] = []  # of each row in the batch, the index of its prompt
        past: Past | None = None
        ids = positions = torch.zeros(0, 1, dtype=torch.long, device=model.device)
        while rows or waiting:
            going = [k for k, i in enumerate(rows) if i not in whole]
            free = batch_size - len(going)
            # 1. Rows whose answers are whole leave: batch and cache are cut down to those that go on.
            has_room = bool(waiting) and free * _SHARE >= batch_size
            if has_room or (len(rows) - len(going)) * _SHARE >= len(rows):
                kept = torch.tensor(going, dtype=torch.long, device=ids.device)
                if past:
                    past.keep(going)
                ids, positions, rows = ids[kept], positions[kept], [rows[k] for k in going]
            # 2. Prompts that wait take their places: they are read, and each has its first token then.
            if has_room:
                new = [waiting.popleft() for _ in range(min(free, len(waiting)))]
                logits, begun = read(new)
                assert begun
                if past and going:
                    past.add(begun)
                else:
                    past = begun
                past.compact()
                ids = torch.cat([ids, choose(new, logits)])
                lengths = [[len(prompts[i])] for i in new]
                positions = torch.cat([positions, torch.tensor(lengths, device=positions.device)])
                rows += new
                continue  # one may be whole already
            # 3. One pass over the last token of each row, [rows, 1], and the next one of each.
            if rows:
                logits, past = forward(model, ids, torch.ones_like(ids), positions, past)
                ids, positions = choose(rows, logits), positions + 1


def _by_transformers(
    model: Any,
    prompts: Sequence[list[int]],
    limits: Sequence[int],
    stops: set[int],
    pad: int,
    batch_size: int,
    done: Done,
    noise: "Noise | None",
) -> None:
    """The same by transformers' loop, for models whose cache cannot be cut down to some of its rows."""
    from transformers import GenerationConfig

    # The longest first: what memory does not hold is known at once, and little is padded.
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        ids, mask, _ = padded([prompts[i] for i in batch], [0] * len(batch), True, model.device, pad)
        longest = max(limits[i] for i in batch)
        config = GenerationConfig(max_new_tokens=longest, eos_token_id=sorted(stops), pad_token_id=pad)
        processors = [_Noisy(noise, batch)] if noise else None
        whole = generate_by(config, model, input_ids=ids, attention_mask=mask, logits_processor=processors)
        for i, row in zip(batch, whole[:, ids.shape[1] :].tolist(), strict=True):
            # What stands behind the stop token is padding.
            end = next((k + 1 for k, token in enumerate(row) if token in stops), len(row))
            done(i, row[: min(end, limits[i])])


@dataclass(frozen=True)
class _Noisy:
    """A logits processor of transformers' that puts the noise of these prompts on the scores."""

    noise: "Noise"
    batch: Sequence[int]

    def __call__(self, ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        return self.noise(self.batch, scores)


def generate_by(config: Any, model: Any, **inputs: Any) -> Any:
    """transformers' `generate` under the settings of `config` alone; [rows, length].

    From transformers 4.50 on, `generate` takes what `config` leaves at its default from the checkpoint's own settings,
    which may sample or penalise (transformers pull requests 36684 and 36881). 4.57 has an argument against it, 5.0 has
    none; so the checkpoint's settings are exchanged for the time of the call.
    """
    import torch

    owner = base_model(model)  # PEFT's generate (0.18) hands over to its model's, which looks at its own settings
    own, owner.generation_config = owner.generation_config, config
    try:
        with torch.inference_mode():
            return model.generate(generation_config=config, **inputs)
    finally:
        owner.generation_config = own
