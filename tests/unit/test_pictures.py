"""Pictures, masks and LoRA files are judged when a job is submitted, without holding them."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from daemon.errors import SpecRefusedError
from daemon.lora_files import check_loras
from daemon.pictures import FORMATS, check_pictures, picture_size
from daemon.specs import DiffuseSpec

BLOB = {"name": "x", "sha256": "0" * 64}


def picture(path: Path, width: int = 64, height: int = 48, **options: Any) -> Path:
    noise = np.random.Generator(np.random.PCG64(1)).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(path, **options)
    return path


def refused(check: Callable[[], object]) -> SpecRefusedError:
    with pytest.raises(SpecRefusedError) as caught:
        check()
    assert caught.value.remedy
    return caught.value


def size_of(path: Path, name: str = "mine") -> object:
    return picture_size("image", name, path)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(tmp_path: Path, kind: str) -> None:
    assert size_of(picture(tmp_path / "blob", format=kind)) == (64, 48)


def test_a_picture_on_its_side_counts_as_it_is_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG"):
        assert size_of(picture(tmp_path / kind, format=kind, exif=exif)) == (48, 64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "mine is empty (0 bytes)"),
        (b"just a text", "mine is not a picture of a format that is read (PNG, JPEG, WEBP, GIF,"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "mine is not a picture"),
        (b"\x89PNG\r\n\x1a\n\0\0", "mine begins as PNG, but its header is damaged or cut short"),
        (b"\xff\xd8\xff\xe0", "mine begins as JPEG, but its header is damaged or cut short"),
        (b"RIFF\0\0\0\0WEBP", "mine begins as WEBP, but"),
        (b"GIF89a", "mine begins as GIF, but"),
        (b"RIFF\0\0\0\0WAVEfmt ", "mine is not a picture"),
        (b"II*\0", "mine"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "blob"
    path.write_bytes(content)
    error = refused(lambda: size_of(path))
    assert error.message.startswith(message)
    assert error.field == "image"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_that_is_cut_short_is_refused_wherever_it_ends(tmp_path: Path, kind: str) -> None:
    whole = picture(tmp_path / "whole", format=kind).read_bytes()
    for length in (*range(1, 60), len(whole) // 2, len(whole) * 9 // 10):
        path = tmp_path / "cut"
        path.write_bytes(whole[:length])
        assert "blob" not in refused(lambda path=path: size_of(path)).message  # type: ignore[misc]


def png_of(width: int, height: int) -> bytes:
    """Return a PNG that announces a size and holds no pixels to speak of."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_too_many_pixels_are_refused_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(png_of(30_000, 20_000))
    assert refused(lambda: size_of(path)).message == (
        "mine is 30000x20000, 600 megapixels; allowed are at most 100"
    )


def test_a_big_picture_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(png_of(10_000, 9_999))
    tracemalloc.start()
    assert size_of(path) == (10_000, 9_999)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20


def check(
    tmp_path: Path, image: tuple[int, int], mask: tuple[int, int] | None = None, **options: Any
) -> None:
    files = {"image": ("photo.png", picture(tmp_path / "image", *image, format="PNG"))}
    spec: dict[str, Any] = {"prompt": "x", "image": BLOB, **options}
    if mask is not None:
        files["mask"] = ("mask.png", picture(tmp_path / "mask", *mask, format="PNG"))
        spec["mask"] = BLOB
    check_pictures(files, DiffuseSpec.model_validate(spec))


def test_a_mask_has_its_images_size(tmp_path: Path) -> None:
    check(tmp_path, (64, 48), (64, 48))
    error = refused(lambda: check(tmp_path, (64, 48), (48, 64)))
    assert error.message == "the mask mask.png is 48x64 pixels, but the image photo.png is 64x48"
    assert (error.field, error.remedy) == ("mask", "make the mask 64x48 pixels")


def test_an_image_too_small_for_a_job_needs_a_size(tmp_path: Path) -> None:
    error = refused(lambda: check(tmp_path, (64, 7)))
    assert "photo.png is 64x7" in error.message
    assert "8 to 16,384" in error.message
    check(tmp_path, (64, 7), width=64, height=64)
    check(tmp_path, (64, 7), height=64)


def test_without_a_picture_there_is_nothing_to_check() -> None:
    check_pictures({}, DiffuseSpec.model_validate({"prompt": "x"}))


# LoRA files

ONE = np.zeros((2, 2), np.float32)
NAMES = {
    "kohya": "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",
    "peft": "unet.down_blocks.0.attentions.0.proj_in.lora_A.weight",
    "diffusers": "unet.mid_block.attentions.0.processor.to_q_lora.down.weight",
    "old": "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.up.weight",
}


def lora(path: Path, name: str) -> Path:
    save_file({name: ONE}, path)
    return path


def check_lora(path: Path) -> None:
    check_loras({"image": ("photo.png", path), "lora.1.file": ("style.safetensors", path)})


@pytest.mark.parametrize("form", NAMES)
def test_lora_files_of_every_form_pass(tmp_path: Path, form: str) -> None:
    check_lora(lora(tmp_path / "blob", NAMES[form]))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ("model.layers.0.self_attn.q_proj.lora_a", "holds no LoRA: its tensors are called 'model."),
        ("model.diffusion_model.out.2.bias", "holds no LoRA: its tensors are called 'model.diff"),
        ("lora_unet_mid.hada_w1_a", "holds tensors called '.hada_w1_a', another method than LoRA"),
    ],
)
def test_a_file_without_lora_is_refused(tmp_path: Path, tensor: str, message: str) -> None:
    error = refused(lambda: check_lora(lora(tmp_path / "blob", tensor)))
    assert error.message.startswith(f"style.safetensors {message}")
    assert error.field == "lora.1.file"


def test_a_lora_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = lora(tmp_path / "blob", NAMES["kohya"])
    content = path.read_bytes()
    for length in (0, 4, 20, len(content) - 1):
        path.write_bytes(content[:length])
        message = refused(lambda: check_lora(path)).message
        assert message.startswith("style.safetensors is ")
        assert "complete" in message


def test_a_pickle_and_an_empty_file_of_tensors_say_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"PK\x03\x04" + b"\0" * 100)
    assert "as a pickle" in refused(lambda: check_lora(path)).message
    save_file({}, path)
    assert "holds no tensors" in refused(lambda: check_lora(path)).message


@pytest.mark.parametrize("length", [0x0280, 0x4B50])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path, length: int) -> None:
    text = json.dumps({NAMES["peft"]: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    file = io.BytesIO()
    file.write(struct.pack("<Q", length) + text.ljust(length).encode() + b"1234")
    path = tmp_path / "blob"
    path.write_bytes(file.getvalue())
    check_lora(path)
