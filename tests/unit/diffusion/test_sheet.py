"""A contact sheet shows every picture, whatever their number and shape, on one bounded page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daemon.size import Size
from workers.diffusion.sheet import LIMIT, Thumbnail, draw_sheet, plan, thumbnail

SHAPES = [
    Size(128, 128),
    Size(512, 768),
    Size(1536, 640),
    Size(8, 8),
    Size(16384, 8),
    Size(8, 16384),
]


@pytest.mark.parametrize("picture", SHAPES, ids=str)
@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 99, 1000])
def test_every_number_and_shape_fits_the_page(count: int, picture: Size) -> None:
    layout = plan(count, picture)
    assert max(layout.sheet) <= LIMIT
    assert layout.columns * layout.rows >= count
    assert layout.columns * (layout.rows - 1) < count
    assert layout.picture.width <= min(picture.width, layout.cell.width)
    assert layout.picture.height <= min(picture.height, layout.cell.height)


@pytest.mark.parametrize(
    ("count", "picture", "columns"),
    [
        (1, Size(128, 128), 1),
        (2, Size(512, 512), 2),
        (4, Size(512, 512), 2),
        (16, Size(128, 128), 4),
        (100, Size(512, 512), 10),
        (4, Size(2048, 256), 1),
        (4, Size(256, 2048), 4),
    ],
)
def test_the_grid_is_nearly_square(count: int, picture: Size, columns: int) -> None:
    assert plan(count, picture).columns == columns


def test_small_pictures_are_shown_as_they_are() -> None:
    assert plan(16, Size(128, 128)).picture == (128, 128)


def coloured(count: int, size: Size, *, seed: int = 4_294_967_000) -> list[Thumbnail]:
    return [
        Thumbnail(
            index=index,
            seed=(seed + index) % 2**32,
            image=Image.new("RGB", size, (index % 251, 200, index // 251)),
        )
        for index in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "picture"),
    [(2, Size(128, 128)), (17, Size(64, 160)), (1000, Size(512, 512)), (1000, Size(8, 16384))],
    ids=str,
)
def test_each_picture_is_on_the_sheet_in_order(tmp_path: Path, count: int, picture: Size) -> None:
    thumbnails = coloured(count, plan(count, picture).picture)
    draw_sheet(tmp_path / "sheet.png", thumbnails)
    assert [entry.name for entry in tmp_path.iterdir()] == ["sheet.png"]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert max(sheet.size) <= LIMIT
        pixels = np.asarray(sheet).astype(int)
    shown = pixels[(pixels[..., 1] == 200) & (pixels[..., 2] < 4)]
    numbers = shown[:, 0] + 251 * shown[:, 2]
    area = thumbnails[0].image.width * thumbnails[0].image.height
    assert np.bincount(numbers, minlength=count).tolist() == [area] * count


def test_labels_are_written_under_the_pictures_and_change_with_them(tmp_path: Path) -> None:
    for name, seed in (("a.png", 1), ("b.png", 2)):
        draw_sheet(tmp_path / name, coloured(4, Size(64, 64), seed=seed))
    with Image.open(tmp_path / "a.png") as first, Image.open(tmp_path / "b.png") as second:
        changed = np.argwhere((np.asarray(first) != np.asarray(second)).any(axis=-1))
    layout = plan(4, Size(64, 64))
    under = [(y - 6) % (layout.cell.height + 6) - layout.picture.height for y, _ in changed]
    assert changed.size
    assert min(under) >= 0


def test_fewer_pictures_than_planned_make_a_smaller_sheet(tmp_path: Path) -> None:
    size = plan(1000, Size(512, 512)).picture
    draw_sheet(tmp_path / "sheet.png", coloured(3, size))
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert max(sheet.size) < 200


def test_a_thumbnail_is_the_picture_made_small() -> None:
    pixels = np.zeros((64, 128, 3), dtype=np.uint8)
    pixels[:, 64:] = (250, 100, 50)
    small = np.asarray(thumbnail(pixels, Size(16, 8)))
    assert small.shape == (8, 16, 3)
    assert small[4, 1].tolist() == [0, 0, 0]
    assert small[4, 14].tolist() == [250, 100, 50]
