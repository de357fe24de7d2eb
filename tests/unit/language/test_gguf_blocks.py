"""Tensors of every type, as MLX's own reader and llama.cpp's package read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import quants
from mlx_lm.utils import load_model

from daemon.errors import ModelError
from tests.unit.language.gguf_cases import PLACE, TOKENS
from workers.language import formats
from workers.language.gguf import blocks, open_gguf
from workers.language.headers import TensorInfo, loaded_bytes, read_gguf_header
from workers.language.load import load_language_model

AFFINE = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
# Where the 16-bit scales of a block stand, so that a test can make them of a weight's size.
SCALES = {
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ2_XXS": (0,),
    "IQ2_XS": (0,),
    "IQ2_S": (0,),
    "IQ3_XXS": (0,),
    "IQ3_S": (0,),
    "IQ1_S": (0,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
}


def drawn(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def random_blocks(kind: str, rows: int, columns: int) -> np.ndarray:
    """Return rows of random blocks with scales of about 0.01."""
    elements, width = gguf.GGML_QUANT_SIZES[Type[kind]]
    rng = np.random.default_rng(columns)
    data = rng.integers(0, 256, (rows, columns // elements, width), dtype=np.uint8)
    for place in SCALES[kind]:
        scales = rng.uniform(0.005, 0.02, data.shape[:2]).astype(np.float16)
        data[..., place : place + 2] = scales[..., None].view(np.uint8)
    return data.reshape(rows, -1)


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write(path: Path, kind: str, data: np.ndarray) -> TensorInfo:
    """Write a file with one tensor, ``x.weight``; return what its header says of it."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("x.weight", data, raw_dtype=Type[kind])
    finish(writer)
    (info,) = read_gguf_header(path).tensors
    return info


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_what_mlx_reads_is_read_bit_for_bit(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.gguf"
    info = write(path, kind, quants.quantize(drawn((3000, 1024)), Type[kind]))  # a few chunks
    theirs: Any = mx.load(str(path))
    parts = {
        "weight": blocks.read_words(path, info),
        "scales": blocks.read_scales(path, info),
        "biases": blocks.read_biases(path, info),
    }
    for name, array in parts.items():
        expected = theirs[f"x.{name}"]
        assert array.dtype == expected.dtype
        assert mx.array_equal(array, expected)
    assert sum(array.nbytes for array in parts.values()) == loaded_bytes(info)


@pytest.mark.parametrize("kind", AFFINE)
def test_affine_numbers_are_exactly_those_of_llama_cpp(tmp_path: Path, kind: str) -> None:
    path, data = tmp_path / "x.gguf", quants.quantize(drawn((40, 96)), Type[kind])
    info = write(path, kind, data)
    scales, biases = (
        read(path, info).astype(mx.float32) for read in (blocks.read_scales, blocks.read_biases)
    )
    words = blocks.read_words(path, info)
    numbers = mx.dequantize(words, scales, biases, group_size=32, bits=int(kind[1]))
    assert np.array_equal(np.array(numbers), quants.dequantize(data, Type[kind]))


@pytest.mark.parametrize("kind", ["Q2_K", "Q6_K"])
def test_other_numbers_are_those_of_mlx(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.gguf"
    info = write(path, kind, random_blocks(kind, 300, 8192))
    theirs: Any = mx.load(str(path))
    found = blocks.read_float16(path, info)
    assert found.dtype == mx.float16
    assert found.nbytes == loaded_bytes(info)
    # MLX's reader computes some of them in float16, one rounding more.
    assert mx.allclose(found, theirs["x.weight"], rtol=2**-10, atol=1e-4)


def q4_k(block: np.ndarray) -> np.ndarray:
    """Return the 256 numbers of a Q4_K block as ggml-quants.c defines them."""
    scale, least = (float(part) for part in block[:4].view(np.float16))
    six, nibbles = block[4:16].astype(int), block[16:].astype(int).reshape(4, 32)
    numbers = []
    for group in range(8):
        if group < 4:
            factor, offset = six[group] & 63, six[group + 4] & 63
        else:
            factor = six[group + 4] & 15 | six[group - 4] >> 6 << 4
            offset = six[group + 4] >> 4 | six[group] >> 6 << 4
        numbers.append(
            scale * factor * (nibbles[group // 2] >> 4 * (group % 2) & 15) - least * offset
        )
    return np.concatenate(numbers)


def test_q4_k_is_read_as_defined_and_not_as_mlx_0_32_does(tmp_path: Path) -> None:
    """MLX's reader takes the even groups' scales for the odd ones, too."""
    path, data = tmp_path / "x.gguf", random_blocks("Q4_K", 3, 256)
    found = np.array(blocks.read_float16(path, write(path, "Q4_K", data)))
    expected = np.stack([q4_k(row) for row in data])
    assert np.allclose(found, expected, rtol=2**-11, atol=1e-6)


@pytest.mark.parametrize("kind", SCALES)
def test_every_type_is_read_as_llama_cpps_package_does(tmp_path: Path, kind: str) -> None:
    path, data = tmp_path / "x.gguf", random_blocks(kind, 4, 512)
    found = np.array(blocks.read_float16(path, write(path, kind, data)))
    expected = quants.dequantize(data, Type[kind])
    assert np.isfinite(expected).all()
    assert np.array_equal(found, expected.astype(np.float16))


def test_numbers_beyond_float16_are_refused(tmp_path: Path) -> None:
    path, data = tmp_path / "x.gguf", random_blocks("Q6_K", 4, 512)
    data[2, 208:210] = np.array([60000], np.float16).view(np.uint8)
    info = write(path, "Q6_K", data)
    with pytest.raises(ModelError, match=r"x\.weight of x\.gguf has numbers beyond float16"):
        blocks.read_float16(path, info)


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    info = write(path, "F16", drawn((64, 64)).astype(np.float16))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"changed while it was read: tensor x\.weight"):
        blocks.read_floats(path, info)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_unquantised_numbers_stay_as_they_are(tmp_path: Path, kind: str) -> None:
    path, numbers = tmp_path / "x.gguf", drawn((600, 512))
    data = quants.quantize(numbers, Type[kind])
    found = blocks.read_floats(path, write(path, kind, data))
    assert found.dtype == {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}[kind]
    expected = quants.dequantize(data, Type[kind]).reshape(numbers.shape)
    assert np.array_equal(np.array(found.astype(mx.float32)), expected)


def requantised(path: Path, name: str, kinds: dict[str, str], *, undone: bool = False) -> Path:
    """Write a reference with its matrices quantised, each by its name's end, else Q8_0.

    ``undone``: the numbers that come of that, as float32.
    """
    reader = gguf.GGUFReader(PLACE / f"{name}.gguf")
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    for key, part in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            kind = part.types[0]
            inner = part.types[-1] if kind == gguf.GGUFValueType.ARRAY and part.data else None
            if inner is not None or kind != gguf.GGUFValueType.ARRAY:
                writer.add_key_value(key, part.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        kind = kinds.get(tensor.name.split(".")[-2], "Q8_0") if tensor.data.ndim > 1 else "F32"
        data = quants.quantize(np.array(tensor.data), Type[kind])
        if undone:
            data, kind = quants.dequantize(data, Type[kind]), "F32"
        writer.add_tensor(tensor.name, data, raw_dtype=Type[kind])
    finish(writer)
    return path


KINDS = {"attn_q": "Q4_1", "attn_k": "Q4_0", "attn_v": "Q5_1", "attn_qkv": "Q5_0"}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """The llama reference with 4, 5 and 8 bits, and 16 where rows are not whole groups."""
    return requantised(tmp_path / "mixed.gguf", "llama", KINDS | {"ffn_down": "F16"})


@pytest.mark.parametrize("name", ["llama", "qwen2", "phi3", "gemma2"])
def test_a_quantised_network_is_that_of_its_numbers(tmp_path: Path, name: str) -> None:
    kinds = KINDS | {"ffn_down": "F16"}
    quantised, undone = (
        load_language_model(
            requantised(tmp_path / f"{undone}.gguf", name, kinds, undone=undone)
        ).model(mx.array(TOKENS))
        for undone in (False, True)
    )
    assert np.abs(np.array(quantised - undone)).max() < 2e-6 * np.abs(np.array(undone)).max()


def test_the_configuration_says_how_each_layer_is_quantised(mixed: Path, tmp_path: Path) -> None:
    source = open_gguf(mixed)
    quantization = source.config["quantization"]
    assert (quantization["group_size"], quantization["bits"]) == (32, 8)
    assert quantization["model.layers.1.self_attn.v_proj"]["bits"] == 5
    assert "model.layers.1.mlp.down_proj" not in quantization
    (tmp_path / "config.json").write_text(json.dumps(source.config))
    weights = {key: tensor.read() for key, tensor in source.tensors.items()}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), weights)
    model, _ = load_model(tmp_path)
    tokens = mx.array(TOKENS)
    assert mx.allclose(
        model(tokens), load_language_model(mixed).model(tokens), rtol=1e-2, atol=1e-2
    )


def test_the_estimate_is_what_the_network_takes(mixed: Path) -> None:
    files = formats.find_model_files(mixed)
    total = sum(tensor.bytes for tensor in open_gguf(mixed).tensors.values())
    assert formats.estimate_bytes(files, float32=False) == total
