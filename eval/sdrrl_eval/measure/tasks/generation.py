"""Any questions with reference answers, a row each: written answers compared with the references.

BLEU and chrF of the whole, ROUGE as of XL-SUM, F1 and exact match with MKQA's normalisation; `answer_loss` is the
cross-entropy of the reference (nats a token). Of several accepted answers (a list in the row) the best counts, for F1
and exact match; the other metrics compare with one.
"""

from importlib.metadata import version
from typing import Any, Literal

from sdrrl_eval.measure.metrics import mkqa, mt
from sdrrl_eval.measure.metrics.rouge import Rouge
from sdrrl_eval.measure.metrics.score import Score, ratio, token_loss
from sdrrl_eval.measure.row_task import RowTask
from sdrrl_eval.measure.task import Item, Part, Scored
from sdrrl_factory.errors import UserError, under
from sdrrl_factory.languages import LANGUAGES, Language
from sdrrl_factory.models.lm import Generation as Answer
from sdrrl_factory.models.remembered import RememberedModel

Metric = Literal["bleu", "chrf", "chrf++", "rouge1", "rougeL", "f1", "em", "answer_loss"]
_CORPUS, _ROUGE, _BEST = {"bleu", "chrf", "chrf++"}, {"rouge1", "rougeL"}, {"f1", "em"}
_SEPARATOR = "\n"  # of several accepted answers in an item's reference


class Generation(RowTask):
    """BLEU, chrF, ROUGE, F1 or exact match of the answer, or cross-entropy of the reference."""

    task: Literal["generation"]
    metrics: list[Metric]
    tokenizer: Literal["rouge-score", "xlsum"] | None = None
    """What cuts ROUGE's words; null: rouge-score for English, else xlsum."""
    bleu_tokenizer: str | None = None
    """sacreBLEU's name of BLEU's; null: as suits the language."""

    scores = ("bleu", "chrf", "chrf++", "rouge1", "rougeL", "f1", "em", "answer_loss")
    answer_tokens = 256

    def without_likelihoods(self) -> str:
        others = ", ".join(name for name in self.metrics if name != "answer_loss") or "chrf"
        return f"set metrics: [{others}]" if "answer_loss" in self.metrics else ""

    def libraries(self) -> dict[str, str]:
        return {"rouge-score": version("rouge-score")} if _ROUGE & set(self.metrics) else {}

    def check(self) -> None:
        if _ROUGE & set(self.metrics):
            for lang in self.languages():
                Rouge(lang, self.tokenizer)
        if "bleu" in self.metrics:
            with under("bleu_tokenizer"):
                mt.check_tokenizer(self.bleu_tokenizer, self.langs)

    @property
    def _takes_the_best(self) -> bool:
        """Whether an item may have several accepted answers."""
        return set(self.metrics) <= _BEST

    def reference(self, lang: Language, row: dict, at: str) -> str | None:
        accepted = self.accepted(lang, row, at)
        if self._takes_the_best:
            # To F1 and exact match all white space is alike.
            return _SEPARATOR.join(" ".join(answer.split()) for answer in accepted) or None
        if len(accepted) > 1:
            other = next(name for name in self.metrics if name not in _BEST)
            raise UserError(f"{other} compares with one answer, here are {len(accepted)}", "take f1 and em", at=at)
        return accepted[0] if accepted else None

    def solution(self, item: Item) -> str:
        answer = item.reference or ""
        return answer.split(_SEPARATOR)[0] if self._takes_the_best else answer

    def likelihoods(self, part: Part, model: RememberedModel, batch_size: int) -> list[tuple[float, int]]:
        """(nats, tokens) of the reference answers."""
        if "answer_loss" not in self.metrics:
            return []
        pairs = [(item.prompt or "", item.reference or "") for item in part.items]
        return model.answer_loss(pairs, batch_size, part.system_prompt)

    def score(self, part: Part, answers: list[Answer], likelihoods: list[Any], seed: int) -> Scored:
        """The metrics of the recipe in their order; an item's line has its own chrF, ROUGE, F1 and exact match."""
        metrics = [name for name in self.scores if name in self.metrics]
        lang = LANGUAGES[part.target_lang]
        pairs = [(answer.text, reference) for answer, reference in zip(answers, part.references, strict=True)]
        own: dict[str, list[float]] = {}  # metric -> each item's
        scores: dict[str, Score] = {}
        # 1. Of the whole: BLEU and chrF of all answers together.
        if _CORPUS & set(metrics):
            own["chrf"] = [mt.sentence_chrf(*pair) for pair in pairs]
            outputs, references = [output for output, _ in pairs], part.references
            scores["bleu"] = mt.bleu(outputs, references, lang.code, seed, self.bleu_tokenizer)
            scores["chrf"] = mt.chrf(outputs, references, seed)
            scores["chrf++"] = mt.chrf(outputs, references, seed, word_order=2)
        # 2. Means over items.
        if _ROUGE & set(metrics):
            rouge = Rouge(lang, self.tokenizer)
            values = [rouge.f1(*pair) for pair in pairs]
            for name in _ROUGE & set(metrics):
                own[name] = [round(100 * value[name], 2) for value in values]
                scores[name] = rouge.score([value[name] for value in values], seed)
        # MKQA's normalisation takes off a language's articles where it knows them.
        code = lang.mkqa or lang.code
        for name in _BEST & set(metrics):
            own[name] = [mkqa.METRICS[name](output, self._accepted_in(reference), code) for output, reference in pairs]
            scores[name] = ratio([(value, 1.0) for value in own[name]], f"mkqa|norm:{code}", seed, scale=100)
        rows = [
            item.row(answer, **{name: own[name][i] for name in ("chrf", *metrics) if name in own})
            for i, (item, answer) in enumerate(zip(part.items, answers, strict=True))
        ]
        # 3. The loss of the references.
        if "answer_loss" in metrics:
            rows = [row | {"nats": nats, "tokens": n} for row, (nats, n) in zip(rows, likelihoods, strict=True)]
            scores["answer_loss"] = token_loss(likelihoods, "eos:no", seed)
        return rows, [part.score(name, scores[name]) for name in metrics]

    def _accepted_in(self, reference: str) -> list[str]:
        return reference.split(_SEPARATOR) if self._takes_the_best else [reference]
