"""Single networks of diffusers and transformers with seeded weights, and what they answer.

Every input is drawn by ``tiny.normal`` from a name that the tests repeat. Arrays are PyTorch's
(N, C, H, W).
"""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.references.families import ENCODERS, UNETS, VAES
from tests.unit.diffusion import tiny
from tests.unit.diffusion.cases import TIME_IDS, TIMESTEPS, token_rows, unet_sizes

Answers = dict[str, tiny.Array]
Described = dict[str, Any]

CLASSES = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}


def network(kind: str, name: str) -> Any:
    """Return the module ``name`` of ``kind`` (unet, vae, clip) with its seeded weights."""
    module = _clip(name) if kind == "clip" else _image_network(kind, name)
    state = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    seeded = tiny.weights(f"{kind}/{name}", state)
    module.load_state_dict({key: torch.from_numpy(value) for key, value in seeded.items()})
    return module.eval()


def _image_network(kind: str, name: str) -> Any:
    return CLASSES[kind](**(UNETS if kind == "unet" else VAES)[name])


def _clip(name: str) -> Any:
    arguments = dict(ENCODERS[name])
    projects = arguments.pop("projects", False)
    config = CLIPTextConfig(**arguments)
    return CLIPTextModelWithProjection(config) if projects else CLIPTextModel(config)


def described(module: Any) -> Described:
    """Return the configuration and the parameters' shapes, as the library itself saves them."""
    with tempfile.TemporaryDirectory() as folder:
        module.save_pretrained(folder)
        config = json.loads((Path(folder) / "config.json").read_text())
        with safe_open(str(next(Path(folder).glob("*.safetensors"))), "pt") as file:
            shapes = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    return {"config": config, "parameters": shapes}


def tensor(name: str, *shape: int) -> Any:
    """Return standard normal numbers as a tensor."""
    return torch.from_numpy(tiny.normal(name, shape))


def run_unet(name: str, module: Any) -> Answers:
    """Return the outputs at every size and timestep, keyed ``HEIGHTxWIDTH/TIMESTEP``."""
    answers = {}
    for height, width in unet_sizes(name):
        key = f"{height}x{width}"
        channels, others = module.config.in_channels, _conditions(name, module.config)
        sample = tensor(f"inputs/{name}/{key}", 2, channels, height, width)
        for timestep in TIMESTEPS:
            with torch.no_grad():
                found = module(sample, torch.tensor(timestep), **others).sample
            answers[f"{key}/{timestep}"] = found.numpy()
    return answers


def _conditions(name: str, config: Any) -> dict[str, Any]:
    width = config.cross_attention_dim
    width = width if isinstance(width, int) else width[0]
    found = {"encoder_hidden_states": tensor(f"inputs/{name}/context", 2, 7, width)}
    if config.time_cond_proj_dim:
        found["timestep_cond"] = tensor(f"inputs/{name}/cond", 2, config.time_cond_proj_dim)
    if config.addition_embed_type:
        text = tensor(f"inputs/{name}/text", 2, 20)
        found["added_cond_kwargs"] = {"text_embeds": text, "time_ids": torch.tensor(TIME_IDS)}
    return found


def run_vae(name: str, module: Any) -> Answers:
    """Return mean and log variance of a picture's latents, and a decoded picture."""
    image = torch.from_numpy(tiny.picture(f"inputs/{name}", 32, 48).transpose(2, 0, 1)[None])
    factor = 2 ** (len(module.config.block_out_channels) - 1)
    latents = (1, module.config.latent_channels, 32 // factor, 48 // factor)
    with torch.no_grad():
        encoded = module.encode(image.float() / 127.5 - 1.0).latent_dist
        decoded = module.decode(tensor(f"inputs/{name}/latents", *latents)).sample
    return {
        "mean": encoded.mean.numpy(),
        "logvar": encoded.logvar.numpy(),
        "decoded": decoded.numpy(),
    }


def run_clip(module: Any) -> Answers:
    """Return every sixth position of the hidden states, and the text's one vector."""
    positions = module.config.max_position_embeddings
    ids = torch.from_numpy(token_rows(positions, module.config.to_dict()))
    with torch.no_grad():
        found = module(ids, output_hidden_states=True)
    pooled = found.text_embeds if hasattr(found, "text_embeds") else found.pooler_output
    return {
        "last": found.last_hidden_state[:, ::6].numpy(),
        "penultimate": found.hidden_states[-2][:, ::6].numpy(),
        "pooled": pooled.numpy(),
    }


def run(kind: str, name: str, module: Any) -> Answers:
    """Return the network's answers by what was asked."""
    if kind == "clip":
        return run_clip(module)
    return run_unet(name, module) if kind == "unet" else run_vae(name, module)


def run_all() -> tuple[dict[str, Described], dict[str, Answers]]:
    """Return every network's description, keyed ``KIND/NAME``, and each kind's answers."""
    families = {"unet": UNETS, "vae": VAES, "clip": ENCODERS}
    everything: dict[str, Described] = {}
    answers: dict[str, Answers] = {kind: {} for kind in families}
    for kind, name in ((kind, name) for kind, names in families.items() for name in names):
        module = network(kind, name)
        everything[f"{kind}/{name}"] = described(module)
        found = run(kind, name, module)
        answers[kind] |= {f"{name}/{key}": value for key, value in found.items()}
    return everything, answers
