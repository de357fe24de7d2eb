"""A user's picture is read whatever its form, and a file that is none is one clear message."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from daemon.errors import JobError
from daemon.size import Size
from workers.diffusion.originals import load_picture, picture_values
from workers.diffusion.pictures import to_pixels

LEFT, RIGHT = (200, 30, 60), (20, 120, 220)


def sample(size: tuple[int, int] = (32, 16)) -> Image.Image:
    """Return a picture of two halves, so that turning and mirroring show."""
    image = Image.new("RGB", size, LEFT)
    image.paste(RIGHT, (size[0] // 2, 0, size[0], size[1]))
    return image


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def seen(path: Path, size: Size | None = None) -> NDArray[np.uint8]:
    image = load_picture(path, "photo")
    values = picture_values(image, size or Size(*image.size))
    assert values.dtype == np.float32
    assert values.min() >= -1
    assert values.max() <= 1
    return to_pixels(values)


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    return data


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.ppm", "a.gif"])
def test_lossless_formats_come_back_exactly(tmp_path: Path, name: str) -> None:
    assert np.array_equal(seen(save(tmp_path / name, sample())), np.asarray(sample()))


@pytest.mark.parametrize(("name", "mode"), [("a.jpg", "RGB"), ("a.webp", "RGB"), ("a.jpg", "CMYK")])
def test_lossy_formats_come_back_nearly(tmp_path: Path, name: str, mode: str) -> None:
    path = save(tmp_path / name, sample().convert(mode), quality=95)
    assert np.abs(seen(path).astype(int) - np.asarray(sample())).mean() < 6


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    image = sample().convert(mode)
    path = save(tmp_path / "a.png", image)
    assert np.array_equal(seen(path), np.asarray(image.convert("RGB")))


def test_sixteen_bit_gray_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, 64 * 8).astype(np.uint16).reshape(8, 64)
    path = save(tmp_path / "a.png", Image.fromarray(levels))
    assert np.array_equal(seen(path)[..., 0], np.rint(levels / 257).astype(np.uint8))


def test_numbers_without_a_known_white_are_refused(tmp_path: Path) -> None:
    for values in (np.ones((8, 8), np.float32), np.full((8, 8), 70_000, np.int32)):
        path = save(tmp_path / "a.tiff", Image.fromarray(values))
        with pytest.raises(JobError, match="more than 16 bits"):
            load_picture(path, "scan.tiff")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tiff"])
def test_a_picture_is_turned_upright(tmp_path: Path, name: str, orientation: int) -> None:
    """The stored pixels are the upright ones turned the other way, as cameras store them."""
    turns: list[Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = [
        lambda a: a,
        np.fliplr,
        lambda a: np.rot90(a, 2),
        np.flipud,
        lambda a: a.swapaxes(0, 1),
        lambda a: np.rot90(a, 1),
        lambda a: np.rot90(a, 2).swapaxes(0, 1),
        lambda a: np.rot90(a, -1),
    ]
    upright = np.asarray(sample())
    stored = Image.fromarray(np.ascontiguousarray(turns[orientation - 1](upright)))
    path = save(tmp_path / name, stored, exif=exif(orientation), quality=95)
    assert load_picture(path, "photo").size == (32, 16)
    assert np.abs(seen(path).astype(int) - upright).mean() < 6


def test_damaged_exif_data_do_not_matter(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", sample(), exif=b"Exif\0\0 no such thing")
    assert np.array_equal(seen(path), np.asarray(sample()))


def test_transparent_parts_are_white_whatever_hides_there(tmp_path: Path) -> None:
    image = sample().convert("RGBA")
    image.putalpha(Image.fromarray(np.repeat([[255, 128, 0, 0]], 16, 0).repeat(8, 1).astype("u1")))
    pixels = seen(save(tmp_path / "a.png", image))
    assert pixels[0, 0].tolist() == list(LEFT)
    assert pixels[0, 8].tolist() == pytest.approx([(c + 255) / 2 for c in LEFT], abs=1)
    assert pixels[0, 16:].min() == 255


def test_a_palette_with_a_transparent_colour_counts_as_transparent(tmp_path: Path) -> None:
    image = sample().quantize(2)
    first = image.getpixel((0, 0))
    pixels = seen(save(tmp_path / "a.gif", image, transparency=first))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, -1].tolist() == list(RIGHT)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tiff"])
def test_of_an_animation_the_first_frame_counts(tmp_path: Path, name: str) -> None:
    later = [Image.new("RGB", (32, 16), "black")]
    path = save(tmp_path / name, sample(), save_all=True, append_images=later)
    assert np.abs(seen(path).astype(int) - np.asarray(sample())).mean() < 6


def test_resizing_is_lanczos(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", sample((64, 64)))
    expected = np.asarray(sample((64, 64)).resize((24, 40), Image.Resampling.LANCZOS))
    assert np.array_equal(seen(path, Size(24, 40)), expected)


def claim(width: int, height: int) -> bytes:
    """Return a PNG that claims so many pixels and has none."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 4) + b"IDAT"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "notes.txt is empty"),
        (b"dear diary, today a red circle", "notes.txt is not a picture of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture of a known format"),
        (claim(12_000, 12_000), "notes.txt has more than 100 megapixels"),
        (claim(10_001, 10_000), "notes.txt has more than 100 megapixels"),
        (claim(60_000, 60_000), "notes.txt has more than 100 megapixels"),
        (claim(10_000, 9_600), "notes.txt is damaged or cut short"),
        (claim(16, 16), "notes.txt is damaged or cut short"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "notes.txt is"),
    ],
)
def test_a_file_that_is_no_picture_is_one_message(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "blob").write_bytes(content)
    with pytest.raises(JobError, match=message) as caught:
        load_picture(tmp_path / "blob", "notes.txt")
    assert caught.value.remedy


def test_a_file_that_has_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"photo cannot be read: No such file"):
        load_picture(tmp_path / "gone.png", "photo")


def encoded(form: str) -> bytes:
    file = io.BytesIO()
    noisy = np.random.Generator(np.random.PCG64(1)).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(noisy).save(file, format=form)
    return file.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_picture_cut_short_is_said(tmp_path: Path, form: str) -> None:
    content = encoded(form)
    (tmp_path / "a").write_bytes(content[: len(content) // 2])
    with pytest.raises(JobError, match=r"photo is (damaged or cut short|not a picture)"):
        load_picture(tmp_path / "a", "photo")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_damaged_picture_is_read_or_refused(tmp_path: Path, form: str) -> None:
    content = encoded(form)
    chance = random.Random(form)
    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(chance.choice((1, 3, 30))):
            damaged[chance.randrange(chance.choice((40, len(damaged))))] = chance.randrange(256)
        (tmp_path / "a").write_bytes(damaged)
        try:
            assert seen(tmp_path / "a").size
        except JobError as error:
            assert error.message.startswith("photo ")
