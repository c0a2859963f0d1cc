"""Every check before any work: what `sdrrl prepare`, `--dry-run` and `sdrrl doctor` all ask of a recipe.

Each function looks at one part of it, and raises a UserError about the key that has to change. None loads a model.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sdrrl_factory import pages
from sdrrl_factory.errors import UserError, under
from sdrrl_factory.files import real_path, refuse_foreign
from sdrrl_factory.languages import language
from sdrrl_factory.memory import Memory, beside, translation_kind
from sdrrl_factory.models.checkpoint import check_checkpoint
from sdrrl_factory.models.hub import check_access, is_hub_id
from sdrrl_factory.models.prompts import check_prompts
from sdrrl_factory.models.server import check_listens
from sdrrl_factory.transfer import dictionaries, generate, parallel, quality, sources, translate
from sdrrl_factory.transfer.dictionaries import Dictionary
from sdrrl_factory.transfer.filters import identifier_of
from sdrrl_factory.transfer.recipe import Generator, PrepareConfig, Source, Translator
from sdrrl_factory.transfer.register import refuse_fewer, refuse_others, rows_registered
from sdrrl_factory.transfer.sets import has_natural, has_own_answers, has_switched, sets_of, sides
from sdrrl_factory.transfer.translate.nllb import DEFAULT_MODEL
from sdrrl_factory.transfer.wishes import are_worded
from sdrrl_factory.words import segmenter


@dataclass(frozen=True)
class Target:
    """What one target language needs beside the models.

    pairs: P, (id, source sentence, target sentence).
    sentences: (id, sentence) of the target language alone, for D_comp.
    forward, backward: the dictionaries from source to target, and back.
    left_out: why other "pairs", "sentences" and lines of the "dictionary" were not taken, by reason.
    """

    code: str
    pairs: list[tuple[str, ...]]
    sentences: list[tuple[str, ...]]
    forward: Dictionary
    backward: Dictionary
    left_out: dict[str, Counter[str]]


@dataclass(frozen=True)
class Models:
    """What tells the models of a run from any others; "" stands for one that it does not need.

    checkpoint: of the generator. translators, scorers: by target language.
    """

    checkpoint: str
    identifier: str
    translators: dict[str, str]
    scorers: dict[str, str]


class Check(NamedTuple):
    """One thing that has to be right. look: says what is there, or raises the UserError that a run would end with."""

    what: str
    look: Callable[[], str]


def checks(config: PrepareConfig) -> Iterator[Check]:
    """What can be wrong before any work, the cheap first; only `target` finds more, which reads text and dictionaries.

    What no set of the recipe needs is not asked for.
    """
    codes = target_codes(config)
    yield Check("keys", partial(_keys, config))
    yield Check("folders", partial(folders, config))
    for i, source in enumerate(config.instructions if isinstance(config.instructions, list) else [config.instructions]):
        key = f"instructions.{i}" if isinstance(config.instructions, list) else "instructions"
        yield Check("instructions", partial(_instructions, source, key))
    translates = bool(sides(config.systems)) and config.translator.backend != "none"
    for code in codes if translates else []:
        yield Check("translator", partial(_translator, config, code))
    if asks_generator(config):
        yield Check("generator", partial(_generator, config))
        # A server without an address is told above.
        if config.generator.backend != "server" or config.generator.base_url:
            yield _generator_model(config)
    if translates:
        yield from _translator_model(config)
        for code in codes:
            yield Check("quality", partial(_quality, config, code))
    if asks_identifier(config):
        yield Check("language id", partial(_identifier, config))


def check(config: PrepareConfig) -> list[Target]:
    """All of `checks`, and then what the target languages need, read."""
    for one in checks(config):
        one.look()
    with under("instructions"):
        sources.check(config.instructions)
    return [target(config, code) for code in target_codes(config)]


def asks_generator(config: PrepareConfig) -> bool:
    """Whether the model answers anything."""
    return has_own_answers(config.systems) and config.sampling.keep_ground_truth < 1


def asks_identifier(config: PrepareConfig) -> bool:
    """Whether the language of anything is looked at that is made or drawn."""
    translates = sides(config.systems) and config.translator.backend != "none"
    return bool(asks_generator(config) or translates or (has_natural(config.systems) and config.parallel.size))


def _keys(config: PrepareConfig) -> str:
    languages(config)
    names(config)
    with under("parallel"):
        parallel.check(config.parallel)
    return f"{config.source_lang} -> {' '.join(target_codes(config))}"


def _instructions(source: str | Source, key: str) -> str:
    path = source if isinstance(source, str) else source.path
    with under(key):
        # That the hub has it is enough here: a look at its rows downloads it.
        if is_hub_id(path) and not Path(path).suffix:
            return f"{path}: {check_access(path, 'README.md', 'dataset')}"
        sources.check(source)
    return path


def _generator(config: PrepareConfig) -> str:
    generate.make(config.generator, memory_of(config))
    return config.generator.backend


def _generator_model(config: PrepareConfig) -> Check:
    keys = config.generator
    if keys.backend == "server":
        knows = partial(generate.knows, keys, memory_of(config))
        return Check("generator server", partial(_server, keys, "generator", knows))
    return Check("generator model", partial(_chat_model, keys.model, keys.template, "generator"))


def _translator(config: PrepareConfig, code: str) -> str:
    engine(config, code)
    return config.translator.backend


def _translator_model(config: PrepareConfig) -> Iterator[Check]:
    keys = config.translator
    if keys.base_url and keys.backend == "chat":
        yield Check("translator server", partial(_server, keys, "translator", partial(_has_translated, config)))
    elif keys.backend == "chat":
        yield Check("translator model", partial(_chat_model, keys.model or "", keys.template, "translator"))
    elif keys.backend == "nllb":
        yield Check("translator model", partial(_model, keys.model or DEFAULT_MODEL, "translator"))


def _model(name: str, group: str) -> str:
    """A checkpoint: here, in the hub's cache, or to be had from the hub."""
    with under(f"{group}.model"):
        check_checkpoint(name)
        return f"{name}: {check_access(name, 'config.json')}" if is_hub_id(name) else name


def _chat_model(name: str, template: str | None, group: str) -> str:
    there = _model(name, group)
    with under(group):
        check_prompts(name, template)
    return there


def _server(keys: Generator | Translator, group: str, has_answered: Callable[[], bool]) -> str:
    """A server: it listens, or is known to have answered; then another run may need no more of it."""
    assert keys.base_url
    try:
        with under(f"{group}.base_url"):
            return check_listens(keys.base_url)
    except UserError:
        if has_answered():
            return f"{keys.base_url} does not answer now; what it has answered is kept"
        raise


def _has_translated(config: PrepareConfig) -> bool:
    memory, first = memory_of(config), target_codes(config)[0]
    source, target = translate.route(config.source_lang, first, config.translator.via)[0]
    forward = engine(config, first)
    if forward is None:
        return False
    with memory:
        return memory.knows(translation_kind(forward.translator.signature(source, target), source, target))


def _quality(config: PrepareConfig, code: str) -> str:
    return scorer(config, code) or "none"


def _identifier(config: PrepareConfig) -> str:
    return identifier(config) or "none"


def models(config: PrepareConfig) -> Models:
    """The models, as far as can be told before they are loaded."""
    codes = target_codes(config)
    return Models(
        checkpoint=generator(config),
        identifier=identifier(config),
        translators={code: translator(config, code) for code in codes},
        scorers={code: scorer(config, code) for code in codes},
    )


def target_codes(config: PrepareConfig) -> list[str]:
    """The target languages, in the recipe's order."""
    return [config.target_lang] if isinstance(config.target_lang, str) else config.target_lang


def memory_of(config: PrepareConfig) -> Memory:
    """Where the answers of the translator and the generator are kept; nothing is opened yet."""
    return Memory(Path(config.memory) if config.memory else beside(config.work_dir))


def languages(config: PrepareConfig) -> None:
    """Codes are known, no target is the source language or stands twice."""
    with under("source_lang"):
        language(config.source_lang)
    codes = target_codes(config)
    for i, code in enumerate(codes):
        with under("target_lang" if isinstance(config.target_lang, str) else f"target_lang.{i}"):
            language(code)
            if code == config.source_lang:
                raise UserError(f"{code} is the source language", "choose another")
            if code in codes[:i]:
                raise UserError(f"{code} stands twice", "remove one")
    for i, code in enumerate(config.translator.via):
        with under(f"translator.via.{i}"):
            language(code)


def remarks(config: PrepareConfig) -> list[str]:
    """What a run goes without, a line each: wishes for the answer's language that nobody has worded."""
    codes = [code for code in target_codes(config) if not are_worded(config.source_lang, code)]
    if config.answer_language == "none" or not codes:
        return []
    pairs = ", ".join(f"{config.source_lang}-{code}" for code in codes)
    return [f"wishes    none are worded for {pairs}: as with answer_language: none"]


def names(config: PrepareConfig) -> None:
    """No system stands twice, and `name` can be a folder's."""
    if len(set(config.systems)) < len(config.systems):
        raise UserError(f"a system stands twice in {config.systems}", "remove one", key="systems")
    # "." and ".." would be other folders; a system's limit is 255 bytes, of which the language and the set take some.
    plain = all(character.isalnum() or character in "-_." for character in config.name)
    if not plain or config.name[:1] in ("", ".", "-") or len(config.name.encode("utf-8")) > 200:
        what = f"{config.name[:50]!r} cannot be a folder's name"
        raise UserError(what, "use letters, digits, - and _", key="name")


def folders(config: PrepareConfig) -> str:
    """What is to be written can be, beside what is there, as far as that can be told without writing."""
    for key, folder in (("dataset_dir", config.dataset_dir), ("work_dir", config.work_dir)):
        path = Path(folder).absolute()
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            raise UserError(f"{folder} cannot be written to", "choose another folder", key=key)
    for folder in set_folders(config):
        for key, path in (
            ("dataset_dir", Path(config.dataset_dir, folder)),
            ("work_dir", Path(config.work_dir, folder)),
        ):
            if path.exists() and not path.is_dir():
                raise UserError(f"{path} is a file, where a folder of that name goes", "move it", key=key)
        refuse_others(Path(config.dataset_dir), folder, config.systems)
        refuse_foreign(Path(config.work_dir, folder, "report.html"), pages.MARK)
    return f"{config.dataset_dir}, {config.work_dir}"


def set_folders(config: PrepareConfig) -> list[str]:
    """What the folders of the target languages are called, in dataset_dir and in work_dir."""
    return [f"{config.name}_{code}" for code in target_codes(config)]


def make_folders(config: PrepareConfig) -> None:
    """The folders are there and take files: permissions do not tell of a full disk or one mounted for reading."""
    # Where dataset_info.json is a link, a new one is written where it leads to.
    info = real_path(Path(config.dataset_dir, "dataset_info.json"))
    for key, folder in (("dataset_dir", config.dataset_dir), ("work_dir", config.work_dir)):
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            below = [Path(folder, name) for name in [config.name, *set_folders(config)]]
            for place in [Path(folder), *below, info.parent]:
                if place.is_dir():
                    with tempfile.TemporaryFile(dir=place):
                        pass
        except OSError as err:
            raise UserError(
                f"{folder} cannot be written to ({err.strerror})", "choose another folder", key=key
            ) from None


def fewer_rows(config: PrepareConfig, targets: list[Target], records: int) -> None:
    """Say before the models work that registered sets would lose rows, as far as the number of records tells."""
    for target in [] if config.overwrite else targets:
        pairs = len(target.pairs)
        natural = {"mt": 2 * pairs, "comp": pairs + len(target.sentences)}
        rows = {row.name: natural.get(row.name, len(row.forms) * records) for row in sets_of(config.systems)}
        folder = f"{config.name}_{target.code}"
        refuse_fewer(folder, rows_registered(Path(config.dataset_dir), folder, rows), rows, "at most ")


def generator(config: PrepareConfig) -> str:
    """What tells the generator from any other; "" where no set needs its answers."""
    if not asks_generator(config):
        return ""
    generate.make(config.generator, memory_of(config))
    return generate.identity(config.generator)


def engine(config: PrepareConfig, code: str) -> translate.Engine | None:
    """T into the target language, and where the estimate needs it, the way back; None where nothing is translated."""
    if not sides(config.systems) or config.translator.backend == "none":
        return None
    memory = memory_of(config)
    forward = translate.engine(config.translator, config.source_lang, code, memory)
    if config.quality.backend == "roundtrip":
        translate.engine(config.translator, code, config.source_lang, memory, back=True)
    return forward


def translator(config: PrepareConfig, code: str) -> str:
    """What tells translations into the target language from any others; "" where nothing is translated."""
    forward = engine(config, code)
    return forward.signature(config.source_lang, code) if forward else ""


def scorer(config: PrepareConfig, code: str) -> str:
    """What tells quality estimates of these translations from any others; "" where there are none."""
    if not engine(config, code):
        return ""
    estimator = quality.make(config.quality, config.translator, config.source_lang, code, memory_of(config))
    return estimator.name if estimator else ""


def identifier(config: PrepareConfig) -> str:
    """What tells the language identifier from any other; "" for none, and where none is needed."""
    if not asks_identifier(config):
        return ""
    tool = identifier_of(config.language_id)
    if tool:
        with under("language_id"):
            codes = [config.source_lang, *target_codes(config)]
            tool.require(codes, "set another backend, a fastText model that knows it, or backend: none")
    return f"{tool.name} {tool.min_letters} {tool.min_probability}" if tool else ""


def target(config: PrepareConfig, code: str) -> Target:
    """The parallel text and the dictionaries of a target language, read."""
    pairs, sentences = parallel_text(config, code)
    words = dictionary(config, code, pairs.rows)
    return Target(
        code,
        pairs.rows,
        sentences.rows,
        words.forward,
        words.backward,
        left_out={"pairs": pairs.left_out, "sentences": sentences.left_out, "dictionary": words.left_out},
    )


def parallel_text(config: PrepareConfig, code: str) -> tuple[parallel.Drawn, parallel.Drawn]:
    """(P, further sentences for D_comp) of a target language, as far as some set or the dictionary needs them."""
    natural = has_natural(config.systems)
    induced = dictionary_name(config, code) == "induced"
    pairs = sentences = parallel.Drawn([], Counter())
    # The language and the filters' rules are those of translations.
    tool = identifier_of(config.language_id)
    with under("parallel"):
        if config.parallel.size and (natural or induced):
            pairs = parallel.load(config.parallel, config.source_lang, code, config.seed, config.filters, tool)
        if natural:
            sentences = parallel.monolingual(config.parallel, code, config.seed, config.filters, tool)
    return pairs, sentences


def dictionary_name(config: PrepareConfig, code: str) -> str:
    """Which dictionary serves a target language; "none" where no question is switched."""
    if not config.code_switch.probability or not has_switched(config.systems):
        return "none"
    with under("code_switch.dictionary"):
        return dictionaries.named(config.code_switch.dictionary, code)


def dictionary(config: PrepareConfig, code: str, pairs: list[tuple[str, ...]]) -> dictionaries.Loaded:
    """The dictionaries of equation 5, from source to target and back; empty where no question is switched."""
    name = dictionary_name(config, code)
    if name == "none":
        return dictionaries.Loaded({}, {}, Counter())
    with under("target_lang"):
        # Without its words a language that is cut by the dictionary's can be checked: it needs no package.
        segmenter(config.source_lang, ()), segmenter(code, ())
    with under("code_switch.dictionary"):
        sentences = [(source, target) for _, source, target in pairs]
        return dictionaries.load(name, config.source_lang, code, sentences, identifier_of(config.language_id))
