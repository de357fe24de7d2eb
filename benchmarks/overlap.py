"""The tutorial's unified memory: what the CPU does beside the denoising, and what that saves.

    python benchmarks/overlap.py MODEL | --shape sd21 | --shape shapes

Definitions
    denoising: a batch from its noise to its last latents, by the loop that jobs run.
    alone: the side work by itself, about half as long as the denoising.
    together: the side work begun after the first step, finished when both are done.
    All four are the fastest of several rounds; other processes can only add to them.
    gained: (denoising + alone - together) / the shorter of the two. 100 %: the shorter cost no
        time; 0 %: as if done one after the other; below: they disturb each other.

Rows
    tokenizing: prompts become tokens on the host: between two steps, while the device is at the
        next; or in a thread, which shares Python's lock with the job's. MLX lets a thread go only a
        few tasks ahead of a stream. On a CPU stream these are single operations: there the job's
        thread is busy until a step is nearly done, and work between two steps gains nothing.
    PNG: a finished batch is fetched, encoded and written by the job's threads.
    CPU stream: each picture's values are sorted on ``mx.cpu``: the same array that the device made.
        Without a GPU the network has a CPU stream of its own, and the two share the processors.

On Apple silicon both sides read one memory and only wait for each other. With CUDA an array lies in
the card's memory; when a CPU stream wants it, MLX first copies it to managed memory (its
``backend/cuda/fence.cpp``), and pages come over as they are touched. The last line measures that.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.overlaps import HEADER, Overlap, amount_for, fastest_seconds, line
from benchmarks.startup import add_subject, with_engine_environment

if TYPE_CHECKING:
    import mlx.core as mx

    from benchmarks.side_work import Maker, SideWork


def main() -> int:
    """Measure and print."""
    options = arguments().parse_args()
    with_engine_environment()
    bench = _Bench(options)
    bench.introduce()
    rows = bench.rows()
    crossing = bench.crossing()
    if options.json is not None:
        content = {"rows": [row.to_dict() for row in rows], "crossing_seconds": crossing}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_subject(parser)
    parser.add_argument("--batch", type=int, help="pictures, default 4, on a CPU 2")
    parser.add_argument("--steps", type=int, help="of a batch, default 20, on a CPU 6")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    return parser


class _Bench:
    """One run of the program."""

    def __init__(self, options: argparse.Namespace) -> None:
        import mlx.core as mx

        from benchmarks.diffusion_models import default_dtype, subject
        from benchmarks.mlx_diffusion import make_denoiser
        from workers.diffusion import autoencode
        from workers.memory import configure, on_gpu

        configure()
        chosen = subject(options.model, options.shape, default_dtype())
        self._gpu = on_gpu()
        self._model = chosen.model
        self._batch = options.batch or (4 if self._gpu else 2)
        self._steps = options.steps or (20 if self._gpu else 6)
        self._rounds = options.rounds
        self._stream = None if self._gpu else mx.new_stream(mx.cpu)
        with self._on_stream():
            self._denoiser = make_denoiser(chosen, self._model.size, self._steps)
            latents = self._denoise(lambda _: None)
            self._decoded = autoencode.decode(self._model.vae, latents)
            mx.eval(self._decoded)

    def introduce(self) -> None:
        """Print what is measured on what, and how busy the machine is."""
        from workers.memory import device_kind, device_name

        height, width = self._model.size
        print(
            f"{self._model.name}, {width}x{height}, batch {self._batch}, {self._steps} steps, "
            f"on {device_name()} ({device_kind()}), mlx {metadata.version('mlx')}\n"
            f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors before the first row"
        )
        if not self._gpu:
            print("no GPU here: the network runs on a CPU stream of its own")

    def _on_stream(self) -> AbstractContextManager[Any]:
        import mlx.core as mx

        return nullcontext() if self._stream is None else mx.stream(self._stream)

    def _denoise(self, after_step: Callable[[int], None]) -> mx.array:
        """Denoise a batch; ``after_step`` is called while the next step is computed."""
        import mlx.core as mx

        last = mx.zeros(())
        with self._on_stream():
            for step in self._denoiser.run(range(self._batch)):
                after_step(step.index)
                last = step.latents
        return last

    def _main(self) -> None:
        self._denoise(lambda _: None)

    def _side(self, work: SideWork) -> None:
        work.begin()
        for index in range(self._steps):
            work.part(index, self._steps)
        work.finish()

    def _one_after_the_other(self, work: SideWork) -> None:
        self._main()
        self._side(work)

    def _together(self, work: SideWork) -> None:
        def after_step(index: int) -> None:
            if index == 0:
                work.begin()
            work.part(index, self._steps)

        self._denoise(after_step)
        work.finish()

    def rows(self) -> list[Overlap]:
        """Measure and print one row for each kind of side work."""
        print(f"\n{HEADER}", flush=True)
        rows = []
        for name, maker in self._makers().items():
            rows.append(self._row(name, self._sized(maker)))
            print(line(rows[-1]), flush=True)
        return rows

    def _makers(self) -> dict[str, Maker]:
        from benchmarks.side_work import Encoding, Sorting, TokenizingBeside, TokenizingBetween

        return {
            "tokenizing between the steps": partial(TokenizingBetween, self._model),
            "tokenizing in a thread": partial(TokenizingBeside, self._model),
            "PNG in the writer's threads": partial(Encoding, self._decoded),
            "sorting on the CPU stream": partial(Sorting, self._decoded),
        }

    def _sized(self, maker: Maker) -> SideWork:
        """Return so much of the work as takes about half as long as the denoising."""
        one = maker(1)
        self._side(one)
        taken = fastest_seconds(
            {"main": self._main, "side": partial(self._side, one)}, 2, time.perf_counter
        )
        return maker(amount_for(taken["main"], taken["side"]))

    def _row(self, name: str, work: SideWork) -> Overlap:
        actions: dict[str, Callable[[], None]] = {
            "main": self._main,
            "side": partial(self._side, work),
            "after_each_other": partial(self._one_after_the_other, work),
            "together": partial(self._together, work),
        }
        seconds = fastest_seconds(actions, self._rounds, time.perf_counter)
        return Overlap(name=name, amount=work.amount, **seconds)

    def crossing(self) -> dict[str, float]:
        """Print what it costs that a CPU stream reads an array of the GPU; nothing without one."""
        if not self._gpu:
            return {}
        from benchmarks.side_work import crossing_seconds

        taken = crossing_seconds(self._decoded)
        parts = ", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in taken.items())
        print(f"\nsum over {self._decoded.nbytes / 2**20:.1f} MiB made by the GPU: {parts}")
        return taken


if __name__ == "__main__":
    raise SystemExit(main())
