"""PyTorch's column of the diffusion table: runs ``torch_child`` and reads what it measured.

The rule this module protects: nothing of PyTorch is imported here. A rival that is missing, fails
or runs out of memory costs its own cells and nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from daemon.bench.record import Figure

_CHILD = Path(__file__).with_name("torch_child.py")


@dataclass(frozen=True, kw_only=True)
class Rival:
    """What PyTorch measured, what to say about it, and its versions, device and type."""

    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] | None = None


def missing() -> str | None:
    """Return which of PyTorch's packages this Python lacks; None if there are all."""
    lacking = [name for name in ("torch", "diffusers", "transformers") if find_spec(name) is None]
    return " and ".join(lacking) or None


def run(
    folder: Path,
    *,
    request: Mapping[str, Any],
    batches: Sequence[int],
    python: str = sys.executable,
) -> Rival:
    """Measure PyTorch on the model in ``folder``, in a process of its own.

    ``request``: prompt, seed, cfg, steps and repeats. ``python``: one that has torch and diffusers.
    """
    job = json.dumps({"path": str(folder), "batches": list(batches), **request})
    done = subprocess.run(
        [python, "-P", str(_CHILD), job], capture_output=True, text=True, check=False
    )
    rival = read(done.stdout, steps=int(request["steps"]))
    if done.returncode and not rival.notes:
        said = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        return Rival(figures=rival.figures, notes=(f"PyTorch failed: {said[0]}",))
    return rival


def read(output: str, *, steps: int) -> Rival:
    """Read the child's lines; whole lines that are no answer of its are left out."""
    answers = [json.loads(line) for line in output.splitlines() if line.startswith('{"batch"')]
    figures: list[Figure] = []
    for answer in answers:
        if "seconds" in answer:
            figures += _figures(answer, steps)
    notes = [
        f"PyTorch at batch {answer['batch']}: {answer['error']}"
        for answer in answers
        if "error" in answer
    ]
    facts = next((_facts(answer) for answer in answers if "seconds" in answer), None)
    return Rival(figures=tuple(figures), notes=tuple(notes), facts=facts)


def _figures(answer: Mapping[str, Any], steps: int) -> list[Figure]:
    batch = int(answer["batch"])
    whole = tuple(seconds / batch for seconds in answer["seconds"])
    rates = tuple(batch * steps / seconds for seconds in answer["denoising"])
    return [
        Figure(
            key=f"torch.seconds_per_picture@{batch}", unit="s", values=whole, lower_is_better=True
        ),
        Figure(key=f"torch.step_pictures_per_sec@{batch}", unit="step-pictures/s", values=rates),
    ]


def _facts(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in ("device", "dtype", "versions")}
