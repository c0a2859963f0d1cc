"""Translation of a FLORES-200 shaped folder in both directions, asked as in the paper's Table 1."""

from sdrrl_eval.metrics import mt
from sdrrl_eval.recipe import TaskConfig
from sdrrl_eval.tasks import flores
from sdrrl_eval.tasks.part import Item, Part
from sdrrl_factory.errors import UserError
from sdrrl_factory.languages import Language, language
from sdrrl_factory.lm import LM, Generation


def prompt(sentence: str, source: Language, target: Language) -> str:
    """The question of the paper's Table 1 (D_mt)."""
    return f"Translate the following sentence from {source.name} to {target.name}.\n{sentence}"


def read(task: TaskConfig, place: str) -> list[Part]:
    """Two parts a language: source_lang -> language, and back."""
    home = language(task.source_lang, f"{place}.source_lang")
    away = [language(code, f"{place}.langs") for code in task.langs]
    if home in away:
        raise UserError(f"{place}.langs: {home.code} is the source_lang itself; remove it")
    home_lines = flores.sentences(task.path, home)
    parts = []
    for lang in away:
        lines = flores.sentences(task.path, lang)
        if len(lines) != len(home_lines):
            one, two = flores.path_of(task.path, home), flores.path_of(task.path, lang)
            raise UserError(
                f"{one} has {len(home_lines)} lines, {two} has {len(lines)}; make line n of both the same sentence"
            )
        parts += [_part(home, lang, home_lines, lines), _part(lang, home, lines, home_lines)]
    return parts


def _part(source: Language, target: Language, sentences: list[str], references: list[str]) -> Part:
    pairs = enumerate(zip(sentences, references, strict=True), 1)
    items = [Item(str(i), prompt(sentence, source, target), reference) for i, (sentence, reference) in pairs]
    return Part("translation", source.code, target.code, items)


def score(part: Part, answers: list[Generation], lm: LM, batch_size: int, seed: int) -> tuple[list[dict], list[dict]]:
    """Corpus BLEU and chrF (section 4.1): (prediction rows, scores); a row's `chrf` is the sentence's own."""
    outputs, references = [a.text for a in answers], [item.reference for item in part.items]
    rows = [
        item.row(answer, chrf=mt.sentence_chrf(answer.text, item.reference))
        for item, answer in zip(part.items, answers, strict=True)
    ]
    return rows, [
        part.score("bleu", mt.bleu(outputs, references, part.target_lang, seed)),
        part.score("chrf", mt.chrf(outputs, references, seed)),
    ]
