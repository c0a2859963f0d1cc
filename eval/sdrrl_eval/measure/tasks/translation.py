"""Translation of any parallel text, with sacreBLEU's own tokenizers, which need no file.

A folder of FLORES-200's shape; or line-aligned files, `path: data/ntrex/newstest2019-ref.{lang}.txt`; or rows, a file
a language (`column: text`) or both languages in one (`column: translation.{iso1}`). Both directions are asked as in
Table 1 of the paper. COMET is by unbabel-comet, times 100 as in Table 3.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from sdrrl_eval.measure.metrics import comet, mt
from sdrrl_eval.measure.reading import checked_prompt, has_language_hole, sentences, sentences_path
from sdrrl_eval.measure.task import Item, Part, PromptedTask, Scored
from sdrrl_factory.errors import UserError, under
from sdrrl_factory.languages import Language, language
from sdrrl_factory.models.lm import Generation

# The question of the paper's Table 1 (D_mt).
PROMPT = "Translate the following sentence from {source} to {target}.\n{sentence}"
Metric = Literal["bleu", "chrf", "chrf++", "comet"]


class Translation(PromptedTask):
    """BLEU and chrF, both directions; also chrF++ and COMET."""

    task: Literal["translation"]
    path: str
    """A folder like FLORES's: `spa_Latn.devtest`, a sentence a line, a file a language; or a file with `{lang}` or
    another hole in its name, of lines or rows."""
    column: str = "text"
    """The field of rows, with holes for the language."""
    source_lang: str = "eng"
    """The other language of every pair."""
    prompt: str | None = None
    metrics: list[Metric] = ["bleu", "chrf"]
    tokenizer: str | None = None
    """sacreBLEU's name of BLEU's; null: as suits the language."""
    comet_model: str = "Unbabel/wmt22-comet-da"
    """A folder, a .ckpt file or a hub id."""

    scores = ("bleu", "chrf", "chrf++", "comet")
    answer_tokens = 256

    def libraries(self) -> dict[str, str]:
        return {"unbabel-comet": comet.version()} if "comet" in self.metrics else {}

    def check(self) -> None:
        if "comet" in self.metrics:
            with under("comet_model"):
                comet.scorer(self.comet_model)
        if "bleu" in self.metrics:
            with under("tokenizer"):
                mt.check_tokenizer(self.tokenizer, self.langs)

    def default_examples(self) -> str | None:
        """Of a whole release of FLORES, whose devtest is the test, its dev."""
        folder = Path(self.path)
        return str(folder / "dev") if (folder / "devtest").is_dir() and (folder / "dev").is_dir() else None

    def zero_shot(self) -> list[Part]:
        """Two parts a language: source_lang -> language, and back."""
        prompt = checked_prompt(self.prompt, PROMPT, ("source", "target", "sentence"))
        with under("source_lang"):
            home = language(self.source_lang)
        away = self.languages()
        if home in away:
            raise UserError(f"{home.code} is the source_lang itself", "remove it", key="langs")
        home_file, home_lines = self._sentences(home)
        parts = []
        for lang in away:
            file, lines = self._sentences(lang)
            if file == home_file and not has_language_hole(self.column):
                fix = "write {lang} into it, or into column"
                raise UserError(f"{file} would be both {home.code} and {lang.code}", fix, key="path")
            if len(lines) != len(home_lines):
                raise UserError(
                    f"{home_file} has {len(home_lines)} lines, {file} has {len(lines)}",
                    "make line n of both the same sentence",
                    key="path",
                )
            files = (home_file, file)
            parts.append(self._part(prompt, home, lang, home_lines, lines, files))
            parts.append(self._part(prompt, lang, home, lines, home_lines, files))
        return parts

    def _sentences(self, lang: Language) -> tuple[str, list[str]]:
        """(the language's file, its sentences)."""
        return str(sentences_path(self.path, lang)), sentences(self.path, lang, self.column)

    def _part(
        self,
        prompt: str,
        source: Language,
        target: Language,
        lines: Sequence[str],
        references: Sequence[str],
        files: tuple[str, ...],
    ) -> Part:
        prompt = prompt.replace("{source}", source.name).replace("{target}", target.name)
        items = [
            Item(str(number), prompt.format(sentence=line), reference, {"source": line})
            for number, (line, reference) in enumerate(zip(lines, references, strict=True), 1)
        ]
        return Part(self, source.code, target.code, items, prompt, files=files)

    def score(self, part: Part, answers: list[Generation], likelihoods: list[Any], seed: int) -> Scored:
        """Corpus BLEU, chrF and COMET (section 4.1); an item's line has its own chrF and COMET."""
        outputs, references = [answer.text for answer in answers], part.references
        rows = [
            item.row(answer, chrf=mt.sentence_chrf(answer.text, reference))
            for item, answer, reference in zip(part.items, answers, references, strict=True)
        ]
        scores = []
        if "bleu" in self.metrics:
            bleu = mt.bleu(outputs, references, part.target_lang, seed, self.tokenizer)
            scores.append(part.score("bleu", bleu))
        if "chrf" in self.metrics:
            scores.append(part.score("chrf", mt.chrf(outputs, references, seed)))
        if "chrf++" in self.metrics:
            scores.append(part.score("chrf++", mt.chrf(outputs, references, seed, word_order=2)))
        if "comet" in self.metrics:
            sources = [item.texts["source"] for item in part.items]
            with under("comet_model"):
                whole, each = comet.comet(comet.scorer(self.comet_model), sources, outputs, references, seed)
            rows = [row | {"comet": value} for row, value in zip(rows, each, strict=True)]
            scores.append(part.score("comet", whole))
        return rows, scores
