"""The two stages of the training and the folder that comes of them.

The rule this module protects: everything follows from a seed and the options. Pictures are drawn
here, only of training captions, and nothing is read but the checkpoints that a stage before wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from workers.diffusion.vae import AutoencoderKL
from workers.files import write_json
from workers.memory import on_gpu
from workers.shapes import export
from workers.shapes.captions import sample_held_out
from workers.shapes.checker import Accuracy, check
from workers.shapes.checkpoint import read_average
from workers.shapes.convolution import use_direct_gradients
from workers.shapes.drawing import Pool, draw, draw_blocks
from workers.shapes.flat import Layout
from workers.shapes.objectives import (
    TextToVelocity,
    VaeObjective,
    VelocityObjective,
    from_network,
    to_network,
)
from workers.shapes.sizes import SHAPES, Sizes, build_text_encoder, build_unet, build_vae
from workers.shapes.trainer import Options, say, train
from workers.shapes.vocabulary import caption_tokens, caption_vocabulary

VAE, UNET = "vae", "unet"
SCALING, RECONSTRUCTION = "scaling.json", "reconstruction.json"

# Pictures that the networks are given at once when nothing is learnt.
_ENCODED = 256

# Different streams of pictures and first weights for each use, whatever the seed.
_VAE_PICTURES, _UNET_PICTURES = 1, 2


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where a training lives, how large it is, and how many pictures are drawn.

    ``direct_gradients``: see ``convolution``; other sums, so other results in the last digits.
    """

    folder: Path
    pool: int
    sizes: Sizes = SHAPES
    processes: int | None = None
    direct_gradients: bool = False


def train_vae(plan: Plan, options: Options) -> None:
    """Train the autoencoder into ``folder/vae``."""
    mx.random.seed(options.seed)
    module = build_vae(plan.sizes)
    if plan.direct_gradients:
        use_direct_gradients(module)
    pool = _concatenated(_blocks(plan, options.seed, _VAE_PICTURES))
    say(f"drew {len(pool.pictures)} pictures")
    objective = VaeObjective(module=module, pictures=mx.array(pool.pictures))
    train(objective, options, plan.folder / VAE)
    _measure_scaling(plan)
    _check_reconstruction(plan)


def train_unet(plan: Plan, options: Options) -> None:
    """Train UNet and text encoder into ``folder/unet``, on latents of the trained autoencoder.

    Raises:
        ModelError: the autoencoder has not been trained.
    """
    mx.random.seed(options.seed)
    vocabulary = caption_vocabulary()
    module = TextToVelocity(build_unet(plan.sizes), build_text_encoder(plan.sizes, vocabulary))
    if plan.direct_gradients:
        use_direct_gradients(module)
    vae = trained_vae(plan)
    blocks = _blocks(plan, options.seed, _UNET_PICTURES)
    latents, scenes = _encode(vae, blocks)
    say(f"encoded {len(latents)} pictures")
    objective = VelocityObjective(
        module=module, latents=latents, captions=scenes, tokens=mx.array(caption_tokens())
    )
    train(objective, options, plan.folder / UNET)


def trained_vae(plan: Plan) -> AutoencoderKL:
    """Return the autoencoder with its averaged weights, scaling latents to a deviation of one.

    Raises:
        ModelError: the autoencoder has not been trained.
    """
    file = plan.folder / VAE / SCALING
    scaling = json.loads(file.read_bytes())["scaling_factor"] if file.is_file() else None
    module = build_vae(plan.sizes, scaling or _measure_scaling(plan))
    return _with_weights(module, read_average(plan.folder / VAE))


def _measure_scaling(plan: Plan) -> float:
    """Return and keep one over the standard deviation of the latents of 2,048 pictures.

    Latents are the encoder's means; the deviation is over all of their pixels and channels.
    """
    module = _with_weights(build_vae(plan.sizes), read_average(plan.folder / VAE))
    blocks = draw_blocks(min(plan.pool, 2048), _VAE_PICTURES, plan.sizes.picture, processes=1)
    latents, _ = _encode(module, blocks)
    scaling = round(1 / float(np.array(latents).std(dtype=np.float64)), 5)
    write_json(plan.folder / VAE / SCALING, {"scaling_factor": scaling})
    say(f"latents are scaled by {scaling}")
    return scaling


def _check_reconstruction(plan: Plan) -> None:
    """Say what the checker finds in decoded pictures: the UNet cannot become better than that."""
    vae = trained_vae(plan)
    scenes = sample_held_out(0, min(plan.pool, _ENCODED))
    drawn = draw(scenes, np.random.Generator(np.random.PCG64(0)), plan.sizes.picture)
    parts = [mx.array(drawn[start : start + 64]) for start in range(0, len(drawn), 64)]
    decoded = [from_network(vae.decode(vae.encode(to_network(part)))) for part in parts]
    accuracy = Accuracy.of(check(np.concatenate(decoded), scenes))
    write_json(plan.folder / VAE / RECONSTRUCTION, asdict(accuracy))
    say(f"of pictures encoded and decoded: {accuracy}")


def export_model(plan: Plan, target: Path) -> None:
    """Write the model's folder from the checkpoints of both stages, in float16.

    Raises:
        ModelError: a stage has not been trained.
    """
    trained = read_average(plan.folder / UNET)
    parts = {
        part: {
            name.removeprefix(f"{part}."): array
            for name, array in trained.items()
            if name.startswith(f"{part}.")
        }
        for part in ("unet", "text_encoder")
    }
    vae = trained_vae(plan)
    export.write_model(
        target,
        plan.sizes,
        unet=parts["unet"],
        text_encoder=parts["text_encoder"],
        vae=read_average(plan.folder / VAE),
        scaling=vae.config.scaling,
    )
    say(f"wrote {target}: {export.weight_bytes(target) / 1e6:.2f} MB of weights")


def _with_weights(module: AutoencoderKL, named: dict[str, mx.array]) -> AutoencoderKL:
    layout = Layout(module)
    module.update(layout.tree(layout.split(layout.vector(named))))
    mx.eval(module.parameters())
    return module


def _blocks(plan: Plan, seed: int, stream: int) -> Iterator[Pool]:
    return draw_blocks(plan.pool, (seed << 8) + stream, plan.sizes.picture, plan.processes)


def _concatenated(blocks: Iterator[Pool]) -> Pool:
    drawn = list(blocks)
    return Pool(
        pictures=np.concatenate([block.pictures for block in drawn]),
        scenes=np.concatenate([block.scenes for block in drawn]),
    )


def _encode(vae: AutoencoderKL, blocks: Iterator[Pool]) -> tuple[mx.array, NDArray[np.int32]]:
    """Return the latents (N, y, x, channels) of all pictures, and the places of their scenes."""
    encode = mx.compile(vae.encode) if on_gpu() else vae.encode
    latents: list[mx.array] = []
    scenes: list[NDArray[np.int32]] = []
    for block in blocks:
        scenes.append(block.scenes)
        for start in range(0, len(block.pictures), _ENCODED):
            part = mx.array(block.pictures[start : start + _ENCODED])
            latents.append(encode(to_network(part)))
            mx.eval(latents[-1])
    return mx.concatenate(latents), np.concatenate(scenes)
