"""``studioq train``: queue a fine-tuning job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from daemon.cli.command import command
from daemon.cli.submission import submission_options, submit
from daemon.cli.values import LAYERS, MODEL, NAMES, NUMBER

if TYPE_CHECKING:
    from daemon.client import Client

_SCHEDULES = ["constant", "linear", "cosine"]
_EXAMPLES = (
    "studioq train --model smollm2 --data rows.jsonl --iters 200",
    "studioq train --model smollm2 --data minutes/ --rank 16 --mask-prompt --test --follow",
    "studioq train --model smollm2 --data minutes/ --resume job:12@300 --time-limit 2h",
    "N=$(studioq train --model smollm2 --data minutes/)   # the infer waits for its end:",
    'studioq infer --model smollm2 --adapter job:$N --prompt "Who spoke?" --follow',
)


@command("train", examples=_EXAMPLES)
@click.option(
    "--model", type=MODEL, required=True, help="Model to fine-tune (studioq models list)."
)
@click.option(
    "--data",
    metavar="DIR|FILE",
    required=True,
    help="Folder with train.jsonl (valid.jsonl, test.jsonl), or one file: a tenth validates.",
)
@click.option("--iters", type=int, default=600, show_default=True, help="Training iterations.")
@click.option("--batch-size", type=int, default=4, show_default=True, help="Rows per iteration.")
@click.option(
    "--learning-rate", type=NUMBER, default=1e-5, show_default=True, help="Peak learning rate."
)
@click.option(
    "--num-layers", type=LAYERS, default=16, show_default=True, help="Last layers trained."
)
@click.option("--rank", type=int, default=8, show_default=True, help="Rank of the adapter.")
@click.option("--scale", type=NUMBER, default=20.0, show_default=True, help="Factor of its output.")
@click.option("--dropout", type=NUMBER, default=0.0, show_default=True, help="Dropout before it.")
@click.option("--keys", type=NAMES, help="Layers that get one, e.g. q_proj,v_proj; default: all.")
@click.option(
    "--fine-tune-type",
    type=click.Choice(["lora", "dora", "full"]),
    default="lora",
    show_default=True,
    help="What is trained.",
)
@click.option(
    "--optimizer",
    type=click.Choice(["adam", "adamw", "sgd", "adafactor"]),
    default="adam",
    show_default=True,
    help="Optimizer.",
)
@click.option(
    "--lr-schedule",
    type=click.Choice(_SCHEDULES),
    default="constant",
    show_default=True,
    help="Decay after the warm-up.",
)
@click.option(
    "--warmup", type=int, default=0, show_default=True, help="Iterations of linear warm-up."
)
@click.option(
    "--grad-accumulation", type=int, default=1, show_default=True, help="Iterations per update."
)
@click.option(
    "--max-seq-length",
    type=int,
    default=2048,
    show_default=True,
    help="Tokens; longer rows are cut.",
)
@click.option("--mask-prompt", is_flag=True, help="Leave the prompt's tokens out of the loss.")
@click.option("--grad-checkpoint", is_flag=True, help="Recompute activations to save memory.")
@click.option(
    "--steps-per-report", type=int, default=10, show_default=True, help="Iterations per report."
)
@click.option(
    "--steps-per-eval", type=int, default=200, show_default=True, help="Iterations per validation."
)
@click.option(
    "--val-batches",
    type=int,
    default=25,
    show_default=True,
    help="Batches per validation; -1: all.",
)
@click.option(
    "--save-every", type=int, default=100, show_default=True, help="Iterations per checkpoint."
)
@click.option("--test", is_flag=True, help="Measure the loss on the test rows at the end.")
@click.option("--resume", metavar="job:N[@STEP]", help="Start from this job's adapter.")
@click.option("--sample-prompt", metavar="TEXT", help="Answer this after each validation.")
@submission_options
def train(**_: Any) -> int:
    """Fine-tune a language model (LoRA, DoRA or all weights) and keep the adapter.

    Rows are jsonl: {"text": …}, {"prompt": …, "completion": …} or {"messages": […]}. Prints the
    job's number. The adapter is there with every checkpoint: infer --adapter job:N, or job:N@STEP.
    """
    return submit("train", _with_data)


def _with_data(client: Client, spec: dict[str, Any]) -> dict[str, Any]:
    return spec | {"data": client.training_data(spec["data"])}
