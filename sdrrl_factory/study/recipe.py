"""The keys of a study recipe, and the recipes of the other commands that they are made of."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue

from sdrrl_factory.recipe import Group
from sdrrl_factory.study.systems import BASE

# What runs in a step; its resources go by this name.
Kind = Literal["prepare", "rate", "train", "export", "eval", "keep", "tables"]


class Backbone(Group):
    """A model that the systems are trained from."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """What it is called in tables and folders."""
    model: str
    """A checkpoint's folder or hub id."""
    template: str | None = None
    """The LLaMA-Factory template, for its answers, its training and its evaluation; null: the checkpoint's own."""
    prepare: dict[str, JsonValue] = {}
    """Keys of the prepare recipe for this backbone alone, over the study's."""
    train: dict[str, JsonValue] = {}
    """Keys of the train recipe for this backbone alone."""
    eval: dict[str, JsonValue] = {}
    """Keys of the eval recipe for this backbone alone."""


class OwnSystem(Group):
    """A system beside the built-in ones."""

    label: str | None = None
    """What it is called in tables; null: its name."""
    sets: list[Literal["ll", "tl", "lt", "tt", "mt", "comp", "sft", "tsft", "cit", "xcot"]] = Field(min_length=1)
    """The data sets it is trained on."""
    prepare: dict[str, JsonValue] = {}
    """Keys of the prepare recipe that its data need, over the study's."""


class StudyTable(Group):
    """Systems side by side, trained alike."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """What it is called in files and on the command line."""
    title: str | None = None
    """Above the table; null: its name."""
    systems: list[str] = Field(min_length=1)
    """sft, tsft, cit, xcot, sdrrl (as the recipe's answer_language is), sdrrl_cross, sdrrl_all, sdrrl_none; Table 6's
    no_tl_lt, no_synth, no_mt_comp, no_code_switch, only_mt_comp; and those of own_systems."""
    budget: str
    """Which of `budgets` they are trained by."""
    seeds: list[int] = Field(min_length=1)
    """A training each: the order of the rows. The data are the same."""
    against: str = BASE
    """The system that the others are tested against; base: the untrained backbone."""
    paper: str | None = None
    """The paper's figures beside: table2 ... table12, llama2, seallm."""


class Resources(Group):
    """What a kind of step needs: Snakemake's scheduler, here or on a cluster, is told."""

    threads: int = Field(default=1, ge=1)
    """CPU cores, and threads of torch."""
    gpus: int = Field(default=0, ge=0)
    """GPUs (Slurm's gres, Kubernetes' limits)."""
    mem_mb: int | None = Field(default=None, ge=1)
    """Main memory."""
    runtime: int | None = Field(default=None, ge=1)
    """Minutes."""
    environment: dict[str, str] = {}
    """Variables before the command: {FORCE_TORCHRUN: '1', NPROC_PER_NODE: '8'}."""


class StudyConfig(Group):
    """A study recipe: languages x systems x seeds x backbones -> prepare, train, export, eval, tables."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """Of the study's folders, and the prefix of its data sets."""
    languages: list[str] = Field(min_length=1)
    """ISO 639-3 codes, each a checkpoint a system; what a benchmark has not of one is left out, and said."""
    backbones: list[Backbone] = Field(min_length=1)
    """The models that are trained."""
    tables: list[StudyTable] = Field(min_length=1)
    """What is compared: a table each."""
    budgets: dict[str, dict[str, JsonValue]] = Field(min_length=1)
    """Name -> keys of the train recipe: how long a system is trained."""
    source_lang: str = "eng"
    """The language that the backbones master."""
    prepare: dict[str, JsonValue] = {}
    """Keys of the prepare recipe; `recipe: NAME` takes a whole one, the other keys go over it."""
    train: dict[str, JsonValue] = {}
    """Keys of LLaMA-Factory's train recipe, or `recipe: NAME` and keys over it. `learning_rate: auto` calculates it
    from the data in the step before (`sdrrl lr`)."""
    export: dict[str, JsonValue] = {}
    """Keys of LLaMA-Factory's export recipe, or `recipe: NAME` and keys over it."""
    eval: dict[str, JsonValue] = {}
    """Keys of the eval recipe, or `recipe: NAME` and keys over it; the study fills in its tasks' languages."""
    own_systems: dict[str, OwnSystem] = {}
    """Further systems, by name."""
    output_dir: str | None = None
    """Everything that is made; null: runs/study/<name>."""
    kept: str | None = None
    """Where the results of each finished training are kept, small enough for git: what is there is not measured again;
    null: `kept` in output_dir."""
    tables_file: str | None = None
    """Where the tables are written in Markdown; null: tables.md in output_dir."""
    keep_models: bool = False
    """Whether the trained weights stay when their evaluations are done."""
    resources: dict[Kind, Resources] = {}
    """Of each kind of step; null: one thread."""

    @property
    def folder(self) -> Path:
        return Path(self.output_dir or f"runs/study/{self.name}")

    @property
    def kept_folder(self) -> Path:
        return Path(self.kept, self.name) if self.kept else self.folder / "kept"

    @property
    def markdown_file(self) -> Path:
        return Path(self.tables_file) if self.tables_file else self.folder / "tables.md"

    def needs(self, kind: str) -> Resources:
        return self.resources.get(kind, Resources())  # type: ignore[call-overload]


def merged(*layers: Any) -> Any:
    """Groups of keys, each laid over those before it, groups within groups too; anything else is replaced."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = result.get(key)
            result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result
