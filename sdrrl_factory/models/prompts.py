"""Whether a checkpoint and a template make prompts together: seen from their files, before anything is loaded."""

import json
from pathlib import Path
from typing import Any

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.factory import check_template, template_facts
from sdrrl_factory.models.hub import local_folder


def check_prompts(model: str, template: str | None) -> None:
    """Say before any work that the prompts of a model could not be made, or would have tokens it does not know.

    What lies on a hub yet is told when it is loaded: `LM` looks at the tokenizer itself.

    Args:
        template: LLaMA-Factory's name of it; None: the checkpoint's own chat template.

    Raises: UserError about the key "template" or "model".
    """
    if template:
        with under("template"):
            check_template(template)
    folder = local_folder(model)
    if folder is None:
        return
    config = _json(folder / "tokenizer_config.json")
    if not template:
        if not _has_chat_template(folder, config):
            raise no_chat_template(model)
        ends = {**_json(folder / "special_tokens_map.json"), **config}
        # Other classes have these tokens by default.
        is_plain = config.get("tokenizer_class") in ("PreTrainedTokenizerFast", "PreTrainedTokenizer")
        if is_plain and not ends.get("eos_token") and not ends.get("pad_token"):
            raise no_end(model)
        return
    tokens = _tokens(folder, config)
    missing = [token for token in template_facts()[template].needs if token not in tokens] if tokens else []
    if missing:
        raise lacking_token(model, template, missing[0])


def no_chat_template(model: str) -> UserError:
    return UserError(f"{model} has no chat template", "set `template:` to its LLaMA-Factory template", key="model")


def no_end(model: str) -> UserError:
    what = f"the tokenizer of {model} has neither a token that ends a text (eos) nor one for padding"
    return UserError(what, "set eos_token in its tokenizer_config.json, or name its `template:`", key="model")


def lacking_token(model: str, template: str, token: str) -> UserError:
    what = f"{model} has no token {token}, which LLaMA-Factory's template {template} puts into its prompts"
    return UserError(what, "name the template it was trained with, or null for its own chat template", key="template")


def _json(path: Path) -> dict[str, Any]:
    """What a file of a checkpoint holds; nothing where it is missing or broken, which loading it tells better."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _has_chat_template(folder: Path, config: dict[str, Any]) -> bool:
    files = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
    return bool(config.get("chat_template")) or any((folder / file).exists() for file in files)


def _tokens(folder: Path, config: dict[str, Any]) -> set[str]:
    """The vocabulary; empty where only a library can tell (SentencePiece alone)."""
    whole = _json(folder / "tokenizer.json")
    model = whole.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not vocabulary:
        return set()
    # A unigram model's is a list of (token, score).
    tokens = {entry if isinstance(entry, str) else entry[0] for entry in vocabulary}
    added = [*whole.get("added_tokens", []), *config.get("added_tokens_decoder", {}).values()]
    return tokens | {token["content"] for token in added if isinstance(token, dict) and "content" in token}
