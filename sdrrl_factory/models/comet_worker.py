"""Scores translations with COMET models; a program of its own, for `sdrrl_factory.models.comet`.

The Python that runs it, by path, needs unbabel-comet and nothing of this package. One JSON object a line, in and out:

    {"model": <path of a .ckpt>}        -> {"references": <whether it scores against them>}
    {"model": ..., "rows": [{"src": ..., "mt": ...[, "ref": ...]}, ...]}  -> {"scores": [<one a row>]}
    a failure of either                 -> {"error": "pickle" | "memory" | "file" | "other", "why": <a line>}

A model is loaded at its first request and kept.
"""

import json
import logging
import os
import pickle
import queue
import signal
import sys
import threading
import warnings
from typing import Any


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    # Answers go out alone: whatever else is printed goes to stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests: queue.Queue[dict] = queue.Queue()
    threading.Thread(target=read, args=(requests,), daemon=True).start()
    models: dict = {}
    while True:
        request = requests.get()
        try:
            path = request["model"]
            if path not in models:
                models[path] = load(path)
            model = models[path]
            answer: dict[str, Any] = {"scores": score(model, request["rows"])} if "rows" in request else describe(model)
        except Exception as err:  # what COMET, torch, yaml and transformers raise
            answer = failure(err)
        print(json.dumps(answer), file=answers, flush=True)


def read(requests: queue.Queue) -> None:
    """Ends the process with its input, in the middle of a batch too: the parent is gone."""
    for line in sys.stdin:
        requests.put(json.loads(line))
    os._exit(0)


def load(path: str) -> Any:
    import torch
    from comet import load_from_checkpoint
    from transformers.utils import logging as transformers_logging

    # Lightning (2) and COMET (2.2.7) tell of checkpoints and upgrades; nobody here can act on it.
    for name in ("pytorch_lightning", "lightning_fabric", "comet"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    # A file that passes here holds nothing but weights and plain values, however COMET opens it afterwards.
    if not os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_from_checkpoint(path)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def describe(model: Any) -> dict[str, bool]:
    return {"references": bool(model.requires_references() or "ref" in model.hparams.get("input_segments", []))}


def score(model: Any, rows: list[dict[str, str]]) -> list[float]:
    """What the model's own `predict` gives, without a Trainer for each batch."""
    import torch

    batch = model.prepare_for_inference(rows)
    with torch.inference_mode():
        batch = model.transfer_batch_to_device(batch, model.device, 0)
        return model.predict_step(batch)["scores"].float().tolist()


def failure(err: Exception) -> dict[str, str]:
    import torch

    kind = "other"
    if isinstance(err, pickle.UnpicklingError):
        kind = "pickle"
    elif isinstance(err, (torch.OutOfMemoryError, MemoryError)):
        kind = "memory"
        torch.cuda.empty_cache()
    elif isinstance(err, OSError):
        kind = "file"
    return {"error": kind, "why": (str(err).splitlines() or [type(err).__name__])[0]}


if __name__ == "__main__":
    main()
