"""What a benchmark that uses MLX does before it imports MLX.

The rule this module protects: what is measured runs in the environment that the engine would have.
"""

from __future__ import annotations

import os
import sys

_STARTED = "STUDIOQ_BENCHMARK"


def with_engine_environment() -> None:
    """Start again with the engine's environment, because a library is preloaded or it is not."""
    from workers.memory_env import engine_environment

    if os.environ.get(_STARTED) != "1":
        wanted = {**os.environ, **engine_environment(), _STARTED: "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], wanted)
