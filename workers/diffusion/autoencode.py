"""Pictures to latents and back, in bounded memory.

The rule this module protects: the result depends on the picture alone, not on what memory is free.
So it is decided by size whether the VAE works in tiles, and on how many pictures at once.
"""

from __future__ import annotations

import mlx.core as mx

from workers.diffusion.tiling import OVERLAP, TILE, Tiles, tiled
from workers.diffusion.vae import AutoencoderKL


def decode(vae: AutoencoderKL, latents: mx.array) -> mx.array:
    """Return what ``decoding`` does, for callers that need no safe points between its tiles."""
    tiles = decoding(vae, latents)
    while True:
        try:
            next(tiles)
        except StopIteration as end:
            pictures: mx.array = end.value
            return pictures


def decoding(vae: AutoencoderKL, latents: mx.array) -> Tiles:
    """Return pictures (n, height, width, 3), float32, of scaled latents (n, y, x, channels).

    So many at a time as one tile has latents, not yet evaluated and without a safe point; larger
    pictures one by one, evaluated in tiles, each of which is a safe point.
    """
    latents = latents.astype(vae.dtype)
    height, width = latents.shape[1:3]
    group = max(1, TILE * TILE // (height * width))
    parts: list[mx.array] = []
    for start in range(0, latents.shape[0], group):
        some = latents[start : start + group]
        if max(height, width) <= TILE:
            parts.append(vae.decode(some))
        else:
            scale = vae.config.factor
            parts.append((yield from tiled(vae.decode, some, scale, tile=TILE, overlap=OVERLAP)))
    return mx.concatenate(parts).astype(mx.float32)


def encoding(vae: AutoencoderKL, pictures: mx.array) -> Tiles:
    """Return the scaled mean latents, float32, of pictures (n, height, width, 3) in -1…1.

    Tiles and safe points are as of ``decoding``.
    """
    factor, pictures = vae.config.factor, pictures.astype(vae.dtype)
    if max(pictures.shape[1:3]) <= TILE * factor:
        return vae.encode(pictures).astype(mx.float32)
    tile, overlap = TILE * factor, OVERLAP * factor
    latents = yield from tiled(vae.encode, pictures, 1 / factor, tile=tile, overlap=overlap)
    return latents.astype(mx.float32)
