from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from tests.unit.diffusion.ldm import Arrays, save
from tests.unit.diffusion.lora_parts import (
    KEPT,
    Model,
    Q,
    borrow,
    build,
    close,
    flat,
    layers,
    merged,
    one,
    pairs,
    picture,
    put,
    text,
)
from workers.diffusion.lora import apply_loras


def expected(weights: dict[str, mx.array], drawn: dict[str, tuple[mx.array, mx.array]]) -> mx.array:
    """Return the picture of a model whose weights hold the LoRA."""
    model = borrow()
    model.unet.load_weights(
        [(f"{path}.weight", merged(weights, path, pair)) for path, pair in drawn.items()],
        strict=False,
    )
    return picture(model)


Name = Callable[[str], str]


def processor(path: str) -> str:
    for name in ("attn1", "attn2"):
        path = path.replace(f"{name}.", f"{name}.processor.")
    return f"unet.{path.removesuffix('.0')}"


ATTENTION = ("attn1.to_", "attn2.to_")
ALL = ("attentions", "resnets", "samplers", "time_embedding", "conv_in", "conv_out")
NAMINGS: dict[str, tuple[Name, str, str, tuple[str, ...]]] = {
    "kohya": (flat, ".lora_down.weight", ".lora_up.weight", ALL),
    "peft": (lambda path: f"unet.{path}", ".lora_A.weight", ".lora_B.weight", ALL),
    "peft-alone": (
        lambda path: f"base_model.model.{path}",
        ".lora_A.default.weight",
        ".lora_B.default.weight",
        ALL,
    ),
    "diffusers": (lambda path: f"unet.{path}", ".lora.down.weight", ".lora.up.weight", ALL),
    "processors": (processor, "_lora.down.weight", "_lora.up.weight", ATTENTION),
    "no-prefix": (
        lambda path: processor(path).removeprefix("unet."),
        "_lora.down.weight",
        "_lora.up.weight",
        ATTENTION,
    ),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_gives_what_merged_weights_give(tmp_path: Path, naming: str) -> None:
    name, down, up, kinds = NAMINGS[naming]
    weights = layers(KEPT.unet, *kinds)
    drawn = pairs(weights)
    arrays: Arrays = {}
    for path, (first, second) in drawn.items():
        arrays |= {name(path) + down: first, name(path) + up: second}
    before, model = picture(KEPT), borrow()
    (report,) = apply_loras(model, [(save(tmp_path / "a.safetensors", arrays), "a", 1.0)])
    assert (report.layers, report.unmatched) == (len(weights), ())
    assert close(picture(model), expected(weights, drawn))
    assert not close(picture(model), before)
    assert mx.array_equal(picture(KEPT), before)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (Q, "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"),
        ("down_blocks.1.resnets.0.conv1", "lora_unet_input_blocks_3_0_in_layers_2"),
        ("down_blocks.0.downsamplers.0.conv", "lora_unet_input_blocks_2_0_op"),
        ("mid_block.attentions.0.proj_in", "lora_unet_middle_block_1_proj_in"),
        ("up_blocks.0.upsamplers.0.conv", "lora_unet_output_blocks_1_1_conv"),
        ("up_blocks.1.attentions.1.proj_out", "lora_unet_output_blocks_3_1_proj_out"),
        ("time_embedding.linear_2", "lora_unet_time_embed_2"),
        ("mid_block.resnets.1.time_emb_proj", "diffusion_model.middle_block.2.emb_layers.1"),
    ],
)
def test_original_block_names_are_known(tmp_path: Path, path: str, name: str) -> None:
    _, model = put(tmp_path, one(path, name))
    _, other = put(tmp_path, one(path, flat(path)))
    assert close(picture(model), picture(other))
    assert not close(picture(model), picture(KEPT))


@pytest.mark.parametrize(
    "name",
    [
        "lora_te_text_model_encoder_layers_1_mlp_fc1.lora_down.weight",
        "lora_te1_text_model_encoder_layers_1_mlp_fc1.lora_down.weight",
        "text_encoder.text_model.encoder.layers.1.mlp.fc1.lora_A.weight",
        "text_encoder.encoder.layers.1.mlp.fc1.lora.down.weight",
        "text_encoder.text_model.encoder.layers.1.mlp.fc1.lora_linear_layer.down.weight",
        "text_encoder.text_model.encoder.layers.1.self_attn.to_q_lora.down.weight",
    ],
)
def test_text_encoders_are_addressed_too(tmp_path: Path, name: str) -> None:
    path = "encoder.layers.1.mlp.fc1" if "mlp" in name else "encoder.layers.1.self_attn.q_proj"
    ((down, up),) = pairs(layers(KEPT.text_encoders[0], path)).values()
    second = name.replace("down", "up").replace("lora_A", "lora_B")
    report, model = put(tmp_path, {name: down, second: up})
    assert report.layers == 1
    assert not close(text(model), text(KEPT))
    assert mx.array_equal(picture(model), picture(KEPT))


def test_sdxl_s_encoders_are_told_apart(tmp_path: Path) -> None:
    model = build(encoders=2)
    names = [f"lora_te{n}_text_model_encoder_layers_0_mlp_fc2" for n in (1, 2)]
    path = "encoder.layers.0.mlp.fc2"
    ((down, up),) = pairs(layers(model.text_encoders[0], path)).values()
    for index, name in enumerate(names):
        own = borrow(model)
        arrays = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        apply_loras(own, [(save(tmp_path / "a.safetensors", arrays), "a", 1.0)])
        assert not close(text(own, index), text(model, index))
        assert mx.array_equal(text(own, 1 - index), text(model, 1 - index))


def effect(model: Model) -> mx.array:
    """Return what a LoRA on ``Q`` adds to that layer's result."""
    x = mx.random.normal((3, 32), key=mx.random.key(3))
    added: mx.array = at(model, Q)(x) - at(KEPT, Q)(x)
    return added


def at(model: Model, path: str) -> nn.Module:
    return next(module for name, module in model.unet.named_modules() if name == path)


@pytest.mark.parametrize(
    ("alpha", "scale", "factor"),
    [(None, 1.0, 1.0), (4.0, 1.0, 2.0), (1.0, 0.5, 0.25), (1.0, -1.0, -0.5), (2.0, 0.0, 0.0)],
)
def test_the_factor_is_scale_times_alpha_over_rank(
    tmp_path: Path, alpha: float | None, scale: float, factor: float
) -> None:
    number = {} if alpha is None else {f"{flat(Q)}.alpha": mx.array(alpha)}
    _, model = put(tmp_path, one(Q, flat(Q)) | number, scale)
    _, plain = put(tmp_path, one(Q, flat(Q)))
    assert mx.allclose(effect(model), factor * effect(plain), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({"unet.lora_alpha": 8, "unet.r": 2}, 4.0),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 1}}, 0.5),
        ({"unet.lora_alpha": 8, "unet.use_rslora": True}, 8 / 2**0.5),
        ({"text_encoder.lora_alpha": 8}, 1.0),
    ],
)
def test_alpha_comes_from_pefts_settings(
    tmp_path: Path, settings: dict[str, object], factor: float
) -> None:
    kohya = one(Q, flat(Q))
    names = (f"unet.{Q}.lora_A.weight", f"unet.{Q}.lora_B.weight")
    peft = dict(zip(names, kohya.values(), strict=True))
    file = save(tmp_path / "a.safetensors", peft, {"lora_adapter_metadata": json.dumps(settings)})
    model = borrow()
    apply_loras(model, [(file, "a", 1.0)])
    _, plain = put(tmp_path, kohya)
    assert mx.allclose(effect(model), factor * effect(plain), atol=1e-5)


def test_files_on_one_layer_add_up(tmp_path: Path) -> None:
    first = save(tmp_path / "1", one(Q, flat(Q)))
    second = save(tmp_path / "2", one(Q, flat(Q), factor=3.0))
    model = borrow()
    reports = apply_loras(model, [(Path(f"{p}.safetensors"), p.name, 0.5) for p in (first, second)])
    _, plain = put(tmp_path, one(Q, flat(Q)))
    assert [report.layers for report in reports] == [1, 1]
    assert mx.allclose(effect(model), 2.0 * effect(plain), atol=1e-5)


def test_a_layer_named_twice_counts_once(tmp_path: Path) -> None:
    arrays = one(Q, flat(Q)) | one(Q, "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q")
    report, model = put(tmp_path, arrays)
    _, plain = put(tmp_path, one(Q, flat(Q)))
    assert report.layers == 1
    assert mx.allclose(effect(model), effect(plain), atol=1e-6)


def test_a_convolution_of_one_pixel_takes_matrices(tmp_path: Path) -> None:
    path = "mid_block.attentions.0.proj_in"
    arrays = one(path, flat(path))
    matrices = {name: array.reshape(array.shape[:2]) for name, array in arrays.items()}
    _, model = put(tmp_path, arrays)
    _, other = put(tmp_path, matrices)
    assert close(picture(model), picture(other))


def test_layers_stay_in_their_type_and_fusing_leaves_them_alone(tmp_path: Path) -> None:
    model = borrow()
    model.unet.set_dtype(mx.float16)
    file = save(tmp_path / "a.safetensors", one(Q, flat(Q)))
    apply_loras(model, [(file, "a", 1.0)])
    unfused = picture(model)
    model.unet.fuse()
    assert {array.dtype for _, array in tree_flatten(model.unet.parameters())} == {mx.float16}
    assert mx.allclose(picture(model), unfused, atol=1e-2)


def test_a_fused_network_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    model = borrow()
    model.unet.fuse()
    with pytest.raises(ValueError, match="before"):
        apply_loras(model, [(save(tmp_path / "a.safetensors", one(Q, flat(Q))), "a", 1.0)])


def test_no_files_change_nothing() -> None:
    model = borrow()
    assert apply_loras(model, []) == []
    assert mx.array_equal(picture(model), picture(KEPT))


def test_what_was_not_used_is_reported(tmp_path: Path) -> None:
    more = one(Q, "lora_unet_down_blocks_9_attentions_0_proj_in") | {"emb.x": mx.zeros((1,))}
    report, _ = put(tmp_path, one(Q, flat(Q)) | more)
    assert report.unmatched == ("lora_unet_down_blocks_9_attentions_0_proj_in", "emb.x")
    assert report.line == (
        "LoRA style.safetensors, scale 1: 1 layer; not used: "
        "lora_unet_down_blocks_9_attentions_0_proj_in, emb.x"
    )
