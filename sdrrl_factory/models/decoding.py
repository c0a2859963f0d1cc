"""Continues a batch of prompts token by token; rows that have ended leave the batch."""

from collections.abc import Callable, Sequence

from sdrrl_factory.models.choices import forward, keeps_all_keys, padded

_SHARE = 8  # rows are let go once they are one in so many: each time copies the cache


def continuations(
    model, prompts: Sequence[list[int]], limit: int, stops: Sequence[int], pad: int, noise: Callable | None = None
) -> list[list[int]]:
    """The tokens each prompt is continued with: the likeliest ones, up to `limit`, a stop token last where one came.

    What each row costs ends with it, where transformers' own loop computes all rows until the last one is done. Models
    whose cache is more than the keys of all tokens go through transformers' loop.

    noise: (rows, their scores) -> scores; `rows` are places in `prompts`.
    """
    ids, mask, places = padded(prompts, [0] * len(prompts), True, model.device, pad)
    if keeps_all_keys(model):
        return _shrinking(model, ids, mask, places, limit, set(stops), noise)
    return _whole(model, ids, mask, limit, set(stops), pad, noise)


def _shrinking(model, ids, mask, places, limit, stops, noise) -> list[list[int]]:
    import torch

    out: list[list[int]] = [[] for _ in ids]
    rows, past = list(range(len(ids))), None  # of each row in the batch, its place among the prompts
    with torch.inference_mode():
        for _ in range(limit):
            found = forward(model, ids, mask, places, past)
            past, scores = found.past_key_values, found.logits[:, -1].float()
            tokens = (noise(rows, scores) if noise else scores).argmax(-1)
            going = []
            for k, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
                if not out[row] or out[row][-1] not in stops:
                    out[row].append(token)
                    if token not in stops:
                        going.append(k)
            if not going:
                break
            ids, places = tokens[:, None], places[:, -1:] + 1
            if (len(rows) - len(going)) * _SHARE >= len(rows):
                kept = torch.tensor(going, device=ids.device)
                past.batch_select_indices(kept)
                ids, mask, places = ids[kept], mask[kept], places[kept]
                rows = [rows[k] for k in going]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
    return out


def _whole(model, ids, mask, limit, stops, pad, noise) -> list[list[int]]:
    from transformers import GenerationConfig

    config = GenerationConfig(max_new_tokens=limit, eos_token_id=sorted(stops), pad_token_id=pad)
    everywhere = range(len(ids))
    processors = [lambda _, scores: noise(everywhere, scores)] if noise else None
    found = generate_by(config, model, input_ids=ids, attention_mask=mask, logits_processor=processors)
    out = []
    for row in found[:, ids.shape[1] :].tolist():
        end = next((k + 1 for k, token in enumerate(row) if token in stops), len(row))
        out.append(row[:end])
    return out


def generate_by(config, model, **inputs):
    """transformers' `generate` with the settings of `config` alone; its answer, a row each.

    The checkpoint's own settings may sample or penalise, and transformers puts them where `config` sets nothing;
    since version 5 no argument of `generate` forbids it.
    """
    import torch

    owner = model.get_base_model() if hasattr(model, "get_base_model") else model  # PEFT's generate takes its model's
    own, owner.generation_config = owner.generation_config, config
    try:
        with torch.inference_mode():
            return model.generate(generation_config=config, **inputs)
    finally:
        owner.generation_config = own
