"""The paper's Figure 2: do the same instructions in two languages lie near each other inside a model?

An instruction is its last token's last hidden state (section 4.4). t-SNE draws the states in the plane; as such a
picture shows what one wants to see, numbers stand beside it that are measured on the states themselves.
"""

import contextlib
import io
import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.files import atomic_write, read_text, refuse_foreign
from sdrrl_factory.rows import read_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sdrrl_factory.models.lm import LM

Array = Any  # of numpy, which is imported where it computes
_SEED, _PERPLEXITY, _BATCH = 42, 30.0, 16
_MIN_PAIRS = 4
_LABEL = "t-SNE of the last hidden states of the same instructions in two languages"
# Told apart by shape and lightness as well as by colour (Okabe and Ito 2008).
_SOURCE, _TARGET, _LINE = "#d55e00", "#0072b2", "#94a3b8"


@dataclass(frozen=True)
class Alignment:
    """Of n pairs: mean cosine of the pairs, and of all other source-target couples; how often the pair's other half is
    the nearest (cosine) of all n, asked from the source and from the target. Chance is 1/n."""

    pairs: int
    pair_cosine: float
    random_cosine: float
    source_to_target: float
    target_to_source: float


def tsne(models: Sequence[str], source: str, target: str, output: str, template: str | None = None) -> dict:
    """Draw one picture a model into output/tsne.svg and tsne.png; returns what output/tsne.json holds.

    Args:
        models: checkpoint folders or hub ids, the one before training first.
        source, target: the same instructions in two languages, in the same order: text, one a line, or JSONL with
            {"instruction", "input"}.
        template: a LLaMA-Factory template by name ("empty" is the text alone, as the paper's figure has it); None is
            the checkpoint's own chat template.
    """
    from sdrrl_factory.models.checkpoint import check_checkpoint, model_hash
    from sdrrl_factory.models.lm import LM

    if find_spec("sklearn") is None:
        raise UserError("scikit-learn is not installed", "run `pip install 'sdrrl-factory[tsne]'`", at="tsne")
    sources, targets = _pairs(source, target)
    out = Path(output)
    refuse_foreign(out / "tsne.json", '"last hidden state of the last token"')
    refuse_foreign(out / "tsne.svg", _LABEL)
    # A PNG does not say what made it.
    if (out / "tsne.png").exists() and not (out / "tsne.json").exists():
        raise UserError("is there already", "name another folder", at=str(out / "tsne.png"))
    for model in models:
        with under("--model"):
            check_checkpoint(model, is_trained=True)
    measured, points = [], []
    for model in models:
        lm = LM(model, template)
        one, two = hidden_states(lm, sources), hidden_states(lm, targets)
        del lm  # before the next one is loaded
        numbers = alignment(one, two)
        points.append(project(one, two))
        measured.append({"model": model, "model_hash": model_hash(model)} | vars(numbers))
        print(f"{model}: {_summary(numbers)}", flush=True)
    results = {
        "source": source,
        "target": target,
        "template": template,
        "state": "last hidden state of the last token",
        "tsne": f"scikit-learn|metric:cosine|perplexity:{_perplexity(len(sources)):g}|init:pca|seed:{_SEED}",
        "models": measured,
    }
    figure = _figure([name(model) for model in models], points, measured)
    try:
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / "tsne.json", json.dumps(results, ensure_ascii=False, indent=2) + "\n")
        atomic_write(out / "tsne.svg", _svg(figure))
        figure.savefig(out / "tsne.png", dpi=150, metadata={"Software": None})
    except OSError as err:
        raise UserError(f"cannot be written ({err.strerror})", "name another folder", at=f"--output {output}") from None
    print(f"pictures: {out / 'tsne.svg'} {out / 'tsne.png'}")
    return results


def _pairs(source: str, target: str) -> tuple[list[str], list[str]]:
    one, two = _texts(source), _texts(target)
    if len(one) != len(two):
        raise UserError(f"{len(one)} texts, {target} has {len(two)}", "make text n of both the same one", at=source)
    if len(one) < _MIN_PAIRS:
        raise UserError(f"{len(one)} texts", f"t-SNE needs {_MIN_PAIRS} pairs or more", at=source)
    return one, two


def _texts(path: str) -> list[str]:
    if not path.endswith(".jsonl"):
        lines = [line.strip() for line in read_text(path).removesuffix("\n").split("\n")]
        if "" in lines:
            raise UserError("empty line", "put one instruction a line", at=f"{path}:{lines.index('') + 1}")
        return lines
    out = []
    for at, _, row in read_rows(path):
        if not isinstance(row.get("instruction"), str) or not row["instruction"].strip():
            raise UserError("instruction is missing or empty", "write it as text", at=at)
        out.append("\n".join(filter(None, [row["instruction"], row.get("input")])))
    return out


def hidden_states(lm: "LM", texts: Sequence[str]) -> Array:
    """[texts, width] float64: of each text its last token's last hidden state.

    Texts of one length share a batch: nothing is padded, so that no state depends on its neighbours.
    """
    import numpy as np
    import torch

    prompts = [lm.encode(text) for text in texts]
    lengths: dict[int, list[int]] = {}
    for i, prompt in enumerate(prompts):
        lengths.setdefault(len(prompt), []).append(i)
    states: dict[int, Array] = {}
    for same in lengths.values():
        for start in range(0, len(same), _BATCH):
            batch = same[start : start + _BATCH]
            ids = torch.tensor([prompts[i] for i in batch], device=lm.model.device)  # [batch, length]
            with torch.inference_mode():
                # The last of the layers' states, [batch, length, width]; no logits but the last are computed.
                layer = lm.model(input_ids=ids, output_hidden_states=True, logits_to_keep=1).hidden_states[-1]
            states |= zip(batch, layer[:, -1].double().cpu().numpy(), strict=True)
    return np.stack([states[i] for i in range(len(texts))])


def alignment(source: Array, target: Array) -> Alignment:
    """Of [n, width] states each, row i of both being the same text in two languages."""
    import numpy as np

    one, two = (states / np.linalg.norm(states, axis=1, keepdims=True) for states in (source, target))
    cosine = one @ two.T  # [n, n]; the pairs are the diagonal
    n = len(cosine)
    pairs = float(np.trace(cosine))
    return Alignment(
        pairs=n,
        pair_cosine=pairs / n,
        random_cosine=(float(cosine.sum()) - pairs) / (n * (n - 1)),
        source_to_target=float(np.mean(cosine.argmax(axis=1) == np.arange(n))),
        target_to_source=float(np.mean(cosine.argmax(axis=0) == np.arange(n))),
    )


def project(source: Array, target: Array) -> Array:
    """[2n, 2]: t-SNE (van der Maaten and Hinton 2008) of both languages together, the source's rows first."""
    import joblib
    import numpy as np
    from sklearn.manifold import TSNE

    # scikit-learn has joblib count the physical cores. Where lscpu tells none, as in containers, joblib (1.6, issue 415
    # of joblib/loky) prints a warning and half a traceback, once, and goes on with all cores: here it does so unheard.
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        joblib.cpu_count(only_physical_cores=True)
    states = np.concatenate([source, target])
    states = states / np.linalg.norm(states, axis=1, keepdims=True)  # so that Euclidean distances order as cosines do
    return TSNE(perplexity=_perplexity(len(source)), init="pca", random_state=_SEED).fit_transform(states)


def _perplexity(pairs: int) -> float:
    # Van der Maaten's own program asks for more than three times as many points.
    return min(_PERPLEXITY, (2 * pairs - 1) / 3)


def name(model: str) -> str:
    """The last part of a path or hub id."""
    return Path(model).name or model


def _summary(numbers: Alignment) -> str:
    return (
        f"cosine of pairs {numbers.pair_cosine:.3f}, of random pairs {numbers.random_cosine:.3f}; "
        f"nearest is the pair {100 * numbers.source_to_target:.0f}% / {100 * numbers.target_to_source:.0f}% "
        f"(chance {100 / numbers.pairs:.0f}%)"
    )


def _figure(names: Sequence[str], points: Sequence[Array], measured: Sequence[dict[str, Any]]) -> "Figure":
    """A panel a model; points: of each, [2n, 2]."""
    import matplotlib

    with matplotlib.rc_context({"font.family": "sans-serif", "font.size": 11}):
        # Figure itself, not pyplot: no window system, no global state.
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.8 * len(names), 4.9), layout="constrained")
        axes = figure.subplots(1, len(names), squeeze=False)[0]
        for axis, title, dots, numbers in zip(axes, names, points, measured, strict=True):
            half = len(dots) // 2
            for a, b in zip(dots[:half], dots[half:], strict=True):
                axis.plot([a[0], b[0]], [a[1], b[1]], color=_LINE, linewidth=0.7, alpha=0.6, zorder=1)
            look = {"edgecolors": "white", "linewidths": 0.6, "zorder": 2}
            axis.scatter(*dots[:half].T, s=40, marker="o", color=_SOURCE, label="source language", **look)
            axis.scatter(*dots[half:].T, s=44, marker="^", color=_TARGET, label="target language", **look)
            axis.set_title(title, fontweight="bold", loc="left")
            axis.set_xlabel(
                f"cosine: pairs {numbers['pair_cosine']:.3f}, random {numbers['random_cosine']:.3f}\n"
                f"nearest is the pair: {100 * numbers['source_to_target']:.0f}% from source,\n"
                f"{100 * numbers['target_to_source']:.0f}% from target (chance {100 / numbers['pairs']:.0f}%)",
                fontsize=10,
            )
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set_color("#cbd5e1")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False)
    return figure


def _svg(figure: "Figure") -> str:
    """The same bytes for the same picture: no date, ids by a fixed salt."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "sdrrl-tsne", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    whole = re.sub(r"<metadata>.*?</metadata>", "", text.getvalue(), flags=re.DOTALL)
    return whole.replace("<svg ", f'<svg role="img" aria-label="{_LABEL}" ', 1)
