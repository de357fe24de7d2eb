from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import mlx.core as mx
import pytest

from daemon.errors import ModelError
from tests.unit.diffusion.ldm import Arrays
from tests.unit.diffusion.lora_parts import Q, borrow, flat, one, put
from workers.diffusion.lora import apply_loras


def refusal(folder: Path, arrays: Arrays) -> str:
    with pytest.raises(ModelError) as caught:
        put(folder, arrays)
    assert "style.safetensors" in caught.value.message
    return caught.value.message


def named(names: Iterable[str], *shape: int) -> Arrays:
    return {name: mx.ones(shape or (2, 2)) for name in names}


def test_a_file_that_matches_nothing_is_an_error(tmp_path: Path) -> None:
    stem = "lora_unet_double_blocks_0_img_attn_proj"
    message = refusal(tmp_path, named([f"{stem}.lora_down.weight", f"{stem}.lora_up.weight"]))
    assert "matches no layer of this model's UNet" in message
    assert stem in message
    assert "FLUX" in message


def test_matching_the_text_alone_is_not_enough_for_a_file_with_both(tmp_path: Path) -> None:
    stem = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    matching = {
        f"{stem}.lora_down.weight": mx.ones((1, 16)),
        f"{stem}.lora_up.weight": mx.ones((32, 1)),
    }
    assert "UNet" in refusal(tmp_path, matching | one(Q, "lora_unet_elsewhere"))


def test_another_family_is_named(tmp_path: Path) -> None:
    stem = flat("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k")
    arrays = {
        f"{stem}.lora_down.weight": mx.ones((1, 2048)),
        f"{stem}.lora_up.weight": mx.ones((32, 1)),
    }
    message = refusal(tmp_path, arrays)
    assert "a LoRA for SDXL" in message
    assert "of 16" in message


def test_a_matrix_that_does_not_fit_names_layer_and_shapes(tmp_path: Path) -> None:
    arrays = {
        f"{flat(Q)}.lora_down.weight": mx.ones((4, 64)),
        f"{flat(Q)}.lora_up.weight": mx.ones((64, 4)),
    }
    message = refusal(tmp_path, arrays)
    assert f"unet.{Q}" in message
    assert "4x64 and 64x4, the layer needs 4x32 and 32x4" in message


def test_numbers_must_be_finite(tmp_path: Path) -> None:
    arrays = one(Q, flat(Q))
    arrays[f"{flat(Q)}.lora_up.weight"][3, 1] = float("nan")
    assert f"not finite, in the matrices for unet.{Q}" in refusal(tmp_path, arrays)
    arrays = one(Q, flat(Q)) | {f"{flat(Q)}.alpha": mx.array(float("inf"))}
    assert "alpha is not a finite number" in refusal(tmp_path, arrays)


def test_both_matrices_must_be_there_and_of_one_rank(tmp_path: Path) -> None:
    arrays = one(Q, flat(Q))
    assert "lacks the second matrix" in refusal(
        tmp_path, {f"{flat(Q)}.lora_down.weight": arrays[f"{flat(Q)}.lora_down.weight"]}
    )
    arrays[f"{flat(Q)}.lora_up.weight"] = mx.ones((32, 3))
    assert "do not belong together" in refusal(tmp_path, arrays)


@pytest.mark.parametrize(
    ("end", "method"),
    [
        (".hada_w1_a", "LoHa"),
        (".lokr_w1", "LoKr"),
        (".dora_scale", "DoRA"),
        (".lora_magnitude_vector.weight", "DoRA"),
        (".lora_mid.weight", "Tucker"),
        (".lora_B.bias", "biases"),
    ],
)
def test_other_methods_are_refused_by_name(tmp_path: Path, end: str, method: str) -> None:
    message = refusal(tmp_path, one(Q, flat(Q)) | {flat(Q) + end: mx.ones((2, 2))})
    assert method in message
    assert flat(Q) + end in message


def test_other_files_are_no_lora(tmp_path: Path) -> None:
    assert "holds no LoRA matrices" in refusal(tmp_path, named(["conv_in.weight"]))
    broken = tmp_path / "broken"
    broken.write_bytes(b"text")
    with pytest.raises(ModelError, match=r"style is not a complete safetensors file"):
        apply_loras(borrow(), [(broken, "style", 1.0)])
