"""Pictures to latents and back, in bounded memory.

The rule this module protects: the result depends on the picture alone, not on what memory is free.
So it is decided by size whether the VAE works in tiles, and on how many pictures at once.
"""

from __future__ import annotations

from functools import partial

import mlx.core as mx

from workers.diffusion.tiling import OVERLAP, TILE, tiled
from workers.diffusion.vae import AutoencoderKL


def decode(vae: AutoencoderKL, latents: mx.array) -> mx.array:
    """Return pictures (n, height, width, 3), float32, of scaled latents (n, y, x, channels).

    So many at a time as one tile has latents; larger pictures one by one, in tiles.
    """
    latents = latents.astype(vae.dtype)
    height, width = latents.shape[1:3]
    group = max(1, TILE * TILE // (height * width))
    network = vae.decode
    if max(height, width) > TILE:
        network = partial(tiled, vae.decode, scale=vae.config.factor, tile=TILE, overlap=OVERLAP)
    parts = [network(latents[start : start + group]) for start in range(0, latents.shape[0], group)]
    return mx.concatenate(parts).astype(mx.float32)


def encode(vae: AutoencoderKL, pictures: mx.array) -> mx.array:
    """Return the scaled mean latents, float32, of pictures (n, height, width, 3) in -1…1."""
    factor, pictures = vae.config.factor, pictures.astype(vae.dtype)
    if max(pictures.shape[1:3]) <= TILE * factor:
        return vae.encode(pictures).astype(mx.float32)
    latents = tiled(
        vae.encode, pictures, scale=1 / factor, tile=TILE * factor, overlap=OVERLAP * factor
    )
    return latents.astype(mx.float32)
