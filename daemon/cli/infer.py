"""``studioq infer``: queue text generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from daemon.cli.command import command
from daemon.cli.prompts import read_prompt
from daemon.cli.submission import submission_options, submit
from daemon.cli.values import MODEL, NUMBER
from daemon.errors import UsageError

if TYPE_CHECKING:
    from daemon.client import Client

_EXAMPLES = (
    'studioq infer --model smollm2 --prompt "Name three rivers." --follow',
    "studioq infer --model smollm2 --adapter job:12 --prompts questions.jsonl --wait",
    "git diff | studioq infer --model smollm2 --system 'Write a commit message.' --prompt -",
)


@command("infer", examples=_EXAMPLES)
@click.option("--model", type=MODEL, required=True, help="Model to ask (studioq models list).")
@click.option(
    "--prompt", metavar="TEXT|-", help="The prompt, exactly as given; -: read from stdin."
)
@click.option(
    "--prompts", metavar="FILE.jsonl", help='Rows {"prompt": …}, optionally with "expected".'
)
@click.option(
    "--adapter",
    metavar="job:N[@STEP]|DIR",
    help="Adapter of a job, or mlx-lm's or PEFT's folder, or an adapters.npz.",
)
@click.option("--system", metavar="TEXT", help="System message.")
@click.option("--raw", is_flag=True, help="Send the prompt as it is, without the chat template.")
@click.option(
    "--max-tokens", type=int, default=256, show_default=True, help="Most tokens per answer."
)
@click.option(
    "--temp", type=NUMBER, default=0.0, show_default=True, help="Temperature; 0 is greedy."
)
@click.option(
    "--top-p", type=NUMBER, default=1.0, show_default=True, help="Nucleus sampling; 1 is off."
)
@click.option(
    "--top-k", type=int, default=0, show_default=True, help="Most likely tokens kept; 0 is off."
)
@click.option(
    "--min-p",
    type=NUMBER,
    default=0.0,
    show_default=True,
    help="Least share of the best token; 0 is off.",
)
@click.option("--stop", multiple=True, metavar="TEXT", help="Text that ends an answer; repeatable.")
@submission_options
def infer(prompt: str | None, prompts: str | None, **_: Any) -> int:
    """Answer one prompt, or a file of prompts, with a model and perhaps an adapter.

    Prints the job's number; with --follow the text instead, as it is made. The answer is the
    artifact output.txt (one prompt) or outputs.jsonl (a file): studioq fetch N.
    """
    if (prompt is None) == (prompts is None):
        given = (
            "neither --prompt nor --prompts is" if prompt is None else "--prompt and --prompts are"
        )
        raise UsageError(
            f"{given} given; a job has one of the two",
            remedy="give --prompt TEXT (- reads stdin), or --prompts FILE.jsonl",
        )
    return submit("infer", _with_inputs)


def _with_inputs(client: Client, spec: dict[str, Any]) -> dict[str, Any]:
    if spec.get("prompt") == "-":
        spec = spec | {"prompt": read_prompt()}
    if "prompts" in spec:
        spec = spec | {"prompts": client.upload(spec["prompts"])}
    if "adapter" in spec:
        spec = spec | {"adapter": client.adapter(spec["adapter"])}
    return spec
