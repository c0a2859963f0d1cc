"""FLORES-200 (NLLB Team 2022), or any folder of its shape, translated in both directions as asked in Table 1."""

from collections.abc import Sequence
from pathlib import Path

from sdrrl_eval.measure.answers import Answers
from sdrrl_eval.measure.metrics import comet, mt
from sdrrl_eval.measure.recipe import TaskConfig, metrics
from sdrrl_eval.measure.tasks.part import Item, Part
from sdrrl_eval.measure.tasks.words import form
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import read_text
from sdrrl_factory.languages import Language, language
from sdrrl_factory.models.lm import Generation

# The question of the paper's Table 1 (D_mt).
PROMPT = "Translate the following sentence from {source} to {target}.\n{sentence}"
_METRICS = ("bleu", "chrf", "chrf++", "comet")
_DEFAULT = {"flores": ("bleu", "chrf++"), "translation": ("bleu", "chrf")}
_TOKENIZER = {"flores": "flores200", "translation": None}


def check(task: TaskConfig, place: str) -> None:
    """Say before anything runs what the metrics lack."""
    wanted = metrics(task, _METRICS, _DEFAULT[task.task], place)
    if "comet" in wanted:
        comet.scorer(task.comet_model, f"{place}.comet_model")
    if "bleu" in wanted:
        mt.check_tokenizer(_tokenizer(task), f"{place}.tokenizer")


def read(task: TaskConfig, place: str) -> list[Part]:
    """Two parts a language: source_lang -> language, and back."""
    prompt = form(task.prompt, PROMPT, ("source", "target", "sentence"), f"{place}.prompt")
    home = language(task.source_lang, f"{place}.source_lang")
    away = [language(code, f"{place}.langs") for code in task.langs]
    if home in away:
        raise UserError(f"{place}.langs: {home.code} is the source_lang itself; remove it")
    home_lines = sentences(task.path, home)
    parts = []
    for lang in away:
        lines = sentences(task.path, lang)
        if len(lines) != len(home_lines):
            one, two = path_of(task.path, home), path_of(task.path, lang)
            raise UserError(
                f"{one} has {len(home_lines)} lines, {two} has {len(lines)}; make line n of both the same sentence"
            )
        parts.append(_part(task.task, prompt, home, lang, home_lines, lines))
        parts.append(_part(task.task, prompt, lang, home, lines, home_lines))
    return parts


def path_of(folder: str, lang: Language) -> Path:
    """`<FLORES code>.devtest`, or .dev in a folder named dev; of the whole release, its folder devtest."""
    here = Path(folder)
    here = here / "devtest" if (here / "devtest").is_dir() else here
    return here / f"{lang.flores}.{'dev' if here.name == 'dev' else 'devtest'}"


def sentences(folder: str, lang: Language) -> list[str]:
    """The file's lines; a missing file, an empty file or an empty line is a `UserError`."""
    path = path_of(folder, lang)
    # Only "\n" ends a line: a sentence may hold U+2028 and its like.
    lines = [line.strip() for line in read_text(path).removesuffix("\n").split("\n")]
    if lines == [""]:
        raise UserError(f"{path}: 0 sentences; put one sentence a line")
    if "" in lines:
        raise UserError(f"{path}:{lines.index('') + 1}: empty line; put one sentence a line, aligned with its siblings")
    return lines


def _part(
    task: str, prompt: str, source: Language, target: Language, lines: Sequence[str], references: Sequence[str]
) -> Part:
    prompt = prompt.replace("{source}", source.name).replace("{target}", target.name)
    items = [
        Item(str(i), prompt.format(sentence=line), reference, {"source": line})
        for i, (line, reference) in enumerate(zip(lines, references, strict=True), 1)
    ]
    return Part(task, source.code, target.code, items, prompt=prompt)


def _tokenizer(task: TaskConfig) -> str | None:
    return task.tokenizer or _TOKENIZER[task.task]


def score(
    part: Part, answers: list[Generation], lm: Answers, batch_size: int, seed: int
) -> tuple[list[dict], list[dict]]:
    """Corpus BLEU, chrF and COMET (section 4.1): (prediction rows, scores); a row has its own chrF and COMET."""
    wanted = metrics(part.config, _METRICS, _DEFAULT[part.task], part.place)
    outputs, references = [a.text for a in answers], [item.reference for item in part.items]
    found = [{"chrf": mt.sentence_chrf(o, r)} for o, r in zip(outputs, references, strict=True)]
    scores = []
    if "bleu" in wanted:
        bleu = mt.bleu(outputs, references, part.target_lang, seed, _tokenizer(part.config))
        scores.append(part.score("bleu", bleu))
    if "chrf" in wanted:
        scores.append(part.score("chrf", mt.chrf(outputs, references, seed)))
    if "chrf++" in wanted:
        scores.append(part.score("chrf++", mt.chrf(outputs, references, seed, word_order=2)))
    if "comet" in wanted:
        scorer = comet.scorer(part.config.comet_model, f"{part.place}.comet_model")
        whole, each = comet.comet(scorer, [item.texts["source"] for item in part.items], outputs, references, seed)
        found = [f | {"comet": value} for f, value in zip(found, each, strict=True)]
        scores.append(part.score("comet", whole))
    return [item.row(a, **f) for item, a, f in zip(part.items, answers, found, strict=True)], scores
