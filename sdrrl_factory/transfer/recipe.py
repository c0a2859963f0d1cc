"""The keys of a prepare recipe, with their defaults and bounds."""

from dataclasses import dataclass, field
from typing import Literal


def _number(default, low=None, high=None):
    return field(default=default, metadata={"min": low, "max": high})


@dataclass
class Generator:
    """G = M_theta(x): the model's own answers (section 3.2.1)."""

    backend: Literal["transformers"] = "transformers"
    model: str = "models/smollm2-135m"
    template: str = "smollm2"
    max_new_tokens: int = _number(256, 1)
    temperature: float = _number(0.0, 0.0)
    batch_size: int = _number(32, 1)


@dataclass
class Sampling:
    """Equation 4; 1.0 is the ablation without self-distillation."""

    keep_ground_truth: float = _number(0.5, 0.0, 1.0)


@dataclass
class Translator:
    backend: Literal["apertium"] = "apertium"


@dataclass
class Quality:
    """Translations whose estimate lies below `threshold` (0 to 1) are rejected (section 3.2.2)."""

    backend: Literal["roundtrip", "none"] = "roundtrip"
    threshold: float = _number(0.4, 0.0, 1.0)


@dataclass
class Filters:
    max_length_ratio: float = _number(3.0, 1.0)
    max_word_chars: int = _number(40, 1)


@dataclass
class LanguageId:
    backend: Literal["fasttext", "none"] = "fasttext"


@dataclass
class CodeSwitch:
    """Equation 5; probability 0 is the ablation without code-switching."""

    probability: float = _number(0.15, 0.0, 1.0)
    dictionary: Literal["freedict"] = "freedict"


@dataclass
class Parallel:
    """P: at most `size` sentence pairs (section 3.2.4)."""

    source: Literal["gettext"] = "gettext"
    size: int = _number(1000, 0)


@dataclass
class PrepareConfig:
    instructions: str | list[str]
    target_lang: str
    name: str = "sdrrl"
    source_lang: str = "eng"
    max_samples: int | None = _number(None, 1)
    answer_language: Literal["cross", "all", "none"] = "cross"
    generator: Generator = field(default_factory=Generator)
    sampling: Sampling = field(default_factory=Sampling)
    translator: Translator = field(default_factory=Translator)
    quality: Quality = field(default_factory=Quality)
    filters: Filters = field(default_factory=Filters)
    language_id: LanguageId = field(default_factory=LanguageId)
    code_switch: CodeSwitch = field(default_factory=CodeSwitch)
    parallel: Parallel = field(default_factory=Parallel)
    dataset_dir: str = "data"
    work_dir: str = "runs/prepare"
    shard_size: int = _number(200, 1)
    seed: int = 42
