"""A short greedy answer of the network that is being trained.

The rule this module protects: looking changes nothing. The network answers in evaluation mode and
returns to training mode; greedy decoding draws no random number.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any

from workers.language.generate import Options, generate
from workers.language.load import LanguageModel

MAX_TOKENS = 64


def prompt_tokens(tokenizer: Any, prompt: str, *, chat: bool) -> list[int]:
    """Return the prompt as the training rows had it: through the chat template, or as it is."""
    if not chat:
        return list(tokenizer.encode(prompt))
    messages = [{"role": "user", "content": prompt}]
    tokens = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return list(tokens)


def sample(
    language: LanguageModel, prompt: list[int], *, max_tokens: int = MAX_TOKENS
) -> Generator[None, None, str]:
    """Return the greedy continuation of ``prompt``; yields after each token, for safe points."""
    text = ""
    language.model.eval()
    try:
        with closing(generate(language, prompt, Options(max_tokens=max_tokens), seed=0)) as pieces:
            for piece in pieces:
                text += piece
                yield
    finally:
        language.model.train()
    return text
