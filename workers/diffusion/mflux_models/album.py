"""The finished pictures of a job that makes them one at a time.

The rule this module protects: a picture that is written stays, and is published at once. A job that
is interrupted goes on behind its last one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from workers.diffusion.catalogue import Catalogue, Events
from workers.diffusion.pictures import Pixels, picture_name, write_picture


class Album(Catalogue):
    """The pictures in an attempt's folder, and the writing of them."""

    def write(self, pixels: Pixels, chunks: Mapping[str, str]) -> Events:
        """Write the next picture; if more are to come, make a checkpoint, which publishes it.

        Raises:
            DiskFullError: the disk is full.
        """
        content = write_picture(self._folder / picture_name(self.count), pixels, chunks)
        self.add(hashlib.sha256(content).hexdigest(), self.reduced(pixels))
        if self.count < self._spec.n_images:
            yield from self.checkpoint()
