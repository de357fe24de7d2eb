"""``studioq diffuse``: queue pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from daemon.cli.command import command
from daemon.cli.prompts import read_prompt
from daemon.cli.submission import submission_options, submit
from daemon.cli.values import BATCH, MODEL, NUMBER

if TYPE_CHECKING:
    from daemon.client import Client

_SAMPLERS = ["ddim", "euler", "euler-a", "dpm++2m", "dpm++2m-karras", "lcm"]
_EXAMPLES = (
    'N=$(studioq diffuse "a red circle left of a blue square" --wait) && studioq fetch $N',
    'studioq diffuse "a lighthouse at dusk" --model org/name --n-images 16 --sampler euler-a',
    'studioq diffuse "the same in winter" --model org/name --image photo.jpg --strength 0.5',
    'studioq diffuse "a cat" --model org/name --image room.png --mask sofa.png --follow',
    'studioq diffuse "a fox" --model org/name --lora ink.safetensors:0.8 --lora paper.safetensors',
    "fortune | studioq diffuse - --negative-prompt text --seed 7",
)


def _unless_given(_: click.Context, __: click.Parameter, given: bool) -> bool:
    """Turn a flag that takes something away into the value of what it takes away."""
    return not given


@command("diffuse", examples=_EXAMPLES)
@click.argument("prompt", metavar="PROMPT|-")
@click.option(
    "--model",
    type=MODEL,
    default="shapes",
    show_default=True,
    help="Image model (studioq models list).",
)
@click.option(
    "--negative-prompt",
    metavar="TEXT",
    help="What the pictures shall not show; not used without guidance (--cfg 0).",
)
@click.option(
    "--n-images", type=int, default=1, show_default=True, help="Pictures, one seed apart each."
)
@click.option(
    "--batch-size",
    type=BATCH,
    default="auto",
    show_default=True,
    help="Pictures made at once; auto: what memory allows.",
)
@click.option("--steps", type=int, default=25, show_default=True, help="Denoising steps.")
@click.option(
    "--cfg", type=NUMBER, default=7.5, show_default=True, help="Guidance by the prompt; 0 is off."
)
@click.option(
    "--sampler",
    type=click.Choice(_SAMPLERS),
    default="ddim",
    show_default=True,
    help="How noise is taken away.",
)
@click.option(
    "--width", type=int, help="Pixels, a multiple of 8; default: the image's, or the model's own."
)
@click.option("--height", type=int, help="Likewise.")
@click.option("--image", metavar="FILE", help="Picture to start from.")
@click.option(
    "--strength",
    type=NUMBER,
    default=0.7,
    show_default=True,
    help="How much of the image is made anew: 0 nothing, 1 all.",
)
@click.option(
    "--mask", metavar="FILE", help="Picture of the image's size; white is painted anew, black kept."
)
@click.option(
    "--lora", multiple=True, metavar="FILE[:SCALE]", help="LoRA file and its factor; repeatable."
)
@click.option(
    "--no-metadata",
    "metadata",
    is_flag=True,
    callback=_unless_given,
    help="Leave prompt and options out of the PNG files.",
)
@click.option(
    "--preview-every",
    type=int,
    default=5,
    show_default=True,
    help="Steps per preview (studioq fetch N --preview); 0: none.",
)
@click.option(
    "--prediction-type",
    type=click.Choice(["epsilon", "v_prediction"]),
    help="What the network predicts; default: what the model says.",
)
@submission_options
def diffuse(**_: Any) -> int:
    """Make pictures from a text, from a picture and a text, or within a mask.

    Prints the job's number. The pictures are the artifacts image-0000.png and so on, with
    contact-sheet.png where there are several: studioq fetch N, which also brings those that are
    ready while the job runs. Picture K of seed S is picture 0 of seed S + K.
    """
    return submit("diffuse", _with_files)


def _with_files(client: Client, spec: dict[str, Any]) -> dict[str, Any]:
    if spec["prompt"] == "-":
        spec = spec | {"prompt": read_prompt()}
    for place in ("image", "mask"):
        if place in spec:
            spec = spec | {place: client.upload(spec[place])}
    if "lora" in spec:
        spec = spec | {"lora": [client.lora(text) for text in spec["lora"]]}
    return spec
