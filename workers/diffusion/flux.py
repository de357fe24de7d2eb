"""The job kind ``diffuse`` for FLUX, Z-Image and Qwen-Image models, run by ``mflux``.

The rule this module protects: a step that was reported was computed. mflux calls back before it
evaluates a step, so the latents are evaluated here first, and looked at for NaN.

What was never run: macOS, Metal, and real weights. mflux 0.24.0 itself was run end to end on a
CPU with tiny random networks of each family; docs/mflux.md says what of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import mlx.core as mx
import numpy as np

from daemon.errors import JobError, NonFiniteError
from daemon.size import Size
from daemon.specs import DiffuseSpec
from workers.diffusion.metadata import LoraFact, PictureFacts, lora_hash, text_chunks
from workers.diffusion.mflux_models.album import Album
from workers.diffusion.mflux_models.handover import reports_of
from workers.diffusion.mflux_models.loading import (
    MFLUX,
    MfluxModel,
    apply_loras,
    require_finite,
    versions,
)
from workers.diffusion.mflux_models.variants import (
    SIDE,
    SIDE_STEP,
    arguments,
    notes,
    recorded,
    refuse_unusable,
    require,
)
from workers.diffusion.noise import image_seed
from workers.diffusion.originals import load_picture, resized
from workers.diffusion.pictures import Pixels
from workers.events import Event, Facts, Log, Progress, SafePoint, Stopped
from workers.failures import memory_errors
from workers.kinds import Context, Request
from workers.language.headers import read_safetensors_header
from workers.provenance import provenance

Events = Generator[Event, None, None]
Report = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What all pictures of one job share; ``scratch`` is a folder that goes when the job ends."""

    context: Context
    spec: DiffuseSpec
    model: MfluxModel
    scratch: Path

    def asked(self) -> bool:
        """Say whether the job is to end now, for good or for a while."""
        return self.context.control.request is not None


def run(context: Context) -> Iterator[Event]:
    """Make the pictures of a ``DiffuseSpec`` whose model is one of mflux's, one after the other.

    Raises:
        ModelError: mflux is not installed, or the model or a LoRA file cannot be used.
        JobError: an option that such models do not have; the image is not a picture.
        OutOfMemoryError, DiskFullError, NonFiniteError: as their names say.
    """
    spec, path = context.spec, context.model
    if not isinstance(spec, DiffuseSpec) or path is None:
        raise JobError("a diffuse job needs a DiffuseSpec and a model")
    variant = require(path, spec.model)
    refuse_unusable(spec, variant)
    for note in notes(spec, variant):
        yield Log(text=note)
    if not context.models.is_loaded(path):
        yield Log(text=f"Loading {spec.model} ({variant.title}) with mflux")
    with (
        memory_errors("making pictures with mflux"),
        context.models.borrow_with(MFLUX, path) as model,
        tempfile.TemporaryDirectory() as scratch,
    ):
        yield SafePoint()
        yield from _pictures(_Run(context=context, spec=spec, model=model, scratch=Path(scratch)))


def _pictures(run: _Run) -> Events:
    spec = run.spec
    size, chosen = _inputs(run)
    loras = tuple(_loras(run))
    for line in _applied(run, loras):
        yield Log(text=line)
    facts = {f"version_{name}": version for name, version in versions().items()}
    yield Facts(facts={**provenance(run.model), **facts, "engine": "mflux"})
    album = Album(run.context.folder, spec, size)
    yield from album.resume(run.context.checkpoint)
    if album.count:
        yield Log(text=f"{album.count} pictures were there already")
    while album.count < spec.n_images and not run.asked():
        index, seed = album.count, image_seed(spec.seed, album.count)
        pixels = yield from _picture(run, index, {**chosen, "seed": seed})
        if pixels is None:
            break
        yield from album.write(pixels, _chunks(run, index, seed, size, loras))
        run.context.control.unpublished = album.is_behind
        yield _progress(spec, index + 1, 0)
    if run.context.control.request is Request.STOP and album.count < spec.n_images:
        yield Stopped()
        return
    if album.count < spec.n_images and run.context.control.request is not Request.CANCEL:
        yield Log(text=f"Finished as asked, after {album.count} of {spec.n_images} pictures")
    yield from album.publish()


def _picture(
    run: _Run, index: int, chosen: Mapping[str, Any]
) -> Generator[Event, None, Pixels | None]:
    """Make one picture, yielding after every step; return its (height, width, 3) pixels.

    None: the job was asked to end before the last step.
    """

    def generate(report: Report) -> Any:
        network = run.model.network
        network.callbacks = type(network.callbacks)()
        network.callbacks.register(_Steps(report))
        return network.generate_image(**chosen).image

    with closing(reports_of(generate)) as reports:
        try:
            while True:
                done = next(reports)
                if done == run.spec.steps:
                    run.context.control.unpublished = True
                yield _progress(run.spec, index, done)
                if run.asked() and done < run.spec.steps:
                    return None
        except StopIteration as end:
            return np.asarray(end.value.convert("RGB"))
        except NonFiniteError as error:
            raise NonFiniteError(
                f"image {index} (seed {chosen['seed']}) is not a picture: {error.message}",
                remedy="use a lower --cfg, or smaller scales of LoRA files",
            ) from None


def _progress(spec: DiffuseSpec, pictures: int, steps: int) -> Progress:
    """Return how far the job is: each picture takes its steps, and one more for what is left then.

    That is decoding and writing. ``steps``: those of the next picture that are done.
    """
    work = spec.steps + 1
    return Progress(done=pictures * work + steps, total=spec.n_images * work)


@dataclass(frozen=True)
class _Steps:
    """mflux's in-loop callback: evaluates a step, then reports how many are done."""

    report: Report

    def call_in_loop(self, t: int, latents: mx.array, **_others: Any) -> None:
        """Be called after step ``t`` (from 0) with the latents that are still to be computed."""
        require_finite(latents, f"step {t + 1}")
        self.report(t + 1)


def _chunks(
    run: _Run, index: int, seed: int, size: Size, loras: tuple[LoraFact, ...]
) -> Mapping[str, str]:
    if not run.spec.metadata:
        return {}
    facts = PictureFacts(
        spec=recorded(run.spec),
        index=index,
        seed=seed,
        width=size.width,
        height=size.height,
        fingerprint=run.model.fingerprint,
        packages=versions(),
        loras=loras,
    )
    return text_chunks(facts)


def _inputs(run: _Run) -> tuple[Size, dict[str, Any]]:
    """Return the pictures' size and mflux's arguments, the image (if any) in that size."""
    spec, chosen = run.spec, arguments(run.spec, run.model.variant)
    size = Size(spec.width or SIDE, spec.height or SIDE)
    if spec.image is not None:
        image = load_picture(run.context.inputs["image"], spec.image.name)
        size = Size(spec.width or _fitting(image.width), spec.height or _fitting(image.height))
        chosen["image_path"] = run.scratch / "image.png"
        resized(image, size, "white").save(chosen["image_path"])
    return size, {**chosen, "width": size.width, "height": size.height}


def _fitting(side: int) -> int:
    return max(SIDE_STEP, side - side % SIDE_STEP)


def _loras(run: _Run) -> Iterator[LoraFact]:
    """Check the job's LoRA files and give them names by which MLX and messages know them."""
    for index, lora in enumerate(run.spec.lora):
        file = _lora_path(run, index)
        file.symlink_to(run.context.inputs[f"lora.{index}.file"].resolve())
        read_safetensors_header(file)
        yield LoraFact(name=lora.file.name, scale=lora.scale, hash=lora_hash(file))


def _lora_path(run: _Run, index: int) -> Path:
    stem = PurePath(run.spec.lora[index].file.name).stem
    return run.scratch / f"{index}-{stem}.safetensors"


def _applied(run: _Run, loras: tuple[LoraFact, ...]) -> list[str]:
    """Put the job's LoRA files on the model; return what mflux says of them."""
    if not loras:
        return []
    files = [_lora_path(run, index) for index in range(len(loras))]
    return apply_loras(run.model, files, [lora.scale for lora in loras])
