"""The keys of an evaluation recipe."""

from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, JsonValue
from pydantic_core.core_schema import (
    CoreSchema,
    no_info_wrap_validator_function,
    plain_serializer_function_ser_schema,
)

from sdrrl_eval.measure import tasks
from sdrrl_eval.measure.limits import Policy
from sdrrl_eval.measure.task import Task
from sdrrl_eval.measure.task_files import SUFFIXES, task_name, task_of_file
from sdrrl_eval.resampling import SEED
from sdrrl_factory.engine import EngineKeys
from sdrrl_factory.errors import UserError
from sdrrl_factory.memory import beside
from sdrrl_factory.models.prompt_format import check_format
from sdrrl_factory.recipe import Group


@cache
def task_models() -> list[type[Task]]:
    """The `Task` of every file in tasks/, module or YAML: a new file there is a new value of the key `task`."""
    models = []
    for file in iter_modules(tasks.__path__):
        module = import_module(f"{tasks.__name__}.{file.name}")
        for value in vars(module).values():
            # Not what the file has imported.
            if isinstance(value, type) and issubclass(value, Task) and value.__module__ == module.__name__:
                models.append(value)
    models += [task_of_file(str(path), path.stem) for path in task_yamls()]
    return sorted(models, key=task_name)


def task_yamls() -> list[Path]:
    """The files of the tasks that are written in YAML."""
    return [path for folder in tasks.__path__ for path in sorted(Path(folder).glob("*.yaml"))]


class _OwnTasks:
    """An entry whose `task` is the path of a YAML is read by the class that the file makes."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        dumped = plain_serializer_function_ser_schema(_dumped)
        return no_info_wrap_validator_function(_validated, handler(source), serialization=dumped)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        description = "The path of a YAML that describes a task."
        own = {"task": {"pattern": r"\.ya?ml$", "description": description}}
        return {"anyOf": [handler(schema), {"type": "object", "properties": own, "required": ["task"]}]}


def _validated(entry: Any, otherwise: Any) -> Any:
    if isinstance(entry, Task):
        return entry
    path = entry.get("task") if isinstance(entry, dict) else None
    if isinstance(path, str) and path.endswith(SUFFIXES):
        return task_of_file(path, path).model_validate(entry)
    return otherwise(entry)


def _dumped(task: Task) -> dict[str, Any]:
    return task.model_dump(mode="json")


if TYPE_CHECKING:
    AnyTask = Task
else:
    # `task` tells which; another task's key is then an unknown key.
    AnyTask = Annotated[
        Annotated[Union[tuple(task_models())], Field(discriminator="task")], _OwnTasks  # noqa: UP007
    ]


class ServerConfig(Group):
    """An OpenAI-compatible server; `model` is then the name it knows the checkpoint by."""

    base_url: str
    """The address, up to and with /v1."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the server's key."""
    concurrency: int = Field(default=8, ge=1)
    """Requests at a time."""
    timeout: float = Field(default=120.0, ge=0.1)
    """Seconds a request may take."""
    retries: int = Field(default=6, ge=0)
    """Tries after 429, 5xx, timeouts and broken connections, with growing waits."""
    extra_body: dict[str, JsonValue] = {}
    """Further keys of every request to the server, as they are."""
    tokenizer: str | None = None
    """The checkpoint's tokenizer, a folder or a hub id, where likelihoods are asked for; null: `model`."""


class CheckpointKeys(Group):
    """One system of several."""

    model: str
    """As the recipe's; with {lang} a checkpoint for each language of the tasks but English."""
    name: str | None = Field(default=None, pattern=r"^[\w.+-]+$")
    """What it is called in tables and below output_dir; null: the folder's name without {lang}."""
    adapter: str | None = None
    """null: the recipe's."""
    template: str | None = None
    """null: the recipe's."""


class EvalConfig(Group):
    """An evaluation recipe: a checkpoint or several, and what is measured of them."""

    model: str = ""
    """A checkpoint's folder, a hub id, or its name on the server."""
    models: str | list[str | CheckpointKeys] | None = None
    """In place of model, several, the base first; or a pattern: runs/export/{lang}_{system}."""
    systems: list[str] = []
    """What {system} in models stands for, the base first; []: all that are there."""
    tasks: list[AnyTask] = Field(min_length=1)
    """What is measured, in this order."""
    output_dir: str
    """Gets results.json and predictions/."""
    memory: str | None = None
    """Where answers are kept, an SQLite file; null: memory.sqlite in the `runs` of output_dir, else beside it."""
    adapter: str | None = None
    """The folder of a LoRA adapter of the model."""
    template: str | None = None
    """The LLaMA-Factory template; null: the checkpoint's own chat template."""
    enable_thinking: bool | None = None
    """Whether a reasoning model thinks first; null: as its template has it. Thoughts are never part of an answer."""
    chat_template_kwargs: dict[str, JsonValue] = {}
    """What the checkpoint's own chat template is given besides, here or on the server."""
    system_prompt: str | None = None
    """Before every question; a task may set its own."""
    server: ServerConfig | None = None
    """Asks an OpenAI-compatible server instead of a checkpoint in process."""
    max_samples: int | None = Field(default=None, ge=1)
    """So many items of every file; null takes all."""
    draw: Literal["random", "first"] = "random"
    """Which these are: drawn by `seed` over the whole file, the same in every language, or the first ones."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """The longest answer; null: by task and script. A task may set its own."""
    long_prompts: Policy = "cut"
    """What is done with a prompt that is longer than the context: its article is cut, or the item left out."""
    batch_size: int = Field(default=16, ge=1)
    """A batch halves itself when memory runs out."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    """What the model computes in; auto: bfloat16 on a CPU that multiplies in it, else as null. null: the checkpoint's
    own, and float32 for float16 on a CPU."""
    engine: EngineKeys = Field(default_factory=EngineKeys)
    seed: int = Field(default=SEED, ge=0)
    """Draws the items of `max_samples` and the bootstrap intervals."""

    def memory_path(self) -> Path:
        return Path(self.memory) if self.memory else beside(self.output_dir)


def check(config: EvalConfig) -> None:
    """Say at once which keys do not go together."""
    if bool(config.model) == bool(config.models):
        what = "model and models say the same" if config.model else "no checkpoint"
        raise UserError(what, "name one as model, or several as models", key="models" if config.model else "model")
    for name in ("adapter", "template"):
        if config.server and getattr(config, name):
            raise UserError(f"a server has its own {name}", "remove it, or remove server", key=name)
    if not config.server:
        check_format(config.template, config.chat_template_kwargs)
