"""How fast the stages were, as a run measures it, and what another run would take: `--dry-run` prints it.

A run keeps the rate of each stage in rates.json, beside its shards. No rate is assumed: what nobody has measured here,
with these models on these machines, is not foretold. So a few hundred records are prepared first.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from sdrrl_factory.files import atomic_write
from sdrrl_factory.log import say

FILE = "rates.json"
WORKERS = (1, 8, 64)
_ENOUGH = 20  # fewer are no measurement: what they take is the loading of a model


@dataclass(frozen=True)
class Rate:
    """amount: of what a stage did. seconds: the sum over its workers. unit: what was counted; on: GPU or CPU."""

    amount: int
    seconds: float
    unit: str
    on: str


@dataclass(frozen=True)
class Load:
    """What a run would have to do in one stage: `amount`, in `pieces` of which a worker takes one at a time."""

    stage: str
    amount: int
    pieces: int


def keep(folder: Path, stage: str, rate: Rate) -> None:
    """Keep the rate of a stage, unless one measured on more is there already."""
    rates = read(folder)
    if rate.amount >= _ENOUGH and (stage not in rates or rates[stage].amount <= rate.amount):
        rates[stage] = rate
        text = json.dumps({name: asdict(value) for name, value in rates.items()}, indent=2)
        atomic_write(folder / FILE, text + "\n")


def read(folder: Path) -> dict[str, Rate]:
    """Stage -> its rate, as far as the runs of this folder have measured one."""
    try:
        return {name: Rate(**value) for name, value in json.loads((folder / FILE).read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def hours(load: Load, rate: Rate, workers: int) -> float:
    """The hours that a stage takes with so many workers: the last ones wait for the pieces that are still in work."""
    rounds = -(-load.pieces // workers)
    seconds_of_piece = load.amount / max(load.pieces, 1) * rate.seconds / rate.amount
    return rounds * seconds_of_piece / 3600


def print_cost(loads: Mapping[str, list[Load]], rates: Mapping[str, Mapping[str, Rate]], price: float | None) -> None:
    """What a run takes, by stage; both by the folder of shards, which is one for all languages and one a language.

    price: of a worker's hour.
    """
    asked = [(folder, load) for folder, of_folder in loads.items() for load in of_folder if load.amount]
    known = [(folder, load, rates[folder][load.stage]) for folder, load in asked if load.stage in rates[folder]]
    missing = [f"{folder}/{load.stage}" for folder, load in asked if load.stage not in rates[folder]]
    if known:
        by_workers = " ".join(f"{f'{workers} workers':>14}" for workers in WORKERS)
        say(f"cost      {'stage':24} on  worker hours {by_workers}")
    totals = dict.fromkeys(WORKERS, 0.0)
    for folder, load, rate in known:
        times = {workers: hours(load, rate, workers) for workers in WORKERS}
        totals = {workers: totals[workers] + times[workers] for workers in WORKERS}
        worker_hours = load.amount * rate.seconds / rate.amount / 3600
        columns = " ".join(f"{time:>12.2f} h" for time in times.values())
        say(f"          {f'{folder}/{load.stage}':24} {rate.on} {worker_hours:>12.2f} {columns}")
    if known:
        worker_hours = sum(load.amount * rate.seconds / rate.amount for _, load, rate in known) / 3600
        columns = " ".join(f"{time:>12.2f} h" for time in totals.values())
        say(f"          {'all':24}     {worker_hours:>12.2f} {columns}")
        measured = min(rate.amount for _, _, rate in known)
        say(f"          from rates that runs here have measured, on {measured} and more each")
        if price is not None:
            say(f"          {worker_hours * price:,.2f} at {price:g} for a worker's hour")
    if missing:
        say(f"cost      nobody has measured {', '.join(missing)} here: run it with max_samples=200 first")
