"""Training the ``shapes`` model, from nothing to a folder in diffusers' layout.

    python -m workers.shapes.train vae    --out RUN --minutes 6
    python -m workers.shapes.train unet   --out RUN --minutes 13 --batch 512
    python -m workers.shapes.train export --out RUN --to MODEL

Each stage goes on from its checkpoint in RUN if it is started again, and writes ``log.jsonl``
beside it. A stage ends when its steps or its minutes are spent; the learning rate falls to its end
whichever comes first. The rule this module protects: importing it imports no MLX, because the
processes that draw pictures import it too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.errors import StudioqError

if TYPE_CHECKING:
    from workers.shapes.stages import Plan
    from workers.shapes.trainer import Options

_DEFAULTS: dict[str, dict[str, float]] = {
    # So narrow networks want high rates: after 400 steps of 16 the UNet's loss was 0.10 at 3e-4,
    # 0.057 at 1e-3 and 0.051 at 2e-3.
    "vae": {"steps": 8000, "batch": 64, "pool": 32768, "rate": 1e-3, "average": 0.999},
    "unet": {"steps": 30000, "batch": 256, "pool": 131072, "rate": 1e-3, "average": 0.9995},
}


def main(arguments: list[str] | None = None) -> int:
    """Run one stage, or write the model's folder; return the exit status."""
    given = _parser().parse_args(arguments)
    from workers.shapes import stages

    plan = _plan(given)
    try:
        if given.stage == "export":
            stages.export_model(plan, given.to)
        elif given.stage == stages.VAE:
            stages.train_vae(plan, _options(given))
        else:
            stages.train_unet(plan, _options(given))
    except StudioqError as error:
        sys.stderr.write(f"{error.message}\n")
        return int(error.exit_code)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workers.shapes.train", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    stages = parser.add_subparsers(dest="stage", required=True)
    for stage, defaults in _DEFAULTS.items():
        command = stages.add_parser(stage, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        command.add_argument("--out", type=Path, required=True, help="folder of the run")
        command.add_argument("--steps", type=int, default=int(defaults["steps"]))
        command.add_argument("--minutes", type=float, help="limit of time in all runs together")
        command.add_argument("--batch", type=int, default=int(defaults["batch"]))
        command.add_argument("--pool", type=int, default=int(defaults["pool"]), help="pictures")
        command.add_argument("--learning-rate", type=float, default=defaults["rate"])
        command.add_argument("--average", type=float, default=defaults["average"])
        command.add_argument("--warmup", type=int, default=500, help="steps")
        command.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
        command.add_argument("--direct-gradients", action="store_true", help="of convolutions")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--log-every", type=int, default=100, help="steps")
        command.add_argument("--save-minutes", type=float, default=2.0)
        command.add_argument("--processes", type=int, help="that draw; all processors if not given")
        command.add_argument("--small", action="store_true", help="tiny networks, to try the code")
    command = stages.add_parser("export")
    command.add_argument("--out", type=Path, required=True, help="folder of the run")
    command.add_argument("--to", type=Path, required=True, help="folder of the model")
    command.add_argument("--small", action="store_true")
    return parser


def _plan(given: argparse.Namespace) -> Plan:
    from workers.shapes.sizes import SHAPES, SMALL
    from workers.shapes.stages import Plan

    return Plan(
        folder=given.out,
        pool=getattr(given, "pool", 2048),
        sizes=SMALL if given.small else SHAPES,
        processes=getattr(given, "processes", None),
        direct_gradients=getattr(given, "direct_gradients", False),
    )


def _options(given: argparse.Namespace) -> Options:
    from workers.shapes.optimizer import Rates
    from workers.shapes.trainer import Options

    rates = Rates(
        learning_rate=given.learning_rate,
        steps=given.steps,
        minutes=given.minutes,
        warmup=given.warmup,
        average=given.average,
    )
    return Options(
        rates=rates,
        batch=given.batch,
        seed=given.seed,
        precision=given.precision,
        log_every=given.log_every,
        save_minutes=given.save_minutes,
    )


if __name__ == "__main__":
    raise SystemExit(main())
