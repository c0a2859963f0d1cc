"""Puts the tab into LlamaBoard: `create_ui` is wrapped, LLaMA-Factory's own page is built first and left as it is.

llamafactory.webui.interface  create_ui: the tab is added behind its own tabs
                              run_web_ui: the loopback is the default address
llamafactory.webui.control    gen_loss_plot: the loss of each subset below LLaMA-Factory's curve
"""

import functools
import os
from collections.abc import Callable
from typing import Any


def install_page(module: Any) -> None:
    """Into one of the two freshly imported modules above (tested with LLaMA-Factory 0.9.5 and gradio 5.50)."""
    if module.__name__.endswith(".interface"):
        _install_interface(module)
    else:
        _install_control(module)


def _install_interface(interface: Any) -> None:
    create, run = getattr(interface, "create_ui", None), getattr(interface, "run_web_ui", None)
    if create is None or run is None or not hasattr(interface, "Engine"):
        print("sdrrl: this LLaMA-Factory's page is none that the plugin knows: it opens without the tab SDRRL")
        return
    interface.create_ui = functools.update_wrapper(functools.partial(_create_ui, interface, create), create)
    interface.run_web_ui = functools.update_wrapper(functools.partial(_run_web_ui, run), run)


def _install_control(control: Any) -> None:
    draw = getattr(control, "gen_loss_plot", None)
    if draw is not None:
        control.gen_loss_plot = functools.update_wrapper(functools.partial(_draw_losses, draw), draw)


def _create_ui(interface: Any, create: Callable, demo_mode: bool = False) -> Any:
    """LLaMA-Factory's page with the tab; its demonstration, where nobody may start anything, has none."""
    if demo_mode:
        return create(demo_mode)
    make_engine, engines = interface.Engine, []

    def make(*args: Any, **kwargs: Any) -> Any:
        engines.append(make_engine(*args, **kwargs))
        return engines[-1]

    # The engine knows the page's components by name; `create_ui` keeps it to itself.
    interface.Engine = make
    try:
        page = create(demo_mode)
    finally:
        interface.Engine = make_engine
    from sdrrl_factory.webui.tab import add_tab

    add_tab(page, engines[0])
    return page


def _run_web_ui(run: Callable) -> None:
    """LLaMA-Factory listens on every address; with a tab that starts commands, others than one's own are asked for."""
    if not os.environ.get("GRADIO_SERVER_NAME"):
        ipv6 = os.environ.get("GRADIO_IPV6", "0").lower() in ("true", "y", "1")
        os.environ["GRADIO_SERVER_NAME"] = "[::1]" if ipv6 else "127.0.0.1"
        print("sdrrl: the page listens to this machine alone; GRADIO_SERVER_NAME=0.0.0.0 opens it to others")
    run()


def _draw_losses(draw: Callable, trainer_log: list[dict[str, Any]]) -> Any:
    from sdrrl_factory.webui.losses import add_subset_losses

    return add_subset_losses(draw(trainer_log), trainer_log)
