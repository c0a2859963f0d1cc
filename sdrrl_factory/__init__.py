"""SDRRL for LLaMA-Factory: teach an LLM a language by self-distillation from one it masters."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdrrl_eval.compare.command import compare
    from sdrrl_factory.interface import check_overlap, dry_run, evaluate, load_recipe, prepare

__version__ = "0.1.0"
__all__ = ["check_overlap", "compare", "dry_run", "evaluate", "load_recipe", "prepare"]


def __getattr__(name: str) -> Any:
    """The functions above, imported when they are asked for: the .pth imports this package in every Python process."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "sdrrl_eval.compare.command" if name == "compare" else "sdrrl_factory.interface"
    return getattr(import_module(module), name)
