"""SDRRL for LLaMA-Factory: teach an LLM a language by self-distillation from one it masters."""

__version__ = "0.1.0"
