"""The transfer set, stage by stage: the paper's section 3.2, read from top to bottom.

A stage is its settings; what it does with a batch stands in the file of its name. run.py puts shards of records through
them, and plan.py counts what they would do.
"""

from collections.abc import Iterator

from sdrrl_factory.transfer import inputs, parallel, quality
from sdrrl_factory.transfer.assemble import Assemble, natural_row
from sdrrl_factory.transfer.codeswitch import Switch
from sdrrl_factory.transfer.filters import Filter
from sdrrl_factory.transfer.generate import Generate
from sdrrl_factory.transfer.quality import Score
from sdrrl_factory.transfer.recipe import PrepareConfig
from sdrrl_factory.transfer.sampling import Sample, Settle
from sdrrl_factory.transfer.sets import SWITCHED, has_switched, sides
from sdrrl_factory.transfer.stage import Stage
from sdrrl_factory.transfer.translate import Translate


def sampling(config: PrepareConfig) -> Sample:
    """Equation 4, D_synth = Sample(D) u Sample(G): drawn first, so that G is generated only where it is taken."""
    # Without SDRRL nothing is distilled: every answer is the ground truth.
    return Sample(config.sampling.keep_ground_truth if inputs.asks_generator(config) else 1.0, config.seed)


def synthesis(config: PrepareConfig, models: inputs.Models, sample: Sample) -> list[Stage]:
    """From D to D_synth (section 3.2.1): nothing here depends on the target language."""
    seed, memory = config.seed, inputs.memory_of(config).path
    own_answers = inputs.asks_generator(config)
    return [
        # Equation 4. Run again with a lower threshold, further records stand in for those with flawed generations.
        sample,
        # G = {(x, M_theta(x))}: the model's own answers, in the language it masters.
        Generate(config.generator if own_answers else None, models.checkpoint, seed, memory),
        # A flawed generation (empty, cut off, looping, in another language) gives way to the ground truth.
        Settle(config.source_lang, config.language_id, models.identifier),
    ]


def translation(config: PrepareConfig, models: inputs.Models, target: inputs.Target) -> list[Stage]:
    """From D_synth to finished records of one target language (sections 3.2.2 and 3.2.3)."""
    source, code, memory = config.source_lang, target.code, inputs.memory_of(config).path
    parts = sides(config.systems)
    tau = quality.threshold(config.quality)
    stages: list[Stage] = []
    if parts:
        stages += [
            # Section 3.2.2: T(x), T(y) and T(y^) by a machine translation system.
            Translate(parts, source, code, models.translators[code], config.translator, memory),
            # Section 3.2.2: how good a translation is, without a reference (COMETKiwi).
            Score(parts, source, code, models.scorers[code], config.quality, config.translator, memory),
            # Section 3.2.2: what scores below tau is rejected; section 4.1: so are what the rules of WMT news systems
            # find, and what is off target by language identification.
            Filter(parts, source, code, config.filters, tau, config.language_id, models.identifier),
        ]
    if has_switched(config.systems):
        # Section 3.2.3, equation 5: each token of a question becomes Dict(token) with probability p; answers stay.
        probability = config.code_switch.probability
        stages.append(Switch(SWITCHED, target.forward, target.backward, probability, config.seed, source, code))
    return stages


def assembly(config: PrepareConfig, target: inputs.Target) -> Assemble:
    """D_LL, D_TL, D_LT and D_TT out of finished records (section 3.2.2), and the baselines' sets: see sets.py."""
    systems = tuple(config.systems)
    return Assemble(systems, config.source_lang, target.code, config.answer_language, config.seed)


def natural_text(config: PrepareConfig, target: inputs.Target) -> Iterator[dict]:
    """The rows of D_mt and D_comp (section 3.2.4, table 1), out of the parallel corpus P."""
    source, code, prompts = config.source_lang, target.code, config.parallel
    # D_mt: every pair, to be translated both ways.
    for row in parallel.translation_rows(target.pairs, source, code, prompts.translation_prompt):
        yield natural_row("mt", row, source, code)
    # D_comp: the target language's sentences, cut at a random place, to be completed.
    sentences = [(pair_id, sentence) for pair_id, _, sentence in target.pairs] + target.sentences
    for row in parallel.completion_rows(sentences, code, config.seed, prompts.completion_prompt):
        yield natural_row("comp", row, source, code)
