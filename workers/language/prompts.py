"""From what the user wrote to the token ids that the model reads.

The rule this module protects: a raw prompt reaches the model as it is, spaces at its end included,
and whatever is done to a prompt without being asked for is said in the log.
"""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import TemplateError

from daemon.errors import JobError, ModelError
from workers.language.load import LanguageModel


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    """How the prompts of one job become tokens: by chat template, or ``raw``."""

    raw: bool
    system: str | None = None

    def notes(self, model: LanguageModel) -> tuple[str, ...]:
        """Return what the job's log should say about the way the prompts are read."""
        if self.raw or model.tokenizer.has_chat_template:
            return ()
        note = f"{model.name} has no chat template: the prompt is sent as it is"
        return (note if self.system is None else f"{note}, after the system message",)

    def tokens(self, model: LanguageModel, prompt: str) -> list[int]:
        """Return the token ids of one prompt.

        Raises:
            ModelError: the chat template refuses the messages.
            JobError: the prompt has no tokens, or characters that are not Unicode text.
        """
        if not prompt.isascii() and any("\ud800" <= char <= "\udfff" for char in prompt):
            raise JobError(
                "the prompt holds half a surrogate pair, which is not Unicode text",
                remedy="save the prompt as UTF-8",
            )
        found = self._encoded(model, prompt)
        if not found:
            raise JobError("the prompt is empty: it has no tokens", remedy="give a prompt")
        return found

    def _encoded(self, model: LanguageModel, prompt: str) -> list[int]:
        if self.raw or not model.tokenizer.has_chat_template:
            parts = [prompt] if self.system is None else [self.system, prompt]
            return _plain(model, "\n\n".join(parts))
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        messages = [*system, {"role": "user", "content": prompt}]
        try:
            ids = model.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        except TemplateError as error:
            raise ModelError(
                f"the chat template of {model.name} refuses the messages: {error}",
                remedy="leave out the system message, or send the prompt raw",
            ) from None
        return [int(token) for token in ids]


def _plain(model: LanguageModel, text: str) -> list[int]:
    """Return the tokens of plain text, with the start token unless the text begins with it."""
    start = model.tokenizer.bos_token
    add = start is None or not text.startswith(start)
    return [int(token) for token in model.tokenizer.encode(text, add_special_tokens=add)]


def context_length(model: LanguageModel) -> int | None:
    """Return how many positions the model was made for, None if its configuration is silent."""
    inner = model.config.get("text_config")
    for config in (model.config, inner if isinstance(inner, dict) else {}):
        value = config.get("max_position_embeddings")
        if isinstance(value, int) and value > 0:
            return value
    return None
