"""A setting that the networks do not follow is refused by its name, whatever its value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from daemon.errors import ModelError
from tests.unit.diffusion import kept
from workers.diffusion.configs import ClipConfig, UNetConfig, VaeConfig

Read = Callable[[dict[str, Any]], object]

READERS: dict[str, Read] = {
    "unet": lambda config: UNetConfig.read("unet", config),
    "vae": lambda config: VaeConfig.read("vae", config),
    "clip": lambda config: ClipConfig.read("text_encoder", config, projects=True),
}

# Settings of diffusers' UNet2DConditionModel that make another network of it.
OTHER_UNETS: dict[str, Any] = {
    "addition_embed_type": "text_image",
    "addition_embed_type_num_heads": 32,
    "attention_type": "gated",
    "class_embed_type": "projection",
    "class_embeddings_concat": True,
    "cross_attention_norm": "layer_norm",
    "dual_cross_attention": True,
    "encoder_hid_dim": 32,
    "encoder_hid_dim_type": "text_proj",
    "mid_block_scale_factor": 2,
    "num_attention_heads": 4,
    "num_class_embeds": 1000,
    "resnet_out_scale_factor": 2.0,
    "resnet_skip_time_act": True,
    "resnet_time_scale_shift": "scale_shift",
    "time_embedding_act_fn": "silu",
    "time_embedding_type": "fourier",
    "timestep_post_act": "silu",
    "down_block_types": ["SimpleCrossAttnDownBlock2D"] * 4,
    "up_block_types": ["AttnUpBlock2D"] * 4,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "act_fn": "relu",
    "a_setting_of_tomorrow": 1,
}
# What these are is followed (a test of test_networks_unet.py each) or does not matter.
FOLLOWED = {
    "addition_time_embed_dim",
    "attention_head_dim",
    "block_out_channels",
    "center_input_sample",
    "conv_in_kernel",
    "conv_out_kernel",
    "cross_attention_dim",
    "downsample_padding",
    "flip_sin_to_cos",
    "freq_shift",
    "in_channels",
    "layers_per_block",
    "norm_eps",
    "norm_num_groups",
    "only_cross_attention",
    "out_channels",
    "projection_class_embeddings_input_dim",
    "reverse_transformer_layers_per_block",
    "sample_size",
    "time_cond_proj_dim",
    "time_embedding_dim",
    "transformer_layers_per_block",
    "upcast_attention",
    "use_linear_projection",
}
INDIFFERENT = {"dropout", "mid_block_only_cross_attention"}

OTHERS: list[tuple[str, str, Any]] = [
    *(("unet/sd1", key, value) for key, value in OTHER_UNETS.items()),
    ("vae/sd", "latents_mean", [0.0] * 4),
    ("vae/sd", "latents_std", [1.0] * 4),
    ("vae/sd", "act_fn", "relu"),
    ("vae/sd", "down_block_types", ["AttnDownEncoderBlock2D"] * 4),
    ("vae/sd", "up_block_types", ["MidBlockTemporalDecoder"] * 4),
    ("vae/sd", "encoder_block_out_channels", [64]),
    ("clip/sd1", "hidden_act", "gelu_new"),
    ("clip/sd1", "model_type", "t5"),
]

# Values that no network can have.
IMPOSSIBLE: list[tuple[str, str, Any]] = [
    ("unet/sd1", "block_out_channels", []),
    ("unet/sd1", "block_out_channels", [32] * 13),
    ("unet/sd1", "block_out_channels", "wide"),
    ("unet/sd1", "layers_per_block", 10**9),
    ("unet/sd1", "layers_per_block", [1, 2]),
    ("unet/sd1", "transformer_layers_per_block", [1, 1, [1], 1]),
    ("unet/sd1", "transformer_layers_per_block", 10**9),
    ("unet/sd1", "transformer_layers_per_block", True),
    ("unet/sd1", "attention_head_dim", 5),
    ("unet/sd1", "norm_num_groups", 5),
    ("unet/sd1", "norm_eps", float("nan")),
    ("unet/sd1", "only_cross_attention", [1, 0, 0, 0]),
    ("unet/sd1", "down_block_types", [["DownBlock2D"]]),
    ("unet/sd1", "down_block_types", ["DownBlock2D"]),
    ("unet/sd1", "time_cond_proj_dim", "256"),
    ("unet/sdxl", "addition_time_embed_dim", None),
    ("unet/sdxl-distilled", "reverse_transformer_layers_per_block", None),
    ("vae/sd", "scaling_factor", 0),
    ("vae/sd", "shift_factor", "much"),
    ("vae/sd", "layers_per_block", -1),
    ("clip/sd1", "num_hidden_layers", 10**6),
    ("clip/sd1", "num_attention_heads", 7),
    ("clip/sd1", "eos_token_id", [2, 3]),
]


def refusal(network: str, key: str, value: Any) -> ModelError:
    config = kept.networks()[network]["config"] | {key: value}
    with pytest.raises(ModelError) as caught:
        READERS[network.partition("/")[0]](config)
    return caught.value


@pytest.mark.parametrize(("network", "key", "value"), OTHERS)
def test_a_network_of_another_kind_is_refused_by_the_setting(
    network: str, key: str, value: Any
) -> None:
    error = refusal(network, key, value)
    assert f"has {key} = {value!r}"[:60] in error.message
    assert "Stable Diffusion" in (error.remedy or "")


@pytest.mark.parametrize(("network", "key", "value"), IMPOSSIBLE)
def test_an_impossible_value_is_refused_by_the_setting(network: str, key: str, value: Any) -> None:
    assert f"has {key} = {value!r}"[:60] in refusal(network, key, value).message


def test_every_setting_that_diffusers_writes_is_followed_or_refused() -> None:
    written = kept.networks()["unet/sd1"]["config"]
    known = OTHER_UNETS.keys() | FOLLOWED | INDIFFERENT
    assert {key for key in written if not key.startswith("_")} - known == set()


@pytest.mark.parametrize("key", sorted(INDIFFERENT))
def test_what_does_not_matter_is_read_over(key: str) -> None:
    config = kept.networks()["unet/sd1"]["config"]
    assert UNetConfig.read("unet", config | {key: 1}) == UNetConfig.read("unet", config)
