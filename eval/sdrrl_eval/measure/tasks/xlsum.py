"""XL-SUM (Hasan et al. 2021): a news text to be summarised in one sentence.

English: rouge-score with Porter's stemmer. Elsewhere words are cut as by the benchmark's own scorer: no punctuation by
Unicode category, fugashi for Japanese, pythainlp's newmm for Thai, runs of letters and of digits for the rest; stems by
Snowball where it has the language (French, Spanish, Portuguese). Japanese, Korean, Thai, Ukrainian, Indonesian and
Vietnamese give its figures exactly, Japanese with the same UniDic (the benchmark's is the large one; the signature
says `unidic-lite` where that is not installed). One difference is left: the benchmark does not stem stopwords, by a
list that NLTK downloads; here they are stemmed. `tokenizer: xlsum` takes its way for English too.
"""

from importlib.metadata import version
from typing import Any, Literal

from sdrrl_eval.measure.metrics.rouge import Rouge
from sdrrl_eval.measure.reading import checked_prompt, field, file_for, keep
from sdrrl_eval.measure.task import Item, Part, Scored, Task
from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import LANGUAGES, Language
from sdrrl_factory.models.lm import Generation
from sdrrl_factory.rows import read_rows

PROMPT = "Summarize the following text in one sentence in {language}.\n{text}"


class XlSum(Task):
    """ROUGE-1 and ROUGE-L F1."""

    task: Literal["xlsum"]
    path: str
    """The folder of `spanish_test.jsonl` (`XLSum_complete_v2.0.tar.bz2`, csebuetnlp/xl-sum); or a file with `{xlsum}`
    in its name."""
    prompt: str | None = None
    metrics: list[Literal["rouge1", "rougeL"]] = ["rouge1", "rougeL"]
    tokenizer: Literal["rouge-score", "xlsum"] | None = None
    """What cuts words; null: rouge-score for English, else xlsum."""

    scores = ("rouge1", "rougeL")
    answer_tokens = 128
    article = "text"

    def libraries(self) -> dict[str, str]:
        return {"rouge-score": version("rouge-score")}

    def check(self) -> None:
        for lang in self.languages():
            Rouge(lang, self.tokenizer)

    def read(self) -> list[Part]:
        """One part a language, from the official JSONL."""
        prompt = checked_prompt(self.prompt, PROMPT, ("language", "title", "text"))
        return [self._part(lang, prompt) for lang in self.languages()]

    def _part(self, lang: Language, prompt: str) -> Part:
        path = file_for(self.path, "{xlsum}_test.jsonl", lang)
        prompt = prompt.replace("{language}", lang.name)
        items: dict[str, Item] = {}
        for at, number, row in read_rows(path):
            summary, text = field(row, "summary", at), field(row, "text", at)
            asked = prompt.format(title=row.get("title", ""), text=text)
            keep(items, Item(str(row.get("id", number)), asked, summary, {"text": text}), at)
        if not items:
            raise UserError("0 texts", "fetch the official JSONL again", at=path)
        return Part(self, None, lang.code, list(items.values()), prompt)

    def score(self, part: Part, answers: list[Generation], likelihoods: list[Any], seed: int) -> Scored:
        """The mean ROUGE-1 and ROUGE-L F1 in [0, 100]."""
        rouge = Rouge(LANGUAGES[part.target_lang], self.tokenizer)
        names = [name for name in self.scores if name in self.metrics]
        values = [rouge.f1(answer.text, reference) for answer, reference in zip(answers, part.references, strict=True)]
        rows = [
            item.row(answer, **{name: round(100 * value[name], 2) for name in names})
            for item, answer, value in zip(part.items, answers, values, strict=True)
        ]
        return rows, [part.score(name, rouge.score([value[name] for value in values], seed)) for name in names]
