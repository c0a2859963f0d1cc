"""The dataset card: README.md beside the data, so that whoever gets the folder knows what is in it and whose it is.

The same recipe gives the same bytes: no time, no path but the recipe's own, nothing of how the run was cut or repeated.
"""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData
from markupsafe import Markup

from sdrrl_factory import __version__, pages
from sdrrl_factory.files import atomic_write
from sdrrl_factory.languages import LANGUAGES
from sdrrl_factory.transfer.inputs import asks_generator
from sdrrl_factory.transfer.recipe import PrepareConfig, Source
from sdrrl_factory.transfer.sets import SETS, SIDES, has_natural, has_switched, sides
from sdrrl_factory.transfer.summary import Summary, in_words, ranked, settings

_UNKNOWN = "not stated in the file; check with its owner"
_OWNER = "as given by its owner; check it there"
# Only what is certain: the project's own, and hub ids whose cards say it.
_LICENCES = {
    "data/seeds/english_instructions.jsonl": "Apache-2.0 (written for this project)",
    "models/smollm2-135m": "Apache-2.0 (SmolLM2-135M-Instruct)",
    "tatsu-lab/alpaca": "CC BY-NC 4.0",
    "databricks/databricks-dolly-15k": "CC BY-SA 3.0",
    "MBZUAI/Bactrian-X": "CC BY-NC 4.0",
    "facebook/nllb-200-3.3B": "CC BY-NC 4.0",
    "facebook/nllb-200-1.3B": "CC BY-NC 4.0",
    "facebook/nllb-200-distilled-1.3B": "CC BY-NC 4.0",
    "facebook/nllb-200-distilled-600M": "CC BY-NC 4.0",
}
_DICTIONARY_LICENCES = {
    "freedict": "GPL (see the dictionary's own header)",
    "induced": "that of the parallel corpus",
}
_CORPUS_LICENCES = {"gettext": "BSD-3-Clause (Django's message catalogues)"}
# They change how a run goes, not what comes out.
_NOT_DATA = ("dataset_dir", "overwrite", "work_dir", "memory", "shard_size", "engine")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write(path: Path, summary: Summary) -> None:
    """Write the card of one target language's data sets."""
    # What a server sends may hold half a surrogate pair, which UTF-8 has no bytes for.
    atomic_write(path, text(summary).encode("utf-8", "replace"))


def text(summary: Summary) -> str:
    """The whole card; what it says of these values is pages/card.md."""
    config = summary.config
    example_of, example = _example(summary)
    return pages.markdown(
        "card.md",
        front=Markup(_front(summary)),
        title=summary.title,
        version=__version__,
        source=LANGUAGES[config.source_lang].name,
        target=LANGUAGES[summary.target].name,
        records=summary.records,
        train_recipe=_train_recipe(summary),
        sets=_sets(summary),
        characters=summary.characters,
        example_of=example_of,
        example=json.dumps(example, ensure_ascii=False, indent=2),
        parts=summary.parts(),
        left_out=in_words(ranked(summary.left_out)),
        has_own_answers="LL" in summary.sets,
        origins=summary.origins,
        own_share=f"{summary.own_share:.0%}",
        drawn_share=f"{1 - config.sampling.keep_ground_truth:.0%}",
        given_up=in_words(ranked(summary.reasons["generation"])),
        finishes=in_words(ranked(summary.finishes)),
        rejections=_rejections(summary),
        switched=_switched(summary),
        switch_probability=f"{config.code_switch.probability:g}",
        licences=[(part, summary.filled(name), licence) for part, name, licence in licences(config)],
        settings=_settings(summary),
    )


def licences(config: PrepareConfig) -> list[tuple[str, str, str]]:
    """(part, source as the recipe names it, licence) of all that went into the data."""
    sources = config.instructions if isinstance(config.instructions, list) else [config.instructions]
    paths = [source.path if isinstance(source, Source) else source for source in sources]
    rows = [("instructions", path, _LICENCES.get(path, _UNKNOWN)) for path in paths]
    translator = config.translator
    if asks_generator(config):
        rows.append(("generator", config.generator.model, _LICENCES.get(config.generator.model, _OWNER)))
    if sides(config.systems) and translator.backend != "none":
        if translator.backend == "apertium":
            rows.append(("translator", "Apertium", "GPL (programs and language data); it does not cover their output"))
        else:
            model = translator.model or translator.backend
            rows.append(("translator", model, _LICENCES.get(model, _OWNER)))
    if config.code_switch.probability and has_switched(config.systems):
        dictionary = config.code_switch.dictionary
        for name in dict.fromkeys([dictionary] if isinstance(dictionary, str) else dictionary.values()):
            if name != "none":
                rows.append(("dictionary", name, _DICTIONARY_LICENCES.get(name, _OWNER)))
    if config.parallel.size and has_natural(config.systems):
        name = config.parallel.source
        rows.append(("parallel corpus", name, _CORPUS_LICENCES.get(name, _OWNER)))
    if config.parallel.monolingual and config.parallel.monolingual_size and has_natural(config.systems):
        rows.append(("monolingual text", config.parallel.monolingual, _OWNER))
    return rows


def _front(summary: Summary) -> str:
    """The YAML that dataset cards begin with, as hubs read it."""
    rows = sum(count.rows for count in summary.sets.values())
    categories = ["text-generation", "translation"] if "mt" in summary.sets else ["text-generation"]
    fields: dict[str, Any] = {
        "pretty_name": summary.title,
        "language": [LANGUAGES[code].iso1 for code in (summary.config.source_lang, summary.target)],
        "license": "other",
        "task_categories": categories,
        "size_categories": [next((name for limit, name in _SIZES if rows < limit), "1M<n<10M")],
        "tags": ["instruction-tuning", "self-distillation", "SDRRL", "LLaMA-Factory"],
        "configs": [
            {"config_name": subset.lower(), "data_files": f"{subset.lower()}.jsonl"}
            for subset, count in summary.sets.items()
            if count.rows
        ],
    }
    return DatasetCardData(**fields).to_yaml(original_order=list(fields))


def _train_recipe(summary: Summary) -> str:
    """The `dataset:` lines: SDRRL's, and each baseline's below a comment that names it."""
    lines = summary.dataset_lines()
    sdrrl = [line for system, line in lines if system == "sdrrl"]
    baselines = [f"# the baseline {system}\n{line}" for system, line in lines if system != "sdrrl"]
    return "\n".join(sdrrl + baselines) or "# no set has a row"


def _sets(summary: Summary) -> list[tuple[object, ...]]:
    """(set, what it is, rows, rows that rejections took, mean lengths) of each set."""
    source, target = (LANGUAGES[code].name for code in (summary.config.source_lang, summary.target))
    rows: list[tuple[object, ...]] = []
    for subset, count in summary.sets.items():
        description = SETS[subset].description.format(source=source, target=target)
        if not SETS[subset].is_weighted:
            description = f"baseline: {description}"
        lengths = " / ".join(summary.means(subset)) if count.rows else "-"
        is_made = subset not in summary.natural and summary.is_asked_for(subset)
        rejected = summary.missing(subset) if is_made else "-"
        rows.append((subset, description, count.rows, rejected, lengths))
    return rows


def _example(summary: Summary) -> tuple[str, dict]:
    """(set, one of its rows): of the first example that has any, TT's if it can be; ("", {}) where there is none."""
    for _, rows in summary.examples.items:
        for subset in ("TT", *rows):
            lines = rows.get(subset)
            if lines:
                # An empty system prompt is no part of the row as training reads it.
                return subset, {key: value for key, value in lines[0].items() if value or key != "system"}
    return "", {}


def _rejections(summary: Summary) -> list[tuple[object, ...]]:
    """(side, step, records left after it, what it rejected) of the translations."""
    rows: list[tuple[object, ...]] = []
    for side in SIDES:
        if side not in summary.translated:
            continue
        for stage, left, reasons in summary.funnel(side):
            if stage == "above tau":
                stage = f"above tau = {summary.threshold:g} ({summary.config.quality.backend})"
            rows.append((side, stage, left, in_words(reasons)))
    return rows


def _switched(summary: Summary) -> list[tuple[object, ...]]:
    """(set, words, share the dictionary knows, share of these switched) of the questions."""
    return [
        (subset, words, f"{known / max(words, 1):.1%}", f"{switched / max(known, 1):.1%}")
        for subset, (words, known, switched) in summary.switched.items()
    ]


def _settings(summary: Summary) -> str:
    """The recipe of this target language alone, without what does not change the data."""
    import yaml

    recipe = yaml.safe_load(settings(summary.config)) | {"target_lang": summary.target}
    data = {key: value for key, value in recipe.items() if key not in _NOT_DATA}
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100).rstrip()
