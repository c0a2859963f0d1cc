"""The tables of keys in docs/recipes.md, each written from its model.

    python -m sdrrl_factory.recipe_docs docs/recipes.md     # after a change to the keys; a test holds them equal

What a key takes, its default and what it does are changed in the model, never in the page. The prose around the tables
is the page's own.
"""

import re
import sys
from pathlib import Path

from sdrrl_eval.measure.recipe import CheckpointKeys, EvalConfig, ServerConfig
from sdrrl_eval.measure.row_task import RowTask
from sdrrl_eval.measure.task import PromptedTask, Task
from sdrrl_factory.engine import EngineKeys
from sdrrl_factory.key_table import table
from sdrrl_factory.recipe import Group
from sdrrl_factory.study import recipe as study
from sdrrl_factory.transfer import recipe as prepare

# The name in the page's `<!-- keys: NAME -->` -> the model whose keys stand below it.
MODELS: dict[str, type[Group]] = {
    "prepare": prepare.PrepareConfig,
    "instructions": prepare.Source,
    "instructions.columns": prepare.Columns,
    "generator": prepare.Generator,
    "sampling": prepare.Sampling,
    "translator": prepare.Translator,
    "quality": prepare.Quality,
    "filters": prepare.Filters,
    "language_id": prepare.LanguageId,
    "code_switch": prepare.CodeSwitch,
    "parallel": prepare.Parallel,
    "parallel.columns": prepare.PairColumns,
    "engine": EngineKeys,
    "eval": EvalConfig,
    "eval models": CheckpointKeys,
    "eval server": ServerConfig,
    "eval tasks": Task,
    "eval tasks that ask": PromptedTask,
    "eval tasks of rows": RowTask,
    "study": study.StudyConfig,
    "study backbones": study.Backbone,
    "study tables": study.StudyTable,
    "study own_systems": study.OwnSystem,
    "study resources": study.Resources,
}
_SECTION = re.compile(r"(<!-- keys: (.+?) -->\n).*?(<!-- keys end -->)", re.DOTALL)


def written(text: str) -> str:
    """`text` with its tables as the models are now.

    Raises: ValueError where a model has no table, or a table no model.
    """
    names = [match[2] for match in _SECTION.finditer(text)]
    if sorted(names) != sorted(MODELS):
        raise ValueError(f"tables for {sorted(names)}, models for {sorted(MODELS)}")
    return _SECTION.sub(lambda match: f"{match[1]}\n{table(MODELS[match[2]], _inherited(match[2]))}\n{match[3]}", text)


def _inherited(name: str) -> set[str]:
    """The keys that stand in the table of a model it is derived from."""
    model = MODELS[name]
    bases = [base for base in MODELS.values() if base is not model and issubclass(model, base)]
    return {key for base in bases for key in base.model_fields}


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
