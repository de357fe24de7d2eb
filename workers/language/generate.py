"""Generating text, one token at a time, as an iterator that can be left at any step.

The rule this module protects: an answer depends on its own prompt, options and seed alone. Nothing
global is changed while an answer is suspended: no stream, no random state, no memory limit; so two
attempts can take turns in one engine, and a closed iterator leaves nothing behind.

mlx-lm's own loop is not used because it keeps a stream entered and the wired limit raised for as
long as it is suspended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.models.cache import make_prompt_cache

from daemon.errors import NonFiniteError
from workers.language.load import LanguageModel
from workers.language.sampling import Sampler, Sampling, make_sampler
from workers.language.streaming import StopTexts, text_stream

# Tokens of the prompt between two safe points: about a second on a slow device, no loss on a fast.
PREFILL_GPU = 2048
PREFILL_CPU = 128

# Stands among the token ids for "a chunk of the prompt is done".
_PREFILLING = -1

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked of one answer. ``stop`` are texts that end it and are not part of it."""

    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    prefill: int = PREFILL_GPU


class Finish(StrEnum):
    """Why an answer ended: by the model or a stop text, at its longest, or because it was asked."""

    STOP = "stop"
    LENGTH = "length"
    ASKED = "asked"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A finished answer, or what there is of it. Seconds count computing, not suspension.

    ``tokens`` counts the end token, as mlx-lm does.
    """

    text: str
    tokens: int
    prompt_tokens: int
    prompt_seconds: float
    generation_seconds: float
    finish: Finish

    @property
    def prompt_tps(self) -> float:
        """Tokens of the prompt per second, up to the first token of the answer."""
        return _rate(self.prompt_tokens, self.prompt_seconds)

    @property
    def generation_tps(self) -> float:
        """Tokens per second after the first, 0 for an answer of one."""
        return _rate(self.tokens - 1, self.generation_seconds)


def generate(
    model: LanguageModel,
    prompt: list[int],
    options: Options,
    *,
    seed: int,
    row: int = 0,
    ended: Callable[[], bool] = lambda: False,
    clock: Clock = time.perf_counter,
) -> Generator[str, None, Answer]:
    """Yield the pieces of the answer as they become certain, then return the whole.

    Yields after every prefill chunk and every token, an empty piece where there is no new text.
    ``ended`` is asked at each of them whether to end with what there is.

    Raises:
        NonFiniteError: the model answered with NaN.
    """
    writing, watch = _Writing(model, prompt, options.stop), _Stopwatch(clock)
    sampler = make_sampler(options.sampling, seed=seed, row=row)
    count, prompt_seconds, finish = 0, 0.0, Finish.LENGTH
    with closing(_tokens(model.model, prompt, sampler, options)) as tokens:
        for token in _timed(tokens, watch):
            if ended():
                finish = Finish.ASKED
                break
            if token == _PREFILLING:
                yield ""
                continue
            prompt_seconds, count = prompt_seconds or watch.seconds, count + 1
            if token not in model.tokenizer.eos_token_ids:
                yield writing.add(token)
            if token in model.tokenizer.eos_token_ids or writing.stopped:
                finish = Finish.STOP
                break
    yield writing.finish()
    return Answer(
        text=writing.text,
        tokens=count,
        prompt_tokens=len(prompt),
        prompt_seconds=prompt_seconds,
        generation_seconds=watch.seconds - prompt_seconds if prompt_seconds else 0.0,
        finish=finish,
    )


class _Writing:
    """The text of one answer as it grows, up to a stop text."""

    def __init__(self, model: LanguageModel, prompt: list[int], stops: tuple[str, ...]) -> None:
        self._stream, self._stops = text_stream(model.tokenizer, prompt), StopTexts(stops)
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """Everything shown so far."""
        return "".join(self._pieces)

    @property
    def stopped(self) -> bool:
        """Whether a stop text has come."""
        return self._stops.found

    def add(self, token: int) -> str:
        """Take a token; return the text that can be shown now."""
        self._pieces.append(self._stops.add(self._stream.add(token)))
        return self._pieces[-1]

    def finish(self) -> str:
        """Return what was held back, unless a stop text has ended the answer."""
        if self.stopped:
            return ""
        shown = self._stops.add(self._stream.finish())
        self._pieces.append(shown if self.stopped else shown + self._stops.finish())
        return self._pieces[-1]


def _tokens(
    model: nn.Module, prompt: list[int], sampler: Sampler, options: Options
) -> Generator[int, None, None]:
    """Yield -1 after each chunk of the prompt, then at most ``max_tokens`` token ids.

    While one token is handed out, the next is being computed.
    """
    cache: list[Any] = make_prompt_cache(model)
    rest = mx.array(prompt)
    while rest.size > 1:
        size = min(options.prefill, rest.size - 1)
        model(rest[:size][None], cache=cache)
        mx.eval([layer.state for layer in cache])
        rest = rest[size:]
        yield _PREFILLING
    step = _step(model, rest, cache, sampler)
    for number in range(options.max_tokens):
        last = number + 1 == options.max_tokens
        following = None if last else _step(model, step[0], cache, sampler)
        yield _value(step)
        if following is not None:
            step = following


def _step(
    model: nn.Module, tokens: mx.array, cache: list[Any], sampler: Sampler
) -> tuple[mx.array, mx.array]:
    """Start computing the token after ``tokens``, and whether the logits were numbers at all."""
    logits = model(tokens[None], cache=cache)[:, -1, :].astype(mx.float32)
    step = (sampler(logits), mx.isnan(logits).any())
    mx.async_eval(*step)  # type: ignore[no-untyped-call]
    return step


def _value(step: tuple[mx.array, mx.array]) -> int:
    if bool(step[1].item()):
        raise NonFiniteError(
            "the model answered with NaN instead of probabilities",
            remedy="the model or the adapter is damaged, or overflows in 16 bits",
        )
    token: Any = step[0].item()
    return int(token)


class _Stopwatch:
    """Adds up the time spent inside its ``with`` blocks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = 0.0
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._started = self._clock()

    def __exit__(self, *_: object) -> None:
        self.seconds += self._clock() - self._started


def _timed(tokens: Iterator[int], watch: _Stopwatch) -> Iterator[int]:
    """Hand on ``tokens``, timing how long each takes to come."""
    while True:
        with watch:
            token = next(tokens, None)
        if token is None:
            return
        yield token


def _rate(count: int, seconds: float) -> float:
    return count / seconds if count > 0 and seconds > 0 else 0.0
