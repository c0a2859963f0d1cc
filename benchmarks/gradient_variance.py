"""How much the gradient of a step varies in an epoch, and what clipping makes of equation 6, in two orders of rows.

    python benchmarks/gradient_variance.py                              # a tiny model, at its start and after training
    python benchmarks/gradient_variance.py models/smollm2-135m [ROWS]   # a real one; ROWS of each subset (64)

The epoch has the paper's sizes: 52,002 rows in D_LL, 2,000 in D_mt, 1,000 in D_comp. Its rows stand for those of the
demo's sets (sdrrl prepare yaml_recipes/prepare/demo_spa.yaml), each of which comes many times. Their gradients are
computed once, one by one, at fixed parameters; all that is printed follows from their inner products, in float64. A
model of more than a million parameters has its gradients folded to 65,536 numbers with random signs, which keeps inner
products to about 1%; the figure beside the model's name says how well.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from sdrrl_factory.training.order import StratifiedSampler
from sdrrl_factory.training.weights import Entry, sample_weights

ROOT = Path(__file__).parent.parent
SUBSETS = ("LL", "TL", "LT", "TT", "mt", "comp")
# The paper's 52,002 instructions; what its quality threshold leaves of the translated ones is not told: some 10% less.
TRANSLATED = [52_002, 48_000, 49_000, 46_500]
PAIRS = [1_000, 10_000]  # |P|: two rows of D_mt and one of D_comp each
BATCHES = [32, 128, 512]
CLIP = 1.0  # max_grad_norm of transformers
EPOCHS = 4  # of each order
FOLDED = 65_536


def main() -> None:
    torch.manual_seed(0)
    missing = [path for path in map(path_of, SUBSETS) if not path.exists()]
    if missing:
        sys.exit(f"{missing[0]} is not there; run: sdrrl prepare yaml_recipes/prepare/demo_spa.yaml")
    rows = {d: [json.loads(line) for line in path_of(d).read_text().splitlines()] for d in SUBSETS}
    if sys.argv[1:]:
        model, samples = real_model(sys.argv[1], rows, int((sys.argv[2:] or [64])[0]))
        report(sys.argv[1], model, samples)
        return
    model, samples = tiny_model(rows)
    report("a tiny model at its start", model, samples)
    train(model, samples, steps=300)
    report("the same after 300 steps on equation 6", model, samples)


def path_of(subset: str) -> Path:
    return ROOT / f"data/demo_spa/{subset.lower()}.jsonl"


# --- models and samples: by subset, (ids of the prompt, ids of the answer) of each row


def tiny_model(rows: dict) -> tuple:
    """A Llama of two layers over bytes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=256, num_key_value_heads=2, tie_word_embeddings=True, **shape))
    samples = {
        d: [(list(f"{r['instruction']}\n{r['input']}\n\n".encode()), list(f"{r['output']}\0".encode())) for r in each]
        for d, each in rows.items()
    }
    return model, samples


def real_model(folder: str, rows: dict, most: int) -> tuple:
    """A checkpoint and its chat format; the first `most` rows of each subset."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)

    def ids(row) -> tuple:
        message = {"role": "user", "content": f"{row['instruction']}\n{row['input']}".strip()}
        prompt = tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
        return tuple(
            tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (prompt, row["output"] + tokenizer.eos_token)
        )

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, {d: [ids(row) for row in each[:most]] for d, each in rows.items()}


def loss(model, sample) -> torch.Tensor:
    """l_CE, the mean cross-entropy of the answer's tokens."""
    prompt, answer = sample
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0]
    return F.cross_entropy(logits[len(prompt) - 1 : -1], torch.tensor(answer))


def train(model, samples: dict, steps: int) -> None:
    """Equation 6 without its noise of numbers: two rows of each subset a step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    random = np.random.default_rng(0)
    for _ in range(steps):
        for each in samples.values():
            for i in random.integers(len(each), size=2):
                (loss(model, each[i]) / 2 / len(samples)).backward()
        optimizer.step()
        optimizer.zero_grad()


# --- gradients


def inner_products(model, samples: dict) -> tuple[np.ndarray, float]:
    """(rows, rows) the inner products of the gradients of all samples, in the order of the subsets; and the mean of
    |folded gradient| / |gradient|."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    size = sum(p.numel() for p in parameters)
    width = size if size <= 1_000_000 else FOLDED
    generator = torch.Generator().manual_seed(1)
    signs = torch.randint(2, (-(-size // width) * width,), generator=generator, dtype=torch.int8).mul_(2).sub_(1)
    gradients, ratios = [], []
    for each in samples.values():
        for sample in each:
            gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss(model, sample), parameters)])
            folded = (F.pad(gradient, (0, len(signs) - size)) * signs).view(-1, width).sum(0)
            ratios.append(float(folded.norm() / gradient.norm()))
            gradients.append(folded)
    gradients = torch.stack(gradients).double()
    return (gradients @ gradients.T).numpy(), float(np.mean(ratios))


# --- epochs


def steps_of(sizes: list[int], batch: int, order: str, seed: int) -> np.ndarray:
    """(steps, batch) the rows of an epoch's full steps."""
    if order == "stratified":
        rows = np.array(list(StratifiedSampler(np.repeat(np.arange(len(sizes)), sizes), np.arange(len(sizes)), seed)))
    else:
        rows = np.random.default_rng(seed).permutation(sum(sizes))
    return rows[: len(rows) // batch * batch].reshape(-1, batch)


def measure(products: np.ndarray, distinct: list[int], sizes: list[int], batch: int, order: str) -> dict:
    """One order at one size.

    distinct: how many rows of `products` are each subset's. Every gradient is a sum of those of the distinct rows, so
    it is written as their coefficients c, and its squared norm is c' products c.
    """
    subset = np.repeat(np.arange(len(sizes)), sizes)
    weight = np.array(sample_weights([Entry(d, d, 1.0, n) for d, n in zip(SUBSETS, sizes, strict=True)]))[subset]
    first = np.cumsum(distinct) - distinct
    sample = np.concatenate([first[d] + np.arange(n) % distinct[d] for d, n in enumerate(sizes)])
    epoch = np.bincount(sample, weight, minlength=len(products)) / len(sample)
    length = epoch @ products @ epoch  # |g_epoch|^2
    variances, norms, comp = [], [], []
    clipped, unclipped, kept = 0, 0, np.zeros(len(sizes))
    for seed in range(EPOCHS):
        steps = steps_of(sizes, batch, order, seed)
        where = (np.arange(len(steps))[:, None] * len(products) + sample[steps]).ravel()
        each = np.bincount(where, weight[steps].ravel(), minlength=len(steps) * len(products))
        each = each.reshape(len(steps), -1) / batch  # (steps, distinct rows)
        off = each - epoch
        variances.append(((off @ products) * off).sum(1) / length)
        norm = np.sqrt(((each @ products) * each).sum(1))
        norms.append(norm)
        comp.append((subset[steps] == len(sizes) - 1).sum(1))
        factor = np.minimum(1, CLIP / norm)
        clipped, unclipped = clipped + factor @ each, unclipped + each.sum(0)
        for d in range(len(sizes)):
            kept[d] += factor @ (subset[steps] == d).sum(1) / sizes[d] / EPOCHS
    # What the clipped sum lacks of the unclipped one's direction: the sine of their angle.
    a, b, ab = (x @ products @ y for x, y in ((clipped, clipped), (unclipped, unclipped), (clipped, unclipped)))
    comp, norms = np.concatenate(comp), np.concatenate(norms)
    return {
        "variance": np.concatenate(variances).mean(),
        "comp": (comp.mean(), comp.std()),
        "norm": (np.median(norms), np.quantile(norms, 0.95)),
        "over": (norms > CLIP).mean(),
        "bent": np.sqrt(max(0.0, 1 - ab**2 / (a * b))),
        "weights": kept / kept.mean(),
    }


def report(name: str, model, samples: dict) -> None:
    products, ratio = inner_products(model, samples)
    distinct = [len(each) for each in samples.values()]
    size = sum(p.numel() for p in model.parameters())
    print(f"\n{name}: {size:,} parameters, {distinct} distinct rows; |folded gradient| / |gradient| {ratio:.4f}")
    heads = ["pairs", "batch", "order", "D_comp rows a step", "variance", "median, 95% norm", "clipped", "bent"]
    heads += ["LL", "mt", "comp"]
    print(f"| {' | '.join(heads)} |\n|{' ---: |' * len(heads)}")
    for pairs in PAIRS:
        for batch in BATCHES:
            for order in ("shuffled", "stratified"):
                m = measure(products, distinct, [*TRANSLATED, 2 * pairs, pairs], batch, order)
                print(
                    f"| {pairs:,} | {batch} | {order} | {m['comp'][0]:.2f} +- {m['comp'][1]:.2f} | {m['variance']:.3f}"
                    f" | {m['norm'][0]:.2f}, {m['norm'][1]:.2f} | {m['over']:.0%} | {m['bent']:.3f}"
                    f" | {m['weights'][0]:.2f} | {m['weights'][4]:.2f} | {m['weights'][5]:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
