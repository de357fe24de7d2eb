"""White is repainted, black is kept exactly, and a mask belongs to a picture of its size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daemon.errors import JobError
from daemon.size import Size
from workers.diffusion.masks import Mask, hidden, keep_picture, latent_mask, read_mask


def save(path: Path, levels: object, mode: str = "L") -> Path:
    Image.fromarray(np.asarray(levels, dtype=np.uint8)).convert(mode).save(path)
    return path


def read(path: Path, size: Size | None = None) -> Mask:
    with Image.open(path) as image:
        own = Size(*image.size)
    return read_mask(path, "mask.png", size or own, picture=own)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "LA"])
def test_half_or_more_is_repainted(tmp_path: Path, mode: str) -> None:
    levels = np.repeat([[0, 127, 128, 255]], 16, axis=0).repeat(4, axis=1)
    mask = read(save(tmp_path / "m.png", levels, mode))
    assert mask.dtype == np.float32
    assert mask.shape == (16, 16, 1)
    assert mask[0, :, 0].tolist() == [0] * 8 + [1] * 8


def test_one_bit_and_coloured_masks_count_by_their_light(tmp_path: Path) -> None:
    stripes = np.repeat([[0, 255]], 8, axis=0).repeat(4, axis=1)
    assert read(save(tmp_path / "m.png", stripes, "1"))[0, :, 0].tolist() == [0] * 4 + [1] * 4
    colours = np.zeros((8, 16, 3), dtype=np.uint8)
    colours[:, :8], colours[:, 8:] = (0, 0, 255), (255, 255, 0)
    assert read(save(tmp_path / "c.png", colours, "RGB"))[0, :, 0].tolist() == [0] * 8 + [1] * 8


def test_transparent_parts_of_a_mask_are_kept(tmp_path: Path) -> None:
    image = Image.new("RGBA", (16, 8), (255, 255, 255, 0))
    image.paste((255, 255, 255, 255), (4, 0, 12, 8))
    image.save(tmp_path / "m.png")
    assert read(tmp_path / "m.png")[0, :, 0].tolist() == [0] * 4 + [1] * 8 + [0] * 4


def test_another_size_than_the_picture_names_both(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", np.zeros((32, 64)))
    with pytest.raises(JobError, match=r"mask\.png is 64x32 pixels .* 64x48") as caught:
        read_mask(path, "mask.png", Size(64, 48), picture=Size(64, 48))
    assert "64x48" in (caught.value.remedy or "")


def test_a_mask_that_is_no_picture_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("white, mostly")
    with pytest.raises(JobError, match=r"mask\.txt is not a picture"):
        read_mask(tmp_path / "m", "mask.txt", Size(8, 8), picture=Size(8, 8))


def test_a_resized_mask_is_still_zeros_and_ones(tmp_path: Path) -> None:
    disc = (np.hypot(*np.mgrid[-30:30, -50:50]) < 25) * 255
    mask = read(save(tmp_path / "m.png", disc), Size(48, 32))
    assert mask.shape == (32, 48, 1)
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert mask.mean() == pytest.approx((disc > 0).mean(), rel=0.02)


def test_the_latent_mask_takes_the_first_of_each_square() -> None:
    mask = np.zeros((16, 24, 1), dtype=np.float32)
    mask[8:, 16:] = 1
    mask[1:8, 1:8] = 1
    assert latent_mask(mask)[..., 0].tolist() == [[0, 0, 0], [0, 0, 1]]
    assert latent_mask(mask, 4).shape == (4, 6, 1)


def test_what_is_kept_is_kept_exactly() -> None:
    random = np.random.Generator(np.random.PCG64(0))
    mask = (random.random((16, 24, 1)) > 0.5).astype(np.float32)
    painted = random.standard_normal((2, 16, 24, 3)).astype(np.float32)
    original = random.standard_normal((16, 24, 3)).astype(np.float32)
    mixed = keep_picture(painted, original, mask)
    assert mixed.dtype == np.float32
    for picture, result in zip(painted, mixed, strict=True):
        repainted = mask[..., 0] == 1
        assert np.array_equal(result[repainted], picture[repainted])
        assert np.array_equal(result[~repainted], original[~repainted])


def test_what_is_repainted_is_hidden_in_gray() -> None:
    mask = np.array([[[0.0], [1.0]]], dtype=np.float32)
    picture = np.full((1, 2, 3), -0.75, dtype=np.float32)
    assert hidden(picture, mask)[0].tolist() == [[-0.75] * 3, [0.0] * 3]
