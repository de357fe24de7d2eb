"""The same training in PyTorch, for a card on which that is faster.

    python -m workers.shapes.train_torch --out RUN --vae-minutes 5 --unet-minutes 12
    python -m workers.shapes.train_torch --out RUN --decoder-minutes 40     # then, on any machine

Needs torch and diffusers (the extra ``references``) and leaves a folder in diffusers' layout in
RUN/model. The weights that ship with the program came of it; the model's card has the minutes.

The rule this module protects: only the networks are diffusers'. Pictures, captions, tokens,
configurations, schedule and losses are those of the training in MLX (``train``).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn

from workers.files import write_json
from workers.shapes import export
from workers.shapes.captions import all_scenes, sample_training
from workers.shapes.card import record_stage
from workers.shapes.drawing import draw, draw_blocks
from workers.shapes.objectives import EMPTY_SHARE, KL_WEIGHT, NOISY_FROM, NOISY_SHARE, noise_levels
from workers.shapes.sizes import SHAPES, SMALL, Sizes, text_config, unet_config, vae_config
from workers.shapes.torch_stage import Loss, Stage
from workers.shapes.torch_text import TextEncoder
from workers.shapes.trainer import say
from workers.shapes.vocabulary import caption_tokens, caption_vocabulary

_RATE, _DECODER_RATE = 1e-3, 2e-4
_VAE_AVERAGE, _UNET_AVERAGE = 0.999, 0.9995
_SCALING = "scaling.json"

# The largest deviation of the noise that the decoder learns to bear in its latents.
_LATENT_NOISE = 0.15


def autoencoder_loss(vae: AutoencoderKL, pictures: torch.Tensor, batch: int) -> Loss:
    """Return the loss of ``objectives.VaeObjective`` on random rows of uint8 (N, 3, S, S)."""

    def loss() -> torch.Tensor:
        rows = torch.randint(len(pictures), (batch,), device=pictures.device)
        clean = _to_network(pictures[rows])
        with _autocast(pictures):
            moments = vae.quant_conv(vae.encoder(clean))
        mean, logvar = moments.float().chunk(2, dim=1)
        logvar = logvar.clamp(-30, 20)
        latents = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        with _autocast(pictures):
            decoded = vae.decoder(vae.post_quant_conv(latents))
        error = decoded.float() - clean
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum() / batch
        return error.abs().mean() + error.square().mean() + KL_WEIGHT * divergence

    return loss


def velocity_loss(
    networks: nn.ModuleDict, latents: torch.Tensor, scenes: torch.Tensor, batch: int
) -> Loss:
    """Return the loss of ``objectives.VelocityObjective`` on rows of (N, 4, y, x) latents."""
    device = latents.device
    tokens = torch.from_numpy(caption_tokens()).long().to(device)
    signal, noise = (torch.from_numpy(table).to(device) for table in noise_levels())

    def loss() -> torch.Tensor:
        rows = torch.randint(len(latents), (batch,), device=device)
        any_time = torch.randint(len(signal), (batch,), device=device)
        noisy_time = torch.randint(NOISY_FROM, len(signal), (batch,), device=device)
        chosen = torch.rand(batch, device=device) < NOISY_SHARE
        times = torch.where(chosen, noisy_time, any_time)
        kept, share = signal[times][:, None, None, None], noise[times][:, None, None, None]
        empty = torch.rand(batch, device=device) < EMPTY_SHARE
        captions = torch.where(empty, len(tokens) - 1, scenes[rows])
        clean = latents[rows]
        added = torch.randn_like(clean)
        noisy = kept * clean + share * added
        with _autocast(latents):
            context = networks["text_encoder"](tokens[captions])
            predicted = networks["unet"](noisy, times, context, return_dict=False)[0]
        return (predicted.float() - (kept * added - share * clean)).square().mean()

    return loss


def decoder_loss(vae: AutoencoderKL, generator: np.random.Generator, batch: int) -> Loss:
    """Return the decoder's loss on fresh pictures, the encoder being done.

    A little noise on the latents stands for what the UNet gets wrong.
    """

    def loss() -> torch.Tensor:
        scenes = [all_scenes()[place] for place in sample_training(generator, batch)]
        clean = _to_network(torch.from_numpy(draw(scenes, generator).transpose(0, 3, 1, 2).copy()))
        with torch.no_grad():
            latents = vae.quant_conv(vae.encoder(clean)).chunk(2, dim=1)[0]
            strength = torch.rand(batch, 1, 1, 1) * _LATENT_NOISE
            latents = latents + torch.randn_like(latents) * strength
        error = vae.decoder(vae.post_quant_conv(latents)) - clean
        return error.abs().mean() + error.square().mean()

    return loss


def train(options: argparse.Namespace) -> None:
    """Do the stages that minutes were given for, and write the model's folder."""
    torch.manual_seed(options.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    options.out.mkdir(parents=True, exist_ok=True)
    sizes = SMALL if options.small else SHAPES
    if options.vae_minutes:
        train_vae(options, sizes)
    if options.unet_minutes:
        train_unet(options, sizes)
    if options.decoder_minutes:
        train_decoder(options, sizes)
    write_model(options.out, sizes)


def train_vae(options: argparse.Namespace, sizes: Sizes) -> None:
    """Train the autoencoder, and measure the deviation of its latents."""
    vae = _network(AutoencoderKL, vae_config(sizes, 1.0)).to(_device())
    blocks = list(_blocks(options.pictures, (options.seed << 8) + 1, sizes))
    pictures = torch.cat([block for block, _ in blocks]).to(_device())
    say(f"drew {len(pictures)} pictures")
    _compile(vae.encoder, vae.decoder)
    stage = Stage(vae, autoencoder_loss(vae, pictures, options.vae_batch), _RATE, _VAE_AVERAGE)
    steps = stage.run(60 * options.vae_minutes, lambda: _save(options.out, "vae", stage.averages()))
    _record(options, "vae", options.pictures, steps, _RATE)
    latents, _ = _encode(_trained_vae(options.out, sizes), iter(blocks[:2]))
    scaling = round(1 / float(latents.std()), 5)
    write_json(options.out / _SCALING, {"scaling_factor": scaling})
    say(f"latents are scaled by {scaling}")


def train_unet(options: argparse.Namespace, sizes: Sizes) -> None:
    """Train UNet and text encoder on the latents of the trained autoencoder.

    They go on from RUN's weights if it has some, with a fresh optimiser.
    """
    blocks = _blocks(options.latents, (options.seed << 8) + 2, sizes)
    latents, scenes = _encode(_trained_vae(options.out, sizes), blocks)
    say(f"encoded {len(latents)} pictures")
    unet = _network(UNet2DConditionModel, unet_config(sizes))
    text_encoder = TextEncoder(text_config(sizes, caption_vocabulary()))
    networks = nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}).to(_device())
    for part, network in networks.items():
        if _file(options.out, part).exists():
            network.load_state_dict(_load(options.out, part), strict=True)
    _compile(unet, text_encoder)
    loss = velocity_loss(networks, latents * _scaling(options.out), scenes, options.unet_batch)
    stage = Stage(networks, loss, _RATE, _UNET_AVERAGE)
    steps = stage.run(60 * options.unet_minutes, lambda: _save_both(options.out, stage.averages()))
    _record(options, "unet", options.latents, steps, _RATE)


def train_decoder(options: argparse.Namespace, sizes: Sizes) -> None:
    """Train the decoder on alone, on the host; the latents, and so the UNet, stay as they are."""
    vae = _trained_vae(options.out, sizes).cpu()
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    generator = np.random.Generator(np.random.PCG64([options.seed, 3]))
    stage = Stage(vae, decoder_loss(vae, generator, options.decoder_batch), _DECODER_RATE, 0.998)
    fixed = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    steps = stage.run(
        60 * options.decoder_minutes,
        lambda: _save(options.out, "vae", {**fixed, **stage.averages()}),
    )
    _record(options, "decoder", steps * options.decoder_batch, steps, _DECODER_RATE)


def _record(
    options: argparse.Namespace, stage: str, pictures: int, steps: int, rate: float
) -> None:
    """Write down how a stage was run, for the model's card."""
    on_card = torch.cuda.is_available() and stage != "decoder"
    record_stage(
        options.out,
        {
            "stage": stage,
            "networks": "PyTorch, diffusers'",
            "device": torch.cuda.get_device_name() if on_card else "CPU",
            "pictures": pictures,
            "batch": getattr(options, f"{stage}_batch"),
            "steps": steps,
            "minutes": getattr(options, f"{stage}_minutes"),
            "rate": rate,
            "precision": "bfloat16" if on_card else "float32",
        },
    )


def write_model(run: Path, sizes: Sizes) -> None:
    """Write RUN/model from the stages' weights, in float16."""
    parts = {part: _mlx_tensors(run, part) for part in ("unet", "text_encoder", "vae")}
    export.write_model(run / "model", sizes, scaling=_scaling(run), **parts)


def _mlx_tensors(run: Path, part: str) -> dict[str, mx.array]:
    """Return a stage's tensors in MLX's layouts."""
    loaded = {name: mx.array(tensor.numpy()) for name, tensor in _load(run, part).items()}
    return {
        name: array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
        for name, array in loaded.items()
    }


def _blocks(count: int, stream: int, sizes: Sizes) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield uint8 pictures (N, 3, S, S) and the places of their scenes, block by block."""
    for block in draw_blocks(count, stream, sizes.picture):
        pictures = torch.from_numpy(np.ascontiguousarray(block.pictures.transpose(0, 3, 1, 2)))
        yield pictures, torch.from_numpy(block.scenes).long()


@torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
def _encode(
    vae: AutoencoderKL, blocks: Iterator[tuple[torch.Tensor, torch.Tensor]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return unscaled latents (N, 4, y, x) and the places of their scenes."""
    latents, scenes = [], []
    for pictures, places in blocks:
        moments = vae.quant_conv(vae.encoder(_to_network(pictures.to(_device()))))
        latents.append(moments.chunk(2, dim=1)[0].contiguous())
        scenes.append(places.to(_device()))
    return torch.cat(latents), torch.cat(scenes)


def _to_network(pictures: torch.Tensor) -> torch.Tensor:
    return pictures.float() / 127.5 - 1


def _autocast(beside: torch.Tensor) -> torch.autocast:
    """Return the context in which networks compute: bfloat16 on a card, float32 on the host.

    Casts are not cached: a CUDA graph must hold each of them.
    """
    return torch.autocast(
        beside.device.type, torch.bfloat16, enabled=beside.is_cuda, cache_enabled=False
    )


def _compile(*networks: nn.Module) -> None:
    """Have networks compiled at their first step, on a card.

    They are bound there by memory: normalisation, activation and casts become one pass.
    """
    if torch.cuda.is_available():
        for network in networks:
            network.compile()


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _network(kind: Any, config: dict[str, Any]) -> Any:
    return kind.from_config(config).to(memory_format=torch.channels_last)


def _trained_vae(run: Path, sizes: Sizes) -> Any:
    vae = _network(AutoencoderKL, vae_config(sizes, 1.0))
    vae.load_state_dict(_load(run, "vae"), strict=True)
    return vae.to(_device())


def _scaling(run: Path) -> float:
    return float(json.loads((run / _SCALING).read_bytes())["scaling_factor"])


def _load(run: Path, part: str) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(_file(run, part))
    return tensors


def _file(run: Path, part: str) -> Path:
    return run / f"{part}.safetensors"


def _save(run: Path, part: str, tensors: dict[str, torch.Tensor]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, run / f"{part}.tmp")
    (run / f"{part}.tmp").replace(_file(run, part))


def _save_both(run: Path, averages: dict[str, torch.Tensor]) -> None:
    for part in ("unet", "text_encoder"):
        prefix = f"{part}."
        named = {
            name.removeprefix(prefix): tensor
            for name, tensor in averages.items()
            if name.startswith(prefix)
        }
        _save(run, part, named)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train the demo model in PyTorch.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    for stage in ("vae", "unet", "decoder"):
        parser.add_argument(f"--{stage}-minutes", type=float, default=0.0)
    parser.add_argument("--vae-batch", type=int, default=64)
    parser.add_argument("--unet-batch", type=int, default=512)
    parser.add_argument("--decoder-batch", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=32_768)
    parser.add_argument("--latents", type=int, default=131_072)
    parser.add_argument("--small", action="store_true", help="tiny networks, to try the code")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
