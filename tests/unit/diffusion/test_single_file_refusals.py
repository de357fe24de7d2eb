from __future__ import annotations

import json
import struct
from pathlib import Path

import mlx.core as mx
import pytest

from daemon.errors import ModelError
from tests.unit.diffusion import ldm
from tests.unit.diffusion.ldm import make, save
from workers.diffusion.single_file import read_single_file

SD1 = ldm.sd1(ldm.Original())
UNET, CLIP = "model.diffusion_model.", "cond_stage_model.transformer."


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def refusal(file: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_single_file(file)
    return caught.value.message


OTHERS = {
    "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": "a LoRA file",
    "unet.down_blocks.0.attentions.0.proj_in.lora_A.weight": "a LoRA file",
    "decoder.conv_in.weight encoder.conv_in.weight": "a VAE alone",
    "first_stage_model.encoder.conv_in.weight": "a VAE alone",
    "model.diffusion_model.input_blocks.0.0.weight": "no VAE and no text encoder",
    "model.diffusion_model.double_blocks.0.img_attn.proj.weight": "FLUX",
    "model.diffusion_model.joint_blocks.0.x_block.attn.proj.weight": "Stable Diffusion 3",
    "control_model.time_embed.0.weight": "a ControlNet",
    "edm_mean": "Playground",
    "down_blocks.0.resnets.0.conv1.weight": "diffusers' layout",
    "emb_params": "a textual inversion embedding",
    "linear.weight": "not a Stable Diffusion checkpoint",
}


@pytest.mark.parametrize(("tensors", "what"), OTHERS.items())
def test_other_files_are_refused_by_what_they_are(file: Path, tensors: str, what: str) -> None:
    save(file, {name: mx.zeros((2, 2)) for name in tensors.split()})
    assert what in refusal(file)


def test_the_refiner_is_refused_by_name(file: Path) -> None:
    shapes = ldm.sd2(ldm.Original(added=64, linear=True))
    renamed = {
        name.replace("cond_stage_model.model.", "conditioner.embedders.0.model."): shape
        for name, shape in shapes.items()
    }
    save(file, make(renamed))
    assert "SDXL's refiner" in refusal(file)


def test_pruned_blocks_are_refused(file: Path) -> None:
    arrays = make(ldm.sd1(ldm.Original(layers=2)))
    save(
        file,
        {name: a for name, a in arrays.items() if not name.startswith(f"{UNET}input_blocks.2.1.")},
    )
    assert "not built like the released" in refusal(file)


def test_another_vocabulary_is_refused(file: Path) -> None:
    save(
        file, make(SD1) | {f"{CLIP}text_model.embeddings.token_embedding.weight": mx.zeros((9, 32))}
    )
    assert "9 tokens" in refusal(file)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a complete safetensors file"),
        (b"not a model at all", "not a complete safetensors file"),
        (b"PK\x03\x04" + bytes(100), "a pickle file"),
        (b"\x80\x02}q\x00" + bytes(100), "a pickle file"),
    ],
)
def test_other_formats_are_refused(file: Path, content: bytes, reason: str) -> None:
    file.write_bytes(content)
    assert reason in refusal(file)


def test_a_truncated_file_is_refused(file: Path) -> None:
    save(file, make(SD1))
    file.write_bytes(file.read_bytes()[:-7])
    assert "is incomplete" in refusal(file)


def test_a_missing_file_is_an_error(file: Path) -> None:
    assert "cannot be read" in refusal(file)


@pytest.mark.parametrize(
    ("dtype", "size", "reason"),
    [("F8_E4M3", 6, "stored as F8_E4M3"), ("F64", 48, "stored as F64"), ("F32", 8, "needs 24")],
)
def test_element_types_and_sizes_are_checked(
    file: Path, dtype: str, size: int, reason: str
) -> None:
    save(file, make(SD1))
    raw = file.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    name, end = f"{UNET}out.2.bias", len(raw) - 8 - length
    header[name] = {"dtype": dtype, "shape": [6], "data_offsets": [end, end + size]}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :] + bytes(size))
    assert reason in refusal(file)
