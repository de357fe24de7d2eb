"""The job kind ``diffuse``: pictures from a text, from a picture, or within a mask.

The rule this module protects: a picture depends on the spec and its own number alone. Batches,
interruptions and the device decide only how soon it is there. One that has all its steps is
published, whatever the job is asked then; a job that goes on begins with the first that is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import mlx.core as mx

from daemon.errors import JobError
from daemon.specs import DiffuseSpec
from workers.diffusion import flux
from workers.diffusion.denoise import Denoiser, Step
from workers.diffusion.finished import Pictures, batch_size_of
from workers.diffusion.inputs import (
    Inputs,
    apply_lora_files,
    read_inputs,
    read_original,
    settle_size,
)
from workers.diffusion.load import DIFFUSION, DiffusionModel
from workers.diffusion.mflux_models.variants import detect
from workers.diffusion.noise import image_seed
from workers.diffusion.plan import Plan, make_plan
from workers.diffusion.preview import PREVIEW
from workers.diffusion.previewing import Previews
from workers.diffusion.prompts import encode_prompts
from workers.diffusion.samplers import make_sampler
from workers.events import Event, Facts, Log, Metric, Progress, SafePoint, Stopped
from workers.failures import memory_errors
from workers.kinds import Context, Request
from workers.provenance import provenance

# The step of a batch after which the batch before it is fetched: its decoding takes as long as a
# few steps beside them, and fetching waits for it.
_BEHIND = 3

Events = Generator[Event, None, None]
Clock = Callable[[], float]


def run(context: Context, clock: Clock = time.perf_counter) -> Iterator[Event]:
    """Make the pictures of a ``DiffuseSpec``, or those that are missing after its checkpoint.

    Raises:
        ModelError: the model or a LoRA file cannot be used.
        JobError: the image or mask cannot be read, or an option does not suit the model.
        OutOfMemoryError, DiskFullError, NonFiniteError: as their names say.
    """
    spec, path = context.spec, context.model
    if not isinstance(spec, DiffuseSpec) or path is None:
        raise JobError("a diffuse job needs a DiffuseSpec and a model")
    if detect(path) is not None:
        yield from flux.run(context)
        return
    if not context.models.is_loaded(path):
        yield Log(text=f"Loading {spec.model}")
    seconds = context.models.load_seconds(path, DIFFUSION)
    with memory_errors("making pictures"), context.models.borrow_with(DIFFUSION, path) as model:
        yield SafePoint()
        job = yield from _prepared(context, spec, model, seconds, clock)
        try:
            with closing(job.events()) as events:
                for event in events:
                    context.control.unpublished = job.unpublished
                    yield event
        finally:
            job.close()


def _prepared(
    context: Context, spec: DiffuseSpec, model: DiffusionModel, load_seconds: float, clock: Clock
) -> Generator[Event, None, _Job]:
    """Settle and read all that the job's pictures have in common."""
    original = read_original(spec, context.inputs)
    size = settle_size(spec, original, model)
    earlier = batch_size_of(context.checkpoint)
    plan = make_plan(spec, model, size, context.models.free_bytes(), batch_size=earlier)
    inputs = yield from read_inputs(spec, context.inputs, original, model, size)
    return _Job(context, spec, model, plan, inputs, load_seconds, clock)


class _Job:
    """One attempt at a job's pictures."""

    def __init__(
        self,
        context: Context,
        spec: DiffuseSpec,
        model: DiffusionModel,
        plan: Plan,
        inputs: Inputs,
        load_seconds: float,
        clock: Clock,
    ) -> None:
        self._context = context
        self._spec = spec
        self._model = model
        self._plan = plan
        self._inputs = inputs
        self._load_seconds = load_seconds
        self._clock = clock
        self._notes = list(apply_lora_files(model, spec, context.inputs))
        self._pictures = Pictures(context, spec, model, plan, inputs)
        self._previews = Previews(context.folder, spec, model)
        self._begun = clock()
        self._resumed = self._denoised = 0
        self._denoising = 0.0
        self._is_denoised = False

    @property
    def unpublished(self) -> bool:
        """Whether a picture has all its steps and is not published."""
        return self._is_denoised or self._pictures.is_behind

    def close(self) -> None:
        """End the writing; a picture that is half written is not left."""
        self._pictures.close()
        (self._context.folder / PREVIEW).unlink(missing_ok=True)

    def events(self) -> Events:
        """Make and write the pictures, batch by batch."""
        for note in self._notes:
            yield Log(text=note)
        yield Facts(facts={**provenance(self._model), **self._plan.facts()})
        yield Log(text=self._plan.line(self._spec))
        first = yield from self._pictures.resume(self._context.checkpoint)
        if first:
            yield Log(text=f"{first} pictures were there already")
        self._resumed, self._denoised = first, first * self._plan.steps
        denoiser = self._denoiser()
        self._begun = self._clock()
        for batch in self._plan.batches(first):
            if not (yield from self._batch(denoiser, batch)):
                break
        yield from self._ending()

    def _denoiser(self) -> Denoiser:
        spec, plan = self._spec, self._plan
        conditions = encode_prompts(
            self._model, spec.prompt, spec.negative_prompt, guided=plan.guided
        )
        sampler = make_sampler(spec.sampler, plan.scheduler, spec.steps, strength=plan.strength)
        return Denoiser(
            self._model,
            conditions,
            sampler,
            cfg=spec.cfg,
            size=plan.size,
            repaint=self._inputs.repaint,
        )

    def _batch(self, denoiser: Denoiser, batch: range) -> Generator[Event, None, bool]:
        """Denoise a batch and hand it to the writer; False: the job was asked to end."""
        seeds = [image_seed(self._spec.seed, index) for index in batch]
        last, begun = self._start(len(batch)), self._clock()
        with closing(denoiser.run(seeds, self._clean())) as steps:
            for step in steps:
                self._denoised += len(batch)
                begun = self._lap(begun)
                self._is_denoised = step.index + 1 == self._plan.steps
                yield from self._after_step(step)
                if self._asked() and not self._is_denoised:
                    return False
                last = step.latents
        yield from self._reported(self._pictures.collect(fetch=True))
        for tile in self._pictures.decode(batch, last):
            yield tile
            if self._context.control.request is Request.CANCEL:
                return False
        self._is_denoised = False
        return not self._asked()

    def _lap(self, begun: float) -> float:
        """Count the time since ``begun`` as denoising; return the clock's reading."""
        now = self._clock()
        self._denoising += now - begun
        return now

    def _asked(self) -> bool:
        return self._context.control.request is not None

    def _clean(self) -> mx.array | None:
        """Return the latents that are noised first; a mask at strength 1 starts from noise alone.

        As diffusers' inpainting pipelines do (``is_strength_max``), unlike image to image.
        """
        whole = self._inputs.repaint is not None and self._plan.strength == 1
        return None if whole else self._inputs.latents

    def _start(self, count: int) -> mx.array:
        """Return what is decoded if there are no steps (a strength of 0): the picture itself."""
        latents = self._inputs.latents
        return mx.zeros((count, 1, 1, 1)) if latents is None else mx.repeat(latents, count, axis=0)

    def _after_step(self, step: Step) -> Events:
        """Report a step; write what the batch before it has left."""
        yield self._progress()
        self._previews.show(step)
        fetch = step.index == min(_BEHIND, self._plan.steps - 1)
        yield from self._reported(self._pictures.collect(fetch=fetch))

    def _progress(self) -> Progress:
        """Return how much of the work is done: all of it once the last picture is written."""
        before = self._resumed * (self._plan.steps + 1)
        done, total = self._denoised + self._pictures.count, self._plan.work
        each = (self._clock() - self._begun) / (done - before)
        return Progress(done=done, total=total, eta_seconds=each * (total - done))

    def _reported(self, events: Events) -> Events:
        """Pass events on; if they brought pictures, also the progress and the numbers so far."""
        before = self._pictures.count
        yield from events
        if self._pictures.count > before:
            yield Metric(step=self._pictures.count, values=self._numbers())
            yield self._progress()

    def _numbers(self) -> dict[str, float]:
        seconds = self._clock() - self._begun
        done = self._denoised - self._resumed * self._plan.steps
        return {
            "step_images_per_second": done / seconds if seconds else 0.0,
            "denoise_step_images_per_second": done / self._denoising if self._denoising else 0.0,
            "peak_memory_bytes": float(self._context.memory.peak()),
            "load_seconds": self._load_seconds,
        }

    def _ending(self) -> Events:
        """Write what is left; say why there are fewer pictures than asked for, if so."""
        yield from self._reported(self._pictures.finish())
        request, whole = self._context.control.request, self._pictures.count == self._plan.images
        if request in (Request.STOP, Request.CANCEL) and not whole:
            yield from self._pictures.checkpoint()
            yield Stopped()
            return
        if not whole:
            yield Log(
                text=f"Finished as asked, after {self._pictures.count} of "
                f"{self._spec.n_images} pictures"
            )
        yield from self._pictures.publish()
