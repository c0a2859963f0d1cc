"""The Python interface: what the commands do, as functions; docs/python.md shows them in a notebook.

Each takes the path of a recipe, with overrides as the command line writes them, or a recipe that `load_recipe` read. A
mistake of the user's is a `UserError` whose text begins with its place in the recipe (file:line: key); nothing exits.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sdrrl_factory.errors import UserError
from sdrrl_factory.recipe import Group, Recipe, kind_of, load, read

if TYPE_CHECKING:
    from sdrrl_eval.measure.recipe import EvalConfig
    from sdrrl_factory.study.recipe import StudyConfig
    from sdrrl_factory.transfer.recipe import PrepareConfig

G = TypeVar("G", bound=Group)


def load_recipe(path: str, overrides: Sequence[str] = ()) -> Recipe[Any]:
    """Read and check a recipe of any kind; the kind is seen from its keys.

    Args:
        path: a YAML file.
        overrides: put over the recipe's keys, each "key=value" or "group.key=value".

    Returns:
        A recipe whose `.config` is a `PrepareConfig`, an `EvalConfig`, or, of LLaMA-Factory's own recipes (train,
        export), a dict; `.locate(key)` tells where a key stands.

    Raises:
        UserError: the file is no recipe, or keys of it are wrong: then all of them are told, one line each.
    """
    return _load(path, overrides)


def prepare(recipe: str | Recipe, overrides: Sequence[str] = ()) -> list[str]:
    """`sdrrl prepare`: make the data sets of every target language; returns their names in dataset_info.json."""
    from sdrrl_factory.transfer import run

    loaded: Recipe[PrepareConfig] = _loaded("prepare", recipe, overrides)
    with loaded.locating():
        return run.prepare(loaded.config, loaded.path)


def dry_run(recipe: str | Recipe, overrides: Sequence[str] = ()) -> dict[str, int]:
    """`sdrrl prepare --dry-run`: what a preparation would have to do, in counts; loads and writes nothing."""
    from sdrrl_factory.transfer import plan

    loaded: Recipe[PrepareConfig] = _loaded("prepare", recipe, overrides)
    with loaded.locating():
        return plan.dry_run(loaded.config)


def evaluate(
    recipe: str | Recipe,
    overrides: Sequence[str] = (),
    training_files: Sequence[str] = (),
    overlap_list: str | None = None,
) -> dict[str, Any]:
    """`sdrrl eval`: measure a checkpoint; returns what results.json holds; of several, {"evaluations", "report"}.

    Args:
        training_files: each score is given once more without the items that stand in these files or data sets.
        overlap_list: a .jsonl or .csv that lists those items; None is overlap.jsonl in the output_dir.
    """
    from sdrrl_eval import systems
    from sdrrl_eval.measure import runner

    loaded: Recipe[EvalConfig] = _loaded("eval", recipe, overrides)
    with loaded.locating():
        if loaded.config.models:
            return systems.run(loaded.config, loaded.path, training_files, overlap_list)
        return runner.run(loaded.config, loaded.path, training_files, overlap_list)


def check_overlap(
    recipe: str | Recipe,
    training_files: Sequence[str],
    overrides: Sequence[str] = (),
    overlap_list: str | None = None,
) -> int:
    """`sdrrl eval --check-overlap`: print which evaluation items stand in training files.

    Returns: 1 if there are any, else 0.
    """
    from sdrrl_eval.measure import overlap, runner

    loaded: Recipe[EvalConfig] = _loaded("eval", recipe, overrides)
    with loaded.locating():
        parts = runner.plan(loaded.config, scoring=False)
        return overlap.check_overlap(parts, training_files, overlap_list)


def load_study(path: str, overrides: Sequence[str] = ()) -> "Recipe[StudyConfig]":
    """Read and check a study's recipe, which `sdrrl study` runs."""
    return _load(path, overrides, "study")


def _loaded(kind: str, recipe: str | Recipe, overrides: Sequence[str]) -> Recipe[Any]:
    """The recipe, read where it is a path; it must be of the kind."""
    if not isinstance(recipe, Recipe):
        return _load(recipe, overrides, kind)
    if overrides:
        raise UserError("overrides for a recipe that is read already", "give them to load_recipe", at=recipe.path)
    if not isinstance(recipe.config, _model(kind)):
        raise _another_kind(recipe.path, kind)
    return recipe


def _load(path: str, overrides: Sequence[str], wanted: str = "") -> Recipe[Any]:
    keys = read(path, overrides)
    # Where no key tells the kind, it is what was asked for: then what is wrong with its keys says more.
    kind = kind_of(keys, wanted)
    if wanted not in ("", kind):
        raise _another_kind(path, wanted)
    return load(_model(kind), path, overrides) if kind in ("study", "prepare", "eval") else keys


def _another_kind(path: str, wanted: str) -> UserError:
    return UserError(f"no recipe for {wanted}", f"`sdrrl recipes` lists those for {wanted}", at=path)


def _model(kind: str) -> type[Group]:
    if kind == "prepare":
        from sdrrl_factory.transfer.recipe import PrepareConfig

        return PrepareConfig
    if kind == "study":
        from sdrrl_factory.study.recipe import StudyConfig

        return StudyConfig
    from sdrrl_eval.measure.recipe import EvalConfig

    return EvalConfig
