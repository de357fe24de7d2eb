"""The order of the data is a function of seed and step, and padding is small and never learned."""

from __future__ import annotations

from itertools import pairwise

import mlx.core as mx
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from mlx import nn
from mlx_lm.tuner.trainer import default_loss

from workers.language.batches import Batch, TrainingBatches, collate, evaluation_batches
from workers.language.data import Dataset, Sample, split_dataset
from workers.language.evaluate import evaluate, token_loss

LENGTHS = st.lists(st.integers(2, 90), min_size=4, max_size=40)


def dataset(lengths: list[int]) -> Dataset:
    """Samples whose tokens tell which sample they are of."""
    return Dataset(
        samples=[
            Sample(tokens=np.full(length, number + 1, dtype=np.int32), first=1)
            for number, length in enumerate(lengths)
        ]
    )


def batches(data: Dataset, *, size: int = 3, seed: int = 5) -> TrainingBatches:
    return TrainingBatches(data, batch_size=size, max_seq_length=64, seed=seed)


@given(LENGTHS)
def test_an_epoch_has_every_row_at_most_once(lengths: list[int]) -> None:
    order = batches(dataset(lengths))
    rows = np.concatenate([order.rows(step) for step in range(order.per_epoch)])
    assert len(set(rows.tolist())) == len(rows) == len(lengths) - len(lengths) % 3


@given(LENGTHS)
def test_batches_do_not_overlap_in_length(lengths: list[int]) -> None:
    order = batches(dataset(lengths))
    spans = sorted(
        (min(found), max(found))
        for step in range(order.per_epoch)
        for found in [[lengths[row] for row in order.rows(step)]]
    )
    assert all(high <= low for (_, high), (low, _) in pairwise(spans))


def test_any_step_can_be_asked_for_in_any_order() -> None:
    data = dataset(list(range(2, 33)))
    forward = [batches(data).batch(step).tokens.tolist() for step in range(25)]
    again = batches(data)
    assert [again.batch(step).tokens.tolist() for step in range(24, -1, -1)] == forward[::-1]


def test_rows_left_over_change_from_epoch_to_epoch() -> None:
    order = batches(dataset([5] * 31))
    seen = {int(row) for step in range(5 * order.per_epoch) for row in order.rows(step)}
    assert seen == set(range(31))


def test_the_seed_decides_and_the_global_state_does_not() -> None:
    data = dataset(list(range(2, 33)))
    np.random.seed(1)
    first = [batches(data).rows(step).tolist() for step in range(9)]
    np.random.seed(2)
    assert [batches(data).rows(step).tolist() for step in range(9)] == first
    assert [batches(data, seed=6).rows(step).tolist() for step in range(9)] != first


def test_widths_are_multiples_of_32_up_to_the_limit() -> None:
    def width(length: int, limit: int) -> int:
        return len(collate(dataset([length]).samples, limit).tokens[0])

    assert [width(length, 64) for length in (2, 32, 33, 63, 64)] == [33, 33, 64, 64, 64]
    assert width(33, 2048) == 65


def test_an_evaluation_sees_every_row_and_always_the_same() -> None:
    data = dataset(list(range(2, 13)))

    def rows(limit: int) -> list[int]:
        found = evaluation_batches(data, batch_size=4, max_seq_length=64, limit=limit, seed=1)
        return [int(row[0]) for batch in found for row in batch.tokens]

    assert sorted(rows(-1)) == list(range(1, 12))
    assert rows(2) == rows(2) == rows(-1)[: len(rows(2))]


@given(st.integers(2, 60), st.integers(0, 100))
def test_a_tenth_is_kept_for_validation(count: int, seed: int) -> None:
    train, valid = split_dataset(dataset([3] * count), seed)
    assert len(valid) == max(1, round(count / 10))
    found = sorted(int(sample.tokens[0]) for part in (train, valid) for sample in part.samples)
    assert found == list(range(1, count + 1))


class Unigram(nn.Module):  # type: ignore[misc]
    """A network that gives every token the same logits, whatever came before."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.logits = mx.random.normal((vocabulary,), key=mx.random.key(3))

    def __call__(self, tokens: mx.array) -> mx.array:
        return mx.broadcast_to(self.logits, (*tokens.shape, self.logits.size))


def test_the_loss_counts_each_learned_token_once() -> None:
    model = Unigram(9)
    tokens = np.zeros((2, 33), dtype=np.int32)
    tokens[0, :4], tokens[1, :6] = [1, 2, 3, 4], [5, 6, 7, 8, 1, 2]
    spans = np.array([[1, 4], [4, 6]], dtype=np.int32)
    loss, count = token_loss(model, mx.array(tokens), mx.array(spans))
    scores = model.logits - mx.logsumexp(model.logits)
    expected = -sum(scores[token].item() for token in (2, 3, 4, 1, 2)) / 5
    assert count.item() == 5
    assert abs(loss.item() - expected) < 1e-6


def test_the_loss_is_mlx_lms_without_its_padding_token() -> None:
    model = Unigram(9)
    tokens = mx.array(np.arange(66).reshape(2, 33) % 9)
    spans = mx.array([[1, 20], [7, 30]])
    theirs = default_loss(model, tokens, spans - mx.array([[0, 1]]))
    ours = token_loss(model, tokens, spans)
    assert ours[0].item() == theirs[0].item()
    assert ours[1].item() == theirs[1].item()


def test_a_mean_over_batches_weighs_tokens_not_batches() -> None:
    model = Unigram(9)
    made = [
        Batch(tokens=np.array([[1, 2, 3]], dtype=np.int32), spans=np.array([[1, 3]])),
        Batch(tokens=np.array([[1, 4, 0]], dtype=np.int32), spans=np.array([[1, 2]])),
    ]
    run = evaluate(model, made)
    while True:
        try:
            next(run)
        except StopIteration as end:
            mean = end.value
            break
    scores = model.logits - mx.logsumexp(model.logits)
    assert abs(mean + sum(scores[token].item() for token in (2, 3, 4)) / 3) < 1e-6
    assert model.training
