"""What the one-line .pth imports at start: it waits for LLaMA-Factory's training workflows and for its web page, and
costs microseconds.

LLaMA-Factory starts one Python process a rank, and its web page starts `llamafactory-cli train` as a child; a hook at
interpreter start is live in every one of them. It runs in every Python process of the environment, so nothing is
imported here that Python has not already imported, until LLaMA-Factory asks for a workflow.
"""

import sys

TYPE_CHECKING = False  # typing's own is an import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


def part_for(module_name: str) -> str | None:
    """What of the plugin goes into a module: "install" (hook.py), "guard" (guard.py), "page" (webui/), or nothing.

    By pattern, not by list: a way to train that a later LLaMA-Factory brings is guarded too.
    """
    if module_name == "llamafactory.train.sft.workflow":
        return "install"
    if module_name.startswith("llamafactory.train.") and module_name.endswith(".workflow"):
        return "guard"
    if module_name.startswith("llamafactory.v1.trainers."):
        return "guard"
    if module_name in ("llamafactory.webui.interface", "llamafactory.webui.control"):
        return "page"
    return None


class WorkflowFinder:
    """Lets Python's own finder find a module, and puts the plugin into it once it has been executed."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        part = part_for(name)
        if part is None:
            return None  # the next finder's
        from functools import partial
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            # The loader is this module's own, so nothing else is changed by it.
            spec.loader.exec_module = partial(_execute, spec.loader.exec_module, part)  # type: ignore[method-assign]
        return spec


def _execute(execute_module: "Callable[[ModuleType], None]", part: str, module: "ModuleType") -> None:
    execute_module(module)
    if part == "install":
        from sdrrl_factory.training.hook import install

        install(module)
    elif part == "page":
        from sdrrl_factory.webui.install import install_page

        install_page(module)
    else:
        from sdrrl_factory.training.guard import guard

        guard(module)


def activate() -> None:
    import os

    # Read at start: to switch the plugin off, set the variable before the process begins.
    if os.environ.get("SDRRL_FACTORY_DISABLE", "").lower() in ("", "0", "false"):
        sys.meta_path.insert(0, WorkflowFinder())


activate()
