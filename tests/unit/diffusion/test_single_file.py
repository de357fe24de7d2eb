from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import pytest

from daemon.errors import ModelError
from tests.unit.diffusion import ldm
from tests.unit.diffusion.ldm import make, save
from workers.diffusion.components import Components
from workers.diffusion.load import load_diffusion_model
from workers.diffusion.single_file import read_single_file
from workers.diffusion.single_file_configs import FAMILIES, read_layout, unet_config, vae_config

SD1 = ldm.sd1(ldm.Original())
SD2 = ldm.sd2(ldm.Original(linear=True, text_layers=3))
XL = ldm.Original(
    depths=(0, 2), middle=2, text=(32, 64), linear=True, added=6 * 8 + 48, vae=(32, 32, 64)
)
SDXL = ldm.sdxl(XL, 48)
UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
OPENCLIP = "cond_stage_model.model."


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def refusal(file: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_single_file(file)
    return caught.value.message


@pytest.mark.parametrize(
    ("shapes", "family"),
    [(SD1, "SD 1.x"), (SD2, "SD 2.x"), (SDXL, "SDXL")],
    ids=["sd1", "sd2", "sdxl"],
)
def test_every_tensor_finds_its_place_in_the_networks(
    file: Path, shapes: ldm.Shapes, family: str
) -> None:
    model = load_diffusion_model(save(file, make(shapes)))
    facts = next(each for each in FAMILIES if each.name == family)
    assert len(model.text_encoders) == len(model.tokenizers) == len(facts.encoders)
    assert model.zero_empty_negative == facts.zero_empty_negative
    assert model.vae.config.scaling == facts.scaling
    assert model.size == (facts.size, facts.size)
    assert (model.family == "sdxl") == (family == "SDXL")


def test_tensors_are_renamed_from_the_original_layout(file: Path) -> None:
    arrays = make(SD1)
    parts = read_single_file(save(file, arrays))
    pairs = {
        "input_blocks.0.0.weight": "conv_in.weight",
        "input_blocks.1.0.in_layers.2.weight": "down_blocks.0.resnets.0.conv1.weight",
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (
            "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
        ),
        "input_blocks.2.0.op.bias": "down_blocks.0.downsamplers.0.conv.bias",
        "input_blocks.3.0.skip_connection.weight": "down_blocks.1.resnets.0.conv_shortcut.weight",
        "middle_block.2.out_layers.3.weight": "mid_block.resnets.1.conv2.weight",
        "output_blocks.1.1.conv.weight": "up_blocks.0.upsamplers.0.conv.weight",
        "output_blocks.3.1.proj_in.weight": "up_blocks.1.attentions.1.proj_in.weight",
        "output_blocks.3.0.emb_layers.1.bias": "up_blocks.1.resnets.1.time_emb_proj.bias",
        "out.2.bias": "conv_out.bias",
    }
    for old, new in pairs.items():
        assert mx.array_equal(parts.unet.weights[new], arrays[UNET + old]), new
    old = VAE + "decoder.up.1.block.0.conv1.weight"
    new = "decoder.up_blocks.0.resnets.0.conv1.weight"
    assert mx.array_equal(parts.vae.weights[new], arrays[old])
    matrix = parts.vae.weights["encoder.mid_block.attentions.0.to_out.0.weight"]
    assert mx.array_equal(matrix, arrays[VAE + "encoder.mid.attn_1.proj_out.weight"][:, :, 0, 0])


def test_openclip_is_cut_into_projections_and_loses_its_last_layer(file: Path) -> None:
    arrays = make(SD2)
    encoder = read_single_file(save(file, arrays)).text_encoders[0]
    fused = arrays[OPENCLIP + "transformer.resblocks.1.attn.in_proj_weight"]
    for index, name in enumerate(("q_proj", "k_proj", "v_proj")):
        part = encoder.weights[f"encoder.layers.1.self_attn.{name}.weight"]
        assert mx.array_equal(part, fused[32 * index : 32 * index + 32])
    assert encoder.config["num_hidden_layers"] == 2
    assert encoder.config["hidden_act"] == "gelu"
    assert not [name for name in encoder.weights if "layers.2" in name or "projection" in name]


def test_openclip_without_its_last_layer_loses_none(file: Path) -> None:
    arrays = make(SD2)
    del arrays[OPENCLIP + "text_projection"]
    assert read_single_file(save(file, arrays)).text_encoders[0].config["num_hidden_layers"] == 3


def test_the_second_encoder_of_sdxl_projects(file: Path) -> None:
    arrays = make(SDXL)
    first, second = read_single_file(save(file, arrays)).text_encoders
    old = arrays["conditioner.embedders.1.model.text_projection"]
    assert mx.array_equal(second.weights["text_projection.weight"], old.T)
    assert (second.config["projection_dim"], second.config["num_hidden_layers"]) == (48, 2)
    assert first.config["hidden_act"] == "quick_gelu"
    assert "projection_dim" not in first.config


def test_windows_are_filled_as_each_encoder_was_trained(file: Path) -> None:
    tokenizers = read_single_file(save(file, make(SDXL))).tokenizers
    assert [tokenizer.windows("a cat", 5) for tokenizer in tokenizers] == [
        [[49406, 320, 2368, 49407, 49407]],
        [[49406, 320, 2368, 49407, 0]],
    ]


# block_out_channels, attention_head_dim, layers, depth and width of the released models.
RELEASED = {
    "SD 1.x": (
        ldm.Original(
            channels=320, multipliers=(1, 2, 4, 4), layers=2, depths=(1, 1, 1, 0), text=(768,)
        ),
        ([320, 640, 1280, 1280], 8, 1, 768, False),
    ),
    "SD 2.x": (
        ldm.Original(
            channels=320,
            multipliers=(1, 2, 4, 4),
            layers=2,
            depths=(1, 1, 1, 0),
            text=(1024,),
            linear=True,
        ),
        ([320, 640, 1280, 1280], [5, 10, 20, 20], 1, 1024, True),
    ),
    "SDXL": (
        ldm.Original(
            channels=320,
            multipliers=(1, 2, 4),
            layers=2,
            depths=(0, 2, 10),
            middle=10,
            text=(768, 1280),
            linear=True,
            added=2816,
        ),
        ([320, 640, 1280], [5, 10, 20], [1, 2, 10], 2048, True),
    ),
}


@pytest.mark.parametrize("name", RELEASED)
def test_the_released_sizes_give_their_published_configurations(name: str) -> None:
    original, (widths, heads, depths, text, linear) = RELEASED[name]
    family = next(each for each in FAMILIES if each.name == name)
    shapes = ldm.unet(original)
    config = unet_config("m", shapes, read_layout("m", shapes), family, 1280)
    assert config["block_out_channels"] == widths
    assert config["attention_head_dim"] == heads
    assert config["transformer_layers_per_block"] == depths
    assert config["cross_attention_dim"] == text
    assert config["use_linear_projection"] is linear
    assert config["layers_per_block"] == 2
    assert config.get("addition_time_embed_dim") == (256 if name == "SDXL" else None)
    first = "CrossAttnDownBlock2D" if name != "SDXL" else "DownBlock2D"
    assert config["down_block_types"][0] == first
    vae = vae_config("m", ldm.vae((128, 256, 512, 512), 2), family)
    assert (vae["block_out_channels"], vae["layers_per_block"]) == ([128, 256, 512, 512], 2)
    assert vae["force_upcast"] == (name == "SDXL")


def test_an_inpainting_model_says_that_it_takes_nine_channels(file: Path) -> None:
    shapes = ldm.sd1(ldm.Original(in_channels=9))
    assert read_single_file(save(file, make(shapes))).unet.config["in_channels"] == 9


def test_tensors_that_no_network_uses_are_left_out(file: Path) -> None:
    arrays = make(SD1)
    unused = {
        f"{CLIP}text_model.embeddings.position_ids": mx.arange(77)[None],
        "alphas_cumprod": mx.zeros((10,)),
        "sqrt_recipm1_alphas_cumprod": mx.zeros((10,)),
        "posterior_mean_coef2": mx.zeros((10,)),
        "model_ema.diffusion_modelinput_blocks00weight": mx.zeros((1,)),
        "first_stage_model.loss.logvar": mx.zeros(()),
        "cond_stage_model.logit_scale": mx.zeros(()),
    }
    plain = read_single_file(save(file, arrays))
    other = read_single_file(save(file.with_name("other.safetensors"), arrays | unused))
    assert names(plain) == names(other)


def names(parts: Components) -> list[set[str]]:
    return [set(part.weights) for part in (parts.unet, parts.vae, *parts.text_encoders)]


def test_old_merges_lack_a_part_of_the_encoders_names(file: Path) -> None:
    arrays = make(SD1)
    old = {name.replace("transformer.text_model.", "transformer."): a for name, a in arrays.items()}
    assert names(read_single_file(save(file, old))) == names(
        read_single_file(save(file.with_name("other.safetensors"), arrays))
    )


@pytest.mark.parametrize(
    "name",
    [
        f"{UNET}input_blocks.1.0.in_layers.7.weight",
        f"{UNET}adapter.weight",
        f"{VAE}encoder.mid.attn_2.q.weight",
        f"{CLIP}text_model.extra.weight",
        "something.else",
    ],
)
def test_an_unknown_tensor_is_named(file: Path, name: str) -> None:
    save(file, make(SD1) | {name: mx.zeros((3,))})
    assert name in refusal(file)


def test_a_missing_tensor_is_named(file: Path) -> None:
    arrays = make(SD1)
    del arrays[f"{UNET}output_blocks.3.0.in_layers.0.weight"]
    save(file, arrays)
    with pytest.raises(ModelError, match=r"up_blocks\.1\.resnets\.1\.norm1\.weight"):
        load_diffusion_model(file)


def prediction(file: Path) -> str:
    return str(read_single_file(file).scheduler["prediction_type"])


SPREAD = f"{UNET}output_blocks.3.1.transformer_blocks.0.norm1.bias"


@pytest.mark.parametrize(("spread", "found"), [(0.5, "v_prediction"), (0.01, "epsilon")])
def test_sd2_models_are_told_apart_by_a_statistic(file: Path, spread: float, found: str) -> None:
    bias = mx.array([spread, -spread] * 16, dtype=mx.float16)
    parts = read_single_file(save(file, make(SD2) | {SPREAD: bias}))
    assert parts.scheduler["prediction_type"] == found
    assert parts.unet.config["sample_size"] == (384 if found == "v_prediction" else 256)


@pytest.mark.parametrize("shapes", [SD1, SD2], ids=["sd1", "sd2"])
def test_metadata_says_what_is_predicted(file: Path, shapes: ldm.Shapes) -> None:
    arrays = make(shapes)
    assert prediction(save(file, arrays, {"modelspec.predict_key": "v"})) == "v_prediction"
    assert prediction(save(file, arrays, {"modelspec.prediction_type": "epsilon"})) == "epsilon"
    assert prediction(save(file, arrays, {"modelspec.predict_key": "?"})) == "epsilon"


def test_marks_say_velocity_and_zero_terminal_noise(file: Path) -> None:
    marks = {"v_pred": mx.zeros((0,)), "ztsnr": mx.zeros((0,))}
    scheduler = read_single_file(save(file, make(SDXL) | marks)).scheduler
    assert scheduler["prediction_type"] == "v_prediction"
    assert scheduler["rescale_betas_zero_snr"] is True
    assert scheduler["timestep_spacing"] == "trailing"


def test_the_sidecar_decides_what_the_file_does_not_tell(file: Path) -> None:
    sidecar = {
        "prediction_type": "v_prediction",
        "scheduler": {"timestep_spacing": "trailing"},
        "unet": {"attention_head_dim": 4},
        "vae": {"scaling_factor": 0.5},
        "text_encoder": {"num_attention_heads": 2},
    }
    file.with_suffix(".json").write_text(json.dumps(sidecar))
    parts = read_single_file(save(file, make(SD1)))
    assert parts.scheduler["prediction_type"] == "v_prediction"
    assert parts.scheduler["timestep_spacing"] == "trailing"
    assert parts.unet.config["attention_head_dim"] == 4
    assert parts.vae.config["scaling_factor"] == 0.5
    assert parts.text_encoders[0].config["num_attention_heads"] == 2


def test_notes_of_the_web_interface_are_no_sidecar(file: Path) -> None:
    file.with_suffix(".json").write_text(json.dumps({"notes": "good", "vae": "Automatic"}))
    assert read_single_file(save(file, make(SD1))).vae.config["scaling_factor"] == 0.18215


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"prediction": "epsilon"}', "'prediction', which is unknown"),
        ('{"prediction_type": "v"}', "prediction_type 'v'"),
        ('{"unet": 3}', "unet is not an object"),
        ("[]", "not a JSON object"),
        ("{", "cannot be read"),
    ],
)
def test_a_sidecar_that_says_something_else_is_an_error(file: Path, text: str, reason: str) -> None:
    file.with_suffix(".json").write_text(text)
    save(file, make(SD1))
    assert reason in refusal(file)
