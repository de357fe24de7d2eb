"""A preview has the picture's colours, for known models and for any other that is fitted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from daemon.errors import DiskFullError
from workers.diffusion.preview import (
    LatentRgb,
    fit_latent_rgb,
    known_latent_rgb,
    preview_pixels,
    write_preview,
)

FULL = Path("/dev/full")
Array = NDArray[np.float32]

RANDOM = np.random.Generator(np.random.PCG64(7))
MATRIX = RANDOM.uniform(-0.2, 0.2, (4, 3)).astype(np.float32)
BIAS = np.array([0.1, -0.2, 0.05], dtype=np.float32)
CHANNELS_ARE_COLOURS = LatentRgb(matrix=np.eye(3, dtype=np.float32), bias=np.zeros(3, np.float32))


def decoder(latents: Array) -> Array:
    """Decode linearly, with a texture inside each square that has no mean, as a VAE would."""
    large = (latents @ MATRIX + BIAS).repeat(8, axis=1).repeat(8, axis=2)
    texture = np.tile([[0.1, -0.1], [-0.1, 0.1]], (large.shape[1] // 2, large.shape[2] // 2))
    return np.asarray(large + texture[..., None], dtype=np.float32)


def test_a_linear_decoder_is_found_again() -> None:
    found = fit_latent_rgb(decoder, 4)
    assert np.allclose(found.matrix, MATRIX, atol=0.03)
    assert np.allclose(found.bias, BIAS, atol=0.03)


@pytest.mark.parametrize(("channels", "factor"), [(4, 8), (16, 8), (4, 4)])
def test_any_number_of_channels_and_any_factor_is_fitted_by_one_call(
    channels: int, factor: int
) -> None:
    calls = []

    def decode(latents: Array) -> Array:
        calls.append(latents)
        mean = np.tanh(latents.mean(axis=-1, keepdims=True)).repeat(3, axis=-1)
        return np.asarray(mean.repeat(factor, axis=1).repeat(factor, axis=2), dtype=np.float32)

    found = fit_latent_rgb(decode, channels)
    assert len(calls) == 1
    assert calls[0].shape == (4, 16, 16, channels)
    assert found.matrix.shape == (channels, 3)
    assert np.abs(found(calls[0]) - decode(calls[0])[:, ::factor, ::factor]).mean() < 0.1


def test_a_decoder_that_overflows_gives_a_map_all_the_same() -> None:
    found = fit_latent_rgb(lambda z: np.full((len(z), 128, 128, 3), np.nan, np.float32), 4)
    assert np.isfinite(found.matrix).all()


def test_published_maps_belong_to_their_vae() -> None:
    sd, sdxl = known_latent_rgb(0.18215, 4), known_latent_rgb(0.13025, 4)
    assert sd is not None
    assert sdxl is not None
    assert sd(np.zeros((1, 4))).tolist() == [[0, 0, 0]]
    grey = sdxl(np.zeros((1, 4))) * 127.5 + 127.5
    assert grey[0].tolist() == pytest.approx([150, 140, 130], abs=1e-3)
    first = sdxl(np.array([[0, 1, 0, 0]])) * 127.5 + 127.5
    assert first[0].tolist() == pytest.approx([90, 135, 140], abs=1e-3)
    assert known_latent_rgb(0.9, 4) is None
    assert known_latent_rgb(0.18215, 16) is None


def test_each_latent_becomes_eight_pixels_of_its_colour() -> None:
    latents = np.full((1, 4, 6, 3), -1, dtype=np.float32)
    latents[0, :, 3:] = (1, 0, -1)
    pixels = preview_pixels(latents, CHANNELS_ARE_COLOURS)
    assert pixels.shape == (32, 48, 3)
    assert pixels.dtype == np.uint8
    assert pixels[16, 2].tolist() == [0, 0, 0]
    assert pixels[16, 45].tolist() == [255, 128, 0]


@pytest.mark.parametrize(
    ("count", "shape"), [(1, (64, 64)), (2, (64, 128)), (4, (128, 128)), (40, (192, 192))]
)
def test_a_batch_is_shown_side_by_side(count: int, shape: tuple[int, int]) -> None:
    latents = np.zeros((count, 8, 8, 3), dtype=np.float32)
    assert preview_pixels(latents, CHANNELS_ARE_COLOURS).shape == (*shape, 3)


def test_pictures_of_a_batch_are_tiled_row_by_row() -> None:
    latents = np.zeros((3, 8, 8, 3), dtype=np.float32)
    latents[0], latents[1], latents[2] = -1, 0, 1
    pixels = preview_pixels(latents, CHANNELS_ARE_COLOURS)
    corners = [pixels[y, x, 0] for y in (20, 100) for x in (20, 100)]
    assert corners == [0, 128, 255, 0]


@pytest.mark.parametrize("shape", [(9, 128, 128), (1, 2048, 1), (4, 1, 512)])
def test_a_preview_is_bounded(shape: tuple[int, int, int]) -> None:
    pixels = preview_pixels(np.zeros((*shape, 3), np.float32), CHANNELS_ARE_COLOURS)
    assert max(pixels.shape) == 1024
    assert min(pixels.shape) >= 1


def test_what_is_not_finite_is_gray_and_no_warning() -> None:
    latents = np.full((1, 8, 8, 3), np.nan, dtype=np.float32)
    assert np.all(preview_pixels(latents, CHANNELS_ARE_COLOURS) == 128)


def test_the_file_is_replaced_whole(tmp_path: Path) -> None:
    for level in (0, 255):
        path = write_preview(tmp_path, np.full((16, 24, 3), level, dtype=np.uint8))
        with Image.open(path) as image:
            assert image.size == (24, 16)
            assert image.getpixel((3, 3)) == (level,) * 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["preview.png"]


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_said_and_leaves_the_old_preview(tmp_path: Path) -> None:
    write_preview(tmp_path, np.zeros((16, 16, 3), dtype=np.uint8))
    (tmp_path / ".preview.png.part").symlink_to(FULL)
    with pytest.raises(DiskFullError, match=r"preview\.png"):
        write_preview(tmp_path, np.ones((16, 16, 3), dtype=np.uint8))
    assert [entry.name for entry in tmp_path.iterdir()] == ["preview.png"]
