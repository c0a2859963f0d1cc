"""What other libraries do to transformers' Trainer, put there before a training."""

import torch
from transformers import Trainer, TrainerCallback


def count_tokens() -> None:
    """Unsloth's way: a step's samples are counted in trained tokens, by a function of its own."""

    def get_batch_samples(self, epoch_iterator, num_batches, device=None, *args, **kwargs):
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        return batches, sum((batch["labels"][:, 1:] != -100).sum() for batch in batches)

    Trainer.get_batch_samples = get_batch_samples
    Trainer._get_num_items_in_batch = lambda self, batches, device: torch.tensor(1)


def count_tokens_in_ours() -> None:
    """The same, put over this project's own method."""
    from sdrrl_factory.training.trainer import WeightedTrainerMixin

    count_tokens()
    WeightedTrainerMixin.get_batch_samples = Trainer.get_batch_samples


def divide_the_loss() -> None:
    """A training step that divides by the accumulation steps, as transformers did before 4.46."""
    step = Trainer.training_step
    Trainer.training_step = lambda self, *args, **kwargs: step(self, *args, **kwargs) / 2


def lose_a_sample() -> None:
    """A loop that takes a sample out of a micro-batch."""
    step = Trainer.training_step

    def training_step(self, model, inputs, *args, **kwargs):
        if not hasattr(self, "lost"):
            self.lost = True
            inputs["sdrrl"]["counted"] -= 1
        return step(self, model, inputs, *args, **kwargs)

    Trainer.training_step = training_step


class Generating(TrainerCallback):
    """Continues a text after each step, and leaves the model in evaluation mode."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        model.eval()
        model.generate(input_ids=torch.tensor([[5, 6, 7]]), max_new_tokens=3, do_sample=False)


def generate_between() -> None:
    made = Trainer.__init__

    def __init__(self, *args, **kwargs):
        made(self, *args, **kwargs)
        self.add_callback(Generating())

    Trainer.__init__ = __init__


def measure_noise() -> None:
    """Prints the shape of each training batch's embeddings, and the deviation of NEFTune's noise on them."""
    import transformers.trainer

    stock = transformers.trainer.neftune_post_forward_hook

    def hook(module, args, output):
        noisy = stock(module, args, output)
        if module.training:
            print("noise:", *output.shape, (noisy - output).std().item())
        return noisy

    transformers.trainer.neftune_post_forward_hook = hook
