"""What the one-line .pth imports at start: it waits for LLaMA-Factory's training workflows and costs microseconds.

LLaMA-Factory starts one Python process a rank, and its web page starts `llamafactory-cli train` as a child; a hook at
interpreter start is live in every one of them.
"""

import sys

_SFT = "llamafactory.train.sft.workflow"


def _part_for(name: str) -> str | None:
    """What the plugin puts into the module `name`: a function of hook.py, or nothing.

    By pattern, not by list: a way to train that a later LLaMA-Factory brings is guarded too.
    """
    if name == _SFT:
        return "install"
    if name.startswith("llamafactory.train.") and name.endswith(".workflow"):
        return "guard"
    return "guard" if name.startswith("llamafactory.v1.trainers.") else None


class _Finder:
    """Lets the other finders find a workflow, and has the plugin put into it once it is executed."""

    def find_spec(self, name, path=None, target=None):
        part = _part_for(name)
        if part is None:
            return None
        from functools import partial
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = partial(_execute, spec.loader.exec_module, part)
        return spec


def _execute(run, part: str, module) -> None:
    run(module)
    from sdrrl_factory.training import hook

    getattr(hook, part)(module)


def activate() -> None:
    import os

    # Read at start: to switch the plugin off, set the variable before the process begins.
    if os.environ.get("SDRRL_FACTORY_DISABLE", "").lower() in ("", "0", "false"):
        sys.meta_path.insert(0, _Finder())


activate()
