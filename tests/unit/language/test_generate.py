from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest

from daemon.errors import NonFiniteError
from workers.language.generate import Answer, Finish, Options, generate
from workers.language.load import LanguageModel
from workers.language.sampling import Sampling, make_sampler
from workers.memory import free_unused
from workers.models import own_tree

PROMPT = list(range(10, 60))
WARM = Sampling(temp=1.0, top_p=0.9, top_k=50, min_p=0.01)


def whole(pieces: Generator[str, None, Answer]) -> tuple[list[str], Answer]:
    shown = []
    while True:
        try:
            shown.append(next(pieces))
        except StopIteration as end:
            return shown, end.value


def number(array: Any) -> int:
    return int(array.item())


def answer(model: LanguageModel, **options: object) -> Answer:
    chosen = Options(max_tokens=12, **options)  # type: ignore[arg-type]
    return whole(generate(model, PROMPT, chosen, seed=5))[1]


@pytest.fixture
def endless(model: LanguageModel) -> LanguageModel:
    """The tiny model with an end token that it never chooses."""
    model.tokenizer.eos_token_ids = {-7}
    return model


def test_greedy_tokens_are_those_of_mlx_lm(model: LanguageModel) -> None:
    theirs = mlx_lm.stream_generate(model.model, model.tokenizer, PROMPT, max_tokens=12)
    text = "".join(response.text for response in theirs)
    assert answer(model).text.removeprefix(" ") == text


@pytest.mark.parametrize("prefill", [1, 7, 49, 50, 2048])
def test_the_answer_does_not_depend_on_the_chunks_of_the_prompt(
    model: LanguageModel, prefill: int
) -> None:
    assert answer(model, prefill=prefill).text == answer(model).text


def test_there_is_a_safe_point_after_every_chunk_and_token(endless: LanguageModel) -> None:
    pieces, result = whole(generate(endless, PROMPT, Options(max_tokens=3, prefill=10), seed=0))
    assert len(pieces) == 5 + 3 + 1
    assert "".join(pieces) == result.text
    assert (result.tokens, result.prompt_tokens, result.finish) == (3, 50, Finish.LENGTH)


def test_the_models_end_token_ends_the_answer(model: LanguageModel) -> None:
    first = number(mx.argmax(model.model(mx.array([PROMPT]))[:, -1]))
    model.tokenizer.eos_token_ids = {first}
    result = answer(model)
    assert (result.text, result.tokens, result.finish) == ("", 1, Finish.STOP)


def test_a_stop_text_ends_the_answer_and_is_not_shown(endless: LanguageModel) -> None:
    text = answer(endless).text
    stop = text[3:5]
    pieces, result = whole(generate(endless, PROMPT, Options(max_tokens=12, stop=(stop,)), seed=0))
    assert result.text == text[: text.find(stop)] == "".join(pieces)
    assert result.finish is Finish.STOP


def test_it_ends_when_asked_with_what_there_is(endless: LanguageModel) -> None:
    asked = iter([False] * 5 + [True] * 10)
    options = Options(max_tokens=12, prefill=2048)
    pieces, result = whole(generate(endless, PROMPT, options, seed=0, ended=lambda: next(asked)))
    assert result.finish is Finish.ASKED
    assert result.tokens == 4
    assert "".join(pieces) == result.text


def test_it_can_be_closed_at_every_yield_and_leaves_no_memory(endless: LanguageModel) -> None:
    free_unused()
    before = mx.get_active_memory()
    for steps in range(1, 10):
        with closing(
            generate(endless, PROMPT, Options(max_tokens=12, prefill=10), seed=0)
        ) as pieces:
            for _ in range(steps):
                next(pieces)
        del pieces
    assert free_unused() == before


def test_a_seed_gives_the_same_answer_whatever_else_draws_numbers(model: LanguageModel) -> None:
    first = answer(model, sampling=WARM).text
    mx.random.seed(99)
    assert answer(model, sampling=WARM).text == first


def test_sampling_leaves_the_global_random_state_alone(model: LanguageModel) -> None:
    mx.random.seed(1)
    expected = mx.random.uniform().item()
    mx.random.seed(1)
    answer(model, sampling=WARM)
    assert mx.random.uniform().item() == expected


def test_rows_and_seeds_have_random_numbers_of_their_own() -> None:
    logits = mx.zeros((1, 1000))
    keys = [(0, 0), (0, 1), (1, 0), (1, 1)]
    drawn = {
        tuple(number(sample(logits)) for _ in range(4))
        for sample in (make_sampler(WARM, seed=seed, row=row) for seed, row in keys)
    }
    assert len(drawn) == len(keys)


def test_two_answers_taking_turns_are_those_of_each_alone(endless: LanguageModel) -> None:
    def start(model: LanguageModel, seed: int) -> Generator[str, None, Answer]:
        options = Options(max_tokens=12, sampling=WARM, prefill=10)
        return generate(model, PROMPT, options, seed=seed)

    alone = [whole(start(endless, seed))[1].text for seed in (1, 2)]
    turns = [start(endless, seed) for seed in (1, 2)]
    texts = ["", ""]
    for _ in range(5 + 12 + 1):
        for number, pieces in enumerate(turns):
            texts[number] += next(pieces)
    assert texts == alone


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        (Sampling(temp=1, top_k=1), {3}),
        (Sampling(temp=1, top_k=2), {2, 3}),
        (Sampling(temp=1, top_p=0.5), {3}),
        (Sampling(temp=1, min_p=0.5), {3}),
        (Sampling(temp=1, top_k=10_000), {0, 1, 2, 3}),
        (Sampling(temp=0), {3}),
    ],
)
def test_the_filters_keep_the_likely_tokens(options: Sampling, allowed: set[int]) -> None:
    logits = mx.log(mx.array([[0.08, 0.12, 0.2, 0.6]]))
    sample = make_sampler(options, seed=0)
    assert {number(sample(logits)) for _ in range(200)} == allowed


def test_nan_is_an_error(model: LanguageModel) -> None:
    tree = own_tree(model.model)
    tree.model.norm.weight = mx.full(64, float("nan"))
    broken = LanguageModel(
        name="broken",
        model=tree,
        tokenizer=model.tokenizer,
        config={},
        fingerprint="",
        bytes=0,
    )
    with pytest.raises(NonFiniteError):
        answer(broken)


def test_time_spent_suspended_does_not_count(endless: LanguageModel) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    pieces = generate(endless, PROMPT, Options(max_tokens=4), seed=0, clock=clock)
    result = whole(paused(pieces, now))[1]
    assert result.prompt_seconds == 2.0
    assert result.generation_tps == 3 / (result.generation_seconds)
    assert result.generation_seconds < 10


def paused(pieces: Generator[str, None, Answer], now: list[float]) -> Generator[str, None, Answer]:
    """Hand on ``pieces``, letting the clock run on between them."""
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        now[0] += 1000.0
        yield piece
