"""Whether a recipe has what it names: files, checkpoints, servers, language packages.

The checks are those that the commands make before work; here each is made for itself, so that no failure hides another.
A check returns what is there, or raises the `UserError` that the command would end with.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrrl_factory.doctor.finding import Finding, attempt, failure
from sdrrl_factory.doctor.installed import deepspeed
from sdrrl_factory.errors import Mistakes, UserError, under
from sdrrl_factory.recipe import Recipe, load

if TYPE_CHECKING:
    from sdrrl_eval.measure.recipe import EvalConfig
    from sdrrl_eval.measure.task import Part
    from sdrrl_factory.study.recipe import StudyConfig
    from sdrrl_factory.transfer.recipe import PrepareConfig


def needs(kind: str, recipe: Recipe[dict[str, Any]], overrides: Sequence[str]) -> Iterator[Finding]:
    """What there is to say of a recipe of the kind (prepare, train, export, eval, study), as it is found."""
    try:
        if kind == "train":
            yield from _train(recipe)
        elif kind == "export":
            yield from _export(recipe)
        elif kind == "prepare":
            yield from _prepare(recipe, overrides)
        elif kind == "study":
            yield from _study(recipe, overrides)
        else:
            yield from _eval(recipe, overrides)
    except Mistakes as err:
        yield from [failure("keys", mistake) for mistake in err.mistakes]
    except UserError as err:
        yield failure("keys", err)
    except ImportError as err:
        yield Finding("no", "keys", f"cannot be checked ({err})", "mend what is above")


# --- prepare


def _prepare(recipe: Recipe, overrides: Sequence[str]) -> Iterator[Finding]:
    from sdrrl_factory.transfer import inputs
    from sdrrl_factory.transfer.recipe import PrepareConfig
    from sdrrl_factory.transfer.sets import has_natural, has_switched

    loaded = load(PrepareConfig, recipe.path, overrides)
    config = loaded.config
    for check in inputs.checks(config):
        finding = attempt(loaded, check.what, check.look)
        yield finding
        if check.what == "keys" and finding.state == "no":
            return
    for code in inputs.target_codes(config):
        if config.code_switch.probability and has_switched(config.systems):
            yield attempt(loaded, "dictionary", _dictionary, config, code)
        if config.parallel.size and has_natural(config.systems):
            yield attempt(loaded, "parallel", _parallel, config, code)


def _dictionary(config: "PrepareConfig", code: str) -> str:
    from sdrrl_factory.transfer import inputs

    name = inputs.dictionary_name(config, code)
    if name == "induced":
        return "induced from the parallel text"
    if name == "none":
        return "none: no question is code-switched"
    forward, backward, _ = inputs.dictionary(config, code, [])
    return f"{name}: {config.source_lang}-{code} {len(forward)} words, back {len(backward)}"


def _parallel(config: "PrepareConfig", code: str) -> str:
    from sdrrl_factory.models.hub import check_access
    from sdrrl_factory.transfer import inputs

    # That the hub has it is enough: its pairs would be downloaded.
    if config.parallel.source == "opus-100":
        with under("parallel.source"):
            return f"opus-100: {check_access('Helsinki-NLP/opus-100', 'README.md', 'dataset')}"
    pairs, _ = inputs.parallel_text(config, code)
    return f"{config.parallel.source}: {len(pairs.rows)} pairs of {config.source_lang} and {code}"


# --- train, export


def _train(recipe: Recipe[dict[str, Any]]) -> Iterator[Finding]:
    from sdrrl_factory.factory import parse

    model, data, training, _ = parse(recipe.config)
    yield Finding("ok", "keys", "known to LLaMA-Factory")
    yield attempt(recipe, "template", _template, data.template)
    yield attempt(recipe, "model", _checkpoint, model.model_name_or_path, "model_name_or_path")
    for adapter in model.adapter_name_or_path or []:
        yield attempt(recipe, "adapter", _adapter, adapter, "adapter_name_or_path")
    for key, names in (("dataset", data.dataset), ("eval_dataset", data.eval_dataset)):
        for name in names or []:
            yield attempt(recipe, f"data {name}", _data_set, data.dataset_dir, name, key)
    if recipe.config.get("deepspeed"):
        yield deepspeed(needed=True)
        yield attempt(recipe, "ZeRO", _zero, recipe.config["deepspeed"], training.gradient_accumulation_steps)
    if recipe.config.get("bf16") and not recipe.config.get("use_cpu"):
        yield attempt(recipe, "bf16", _bf16)


def _export(recipe: Recipe[dict[str, Any]]) -> Iterator[Finding]:
    keys = recipe.config
    yield attempt(recipe, "template", _template, keys.get("template"))
    yield attempt(recipe, "model", _checkpoint, str(keys.get("model_name_or_path")), "model_name_or_path")
    if keys.get("adapter_name_or_path"):
        yield attempt(recipe, "adapter", _adapter, keys["adapter_name_or_path"], "adapter_name_or_path")


def _template(name: str | None) -> str:
    from sdrrl_factory.factory import check_template

    with under("template"):
        if name:
            check_template(name)
    return name or "the checkpoint's own"


def _data_set(folder: str, name: str, key: str) -> str:
    info = Path(folder) / "dataset_info.json"
    try:
        entries = json.loads(info.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("no such file", "run `sdrrl prepare`, or mend dataset_dir", at=str(info)) from None
    except (OSError, ValueError) as err:
        raise UserError(f"cannot be read ({str(err).splitlines()[0]})", "mend it", at=str(info)) from None
    if not isinstance(entries, dict):
        raise UserError("no JSON object of data sets", "mend it", at=str(info))
    entry = entries.get(name)
    if not isinstance(entry, dict):
        raise UserError(f"no entry {name} in {info}", "run `sdrrl prepare`, or mend the name", key=key)
    file = entry.get("file_name")
    if file is not None and not isinstance(file, str):
        what = f"file_name of {name} is {json.dumps(file)[:60]}, LLaMA-Factory takes one path"
        raise UserError(what, "make an entry of each file", at=str(info))
    if file and not Path(folder, file).exists():
        raise UserError("no such file", "run `sdrrl prepare` again", at=str(Path(folder, file)))
    block = entry.get("sdrrl")
    subset = f"subset {block.get('subset')}" if isinstance(block, dict) else "no sdrrl block"
    return f"{file or 'not a file'}; {subset}"


def _zero(settings: str | dict[str, Any], accumulations: int) -> str:
    """DeepSpeed's settings: the path of a JSON file, or the recipe has them itself."""
    from sdrrl_factory.training.limits import check_offload

    file = "" if isinstance(settings, dict) else settings
    if not isinstance(settings, dict):
        try:
            settings = json.loads(Path(file).read_text(encoding="utf-8"))
        except FileNotFoundError:
            fix = "`sdrrl recipes cp` copies it, or mend the path"
            raise UserError(f"{file} not found", fix, key="deepspeed") from None
        except (OSError, ValueError) as err:
            what = f"no DeepSpeed settings ({type(err).__name__}: {err})"
            raise UserError(what, "mend the file", at=file) from None
    zero = settings.get("zero_optimization") if isinstance(settings, dict) else None
    if not isinstance(zero, dict) or "stage" not in zero:
        what = "no DeepSpeed settings (zero_optimization.stage is missing)"
        raise UserError(what, "mend the file", at=file, key="deepspeed")
    check_offload(zero, accumulations)
    return f"{file or 'in the recipe'}: stage {zero['stage']}"


def _bf16() -> str:
    import torch

    if not torch.cuda.is_available() or not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError("no GPU here that knows bfloat16", "train on one, or set use_cpu: true or fp16", key="bf16")
    return "the GPU knows it"


# --- eval


def _eval(recipe: Recipe, overrides: Sequence[str]) -> Iterator[Finding]:
    from sdrrl_eval.measure.recipe import EvalConfig
    from sdrrl_eval.systems import checkpoints
    from sdrrl_factory.models.server import check_listens

    loaded = load(EvalConfig, recipe.path, overrides)
    config = loaded.config
    yield Finding("ok", "keys", f"{len(config.tasks)} tasks")
    if config.server:
        yield attempt(loaded, "server", _under, "server.base_url", check_listens, config.server.base_url)
    else:
        yield attempt(loaded, "template", _template, config.template)
        for one in checkpoints(config) if config.models else []:
            yield attempt(loaded, "model", _checkpoint, one.config.model, "models")
        if config.model:
            model = attempt(loaded, "model", _checkpoint, config.model, "model")
            yield model
            if model.state == "ok":
                yield attempt(loaded, "prompts", _prompts, config.model, config.template)
    if config.adapter and config.model:
        yield attempt(loaded, "adapter", _adapter, config.adapter, "adapter")
    for i, task in enumerate(config.tasks):
        yield attempt(loaded, f"task {task.task}", _task, config, i)


def _under(key: str, check: Callable[..., str], *args: Any) -> str:
    with under(key):
        return check(*args)


def _prompts(model: str, template: str | None) -> str:
    from sdrrl_factory.models.prompts import check_prompts

    check_prompts(model, template)
    return f"{model} knows the tokens of {template or 'its own chat template'}"


def _task(config: "EvalConfig", i: int) -> str:
    from sdrrl_eval.measure.runner import plan

    alone = config.model_copy(update={"tasks": [config.tasks[i]]})
    try:
        parts = plan(alone)
    except UserError as err:
        # The one task of this plan is another one of the recipe's.
        err.key = f"tasks.{i}{err.key.removeprefix('tasks.0')}" if err.key.startswith("tasks.0") else err.key
        raise
    return f"{config.tasks[i].path}: {sum(len(part.items) for part in parts)} items{_too_long(config, parts)}"


def _too_long(config: "EvalConfig", parts: list["Part"]) -> str:
    """In words, how many prompts the context of a checkpoint that is here has no room for; "" where all fit."""
    from sdrrl_eval.measure.checkpoint import Lengths
    from sdrrl_eval.measure.limits import too_long
    from sdrrl_factory.models.hub import local_folder

    if config.server or not config.model or local_folder(config.model) is None:
        return ""
    try:
        lengths = Lengths(config.model)
    except Exception:  # what a broken checkpoint raises; what is wrong with it is told of the model
        return ""
    count = sum(len(too_long(part, lengths)) for part in parts)
    how = "cut at the article's end or left out" if config.long_prompts == "cut" else "left out"
    return f"; {count} prompts longer than the context of {lengths.window()[0]} tokens: {how}" if count else ""


# --- study


def _study(recipe: Recipe, overrides: Sequence[str]) -> Iterator[Finding]:
    from sdrrl_factory.study.checks import snakemake_version
    from sdrrl_factory.study.recipe import StudyConfig

    loaded = load(StudyConfig, recipe.path, overrides)
    yield attempt(loaded, "snakemake", snakemake_version)
    yield attempt(loaded, "steps", _steps, loaded)


def _steps(loaded: "Recipe[StudyConfig]") -> str:
    from sdrrl_factory.study.checks import check_recipes
    from sdrrl_factory.study.plan import plan

    planned = plan(loaded.config, "")
    check_recipes(loaded, planned)
    return f"{len(planned.steps)}, and what their recipes name is there"


# --- of several kinds


def _checkpoint(name: str, key: str) -> str:
    from sdrrl_factory.models.checkpoint import check_checkpoint
    from sdrrl_factory.models.hub import check_access, is_hub_id

    with under(key):
        check_checkpoint(name)
        return f"{name}: {check_access(name, 'config.json')}" if is_hub_id(name) else name


def _adapter(name: str, key: str) -> str:
    from sdrrl_factory.models.hub import check_access, is_hub_id

    with under(key):
        if is_hub_id(name):
            return f"{name}: {check_access(name, 'adapter_config.json')}"
        if not Path(name, "adapter_config.json").is_file():
            raise UserError(f"no adapter at {name} (adapter_config.json not found)", "train it first or mend the path")
    return name
