"""A preview has the picture's colours, of models with a published map and of any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from daemon.errors import DiskFullError
from workers.diffusion.preview import (
    SD,
    SDXL,
    LatentRgb,
    by_decoding,
    by_map,
    previewer,
    write_preview,
)

FULL = Path("/dev/full")
Array = NDArray[np.float32]

PLAIN = LatentRgb(matrix=np.eye(3, dtype=np.float32), bias=np.zeros(3, dtype=np.float32))


def decode(latents: Array) -> Array:
    """Decode as a VAE of factor 8 might: the first three channels are the colours."""
    assert latents.dtype == np.float32
    return np.tanh(latents[..., :3]).repeat(8, axis=1).repeat(8, axis=2)


def unasked(latents: Array) -> Array:
    raise AssertionError(latents.shape)


def test_published_maps_give_the_colours_that_were_published() -> None:
    nothing, second = np.zeros((1, 4)), np.array([[0, 1, 0, 0]])
    assert SD(nothing).tolist() == [[0, 0, 0]]
    assert SD(second)[0].tolist() == pytest.approx([0.187, 0.286, 0.173])
    levels = [(SDXL(latent) * 127.5 + 127.5)[0].tolist() for latent in (nothing, second)]
    assert levels[0] == pytest.approx([150, 140, 130], abs=1e-3)
    assert levels[1] == pytest.approx([90, 135, 140], abs=1e-3)


def test_known_vaes_are_never_decoded() -> None:
    latents = np.zeros((1, 8, 8, 4), dtype=np.float32)
    assert np.all(previewer(0.18215, 4, unasked)(latents) == 128)
    assert previewer(0.13025, 4, unasked)(latents)[5, 5].tolist() == [150, 140, 130]


@pytest.mark.parametrize(("factor", "channels"), [(0.57, 4), (0.18215, 16)])
def test_any_other_vae_is_decoded(factor: float, channels: int) -> None:
    latents = np.full((2, 8, 8, channels), 9, dtype=np.float32)
    pixels = previewer(factor, channels, decode)(latents)
    assert pixels.shape == (64, 64, 3)
    assert np.all(pixels == 255)


def test_each_latent_becomes_eight_pixels_of_its_colour() -> None:
    latents = np.full((1, 4, 6, 3), -1, dtype=np.float32)
    latents[0, :, 3:] = (1, 0, -1)
    pixels = by_map(PLAIN, latents)
    assert pixels.shape == (32, 48, 3)
    assert pixels.dtype == np.uint8
    assert pixels[16, 2].tolist() == [0, 0, 0]
    assert pixels[16, 45].tolist() == [255, 128, 0]


@pytest.mark.parametrize(
    ("count", "shape"), [(1, (64, 64)), (2, (64, 136)), (4, (136, 136)), (40, (208, 208))]
)
def test_a_batch_is_shown_side_by_side(count: int, shape: tuple[int, int]) -> None:
    assert by_map(PLAIN, np.zeros((count, 8, 8, 3), dtype=np.float32)).shape == (*shape, 3)


def test_pictures_of_a_batch_are_tiled_row_by_row() -> None:
    latents = np.zeros((3, 8, 8, 3), dtype=np.float32)
    latents[0], latents[1], latents[2] = -1, 0, 1
    pixels = by_map(PLAIN, latents)
    assert [pixels[y, x, 0] for y in (20, 100) for x in (20, 100)] == [0, 128, 255, 228]


@pytest.mark.parametrize(
    ("latents", "decoded", "shown"),
    [
        ((16, 16), (16, 16), (128, 128)),
        ((32, 24), (32, 24), (256, 192)),
        ((64, 96), (22, 32), (528, 768)),
        ((128, 128), (32, 32), (1024, 1024)),
        ((1, 2048), (1, 32), (32, 1024)),
    ],
)
def test_a_large_picture_is_decoded_coarsely(
    latents: tuple[int, int], decoded: tuple[int, int], shown: tuple[int, int]
) -> None:
    asked = []

    def recording(few: Array) -> Array:
        asked.append(few.shape)
        return decode(few)

    pixels = by_decoding(recording, np.zeros((3, *latents, 4), dtype=np.float16))
    assert asked == [(1, *decoded, 4)]
    assert pixels.shape == (*shown, 3)


@pytest.mark.parametrize("shape", [(9, 128, 128), (1, 2048, 1), (4, 1, 512)])
def test_a_preview_is_bounded(shape: tuple[int, int, int]) -> None:
    pixels = by_map(PLAIN, np.zeros((*shape, 3), dtype=np.float32))
    assert max(pixels.shape) == 1024
    assert min(pixels.shape) >= 1


@pytest.mark.parametrize(("value", "level"), [(np.nan, 128), (np.inf, 255), (-np.inf, 0)])
def test_what_is_not_finite_is_shown_without_a_warning(value: float, level: int) -> None:
    latents = np.full((1, 8, 8, 3), value, dtype=np.float32)
    assert np.all(by_decoding(decode, latents) == level)
    assert np.all(by_map(PLAIN, latents) == 128)


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
