"""What a benchmark that uses MLX does before it imports MLX.

The rule this module protects: what is measured runs in the environment that the engine would have.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# The shapes that ``diffusion_models`` knows.
SHAPES = ("sd15", "sd21", "sdxl", "shapes")

_STARTED = "STUDIOQ_BENCHMARK"


def with_engine_environment() -> None:
    """Start again with the engine's environment, because a library is preloaded or it is not."""
    from workers.memory_env import engine_environment

    if os.environ.get(_STARTED) != "1":
        wanted = {**os.environ, **engine_environment(), _STARTED: "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], wanted)


def add_subject(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which image model is measured."""
    parser.add_argument("model", type=Path, nargs="?", help="a model folder or single file")
    parser.add_argument("--shape", choices=SHAPES, default="sd21", help="random weights instead")
