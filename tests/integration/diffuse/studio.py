"""Diffusion jobs of seconds, run as the engine runs them, and what is left of them on the disk.

The rule this module protects: pictures are compared as a user gets them, in files. Of one batch
size they are equal byte for byte; of different ones up to the rounding of the matrix products,
which a BLAS library sums in another order for another shape: ``alike`` says how far.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from daemon.specs import DiffuseSpec, InputFile
from tests.unit.diffusion import tiny
from workers import diffuse
from workers.diffusion.sheet import SHEET
from workers.events import Artifact, Checkpoint, Event, Facts, Log, Metric, Progress
from workers.kinds import Context, Control
from workers.models import ModelCache

E = TypeVar("E", bound=Event)
Pixels = npt.NDArray[np.int16]

HASH = "0" * 64
# What a job takes if a test says nothing else: 16 by 16 pixels in three steps.
USUAL: Mapping[str, Any] = {
    "prompt": "a red circle left of the blue square",
    "model": "tiny",
    "seed": 7,
    "steps": 3,
    "cfg": 4.0,
    "width": 16,
    "height": 16,
}


@dataclass
class Job:
    """One attempt: its context and the events that it has yielded so far."""

    context: Context
    events: list[Event] = field(default_factory=list)

    def start(self) -> Iterator[Event]:
        """Run the job; its events are kept as they come."""
        for event in diffuse.run(self.context):
            self.events.append(event)
            yield event

    def run(self) -> Job:
        """Run the job to its end."""
        for _ in self.start():
            pass
        return self

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def folder(self) -> Path:
        """The attempt's folder."""
        return self.context.folder

    @property
    def log(self) -> str:
        """The job's log."""
        return "\n".join(event.text for event in self.of(Log))

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the job was made with."""
        return self.of(Facts)[0].facts

    @property
    def steps(self) -> list[int]:
        """How many steps of all pictures were done, at each report that brought some."""
        found = dict.fromkeys(steps for _, steps in self.reports())
        return [steps for steps in found if steps > self.facts["steps_done"] * self.resumed]

    @property
    def resumed(self) -> int:
        """How many pictures an earlier attempt has made."""
        checkpoint = self.context.checkpoint
        return int(checkpoint.name.removeprefix("done-")) if checkpoint else 0

    def reports(self) -> Iterator[tuple[int, int]]:
        """Yield from each report of progress how many pictures are written, and all their steps."""
        written = self.resumed
        for event in self.events:
            if isinstance(event, Metric):
                written = event.step
            if isinstance(event, Progress):
                yield written, event.done - written

    @property
    def numbers(self) -> Mapping[str, float]:
        """The last numbers measured."""
        return self.of(Metric)[-1].values

    def published(self) -> list[str]:
        """Return the names of what users may fetch, in the order in which it was said."""
        names: list[str] = []
        for event in self.events:
            if isinstance(event, Artifact):
                names.append(event.path)
            if isinstance(event, Checkpoint):
                names += event.files
        return names

    def checkpoint(self) -> Path | None:
        """Return the newest checkpoint's folder."""
        found = self.of(Checkpoint)
        return self.folder / found[-1].folder if found else None

    def names(self) -> list[str]:
        """Return the names of all files in the attempt's folder, hidden ones too."""
        return sorted(path.name for path in self.folder.iterdir() if path.is_file())

    def files(self) -> dict[str, bytes]:
        """Return what was published, by name."""
        return {name: (self.folder / name).read_bytes() for name in self.published()}

    def pictures(self) -> list[Pixels]:
        """Return the pixels of every picture, (height, width, 3)."""
        return [pixels(path) for path in sorted(self.folder.glob("image-*.png"))]

    def picture(self) -> Pixels:
        """Return the pixels of the only picture."""
        (only,) = self.pictures()
        return only


class Studio:
    """Makes jobs over one cache of models; each attempt gets a folder of its own."""

    def __init__(self, folder: Path, cache: ModelCache, model: Path) -> None:
        self.folder = folder
        self.cache = cache
        self.model = model
        self._attempts = 0

    def job(
        self,
        *,
        model: Path | None = None,
        image: Path | None = None,
        mask: Path | None = None,
        lora: Iterable[tuple[Path, float]] = (),
        checkpoint: Path | None = None,
        **options: Any,
    ) -> Job:
        """Make an attempt; ``options`` are those of the spec, files are given as paths."""
        self._attempts += 1
        attempt = self.folder / f"attempt-{self._attempts}"
        attempt.mkdir()
        inputs = {place: path for place, path in (("image", image), ("mask", mask)) if path}
        loras = list(lora)
        spec = {**USUAL, **{place: named(path) for place, path in inputs.items()}, **options}
        if loras:
            spec["lora"] = [{"file": named(path), "scale": scale} for path, scale in loras]
        context = Context(
            job=1,
            attempt=self._attempts,
            spec=DiffuseSpec(**spec),
            folder=attempt,
            models=self.cache,
            inputs=inputs | {f"lora.{index}.file": path for index, (path, _) in enumerate(loras)},
            model=model or self.model,
            checkpoint=checkpoint,
            control=Control(),
        )
        return Job(context)

    def run(self, **options: Any) -> Job:
        """Make an attempt and run it to its end."""
        return self.job(**options).run()

    def drawing(self, name: str, height: int = 32, width: int = 32) -> Path:
        """Write a picture of smooth waves that ``name`` seeds."""
        return self.write(name, tiny.picture(name, height, width))

    def write(self, name: str, drawn: npt.NDArray[np.uint8]) -> Path:
        """Write pixels as a PNG file."""
        path = self.folder / f"{name}.png"
        Image.fromarray(drawn).save(path)
        return path


def named(path: Path) -> InputFile:
    """Return a file as a spec cites it."""
    return InputFile(name=path.name, sha256=HASH)


def pixels(path: Path) -> Pixels:
    """Return a picture's pixels as numbers whose differences do not wrap around."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int16)


def alike(ours: Iterable[Pixels], theirs: Iterable[Pixels]) -> bool:
    """Say whether pictures are equal but for rounding: one level, in a fiftieth of the values."""
    for one, other in zip(ours, theirs, strict=True):
        difference = np.abs(one - other)
        if difference.max() > 1 or np.count_nonzero(difference) > one.size / 50:
            return False
    return True


def same(ours: Job, theirs: Job) -> bool:
    """Say whether two jobs have published the same files, byte for byte."""
    return ours.files() == theirs.files()


__all__ = ["SHEET", "USUAL", "Job", "Pixels", "Studio", "alike", "named", "pixels", "same"]
