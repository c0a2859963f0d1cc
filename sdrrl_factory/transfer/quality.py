"""Reference-free quality estimation: round-trip chrF, where no QE model is to be had (section 3.2.2 uses COMETKiwi)."""

from collections.abc import Callable

from sdrrl_factory.transfer.generate import question
from sdrrl_factory.transfer.store import Batch


def score(batch: Batch, translate_back: Callable[[list[str]], list[str | None]]) -> Batch:
    """+ question_qe, answer_qe in [0, 1]: chrF of the translation, translated back, against the source text."""
    from sacrebleu import sentence_chrf

    def chrf(back: str | None, source: str) -> float:
        return 0.0 if back is None else round(sentence_chrf(back, [source]).score / 100, 4)

    back = {key: translate_back([t or "" for t in batch[key]]) for key in ("instruction_mt", "input_mt", "answer_mt")}
    questions, answers = [], []
    for i in range(len(batch["id"])):
        translated = batch["instruction_mt"][i] is not None and batch["input_mt"][i] is not None
        parts = back["instruction_mt"][i], back["input_mt"][i]
        joined = question(*parts) if translated and None not in parts else None
        questions.append(chrf(joined, question(batch["instruction"][i], batch["input"][i])))
        answers.append(chrf(back["answer_mt"][i], batch["answer"][i]))
    return {**batch, "question_qe": questions, "answer_qe": answers}
