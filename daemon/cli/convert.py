"""``studioq convert``: queue the making of an MLX model from another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from daemon.cli.command import command
from daemon.cli.submission import submission_options, submit
from daemon.cli.values import MODEL

if TYPE_CHECKING:
    from daemon.client import Client

_QUANTIZE = ["2", "3", "4", "5", "6", "8"]
_MIXED = ["mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6"]
_MODES = ["mxfp4", "mxfp8", "nvfp4"]
_EXAMPLES = (
    "studioq convert llama-2-7b --to llama --dtype fp16 --follow",
    "studioq convert org/name --to name-4bit --quantize 4 --wait",
    "studioq convert smollm2 --to smollm2-mixed --quantize mixed_3_6 --dequantize",
    "studioq convert org/name --to name-sql --fuse job:12",
    "studioq convert org/name --to small --quantize 4   # infer waits for its end:",
    'studioq infer --model $USER/small --prompt "Name three rivers." --follow',
)


@command("convert", examples=_EXAMPLES)
@click.argument("model", metavar="SRC", type=MODEL)
@click.option(
    "--to", metavar="NAME", required=True, help="Name of the new model, which is called USER/NAME."
)
@click.option(
    "--quantize",
    type=click.Choice([*_QUANTIZE, *_MIXED, *_MODES]),
    metavar="Q",
    help=f"Bits per weight ({', '.join(_QUANTIZE)}); more bits where they count "
    f"({', '.join(_MIXED)}); or floating point ({', '.join(_MODES)}).",
)
@click.option(
    "--group-size",
    type=int,
    metavar="16|32|64|128",
    help="Weights that share a scale; default: 64; mxfp4 and mxfp8 have 32, nvfp4 16, no others.",
)
@click.option(
    "--dtype",
    type=click.Choice(["bf16", "fp16", "fp32"]),
    help="Type of what is not quantized; default: as stored.",
)
@click.option(
    "--dequantize",
    is_flag=True,
    help="Turn a quantized source into plain weights first; needed to quantize it again.",
)
@click.option(
    "--fuse",
    metavar="job:N[@STEP]|DIR",
    help="Adapter to merge: a job's, or mlx-lm's or PEFT's folder, or an adapters.npz.",
)
@submission_options
def convert(**_: Any) -> int:
    """Write a model as a folder in MLX's layout; quantize it, or merge an adapter, on the way.

    SRC is a model of any format that is read: Hugging Face or MLX folders, GGUF, releases as Meta
    and Mistral ship them, and a weights.npz made from one. Prints the job's number. The new model
    is called USER/NAME, after you, is there when the job has succeeded, and is used by that name:
    infer --model USER/NAME. A model that is there is never written over. studioq fetch N brings its
    files.
    """
    return submit("convert", _with_adapter)


def _with_adapter(client: Client, spec: dict[str, Any]) -> dict[str, Any]:
    return spec | {"fuse": client.adapter(spec["fuse"])} if "fuse" in spec else spec
