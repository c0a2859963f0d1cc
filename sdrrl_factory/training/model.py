"""The transformers model inside adapters and wrappers."""

import inspect

import torch


def unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """The transformers model inside DDP, DeepSpeed's engine and PEFT's adapters."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def find_decoder(base: torch.nn.Module) -> torch.nn.Module:
    """The part of a transformers model that makes the mask and holds the layers."""
    decoder = base.get_decoder() if hasattr(base, "get_decoder") else base
    # Models that do not know their decoder answer with themselves, or with None.
    return base.base_model if decoder is base or decoder is None else decoder


def forward_arguments(base: torch.nn.Module) -> set[str]:
    """The names that the forward of the model's class takes."""
    return set(inspect.signature(type(base).forward).parameters)
