"""Parameters are counted once, and packed words as what they hold."""

from __future__ import annotations

import math

import pytest

from daemon.safetensors_header import TensorInfo, WeightsHeader
from daemon.weights_count import count_weights, nominal_bits, quantization_of

WIDTHS = {"F32": 4, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "I64": 8, "U8": 1, "F8_E4M3": 1}


def header(*tensors: tuple[str, str, tuple[int, ...]]) -> WeightsHeader:
    """Return a header of tensors one behind another; GGUF's types have their bytes made up."""
    infos, place = [], 0
    for name, dtype, shape in tensors:
        size = math.prod(shape) * WIDTHS.get(dtype, 1)
        infos.append(TensorInfo(name=name, dtype=dtype, shape=shape, offset=place, bytes=size))
        place += size
    return WeightsHeader(tensors=tuple(infos), data_start=0)


def test_plain_weights_are_counted_at_the_bits_of_their_matrices() -> None:
    found = count_weights([header(("a.weight", "BF16", (8, 4)), ("norm.weight", "F32", (4,)))])
    assert (found.parameters, found.bits, found.mixed) == (36, 16, False)
    assert found.stored_bytes == 8 * 4 * 2 + 4 * 4


def packed(bits: int, name: str = "a") -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """MLX's triple of a matrix of 8 rows of 128, in groups of 64."""
    return (
        (f"{name}.weight", "U32", (8, 128 * bits // 32)),
        (f"{name}.scales", "F16", (8, 2)),
        (f"{name}.biases", "F16", (8, 2)),
    )


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_packed_words_count_as_what_they_hold(bits: int) -> None:
    settings = quantization_of({"quantization": {"group_size": 64, "bits": bits}})
    found = count_weights([header(*packed(bits))], settings)
    assert (found.parameters, found.bits, found.mixed) == (1024, bits, False)


def test_layers_of_other_bits_and_groups_make_it_mixed() -> None:
    config = {"quantization": {"group_size": 64, "bits": 4, "b": {"group_size": 32, "bits": 8}}}
    own_group = (("b.weight", "U32", (8, 32)), ("b.scales", "F16", (8, 4)))
    found = count_weights([header(*packed(4), *own_group)], quantization_of(config))
    assert (found.parameters, found.bits, found.mixed) == (2048, 6, True)


def test_scales_in_another_file_belong_to_their_weight() -> None:
    words, *beside = packed(4)
    found = count_weights([header(words), header(*beside)])
    assert found.parameters == 1024


def test_gptq_awq_and_float8_are_counted() -> None:
    gptq = header(
        ("a.qweight", "I32", (16, 8)),
        ("a.scales", "F16", (1, 8)),
        ("a.qzeros", "I32", (1, 1)),
        ("a.g_idx", "I32", (128,)),
    )
    assert count_weights([gptq]).parameters == 128 * 8
    float8 = header(("a.weight", "F8_E4M3", (8, 8)), ("a.weight_scale_inv", "F32", (1, 1)))
    found = count_weights([float8])
    assert (found.parameters, found.bits) == (64, 8)


def test_a_tied_output_layer_counts_once() -> None:
    both = header(("model.embed_tokens.weight", "F16", (8, 4)), ("lm_head.weight", "F16", (8, 4)))
    assert count_weights([both]).parameters == 64
    assert count_weights([both], tied=True).parameters == 32
    shared = both.tensors[0]
    again = TensorInfo(
        name="output.weight",
        dtype=shared.dtype,
        shape=shared.shape,
        offset=shared.offset,
        bytes=shared.bytes,
    )
    storage = WeightsHeader(tensors=(shared, again), data_start=0)
    assert count_weights([storage]).parameters == 32


def test_what_each_file_of_a_release_repeats_counts_once() -> None:
    piece = header(
        ("layers.0.attention.wq.weight", "BF16", (4, 8)),
        ("norm.weight", "BF16", (8,)),
        ("rope.freqs", "BF16", (4,)),
    )
    assert count_weights([piece, piece], split=True).parameters == 2 * 32 + 8
    assert count_weights([piece, piece]).parameters == 2 * 32 + 2 * 8


def test_ggufs_types_are_counted_in_bits_and_in_memory() -> None:
    tensors = (("a.weight", "Q4_1", (8, 32)), ("b.weight", "Q6_K", (1, 256)))
    found = count_weights([header(*tensors, ("rope_freqs.weight", "F32", (4,)))])
    assert (found.parameters, found.bits, found.mixed) == (512, 5, True)
    assert found.stored_bytes == 256 * 5 // 8 + 2 * 256


def test_positions_are_no_parameters() -> None:
    found = count_weights([header(("a.weight", "F16", (2, 2)), ("position_ids", "I64", (1, 77)))])
    assert found.parameters == 4


def test_odd_settings_do_no_harm() -> None:
    assert quantization_of({"quantization": "4"}) == quantization_of({})
    odd = quantization_of({"quantization": {"bits": 0, "group_size": None, "a": {"bits": "x"}}})
    assert count_weights([header(*packed(4))], odd).parameters == 1024
    assert count_weights([]).parameters == 0


@pytest.mark.parametrize(
    ("dtype", "bits"), [("BF16", 16), ("Q4_K", 4), ("IQ2_XXS", 2), ("F8_E4M3", 8), ("BOOL", 8)]
)
def test_a_type_says_its_bits(dtype: str, bits: int) -> None:
    assert nominal_bits(dtype) == bits
