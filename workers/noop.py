"""The job kind that does nothing, for tests and benchmarks.

The rule this module protects: it behaves at safe points as a real kind must, and costs nothing, so
that a measured job is the queue's own work. Imports no MLX.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import cast

from daemon.errors import JobError
from daemon.specs import NoopSpec
from workers.events import Checkpoint, Event, Progress, SafePoint, Stopped
from workers.files import write_json
from workers.kinds import Context, Request

# Seconds between safe points while a step takes its time.
_SLICE = 0.02
_STATE = "state.json"


def run(context: Context) -> Iterator[Event]:
    """Pass ``steps`` safe points, each after ``step_seconds``, with a checkpoint now and then."""
    spec = cast("NoopSpec", context.spec)
    done = saved = _resumed_at(context)
    yield Progress(done=done, total=spec.steps)
    _fail_at(spec, done)
    if spec.deaf:
        time.sleep(spec.step_seconds * max(1, spec.steps - done))
    while done < spec.steps:
        if not spec.deaf:
            yield from _pass_time(context, spec.step_seconds)
        if context.control.request is not None:
            break
        done += 1
        _fail_at(spec, done)
        yield Progress(done=done, total=spec.steps)
        if spec.checkpoint_every and done % spec.checkpoint_every == 0:
            yield _write_checkpoint(context, done)
            saved = done
    if context.control.request is Request.STOP and done < spec.steps:
        if spec.checkpoint_every and saved < done:
            yield _write_checkpoint(context, done)
        yield Stopped()


def _pass_time(context: Context, seconds: float) -> Iterator[Event]:
    """Sleep in short slices, with a safe point after each; a wish ends it."""
    while seconds > 0 and context.control.request is None:
        time.sleep(min(_SLICE, seconds))
        seconds -= _SLICE
        yield SafePoint()


def _fail_at(spec: NoopSpec, done: int) -> None:
    if done == spec.fail_at:
        raise JobError(f"noop failed at step {done}, as its spec says")


def _resumed_at(context: Context) -> int:
    """Return the step of the checkpoint to go on from, 0 without one."""
    if context.checkpoint is None:
        return 0
    return int(json.loads((context.checkpoint / _STATE).read_bytes())["step"])


def _write_checkpoint(context: Context, step: int) -> Checkpoint:
    """Write the step to a folder of its own, synced."""
    name = f"checkpoint-{step}"
    folder = context.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / _STATE, {"step": step})
    return Checkpoint(step=step, folder=name, files=(f"{name}/{_STATE}",))
