"""Batches: which rows, in which order, padded how.

The rule this module protects: the order of the data is a function of seed and step alone, so a
resumed training sees what an uninterrupted one would have seen. No global random state is touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.language.data import Dataset, Sample, Tokens

# Widths are multiples of this, so that a compiled step meets few shapes (mlx-lm pads likewise).
PAD_TO = 32

_EVALUATION = (0, 2)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Padded rows and what is learned of each.

    ``tokens`` (rows, width) is zero after the end of a row; ``spans`` (rows, 2) holds the first
    index of a token that is learned, and one past the last.
    """

    tokens: Tokens
    spans: Tokens


def collate(samples: Sequence[Sample], max_seq_length: int) -> Batch:
    """Pad samples to one more than a multiple of 32 tokens, at most ``max_seq_length``.

    One more, because the network sees all columns but the last.
    """
    longest = max(len(sample.tokens) for sample in samples)
    width = min(1 + PAD_TO * -(-longest // PAD_TO), max_seq_length)
    tokens = np.zeros((len(samples), width), dtype=np.int32)
    for row, sample in zip(tokens, samples, strict=True):
        row[: len(sample.tokens)] = sample.tokens
    spans = [(sample.first, len(sample.tokens)) for sample in samples]
    return Batch(tokens=tokens, spans=np.array(spans, dtype=np.int32))


class TrainingBatches:
    """The endless sequence of training batches, addressed by step from 0.

    Every epoch draws from ``default_rng([seed, epoch])``: which rows are left over when the rows
    do not fill the last batch, which of equally long rows meet, and the order of the batches. Each
    batch holds rows of similar length, so little padding is computed.
    """

    def __init__(
        self, dataset: Dataset, *, batch_size: int, max_seq_length: int, seed: int
    ) -> None:
        self._samples = dataset.samples
        self._lengths = dataset.lengths
        self._batch_size = batch_size
        self._max_seq_length = max_seq_length
        self._seed = seed
        self._epoch = -1
        self._order: NDArray[np.int64] = np.zeros((0, batch_size), dtype=np.int64)

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        return len(self._samples) // self._batch_size

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the numbers of the rows in the batch of ``step``."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._order = self._shuffled(epoch)
            self._epoch = epoch
        row: NDArray[np.int64] = self._order[place]
        return row

    def batch(self, step: int) -> Batch:
        """Return the batch of ``step``."""
        return collate([self._samples[row] for row in self.rows(step)], self._max_seq_length)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self._seed, epoch])
        chosen = rng.permutation(len(self._samples))[: self.per_epoch * self._batch_size]
        by_length = chosen[np.argsort(self._lengths[chosen], kind="stable")]
        return rng.permutation(by_length.reshape(self.per_epoch, self._batch_size))


def evaluation_batches(
    dataset: Dataset, *, batch_size: int, max_seq_length: int, limit: int, seed: int
) -> Iterator[Batch]:
    """Yield batches for an evaluation: the same ones, in the same order, each time.

    All rows take part if ``limit`` is -1, else ``limit`` batches drawn by seed; the last batch of
    the sorted rows may be smaller.
    """
    by_length = np.argsort(dataset.lengths, kind="stable")
    chunks = [by_length[at : at + batch_size] for at in range(0, len(dataset), batch_size)]
    order = np.random.default_rng([seed, *_EVALUATION]).permutation(len(chunks))
    for number in order if limit < 0 else order[:limit]:
        yield collate([dataset.samples[row] for row in chunks[number]], max_seq_length)
