"""What diffusers' own pipelines make of the seeded folders: final latents and pixels of pictures.

All randomness is fed: initial noise is ``cases.noise``, and where a pipeline
draws noise itself or samples the encoder's distribution, it is given that noise and the mean.
"""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLImg2ImgPipeline,
)
from diffusers.pipelines.stable_diffusion import (
    pipeline_stable_diffusion_img2img,
    pipeline_stable_diffusion_inpaint,
)
from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl_img2img
from PIL import Image

from tests.references import folders
from tests.references.networks import Answers, network
from tests.unit.diffusion import tiny
from tests.unit.diffusion.cases import LONG, RUNS, STEPS, Run, noise

SAMPLERS = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler}

_DRAWING = (
    pipeline_stable_diffusion_img2img,
    pipeline_stable_diffusion_inpaint,
    pipeline_stable_diffusion_xl_img2img,
)


def run(name: str, pipeline: Any) -> Answers:
    """Return the run's final latents, and every fourth pixel of what they decode to."""
    chosen = RUNS[name]
    pipeline = _with_sampler(pipeline, chosen)
    with _fed(torch.from_numpy(noise(name))):
        latents = pipeline(**_arguments(name, chosen, pipeline)).images
    with torch.no_grad():
        pixels = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    return {"latents": latents.numpy(), "pixels": pixels[..., ::4, ::4].numpy()}


def _with_sampler(pipeline: Any, chosen: Run) -> Any:
    """Return a pipeline over the same networks with the run's sampler, of the run's kind.

    ``clip_sample`` and ``set_alpha_to_one`` as published scheduler_config.json give them to DDIM.
    """
    config: dict[str, Any] = {"steps_offset": 1, "timestep_spacing": "leading"}
    config |= {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    config |= chosen.scheduler
    if chosen.folder == "sd2":
        config["prediction_type"] = "v_prediction"
    if chosen.sampler == "ddim":
        config |= {"clip_sample": False, "set_alpha_to_one": chosen.folder == "sdxl"}
    parts = {"scheduler": SAMPLERS[chosen.sampler](**config)}
    if chosen.unet is not None:
        parts["unet"] = network("unet", chosen.unet)
    return _kind(chosen, pipeline).from_pipe(pipeline, **parts)


def _kind(chosen: Run, pipeline: Any) -> Any:
    if chosen.masked:
        return StableDiffusionInpaintPipeline
    if chosen.strength is None:
        return type(pipeline)
    if chosen.folder == "sdxl":
        return StableDiffusionXLImg2ImgPipeline
    return StableDiffusionImg2ImgPipeline


def _arguments(name: str, chosen: Run, pipeline: Any) -> dict[str, Any]:
    height, width = chosen.size
    plain: dict[str, Any] = {"num_inference_steps": STEPS, "output_type": "latent"}
    plain |= {"guidance_scale": chosen.cfg, "num_images_per_prompt": chosen.images}
    plain |= conditions(chosen, pipeline)
    if chosen.strength is None:
        return plain | {"latents": torch.from_numpy(noise(name)), "height": height, "width": width}
    plain |= {"image": Image.fromarray(tiny.picture("picture", height, width))}
    plain |= {"strength": chosen.strength}
    if not chosen.masked:
        return plain
    mask = Image.fromarray(tiny.mask(height, width))
    return plain | {"mask_image": mask, "height": height, "width": width}


def conditions(chosen: Run, pipeline: Any) -> dict[str, Any]:
    """Return the texts; for long ones, which diffusers would cut, their embeddings."""
    if LONG not in (chosen.prompt, chosen.negative):
        return {"prompt": chosen.prompt, "negative_prompt": chosen.negative}
    texts = [chosen.prompt, chosen.negative or ""]
    (text, pooled), (negative, negative_pooled) = encode_long(texts, pipeline)
    plain = {"prompt_embeds": text, "negative_prompt_embeds": negative}
    if chosen.folder != "sdxl":
        return plain
    return plain | {
        "pooled_prompt_embeds": pooled,
        "negative_pooled_prompt_embeds": negative_pooled,
    }


def encode_long(texts: Sequence[str], pipeline: Any) -> list[tuple[Any, Any]]:
    """Encode texts in parts of 75 tokens, each begun, ended and padded; pool the first part.

    Shorter texts get as many parts as the longest: empty ones.
    """
    pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
    if hasattr(pipeline, "tokenizer_2"):
        pairs.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
    parts = [
        [chunks(text, tokenizer, len(texts[0]) + len(texts[1])) for text in texts]
        for tokenizer, _ in pairs
    ]
    count = max(_used(part) for of_encoder in parts for part in of_encoder)
    results = []
    for place in range(len(texts)):
        encoded = [
            _encode(of_encoder[place][:count], encoder, deep=len(pairs) == 2)
            for of_encoder, (_, encoder) in zip(parts, pairs, strict=True)
        ]
        results.append((torch.cat([text for text, _ in encoded], dim=-1), encoded[-1][1]))
    return results


def _used(part: Sequence[Sequence[int]]) -> int:
    """Return how many of the parts are not empty, at least one."""
    return max(1, sum(tuple(row) != tuple(part[-1]) for row in part))


def chunks(text: str, tokenizer: Any, count: int) -> list[list[int]]:
    """Return ``count`` rows of 77 tokens; those behind the text's end are empty."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    rows = []
    for start in range(0, 75 * count, 75):
        row = [tokenizer.bos_token_id, *ids[start : start + 75], tokenizer.eos_token_id]
        rows.append(row + [tokenizer.pad_token_id] * (77 - len(row)))
    return rows


def _encode(rows: list[list[int]], encoder: Any, *, deep: bool) -> tuple[Any, Any]:
    """Return the parts' hidden states in one row, and the first part's pooled vector.

    ``deep``: SDXL's, the layer before the last.
    """
    with torch.no_grad():
        found = encoder(torch.tensor(rows), output_hidden_states=True)
    hidden = found.hidden_states[-2] if deep else found.last_hidden_state
    pooled = found.text_embeds if hasattr(found, "text_embeds") else None
    joined = hidden.reshape(1, -1, hidden.shape[-1])
    return joined, None if pooled is None else pooled[:1]


@contextmanager
def _fed(noise: Any) -> Iterator[None]:
    """Give diffusers the noise that it would draw, and the mean where it would sample."""
    mean = lambda encoded, **_: encoded.latent_dist.mode()  # noqa: E731
    given = lambda *_, **__: noise  # noqa: E731
    patches = [patch.object(module, "retrieve_latents", mean) for module in _DRAWING]
    patches += [patch.object(module, "randn_tensor", given) for module in _DRAWING]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        patch.stopall()


def run_all() -> Answers:
    """Return every run's answers, keyed ``RUN/WHAT``."""
    answers: Answers = {}
    pipelines = {name: getattr(folders, name)() for name in folders.NETWORKS}
    for pipeline in pipelines.values():
        pipeline.set_progress_bar_config(disable=True)
    for name, chosen in RUNS.items():
        found = run(name, pipelines[chosen.folder])
        answers |= {f"{name}/{key}": value for key, value in found.items()}
    return answers
