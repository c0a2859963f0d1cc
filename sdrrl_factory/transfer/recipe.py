"""The keys of a prepare recipe: types, defaults, bounds, and what each does."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, JsonValue

from sdrrl_factory.engine import EngineKeys
from sdrrl_factory.recipe import Group
from sdrrl_factory.transfer.sets import SYSTEMS

# mypy knows no literal that is computed.
if TYPE_CHECKING:
    System = str
else:
    System = Literal[SYSTEMS]


class Running:
    """Marks a key that says how a model is run, and changes no answer: no finished shard is made anew for it."""


class Columns(Group):
    """Which of a source's columns is what; null leaves the recognised one."""

    id: str | None = None
    """The record's id; null: the column `id` if there is one, else the file's name with the row's number."""
    instruction: str | None = None
    """The question."""
    input: str | None = None
    """What the question is about, where it stands in a column of its own."""
    output: str | None = None
    """The answer."""
    system: str | None = None
    """The system prompt."""


class Source(Group):
    """One source of D."""

    path: str
    """A file (.json, .jsonl, .csv, .tsv, .parquet, text also as .gz), a folder of them, or a hub id."""
    format: Literal["auto", "alpaca", "sharegpt", "messages"] = "auto"
    """auto recognises Alpaca, Dolly, Bactrian-X, ShareGPT, OpenAI messages and plain question-answer columns."""
    columns: Columns = Field(default_factory=Columns)
    """Which column is what, where it is not recognised."""
    turns: Literal["first", "last", "all"] = "first"
    """Which turns of a conversation become records, each without those before it."""
    max_samples: int | None = Field(default=None, ge=1)
    """At most so many records of this source."""
    subset: str | None = None
    """The hub's configuration of the data set."""
    split: str = "train"
    """The hub's split."""


class Generator(Group):
    """G = M_theta(x): the model's own answers (section 3.2.1)."""

    backend: Literal["transformers", "server"] = "transformers"
    """transformers: in process; server: any OpenAI-compatible server."""
    model: str = "models/smollm2-135m"
    """A checkpoint's folder or hub id; for a server, the model's name there."""
    template: str | None = "smollm2"
    """The LLaMA-Factory template; null: the checkpoint's own chat template."""
    enable_thinking: bool | None = None
    """Whether a reasoning model thinks first; null: as its template has it. Thoughts are never part of an answer."""
    chat_template_kwargs: dict[str, JsonValue] = {}
    """What the checkpoint's own chat template is given besides, here or on the server."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Tokens an answer may have at first."""
    longest_answer: int | None = Field(default=None, ge=1)
    """An answer that is cut off goes on up to so many tokens, and then gives way to the ground truth; null: eight times
    max_new_tokens."""
    temperature: float = Field(default=0.0, ge=0.0)
    """0: the likeliest token each time (greedy); above 0: sampled, each record by its own draws."""
    batch_size: Annotated[int, Running] = Field(default=32, ge=1)
    """Questions at a time; a batch halves itself when memory runs out."""
    base_url: str | None = None
    """The server's address, up to and with /v1."""
    api_key_env: Annotated[str, Running] = "OPENAI_API_KEY"
    """The environment variable that holds the server's key."""
    concurrency: Annotated[int, Running] = Field(default=8, ge=1)
    """Requests at a time."""
    timeout: Annotated[float, Running] = Field(default=120.0, ge=0.1)
    """Seconds a request may take."""
    retries: Annotated[int, Running] = Field(default=6, ge=0)
    """Tries after 429, 5xx, timeouts and broken connections, with growing waits."""
    extra_body: dict[str, JsonValue] = {}
    """Further keys of every request, for what only this server knows: {top_k: 1}."""


class Sampling(Group):
    """Equation 4: which answer stands in D_synth."""

    keep_ground_truth: float = Field(default=0.5, ge=0.0, le=1.0)
    """The share of records whose answer is the ground truth; 1.0 is the ablation without self-distillation."""


class Translator(Group):
    """T: the machine translation (section 3.2.2)."""

    backend: Literal["apertium", "nllb", "ctranslate2", "chat", "none"] = "apertium"
    """apertium: Debian's pairs; nllb: NLLB-200 by transformers; ctranslate2: the same, converted by `sdrrl
    convert-model`; chat: a chat model; none: only what needs no translation (LL, mt, comp, sft)."""
    via: list[str] = []
    """Languages to go through, in order: [spa] makes eng -> spa -> por."""
    model: str | None = None
    """nllb: null is facebook/nllb-200-3.3B; ctranslate2: the converted folder; chat: a checkpoint or a server's."""
    beam_size: int = Field(default=4, ge=1)
    """nllb, ctranslate2: translations that are followed at a time."""
    batch_size: Annotated[int, Running] = Field(default=32, ge=1)
    """Sentences at a time; a batch halves itself when memory runs out."""
    max_new_tokens: int = Field(default=256, ge=1)
    """The longest translation of one sentence, in tokens."""
    compute_type: Literal["auto", "float32", "float16", "bfloat16", "int8"] = "auto"
    """The precision; int8 is for ctranslate2 alone."""
    template: str | None = None
    """chat: the LLaMA-Factory template; null: the checkpoint's own chat template."""
    enable_thinking: bool | None = None
    """chat: whether a reasoning model thinks first; null: as its template has it."""
    chat_template_kwargs: dict[str, JsonValue] = {}
    """chat: what the checkpoint's own chat template is given besides, here or on the server."""
    prompt: str = "Translate the following sentence from {source} to {target}.\n{text}"
    """chat: what is asked, with {source}, {target} and {text}."""
    base_url: str | None = None
    """chat: the server's address; null: in process."""
    api_key_env: Annotated[str, Running] = "OPENAI_API_KEY"
    """The environment variable that holds the server's key."""
    concurrency: Annotated[int, Running] = Field(default=8, ge=1)
    """Requests at a time."""
    timeout: Annotated[float, Running] = Field(default=120.0, ge=0.1)
    """Seconds a request may take."""
    retries: Annotated[int, Running] = Field(default=6, ge=0)
    """Tries after 429, 5xx, timeouts and broken connections, with growing waits."""
    extra_body: dict[str, JsonValue] = {}
    """chat: further keys of every request to the server, as they are."""


class Quality(Group):
    """Quality estimation: a translation whose estimate lies below the threshold is rejected (section 3.2.2)."""

    backend: Literal["roundtrip", "cometkiwi", "none"] = "roundtrip"
    """roundtrip: chrF of the translation translated back; cometkiwi: the paper's."""
    threshold: float | None = Field(default=None, ge=0.0, le=1.0)
    """tau, 0 to 1; null is 0.8 for cometkiwi (the paper's), 0.4 for roundtrip."""
    model: str = "Unbabel/wmt22-cometkiwi-da"
    """COMETKiwi's hub id (gated) or a local checkpoint."""
    batch_size: Annotated[int, Running] = Field(default=16, ge=1)
    """COMETKiwi: translations at a time; a batch halves itself when memory runs out."""


class Filters(Group):
    """Rules on translated pairs; null or false switches a rule off."""

    min_chars: int = Field(default=1, ge=0)
    """Characters a translation must have."""
    max_chars: int | None = Field(default=None, ge=1)
    """Characters a translation may have."""
    max_length_ratio: float | None = Field(default=3.0, ge=1.0)
    """Of the lengths in characters, either way, allowing for the script."""
    max_word_chars: int | None = Field(default=40, ge=1)
    """Characters a word may have; not in languages without spaces."""
    max_copied_words: int | None = Field(default=4, ge=0)
    """A longer copy of the source is rejected."""
    max_source_words: float | None = Field(default=0.25, ge=0.0, le=1.0)
    """The share of its words that may stand in the source text as they are, but for names and words of three letters:
    words that were never translated, which a round trip through a pivot rewards."""
    repeats: bool = True
    """Rejects repeated runs of words."""
    markup: bool = True
    """Rejects unbalanced or lost markup and placeholders."""
    numbers: bool = True
    """Rejects lost numbers."""
    script: bool = True
    """Rejects a translation in another script than the language's."""


class LanguageId(Group):
    """Language identification: what is surely in another language is rejected (section 3.2.2)."""

    backend: Literal["fasttext", "cld3", "none"] = "fasttext"
    """cld3 is the paper's; none: every language passes."""
    model: str | None = None
    """A fastText model's path; null: lid.176."""
    min_letters: int = Field(default=20, ge=1)
    """Texts of fewer letters are let through."""
    min_probability: float = Field(default=0.5, ge=0.0, le=1.0)
    """Texts whose language is less sure are let through. CLD3 must be surer: at least 0.98, for it names no second
    candidate."""


class CodeSwitch(Group):
    """Code-switching (equation 5): words of the questions are replaced by the dictionary's translations."""

    probability: float = Field(default=0.15, ge=0.0, le=1.0)
    """The chance of each word of a question that the dictionary knows; 0 is the ablation without code-switching."""
    dictionary: str | dict[str, str] = "freedict"
    """freedict (Debian's packages), induced (from the parallel corpus), none (no question is switched), or the path of
    a MUSE or TSV file, in which {source} and {target} stand for the languages' two-letter codes; or a map from target
    languages to these."""


class PairColumns(Group):
    """Which columns of a parallel file are the two sides, by name or by number from 1; null: a sample tells."""

    source: int | str | None = None
    """The column of the source language."""
    target: int | str | None = None
    """The column of the target language."""


class Parallel(Group):
    """P: parallel text for D_mt and D_comp (section 3.2.4)."""

    source: str = "gettext"
    """gettext (Django's catalogues), gettext:NAME,NAME (those of any installed packages, sentences before labels),
    opus-100, or a path with {source} and {target}: .tsv, .csv, .tmx, .jsonl,
    .parquet, or a Moses prefix. Each side is checked against its language, and the pair by the filters' rules."""
    columns: PairColumns = Field(default_factory=PairColumns)
    """Which columns of a table are the two sides, where their names and the first 200 rows do not tell."""
    size: int = Field(default=1000, ge=0)
    """At most so many sentence pairs; 0 leaves out D_mt and D_comp."""
    monolingual: str | None = None
    """A text file of the target language, a sentence a line, for D_comp."""
    monolingual_size: int = Field(default=1000, ge=0)
    """At most so many of its sentences."""
    translation_prompt: str = "Translate the following sentence from {source} to {target}."
    """Table 1's template of D_mt."""
    completion_prompt: str = "Complete the following sentence in {target} according to its context."
    """Table 1's template of D_comp."""


class PrepareConfig(Group):
    """A prepare recipe: instructions in a language the model masters -> the six subsets of section 3.2."""

    instructions: str | Source | Annotated[list[str | Source], Field(min_length=1)]
    """D: a path, a hub id, or a list of them; rows marked `held_out: true` are left out."""
    target_lang: str | Annotated[list[str], Field(min_length=1)]
    """ISO 639-3 code of the language to learn, or a list."""
    name: str = "sdrrl"
    """Prefix of the data sets: <name>_<target>_ll and so on."""
    source_lang: str = "eng"
    """The language the model masters."""
    max_samples: int | None = Field(default=None, ge=1)
    """At most so many records in all."""
    answer_language: Literal["cross", "all", "none"] = "cross"
    """cross: TL and LT ask for the language of the answer; all: all four sets do; none: no set does, as in the
    paper."""
    systems: list[System] = Field(default=["sdrrl"], min_length=1)
    """sdrrl, and the paper's baselines from the same records: sft, tsft, cit, xcot."""
    generator: Generator = Field(default_factory=Generator)
    sampling: Sampling = Field(default_factory=Sampling)
    translator: Translator = Field(default_factory=Translator)
    quality: Quality = Field(default_factory=Quality)
    filters: Filters = Field(default_factory=Filters)
    language_id: LanguageId = Field(default_factory=LanguageId)
    code_switch: CodeSwitch = Field(default_factory=CodeSwitch)
    parallel: Parallel = Field(default_factory=Parallel)
    dataset_dir: str = "data"
    """Where the data sets and dataset_info.json go."""
    overwrite: bool = False
    """Whether sets may take the place of registered ones of the same name that have more rows."""
    work_dir: str = "runs/prepare"
    """Where the finished shards go: what the next run does not do again."""
    memory: str | None = None
    """Where answers and translations are kept, an SQLite file; null: memory.sqlite in the `runs` of work_dir, else
    beside it."""
    engine: EngineKeys = Field(default_factory=EngineKeys)
    shard_size: int = Field(default=200, ge=1)
    """Records a shard: what a kill can cost at most."""
    seed: int = 42
    """Every draw depends on it and on the record's id alone."""
