"""What the machine does beside the denoising of a batch: in threads, and on the CPU stream.

The rule this module protects: it is the code that jobs run, on the arrays that the device made.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import mlx.core as mx
import numpy as np

from daemon.size import Size
from workers.diffusion.clip_vocabulary import clip_vocabulary
from workers.diffusion.load import DiffusionModel
from workers.diffusion.pictures import to_pixels
from workers.diffusion.tokenizer import Tokenizer
from workers.diffusion.writer import Picture, PictureWriter

_WINDOW = 77
_PROMPTS = 100
_THUMBNAIL = 128
_LEAST_SORTED = 500_000
_CROSSINGS = 5
_WORDS = (
    "an oil painting of a lighthouse in a storm, the sea breaking over black rocks, warm light in "
    "one window, gulls, heavy clouds, thick strokes, in the manner of the 19th century, number"
)


class SideWork(Protocol):
    """Work to do beside a batch's steps; ``amount`` says how much."""

    amount: str

    def begin(self) -> None:
        """Hand over what goes on by itself."""

    def part(self, index: int, of: int) -> None:
        """Do what the job's thread does between two steps: part ``index`` of ``of``."""

    def finish(self) -> None:
        """Wait until all is done."""


Maker = Callable[[int], SideWork]


class _Prompts:
    """Prompts become tokens, on the host."""

    def __init__(self, model: DiffusionModel, count: int) -> None:
        self.amount = f"{count * _PROMPTS} prompts"
        tokenizers = model.tokenizers or (Tokenizer.from_vocabulary(*clip_vocabulary()),)
        self._tokenizer = tokenizers[0]
        self._prompts = [f"{_WORDS} {number}" for number in range(count * _PROMPTS)]

    def tokenize(self, index: int, of: int) -> None:
        """Tokenize every ``of``-th prompt."""
        for prompt in self._prompts[index::of]:
            self._tokenizer.windows(prompt, _WINDOW)


class TokenizingBetween(_Prompts):
    """In the job's thread, between two steps."""

    def begin(self) -> None:
        """Nothing goes on by itself."""

    def part(self, index: int, of: int) -> None:
        """Tokenize a share of the prompts."""
        self.tokenize(index, of)

    def finish(self) -> None:
        """Nothing is left."""


class TokenizingBeside(_Prompts):
    """In a thread of its own, which takes turns with the job's in Python's lock."""

    def __init__(self, model: DiffusionModel, count: int) -> None:
        super().__init__(model, count)
        self._pool = ThreadPoolExecutor(1)
        self._result: Future[None] | None = None

    def begin(self) -> None:
        """Start."""
        self._result = self._pool.submit(self.tokenize, 0, 1)

    def part(self, index: int, of: int) -> None:
        """Nothing is to do in between."""

    def finish(self) -> None:
        """Wait for the thread."""
        if self._result is not None:
            self._result.result()


class Encoding:
    """A finished batch becomes PNG files, in the writer's threads."""

    def __init__(self, decoded: mx.array, count: int) -> None:
        self.amount = f"{count * decoded.shape[0]} PNG files"
        self._decoded = decoded
        self._count = count
        self._under_way: tuple[PictureWriter, tempfile.TemporaryDirectory[str]] | None = None

    def begin(self) -> None:
        """Fetch the batch and hand it to the threads."""
        pixels = to_pixels(np.nan_to_num(np.array(self._decoded)))
        pictures = [
            Picture(index=index, seed=0, pixels=pixels[index % len(pixels)])
            for index in range(self._count * len(pixels))
        ]
        folder = tempfile.TemporaryDirectory()
        writer = PictureWriter(
            Path(folder.name),
            thumbnails=Size(_THUMBNAIL, _THUMBNAIL),
            waiting=len(pictures),
        )
        self._under_way = writer, folder
        writer.submit(pictures)

    def part(self, index: int, of: int) -> None:  # noqa: ARG002 - the threads need no help
        """Take what is written, as the job does."""
        if self._under_way is not None:
            self._under_way[0].poll()

    def finish(self) -> None:
        """Wait for the files, and remove them."""
        if self._under_way is not None:
            writer, folder = self._under_way
            for _ in writer.drain():
                pass
            writer.close()
            folder.cleanup()


class Sorting:
    """The values of each picture are sorted (for their percentiles) on MLX's CPU stream.

    Some after each step: MLX lets a thread go only a few tasks ahead of its streams, and more sorts
    at once would hold up the next step. Small batches are repeated to make long sorts.
    """

    def __init__(self, decoded: mx.array, count: int) -> None:
        repeats = -(-_LEAST_SORTED // decoded.size)
        self._values = mx.tile(decoded.reshape(decoded.shape[0], -1), (1, repeats))
        mx.eval(self._values)
        self.amount = f"{count} sorts of {self._values.size / 1e6:.1f} million numbers"
        self._count = count
        # Not mx.cpu: within ``mx.stream`` of a CPU stream, as without a GPU, that is the stream.
        self._stream = mx.new_stream(mx.cpu)
        self._sorted: list[mx.array] = []

    def begin(self) -> None:
        """Nothing is queued but what each step brings."""
        self._sorted = []

    def part(self, index: int, of: int) -> None:
        """Queue a share of the sorts."""
        fresh = [mx.sort(self._values, stream=self._stream) for _ in range(self._count)[index::of]]
        mx.async_eval(fresh)  # type: ignore[no-untyped-call]
        self._sorted += fresh

    def finish(self) -> None:
        """Wait for the stream."""
        mx.eval(self._sorted)
        self._sorted = []


def crossing_seconds(array: mx.array) -> dict[str, float]:
    """Return the seconds of sums over fresh copies of ``array``, as they go from side to side."""
    steps = {
        "on the GPU": mx.gpu,
        "then first on a CPU stream": mx.cpu,
        "again there": mx.cpu,
        "back on the GPU": mx.gpu,
    }
    rounds = []
    for _ in range(_CROSSINGS):
        fresh = array + 0
        mx.eval(fresh)
        rounds.append([_sum_seconds(fresh, device) for device in steps.values()])
    medians = np.median(rounds, axis=0)
    return {name: float(value) for name, value in zip(steps, medians, strict=True)}


def _sum_seconds(array: mx.array, device: mx.DeviceType) -> float:
    begun = time.perf_counter()
    mx.eval(mx.sum(array, stream=device))
    return time.perf_counter() - begun
