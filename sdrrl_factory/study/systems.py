"""The one table of systems that a study compares: what each is trained on, and what its data are made with.

The paper's five (section 4.1), the rows of its Table 6, and the two other values of `answer_language`. What each
baseline is, and why it was built so: docs/baselines.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sdrrl_factory.transfer.sets import SETS

_SIX = ("ll", "tl", "lt", "tt", "mt", "comp")
# The first row of every table: the backbone as it is, untrained.
BASE = "base"


@dataclass(frozen=True, eq=False)
class System:
    """
    Attributes:
        name: in recipes. label: in tables.
        sets: the data sets that are trained on, named together in `dataset:`.
        prepare: keys of the prepare recipe that its data need, over the study's; systems with the same share data.
    """

    name: str
    label: str
    sets: tuple[str, ...]
    prepare: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs(self) -> tuple[str, ...]:
        """What a prepare recipe's `systems` must name to make the sets."""
        by_set = {name.lower(): row.system for name, row in SETS.items()}
        return tuple(dict.fromkeys(by_set[name] for name in self.sets))

    @property
    def is_translated(self) -> bool:
        """Whether it learns the target language; what does not is trained once for all languages."""
        rows = [row for name, row in SETS.items() if name.lower() in self.sets]
        return any(row.is_natural or row.needs for row in rows)


# fmt: off
_ROWS = (
    System("sft",            "SFT",                          ("sft",)),
    System("tsft",           "T-SFT",                        ("tsft",)),
    System("cit",            "CIT",                          ("cit",)),
    System("xcot",           "XCOT",                         ("xcot",)),
    System("sdrrl",          "SDRRL",                        _SIX),
    System("sdrrl_cross",    "SDRRL, answer_language: cross", _SIX, {"answer_language": "cross"}),
    System("sdrrl_all",      "SDRRL, answer_language: all",  _SIX, {"answer_language": "all"}),
    System("sdrrl_none",     "SDRRL, answer_language: none", _SIX, {"answer_language": "none"}),
    # Table 6, rows 2 to 6.
    System("no_tl_lt",       "- D_TL and D_LT",              ("ll", "tt", "mt", "comp")),
    System("no_synth",       "- D_synth + D",                _SIX, {"sampling": {"keep_ground_truth": 1.0}}),
    System("no_mt_comp",     "- D_mt and D_comp",            ("ll", "tl", "lt", "tt")),
    System("no_code_switch", "- Code Switching",             _SIX, {"code_switch": {"probability": 0.0}}),
    System("only_mt_comp",   "Only D_mt and D_comp",         ("mt", "comp")),
)
# fmt: on
SYSTEMS = {row.name: row for row in _ROWS}
