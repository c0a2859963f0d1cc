"""What the one-line .pth imports at start: it waits for LLaMA-Factory's SFT workflows and costs microseconds.

LLaMA-Factory starts one Python process a rank, and its web page starts `llamafactory-cli train` as a child; a hook at
interpreter start is live in every one of them.
"""

import sys

# What the plugin does to each of LLaMA-Factory's ways to run SFT.
_WORKFLOWS = {
    "llamafactory.train.sft.workflow": "install",
    "llamafactory.train.hyper_parallel.workflow": "guard",
    "llamafactory.train.mca.workflow": "guard",
    "llamafactory.v1.trainers.sft_trainer": "guard",
}


class _Finder:
    """Lets the other finders find a workflow, and has the plugin put into it once it is executed."""

    def find_spec(self, name, path=None, target=None):
        if name not in _WORKFLOWS:
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            from sdrrl_factory.training import hook

            getattr(hook, _WORKFLOWS[name])(module)

        spec.loader.exec_module = exec_module
        return spec


def activate() -> None:
    import os

    # Read at start: to switch the plugin off, set the variable before the process begins.
    if os.environ.get("SDRRL_FACTORY_DISABLE", "").lower() in ("", "0", "false"):
        sys.meta_path.insert(0, _Finder())


activate()
