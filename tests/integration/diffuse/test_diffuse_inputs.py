"""Pictures, masks, LoRA files and single-file models that a diffusion is given."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image, ImageFile

from daemon.errors import JobError, ModelError, StudioqError
from tests.integration.diffuse.studio import Pixels, Studio, alike, pixels, same
from tests.unit.diffusion import ldm, tiny
from workers.diffusion.clip_vocabulary import clip_vocabulary
from workers.diffusion.components import Component
from workers.diffusion.single_file import read_single_file

Models = Callable[[str], Path]

WIDTH = "down_blocks.0.attentions.0.transformer_blocks.0"
KOHYA = f"lora_unet_{WIDTH.replace('.', '_')}"


def changed(ours: Pixels, theirs: Pixels) -> float:
    """Return by how many levels pictures differ on average."""
    return float(np.abs(ours - theirs).mean())


@pytest.fixture
def photo(studio: Studio) -> Path:
    return studio.drawing("photo")


@pytest.fixture
def mask(studio: Studio) -> Path:
    """White on the right half."""
    drawn = np.zeros((32, 32), dtype=np.uint8)
    drawn[:, 16:] = 255
    return studio.write("mask", drawn)


def as_asked(**options: Any) -> dict[str, Any]:
    """Return options of a job that takes its size from its picture."""
    return {"width": None, "height": None, **options}


def test_strength_decides_how_much_of_the_picture_is_left(studio: Studio, photo: Path) -> None:
    jobs = [
        studio.run(**as_asked(image=photo, strength=strength, steps=6, cfg=1))
        for strength in (0, 0.2, 0.5, 1)
    ]
    assert [len(job.steps) for job in jobs] == [0, 1, 3, 6]
    decoded = jobs[0].picture()
    moved = [changed(job.picture(), decoded) for job in jobs]
    assert moved[0] == 0
    assert moved == sorted(moved)
    assert all(job.picture().shape == (32, 32, 3) for job in jobs)


def test_strength_0_gives_the_picture_as_the_vae_renders_it(studio: Studio, photo: Path) -> None:
    job = studio.run(**as_asked(image=photo, strength=0, n_images=3, batch_size=2))
    first, second, third = job.pictures()
    assert np.array_equal(first, second)
    assert alike([first], [third])
    other = studio.run(**as_asked(image=photo, strength=0, seed=1, prompt="another"))
    assert alike(other.pictures(), [first])


def test_strength_0_needs_no_step_of_sdxl_either(
    studio: Studio, photo: Path, models: Models
) -> None:
    job = studio.run(**as_asked(model=models("sdxl"), image=photo, strength=0))
    assert list(job.reports()) == [(1, 0)]
    assert job.picture().shape == (32, 32, 3)


def test_a_strength_that_leaves_no_step_is_refused(studio: Studio, photo: Path) -> None:
    job = studio.job(image=photo, strength=0.01, steps=25)
    with pytest.raises(JobError, match=r"a strength of 0\.01 leaves none of 25 steps") as caught:
        job.run()
    assert caught.value.remedy == "use a greater strength, or 100 steps"
    assert job.names() == []


@pytest.mark.parametrize("sampler", ["euler-a", "dpm++2m-karras"])
def test_a_picture_and_its_seed_decide_whatever_the_batch(
    studio: Studio, photo: Path, sampler: str
) -> None:
    options = as_asked(image=photo, strength=0.7, steps=4, sampler=sampler, n_images=3)
    alone, together = (studio.run(batch_size=batch, **options) for batch in (1, 3))
    assert alike(alone.pictures(), together.pictures())
    assert len({picture.tobytes() for picture in alone.pictures()}) == 3


def test_every_picture_is_decoded_once(
    studio: Studio, photo: Path, mask: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    load = ImageFile.ImageFile.load

    def counted(image: ImageFile.ImageFile) -> object:
        if image.filename and image.tile:
            read.append(str(image.filename))
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", counted)
    studio.run(**as_asked(image=photo, mask=mask))
    assert sorted(read) == sorted(str(path) for path in (photo, mask))


@pytest.mark.parametrize(
    ("given", "wanted", "size"),
    [
        ((37, 45), (None, None), (32, 40)),
        ((32, 32), (16, None), (16, 32)),
        ((5, 9), (8, 8), (8, 8)),
    ],
)
def test_pictures_take_the_images_size_in_steps_of_8(
    studio: Studio,
    given: tuple[int, int],
    wanted: tuple[int | None, int | None],
    size: tuple[int, int],
) -> None:
    image = studio.drawing("odd", height=given[1], width=given[0])
    job = studio.run(image=image, strength=0.4, width=wanted[0], height=wanted[1])
    assert job.picture().shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    ("sampler", "strength"),
    [("ddim", 1), ("euler", 0.5), ("euler-a", 0.5), ("dpm++2m", 1), ("lcm", 0.5)],
)
def test_what_the_mask_keeps_is_kept_exactly(
    studio: Studio, photo: Path, mask: Path, sampler: str, strength: float
) -> None:
    job = studio.run(**as_asked(image=photo, mask=mask, strength=strength, sampler=sampler))
    original = pixels(photo)
    assert np.array_equal(job.picture()[:, :16], original[:, :16])
    assert changed(job.picture()[:, 16:], original[:, 16:]) > 5


def test_every_level_is_kept_exactly(studio: Studio, mask: Path) -> None:
    levels = np.arange(32 * 32 * 3, dtype=np.uint16).reshape(32, 32, 3) % 256
    image = studio.write("levels", levels.astype(np.uint8))
    job = studio.run(**as_asked(image=image, mask=mask, n_images=2, batch_size=2))
    for picture in job.pictures():
        assert np.array_equal(picture[:, :16], levels[:, :16])


def test_a_black_mask_keeps_all_and_a_white_one_nothing(studio: Studio, photo: Path) -> None:
    black, white = (
        studio.write(f"mask-{level}", np.full((32, 32), level, dtype=np.uint8))
        for level in (127, 128)
    )
    kept_all = studio.run(**as_asked(image=photo, mask=black))
    assert np.array_equal(kept_all.picture(), pixels(photo))
    options = as_asked(image=photo, strength=0.7)
    assert same(
        studio.run(mask=white, metadata=False, **options), studio.run(metadata=False, **options)
    )


def test_a_mask_is_resized_with_its_picture(studio: Studio, photo: Path, mask: Path) -> None:
    job = studio.run(image=photo, mask=mask, width=16, height=24)
    with Image.open(photo) as image:
        small = np.asarray(image.resize((16, 24), Image.Resampling.LANCZOS), dtype=np.int16)
    assert np.array_equal(job.picture()[:, :8], small[:, :8])


def test_a_mask_of_another_size_is_refused(studio: Studio, photo: Path) -> None:
    other = studio.write("small", np.zeros((32, 24), dtype=np.uint8))
    with pytest.raises(JobError, match=r"mask small\.png is 24x32 pixels and its picture 32x32"):
        studio.run(**as_asked(image=photo, mask=other))


@pytest.mark.parametrize("place", ["image", "mask"])
@pytest.mark.parametrize("content", [b"", b"only words\n" * 100, b"\x89PNG\r\n\x1a\n cut"])
def test_what_is_no_picture_is_refused(
    studio: Studio, photo: Path, tmp_path: Path, place: str, content: bytes
) -> None:
    notes = tmp_path / "notes.png"
    notes.write_bytes(content)
    with pytest.raises(JobError, match=r"^notes\.png is "):
        studio.run(**as_asked(**{"image": photo, place: notes}))


def test_a_picture_cut_short_is_refused(studio: Studio, photo: Path) -> None:
    photo.write_bytes(photo.read_bytes()[:-200])
    with pytest.raises(JobError, match=r"photo\.png is damaged or cut short"):
        studio.run(**as_asked(image=photo))


def test_a_model_made_for_masks_takes_one(
    studio: Studio, models: Models, photo: Path, mask: Path
) -> None:
    options = as_asked(model=models("inpainting"), image=photo, n_images=2)
    alone, together = (studio.run(mask=mask, batch_size=batch, **options) for batch in (1, 2))
    assert alike(alone.pictures(), together.pictures())
    for picture in alone.pictures():
        assert np.array_equal(picture[:, :16], pixels(photo)[:, :16])
    with pytest.raises(JobError, match="only repaints pictures, and no mask was given"):
        studio.run(**options)
    with pytest.raises(JobError, match="only repaints pictures, and no image was given"):
        studio.run(model=models("inpainting"))


def lora(path: Path, names: Sequence[str], *, seed: int = 0, wide: int = 32) -> Path:
    """Write a LoRA file of rank 2 for square layers, in kohya's form."""
    arrays: dict[str, mx.array] = {}
    for name in names:
        down, up = (
            mx.array(tiny.normal(f"{name}/{side}/{seed}", (2, wide))) for side in ("down", "up")
        )
        arrays[f"{name}.lora_down.weight"] = down
        arrays[f"{name}.lora_up.weight"] = up.T
        arrays[f"{name}.alpha"] = mx.array(2.0)
    return ldm.save(path, arrays)


@pytest.fixture
def style(tmp_path: Path) -> Path:
    return lora(tmp_path / "style.safetensors", [f"{KOHYA}_attn1_to_q", f"{KOHYA}_attn1_to_out_0"])


def test_a_lora_changes_the_pictures_of_its_own_job_only(studio: Studio, style: Path) -> None:
    plain = studio.run(n_images=2)
    styled = studio.run(n_images=2, lora=[(style, 1.0)])
    assert "LoRA style.safetensors, scale 1: 2 layers" in styled.log
    assert not alike(styled.pictures(), plain.pictures())
    assert same(studio.run(n_images=2), plain)
    assert same(studio.run(n_images=2, lora=[(style, 1.0)]), styled)


def test_a_loras_scale_counts(studio: Studio, style: Path) -> None:
    plain = studio.run().picture()
    half, whole = (studio.run(lora=[(style, scale)]).picture() for scale in (0.5, 1.0))
    assert np.array_equal(studio.run(lora=[(style, 0.0)]).picture(), plain)
    assert len({half.tobytes(), whole.tobytes(), plain.tobytes()}) == 3
    twice = studio.run(lora=[(style, 0.5), (style, 0.5)])
    assert alike(twice.pictures(), [whole])


def test_loras_add_up_and_are_told_in_the_picture(
    studio: Studio, style: Path, tmp_path: Path
) -> None:
    ink = lora(tmp_path / "ink.safetensors", [f"{KOHYA}_attn1_to_q"], seed=1)
    text = lora(
        tmp_path / "words.safetensors",
        ["lora_te_text_model_encoder_layers_0_self_attn_q_proj"],
        wide=24,
    )
    jobs = [
        studio.run(lora=[(file, 1.0) for file in files])
        for files in ((style,), (ink,), (style, ink), (ink, style), (text,))
    ]
    first, second, both, turned, words = (job.picture() for job in jobs)
    assert len({picture.tobytes() for picture in (first, second, both, words)}) == 4
    assert alike([both], [turned])
    with Image.open(jobs[2].folder / "image-0000.png") as image:
        told = image.text["parameters"]  # type: ignore[attr-defined]
    assert "<lora:style:1> <lora:ink:1>" in told


@pytest.mark.parametrize("name", ["sd2", "sdxl"])
def test_a_lora_that_matches_nothing_is_refused(
    studio: Studio, models: Models, tmp_path: Path, name: str
) -> None:
    strange = lora(tmp_path / "strange.safetensors", ["lora_unet_no_such_layer"])
    job = studio.job(model=models(name), lora=[(strange, 1.0)])
    with pytest.raises(ModelError, match=r"strange\.safetensors matches no layer"):
        job.run()
    assert job.names() == []


def test_a_lora_of_another_width_is_refused(studio: Studio, tmp_path: Path) -> None:
    wide = lora(tmp_path / "wide.safetensors", [f"{KOHYA}_attn1_to_q"], wide=48)
    with pytest.raises(ModelError, match=rf"wide\.safetensors does not fit .*{re.escape(WIDTH)}"):
        studio.run(lora=[(wide, 1.0)])


@pytest.mark.parametrize("content", [b"", b"words", b"\xff" * 64])
def test_what_is_no_lora_is_refused(studio: Studio, tmp_path: Path, content: bytes) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(content)
    with pytest.raises(StudioqError, match=r"bad\.safetensors"):
        studio.run(lora=[(bad, 1.0)])


def test_a_single_file_gives_the_pictures_of_its_folder(studio: Studio, tmp_path: Path) -> None:
    file = ldm.save(tmp_path / "checkpoint.safetensors", ldm.make(ldm.sd1(ldm.Original())))
    folder = as_folder(file, tmp_path / "folder")
    options = {"n_images": 2, "metadata": False}
    one, other = (studio.run(model=path, **options) for path in (file, folder))
    assert same(one, other)
    assert not alike(one.pictures()[:1], one.pictures()[1:])
    inside = tmp_path / "inside"
    inside.mkdir()
    shutil.move(file, inside / file.name)
    assert same(studio.run(model=inside, **options), one)
    studio.cache.clear()


def as_folder(file: Path, folder: Path) -> Path:
    """Write what is read of a single file as a folder in diffusers' layout."""
    parts = read_single_file(file)
    networks: dict[str, Component] = {
        "unet": parts.unet,
        "vae": parts.vae,
        "text_encoder": parts.text_encoders[0],
    }
    for name, part in networks.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(dict(part.config)))
        stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
        mx.save_safetensors(str(folder / name / f"{stem}.safetensors"), dict(part.weights))
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(dict(parts.scheduler)))
    tokens, merges = clip_vocabulary()
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer/vocab.json").write_text(json.dumps(tokens))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "tokenizer/merges.txt").write_text("\n".join(lines) + "\n")
    index = {"_class_name": "StableDiffusionPipeline"}
    entries = {name: ["diffusers", "X"] for name in (*networks, "scheduler", "tokenizer")}
    (folder / "model_index.json").write_text(json.dumps(index | entries))
    return folder
