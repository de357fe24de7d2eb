"""The MLX tutorial's table: step-images per second by batch, with guidance.

    python benchmarks/diffusion.py MODEL                    a model folder or single file
    python benchmarks/diffusion.py --shape sd21 --torch     random weights, beside diffusers
    python benchmarks/diffusion.py --shape shapes           the demo model's shape, on any CPU

Definitions
    step-images per second: steps times pictures, divided by the time from the call that draws a
        batch's noise until its last step's latents are there; guidance on (each step sends two rows
        through the network), DDIM, nothing decoded. The loop is the one that jobs run
        (``workers.diffusion.denoise``). The median of several runs stands in the table, ± the
        farthest run.
    warm-up: the first three steps at that batch size, compilation included; not in the rate.
    peak: the most memory in the allocator's books during the warm-up, weights included.
    TFLOP/s: the rate times the operations of a step-image (``diffusion_work``: a whole forward pass
        for each row, two operations for a multiplication with its addition).
    of products: these operations beside the best that large square matrix products reached on this
        device in the same type, measured at the start.
    diffusers: PyTorch's own UNet of the same configuration in the same type, see
        ``torch_diffusion``; contenders run in turn, in changing order, in this process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import diffusion_table as table
from benchmarks.kernel_profile import Profile, watch, write_profiles
from benchmarks.kernel_profile import missing_reason as no_profile
from benchmarks.rates import Cell, Contender, Plan, measure
from benchmarks.startup import add_subject, with_engine_environment
from benchmarks.torch_diffusion import missing_reason as no_torch

PACKAGES = ("mlx", "torch", "diffusers", "numpy")
PROFILED_STEPS = 4


def main() -> int:
    """Measure and print; 1 if studioq's own loop failed somewhere."""
    options = arguments().parse_args()
    with_engine_environment()
    profiling = _wanted(options.profile, "profile", no_profile)
    rivals = _wanted(options.torch, "PyTorch's columns", no_torch)
    bench = _Bench(options, rivals=rivals, profiling=profiling)
    bench.introduce()
    bench.measure_all()
    bench.finish()
    return 0 if bench.sound else 1


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_subject(parser)
    parser.add_argument("--size", type=int, help="height and width, default the model's own")
    parser.add_argument("--batches", type=int, nargs="+", default=list(table.BATCHES))
    parser.add_argument("--steps", type=int, help="of one run, default 50, on a CPU 4")
    parser.add_argument("--rounds", type=int, default=3, help="runs for each cell at least")
    parser.add_argument("--seconds", type=float, default=0.0, help="for each cell at least")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--torch", action="store_true", help="PyTorch's diffusers beside it")
    parser.add_argument("--torch-mode", default="default", help="of torch.compile")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="write a table of kernels")
    parser.add_argument(
        "--buffer-cache",
        type=float,
        metavar="GIB",
        help="what MLX keeps unused, default the engine's",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    return parser


def _wanted(asked: object, what: str, missing: Any) -> bool:
    """Say whether something was asked for and can be had; say why if it cannot.

    PyTorch is imported here, before MLX: its profiler must come first.
    """
    if not asked:
        return False
    reason = missing()
    if reason is not None:
        print(f"no {what}: {reason}", flush=True)
    return reason is None


class _Bench:
    """One run of the program."""

    def __init__(self, options: argparse.Namespace, *, rivals: bool, profiling: bool) -> None:
        from benchmarks.diffusion_models import subject
        from benchmarks.mlx_diffusion import StudioqDenoising, matmul_flops
        from workers.memory import Limits, configure, on_gpu

        cache = options.buffer_cache
        configure(Limits(buffer_cache_bytes=int(cache * 2**30)) if cache is not None else None)
        self._options = options
        self._profiling = profiling
        self._steps = options.steps or (50 if on_gpu() else 4)
        self._dtype = _dtype(options.dtype)
        self._ceiling = matmul_flops(self._dtype)
        self._subject = subject(options.model, options.shape, self._dtype)
        self._size = (options.size, options.size) if options.size else self._subject.model.size
        self._own = StudioqDenoising(self._subject, self._size, self._steps)
        others = self._torch_contenders() if rivals else []
        self._contenders: list[Contender] = [self._own, *others]
        names = [other.name for other in others]
        self._columns = table.table_columns(self._scale(), names)
        self._rows: list[list[Cell]] = []
        self._profiles: list[Profile] = []

    @property
    def sound(self) -> bool:
        """Whether studioq's loop did everything, and gave finite numbers."""
        return self._own.finite and all(row[0].failure is None for row in self._rows)

    def _work(self) -> Any:
        from benchmarks.diffusion_work import unet_work

        return unet_work(self._subject.model.unet.config, *self._latents())

    def _latents(self) -> tuple[int, int]:
        factor = self._subject.model.vae.config.factor
        return self._size[0] // factor, self._size[1] // factor

    def _scale(self) -> table.Scale:
        return table.Scale(
            flops_per_step_image=self._own.rows * self._work().total, ceiling=self._ceiling
        )

    def _torch_contenders(self) -> list[Contender]:
        from benchmarks.torch_diffusion import CompiledDenoising, EagerDenoising, TorchLoop

        try:
            loop = TorchLoop(
                self._subject.unet,
                latents=self._latents(),
                dtype=str(self._dtype).rpartition(".")[2],
                steps=self._steps,
            )
        except Exception as error:  # noqa: BLE001 - studioq's own column does not need it
            print(f"no PyTorch's columns: {type(error).__name__}: {error}", flush=True)
            return []
        return [EagerDenoising(loop), CompiledDenoising(loop, self._options.torch_mode)]

    def introduce(self) -> None:
        """Print what is measured on what, and the table's head."""
        work, facts = self._work(), self._facts()
        print(
            f"{facts['model']}, {self._size[1]}x{self._size[0]}, {self._own.rows} rows a picture, "
            f"{self._steps} steps a run, {facts['dtype']}\n"
            f"on {facts['device']}; {facts['versions']}; mx.compile {facts['compile']}\n"
            f"one forward pass: {work.total / 1e12:.4g} TFLOP (convolutions "
            f"{work.convolutions / 1e12:.3g}, linear layers {work.linears / 1e12:.3g}, attention "
            f"{work.attention / 1e12:.3g}); a step-image {self._own.rows} of them\n"
            f"large products reach {table.tera(self._ceiling)} TFLOP/s\n"
            f"{table.TUTORIAL_SAYS}\n\n"
            f"{table.header(self._columns)}",
            flush=True,
        )

    def _facts(self) -> dict[str, Any]:
        from workers.memory import device_kind, device_name

        versions = {name: _version(name) for name in PACKAGES}
        present = [f"{name} {version}" for name, version in versions.items() if version]
        return {
            "model": self._subject.model.name,
            "size": list(self._size),
            "steps": self._steps,
            "rows_per_picture": self._own.rows,
            "dtype": str(self._dtype).rpartition(".")[2],
            "device": f"{device_name()} ({device_kind()}, {os.cpu_count()} processors)",
            "versions": ", ".join([*present, f"Python {platform.python_version()}"]),
            "compile": "off" if os.environ.get("MLX_DISABLE_COMPILE") else "on",
            "torch_mode": self._options.torch_mode,
            "flops_per_step_image": self._scale().flops_per_step_image,
            "matmul_flops": self._ceiling,
        }

    def measure_all(self) -> None:
        """Measure and print row by row, so that an interrupted run has told something."""
        options = self._options
        plan = Plan(steps=self._steps, rounds=options.rounds, seconds=options.seconds)
        for batch in options.batches:
            row = measure(self._contenders, batch, plan, time.perf_counter)
            self._rows.append(row)
            print(table.line(self._columns, row), flush=True)
            if self._profiling:
                self._profile(batch, row)
            for contender in self._contenders:
                contender.release()
            self._write()

    def _profile(self, batch: int, row: Sequence[Cell]) -> None:
        for contender, cell in zip(self._contenders, row, strict=True):
            if cell.failure is None:
                self._watch(contender, batch)

    def _watch(self, contender: Contender, batch: int) -> None:
        title = f"{contender.name}, batch {batch}"
        try:
            seen = watch(title, lambda: contender.few(batch, PROFILED_STEPS), PROFILED_STEPS)
        except Exception as error:  # noqa: BLE001 - a profile is a help, not a condition
            print(f"no profile of {title}: {type(error).__name__}: {error}", flush=True)
        else:
            self._profiles.append(seen)

    def _write(self) -> None:
        if self._options.json is not None:
            cells = [cell.to_dict() for row in self._rows for cell in row]
            content = json.dumps({**self._facts(), "cells": cells}, indent=1)
            self._options.json.write_text(content + "\n", encoding="utf-8")
        if self._profiles:
            write_profiles(self._options.profile, self._profiles)

    def finish(self) -> None:
        """Print what failed, and where the files are."""
        for text in [failure for row in self._rows for failure in table.failures(row)]:
            print(text)
        if not self._own.finite:
            print("studioq's latents were not finite: the rates above are of no picture")
        for profile in self._profiles:
            print(f"\n{profile.summary()}", end="")


def _dtype(name: str | None) -> Any:
    import mlx.core as mx

    from benchmarks.diffusion_models import default_dtype

    return getattr(mx, name) if name else default_dtype()


def _version(package: str) -> str | None:
    """Return the version of a package, None unless it takes part."""
    if package not in sys.modules and package != "mlx":
        return None
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    raise SystemExit(main())
