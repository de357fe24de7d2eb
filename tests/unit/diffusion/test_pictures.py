"""Numbers become pixels as diffusers rounds them; what is not a number is never saved."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daemon.errors import DiskFullError, NonFiniteError
from daemon.size import Size
from workers.diffusion import metadata, pictures

FULL = Path("/dev/full")


def noise(*shape: int, seed: int = 0) -> pictures.Pixels:
    random = np.random.Generator(np.random.PCG64(seed))
    return random.integers(0, 256, shape, dtype=np.uint8)


def test_values_are_scaled_clipped_and_rounded() -> None:
    values = np.array([-9.0, -1.0, 0.0, 1.0, 9.0, 2.9 / 255 - 1, 3.1 / 255 - 1], dtype=np.float32)
    exact = pictures.to_pixels(values)
    assert exact.dtype == np.uint8
    assert exact.tolist() == [0, 0, 128, 255, 255, 1, 2]


def test_every_pixel_value_survives_the_way_there_and_back() -> None:
    levels = np.arange(256, dtype=np.float32)
    assert pictures.to_pixels(levels / np.float32(127.5) - 1).tolist() == levels.tolist()
    assert pictures.to_pixels((levels / 127.5 - 1).astype(np.float16)).tolist() == levels.tolist()


def test_converting_leaves_its_input_alone() -> None:
    values = np.full((1, 8, 8, 3), 0.5, dtype=np.float32)
    pictures.to_pixels(values)
    assert np.all(values == 0.5)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_names_image_seed_and_remedy(wrong: float) -> None:
    batch = np.zeros((3, 8, 8, 3), dtype=np.float32)
    batch[1, 2, 3, 0] = wrong
    with pytest.raises(NonFiniteError, match=r"image 5 \(seed 105\).* 1 of its 192 ") as caught:
        pictures.require_finite(batch, first=4, seeds=[104, 105, 106])
    assert "--cfg" in (caught.value.remedy or "")


def test_a_finite_batch_passes() -> None:
    pictures.require_finite(np.full((2, 8, 8, 3), 1e30), first=0, seeds=[1, 2])


@pytest.mark.parametrize("shape", [(8, 8, 3), (16, 40, 3), (1, 1, 3), (513, 3, 3)])
def test_a_png_holds_exactly_the_pixels(shape: tuple[int, int, int]) -> None:
    pixels = noise(*shape)
    content = pictures.encode_png(pixels, {"parameters": "a\nSteps: 1"})
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(image), pixels)


def test_a_view_into_a_batch_is_encoded_as_it_is() -> None:
    batch = noise(2, 3, 16, 24).transpose(0, 2, 3, 1)
    with Image.open(io.BytesIO(pictures.encode_png(batch[1]))) as image:
        assert np.array_equal(np.asarray(image), batch[1])


def test_the_same_picture_gives_the_same_bytes(tmp_path: Path) -> None:
    content = pictures.write_picture(tmp_path / "a.png", noise(32, 32, 3), {"studioq": "{}"})
    assert content == pictures.encode_png(noise(32, 32, 3), {"studioq": "{}"})
    assert (tmp_path / "a.png").read_bytes() == content
    assert metadata.read_record(tmp_path / "a.png") == {}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_leaves_no_picture(tmp_path: Path) -> None:
    (tmp_path / ".a.png.part").symlink_to(FULL)
    with pytest.raises(DiskFullError, match=r"a\.png"):
        pictures.write_picture(tmp_path / "a.png", noise(8, 8, 3))
    assert list(tmp_path.iterdir()) == []


def test_names_sort_as_numbers_do() -> None:
    names = [pictures.picture_name(index) for index in (0, 9, 10, 999)]
    assert names == ["image-0000.png", "image-0009.png", "image-0010.png", "image-0999.png"]
    assert str(Size(512, 768)) == f"{Size(512, 768)}" == "512x768"
