"""What is wrong with the recipes that a study is made of, told before any of its hours of work.

Each command checks its own recipe when its turn comes; here their checks are made at once, and a mistake is told at the
study's key: what `sdrrl eval` would call tasks.0.path is eval.tasks.0.path.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import ValidationError

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.mistakes import mistakes
from sdrrl_factory.recipe import Group, Recipe
from sdrrl_factory.study.plan import Plan
from sdrrl_factory.study.recipe import StudyConfig


def snakemake_version() -> str:
    """Raises: UserError where Snakemake is not installed."""
    try:
        return version("snakemake")
    except PackageNotFoundError:
        raise UserError("study needs Snakemake", "pip install 'sdrrl-factory[study]'") from None


def check_recipes(recipe: Recipe[StudyConfig], planned: Plan) -> None:
    """Check the recipe of every step that is left, but for what the steps before it make.

    Raises: UserError about a key of the study, or at a line of a file of data.
    """
    from sdrrl_eval.measure import runner
    from sdrrl_eval.measure.recipe import EvalConfig
    from sdrrl_factory.transfer import inputs
    from sdrrl_factory.transfer.recipe import PrepareConfig

    # Where the rate is calculated, the train recipe is made from the one of the step `rate`.
    for step, kind in (("prepare", "prepare"), ("eval", "eval"), ("rate", "train"), ("train", "train")):
        seen: list[dict[str, Any]] = []
        for path, keys in planned.recipes.items():
            # A system's recipe differs from another's in what the study itself has filled in.
            filled_in = {"model", "output_dir", "name", "dataset", "seed"}
            own = {key: value for key, value in keys.items() if key not in filled_in}
            if path.name.partition(".")[0] != step or own in seen:
                continue
            seen.append(own)
            with under(kind):
                if kind == "prepare":
                    inputs.check(_model(PrepareConfig, keys, recipe, kind))
                elif kind == "eval":
                    runner.plan(_model(EvalConfig, keys, recipe, kind))
                else:
                    _check_training(keys)


def _model(model: type[Group], keys: dict[str, Any], recipe: Recipe[StudyConfig], kind: str) -> Any:
    try:
        return model.model_validate(keys)
    except ValidationError as err:
        order = list(recipe.lines.values())
        raise mistakes(err, model, keys, lambda key: recipe.line(f"{kind}.{key}"), order) from None


def _check_training(keys: dict[str, Any]) -> None:
    """By LLaMA-Factory's own parser; what a step before fills in is given a value."""
    from sdrrl_factory.factory import parse
    from sdrrl_factory.models.checkpoint import check_checkpoint

    with under("model_name_or_path"):
        check_checkpoint(keys["model_name_or_path"])
    # A rate that is calculated is in no recipe yet; the folder is this run's own, and may hold a checkpoint.
    parse({key: value for key, value in keys.items() if key != "output_dir"})
