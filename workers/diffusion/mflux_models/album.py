"""The finished pictures of a job that makes them one at a time.

The rule this module protects: a picture that is written stays, and is published at once. A job that
is interrupted goes on behind its last one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from daemon.errors import JobError
from daemon.specs import DiffuseSpec
from workers.checkpoints import DIGESTS, STATE
from workers.diffusion.noise import image_seed
from workers.diffusion.pictures import Pixels, Size, picture_name, write_picture
from workers.diffusion.sheet import SHEET, Thumbnail, draw_sheet, plan, thumbnail
from workers.events import Artifact, Checkpoint, Event
from workers.files import copy_file, write_json

Events = Generator[Event, None, None]


class Album:
    """Writes pictures of one size into the attempt's folder, and publishes them."""

    def __init__(self, folder: Path, spec: DiffuseSpec, size: Size) -> None:
        self._folder = folder
        self._spec = spec
        self._small = plan(spec.n_images, size).picture
        self._digests: dict[str, str] = {}
        self._thumbnails: list[Thumbnail] = []
        self._published = 0

    @property
    def count(self) -> int:
        """How many pictures are on the disk, without a gap from the first."""
        return len(self._digests)

    def resume(self, checkpoint: Path | None) -> None:
        """Take over the pictures of an earlier attempt's checkpoint; this one publishes them too.

        Raises:
            JobError: one of them is missing.
        """
        if checkpoint is None:
            return
        for name, digest in sorted(json.loads((checkpoint / STATE).read_bytes())[DIGESTS].items()):
            if name != picture_name(self.count):
                raise JobError(f"the checkpoint has {name} in place of {picture_name(self.count)}")
            copy_file(checkpoint / name, self._folder / name)
            with Image.open(self._folder / name) as image:
                self._take(np.asarray(image.convert("RGB")), digest)

    def add(self, pixels: Pixels, chunks: Mapping[str, str]) -> Events:
        """Write the next picture; if more are to come, make a checkpoint, which publishes it.

        Raises:
            DiskFullError: the disk is full.
        """
        content = write_picture(self._folder / picture_name(self.count), pixels, chunks)
        self._take(pixels, hashlib.sha256(content).hexdigest())
        if self.count < self._spec.n_images:
            yield self._checkpoint()

    def publish(self) -> Events:
        """Publish what has not been, and the contact sheet of several pictures."""
        for index in range(self._published, self.count):
            yield Artifact(path=picture_name(index), kind="image")
        if self.count > 1:
            draw_sheet(self._folder / SHEET, self._thumbnails)
            yield Artifact(path=SHEET, kind="image")

    def _take(self, pixels: Pixels, digest: str) -> None:
        seed = image_seed(self._spec.seed, self.count)
        small = thumbnail(pixels, self._small)
        self._thumbnails.append(Thumbnail(index=self.count, seed=seed, image=small))
        self._digests[picture_name(self.count)] = digest

    def _checkpoint(self) -> Checkpoint:
        folder = self._folder / f"done-{self.count:05}"
        folder.mkdir()
        for name in self._digests:
            copy_file(self._folder / name, folder / name)
        write_json(folder / STATE, {"step": self.count, DIGESTS: self._digests})
        fresh = tuple(picture_name(index) for index in range(self._published, self.count))
        self._published = self.count
        return Checkpoint(step=self.count, folder=folder.name, files=fresh, kind="image")
