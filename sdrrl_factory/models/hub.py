"""The Hugging Face hub: which names are ids on it and which are paths here, what of it is in the cache, what it gives.

The one place that tells them apart. A recipe is often written before the checkpoint it names is trained, so a path that
is not there yet must not be taken for an id, and looked up on the hub.
"""

import re
from pathlib import Path

from sdrrl_factory.errors import UserError
from sdrrl_factory.models.proxy import through_proxy

_PART = r"\w(?:[\w.-]*\w)?"
# Where the shipped recipes, and LLaMA-Factory's examples, write their checkpoints and data.
_FOLDERS = ("models", "runs", "saves", "data")


def is_hub_id(name: str, short: bool = False) -> bool:
    """Whether `name` is meant as a hub's id, organisation/name, and not as a path.

    short: whether ids of one part count too; the hub's first models (gpt2) have them.
    """
    first = name.split("/")[0]
    shaped = re.fullmatch(rf"{_PART}/{_PART}", name) or (short and re.fullmatch(_PART, name))
    return bool(shaped) and first not in _FOLDERS and not Path(first).exists()


def local_folder(model: str) -> Path | None:
    """Where a checkpoint lies: the folder itself, or a hub id's latest snapshot in the cache; None: nowhere here."""
    if Path(model).is_dir():
        return Path(model)
    path = cached_file(model, "config.json") if is_hub_id(model, short=True) else None
    return path.parent if path else None


def cached_file(name: str, file: str, repo_type: str = "model") -> Path | None:
    """A file of a hub's model or data set, where the cache has it."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, file, repo_type=repo_type)
    return Path(path) if isinstance(path, str) else None


def check_access(name: str, file: str, repo_type: str = "model") -> str:
    """Say before hours of work that the hub will not give a model or data set; else where it will come from, in words.

    file: one that every repository of this sort has; if the cache has it, no network is asked.
    """
    from huggingface_hub import auth_check, constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if cached_file(name, file, repo_type):
        return "in the cache"
    if constants.HF_HUB_OFFLINE:
        what = f"{name} cannot be reached (it is not in the cache, and HF_HUB_OFFLINE is set)"
        raise UserError(what, "unset it, or name a local folder")
    try:
        auth_check(name, repo_type=repo_type)
    except GatedRepoError:
        raise UserError(f"{name} is gated", "accept its licence on its page, then `hf auth login`") from None
    except RepositoryNotFoundError:
        raise UserError(f"no {name} on the hub, or no access", "mend the name, or `hf auth login`") from None
    except Exception as err:  # no network: httpx, requests and the hub have an error each
        what = f"{name} cannot be reached{through_proxy(constants.ENDPOINT)} ({type(err).__name__})"
        raise UserError(what, "check the network, or name a local folder") from None
    return "on the hub, downloaded at first use"
