"""A tokenizer with the form of its prompts: what a model reads, in process and from a server that takes tokens."""

from collections.abc import Callable, Mapping
from typing import Any

from sdrrl_factory.errors import UserError, under
from sdrrl_factory.models.prompts import no_chat_template, no_end


def check_format(template: str | None, chat_template_kwargs: Mapping[str, Any] | None) -> None:
    """Raises: UserError, where LLaMA-Factory's template would not look at what its prompt is to be made with."""
    if template and chat_template_kwargs:
        what = f"LLaMA-Factory's template {template} takes none: they are for the checkpoint's own chat template"
        raise UserError(what, "remove them, or set template: null", key="chat_template_kwargs")


class PromptFormat:
    """How a question becomes the tokens of a prompt.

    Args:
        tokenizer: of the checkpoint at `path`, which is named in errors.
        template: a LLaMA-Factory template by name; None takes the checkpoint's own chat template.
        enable_thinking: whether a model that can think first does so; None: as the template has it.
        chat_template_kwargs: what the checkpoint's own chat template is given besides.

    Attributes:
        stops: tokens that end an answer, by the template.

    Raises: UserError about the key "model", "template" or "chat_template_kwargs".
    """

    def __init__(
        self,
        tokenizer: Any,
        path: str,
        template: str | None = None,
        enable_thinking: bool | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ):
        check_format(template, chat_template_kwargs)
        self.tokenizer, self.path = tokenizer, path
        thinking = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        self._chat_template_kwargs = {**thinking, **(chat_template_kwargs or {})}
        if tokenizer.pad_token_id is None:
            if tokenizer.eos_token_id is None and not template:
                raise no_end(path)
            tokenizer.pad_token = tokenizer.eos_token
        self.stops: list[int] = []
        self._encode: Callable[[str, str], list[int]] = self._by_chat_template
        if template:
            from sdrrl_factory.factory import prompt_format

            with under("template"):
                self._encode, self.stops = prompt_format(tokenizer, template, enable_thinking)

    def encode(self, user: str, system: str = "") -> list[int]:
        """The token ids of the prompt up to where the answer begins; "" leaves the template its own system prompt."""
        return self._encode(user, system)

    def _by_chat_template(self, user: str, system: str) -> list[int]:
        from jinja2 import TemplateError

        # Only here: likelihoods of plain text need no format.
        if not self.tokenizer.chat_template:
            raise no_chat_template(self.path)
        turns = [{"role": "user", "content": user}]
        if system:
            turns.insert(0, {"role": "system", "content": system})
        try:
            return self.tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, return_dict=False, **self._chat_template_kwargs
            )
        except TemplateError as err:
            what = f"the chat template of {self.path} fails ({' '.join(str(err).split())})"
            raise UserError(what, "set `template:` to its LLaMA-Factory template", key="model") from None
