"""The job kind ``convert``: any readable model as a folder in MLX's layout.

The rule this module protects: the new model has its name when all of it is on the disk, and not
before. Weights files that are finished are kept over an interruption; what an attempt leaves of one
that is not is written anew.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.errors import DiskFullError, JobError
from daemon.specs import ConvertSpec
from daemon.targets import staging_folder
from workers.checkpoints import STATE
from workers.events import (
    Artifact,
    Checkpoint,
    Event,
    Facts,
    Log,
    Metric,
    Progress,
    SafePoint,
    Stopped,
)
from workers.failures import memory_errors
from workers.files import sha256_of, write_json
from workers.kinds import Context, Request
from workers.language import formats
from workers.language.adapters import WEIGHTS
from workers.language.conversion.folder import PROVENANCE, read_provenance, write_folder
from workers.language.conversion.plan import Plan, make_plan
from workers.language.conversion.publication import exists, link_files, prepare, publish, unwritable
from workers.language.conversion.shards import SHARD_BYTES, Shard, split, write_shard
from workers.language.formats import ModelFiles
from workers.language.load import open_source
from workers.language.source import ModelSource
from workers.provenance import provenance

MODEL = "model"
_MB = 1_000_000

Events = Generator[Event, None, None]
Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The model that is read; what ``workers.provenance`` needs of it."""

    fingerprint: str
    bytes: int


def run(
    context: Context, clock: Clock = time.perf_counter, *, shard_bytes: int = SHARD_BYTES
) -> Iterator[Event]:
    """Convert the model of a ``ConvertSpec`` into ``context.target``.

    ``shard_bytes`` is the most that one weights file takes.

    Raises:
        ModelError: the model or adapter cannot be read, the change asked for is impossible, or
            something else has the name.
        OutOfMemoryError, DiskFullError: as their names say.
    """
    spec, path, target = context.spec, context.model, context.target
    if not isinstance(spec, ConvertSpec) or path is None or target is None:
        raise JobError("a convert job needs a ConvertSpec, a model and a target")
    files = formats.find_model_files(path)
    fingerprint = formats.fingerprint(files)
    key = _key(spec, fingerprint, context.adapter)
    if os.path.lexists(target) and read_provenance(target).get("key") != key:
        raise exists(target, "made from something else or in another way")
    # From here on a cancel is heard at a safe point, where what is half done can be removed.
    context.control.unpublished = True
    yield SafePoint()
    with open_source(files) as source:
        plan = make_plan(source, spec, context.adapter)
    read = sum(tensor.bytes for tensor in source.tensors.values())
    yield Facts(facts=provenance(_Source(fingerprint=fingerprint, bytes=read), context.adapter))
    job = _Conversion(
        context=context,
        spec=spec,
        files=files,
        source=source,
        plan=plan,
        shards=split(plan, shard_bytes),
        target=target,
        key=key,
        clock=clock,
    )
    try:
        yield from job.events()
    except OSError as error:
        shutil.rmtree(job.staging, ignore_errors=True)
        raise unwritable(target, error) from None
    except Exception:
        shutil.rmtree(job.staging, ignore_errors=True)
        raise


def _key(spec: ConvertSpec, fingerprint: str, adapter: Path | None) -> str:
    """Return the hash of what decides the new model's content: source, adapter, options."""
    options = spec.model_dump(mode="json", exclude={"seed", "model", "to", "fuse"})
    merged = None if adapter is None else sha256_of(adapter / WEIGHTS)
    text = json.dumps([fingerprint, merged, options], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(kw_only=True, slots=True)
class _Conversion:
    """One attempt at a conversion; bytes are counted as they are written.

    ``bytes_before``: what earlier attempts have written.
    """

    context: Context
    spec: ConvertSpec
    files: ModelFiles
    source: ModelSource
    plan: Plan
    shards: tuple[Shard, ...]
    target: Path
    key: str
    clock: Clock
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_before: int = 0

    @property
    def staging(self) -> Path:
        """Where the model is put together."""
        return staging_folder(self.target, self.context.job)

    @property
    def name(self) -> str:
        """What the new model is called."""
        return f"{self.target.parent.name}/{self.target.name}"

    def events(self) -> Events:
        """Write all files, then publish the folder; end early if that is asked for."""
        yield Log(text=self._heading())
        finished = self._finished_before()
        prepare(self.staging, keep=bool(finished))
        yield self._progress()
        self._check_space(finished)
        started = self.clock()
        for number, shard in enumerate(self.shards, start=1):
            if shard.name in finished:
                self.bytes_before += sum(spec.bytes for spec in shard.tensors.values())
                continue
            if (yield from self._write(shard)):
                return
            yield self._checkpoint(number)
        yield from self._publish(self.clock() - started)

    def _heading(self) -> str:
        plan, spec = self.plan, self.spec
        how = [f"{plan.bits_per_weight:.3g} bits per weight"]
        if spec.quantize is not None:
            how.insert(0, f"quantized: {spec.quantize}, group size {spec.grouping}")
        if spec.fuse is not None:
            how.append("adapter fused")
        return (
            f"Converting {spec.model} ({self.files.format}, {plan.config.get('model_type')}, "
            f"{plan.parameters / 1e6:.3f}M parameters) to {self.name}: {'; '.join(how)}; "
            f"{plan.bytes / 1e6:.1f} MB in {len(self.shards)} file(s)"
        )

    def _finished_before(self) -> frozenset[str]:
        """Return the weights files of an earlier attempt that are whole and still wanted."""
        if self.context.checkpoint is None:
            return frozenset()
        state = json.loads((self.context.checkpoint / STATE).read_bytes())
        if state.get("key") != self.key:
            return frozenset()
        sizes: dict[str, int] = state["files"]
        known = {shard.name for shard in self.shards}
        return frozenset(
            name for name, size in sizes.items() if name in known and self._size(name) == size
        )

    def _check_space(self, finished: frozenset[str]) -> None:
        """Refuse to begin what the disk has no room for."""
        missing = sum(
            spec.bytes
            for shard in self.shards
            if shard.name not in finished
            for spec in shard.tensors.values()
        )
        free = shutil.disk_usage(self.staging).free
        if missing > free:
            raise DiskFullError(
                f"the disk has {free / 1e9:.1f} GB free, and {self.name} needs "
                f"{missing / 1e9:.1f} GB more",
                remedy=f"free space at {self.target.parent}, then studioq retry {self.context.job}",
            )

    def _size(self, name: str) -> int | None:
        path = self.staging / name
        return path.stat().st_size if path.is_file() else None

    def _write(self, shard: Shard) -> Generator[Event, None, bool]:
        """Write one file; return whether the attempt is to end now."""
        with memory_errors("converting"):
            for written in write_shard(self.source, self.plan, shard, self.staging):
                self.bytes_written += written
                yield self._progress()
                if (yield from self._asked_to_end()):
                    return True
        units = (self.plan.units[place] for place in shard.units)
        self.bytes_read += sum(self.source.bytes_of(unit.names) for unit in units)
        return False

    def _progress(self) -> Progress:
        """Say how many megabytes are written, begun ones included."""
        done = self.bytes_before + self.bytes_written
        return Progress(done=math.ceil(done / _MB), total=math.ceil(self.plan.bytes / _MB))

    def _asked_to_end(self) -> Generator[Event, None, bool]:
        match self.context.control.request:
            case Request.STOP:
                yield Stopped()
                return True
            case Request.CANCEL:
                shutil.rmtree(self.staging, ignore_errors=True)
                return True
            case _:
                return False

    def _checkpoint(self, number: int) -> Checkpoint:
        """Note the files that are finished, from which a later attempt goes on."""
        folder = f"checkpoint-{number}"
        (self.context.folder / folder).mkdir(exist_ok=True)
        sizes = {shard.name: self._size(shard.name) for shard in self.shards[:number]}
        write_json(self.context.folder / folder / STATE, {"key": self.key, "files": sizes})
        return Checkpoint(step=number, folder=folder)

    def _publish(self, seconds: float) -> Events:
        """Write what lies beside the weights, give the folder its name and say what it took."""
        write_folder(self.staging, self.files, self.source.tokenizer, self.plan, self.shards)
        write_json(self.staging / PROVENANCE, self._provenance())
        names = link_files(self.staging, self.context.folder / MODEL)
        yield from (Artifact(path=f"{MODEL}/{name}", kind="model") for name in names)
        yield from self._report(seconds, fetched=bool(names))
        if (yield from self._asked_to_end()):
            return
        if not publish(self.staging, self.target):
            yield Log(text=f"{self.name} is there already, with the same content")

    def _provenance(self) -> dict[str, Any]:
        spec = self.spec.model_dump(mode="json", exclude={"seed"})
        return {
            "key": self.key,
            "job": self.context.job,
            "source": self.spec.model,
            "source_format": str(self.files.format),
            "spec": spec,
        }

    def _report(self, seconds: float, *, fetched: bool) -> Events:
        """Say how much was read and written, how fast, and how to use it."""
        peak = self.context.memory.peak()
        values = {
            "bytes_read": float(self.bytes_read),
            "bytes_written": float(self.bytes_written),
            "seconds": seconds,
            "bits_per_weight": self.plan.bits_per_weight,
            "peak_memory_bytes": float(peak),
        }
        lines = [
            f"Read {self.bytes_read / 1e6:.1f} MB and wrote {self.bytes_written / 1e6:.1f} MB in "
            f"{seconds:.2f} s; peak memory {peak / 1e9:.3f} GB",
            f"Use it as --model {self.name}",
        ]
        if seconds > 0:
            values["bytes_per_second"] = self.bytes_read / seconds
        if not fetched:
            lines.append("It lies on another disk than the jobs, so it cannot be fetched")
        yield Metric(step=len(self.shards), values=values)
        yield Log(text="\n".join(lines))
