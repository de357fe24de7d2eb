"""How a job's pictures will be made: size, batches, steps, guidance.

The rule this module protects: everything that can be refused is refused before the first step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from daemon.size import Size
from daemon.specs import DiffuseSpec
from daemon.wording import counted
from workers.diffusion.batching import choose_batch_size
from workers.diffusion.load import DiffusionModel
from workers.diffusion.samplers import make_sampler
from workers.diffusion.schedule import SchedulerConfig


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is settled for all pictures of a job. ``size``: height and width in pixels.

    ``guided``: with a negative side; ``distilled``: the network was taught guidance.
    """

    images: int
    size: tuple[int, int]
    batch_size: int
    steps: int
    strength: float
    guided: bool
    distilled: bool
    scheduler: SchedulerConfig

    @property
    def work(self) -> int:
        """What all pictures take: the steps of each, and its decoding and writing as one more."""
        return self.images * (self.steps + 1)

    def batches(self, first: int) -> Iterator[range]:
        """Yield the numbers of the pictures in each batch, from picture ``first`` on."""
        for start in range(first, self.images, self.batch_size):
            yield range(start, min(start + self.batch_size, self.images))

    def facts(self) -> dict[str, str | int | float | bool]:
        """Return what the ledger records of the plan."""
        height, width = self.size
        return {
            "width": width,
            "height": height,
            "batch_size": self.batch_size,
            "steps_done": self.steps,
            "prediction_type": self.scheduler.prediction_type,
        }

    def line(self, spec: DiffuseSpec) -> str:
        """Return the plan as one line for the job's log."""
        height, width = self.size
        batches = f" in batches of {self.batch_size}" if self.images > 1 else ""
        guidance = f"guidance {spec.cfg:g}" if self.guided or self.distilled else "no guidance"
        return (
            f"{counted(self.images, 'picture')} of {width}x{height}{batches}: "
            f"{counted(self.steps, 'step')} of {spec.sampler}, {guidance}, seed {spec.seed}"
        )


def make_plan(
    spec: DiffuseSpec,
    model: DiffusionModel,
    pixels: Size,
    free_bytes: int | None,
    *,
    batch_size: int | None = None,
) -> Plan:
    """Settle how pictures of a size are made, in batches of ``batch_size`` if an attempt had them.

    Raises:
        OutOfMemoryError: one picture needs more than ``free_bytes``.
        JobError: the sampler cannot do so many steps.
    """
    scheduler = model.scheduler
    if spec.prediction_type is not None:
        scheduler = replace(scheduler, prediction_type=spec.prediction_type)
    strength = spec.strength if spec.image is not None else 1.0
    sampler = make_sampler(spec.sampler, scheduler, spec.steps, strength=strength)
    size = (pixels.height, pixels.width)
    distilled = model.unet.config.time_cond_dim is not None
    guided = spec.cfg not in (0, 1) and not distilled
    free = None if free_bytes is None else max(0, free_bytes - model.unet.fused_bytes())
    return Plan(
        images=spec.n_images,
        size=size,
        batch_size=choose_batch_size(
            model,
            size,
            guided=guided,
            wanted=batch_size or spec.batch_size,
            images=spec.n_images,
            free_bytes=free,
        ),
        steps=len(sampler.timesteps),
        strength=strength,
        guided=guided,
        distilled=distilled,
        scheduler=scheduler,
    )
