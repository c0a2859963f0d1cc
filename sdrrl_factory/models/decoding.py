"""Continues a batch of prompts token by token; rows that have ended leave the batch.

transformers' own loop computes every row until the last one has ended. Here a row costs what it is long.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sdrrl_factory.models.forward import base_model, forward, keeps_all_keys, padded

if TYPE_CHECKING:
    import torch

    # (indexes of the prompts still in the batch, their scores [rows, vocabulary]) -> the scores to choose from.
    Noise = Callable[[Sequence[int], torch.Tensor], torch.Tensor]

# Rows leave once an eighth of the batch has ended: each time the whole cache is copied.
_SHARE = 8


def continuations(
    model: Any,
    prompts: Sequence[list[int]],
    limit: int,
    stops: Sequence[int],
    pad: int,
    noise: "Noise | None" = None,
    is_over: Callable[[Sequence[int]], bool] | None = None,
) -> list[list[int]]:
    """The tokens each prompt is continued with: the likeliest ones, up to `limit`; a stop token last, where one came.

    Args:
        prompts: token ids; all are one batch.
        stops: tokens that end an answer.
        noise: put on the scores before the likeliest token is taken, which makes it a draw.
        is_over: whether an answer, by its tokens, ends without a stop token; transformers' loop does not ask it.
    """
    if not keeps_all_keys(model):
        return _by_transformers(model, prompts, limit, set(stops), pad, noise)
    return _by_shrinking(model, prompts, limit, set(stops), pad, noise, is_over)


def _by_shrinking(
    model: Any,
    prompts: Sequence[list[int]],
    limit: int,
    stops: set[int],
    pad: int,
    noise: "Noise | None",
    is_over: Callable[[Sequence[int]], bool] | None,
) -> list[list[int]]:
    import torch

    # 1. The prompts as one batch [rows, length], padded on the left: every row's next token stands at the right end.
    ids, mask, positions = padded(prompts, [0] * len(prompts), True, model.device, pad)
    answers: list[list[int]] = [[] for _ in prompts]
    rows, cache = list(range(len(prompts))), None  # rows: of each row in the batch, its index in `prompts`
    ended: set[int] = set()  # the indexes of those that have
    with torch.inference_mode():
        for _ in range(limit):
            # 2. One pass: over whole prompts the first time, over one new token a row [rows, 1] from then on.
            output = forward(model, ids, mask, positions, cache)
            cache, scores = output.past_key_values, output.logits[:, -1].float()
            # 3. The next token of each row. A row that has ended and not left yet is computed, and not looked at.
            tokens = (noise(rows, scores) if noise else scores).argmax(-1)
            going = []  # rows of the batch that have not ended
            for k, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
                if row in ended:
                    continue
                answers[row].append(token)
                if token in stops or (is_over and is_over(answers[row])):
                    ended.add(row)
                else:
                    going.append(k)
            if not going:
                break
            # 4. The new tokens are the next pass's input, one position further on.
            ids, positions = tokens[:, None], positions[:, -1:] + 1
            # 5. Rows that have ended leave: the batch, the mask and the cache are cut down to those that go on.
            if (len(rows) - len(going)) * _SHARE >= len(rows):
                kept = torch.tensor(going, device=ids.device)
                cache.batch_select_indices(kept)
                ids, mask, positions = ids[kept], mask[kept], positions[kept]
                rows = [rows[k] for k in going]
            # 6. The mask covers the cache and the new token: [rows, past + 1].
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
    return answers


def _by_transformers(
    model: Any, prompts: Sequence[list[int]], limit: int, stops: set[int], pad: int, noise: "Noise | None"
) -> list[list[int]]:
    """The same by transformers' loop, for models whose cache cannot be cut down to some of its rows."""
    from transformers import GenerationConfig

    ids, mask, _ = padded(prompts, [0] * len(prompts), True, model.device, pad)
    config = GenerationConfig(max_new_tokens=limit, eos_token_id=sorted(stops), pad_token_id=pad)
    everyone = range(len(prompts))
    processors = [lambda _, scores: noise(everyone, scores)] if noise else None
    whole = generate_by(config, model, input_ids=ids, attention_mask=mask, logits_processor=processors)
    answers = []
    for row in whole[:, ids.shape[1] :].tolist():
        # What stands behind the stop token is padding.
        end = next((k + 1 for k, token in enumerate(row) if token in stops), len(row))
        answers.append(row[:end])
    return answers


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
