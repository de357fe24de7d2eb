"""From token ids back to text, a piece at a time.

The rule this module protects: the pieces joined are the text, exactly: no half characters, no space
lost at a seam, and nothing of a stop text.
"""

from __future__ import annotations

from typing import Any

from workers.language.sentencepiece_text import SentencePieceWrapper

# Tokens of the prompt that are decoded before the answer, so that its first space is kept.
_CONTEXT = 5
_BROKEN = "�"

# Tokens after which bytes that are still no character are shown as broken: they are garbage.
_MOST_HELD = 16


class TextStream:
    """Decodes tokens as they come.

    A window of tokens is decoded with and without the newest; what is longer is new text. The
    window starts inside the prompt, because a decoder drops a space at the start of its text.
    A character of several tokens is held back until it is whole.
    """

    def __init__(self, tokenizer: Any, prompt: list[int]) -> None:
        self._tokenizer = tokenizer
        self._window = list(prompt[-_CONTEXT:])
        self._shown = len(self._window)

    def add(self, token: int) -> str:
        """Take the next token; return the text that has become certain, possibly none."""
        self._window.append(token)
        return self._new_text(final=False)

    def finish(self) -> str:
        """Return what was held back."""
        return self._new_text(final=True)

    def _new_text(self, *, final: bool) -> str:
        before = self._decode(self._window[: self._shown])
        after = self._decode(self._window)
        held = len(self._window) - self._shown
        if after.endswith(_BROKEN) and held < _MOST_HELD and not final:
            return ""
        self._window = self._window[max(0, self._shown - _CONTEXT) :]
        self._shown = len(self._window)
        return after[len(before) :]

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, clean_up_tokenization_spaces=False))


class SentencePieceStream:
    """Decodes SentencePiece's tokens as they come, each text as soon as it is certain.

    The prompt is read first: what follows it is no beginning, and keeps its first space.
    """

    def __init__(self, tokenizer: SentencePieceWrapper, prompt: list[int]) -> None:
        self._detokenizer = tokenizer.detokenizer
        for token in prompt:
            self._detokenizer.add_token(token)
        self._taken()

    def add(self, token: int) -> str:
        """Take the next token; return the text that has become certain, possibly none."""
        self._detokenizer.add_token(token)
        return self._taken()

    def finish(self) -> str:
        """Return what was held back."""
        self._detokenizer.finalize()
        return self._taken()

    def _taken(self) -> str:
        return str(self._detokenizer.last_segment)


def text_stream(tokenizer: Any, prompt: list[int]) -> TextStream | SentencePieceStream:
    """Return the stream for a tokenizer: its own where it knows which text is certain."""
    if isinstance(tokenizer, SentencePieceWrapper):
        return SentencePieceStream(tokenizer, prompt)
    return TextStream(tokenizer, prompt)


class StopTexts:
    """Ends a text at the first of ``stops``, holding back what could become one."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.found = False

    def add(self, text: str) -> str:
        """Take more text; return what can be shown. Sets ``found`` at a stop text."""
        self._held += text
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.found = True
            shown, self._held = self._held[: min(places)], ""
            return shown
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        shown, self._held = (
            self._held[: len(self._held) - keep],
            self._held[len(self._held) - keep :],
        )
        return shown

    def finish(self) -> str:
        """Return what was held back and did not become a stop text."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of ``text`` that begins ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
