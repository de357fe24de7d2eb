"""Whether a checkpoint folder is whole, so that a job can go on from it.

The rule this module protects: a damaged checkpoint costs the iterations since the one before it,
never the job. Imports no MLX: the worker asks before it hands the folder to the engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from workers.files import sha256_of

STATE = "state.json"
DIGESTS = "sha256"


def is_whole(folder: Path) -> bool:
    """Say whether the state can be read and the files that it lists are as they were written.

    The state lists files with their SHA-256 under ``DIGESTS``, if there are any beside it. It is
    deleted from older checkpoints of a training, which nothing goes on from.
    """
    try:
        state = json.loads((folder / STATE).read_bytes())
        return isinstance(state, dict) and damaged_file(folder, state.get(DIGESTS, {})) is None
    except (OSError, ValueError):
        return False


def damaged_file(folder: Path, digests: Mapping[str, str]) -> str | None:
    """Return the first of these files that is missing or has another SHA-256, None if none."""
    for name, digest in digests.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            return name
    return None
