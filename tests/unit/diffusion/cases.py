"""What the networks and pipelines are asked, here and where the references were made.

Torch and MLX both read this; it imports neither. Inputs are drawn by ``tiny.normal`` from names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.unit.diffusion import tiny

# Original size, crop and target of SDXL's conditioning, for the two samples of a batch.
TIME_IDS = ((64, 96, 0, 0, 64, 96), (128, 72, 8, 4, 120, 96))

TIMESTEPS = (999.0, 261.5)

# Latents whose sides halve evenly on the way down, and some whose do not.
_EVEN, _UNEVEN = (8, 16), (9, 13)
_UNEVEN_UNETS = ("sd1", "sd2", "sdxl", "odd-widths", "no-attention", "other-padding")

STEPS, SEED = 20, 2024
PROMPT = "a red circle left of the blue square, photo of a cat's whiskers!"
LONG = ", ".join([PROMPT] * 6)


def unet_sizes(name: str) -> tuple[tuple[int, int], ...]:
    """Return the heights and widths of the latents that a UNet is given."""
    return (_EVEN, _UNEVEN) if name in _UNEVEN_UNETS else (_EVEN,)


def token_rows(positions: int, config: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Return the tokens of three texts: ended and padded in two ways, and without an end.

    Above the end's own number there may be others: ``eos_token_id`` need not be the highest.
    """
    vocabulary, eos = config["vocab_size"], config["eos_token_id"]
    drawn = np.abs(tiny.normal(f"texts/{positions}", (3, positions)))
    ids: npt.NDArray[np.int64] = (drawn * 1e6).astype(np.int64) % (vocabulary - 2)
    ids[ids == eos] = 3
    end = vocabulary - 1 if eos == 2 else eos
    ids[:, 0] = vocabulary - 2
    ids[0, 9:], ids[1, 14], ids[1, 15:] = end, end, 0
    return ids


@dataclass(frozen=True, kw_only=True)
class Run:
    """One call of a pipeline. ``size``: height and width in pixels; ``cfg`` 0: no guidance.

    ``unet``: another UNet than the folder's own.
    """

    folder: str
    unet: str | None = None
    sampler: str = "ddim"
    size: tuple[int, int] = (48, 64)
    images: int = 1
    prompt: str = PROMPT
    negative: str | None = None
    cfg: float = 7.5
    strength: float | None = None
    masked: bool = False
    scheduler: dict[str, Any] = field(default_factory=dict)


RUNS = {
    "sd1-ddim": Run(folder="sd1", images=2),
    "sd1-euler": Run(folder="sd1", sampler="euler", negative="blurry, low quality", size=(64, 40)),
    "sd1-unguided": Run(folder="sd1", cfg=0.0),
    "sd1-image": Run(folder="sd1", strength=0.6),
    "sd1-image-euler": Run(folder="sd1", sampler="euler", strength=0.6),
    "sd1-image-full": Run(folder="sd1", strength=1.0),
    "sd1-inpaint": Run(folder="sd1", strength=1.0, masked=True),
    "sd1-inpaint-weak": Run(folder="sd1", sampler="euler", strength=0.6, masked=True),
    "sd1-inpaint-channels": Run(folder="sd1", unet="inpainting", strength=1.0, masked=True),
    "sd1-guidance-embedding": Run(folder="sd1", unet="guidance-embedding", cfg=4.0),
    "sd1-long": Run(folder="sd1", prompt=LONG, negative="blurry"),
    "sd1-long-negative": Run(folder="sd1", prompt="a cat", negative=LONG),
    "sd2-ddim": Run(folder="sd2"),
    "sd2-euler": Run(folder="sd2", sampler="euler", negative="ugly!"),
    "sd2-zero-snr": Run(
        folder="sd2",
        scheduler={"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    ),
    "sdxl-euler": Run(folder="sdxl", sampler="euler", size=(64, 96)),
    "sdxl-ddim-negative": Run(folder="sdxl", negative="blurry"),
    "sdxl-empty-negative": Run(folder="sdxl", sampler="euler", negative=""),
    "sdxl-image": Run(folder="sdxl", sampler="euler", strength=0.6),
    "sdxl-long": Run(folder="sdxl", sampler="euler", prompt=LONG, negative="ugly"),
}


def noise(name: str) -> tiny.Array:
    """Return the noise of the run's images, (images, 4, height / 8, width / 8).

    Drawn as a job draws it: image k from the seed ``SEED`` + k, channels first, float32.
    """
    chosen = RUNS[name]
    shape = (4, chosen.size[0] // 8, chosen.size[1] // 8)
    generators = [np.random.Generator(np.random.PCG64(SEED + k)) for k in range(chosen.images)]
    return np.stack([each.standard_normal(shape, dtype=np.float32) for each in generators])
