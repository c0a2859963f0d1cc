"""A study's recipe as steps: each a command of the README, with what must be done before it.

    prepare   a backbone and a language; the model's own answers are made once, in the first language's, and remembered
    rate      the paper's learning rate, where the recipe says `learning_rate: auto`
    train     a system by a budget with a seed
    export    its checkpoint
    eval      the checkpoint in a language; the untrained backbone too
    keep      the scores to where they are kept, the weights away
    tables    all that is kept

The other commands' recipes are written into `recipes/` of the study's folder. What is kept already by the same recipes
is no step.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdrrl_eval import show
from sdrrl_factory.errors import UserError, under
from sdrrl_factory.languages import LANGUAGES, language
from sdrrl_factory.recipe import read
from sdrrl_factory.study.recipe import StudyConfig, StudyTable, merged
from sdrrl_factory.study.systems import BASE, SYSTEMS, System

# Keys of the recipes that say where things are, how a model is run, or what else is made; what is measured does not
# depend on them.
_LOCATION = {
    "prepare": ("name", "systems", "dataset_dir", "work_dir", "memory", "overwrite", "shard_size"),
    "train": ("dataset_dir", "dataset", "output_dir"),
    "export": ("model_name_or_path", "adapter_name_or_path", "export_dir"),
    "eval": ("model", "output_dir", "memory", "batch_size"),
}


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: of the step, its log and its stamp. kind: what its resources go by.
        command: as a user types it. recipe: the file that it reads; "" of none.
        after: the names of the steps that come before it.
        made: what is there once it has ended well, a pattern; "" of nothing.
    """

    name: str
    kind: str
    command: str
    recipe: str = ""
    after: tuple[str, ...] = ()
    made: str = ""


@dataclass(frozen=True)
class Measured:
    """A checkpoint in a language: what a cell of the tables is computed from.

    Attributes:
        id: of its folder. backbone, language, system, budget, seed: what it is; the untrained backbone has no budget.
        training: the id of what made it: another than its own where one training is for all languages.
        record: the keys of all recipes that made it, by command, without what says where things are.
    """

    id: str
    backbone: str
    language: str
    system: str
    budget: str = ""
    seed: int = 0
    training: str = ""
    record: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass
class Plan:
    """The steps of a study, and what it measures.

    Attributes:
        steps: in an order in which they can be done.
        recipes: path -> keys of each recipe that a step reads.
        measured: every cell's run; kept: the ids of those that are there already. of: table -> its runs.
        left_out: what a benchmark has not of a language, a line each.
    """

    steps: list[Step] = field(default_factory=list)
    recipes: dict[Path, dict[str, Any]] = field(default_factory=dict)
    measured: dict[str, Measured] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Training:
    """A system of a backbone trained on a language by a budget with a seed; `language` is where its data come from."""

    id: str
    backbone: str
    language: str
    system: System
    budget: str
    seed: int


def systems(config: StudyConfig) -> dict[str, System]:
    """The built-in systems and the recipe's own."""
    own = {
        name: System(name, system.label or name, tuple(system.sets), system.prepare)
        for name, system in config.own_systems.items()
    }
    return SYSTEMS | own


def check(config: StudyConfig) -> None:
    """What pydantic cannot see: names that have to be there, languages. Raises UserError about a key."""
    known = systems(config)
    for i, code in enumerate(config.languages):
        with under(f"languages.{i}"):
            language(code)
            if code == config.source_lang:
                raise UserError(f"{code} is the source language", "choose another")
    for i, table in enumerate(config.tables):
        with under(f"tables.{i}"):
            for j, name in enumerate(table.systems):
                if name not in known:
                    raise UserError(f"no system {name}", f"known: {', '.join(known)}", key=f"systems.{j}")
            if table.against not in (BASE, *table.systems):
                fix = f"the table has {BASE}, {', '.join(table.systems)}"
                raise UserError(f"no system {table.against}", fix, key="against")
            if table.budget not in config.budgets:
                raise UserError(f"no budget {table.budget}", f"known: {', '.join(config.budgets)}", key="budget")
    names = [backbone.name for backbone in config.backbones]
    if len(set(names)) < len(names):
        raise UserError("two backbones of one name", "rename one", key="backbones")
    for name in config.own_systems:
        if name in SYSTEMS or name == BASE:
            raise UserError(f"{name} is a built-in system", "rename it", key=f"own_systems.{name}")


class _Planner:
    """Builds a plan step by step; each method adds the steps of its kind, those before it first."""

    def __init__(self, config: StudyConfig, command: str):
        self.config, self.command = config, command
        self.plan = Plan()
        self.names: set[str] = set()
        self.systems = systems(config)
        self._shared: dict[tuple[str, System | None], dict[str, Any] | None] = {}
        self.keys = {kind: _base(config, kind) for kind in ("prepare", "train", "export", "eval")}

    def build(self) -> Plan:
        config = self.config
        trainings: dict[str, _Training] = {}
        evaluated: dict[str, list[Measured]] = {}
        # 1. What is measured: of each table each system, its checkpoints in each language; the backbone beside them.
        for backbone in config.backbones:
            for code in config.languages:
                record = {"eval": self._eval_keys(backbone.name, code, backbone.model)}
                self._measure(
                    Measured(f"{backbone.name}.{code}.{BASE}", backbone.name, code, BASE, record=_plain(record))
                )
            for table in config.tables:
                for training, code in self._cells(backbone.name, table):
                    trainings[training.id] = training
                    one = self._measured(training, code)
                    if one.id not in self.plan.measured:
                        self._measure(one)
                        evaluated.setdefault(training.id, []).append(one)
        # 2. The steps that what is not kept yet needs.
        for one in self.plan.measured.values():
            if one.system == BASE and one.id not in self.plan.kept:
                self._keep(one.id, [one], [self._evaluate(one, self._backbone(one.backbone).model)])
        for training in trainings.values():
            missing = [one for one in evaluated[training.id] if one.id not in self.plan.kept]
            if missing:
                export = self._export(training)
                model = str(self._folder(training.id) / "export")
                self._keep(training.id, missing, [self._evaluate(one, model, export) for one in missing])
        # 3. The tables of all.
        kept = tuple(step.name for step in self.plan.steps if step.kind == "keep")
        self._step(Step("tables", "tables", f"{self.command} --tables", after=kept))
        self.plan.left_out = list(dict.fromkeys(self.plan.left_out))
        return self.plan

    # --- what is measured

    def _cells(self, backbone: str, table: StudyTable) -> Iterator[tuple[_Training, str]]:
        """(training, language that it is measured in), of every system of a table."""
        # One seed of all systems is done before the next one: what is there first can be looked at first.
        for seed in table.seeds:
            for name in table.systems:
                system = self.systems[name]
                for code in self.config.languages:
                    # What learns no other language is trained once, on the first one's data.
                    home = code if system.is_translated else self.config.source_lang
                    id_ = f"{backbone}.{home}.{name}.{table.budget}.{seed}"
                    data = code if system.is_translated else self.config.languages[0]
                    yield _Training(id_, backbone, data, system, table.budget, seed), code

    def _measured(self, training: _Training, code: str) -> Measured:
        system = training.system.name
        id_ = f"{training.backbone}.{code}.{system}.{training.budget}.{training.seed}"
        record = {
            "prepare": self._prepare_keys(training.backbone, training.language, training.system),
            "train": self._train_keys(training),
            "export": self._export_keys(training),
            "eval": self._eval_keys(training.backbone, code, ""),
        }
        plain = {"sets": list(training.system.sets)} | _plain(record)
        return Measured(id_, training.backbone, code, system, training.budget, training.seed, training.id, plain)

    def _measure(self, one: Measured) -> None:
        from sdrrl_factory.study.kept import is_kept

        self.plan.measured[one.id] = one
        if is_kept(self.config.kept_folder / one.id, one.record):
            self.plan.kept.add(one.id)

    # --- steps

    def _step(self, step: Step, keys: dict[str, Any] | None = None) -> str:
        """Add a step, once; its recipe's keys beside it. Returns its name."""
        if step.name not in self.names:
            self.names.add(step.name)
            self.plan.steps.append(step)
            if keys is not None:
                self.plan.recipes[Path(step.recipe)] = keys
        return step.name

    def _prepare(self, training: _Training) -> str:
        keys = self._prepare_keys(training.backbone, training.language, training.system)
        return self._prepared(training.backbone, training.language, keys)

    def _prepared(self, backbone: str, code: str, keys: dict[str, Any]) -> str:
        # The model answers once: the data as the recipe has them come first, in the first language; the others find its
        # answers in the memory.
        first, own = self.config.languages[0], self._data_keys(backbone, code, None)
        after: tuple[str, ...] = ()
        if own and keys["name"] != own["name"]:
            after = (self._prepared(backbone, code, own),)
        elif own and code != first:
            after = (self._prepared(backbone, first, self._data_keys(backbone, first, None) or own),)
        name = f"prepare.{keys['name']}.{code}"
        recipe = self._recipe(name)
        made = f"{keys['dataset_dir']}/{keys['name']}_{code}/*.jsonl"
        return self._step(Step(name, "prepare", f"sdrrl prepare {recipe}", recipe, after, made), keys)

    def _train(self, training: _Training) -> str:
        after = self._prepare(training)
        keys: dict[str, Any] | None = self._train_keys(training)
        assert keys is not None
        name, made = f"train.{training.id}", f"{keys['output_dir']}/*.safetensors"
        recipe, environment = self._recipe(name), _variables(self.config.needs("train").environment)
        if keys.get("learning_rate") == "auto":
            unrated = self._recipe(f"rate.{training.id}")
            del keys["learning_rate"]
            command = f"{environment}sdrrl lr {unrated} --output {recipe}"
            after = self._step(Step(f"rate.{training.id}", "rate", command, unrated, (after,), recipe), keys)
            keys = None
        command = f"{environment}llamafactory-cli train {recipe}"
        return self._step(Step(name, "train", command, recipe, (after,), made), keys)

    def _export(self, training: _Training) -> str:
        after = self._train(training)
        name = f"export.{training.id}"
        recipe = self._recipe(name)
        command = f"llamafactory-cli export {recipe}"
        keys = self._export_keys(training)
        return self._step(Step(name, "export", command, recipe, (after,), f"{keys['export_dir']}/*.safetensors"), keys)

    def _evaluate(self, one: Measured, model: str, *after: str) -> str:
        name = f"eval.{one.id}"
        recipe = self._recipe(name)
        keys = self._eval_keys(one.backbone, one.language, model)
        keys["output_dir"] = str(self._folder(one.id) / "eval")
        made = f"{keys['output_dir']}/results.json"
        return self._step(Step(name, "eval", f"sdrrl eval {recipe}", recipe, after, made), keys)

    def _keep(self, id_: str, evaluated: list[Measured], after: list[str]) -> None:
        made = str(self.config.kept_folder / evaluated[0].id / "recipe.yaml")
        self._step(Step(f"keep.{id_}", "keep", f"{self.command} --keep {id_}", after=tuple(after), made=made))

    # --- keys of the recipes

    def _backbone(self, name: str) -> Any:
        return next(backbone for backbone in self.config.backbones if backbone.name == name)

    def _folder(self, id_: str) -> Path:
        return self.config.folder / id_

    def _recipe(self, name: str) -> str:
        return str(self.config.folder / "recipes" / f"{name}.yaml")

    def _data_keys(self, backbone: str, code: str, system: System | None) -> dict[str, Any] | None:
        """The prepare recipe for all systems whose data need the same keys as this one's.

        system: None for the recipe as it is; then None comes back where no system needs that.
        """
        shared = self._shared_keys(backbone, system)
        return shared | {"target_lang": code} if shared else None

    def _shared_keys(self, name: str, system: System | None) -> dict[str, Any] | None:
        """The same in any language."""
        if (name, system) in self._shared:
            return self._shared[name, system]
        backbone = self._backbone(name)
        generator = {"generator": {"model": backbone.model, "template": backbone.template}}
        plain = merged(self.keys["prepare"], generator, backbone.prepare)
        keys = merged(plain, system.prepare) if system else plain
        used = dict.fromkeys(self.systems[one] for table in self.config.tables for one in table.systems)
        sharing = [one for one in used if merged(plain, one.prepare) == keys]
        shared = None
        if sharing:
            needs = dict.fromkeys(need for one in sharing for need in one.needs)
            # Data that need other keys than the recipe's are called by the first system that needs them.
            own_name = "" if keys == plain else f"_{sharing[0].name}"
            shared = keys | {
                "name": f"{self.config.name}_{name}{own_name}",
                "systems": list(needs),
                "source_lang": self.config.source_lang,
                "dataset_dir": str(self.config.folder / "data"),
                "work_dir": str(self.config.folder / "prepare"),
                "overwrite": True,
            }
        self._shared[name, system] = shared
        return shared

    def _prepare_keys(self, backbone: str, code: str, system: System) -> dict[str, Any]:
        keys = self._data_keys(backbone, code, system)
        assert keys is not None  # the system itself needs them
        return keys

    def _train_keys(self, training: _Training) -> dict[str, Any]:
        backbone = self._backbone(training.backbone)
        data = self._prepare_keys(training.backbone, training.language, training.system)
        keys = merged(self.keys["train"], backbone.train, self.config.budgets[training.budget])
        keys |= {
            "model_name_or_path": backbone.model,
            "dataset_dir": data["dataset_dir"],
            "dataset": ",".join(f"{data['name']}_{training.language}_{name}" for name in training.system.sets),
            "seed": training.seed,
            "output_dir": str(self._folder(training.id) / "train"),
            # A training that was killed goes on from its last checkpoint, early stopping with its count.
            "restore_callback_states_from_checkpoint": True,
        }
        keys.pop("overwrite_output_dir", None)
        return keys | ({"template": backbone.template} if backbone.template else {})

    def _export_keys(self, training: _Training) -> dict[str, Any]:
        train, folder = self._train_keys(training), self._folder(training.id)
        keys = dict(self.keys["export"])
        keys.pop("adapter_name_or_path", None)
        keys.pop("finetuning_type", None)
        keys["export_dir"] = str(folder / "export")
        if train.get("finetuning_type", "lora") == "lora":
            keys |= {"adapter_name_or_path": train["output_dir"], "finetuning_type": "lora"}
        keys["model_name_or_path"] = train["model_name_or_path" if "finetuning_type" in keys else "output_dir"]
        return keys | ({"template": train["template"]} if "template" in train else {})

    def _eval_keys(self, name: str, code: str, model: str) -> dict[str, Any]:
        backbone = self._backbone(name)
        keys = merged(self.keys["eval"], {"model": model, "template": backbone.template}, backbone.eval)
        return keys | {"tasks": [task for task in (self._task(dict(t), code) for t in keys.get("tasks", [])) if task]}

    def _task(self, task: dict[str, Any], code: str) -> dict[str, Any] | None:
        """A task of the eval recipe with its languages; None where the benchmark has not the one taught."""
        lacking = _lacking(task, code)
        if lacking:
            name = "" if lacking == task["task"] else f" by {{{lacking}}}"
            self.plan.left_out.append(f"{show.task(task['task'])}{name} has no {LANGUAGES[code].name}")
            return None
        source = self.config.source_lang
        if task["task"] in ("translation", "flores"):
            # A recipe may measure translation with another language than the one that is taught from.
            return {"source_lang": source} | task | {"langs": [code]}
        both = task["task"] != "off_target" and not _lacking(task, source)
        return task | {"langs": [code, source] if both else [code]}


def plan(config: StudyConfig, command: str) -> Plan:
    """The steps of a study. command: how `sdrrl study` is called for it, with its recipe and overrides.

    Raises: UserError about a key of the recipe.
    """
    check(config)
    return _Planner(config, command).build()


def _base(config: StudyConfig, kind: str) -> dict[str, Any]:
    """The keys of a command's recipe: those of the one it starts from, the study's own over it."""
    own = dict(getattr(config, kind))
    start = own.pop("recipe", None)
    if start is None:
        return own
    with under(f"{kind}.recipe"):
        if not isinstance(start, str):
            raise UserError(f"{start!r} is no recipe", "name one of `sdrrl recipes`, or a file")
        return merged(read(start).config, own)


def _lacking(task: dict[str, Any], code: str) -> str:
    """The column of the table of languages that a task needs and the language has not; "" where it has all."""
    columns = {"xlsum": ["xlsum"], "mkqa": ["mkqa"]}.get(task.get("task", ""), [])
    path = str(task.get("path", ""))
    columns += [name for name in ("bactrian", "mkqa", "xlsum", "muse", "iso1", "flores") if f"{{{name}}}" in path]
    return next((name for name in columns if getattr(LANGUAGES[code], name) is None), "")


def _plain(record: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The keys of all recipes without those that say where things are."""
    return {
        kind: {key: value for key, value in keys.items() if key not in _LOCATION[kind]} for kind, keys in record.items()
    }


def _variables(environment: Mapping[str, str]) -> str:
    return "".join(f"{name}={shlex.quote(value)} " for name, value in environment.items())
