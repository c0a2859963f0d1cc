"""The JSON schemas by which an editor completes and checks a recipe while it is written.

    python -m sdrrl_factory.schema yaml_recipes/schema     # after a change to the keys; a test holds them equal

A recipe names its schema in its first line, `# yaml-language-server: $schema=../schema/prepare.json`.
"""

import json
import sys
from pathlib import Path

from pydantic.json_schema import GenerateJsonSchema

from sdrrl_eval.measure.recipe import EvalConfig
from sdrrl_factory.recipe import Group
from sdrrl_factory.study.recipe import StudyConfig
from sdrrl_factory.transfer.recipe import PrepareConfig


class _Untitled(GenerateJsonSchema):
    """Without a title for each key, which would only say its name again ("Max New Tokens")."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def schemas() -> dict[str, str]:
    """File name -> the schema as JSON: types, defaults, bounds and what each key does."""
    models: dict[str, type[Group]] = {"prepare.json": PrepareConfig, "eval.json": EvalConfig, "study.json": StudyConfig}
    return {
        name: json.dumps(model.model_json_schema(schema_generator=_Untitled), indent=2, ensure_ascii=False) + "\n"
        for name, model in models.items()
    }


if __name__ == "__main__":
    for name, text in schemas().items():
        Path(sys.argv[1], name).write_text(text, encoding="utf-8")
