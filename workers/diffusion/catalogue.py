"""Which pictures of a job are on the disk, and the checkpoints that say so.

The rule this module protects: a checkpoint lists pictures that are on the disk, from the first on
without a gap, and lists them where they are, in the folder around it. Names of its own for them
would be half a million for a thousand pictures. What a checkpoint lists is published with it.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import numpy as np
from PIL import Image

from daemon.errors import JobError
from daemon.size import Size
from daemon.specs import DiffuseSpec
from workers.checkpoints import DIGESTS, STATE
from workers.diffusion.noise import image_seed
from workers.diffusion.pictures import Pixels, picture_name
from workers.diffusion.sheet import SHEET, Thumbnail, draw_sheet, plan, thumbnail
from workers.events import Artifact, Checkpoint, Event, SafePoint
from workers.files import copy_files, write_json

Events = Generator[Event, None, None]

_BESIDE = "../"


class Catalogue:
    """The pictures, of one size, in an attempt's folder."""

    def __init__(self, folder: Path, spec: DiffuseSpec, size: Size) -> None:
        self.thumbnails = plan(spec.n_images, size).picture
        self._folder = folder
        self._spec = spec
        self._digests: dict[str, str] = {}
        self._small: list[Thumbnail] = []
        self._unpublished: list[str] = []
        self._resumed = 0

    @property
    def count(self) -> int:
        """How many pictures are on the disk."""
        return len(self._digests)

    @property
    def made(self) -> int:
        """How many of them this attempt has made."""
        return self.count - self._resumed

    @property
    def is_behind(self) -> bool:
        """Whether a picture that this attempt has made is not yet published."""
        return self.made > 0 and bool(self._unpublished)

    def add(self, digest: str, small: Thumbnail) -> None:
        """Note that the next picture is on the disk; ``digest`` is its file's SHA-256."""
        name = picture_name(self.count)
        self._digests[name] = digest
        self._small.append(small)
        self._unpublished.append(name)

    def resume(self, checkpoint: Path | None) -> Events:
        """Take over the pictures of an earlier attempt's checkpoint; this one publishes them too.

        Raises:
            JobError: one of them is missing in the checkpoint's list.
        """
        if checkpoint is None:
            return
        digests = json.loads((checkpoint / STATE).read_bytes())[DIGESTS]
        names = [picture_name(index) for index in range(len(digests))]
        for name, found in zip(names, sorted(digests), strict=True):
            if found != _BESIDE + name:
                raise JobError(f"the checkpoint has {found} in place of {_BESIDE + name}")
        copy_files(names, checkpoint.parent, self._folder)
        for name in names:
            with Image.open(self._folder / name) as image:
                self.add(digests[_BESIDE + name], self.reduced(np.asarray(image.convert("RGB"))))
            yield SafePoint()
        self._resumed = self.count

    def reduced(self, pixels: Pixels) -> Thumbnail:
        """Return what the contact sheet shows of the next picture, (height, width, 3)."""
        seed = image_seed(self._spec.seed, self.count)
        return Thumbnail(index=self.count, seed=seed, image=thumbnail(pixels, self.thumbnails))

    def checkpoint(self, **facts: int) -> Events:
        """Write down what is there, for an attempt that goes on, and publish what is new.

        ``facts`` are written beside it. Without anything new there is no checkpoint.
        """
        fresh, self._unpublished = self._unpublished, []
        if not fresh:
            return
        folder = self._folder / f"done-{self.count:05}"
        folder.mkdir()
        digests = {_BESIDE + name: digest for name, digest in self._digests.items()}
        write_json(folder / STATE, {"step": self.count, DIGESTS: digests, **facts})
        yield Checkpoint(step=self.count, folder=folder.name, files=tuple(fresh), kind="image")

    def publish(self) -> Events:
        """Publish what has not been, and the contact sheet of several pictures."""
        for name in self._unpublished:
            yield Artifact(path=name, kind="image")
        if self.count > 1:
            draw_sheet(self._folder / SHEET, self._small)
            yield Artifact(path=SHEET, kind="image")
