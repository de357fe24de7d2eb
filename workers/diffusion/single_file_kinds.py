"""Telling what a safetensors file is from its tensors' names.

The rule this module protects: a file that is something else than a Stable Diffusion checkpoint is
refused by what it is, and never half used.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from daemon.errors import ModelError
from workers.diffusion.single_file_configs import FAMILIES, Family

UNET, VAE = "model.diffusion_model.", "first_stage_model."

_STEM = "input_blocks.0.0.weight"

# Tensors of training and of the noise schedule, which the configuration gives: never used.
_IGNORED = re.compile(
    r"""
      model_ema\. .*
    | first_stage_model\.(loss|model_ema)\. .*
    | (sqrt_|log_)? (recip_|recipm1_|one_minus_)? alphas_cumprod (_prev)?
    | posterior_(variance|log_variance_clipped|mean_coef1|mean_coef2)
    | betas | logvar | lvlb_weights | scale_factor | global_step | epoch
    | denoiser\.(log_)?sigmas
    | v_pred | ztsnr
    | (cond_stage_model|conditioner\.embedders\.\d)(\.transformer|\.model)?
      \.(logit_scale|attn_mask|text_projection(\.weight)?)
    | .*\.position_ids
    """,
    re.VERBOSE,
)

# What a name says about a file that is no checkpoint of these families, and what to do with it.
_OTHERS = (
    (r".*(\.lora_|_lora\.|\.lora\.|\.hada_|\.lokr_)", "a LoRA file", "give it with --lora"),
    (r"(control_model\.|controlnet_)", "a ControlNet", ""),
    (r".*motion_modules\.", "an AnimateDiff motion module", ""),
    (r".*(double_blocks|double_stream_layers)\.", "a FLUX-like transformer", ""),
    (r".*joint_blocks\.", "Stable Diffusion 3", ""),
    (r"model\.diffusion_model\.layers\.\d", "a diffusion transformer", ""),
    (r"edm_mean$", "Playground 2.5, which has a noise schedule of its own (EDM)", ""),
    (r"edm_vpred\.", "a model with a noise schedule of its own (EDM)", ""),
    (r"(embedder\.model\.visual|noise_augmentor)\.", "an unCLIP model", ""),
    (r"depth_model\.", "a depth-to-image model", ""),
    (r"(low_scale_model\.|model\.diffusion_model\.label_emb\.weight)", "an upscaler", ""),
    (r"(emb_params|string_to_param|clip_[lg])$", "a textual inversion embedding", ""),
    (
        r"(down_blocks|up_blocks|mid_block)\.|encoder\.(down|mid|up)_block",
        "one network of a model in diffusers' layout",
        "put the whole folder, with its model_index.json, under a model root",
    ),
)
_WHOLE = (
    "use a single-file checkpoint of Stable Diffusion 1.x, 2.x or SDXL that holds UNet, VAE and "
    "text encoder"
)


def is_ignored(name: str) -> bool:
    """Say whether a tensor is known to be of no use for making pictures."""
    return _IGNORED.fullmatch(name) is not None


def find_family(source: str, names: Collection[str]) -> Family:
    """Return the family of the checkpoint with these tensors.

    Raises:
        ModelError: it is something else, or lacks a part; says what it is.
    """
    _refuse_others(source, names)
    has_unet = UNET + _STEM in names
    family = next((each for each in FAMILIES if _has_encoders(each, names)), None)
    has_vae = any(name.startswith(VAE) for name in names)
    if not has_unet and has_vae | _has_bare_vae(names) and family is None:
        raise ModelError(f"{source} is a VAE alone, not a model", remedy=_WHOLE)
    if has_unet and family is not None and has_vae:
        _refuse_refiner(source, names, family)
        return family
    found = (("UNet", has_unet), ("VAE", has_vae), ("text encoder", family is not None))
    missing = [part for part, there in found if not there]
    if len(missing) == len(found):
        raise ModelError(f"{source} is not a Stable Diffusion checkpoint", remedy=_WHOLE)
    raise ModelError(
        f"{source} is not a whole model: it has no {' and no '.join(missing)}", remedy=_WHOLE
    )


def _has_encoders(family: Family, names: Collection[str]) -> bool:
    starts = [encoder.prefixes for encoder in family.encoders.values()]
    return all(any(name.startswith(prefixes) for name in names) for prefixes in starts)


def _has_bare_vae(names: Collection[str]) -> bool:
    return "decoder.conv_in.weight" in names and "encoder.conv_in.weight" in names


def _refuse_others(source: str, names: Collection[str]) -> None:
    for pattern, what, remedy in _OTHERS:
        compiled = re.compile(pattern)
        if any(compiled.match(name) for name in names):
            raise ModelError(
                f"{source} is {what}, not a Stable Diffusion checkpoint", remedy=remedy or _WHOLE
            )


def _refuse_refiner(source: str, names: Collection[str], family: Family) -> None:
    """SDXL's refiner has SDXL's conditioning, and OpenCLIP alone where SD 2.x has it."""
    if UNET + "label_emb.0.0.weight" in names and family.name != "SDXL":
        raise ModelError(
            f"{source} is SDXL's refiner, which cannot be used without its base", remedy=_WHOLE
        )
