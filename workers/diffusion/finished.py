"""Latents that are done on their way to the disk, while the next batch is denoised.

The rule this module protects: decoding and encoding hold up the next step only for pictures that
need tiles. A batch is decoded on a stream of its own and fetched some steps into the next one; PNG
files are written by threads.
What is on the disk is published at once, and a job that goes on begins behind it (``catalogue``).
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import mlx.core as mx
import numpy as np

from daemon.size import Size
from daemon.specs import DiffuseSpec
from workers.checkpoints import STATE
from workers.diffusion import autoencode
from workers.diffusion.catalogue import Catalogue, Events
from workers.diffusion.inputs import Inputs, lora_facts
from workers.diffusion.load import DiffusionModel
from workers.diffusion.metadata import PictureFacts, text_chunks
from workers.diffusion.noise import image_seed
from workers.diffusion.pictures import require_finite, to_pixels
from workers.diffusion.plan import Plan
from workers.diffusion.tiling import Tiles
from workers.diffusion.writer import Picture, PictureWriter, Written
from workers.events import Event, SafePoint
from workers.kinds import Context

_PACKAGES = ("studioq", "mlx", "numpy", "pillow")

_BATCH = "batch_size"

# Seconds between two safe points while pictures wait for the disk.
_PATIENCE = 0.2


@dataclass(slots=True)
class _Pending:
    """A batch whose decoding has been queued."""

    batch: range
    decoded: mx.array


def batch_size_of(checkpoint: Path | None) -> int | None:
    """Return the batches of the attempt that wrote a checkpoint, None if it does not say.

    Another size would round otherwise: pictures would differ in the last bit from those of a job
    that was not interrupted.
    """
    if checkpoint is None:
        return None
    found = json.loads((checkpoint / STATE).read_bytes()).get(_BATCH)
    return found if isinstance(found, int) else None


@cache
def _decoding_stream() -> mx.Stream:
    """Return the stream of all attempts' decodings: MLX ends none, and each holds a thread."""
    return mx.new_stream(mx.default_device())


def _on_stream(stream: mx.Stream, tiles: Tiles) -> Tiles:
    """Run ``tiles`` on a stream of its own; what others do at its safe points stays on theirs."""
    while True:
        try:
            with mx.stream(stream):
                point = next(tiles)
        except StopIteration as end:
            whole: mx.array = end.value
            return whole
        yield point


@cache
def _versions() -> Mapping[str, str]:
    return {name: metadata.version(name) for name in _PACKAGES}


class Pictures:
    """Decodes, writes and publishes the pictures of one attempt."""

    def __init__(
        self,
        context: Context,
        spec: DiffuseSpec,
        model: DiffusionModel,
        settled: Plan,
        inputs: Inputs,
    ) -> None:
        height, width = settled.size
        self._folder = context.folder
        self._spec = spec
        self._model = model
        self._inputs = inputs
        self._plan = settled
        self._catalogue = Catalogue(context.folder, spec, Size(width, height))
        self._writer = PictureWriter(
            context.folder, thumbnails=self._catalogue.thumbnails, waiting=0
        )
        self._stream = _decoding_stream()
        self._loras = lora_facts(spec, context.inputs)
        self._pending: _Pending | None = None

    @property
    def count(self) -> int:
        """How many pictures are on the disk, without a gap from the first."""
        return self._catalogue.count

    @property
    def is_behind(self) -> bool:
        """Whether a picture that was handed over is not yet published."""
        return self._pending is not None or not self._writer.is_idle or self._catalogue.is_behind

    def close(self) -> None:
        """End the threads; a picture that is half written is not left."""
        self._writer.close()

    def resume(self, checkpoint: Path | None) -> Generator[Event, None, int]:
        """Take over the pictures of a checkpoint; return how many there are.

        Raises:
            JobError: one of them is missing in the checkpoint's list.
        """
        yield from self._catalogue.resume(checkpoint)
        return self.count

    def decode(self, batch: range, latents: mx.array) -> Events:
        """Queue the decoding of a finished batch, beside what the device does next.

        Pictures that need tiles are decoded now, with a safe point after each. The batch before it
        must have been collected.
        """
        decoded = yield from _on_stream(self._stream, autoencode.decoding(self._model.vae, latents))
        mx.async_eval(decoded)  # type: ignore[no-untyped-call]
        self._pending = _Pending(batch=batch, decoded=decoded)

    def collect(self, *, fetch: bool) -> Events:
        """Publish what has reached the disk; then, if ``fetch``, hand over a decoded batch.

        Fetching waits for the decoding, and before for the batch that was handed over last.

        Raises:
            NonFiniteError: a picture holds NaN or infinite numbers; none of its batch is written,
                those before it are published.
            DiskFullError: a picture could not be written.
        """
        pending = self._pending if fetch else None
        while pending is not None and not self._writer.wait_for_room(_PATIENCE):
            yield SafePoint()
        for written in self._writer.poll():
            self._take(written)
        yield from self._checkpoint()
        if pending is not None:
            self._pending = None
            self._writer.submit(self._finished(pending))

    def finish(self) -> Events:
        """Wait until all that was decoded is on the disk."""
        yield from self.collect(fetch=True)
        for written in self._writer.drain():
            self._take(written)
            yield SafePoint()

    def _finished(self, pending: _Pending) -> list[Picture]:
        """Return a batch's pictures, checked, with what the mask keeps put back."""
        values = np.array(pending.decoded)
        seeds = [image_seed(self._spec.seed, index) for index in pending.batch]
        require_finite(values, first=pending.batch.start, seeds=seeds)
        pixels = to_pixels(self._inputs.restore(values))
        return [
            Picture(index=index, seed=seed, pixels=one, chunks=self._chunks(index, seed))
            for index, seed, one in zip(pending.batch, seeds, pixels, strict=True)
        ]

    def _chunks(self, index: int, seed: int) -> Mapping[str, str]:
        if not self._spec.metadata:
            return {}
        height, width = self._plan.size
        return text_chunks(
            PictureFacts(
                spec=self._spec.model_dump(mode="json"),
                index=index,
                seed=seed,
                width=width,
                height=height,
                fingerprint=self._model.fingerprint,
                packages=_versions(),
                loras=self._loras,
            )
        )

    def _take(self, written: Written) -> None:
        self._catalogue.add(written.sha256, written.thumbnail)

    def _checkpoint(self) -> Events:
        """Publish new pictures once their batch is there and more are to come.

        Not those alone that an earlier attempt made: a checkpoint says that this one got further,
        or a job that dies at its next picture would be tried for ever.
        """
        whole = self._catalogue.made % self._plan.batch_size == 0
        if self._catalogue.is_behind and whole and self.count < self._plan.images:
            yield from self.checkpoint()

    def checkpoint(self) -> Events:
        """Write down what is there, for an attempt that goes on, and publish it."""
        yield from self._catalogue.checkpoint(**{_BATCH: self._plan.batch_size})

    def publish(self) -> Events:
        """Publish what has not been, and the contact sheet of several pictures."""
        yield from self._catalogue.publish()
