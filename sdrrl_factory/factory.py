"""LLaMA-Factory as seen from outside the training: its templates, its parser, its tokenized data.

The one file that reaches into it apart from sdrrl_factory/training, which runs inside it. Everything here is taken from
llamafactory 0.9.5 and imported where it is used: its import takes seconds.
"""

import ast
import contextlib
import copy
import difflib
import importlib.util
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from sdrrl_factory.errors import UserError

# What only training needs; some of it asks for a GPU or a launcher.
_ONLY_TRAINING = (
    "deepspeed",
    "fsdp",
    "fsdp_config",
    "bf16",
    "fp16",
    "pure_bf16",
    "tf32",
    "fp8",
    "report_to",
    "tokenized_path",
)


class TemplateFacts(NamedTuple):
    """What the source of LLaMA-Factory says of a template. needs: the tokens that a model must know to use it."""

    needs: tuple[str, ...]


@cache
def template_facts() -> dict[str, TemplateFacts]:
    """All templates, by name, read off the calls of `register_template`: to import them takes seconds."""
    package = importlib.util.find_spec("llamafactory")
    folders = package.submodule_search_locations if package else None
    if not folders:
        raise UserError("LLaMA-Factory is not installed", "run `pip install llamafactory`")
    tree = ast.parse(Path(folders[0], "data", "template.py").read_text(encoding="utf-8"))
    facts = {}
    for node in tree.body:
        call = node.value if isinstance(node, ast.Expr) else None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "register_template":
            keys = {keyword.arg: keyword.value for keyword in call.keywords}
            facts[ast.literal_eval(keys["name"])] = TemplateFacts(tuple(_needed_tokens(keys)))
    return facts


def _needed_tokens(keys: dict[str | None, ast.expr]) -> list[str]:
    """Of the tokens that end a turn, the one that ends an answer, and those that stand in a prompt."""
    stops = ast.literal_eval(keys["stop_words"]) if "stop_words" in keys else []
    replaces = "replace_eos" in keys and ast.literal_eval(keys["replace_eos"])
    slots = [value for key, value in keys.items() if key and key.startswith("format_")]
    texts = [node.value for slot in slots for node in ast.walk(slot) if isinstance(node, ast.Constant)]
    written = " ".join(text for text in texts if isinstance(text, str))
    return [stop for i, stop in enumerate(stops) if (replaces and i == 0) or stop in written]


def check_template(name: str) -> None:
    """Raises: UserError, without a key, where LLaMA-Factory has no template of that name."""
    names = template_facts()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        fix = f"did you mean {near[0]}?" if near else "leave it out to take the checkpoint's own"
        raise UserError(f"LLaMA-Factory has no template {name!r}", fix)


class PromptFormat(NamedTuple):
    """A template with a tokenizer.

    encode: (user, system) -> the ids of the prompt, as they are trained. stops: the tokens that end an answer.
    """

    encode: Callable[[str, str], list[int]]
    stops: list[int]


def prompt_format(tokenizer: Any, name: str, enable_thinking: bool | None = None) -> PromptFormat:
    """The template's form of a prompt; the tokenizer is mended.

    enable_thinking: of a template of a reasoning model, false puts an empty thought before the answer; null is
        LLaMA-Factory's default, true.

    Raises: UserError, as `check_template`.
    """
    from llamafactory.data.template import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments

    check_template(name)
    # A copy: LLaMA-Factory has one template of each name, and another model in this process may think.
    template = copy.copy(get_template_and_fix_tokenizer(tokenizer, DataArguments(template=name)))
    if enable_thinking is not None:
        template.enable_thinking = enable_thinking

    def encode(user: str, system: str) -> list[int]:
        turns = [{"role": "user", "content": user}, {"role": "assistant", "content": ""}]
        return template.encode_oneturn(tokenizer, turns, system or None)[0]

    stops = [stop for stop in template.get_stop_token_ids(tokenizer) if stop not in (None, tokenizer.unk_token_id)]
    return PromptFormat(encode, stops)


def parse(recipe: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """(model, data, training, finetuning) arguments by LLaMA-Factory's own parser, on any machine.

    Left out is what asks for a GPU or a launcher. Raises: UserError at an unknown key or a wrong value.
    """
    from llamafactory.hparams import parser

    keys = {key: value for key, value in recipe.items() if key not in _ONLY_TRAINING}
    keys |= {"use_cpu": True, "report_to": "none"}
    # Given no folder, the arguments ask for one; nothing is written.
    keys.setdefault("output_dir", "runs/train")
    try:
        # Not `get_train_args`: that one also sets up the process for training, and refuses a machine without a GPU.
        return parser._parse_train_args(keys)[:4]
    except Exception as err:  # each dataclass checks itself in its own way
        raise UserError(f"LLaMA-Factory says: {_first_line(err)}", "mend the recipe") from None


def training_set(model: Any, data: Any, training: Any, stage: str) -> Any:
    """The recipe's training rows as they are trained: formatted, tokenized, cut. The arguments are those of `parse`.

    Raises: UserError where they cannot be read.
    """
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.model import load_tokenizer
    from transformers import set_seed

    set_seed(training.seed)  # LLaMA-Factory draws num_samples from the global generator
    model.model_max_length = data.cutoff_len
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints an example
            tools = load_tokenizer(model)
            template = get_template_and_fix_tokenizer(tools["tokenizer"], data)
            return get_dataset(template, model, data, training, stage=stage, **tools)["train_dataset"]
    except Exception as err:  # its data sets, the hub and the file formats each have their own
        raise UserError(f"the data cannot be read ({_first_line(err)})") from None


def _first_line(err: Exception) -> str:
    return next(iter(str(err).strip().splitlines()), type(err).__name__)
