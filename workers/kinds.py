"""What a job kind is: a generator of events that gets everything it needs in a context.

A kind never looks for a file, a clock of its own, or another job: it gets resolved paths, a control
to ask at safe points, and the cache of warm models. Imports no MLX, so that the worker can read the
table of kinds; the module of a kind is loaded by the engine when its first job comes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.specs import Spec
from workers.events import Event

if TYPE_CHECKING:
    from workers.models import ModelCache
    from workers.own_memory import OwnMemory


class Request(StrEnum):
    """What the engine may ask of a running job; the job looks at each safe point."""

    FINISH = "finish"
    STOP = "stop"
    CANCEL = "cancel"


@dataclass(slots=True)
class Control:
    """The engine's standing wish for one attempt.

    ``FINISH``: end now as succeeded with what there is. ``STOP``: write a checkpoint, yield
    ``Stopped`` and return; the job is continued later. ``CANCEL``, which a time limit sends too:
    publish what is finished, begin nothing, and return; the attempt ends as cancelled whatever it
    does then. It is asked only while the job says that there is something, by ``unpublished``;
    otherwise a cancelled generator is simply closed.
    """

    request: Request | None = None
    unpublished: bool = False


@dataclass(frozen=True, kw_only=True)
class Context:
    """All that one attempt gets.

    ``folder`` is the attempt's own, empty folder; only files in it can become artifacts.
    ``inputs`` maps a place in the spec (``data.train``) to the uploaded file. ``model`` is the
    model's folder or file, ``adapter`` a folder with ``adapters.safetensors`` and
    ``adapter_config.json``, ``checkpoint`` the folder of this job's last checkpoint if an earlier
    attempt wrote one. ``target`` is where the model shall be that the job makes; it is put together
    at ``daemon.targets.staging_folder(target, job)``. ``memory`` counts, from now on, what the
    attempt holds; models that are kept for others are not in it.
    """

    job: int
    attempt: int
    spec: Spec
    folder: Path
    models: ModelCache
    inputs: Mapping[str, Path] = field(default_factory=dict)
    model: Path | None = None
    adapter: Path | None = None
    checkpoint: Path | None = None
    target: Path | None = None
    control: Control = field(default_factory=Control)
    memory: OwnMemory = field(init=False)

    def __post_init__(self) -> None:
        """Begin to count memory."""
        object.__setattr__(self, "memory", self.models.memory.begin())


Runner = Callable[[Context], Iterator[Event]]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A job kind: where its generator function is, and whether it obeys FINISH and STOP itself."""

    name: str
    module: str
    checkpoints: bool = False

    def load(self) -> Runner:
        """Import the kind's module (and MLX with it) and return its ``run``."""
        module: Any = importlib.import_module(self.module)
        runner: Runner = module.run
        return runner


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(name="train", module="workers.train", checkpoints=True),
        Kind(name="infer", module="workers.infer"),
        Kind(name="diffuse", module="workers.diffuse", checkpoints=True),
        Kind(name="convert", module="workers.convert", checkpoints=True),
        Kind(name="noop", module="workers.noop", checkpoints=True),
    )
}
