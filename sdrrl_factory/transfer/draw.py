"""Randomness from (seed, record id, purpose): no shard, order or engine can change a draw."""

import random

from sdrrl_factory.files import sha256


def rng(seed: int, record_id: str, purpose: str) -> random.Random:
    return random.Random(int(sha256(f"{seed}\x00{record_id}\x00{purpose}")[:16], 16))
