"""``studioq demo``: see the whole thing work once."""

from __future__ import annotations

import click

from daemon.cli.command import command


@command("demo", examples=("studioq demo", "studioq demo --home /tmp/studioq-demo"))
@click.option("--home", metavar="DIR", help="Folder of the demo's own daemon and results.")
def demo(home: str | None) -> int:
    """Make a picture; teach a small model SQL, and ask it before and after.

    Starts a daemon of its own, queues a picture, a LoRA training of SmolLM2-135M and two
    inferences, shows picture, losses and answers, keeps the results, and stops all it started.
    """
    from daemon.demo import run_demo

    return run_demo(home)
