"""The demo's translations: FLORES-200's task with sacreBLEU's own tokenizers, which need no file, and chrF."""

from sdrrl_eval.measure.tasks.flores import check, read, score

__all__ = ["check", "read", "score"]
