"""What runs inside `llamafactory-cli train`, and nothing else: LLaMA-Factory's own training, weighted by equation 6.

In the order in which a training passes through them:

    autoload    waits in every Python process for LLaMA-Factory's training modules
    hook, guard replace three names of its SFT workflow for one run; stop its other ways to train
    blocks      the sdrrl blocks of dataset_info.json: subset and weight of each named set
    limits      what cannot be weighted exactly, and is refused
    reading     each named set read alone by LLaMA-Factory; rows, packing, sets, tokenized: what becomes of its rows
    weights     equation 6 as weights of single samples
    order       each subset at even distances over the epoch
    collator    a batch, and where its trained tokens are
    layout      the cheapest exact layout of a batch; obstacles, trial: whether samples may be joined in one row
    loss        l_CE of each sample, weighted; head, chunks, cross_entropy, router: its parts
    trainer     the loss of a global batch; counting, logs
    plot        the loss of each subset, drawn

LLaMA-Factory is touched in three of them: autoload knows the names of its modules, hook and guard replace names in its
workflows, reading calls its data functions (tests/training/test_hook.py).
"""
