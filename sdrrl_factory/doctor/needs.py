"""Whether a recipe has what it names: files, checkpoints, servers, language packages.

The checks are those that the commands make before work; here each is made for itself, so that no failure hides another.
A check returns what is there, or raises the `UserError` that the command would end with.
"""

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sdrrl_factory.doctor.finding import Finding, attempt, failure
from sdrrl_factory.doctor.installed import deepspeed
from sdrrl_factory.errors import Mistakes, UserError, under
from sdrrl_factory.recipe import Recipe, load

if TYPE_CHECKING:
    from sdrrl_eval.measure.recipe import EvalConfig
    from sdrrl_factory.transfer.recipe import Generator, PrepareConfig, Source, Translator


def needs(kind: str, recipe: Recipe[dict[str, Any]], overrides: Sequence[str]) -> list[Finding]:
    """What there is to say of a recipe of the kind (prepare, train, export, eval)."""
    try:
        if kind == "train":
            return _train(recipe)
        if kind == "export":
            return _export(recipe)
        return _prepare(recipe, overrides) if kind == "prepare" else _eval(recipe, overrides)
    except Mistakes as err:
        return [failure("keys", mistake) for mistake in err.mistakes]
    except UserError as err:
        return [failure("keys", err)]
    except ImportError as err:
        return [Finding("no", "keys", f"cannot be checked ({err})", "mend what is above")]


# --- prepare


def _prepare(recipe: Recipe, overrides: Sequence[str]) -> list[Finding]:
    from sdrrl_factory.transfer import inputs
    from sdrrl_factory.transfer.recipe import PrepareConfig, Source
    from sdrrl_factory.transfer.sets import has_natural, has_own_answers, has_switched, sides

    loaded = load(PrepareConfig, recipe.path, overrides)
    config = loaded.config
    findings = [attempt(loaded, "keys", _languages, config)]
    if findings[0].state == "no":
        return findings
    codes = inputs.target_codes(config)
    for source in config.instructions if isinstance(config.instructions, list) else [config.instructions]:
        source = Source(path=source) if isinstance(source, str) else source
        findings.append(attempt(loaded, "instructions", _instructions, source))
    if has_own_answers(config.systems):
        findings.append(attempt(loaded, "generator", _generator, config))
        findings += _model_of(loaded, "generator", config.generator)
    if sides(config.systems):
        findings += [attempt(loaded, "translator", _translator, config, code) for code in codes]
        findings += _model_of(loaded, "translator", config.translator)
        findings += [attempt(loaded, "quality", _quality, config, code) for code in codes]
        findings.append(attempt(loaded, "language id", _identifier, config))
    for code in codes:
        if config.code_switch.probability and has_switched(config.systems):
            findings.append(attempt(loaded, "dictionary", _dictionary, config, code))
        if config.parallel.size and has_natural(config.systems):
            findings.append(attempt(loaded, "parallel", _parallel, config, code))
    findings.append(attempt(loaded, "folders", _folders, config))
    return findings


def _languages(config: "PrepareConfig") -> str:
    from sdrrl_factory.transfer import inputs

    inputs.languages(config)
    inputs.names(config)
    return f"{config.source_lang} -> {' '.join(inputs.target_codes(config))}"


def _instructions(source: "Source") -> str:
    from sdrrl_factory.models.hub import check_access, is_hub_id
    from sdrrl_factory.transfer import sources

    with under("instructions"):
        # That the hub has it is enough: the check of its rows would download it.
        if is_hub_id(source.path) and not Path(source.path).suffix:
            return f"{source.path}: {check_access(source.path, 'README.md', 'dataset')}"
        sources.check(source)
    return source.path


def _generator(config: "PrepareConfig") -> str:
    from sdrrl_factory.transfer import generate, inputs

    generate.make(config.generator, inputs.memory_of(config))
    return config.generator.backend


def _translator(config: "PrepareConfig", code: str) -> str:
    from sdrrl_factory.transfer import inputs

    inputs.engine(config, code)
    return config.translator.backend


def _model_of(loaded: Recipe, group: str, config: "Generator | Translator") -> list[Finding]:
    """The checkpoint or the server of the generator or the translator."""
    if config.base_url:
        return [attempt(loaded, f"{group} server", _server, config.base_url, f"{group}.base_url")]
    if config.model and config.backend != "ctranslate2":
        return [attempt(loaded, f"{group} model", _checkpoint, config.model, f"{group}.model")]
    return []


def _quality(config: "PrepareConfig", code: str) -> str:
    from sdrrl_factory.transfer import inputs

    return inputs.scorer(config, code) or "none"


def _identifier(config: "PrepareConfig") -> str:
    from sdrrl_factory.transfer import inputs

    return inputs.identifier(config) or "none"


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
    from sdrrl_factory.transfer import inputs, parallel

    with under("parallel"):
        parallel.check(config.parallel)
        # That the hub has it is enough: its pairs would be downloaded.
        if config.parallel.source == "opus-100":
            with under("source"):
                return f"opus-100: {check_access('Helsinki-NLP/opus-100', 'README.md', 'dataset')}"
    pairs, _ = inputs.parallel_text(config, code)
    return f"{config.parallel.source}: {len(pairs.rows)} pairs of {config.source_lang} and {code}"


def _folders(config: "PrepareConfig") -> str:
    from sdrrl_factory.transfer import inputs

    inputs.folders(config)
    return f"{config.dataset_dir}, {config.work_dir}"


# --- train, export


def _train(recipe: Recipe[dict[str, Any]]) -> list[Finding]:
    from sdrrl_factory.factory import parse

    model, data, training, _ = parse(recipe.config)
    findings = [
        Finding("ok", "keys", "known to LLaMA-Factory"),
        attempt(recipe, "template", _template, data.template),
        attempt(recipe, "model", _checkpoint, model.model_name_or_path, "model_name_or_path"),
    ]
    for adapter in model.adapter_name_or_path or []:
        findings.append(attempt(recipe, "adapter", _adapter, adapter, "adapter_name_or_path"))
    for key, names in (("dataset", data.dataset), ("eval_dataset", data.eval_dataset)):
        for name in names or []:
            findings.append(attempt(recipe, f"data {name}", _data_set, data.dataset_dir, name, key))
    if recipe.config.get("deepspeed"):
        steps = training.gradient_accumulation_steps
        findings += [deepspeed(needed=True), attempt(recipe, "ZeRO", _zero, recipe.config["deepspeed"], steps)]
    if recipe.config.get("bf16") and not recipe.config.get("use_cpu"):
        findings.append(attempt(recipe, "bf16", _bf16))
    return findings


def _export(recipe: Recipe[dict[str, Any]]) -> list[Finding]:
    keys = recipe.config
    model = str(keys.get("model_name_or_path"))
    findings = [
        attempt(recipe, "template", _template, keys.get("template")),
        attempt(recipe, "model", _checkpoint, model, "model_name_or_path"),
    ]
    if keys.get("adapter_name_or_path"):
        findings.append(attempt(recipe, "adapter", _adapter, keys["adapter_name_or_path"], "adapter_name_or_path"))
    return findings


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
    entry = entries.get(name)
    if not isinstance(entry, dict):
        raise UserError(f"no entry {name} in {info}", "run `sdrrl prepare`, or mend the name", key=key)
    file = entry.get("file_name")
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


def _eval(recipe: Recipe, overrides: Sequence[str]) -> list[Finding]:
    from sdrrl_eval.measure.recipe import EvalConfig

    loaded = load(EvalConfig, recipe.path, overrides)
    config = loaded.config
    findings = [Finding("ok", "keys", f"{len(config.tasks)} tasks")]
    if config.server:
        findings.append(attempt(loaded, "server", _server, config.server.base_url, "server.base_url"))
    else:
        findings.append(attempt(loaded, "template", _template, config.template))
        findings.append(attempt(loaded, "model", _checkpoint, config.model, "model"))
    if config.adapter:
        findings.append(attempt(loaded, "adapter", _adapter, config.adapter, "adapter"))
    for i, task in enumerate(config.tasks):
        findings.append(attempt(loaded, f"task {task.task}", _task, config, i))
    return findings


def _task(config: "EvalConfig", i: int) -> str:
    from sdrrl_eval.measure.runner import plan

    alone = config.model_copy(update={"tasks": [config.tasks[i]]})
    try:
        parts = plan(alone)
    except UserError as err:
        # The one task of this plan is another one of the recipe's.
        err.key = f"tasks.{i}{err.key.removeprefix('tasks.0')}" if err.key.startswith("tasks.0") else err.key
        raise
    return f"{config.tasks[i].path}: {sum(len(part.items) for part in parts)} items"


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


def _server(base_url: str, key: str) -> str:
    parts = urlsplit(base_url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=5).close()
    except (OSError, ValueError) as err:
        what = f"{base_url}: nobody answers ({err})"
        raise UserError(what, "start the server, or mend base_url", key=key) from None
    return f"{base_url} answers"
